"""The service of `stop_servers`: an event over HTTP, the delivery of its result, and its lines in the log."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

import pytest
import requests

from handler.services.stop_servers import SharedResources
from handler.settings.stop_servers import from_environ
from handler.simulator import Simulator
from handler.simulator.calls import CallKind
from handler.simulator.faults import Fault
from tests.conftest import STOP, Function, StartFunction
from tests.support.capture import Lines, logged
from tests.support.events import batch, event
from tests.support.sink_server import Say, SinkServer
from tests.test_events_folder import schema_violations

PREFIX = "io.github.bms-autostop.stop."
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
GONE = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def lines() -> Iterator[Lines]:
    """What the function logs. Asked for after the function has started, as that sets the level."""
    with logged() as lines:
        yield lines


def from_binary(headers: Any, body: bytes) -> dict[str, Any]:
    """A result event in binary mode, which must match its schema."""
    attributes = {name.lower()[3:]: unquote(value) for name, value in headers.items() if name.lower().startswith("ce-")}
    content_type = {name.lower(): value for name, value in headers.items()}["content-type"]
    document = {**attributes, "datacontenttype": content_type, "data": json.loads(body)}
    assert schema_violations("cloudevent-out.json", document) == []
    return document


def result_of(answer: requests.Response) -> dict[str, Any]:
    """The result event that an answer is."""
    assert answer.status_code == 200
    return from_binary(answer.headers, answer.content)


def post_batch(function: Function, *members: object) -> requests.Response:
    """Send a batch."""
    headers, body = batch(*members)
    return requests.post(function.url, data=body, headers=headers, timeout=60)


# --- the answer is the result


def test_the_answer_is_the_result(cloud: Simulator, function: Function) -> None:
    """One server: its id is the subject, and causation, flow and trace are passed on."""
    server = cloud.add_server()
    document = result_of(function.stop(server, id="a b", correlationid="flow", traceparent=TRACE, tracestate="v=1"))
    assert (document["type"], document["subject"]) == (f"{PREFIX}completed.v1", server)
    assert (document["causationid"], document["correlationid"]) == ("a b", "flow")
    assert (document["traceparent"], document["tracestate"]) == (TRACE, "v=1")


def test_a_failed_server_makes_a_failed_event(cloud: Simulator, function: Function) -> None:
    """The other server is stopped all the same, and several servers are no subject."""
    server = cloud.add_server()
    document = result_of(function.stop(GONE, server))
    assert document["type"] == f"{PREFIX}failed.v1"
    assert "subject" not in document
    assert [row["outcome"] for row in document["data"]["servers"]] == ["failed", "stopped"]


def test_extensions_of_the_platform_are_on_each_result(cloud: Simulator, start_function: StartFunction) -> None:
    """K_CE_OVERRIDES, percent-encoded in headers."""
    overrides = json.dumps({"extensions": {"team": "b\u00fcro 7"}})
    function = start_function(cloud, K_CE_OVERRIDES=overrides, AUTOSTOP_SOURCE="/mine")
    document = result_of(function.stop(cloud.add_server()))
    assert (document["team"], document["source"]) == ("b\u00fcro 7", "/mine")


# --- batches


@pytest.mark.parametrize("count", [1, 2])
def test_a_batch_is_answered_by_a_batch(cloud: Simulator, function: Function, count: int) -> None:
    """One result an event, in the order sent; also if it is only one."""
    servers = [cloud.add_server() for _ in range(count)]
    answer = post_batch(function, *(event(id=server, data={"server_ids": [server]}) for server in servers))
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/cloudevents-batch+json"
    documents = answer.json()
    assert [document["causationid"] for document in documents] == servers
    assert [schema_violations("cloudevent-out.json", document) for document in documents] == [[]] * count


def test_one_member_that_must_come_again_makes_the_batch_a_503(cloud: Simulator, start_function: StartFunction) -> None:
    """No result is returned; what was stopped is in the log, and the redelivery finds it stopped."""
    quick, slow = cloud.add_server("quick"), cloud.add_server("slow")
    function = start_function(cloud, AUTOSTOP_DEADLINE="4s", AUTOSTOP_WAIT="0")
    cloud.inject(Fault(on=CallKind.READ, server_id=slow, times=None, status=503))
    members = [event(id=name, data={"server_ids": [id_]}) for name, id_ in (("a", quick), ("b", slow))]
    with logged() as lines:
        answer = post_batch(function, *members)
    assert answer.status_code == 503
    assert "Retry-After" in answer.headers
    assert schema_violations("problem.json", answer.json()) == []
    assert [line["server_id"] for line in lines.of("server handled")] == [quick]
    assert lines.of("event handled") == []
    cloud.clear_faults()
    again = post_batch(function, *members)
    assert [document["data"]["servers"][0]["outcome"] for document in again.json()] == ["unchanged", "accepted"]
    assert (cloud.stops_sent(quick), cloud.stops_sent(slow)) == (1, 1)


def test_a_malformed_member_leaves_everything_running(cloud: Simulator, function: Function) -> None:
    """All or nothing at the endpoint."""
    server = cloud.add_server()
    answer = post_batch(function, event(data={"server_id": server}), event(id=None))
    assert (answer.status_code, cloud.calls) == (400, [])


# --- the sink


@pytest.mark.parametrize("variable", ["AUTOSTOP_RESULT_SINK", "K_SINK"])
def test_with_a_sink_the_answer_is_empty(cloud: Simulator, start_function: StartFunction, variable: str) -> None:
    """The result is posted in binary mode with the token, once; a SinkBinding sets K_SINK."""
    server = cloud.add_server()
    with SinkServer() as sink:
        function = start_function(cloud, **{variable: sink.url}, AUTOSTOP_SINK_TOKEN="sink-token-of-this-test")
        answer = function.stop(server)
    assert (answer.status_code, answer.content) == (204, b"")
    (got,) = sink.got
    assert got.headers["authorization"] == "Bearer sink-token-of-this-test"
    assert from_binary(got.headers, got.body)["subject"] == server


def test_results_of_a_batch_go_to_the_sink_one_by_one(cloud: Simulator, start_function: StartFunction) -> None:
    """Each is an event of its own there, and none waits for another's answer: the sink may be slow, and time short."""
    servers = [cloud.add_server(name) for name in "abc"]
    with SinkServer(together=3) as sink:
        function = start_function(cloud, K_SINK=sink.url)
        answer = post_batch(function, *(event(id=server, data={"server_id": server}) for server in servers))
    assert answer.status_code == 204
    assert sorted(from_binary(got.headers, got.body)["subject"] for got in sink.got) == sorted(servers)


