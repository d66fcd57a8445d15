"""The spans of an event: one for it, one for each server, one for each call to the cloud, in one trace."""

from __future__ import annotations

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
from tests.telemetry.conftest import GONE, Observe

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
INTERNAL, CLIENT, CONSUMER = 1, 3, 5


def test_an_event_is_a_span_with_its_servers_and_their_calls_below(observe: Observe) -> None:
    """In the trace of the event; each call below its server, with its status."""
    with observe() as function:
        one, two = function.cloud.add_server(), function.cloud.add_server(tags=["autostop=never"])
        answer = function.stop(one, two, traceparent=TRACE)
    assert answer.headers["ce-traceparent"] == TRACE
    spans = function.spans
    (root,) = (span for span in spans if span.parent == TRACE.split("-")[2])
    assert (root.name, root.kind, root.error) == (f"CloudEvents Process {STOP}", CONSUMER, False)
    assert {span.trace for span in spans} == {TRACE.split("-")[1]}
    assert root.attributes == {
        "cloudevents.event_id": "event-1",
        "cloudevents.event_source": "/tests",
        "cloudevents.event_spec_version": "1.0",
        "cloudevents.event_type": STOP,
        "autostop.api": "nova",
        "autostop.dry_run": False,
        "autostop.event.outcome": "completed",
    }
    below = function.children(root)
    servers = {span.attributes["autostop.server.id"]: span for span in below if span.name == "stop server"}
    assert set(servers) == {one, two}
    assert servers[one].kind == INTERNAL
    assert servers[one].attributes["autostop.server.reason"] == "confirmed"
    assert servers[one].attributes["autostop.cloud.request_id"].startswith("req-")
    assert servers[two].attributes["autostop.server.outcome"] == "skipped"
    calls = function.children(servers[one])
    assert {call.kind for call in calls} == {CLIENT}
    assert [(call.name, call.attributes["http.response.status_code"]) for call in calls if "POST" in call.name] == [
        ("POST /v2.1/servers/{server_id}/action", 202)
    ]
    assert all(one in call.attributes["url.full"] for call in calls)
    assert [call.name for call in function.children(servers[two])] == ["GET /v2.1/servers/{server_id}"]
    # One login for all of them.
    assert [span.name for span in spans].count("POST /v3/auth/tokens") == 1
    assert all(root.began <= span.began <= span.ended <= root.ended for span in spans)


def test_an_event_without_a_trace_begins_one(observe: Observe) -> None:
    """Its span has no parent, and its result has no trace that the event did not have."""
    with observe() as function:
        answer = function.stop()
    assert "ce-traceparent" not in answer.headers
    assert function.root.name == f"CloudEvents Process {STOP}"


def test_the_log_has_the_ids_of_the_span(observe: Observe) -> None:
    """In lines about an event, also if the event had no trace; other lines have none."""
    with logged() as lines, observe() as function:
        function.stop()
        function.stop("x")
    ids = {line["message"]: (line.get("trace_id"), line.get("span_id")) for line in lines.all}
    assert ids["event handled"] == ids["server handled"] == (function.root.trace, function.root.id)
    assert ids["event malformed"] == ids["request not handled"] == (None, None)


def test_each_event_of_a_batch_is_a_span(observe: Observe) -> None:
    """With its own server below, though they are handled at once."""
    with observe() as function:
        servers = [function.cloud.add_server(name) for name in "abc"]
        headers, body = batch(*(event(id=server, data={"server_id": server}) for server in servers))
        assert function.post(headers, body).status == 200
    roots = {span.attributes["cloudevents.event_id"]: span for span in function.spans if not span.parent}
    assert set(roots) == set(servers)
    for id_, root in roots.items():
        below = [span for span in function.children(root) if span.name == "stop server"]
        assert [span.attributes["autostop.server.id"] for span in below] == [id_]


def test_a_call_for_several_servers_is_a_child_of_the_event(observe: Observe) -> None:
    """BMS v1 stops them all with one call; the servers have spans as well."""
    with Simulator.otc() as cloud, observe(cloud=cloud, AUTOSTOP_API="bms") as function:
        assert function.stop(*(cloud.add_server(f"b-{number}") for number in range(6))).status == 200
    names = [span.name for span in function.children(function.root)]
    assert names.count("stop server") == 6
    assert [name for name in names if name.endswith("action")] == ["POST /v1/{project_id}/baremetalservers/action"]
    assert "GET /v1/{project_id}/jobs/{job_id}" in names


def test_a_failure_marks_its_spans(observe: Observe) -> None:
    """The call, the server and the event, and not the other server."""
    with observe() as function:
        function.stop(GONE, function.cloud.add_server())
    failed = [(span.name, span.attributes.get("error.type")) for span in function.spans if span.error]
    assert sorted(failed) == [
        (f"CloudEvents Process {STOP}", None),
        ("GET /v2.1/servers/{server_id}", "404"),
        ("stop server", "not-found"),
    ]


def test_an_error_ends_every_span(observe: Observe) -> None:
    """The span of an event to be sent again has the error; that of a call without a response has its error."""
    with observe(AUTOSTOP_DEADLINE="1s", AUTOSTOP_WAIT="0") as function:
        function.cloud.inject(Fault(on=CallKind.READ, times=None, cut=Cut.BEFORE))
        assert function.stop().status == 503
    root = function.root
    assert (root.error, root.attributes["error.type"]) == (True, "budget-spent")
    assert root.attributes["autostop.event.outcome"] == "unhandled"
    (server,) = (span for span in function.spans if span.name == "stop server")
    assert "autostop.server.outcome" not in server.attributes
    assert {call.attributes["error.type"] for call in function.children(server)} == {"ProtocolError"}


def test_an_unexpected_exception_ends_the_spans(observe: Observe, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is recorded as an internal fault."""

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("marked")

    monkeypatch.setattr("handler.services.stop_servers.result_event", broken)
    with observe() as function:
        assert function.stop().status == 503
    assert function.root.attributes["error.type"] == "internal-error"


def test_a_post_to_the_sink_is_a_span_without_its_path(observe: Observe) -> None:
    """Some sinks have their password in the URL."""
    sink = SinkServer(Say(503))
    with sink, observe(AUTOSTOP_RESULT_SINK=f"{sink.url}/marked-path?token=marked-query") as function:
        assert function.stop().status == 204
    posts = [span for span in function.children(function.root) if span.name == "POST"]
    assert [post.attributes["http.response.status_code"] for post in posts] == [503, 202]
    assert not any(b"marked" in raw for raw in function.collector.raw)


def test_a_readiness_check_is_not_a_span(observe: Observe) -> None:
    """It would be a trace every few seconds; its login is measured."""
    with observe() as function:
        function.service.ready()
    assert function.spans == []
    assert [point.count for point in function.of("http.client.request.duration")] == [1]


def test_a_call_that_ends_after_its_event_is_its_child(observe: Observe) -> None:
    """It opens no span of a server that would not be ended."""
    with observe() as function:
        function.stop()
        tracer, _ = function.telemetry._signals()
        ended = EventSpan(tracer, REQUEST, "a.type")
        ended.end()
        assert ended.server(GONE) is ended.context


def test_a_trace_that_is_not_sampled_has_no_spans(observe: Observe) -> None:
    """The producer decides for all that follows; metrics do not depend on it."""
    with observe() as function:
        function.stop(traceparent=TRACE[:-2] + "00")
    assert function.spans == []
    assert [point.value for point in function.of("autostop.events")] == [1]
