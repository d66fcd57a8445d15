"""Whatever the cloud answers, the run ends in time, says something of every server, and keeps the rules of a stop."""

from __future__ import annotations

import contextlib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from handler.errors import (
    BudgetSpent,
    CallDenied,
    CallRejected,
    CloudFault,
    CloudThrottled,
    CloudUnexpectedAnswer,
    CloudUnreachable,
    LoginRefused,
    ServerNotFound,
    StateConflict,
)
from handler.stop.evidence import Action, History
from handler.stop.model import Outcome, Reason, Server, ServerResult
from handler.stop.ports import Taken
from tests.stop.fakes import NOW, Raised, Scenario, Script, acts, id_of, seconds, seen

_FAULTS = (StateConflict, CloudFault, CloudThrottled, CloudUnreachable, CloudUnexpectedAnswer, ServerNotFound)
_FINAL = (CallDenied, CallRejected)
_STATES = (
    "active", "active", "active/powering-off", "stopped", "stopped", "error", "active/rebooting", "active/deleting",
    "stopped/powering-on", "building", "paused", "deleted",
)  # fmt: skip

_stamps = st.none() | st.integers(-300, 60).map(lambda offset: NOW + seconds(offset))
_faults = st.builds(
    lambda kind, reported, acted: kind("error", retry_after=reported, maybe_acted=acted),
    st.sampled_from(_FAULTS * 3 + _FINAL),
    st.none() | st.sampled_from([0.0, 0.3, 5.0, 45.0]),
    st.booleans(),
)
_servers = st.builds(
    lambda state, updated, locked: seen(state, updated=updated, locked=locked),
    st.sampled_from(_STATES),
    _stamps,
    st.sampled_from([False] * 9 + [True]),
)
_actions = st.builds(
    lambda name, offset, ours, failed: Action(name, NOW + seconds(offset), ours, None, failed),
    st.sampled_from(["start", "stop", "reboot"]),
    st.integers(-300, 60),
    st.sampled_from([None, "req-stop"]),
    st.booleans(),
)
_histories = st.just(History(None)) | st.lists(_actions, max_size=3).map(lambda entries: acts(*entries))


def _lines(answers: st.SearchStrategy[Any], most: int) -> st.SearchStrategy[list[Any]]:
    return st.lists(st.one_of(answers, answers, answers, _faults), min_size=1, max_size=most)


_scripts = st.builds(
    lambda reads, stops, histories, lasts: Script(*reads, stops=stops, histories=histories, lasts=lasts),
    _lines(_servers, 8),
    _lines(st.just(Taken("req-stop")), 5) | st.lists(_faults, min_size=1, max_size=5),
    _lines(_histories, 3),
    st.sampled_from([0.0, 0.01, 0.5, 4.0, 30.0]),
)
_scenarios = st.builds(
    lambda scripts, facts: Scenario(*scripts, **facts),
    st.lists(_scripts, min_size=1, max_size=5),
    st.fixed_dictionaries(
        {
            "budget": st.sampled_from([0.0, 0.1, 3.0, 20.0, 50.0]),
            "wait": st.sampled_from([0.0, 2.0, 20.0, 100.0]),
            "width": st.integers(1, 4),
            "together": st.integers(1, 3),
            "time": _stamps,
            "unrequested": st.sampled_from([{}, {id_of(999): seen("active", id_of(999))}]),
        }
    ),
)


def _is_true(result: ServerResult, scenario: Scenario) -> bool:
    """Whether a result agrees with what the cloud was asked and what it last showed."""
    sent = len(scenario.cloud.of("stop", result.id))
    match result.outcome:
        case Outcome.STOPPED:
            return sent > 0 and result.vm_state == "stopped"
        case Outcome.ACCEPTED:
            return sent > 0
        case Outcome.PLANNED:
            return False
        case Outcome.UNCHANGED:
            return result.vm_state == "stopped" or result.task_state == "powering-off"
        case _:
            return result.reason is not Reason.CONFLICT or sent >= 4


@given(_scenarios)
def test_any_run_ends_in_time_with_a_result_for_each_server_or_comes_again(scenario: Scenario) -> None:
    """No stop without a fresh read that allows it, none twice without a read between; `Scenario` checks that."""
    try:
        results = scenario.results()
    except BudgetSpent:
        results = ()
    else:
        assert tuple(result.id for result in results) == scenario.ids
    assert scenario.elapsed <= scenario.budget + 1e-6
    assert all(_is_true(result, scenario) for result in results)


@given(st.lists(_scripts, max_size=3), _scripts, st.sampled_from(["read", "stop", "history"]))
def test_a_refused_login_is_never_lost(scripts: list[Script], last: Script, kind: str) -> None:
    """Wherever it happens, once it happened the run ends with it and makes no other call."""
    last.repeat(kind, Raised(LoginRefused("no")))
    scenario = Scenario(*scripts, last, width=1, time=NOW)
    try:
        scenario.results()
    except LoginRefused:
        assert (scenario.cloud.calls[-1].kind, scenario.cloud.calls[-1].id) == (kind, scenario.ids[-1])
    except BudgetSpent:
        assert scenario.cloud.of(kind, scenario.ids[-1]) == []
    else:
        assert scenario.cloud.of(kind, scenario.ids[-1]) == []


def _locked(answer: Any) -> Any:
    return seen(answer.vm_state, locked=True) if isinstance(answer, Server) else answer


@given(st.lists(_servers | _faults, min_size=1, max_size=8))
def test_a_locked_server_is_never_stopped(reads: list[Any]) -> None:
    """Whatever else happens around it."""
    scenario = Scenario(Script(*(_locked(answer) for answer in reads)))
    with contextlib.suppress(BudgetSpent):
        scenario.results()
    assert scenario.cloud.of("stop") == []