def test_a_sink_that_is_down_makes_the_event_come_again(cloud: Simulator, start_function: StartFunction) -> None:
    """503 with what the sink asked for; the redelivery has the result of that time, with the event's id."""
    server = cloud.add_server()
    with SinkServer(Say(503, {"Retry-After": "90"})) as sink:
        function = start_function(cloud, AUTOSTOP_RESULT_SINK=sink.url)
        first = function.stop(server, id="again")
        assert (first.status_code, first.headers["Retry-After"]) == (503, "90")
        assert first.json()["type"] == "urn:bms-autostop:problem:sink-unreachable"
        assert function.stop(server, id="again").status_code == 204
    assert {got.headers["ce-causationid"] for got in sink.got} == {"again"}
    assert cloud.stops_sent(server) == 1


def test_a_sink_that_refuses_makes_the_event_come_again(cloud: Simulator, start_function: StartFunction) -> None:
    """A wrong token there is fixed by people, and the result must not be lost until then."""
    with SinkServer(Say(401, body=b"marked words of the sink")) as sink:
        answer = start_function(cloud, AUTOSTOP_RESULT_SINK=sink.url).stop(cloud.add_server())
    assert (answer.status_code, b"marked" in answer.content) == (503, False)


def test_nothing_to_act_on_is_nothing_to_send(cloud: Simulator, start_function: StartFunction) -> None:
    """An own result that comes back makes no further one."""
    with SinkServer() as sink:
        answer = start_function(cloud, K_SINK=sink.url).send({}, type=f"{PREFIX}failed.v1")
    assert (answer.status_code, sink.got, cloud.calls) == (204, [], [])


