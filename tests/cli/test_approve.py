"""`bms-autostop approve`: what is posted, and what comes of it."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator

import pytest

from handler import cli
from handler.event_types import STOP_APPROVED
from handler.simulator import CallKind, Simulator
from tests.conftest import Function, StartFunction
from tests.support.sink_server import SinkServer
from tests.test_events_folder import schema_violations

REQUESTER, ANOTHER = "slack:T1/U1", "slack:T1/U2"


@pytest.fixture
def sink() -> Iterator[SinkServer]:
    """A broker that takes everything."""
    with SinkServer() as server:
        yield server


@pytest.mark.parametrize("stdin", [False, True])
def test_an_approval_is_posted(sink: SinkServer, stdin: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """In structured mode, with an id and a time of its own; the token may come from standard input."""
    monkeypatch.setenv("AUTOSTOP_SINK_TOKEN", "t" * 20)
    monkeypatch.setattr("sys.stdin", io.StringIO("AQID\n"))
    plan = "-" if stdin else "AQID"
    assert cli.main(["approve", plan, "--url", sink.url, "--as", ANOTHER, "--reason", "agreed"]) == 0
    (got,) = sink.got
    assert got.data["type"] == STOP_APPROVED
    assert got.data["data"] == {"plan": "AQID", "approved_by": ANOTHER, "reason": "agreed"}
    assert got.headers["authorization"] == f"Bearer {'t' * 20}"
    assert schema_violations("cloudevent-in.json", got.data) == []


@pytest.mark.parametrize(
    "arguments", [["AQID", "--as", "U2"], ["AQID", "--as", "agent:planner"], ["", "--as", ANOTHER]]
)
def test_an_approval_that_can_never_succeed_is_not_posted(
    sink: SinkServer, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """It is read as the function reads it."""
    assert cli.main(["approve", *arguments, "--url", sink.url]) == 3
    assert "data." in capsys.readouterr().err
    assert sink.got == []


@pytest.fixture
def planning(cloud: Simulator, start_function: StartFunction) -> Function:
    """The function with a key; it is started before standard output is captured, to which it logs."""
    return start_function(cloud, AUTOSTOP_APPROVAL_KEYS="k" * 32)


def test_a_plan_is_approved_and_its_servers_are_stopped(
    cloud: Simulator, planning: Function, capsys: pytest.CaptureFixture[str]
) -> None:
    """By another person; the requester is refused, in the result."""
    data = {"server_ids": [cloud.add_server("ci-1")], "approval": "other", "requester": REQUESTER}
    token = planning.send(data).json()["plan"]["token"]
    assert cli.main(["approve", token, "--url", planning.url, "--as", REQUESTER]) == 3
    assert "approval-self" in capsys.readouterr().out
    assert cloud.count(CallKind.STOP) == 0
    assert cli.main(["approve", token, "--url", planning.url, "--as", ANOTHER, "--json"]) == 0
    out = capsys.readouterr().out
    (result,) = json.loads(out)["results"]
    assert [row["reason"] for row in result["servers"]] == ["confirmed"]
    assert token not in out
