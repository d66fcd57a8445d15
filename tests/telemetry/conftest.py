"""`stop_servers` with telemetry, in this process, with a simulated cloud and a collector."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager

import pytest

from handler.inbound.http.request import HttpRequest
from handler.inbound.http.responses import Answer
from handler.services.stop_servers import Service, SharedResources
from handler.settings.common import wanted_signals
from handler.settings.stop_servers import from_environ
from handler.simulator import Simulator
from handler.telemetry import start
from handler.telemetry.observer import OpenTelemetryObserver
from handler.telemetry.providers import LazyProviders
from tests.conftest import STOP
from tests.telemetry.collector import Collector, Point, Span

GONE = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A collector that accepts every export."""
    with Collector() as collector:
        yield collector


class Observed:
    """The function and its telemetry.

    Args:
        environ: OpenTelemetry's variables, and settings beside, or in place of, those that log in to the cloud.
    """

    def __init__(self, cloud: Simulator, collector: Collector, environ: Mapping[str, str]) -> None:
        self.cloud, self.collector = cloud, collector
        settings = from_environ({"AUTOSTOP_INBOUND_AUTH": "none", "AUTOSTOP_WAIT": "5s", **cloud.environ(), **environ})
        self.telemetry = start_telemetry(environ, settings.event_types)
        self.service = Service(settings, SharedResources(settings, telemetry=self.telemetry))
        self._endpoint = self.service.endpoint()

    @property
    def spans(self) -> list[Span]:
        """What was exported, once the block has ended."""
        return self.collector.spans

    @property
    def root(self) -> Span:
        """The only span without a parent."""
        (root,) = (span for span in self.spans if not span.parent)
        return root

    def children(self, parent: Span) -> list[Span]:
        """The children of a span."""
        return [span for span in self.spans if span.parent == parent.id]

    def of(self, metric: str) -> list[Point]:
        """The series of a metric."""
        return self.collector.of(metric)

    def post(self, headers: Mapping[str, str], body: bytes) -> Answer:
        """Send a message to the endpoint."""
        return self._endpoint.answer(HttpRequest("POST", "/", headers, body, time.monotonic()))

    def send(self, data: object, **attributes: str) -> Answer:
        """Send one event in binary mode."""
        attributes = {"specversion": "1.0", "id": "event-1", "source": "/tests", "type": STOP, **attributes}
        headers = {f"ce-{name}": value for name, value in attributes.items()}
        return self.post({**headers, "content-type": "application/json"}, json.dumps(data).encode())

    def stop(self, *ids: str, **attributes: str) -> Answer:
        """Request the stop of these servers, of a new one if there are none."""
        return self.send({"server_ids": list(ids or [self.cloud.add_server()])}, **attributes)


def start_telemetry(environ: Mapping[str, str], types: Mapping[str, str]) -> OpenTelemetryObserver:
    """Start telemetry that these variables switch on."""
    telemetry = start(wanted_signals(environ), environ, types)
    assert isinstance(telemetry, OpenTelemetryObserver)
    return telemetry


def export(telemetry: OpenTelemetryObserver) -> None:
    """Export what is still queued."""
    assert isinstance(telemetry._signals, LazyProviders)
    telemetry._signals.close()


Observe = Callable[..., AbstractContextManager[Observed]]


@pytest.fixture
def observe(cloud: Simulator, collector: Collector, monkeypatch: pytest.MonkeyPatch) -> Observe:
    """Run the function in a block, after which everything is exported.

    For example `with observe(AUTOSTOP_API="bms") as function:`; `cloud=` is another cloud, `url=` another collector.
    """

    @contextmanager
    def running(cloud: Simulator = cloud, url: str = collector.url, **environ: str) -> Iterator[Observed]:
        environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": url, **environ}
        with ExitStack() as after:
            for name, value in environ.items():
                # The SDK reads the environment of the process.
                monkeypatch.setenv(name, value)
            for handler in logging.getLogger("handler").handlers:
                after.callback(setattr, handler, "filters", handler.filters[:])
            function = Observed(cloud, collector, environ)
            after.callback(export, function.telemetry)
            yield function

    return running
