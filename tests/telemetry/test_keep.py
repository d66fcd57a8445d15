"""A keep as metrics and spans."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest

from handler.keep.model import KeepRequest
from handler.services.keep_servers import KeepService
from handler.settings.common import wanted_signals
from handler.settings.keep_servers import from_environ
from handler.simulator import Simulator
from handler.telemetry import start
from handler.telemetry.providers import LazyProviders
from tests.conftest import KEEP
from tests.telemetry.collector import Collector


def test_a_keep_is_counted_by_what_came_of_it(cloud: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the same metrics as a stop, with the outcomes and reasons of a keep."""
    with Collector() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
        telemetry = start(wanted_signals(environ), environ)
        assert telemetry is not None
        settings = from_environ({"AUTOSTOP_INBOUND_AUTH": "none", **cloud.environ()})
        service = KeepService(settings, telemetry=telemetry)
        ids = (cloud.add_server(), cloud.add_server(locked=True))
        request = KeepRequest("/tests", "k", KEEP, ids, duration=timedelta(hours=1))
        assert service.handle([request], False, time.monotonic()).status == 200
        assert isinstance(telemetry._signals, LazyProviders)
        telemetry._signals.close()
        servers = {
            (point.attributes["autostop.server.outcome"], point.attributes["autostop.server.reason"]): point.value
            for point in collector.of("autostop.servers")
        }
        (event,) = collector.of("autostop.events")
    assert servers == {("kept", "kept"): 1, ("failed", "conflict"): 1}
    assert event.attributes == {"cloudevents.event_type": KEEP, "autostop.event.outcome": "failed"}
    assert "keep server" in {span.name for span in collector.spans}
