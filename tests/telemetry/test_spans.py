"""The spans of an event: one for it, one a server, one a call to the cloud, in one trace."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from handler.simulator import Simulator
from handler.simulator.calls import CallKind
from handler.simulator.faults import Cut, Fault
from handler.telemetry.event_span import EventSpan
from tests.conftest import STOP
from tests.outbound.test_result import REQUEST
from tests.support.capture import logged
from tests.support.events import batch, event
from tests.support.sink_server import Say, SinkServer
from tests.telemetry.collector import Collector, Span
from tests.telemetry.stage import watched

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
GONE = "00000000-0000-4000-8000-000000000000"
INTERNAL, CLIENT, CONSUMER = 1, 3, 5


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A collector that takes everything."""
    with Collector() as collector:
        yield collector


def below(spans: list[Span], parent: Span) -> list[Span]:
    """The children of a span."""
    return [span for span in spans if span.parent == parent.id]


def test_an_event_is_a_span_with_its_servers_and_their_calls_below(
    collector: Collector, cloud: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the trace that the event came with; each call is where it belongs, with its status."""
    one, two = cloud.add_server(), cloud.add_server(tags=["autostop=never"])
    with watched(monkeypatch, cloud, collector.url) as here:
        answer = here.stop(one, two, traceparent=TRACE)
    assert answer.headers["ce-traceparent"] == TRACE
    (root,) = (span for span in collector.spans if span.parent == TRACE.split("-")[2])
    assert (root.name, root.kind, root.error) == (f"CloudEvents Process {STOP}", CONSUMER, False)
    assert {span.trace for span in collector.spans} == {TRACE.split("-")[1]}
    assert root.attributes == {
        "cloudevents.event_id": "event-1",
        "cloudevents.event_source": "/tests",
        "cloudevents.event_spec_version": "1.0",
        "cloudevents.event_type": STOP,
        "autostop.api": "nova",
        "autostop.dry_run": False,
        "autostop.event.outcome": "completed",
    }
    servers = {
        span.attributes["autostop.server.id"]: span
        for span in below(collector.spans, root)
        if span.name == "stop server"
    }
    assert set(servers) == {one, two}
    assert servers[one].kind == INTERNAL
    assert servers[one].attributes["autostop.server.reason"] == "confirmed"
    assert servers[one].attributes["autostop.cloud.request_id"].startswith("req-")
    assert servers[two].attributes["autostop.server.outcome"] == "skipped"
    calls = below(collector.spans, servers[one])
    assert {call.kind for call in calls} == {CLIENT}
    assert [(call.name, call.attributes["http.response.status_code"]) for call in calls if "POST" in call.name] == [
        ("POST /v2.1/servers/{server_id}/action", 202)
    ]
    assert all(one in call.attributes["url.full"] for call in calls)
    assert [call.name for call in below(collector.spans, servers[two])] == ["GET /v2.1/servers/{server_id}"]
    # One login for all of them.
    assert [span.name for span in collector.spans].count("POST /v3/auth/tokens") == 1
    assert all(root.began <= span.began <= span.ended <= root.ended for span in collector.spans)


def test_an_event_without_a_trace_begins_one(
    collector: Collector, cloud: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its span has no parent, and its result names no trace that the event did not name."""
    with watched(monkeypatch, cloud, collector.url) as here:
        answer = here.stop(cloud.add_server())
    assert "ce-traceparent" not in answer.headers
    roots = [span for span in collector.spans if not span.parent]
    assert [root.name for root in roots] == [f"CloudEvents Process {STOP}"]


def test_the_log_names_the_span(collector: Collector, cloud: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines about an event lead to its span, also if the event brought no trace; other lines name none."""
    with logged() as lines, watched(monkeypatch, cloud, collector.url) as here:
        here.stop(cloud.add_server())
        here.stop("x")
    (root,) = (span for span in collector.spans if not span.parent)
    named = {line["message"]: (line.get("trace_id"), line.get("span_id")) for line in lines.all}
    assert named["event handled"] == named["server handled"] == (root.trace, root.id)
    assert named["event malformed"] == named["request not handled"] == (None, None)


def test_a_batch_is_a_span_an_event(collector: Collector, cloud: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each with its own server below, though they are worked on at once."""
    servers = [cloud.add_server(name) for name in "abc"]
    with watched(monkeypatch, cloud, collector.url) as here:
        headers, body = batch(*(event(id=server, data={"server_id": server}) for server in servers))
        assert here.post(headers, body).status == 200
    roots = {span.attributes["cloudevents.event_id"]: span for span in collector.spans if not span.parent}
    assert set(roots) == set(servers)
    for id_, root in roots.items():
        below_it = [span for span in below(collector.spans, root) if span.name == "stop server"]
        assert [span.attributes["autostop.server.id"] for span in below_it] == [id_]


def test_what_is_asked_for_many_belongs_to_the_event(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    """BMS v1 stops them all with one call; the servers have spans all the same."""
    with Simulator.otc() as cloud:
        servers = [cloud.add_server(f"b-{number}") for number in range(6)]
        with watched(monkeypatch, cloud, collector.url, AUTOSTOP_API="bms") as here:
            assert here.stop(*servers).status == 200
    (root,) = (span for span in collector.spans if not span.parent)
    children = below(collector.spans, root)
    assert sum(span.name == "stop server" for span in children) == 6
    assert [span.name for span in children if span.name.endswith("action")] == [
        "POST /v1/{project_id}/baremetalservers/action"
    ]
    assert any(span.name == "GET /v1/{project_id}/jobs/{job_id}" for span in children)


def test_failure_is_seen_in_the_spans(collector: Collector, cloud: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The call, the server and the event; the server's neighbour is none the worse."""
    server = cloud.add_server()
    with watched(monkeypatch, cloud, collector.url) as here:
        here.stop(GONE, server)
    spans = collector.spans
    failed = {span.name: span.attributes.get("error.type") for span in spans if span.error}
    assert failed == {
        f"CloudEvents Process {STOP}": None,
        "stop server": "not-found",
        "GET /v2.1/servers/{server_id}": "404",
    }
    assert sum(span.error for span in spans if span.name == "stop server") == 1


def test_an_error_ends_every_span(collector: Collector, cloud: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """An event that must come again names the error; a call without an answer names its error."""
    cloud.inject(Fault(on=CallKind.READ, times=None, cut=Cut.BEFORE))
    with watched(monkeypatch, cloud, collector.url, AUTOSTOP_DEADLINE="1s", AUTOSTOP_WAIT="0") as here:
        assert here.stop(cloud.add_server()).status == 503
    (root,) = (span for span in collector.spans if not span.parent)
    assert (root.error, root.attributes["error.type"]) == (True, "budget-spent")
    assert root.attributes["autostop.event.outcome"] == "unhandled"
    (server,) = (span for span in collector.spans if span.name == "stop server")
    assert "autostop.server.outcome" not in server.attributes
    assert {call.attributes["error.type"] for call in below(collector.spans, server)} == {"ProtocolError"}


def test_a_defect_ends_the_spans_too(collector: Collector, cloud: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """And is reported as what it is."""

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("marked")

    monkeypatch.setattr("handler.services.stop_servers.result_event", broken)
    with watched(monkeypatch, cloud, collector.url) as here:
        assert here.stop(cloud.add_server()).status == 503
    (root,) = (span for span in collector.spans if not span.parent)
    assert root.attributes["error.type"] == "internal-fault"


def test_the_way_to_the_sink_is_a_span_that_does_not_show_the_path(
    collector: Collector, cloud: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some sinks have their password in the URL."""
    with SinkServer(Say(503)) as sink:
        url = f"{sink.url}/marked-path?token=marked-query"
        with watched(monkeypatch, cloud, collector.url, AUTOSTOP_RESULT_SINK=url) as here:
            assert here.stop(cloud.add_server()).status == 204
    (root,) = (span for span in collector.spans if not span.parent)
    posts = [span for span in below(collector.spans, root) if span.name == "POST"]
    assert [post.attributes["http.response.status_code"] for post in posts] == [503, 202]
    assert not any(b"marked" in raw for raw in collector.raw)


def test_readiness_is_not_a_span(collector: Collector, cloud: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody wants a trace every few seconds; its login is measured all the same."""
    with watched(monkeypatch, cloud, collector.url) as here:
        here.service.ready()
    assert collector.spans == []
    assert [point.count for point in collector.of("http.client.request.duration")] == [1]


def test_a_call_that_outlives_its_event_is_its_child(
    collector: Collector, cloud: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And opens no span of a server that would not be ended."""
    with watched(monkeypatch, cloud, collector.url) as here:
        here.stop(cloud.add_server())
        tracer, _ = here.telemetry._signals()
        late = EventSpan(tracer, REQUEST, "a.type")
        late.end()
        assert late.server(GONE) is late.context


def test_a_sampled_out_trace_stays_out(collector: Collector, cloud: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who traces the producer decides for all that follows; metrics do not depend on it."""
    with watched(monkeypatch, cloud, collector.url) as here:
        here.stop(cloud.add_server(), traceparent=TRACE[:-2] + "00")
    assert collector.spans == []
    assert [point.value for point in collector.of("autostop.events")] == [1]


def test_json_of_the_result_is_the_same_with_telemetry(
    collector: Collector, cloud: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Watching changes nothing of what is seen from outside."""
    server = cloud.add_server()
    with watched(monkeypatch, cloud, collector.url) as here:
        answer = here.stop(server)
    assert json.loads(answer.body)["summary"]["stopped"] == 1