# --- readiness, login


def test_ready_is_a_token_and_an_address(cloud: Simulator, function: Function) -> None:
    """200 while a login works, 503 with the reason when it does not; alive in both cases."""
    assert requests.get(f"{function.url}/readyz", timeout=10).status_code == 200
    assert requests.get(f"{function.url}/healthz", timeout=10).status_code == 200
    assert cloud.count(CallKind.LOGIN) == 1


def test_not_ready_says_why(cloud: Simulator, start_function: StartFunction) -> None:
    """By the situation's name, without the cloud's words."""
    function = start_function(cloud, OS_PASSWORD="wrong")
    answer = requests.get(f"{function.url}/readyz", timeout=10)
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:bms-autostop:problem:login-refused")
    assert function.stop(GONE).status_code == 503
    assert requests.get(f"{function.url}/healthz", timeout=10).status_code == 200


def test_the_threads_are_made_late(cloud: Simulator) -> None:
    """A server that forks after loading the function must not have them in the wrong process."""
    shared = SharedResources(from_environ({"AUTOSTOP_INBOUND_AUTH": "none", **cloud.environ()}))
    assert "threads" not in vars(shared)


# --- logs


def test_one_line_an_event_and_one_a_server(function: Function, cloud: Simulator, lines: Lines) -> None:
    """Each server's line names the event that it belongs to."""
    servers = [cloud.add_server(name) for name in "ab"]
    document = result_of(function.stop(*servers, id="logged", traceparent=TRACE))
    (handled,) = lines.of("event handled")
    assert (handled["event_id"], handled["event_source"], handled["event_type"]) == ("logged", "/tests", STOP)
    assert (handled["result_type"], handled["trace_id"]) == (document["type"], TRACE.split("-")[1])
    assert handled["summary"] == document["data"]["summary"]
    # As they are done, not as they were named.
    rows = {row["server_id"]: row for row in lines.of("server handled")}
    assert set(rows) == set(servers)
    assert {row["event_id"] for row in rows.values()} == {"logged"}


# --- how many servers at most


def test_the_servers_of_a_batch_count_together(cloud: Simulator, start_function: StartFunction) -> None:
    """Thirty events of ten servers are not ten servers: every event is refused, and nothing is stopped."""
    function = start_function(cloud, AUTOSTOP_MAX_SERVERS="10")
    servers = [cloud.add_server() for _ in range(12)]
    groups = [servers[start : start + 4] for start in range(0, 12, 4)]
    answer = post_batch(function, *(event(id=str(n), data={"server_ids": ids}) for n, ids in enumerate(groups)))
    results = answer.json()
    assert [result["type"] for result in results] == [f"{PREFIX}refused.v1"] * 3
    assert {result["data"]["refusal"] for result in results} == {"too-many-servers"}
    assert "12 servers; at most 10" in results[0]["data"]["detail"]
    assert [cloud.stops_sent(server) for server in servers] == [0] * 12


def test_a_selector_of_a_batch_is_looked_up_before_anything_is_stopped(
    cloud: Simulator, start_function: StartFunction
) -> None:
    """One event names two servers, another selects three: one more than the limit."""
    function = start_function(cloud, AUTOSTOP_MAX_SERVERS="4")
    named = [cloud.add_server() for _ in range(2)]
    chosen = [cloud.add_server(f"ci-{number}") for number in range(3)]
    members = [event(id="a", data={"server_ids": named}), event(id="b", data={"selector": {"name": "ci-*"}})]
    results = post_batch(function, *members).json()
    assert {result["data"]["refusal"] for result in results} == {"too-many-servers"}
    assert [cloud.stops_sent(server) for server in (*named, *chosen)] == [0] * 5
