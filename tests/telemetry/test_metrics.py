"""The metrics: each in its unit, with its labels and no others, and never a label for each server or event."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest

from handler.simulator import Simulator
from handler.simulator.calls import CallKind
from handler.simulator.faults import Fault
from handler.telemetry.instruments import METRICS
from tests.conftest import STOP
from tests.support.sink_server import Say, SinkServer
from tests.telemetry.collector import Collector
from tests.telemetry.stage import watched

GONE = "00000000-0000-4000-8000-000000000000"
OWN = "io.github.bms-autostop.stop.completed.v1"
KINDS = {"sum": "counter", "histogram": "histogram", "gauge": "gauge"}


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A collector that takes everything."""
    with Collector() as collector:
        yield collector


def counts(collector: Collector, metric: str, *labels: str) -> dict[tuple[object, ...], float]:
    """The values of a metric by some of its labels."""
    found: dict[tuple[object, ...], float] = {}
    for point in collector.of(metric):
        key = tuple(point.attributes.get(label) for label in labels)
        found[key] = found.get(key, 0) + (point.count or point.value)
    return found


def test_events_and_servers_are_counted_by_what_came_of_them(
    collector: Collector, cloud: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Completed, planned, failed, refused, ignored, must come again; each server by outcome and reason."""
    one, two = cloud.add_server(), cloud.add_server(locked=True)
    before = time.time()
    with watched(monkeypatch, cloud, collector.url, AUTOSTOP_APPROVAL_KEYS="k" * 32) as here:
        here.send({"server_ids": [one], "approval": "self"})
        here.stop(one, two)
        here.stop(GONE)
        here.send({})
        here.send({}, type=OWN)
        here.send({"server_ids": [one]}, knativeerrordest="http://x/")
        cloud.revoke_tokens()
        cloud.inject(Fault(on=CallKind.LOGIN, status=401, times=None))
        here.stop(one)
    assert counts(collector, "autostop.events", "autostop.event.outcome", "autostop.event.reason", "error.type") == {
        ("planned", None, None): 1,
        ("completed", None, None): 1,
        ("failed", None, None): 1,
        ("refused", "no-server-ids", None): 1,
        ("ignored", "own result event", None): 1,
        ("ignored", "dead-lettered copy", None): 1,
        ("unhandled", None, "login-refused"): 1,
    }
    assert counts(collector, "autostop.servers", "autostop.server.outcome", "autostop.server.reason") == {
        ("planned", "needs-approval"): 1,
        ("stopped", "confirmed"): 1,
        ("skipped", "locked"): 1,
        ("failed", "not-found"): 1,
    }
    assert counts(collector, "autostop.event.duration", "autostop.event.outcome") == {
        ("planned",): 1,
        ("completed",): 1,
        ("failed",): 1,
        ("refused",): 1,
        ("unhandled",): 1,
    }
    last = collector.of("autostop.event.last_time")
    assert len(last) == 7
    assert all(before <= point.value <= time.time() for point in last)
    servers = collector.of("autostop.server.last_time")
    assert {point.attributes["autostop.server.reason"] for point in servers} == {
        "needs-approval",
        "confirmed",
        "locked",
        "not-found",
    }
    assert all(before <= point.value <= time.time() for point in servers)


def test_calls_are_measured_by_status(collector: Collector, cloud: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against what the cloud itself counted."""
    with watched(monkeypatch, cloud, collector.url) as here:
        here.stop(cloud.add_server(), GONE)
    by_status: dict[tuple[object, ...], float] = {}
    for call in cloud.calls:
        key = (call.method, call.status)
        by_status[key] = by_status.get(key, 0) + 1
    labels = ("http.request.method", "http.response.status_code")
    assert counts(collector, "http.client.request.duration", *labels) == by_status


def test_announcements_are_counted_by_whether_they_were_delivered(
    collector: Collector, cloud: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One by one, whether they are required or not."""
    with SinkServer(Say(400)) as sink:
        settings = {"AUTOSTOP_RESULT_SINK": sink.url, "AUTOSTOP_ANNOUNCE": "best-effort"}
        with watched(monkeypatch, cloud, collector.url, **settings) as here:
            for number in range(3):
                here.stop(cloud.add_server(), id=str(number))
    found = counts(collector, "autostop.announcements", "autostop.announcement.outcome")
    assert found == {("failed",): 1, ("delivered",): 2}


def test_every_metric_is_as_the_table_has_it(
    collector: Collector, cloud: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kind, unit, and labels: all that it always has, none that it never has."""
    with watched(monkeypatch, cloud, collector.url) as here:
        app = _App()
        here.telemetry.install(app, ["/healthz"])
        list(app.wsgi_app({"REQUEST_METHOD": "GET", "PATH_INFO": "/healthz"}, lambda *_: None))
        here.stop(cloud.add_server(), GONE)
        here.send({}, type=OWN)
        here.telemetry.announced(True)
    table = {metric.name: metric for metric in METRICS}
    assert {point.metric for point in collector.points} == set(table)
    for point in collector.points:
        metric = table[point.metric]
        assert (KINDS[point.kind], point.unit) == (metric.kind, metric.unit), point
        assert set(metric.always) <= set(point.attributes) <= {*metric.always, *metric.sometimes}, point


def test_no_label_grows_with_what_is_sent(
    collector: Collector, cloud: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Servers, events and made-up types make no series of their own."""
    with watched(monkeypatch, cloud, collector.url, AUTOSTOP_EVENT_TYPES="com.example.idle;com.example.off=id") as here:
        for number in range(5):
            here.stop(cloud.add_server(f"marked-{number}"), id=f"marked-{number}", source=f"/marked-{number}")
            here.send({}, type=f"marked-{number}")
            here.send({"resource_id": "x"}, type=f"CES:Event:marked-{number}")
            # Of any type: a broker makes such a copy of whatever it could not deliver.
            here.send({}, type=f"marked-{number}", knativeerrordest="http://x/")
        here.send({}, type=OWN)
        here.send({}, type="com.example.idle")
        here.send({"id": GONE}, type="com.example.off")
        here.send({}, type="dev.knative.sources.ping")
    labels = [str(value) for point in collector.points for value in point.attributes.values()]
    assert not [label for label in labels if "marked" in label or re.search("[0-9a-f]{8}-", label)]
    assert counts(collector, "autostop.events", "cloudevents.event_type") == {
        (STOP,): 5,
        ("CES:Event:*",): 5,
        ("other",): 5,
        (OWN,): 1,
        ("com.example.idle",): 1,
        ("com.example.off",): 1,
        ("dev.knative.sources.ping",): 1,
    }


class _App:
    """A Flask application, as far as it matters."""

    def __init__(self, status: str = "200 OK", failure: Exception | None = None) -> None:
        self.closed = False
        app = self

        class Body:
            def __iter__(self) -> Iterator[bytes]:
                if failure is not None:
                    raise failure
                return iter([b"x"])

            def close(self) -> None:
                app.closed = True

        def answer(_: object, start_response: object) -> Body:
            assert callable(start_response)
            start_response(status, [])
            return Body()

        self.wsgi_app = answer


@pytest.mark.parametrize(
    ("method", "path", "status", "labels"),
    [
        ("POST", "/anything", "204 No Content", {"http.request.method": "POST", "http.response.status_code": 204}),
        (
            "GET",
            "/readyz",
            "503 Service Unavailable",
            {
                "http.request.method": "GET",
                "http.route": "/readyz",
                "http.response.status_code": 503,
                "error.type": "503",
            },
        ),
        ("BREW", "/", "405 No", {"http.request.method": "_OTHER", "http.response.status_code": 405}),
    ],
)
def test_requests_are_measured(
    collector: Collector,
    cloud: Simulator,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    path: str,
    status: str,
    labels: dict[str, object],
) -> None:
    """By method, status, and the few paths that are known; a body is closed as WSGI wants it."""
    with watched(monkeypatch, cloud, collector.url) as here:
        app = _App(status)
        here.telemetry.install(app, ["/healthz", "/readyz"])
        environ = {"REQUEST_METHOD": method, "PATH_INFO": path, "wsgi.url_scheme": "http"}
        assert list(app.wsgi_app(environ, lambda *_: None)) == [b"x"]
    (point,) = collector.of("http.server.request.duration")
    assert point.attributes == {"url.scheme": "http", **labels}
    assert (point.count, app.closed) == (1, True)


def test_a_request_that_breaks_off_is_measured(
    collector: Collector, cloud: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As far as it went."""
    with watched(monkeypatch, cloud, collector.url) as here:
        app = _App(failure=OSError())
        here.telemetry.install(app, [])
        with pytest.raises(OSError):  # noqa: PT011
            list(app.wsgi_app({}, lambda *_: None))
    assert [point.count for point in collector.of("http.server.request.duration")] == [1]
    assert app.closed
