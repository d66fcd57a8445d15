"""Functions in processes of their own, a relay that writes down what passes, and where captures are kept."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import requests

from tests.conftest import ROOT
from tests.support.raw_http import environment

BUILD = ROOT / "build" / "interop"
CAPTURED = ROOT / "tests" / "captured"
# Set if what the programs send is to be written down anew.
CAPTURE = "INTEROP_CAPTURE"
PATIENCE = 60.0

T = TypeVar("T")


def captured(name: str, content: object) -> None:
    """Write down what a program sent, if that was asked for."""
    if os.environ.get(CAPTURE):
        CAPTURED.mkdir(exist_ok=True)
        text = json.dumps(content, indent=1, ensure_ascii=False)
        (CAPTURED / f"{name}.json").write_text(f"{text}\n")


def free_port() -> int:
    """A port on loopback that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def until(happened: Callable[[], T], what: str) -> T:
    """Wait for other programs, for a minute at most; what came of it."""
    end = time.monotonic() + PATIENCE
    while not (found := happened()):
        assert time.monotonic() < end, f"{what} did not happen"
        time.sleep(0.05)
    return found


def answers(url: str) -> bool:
    """Whether there is a 200 at a URL."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@contextmanager
def process(command: list[str], log: Path, ready: str, environ: Mapping[str, str]) -> Iterator[None]:
    """A program from the time when there is a 200 at `ready` to the end of the block."""
    with log.open("wb") as out:
        running = subprocess.Popen(command, env=dict(environ), stdout=out, stderr=subprocess.STDOUT)
        try:
            until(lambda: running.poll() is not None or answers(ready), command[0])
            assert running.poll() is None, log.read_text()
            yield
        finally:
            running.send_signal(signal.SIGINT)
            try:
                running.wait(20)
            finally:
                running.kill()


@contextmanager
def served(target: str, folder: Path, **environ: str) -> Iterator[str]:
    """A target as it runs in production; its URL."""
    port = free_port()
    tool = str(Path(sys.executable).parent / "functions-framework")
    source = str(ROOT / "handler" / "main.py")
    command = [tool, "--source", source, "--target", target, "--host", "127.0.0.1", "--port", str(port)]
    url = f"http://127.0.0.1:{port}"
    with process(command, folder / f"{target}.log", f"{url}/healthz", environment(**environ)):
        yield url


@dataclass(frozen=True)
class Passed:
    """One request that passed a relay; header names in lower case."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    status: int

    @property
    def data(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class Relay:
    """Hands requests on to a function, and answers 503 by itself while it is `down`."""

    def __init__(self, upstream: str) -> None:
        self.passed: list[Passed] = []
        self.down = False
        relay = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                """Hand on, write down, answer."""
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status, kind, answer = 503, "text/plain", b"down"
                if not relay.down:
                    theirs = requests.post(f"{upstream}{self.path}", data=body, headers=dict(self.headers), timeout=60)
                    status, answer = theirs.status_code, theirs.content
                    kind = theirs.headers.get("Content-Type", kind)
                headers = {name.lower(): value for name, value in self.headers.items()}
                relay.passed.append(Passed(self.path, headers, body, status))
                self.send_response_only(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                """Programs that are ended break their connections."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @property
    def statuses(self) -> list[int]:
        """How each was answered."""
        return [passed.status for passed in self.passed]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
