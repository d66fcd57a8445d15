"""`stop_servers` with telemetry, in this process: it has exported all when the block ends."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from handler.inbound.http.request import HttpRequest
from handler.inbound.http.responses import Answer
from handler.services.stop_servers import Service, SharedResources
from handler.settings.common import wanted_signals
from handler.settings.stop_servers import from_environ
from handler.simulator import Simulator
from handler.telemetry import start
from handler.telemetry.providers import LazyProviders
from tests.conftest import STOP


class Watched:
    """The function and its telemetry."""

    def __init__(self, cloud: Simulator, environ: Mapping[str, str]) -> None:
        settings = from_environ({"AUTOSTOP_INBOUND_AUTH": "none", "AUTOSTOP_WAIT": "5s", **cloud.environ(), **environ})
        telemetry = start(wanted_signals(environ), environ, settings.event_types)
        assert telemetry is not None
        self.telemetry = telemetry
        self.service = Service(settings, SharedResources(settings, telemetry=telemetry))
        self._door = self.service.endpoint()

    def post(self, headers: Mapping[str, str], body: bytes) -> Answer:
        """Bring a message to the endpoint."""
        return self._door.answer(HttpRequest("POST", "/", headers, body, time.monotonic()))

    def send(self, data: object, **attributes: str) -> Answer:
        """Send one event in binary mode."""
        attributes = {"specversion": "1.0", "id": "event-1", "source": "/tests", "type": STOP, **attributes}
        headers = {f"ce-{name}": value for name, value in attributes.items()}
        return self.post({**headers, "content-type": "application/json"}, json.dumps(data).encode())

    def stop(self, *ids: str, **attributes: str) -> Answer:
        """Ask for these servers to be stopped."""
        return self.send({"server_ids": list(ids)}, **attributes)

    def flush(self) -> None:
        """Send what is still here."""
        late = self.telemetry._signals
        assert isinstance(late, LazyProviders)
        late.close()


@contextmanager
def watched(monkeypatch: pytest.MonkeyPatch, cloud: Simulator, url: str, **environ: Any) -> Iterator[Watched]:
    """Switch telemetry on by its standard variables."""
    wanted = {"OTEL_EXPORTER_OTLP_ENDPOINT": url, **environ}
    # The SDK reads the environment of the process.
    for name, value in wanted.items():
        monkeypatch.setenv(name, value)
    handlers = [(handler, handler.filters[:]) for handler in logging.getLogger("handler").handlers]
    here = Watched(cloud, wanted)
    try:
        yield here
    finally:
        here.flush()
        for handler, filters in handlers:
            handler.filters = filters
