"""`bms-autostop approve`: what is posted, and the exit code."""

from __future__ import annotations

import io
import json

import pytest

from handler.event_types import STOP_APPROVED
from handler.simulator import CallKind, Simulator
from tests.cli.conftest import Run
from tests.conftest import Function, StartFunction
from tests.support.sink_server import SinkServer
from tests.test_events_folder import schema_violations

REQUESTER, ANOTHER = "slack:T1/U1", "slack:T1/U2"


@pytest.mark.parametrize("plan", ["-", "AQID"])
def test_an_approval_is_posted(sink: SinkServer, run: Run, plan: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In structured mode, with an id and a time of its own; the token may come from standard input."""
    monkeypatch.setenv("AUTOSTOP_SINK_TOKEN", "t" * 20)
    monkeypatch.setattr("sys.stdin", io.StringIO("AQID\n"))
    assert run("approve", plan, "--url", sink.url, "--as", ANOTHER, "--reason", "agreed").code == 0
    (got,) = sink.got
    assert got.data["type"] == STOP_APPROVED
    assert got.data["data"] == {"plan": "AQID", "approved_by": ANOTHER, "reason": "agreed"}
    assert got.headers["authorization"] == f"Bearer {'t' * 20}"
    assert schema_violations("cloudevent-in.json", got.data) == []


@pytest.mark.parametrize(
    "arguments", [["AQID", "--as", "U2"], ["AQID", "--as", "agent:planner"], ["", "--as", ANOTHER]]
)
def test_an_approval_that_can_never_succeed_is_not_posted(sink: SinkServer, run: Run, arguments: list[str]) -> None:
    """It is parsed as the function parses it."""
    ran = run("approve", *arguments, "--url", sink.url)
    assert (ran.code, "data." in ran.err, sink.got) == (3, True, [])


@pytest.fixture
def planning(cloud: Simulator, start_function: StartFunction) -> Function:
    """The function with a key."""
    return start_function(cloud, AUTOSTOP_APPROVAL_KEYS="k" * 32)


def test_a_plan_is_approved_and_its_servers_are_stopped(cloud: Simulator, planning: Function, run: Run) -> None:
    """By another person; the requester is refused, in the result."""
    data = {"server_ids": [cloud.add_server("ci-1")], "approval": "other", "requester": REQUESTER}
    token = planning.send(data).json()["plan"]["token"]
    ran = run("approve", token, "--url", planning.url, "--as", REQUESTER)
    assert (ran.code, "approval-self" in ran.out, cloud.count(CallKind.STOP)) == (3, True, 0)
    ran = run("approve", token, "--url", planning.url, "--as", ANOTHER, "--json")
    (result,) = json.loads(ran.out)["results"]
    assert [row["reason"] for row in result["servers"]] == ["confirmed"]
    assert (ran.code, token in ran.out) == (0, False)
