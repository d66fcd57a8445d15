"""The metrics: each in its unit, with its labels and no others, and never a label for each server or event."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta

import pytest

from handler.keep.model import KeepRequest
from handler.services.keep_servers import KeepService
from handler.settings.keep_servers import from_environ
from handler.simulator import Simulator
from handler.simulator.calls import CallKind
from handler.simulator.faults import Fault
from handler.telemetry.instruments import METRICS
from tests.conftest import KEEP, STOP
from tests.support.sink_server import Say, SinkServer
from tests.telemetry.collector import Collector
from tests.telemetry.conftest import GONE, Observe, export, start_telemetry

OWN = "io.github.bms-autostop.stop.completed.v1"
KINDS = {"sum": "counter", "histogram": "histogram", "gauge": "gauge"}
OUTCOME, REASON = "autostop.server.outcome", "autostop.server.reason"


def counts(collector: Collector, metric: str, *labels: str) -> dict[tuple[object, ...], float]:
    """The values of a metric by some of its labels."""
    found: Counter[tuple[object, ...]] = Counter()
    for point in collector.of(metric):
        found[tuple(point.attributes.get(label) for label in labels)] += int(point.count or point.value)
    return dict(found)


def test_events_and_servers_are_counted_by_their_outcome(collector: Collector, observe: Observe) -> None:
    """Completed, planned, failed, refused, ignored, to be sent again; each server by outcome and reason."""
    before = time.time()
    with observe(AUTOSTOP_APPROVAL_KEYS="k" * 32) as function:
        cloud = function.cloud
        one, two = cloud.add_server(), cloud.add_server(locked=True)
        function.send({"server_ids": [one], "approval": "self"})
        function.stop(one, two)
        function.stop(GONE)
        function.send({})
        function.send({}, type=OWN)
        function.send({"server_ids": [one]}, knativeerrordest="http://x/")
        cloud.revoke_tokens()
        cloud.inject(Fault(on=CallKind.LOGIN, status=401, times=None))
        function.stop(one)
    events = {
        ("planned", None, None): 1,
        ("completed", None, None): 1,
        ("failed", None, None): 1,
        ("refused", "no-server-ids", None): 1,
        ("ignored", "own result event", None): 1,
        ("ignored", "dead-lettered copy", None): 1,
        ("unhandled", None, "login-refused"): 1,
    }
    labels = ("autostop.event.outcome", "autostop.event.reason", "error.type")
    assert counts(collector, "autostop.events", *labels) == events
    servers = {
        ("planned", "needs-approval"): 1,
        ("stopped", "confirmed"): 1,
        ("skipped", "locked"): 1,
        ("failed", "not-found"): 1,
    }
    assert counts(collector, "autostop.servers", OUTCOME, REASON) == servers
    handled = {(outcome,): 1 for outcome, *_ in events if outcome != "ignored"}
    assert counts(collector, "autostop.event.duration", "autostop.event.outcome") == handled
    last = collector.of("autostop.event.last_time")
    last_servers = collector.of("autostop.server.last_time")
    assert len(last) == len(events)
    assert {(point.attributes[OUTCOME], point.attributes[REASON]) for point in last_servers} == set(servers)
    assert all(before <= point.value <= time.time() for point in (*last, *last_servers))


def test_a_keep_is_counted_by_its_outcome(cloud: Simulator, collector: Collector, observe: Observe) -> None:
    """By the same metrics as a stop, with the outcomes and reasons of a keep."""
    with observe():
        telemetry = start_telemetry({"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}, {})
        service = KeepService(from_environ({"AUTOSTOP_INBOUND_AUTH": "none", **cloud.environ()}), telemetry=telemetry)
        ids = (cloud.add_server(), cloud.add_server(locked=True))
        request = KeepRequest("/tests", "k", KEEP, ids, duration=timedelta(hours=1))
        assert service.handle([request], False, time.monotonic()).status == 200
        export(telemetry)
        assert counts(collector, "autostop.servers", OUTCOME, REASON) == {
            ("kept", "kept"): 1,
            ("failed", "conflict"): 1,
        }
        (event,) = collector.of("autostop.events")
        assert event.attributes == {"cloudevents.event_type": KEEP, "autostop.event.outcome": "failed"}
        assert "keep server" in {span.name for span in collector.spans}


def test_calls_are_measured_by_status(collector: Collector, observe: Observe) -> None:
    """As many as the cloud itself received."""
    with observe() as function:
        function.stop(function.cloud.add_server(), GONE)
    received = Counter((call.method, call.status) for call in function.cloud.calls)
    labels = ("http.request.method", "http.response.status_code")
    assert counts(collector, "http.client.request.duration", *labels) == received


def test_announcements_are_counted_by_whether_they_were_delivered(collector: Collector, observe: Observe) -> None:
    """Each of them, whether they are required or not."""
    sink = SinkServer(Say(400))
    with sink, observe(AUTOSTOP_RESULT_SINK=sink.url, AUTOSTOP_ANNOUNCE="best-effort") as function:
        for number in range(3):
            function.stop(id=str(number))
    found = counts(collector, "autostop.announcements", "autostop.announcement.outcome")
    assert found == {("failed",): 1, ("delivered",): 2}


def test_every_metric_is_as_the_table_has_it(collector: Collector, observe: Observe) -> None:
    """Kind, unit, and labels: all that it always has, none that it never has."""
    with observe() as function:
        app = _App()
        function.telemetry.install(app, ["/healthz"])
        list(app.wsgi_app({"REQUEST_METHOD": "GET", "PATH_INFO": "/healthz"}, lambda *_: None))
        function.stop(function.cloud.add_server(), GONE)
        function.send({}, type=OWN)
        function.telemetry.announced(True)
    table = {metric.name: metric for metric in METRICS}
    assert {point.metric for point in collector.points} == set(table)
    for point in collector.points:
        metric = table[point.metric]
        assert (KINDS[point.kind], point.unit) == (metric.kind, metric.unit), point
        assert set(metric.always) <= set(point.attributes) <= {*metric.always, *metric.sometimes}, point


def test_no_label_grows_with_what_is_sent(collector: Collector, observe: Observe) -> None:
    """Servers, events and unknown types make no series of their own."""
    with observe(AUTOSTOP_EVENT_TYPES="com.example.idle;com.example.off=id") as function:
        for number in range(5):
            mark = f"marked-{number}"
            function.stop(function.cloud.add_server(mark), id=mark, source=f"/{mark}")
            function.send({}, type=mark)
            function.send({"resource_id": "x"}, type=f"CES:Event:{mark}")
            # Of any type: a broker makes such a copy of whatever it could not deliver.
            function.send({}, type=mark, knativeerrordest="http://x/")
        function.send({}, type=OWN)
        function.send({}, type="com.example.idle")
        function.send({"id": GONE}, type="com.example.off")
        function.send({}, type="dev.knative.sources.ping")
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
    """The part of a Flask application that is measured."""

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
        ("POST", "/anything", 204, {}),
        ("GET", "/readyz", 503, {"http.route": "/readyz", "error.type": "503"}),
        ("BREW", "/", 405, {"http.request.method": "_OTHER"}),
    ],
)
def test_requests_are_measured(
    collector: Collector, observe: Observe, method: str, path: str, status: int, labels: dict[str, str]
) -> None:
    """By method, status, and the few paths that are known; the body is closed as WSGI requires it."""
    with observe() as function:
        app = _App(f"{status} Reason")
        function.telemetry.install(app, ["/healthz", "/readyz"])
        environ = {"REQUEST_METHOD": method, "PATH_INFO": path, "wsgi.url_scheme": "http"}
        assert list(app.wsgi_app(environ, lambda *_: None)) == [b"x"]
    (point,) = collector.of("http.server.request.duration")
    common = {"url.scheme": "http", "http.request.method": method, "http.response.status_code": status}
    assert point.attributes == {**common, **labels}
    assert (point.count, app.closed) == (1, True)


def test_a_request_whose_body_fails_is_measured(collector: Collector, observe: Observe) -> None:
    """Up to the failure."""
    with observe() as function:
        app = _App(failure=OSError())
        function.telemetry.install(app, [])
        with pytest.raises(OSError):  # noqa: PT011
            list(app.wsgi_app({}, lambda *_: None))
    assert [point.count for point in collector.of("http.server.request.duration")] == [1]
    assert app.closed
