"""An announcement before the first stop of an event: what it lists, and what waits for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from handler.errors import CloudFault, CloudUnreachable, StopLimitReached
from handler.stop.evidence import Action
from handler.stop.model import Reason
from handler.stop.ports import Candidate
from tests.stop.fakes import NOW, Scenario, Script, acts, id_of, seconds, seen


class Recorder:
    """Records what is announced, and what was sent until then.

    Args:
        takes: seconds that the announcement lasts.
    """

    def __init__(self, scenario: Scenario, takes: float = 0.0) -> None:
        self.announced: list[Sequence[Candidate]] = []
        self.calls_before: list[str] = []
        self._scenario = scenario
        self._takes = takes

    def __call__(self, servers: Sequence[Candidate]) -> None:
        self.announced.append(servers)
        self.calls_before = [call.kind for call in self._scenario.cloud.calls]
        self._scenario.executor.passes(self._takes)


@pytest.mark.parametrize("one_by_one", [True, False])
def test_all_first_decisions_come_before_the_first_stop(one_by_one: bool) -> None:
    """A slow read of one server holds the stops of the others back; one announcement lists all that may be stopped."""
    scenario = Scenario(
        Script(seen("active", name="a"), "stopped"),
        Script(seen("active", name="b"), "stopped", lasts=1.5),
        Script("stopped"),
        Script(seen("active", locked=True)),
        one_by_one=one_by_one,
    )
    recorder = Recorder(scenario)
    report = scenario.report(announce=recorder)
    assert recorder.announced == [[Candidate(id_of(1), "a"), Candidate(id_of(2), "b")]]
    assert recorder.calls_before == ["read"] * 4
    assert [server.reason for server in report.servers] == [
        Reason.CONFIRMED,
        Reason.CONFIRMED,
        Reason.ALREADY_STOPPED,
        Reason.LOCKED,
    ]


def test_a_read_without_an_answer_does_not_hold_the_stops_back_for_the_whole_budget() -> None:
    """After half of it they are announced, along with the server that is waited for."""
    scenario = Scenario(
        Script("active", "active", "stopped"), Script("active", lasts=60.0, ignores_timeout=True), budget=8.0
    )
    recorder = Recorder(scenario)
    with pytest.raises(Exception, match="1 of 2 servers not handled"):
        scenario.report(announce=recorder)
    assert recorder.announced == [[Candidate(id_of(1), None), Candidate(id_of(2), None)]]
    assert scenario.cloud.of("stop", id_of(1))


STARTED = acts(Action("start", NOW - seconds(10), None, None))
CONFIRMED = Reason.CONFIRMED


@pytest.mark.parametrize(
    ("scripts", "announced", "reasons"),
    [
        pytest.param(
            [Script("active", "stopped"), Script("active", histories=[STARTED], lasts=0.5)],
            [1],
            [CONFIRMED, Reason.STARTED_SINCE],
            id="started since, which its history shows first",
        ),
        pytest.param(
            [
                Script("active", "stopped"),
                Script(*["active/rebooting"] * 3, "active", "stopped"),
                Script(CloudUnreachable("no answer"), "active", "stopped"),
            ],
            [1, 2, 3],
            [CONFIRMED] * 3,
            id="busy or not readable, and may be stopped later",
        ),
        pytest.param(
            [
                Script("active", seen("active", tags=frozenset({"autostop=never"}))),
                Script("active", "stopped", lasts=3.0),
            ],
            [1, 2],
            [Reason.PROTECTED, CONFIRMED],
            id="protected while it was held back, which a new read shows",
        ),
        pytest.param([Script("stopped")], None, [Reason.ALREADY_STOPPED], id="stopped"),
        pytest.param([Script(seen("active", locked=True))], None, [Reason.LOCKED], id="locked"),
    ],
)
def test_servers_that_may_still_be_stopped_are_announced_once(
    scripts: list[Script], announced: list[int] | None, reasons: list[Reason]
) -> None:
    """None of them holds the others back; without a stop there is no announcement."""
    recorder = Recorder(scenario := Scenario(*scripts, time=NOW - seconds(60)))
    report = scenario.report(announce=recorder)
    assert [[server.id for server in servers] for servers in recorder.announced] == (
        [[id_of(number) for number in announced]] if announced else []
    )
    assert [server.reason for server in report.servers] == reasons
    assert "stop" not in recorder.calls_before


def failing(error: Exception) -> Callable[[Sequence[Candidate]], None]:
    """An announcement that cannot be delivered."""

    def announce(_: Sequence[Candidate]) -> None:
        raise error

    return announce


def test_an_announcement_that_raises_ends_the_run_with_nothing_sent() -> None:
    """The event must come again."""
    scenario = Scenario(Script("active"), Script("active"))
    with pytest.raises(CloudFault):
        scenario.report(announce=failing(CloudFault("announcing: no")))
    assert {call.kind for call in scenario.cloud.calls} == {"read"}


def test_without_room_in_the_stop_limit_nothing_is_announced() -> None:
    """What is not stopped now needs no silence."""
    recorder = Recorder(scenario := Scenario(Script("active"), Script("stopped"), Script("error")))

    def full(servers: int) -> None:
        raise StopLimitReached(f"no room for {servers}")

    with pytest.raises(StopLimitReached, match=r"^no room for 2$"):
        scenario.report(announce=recorder, before_first_stop=full)
    assert recorder.announced == []


def test_a_slow_announcement_makes_each_server_be_read_again() -> None:
    """The time between the read and the stop stays short, and a start in between shows in the history."""
    recorder = Recorder(scenario := Scenario(Script("active", "active", "stopped")), takes=2.5)
    report = scenario.report(announce=recorder)
    assert scenario.cloud.sequence()[:4] == ["read", "read", "history", "stop"]
    assert [server.reason for server in report.servers] == [Reason.CONFIRMED]
