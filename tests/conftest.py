"""What the tests share: a simulated cloud, and the real function in front of it."""

from __future__ import annotations

import gc
import itertools
import logging
import os
import re
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import functions_framework
import pytest
import requests
from hypothesis import HealthCheck, settings
from werkzeug.serving import WSGIRequestHandler, make_server

from handler.simulator import Simulator

ROOT = Path(__file__).parent.parent
STOP = "io.github.bms-autostop.stop.requested.v1"
KEEP = "io.github.bms-autostop.keep.requested.v1"

settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
settings.load_profile("tests")

_ids = itertools.count(1)
_NOT_MEASURED = ("e2e", "harness", "deploy", "test_documents.py")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Measure coverage by the tests that mirror the code alone.

    What whole processes, whole nights and random events reach in passing is not asserted there, and to trace them takes
    as long as all other tests do. pytest-cov's marker `no_cover` has no effect in the workers of pytest-xdist.
    """
    measures = bool(item.config.getoption("cov_source", None)) and not item.config.getoption("no_cov")
    if not measures or item.path.relative_to(ROOT / "tests").parts[0] not in _NOT_MEASURED:
        # Without coverage, a debugger keeps its trace function.
        return (yield)
    here, threads = sys.gettrace(), threading.gettrace()
    sys.settrace(None)
    threading.settrace(None)
    try:
        return (yield)
    finally:
        threading.settrace(threads)
        sys.settrace(here)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name no case after a secret that was made for this run: each worker of one run must find the same names."""
    return argname if re.search("[0-9a-f]{24}", str(val)) else None


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the settings, the login or the proxies of the person who runs it."""
    for name in list(os.environ):
        if name.startswith(("AUTOSTOP_", "OS_", "K_", "OTEL_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture
def cloud() -> Iterator[Simulator]:
    """A cloud whose servers stop at once."""
    with Simulator() as simulator:
        yield simulator


class Function:
    """The function on loopback over real HTTP, loaded by functions-framework as in production."""

    def __init__(self, url: str, type_: str = STOP) -> None:
        self.url = url
        self._type = type_

    def send(
        self, data: Any = None, *, headers: Mapping[str, str] | None = None, **attributes: Any
    ) -> requests.Response:
        """POST one event in binary mode; attributes that are not given are made up, `time` is left out."""
        attributes = {
            "specversion": "1.0",
            "id": f"event-{next(_ids)}",
            "source": "/tests",
            "type": self._type,
            **attributes,
        }
        sent = {f"ce-{name}": value for name, value in attributes.items()}
        if data is not None:
            return requests.post(self.url, json=data, headers={**sent, **(headers or {})}, timeout=60)
        return requests.post(self.url, headers={**sent, **(headers or {})}, timeout=60)

    def stop(self, *server_ids: str, **attributes: Any) -> requests.Response:
        return self.send({"server_ids": list(server_ids)}, **attributes)


class _Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *_: Any, **__: Any) -> None:
        pass


StartFunction = Callable[..., Function]


def _start(monkeypatch: pytest.MonkeyPatch, target: str, type_: str, **defaults: str) -> Iterator[StartFunction]:
    with serving(monkeypatch) as serve:

        def start(cloud: Simulator, **environ: Any) -> Function:
            wanted = {"AUTOSTOP_INBOUND_AUTH": "none", **defaults, **cloud.environ(), **environ}
            return Function(serve(target, wanted), type_)

        yield start


@pytest.fixture
def start_function(monkeypatch: pytest.MonkeyPatch) -> Iterator[StartFunction]:
    """Start the function with settings of one's own: `start_function(cloud, AUTOSTOP_WAIT="0")`."""
    yield from _start(monkeypatch, "stop_servers", STOP, AUTOSTOP_WAIT="5s")


@pytest.fixture
def start_keep(monkeypatch: pytest.MonkeyPatch) -> Iterator[StartFunction]:
    """Start `keep_servers` with settings of one's own: `start_keep(cloud, AUTOSTOP_MAX_KEEP="1h")`."""
    yield from _start(monkeypatch, "keep_servers", KEEP)


@contextmanager
def serving(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, Mapping[str, str]], str]]:
    """A way to serve a target with these settings until the end; it gives back the URL."""
    running: list[tuple[Any, threading.Thread]] = []
    logger = logging.getLogger("handler")
    handlers = logger.handlers[:]

    def serve(target: str, environ: Mapping[str, str]) -> str:
        # The framework sets the target itself, and leaves it behind.
        monkeypatch.setenv("FUNCTION_TARGET", target)
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        app = functions_framework.create_app(target, str(ROOT / "handler" / "main.py"), "http")
        # Here many functions follow each other in one process, and what is theirs becomes garbage.
        gc.unfreeze()
        server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=_Quiet)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        running.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}"

    yield serve
    for server, thread in running:
        server.shutdown()
        thread.join()
        server.server_close()
    # The function logs to the captured stdout of this test.
    logger.handlers = handlers


@pytest.fixture
def function(cloud: Simulator, start_function: StartFunction) -> Function:
    """The function with the settings that most tests want."""
    return start_function(cloud)
