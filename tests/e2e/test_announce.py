"""Stops that are announced to a sink before the first of them, over real HTTP."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest
import requests

from handler.simulator import CallKind, Simulator
from handler.simulator.faults import Fault
from tests.conftest import StartFunction, serving
from tests.services.test_stop_servers import from_binary, post_batch
from tests.support.capture import logged
from tests.support.events import event, structured
from tests.support.sink_server import Got, Say, SinkServer

PREFIX = "io.github.bms-autostop.stop."


def types(sink: SinkServer) -> list[str]:
    """What the sink got, in order."""
    return [got.headers["ce-type"].removeprefix(PREFIX).removesuffix(".v1") for got in sink.got]


def announced(got: Got) -> list[str]:
    """The ids of an announcement."""
    document = from_binary(got.headers, got.body)
    assert document["type"] == f"{PREFIX}announced.v1"
    return [row["id"] for row in document["data"]["servers"]]


@pytest.mark.parametrize("mode", ["best-effort", "required"])
@pytest.mark.parametrize("api", ["nova", "bms"])
def test_what_may_be_stopped_is_announced_before_the_first_stop(
    otc: Simulator, start_function: StartFunction, mode: str, api: str
) -> None:
    """One announcement for the event, of the servers that no guard has kept by then."""
    one, two, kept = otc.add_server("one"), otc.add_server("two"), otc.add_server(tags=["autostop=never"])
    with SinkServer() as sink:
        function = start_function(otc, AUTOSTOP_RESULT_SINK=sink.url, AUTOSTOP_ANNOUNCE=mode, AUTOSTOP_API=api)
        # A second attempt of a stop is not announced again.
        otc.inject(Fault(on=CallKind.STOP, status=503))
        assert function.stop(one, two, kept, id="e 1", correlationid="flow").status_code == 204
    assert types(sink) == ["announced", "completed"]
    assert announced(sink.got[0]) == [one, two]
    document = from_binary(sink.got[0].headers, sink.got[0].body)
    assert (document["causationid"], document["correlationid"]) == ("e 1", "flow")
    assert [row["name"] for row in document["data"]["servers"]] == ["one", "two"]


def test_no_stop_is_sent_while_the_announcement_is_under_way(cloud: Simulator, start_function: StartFunction) -> None:
    """The sink answers only after the stops were counted."""
    server = cloud.add_server()
    answer = threading.Event()
    answers: list[requests.Response] = []
    with SinkServer(Say(after=answer)) as sink:
        function = start_function(cloud, AUTOSTOP_RESULT_SINK=sink.url, AUTOSTOP_ANNOUNCE="required")
        sender = threading.Thread(target=lambda: answers.append(function.stop(server)))
        sender.start()
        sink.wait(1)
        assert cloud.count(CallKind.STOP) == 0
        answer.set()
        sender.join(60)
    assert [got.status_code for got in answers] == [204]
    assert types(sink) == ["announced", "completed"]


@pytest.mark.parametrize("status", [500, 401, 302])
def test_required_and_not_delivered_stops_nothing(cloud: Simulator, start_function: StartFunction, status: int) -> None:
    """The event is a 503; its repeat announces the same under the same id, and then stops."""
    server = cloud.add_server()
    with SinkServer(*[Say(status)] * 7) as sink:
        function = start_function(cloud, AUTOSTOP_RESULT_SINK=sink.url, AUTOSTOP_ANNOUNCE="required")
        with logged() as lines:
            while (answer := function.stop(server, id="again")).status_code == 503:
                assert answer.json()["type"] == "urn:bms-autostop:problem:not-announced"
                assert answer.json()["cause"]["status"] == status
                assert cloud.count(CallKind.STOP) == 0
        assert lines.of("stop not announced")[0]["required"] is True
    assert answer.status_code == 204
    assert types(sink) == [*["announced"] * 8, "completed"]
    assert len({got.headers["ce-id"] for got in sink.got[:-1]}) == 1
    assert cloud.stops_sent(server) == 1


@pytest.mark.parametrize(
    ("mode", "problem", "stops"), [("best-effort", "sink-unreachable", 1), ("required", "not-announced", 0)]
)
def test_a_dead_sink_stops_nothing_only_under_required(
    cloud: Simulator, start_function: StartFunction, mode: str, problem: str, stops: int
) -> None:
    """The result cannot be delivered either, so the event comes again."""
    with SinkServer() as sink:
        url = sink.url
    function = start_function(cloud, AUTOSTOP_RESULT_SINK=url, AUTOSTOP_ANNOUNCE=mode, AUTOSTOP_DEADLINE="6s")
    answer = function.stop(cloud.add_server())
    assert answer.json()["type"] == f"urn:bms-autostop:problem:{problem}"
    assert cloud.count(CallKind.STOP) == stops


@pytest.mark.parametrize(
    ("environ", "data", "state"),
    [
        ({"AUTOSTOP_DRY_RUN": "true"}, {}, "active"),
        ({}, {"dry_run": True}, "active"),
        ({}, {}, "stopped"),
    ],
)
def test_where_nothing_is_stopped_nothing_is_announced(
    cloud: Simulator, start_function: StartFunction, environ: dict[str, str], data: dict[str, Any], state: str
) -> None:
    """In a dry run, or if all are stopped already: only the result is posted."""
    server = cloud.add_server(vm_state=state)
    with SinkServer() as sink:
        function = start_function(cloud, AUTOSTOP_RESULT_SINK=sink.url, AUTOSTOP_ANNOUNCE="required", **environ)
        assert function.send({"server_ids": [server], **data}).status_code == 204
    assert types(sink) == ["completed"]


def test_each_event_of_a_batch_is_announced(cloud: Simulator, start_function: StartFunction) -> None:
    """With its own servers."""
    servers = [cloud.add_server(), cloud.add_server()]
    with SinkServer() as sink:
        function = start_function(cloud, AUTOSTOP_RESULT_SINK=sink.url, AUTOSTOP_ANNOUNCE="best-effort")
        members = [event(id=server, data={"server_ids": [server]}) for server in servers]
        assert post_batch(function, *members).status_code == 204
    found = [got for got in sink.got if got.headers["ce-type"] == f"{PREFIX}announced.v1"]
    assert sorted(announced(got) for got in found) == sorted([server] for server in servers)


def test_an_announcement_that_comes_back_is_ignored(
    cloud: Simulator, start_function: StartFunction, start_keep: StartFunction, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By every function that a broker may bring it to: nothing is stopped, kept or posted."""
    server = cloud.add_server()
    with SinkServer() as sink:
        function = start_function(cloud, AUTOSTOP_RESULT_SINK=sink.url, AUTOSTOP_ANNOUNCE="required")
        function.stop(server)
        document = from_binary(sink.got[0].headers, sink.got[0].body)
        cloud.start_server(server)
        posted = len(sink.got)
        headers, body = structured(document)
        with serving(monkeypatch) as serve:
            chat = serve("notify_chat", {"AUTOSTOP_INBOUND_AUTH": "none", "AUTOSTOP_NOTIFY_TEXT_URL": sink.url})
            for url in (function.url, start_keep(cloud).url, chat):
                with logged() as lines:
                    assert requests.post(url, data=body, headers=headers, timeout=30).status_code == 204
                assert lines.of("event ignored")[0]["event_type"] == f"{PREFIX}announced.v1"
        assert len(sink.got) == posted
    assert cloud.stops_sent(server) == 1
    assert json.loads(body)["data"]["servers"][0]["id"] == server
