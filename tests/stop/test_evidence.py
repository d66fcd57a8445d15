"""What a result shows of the facts that a server was judged by."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from handler.errors import (
    CallDenied,
    CallRejected,
    CloudError,
    CloudFault,
    CloudUnexpectedAnswer,
    CloudUnreachable,
    ServerNotFound,
    StateConflict,
)
from handler.stop.decide import KEEP_UNTIL
from handler.stop.evidence import Action, Evidence, History, Lookup
from handler.stop.model import Reason, ServerResult
from tests.stop.fakes import NOW, FakeExecutor, Scenario, Script, acts, seconds, seen

EVENT = NOW - timedelta(minutes=2)
RECENT = NOW - seconds(30)
STARTED = Action("start", RECENT, "req-start", "u-7")
OFF = "active/powering-off"
DENIED = CallDenied("no", status=403)
GONE = ServerNotFound("none", status=404)
DOWN = CloudUnreachable("down", status=503)
REJECTED = CallRejected("what?", status=400)
FAULT = CloudFault("broken", status=500, request_id="req-500")
CONFUSED = CloudUnexpectedAnswer("page not found", status=404)


def judged(
    *reads: Any, time: Any = None, executor: FakeExecutor | None = None, **script: Any
) -> tuple[ServerResult, Evidence]:
    """The result of one server with this script, and its evidence."""
    result = Scenario(Script(*reads, **script), time=time, executor=executor).result()
    assert result.evidence is not None
    return result, result.evidence


def test_a_skipped_server_shows_all_that_was_read() -> None:
    """States, lock, flavor, times, and the entry of the history that counted: the log is not needed."""
    _, evidence = judged(seen("active", updated=RECENT, power_state=1), time=EVENT, histories=[acts(STARTED)])
    assert evidence == Evidence(
        observed_at=NOW,
        vm_state="active",
        task_state=None,
        power_state=1,
        locked=False,
        launched=True,
        flavor="physical.s3.large",
        updated=RECENT,
        tag=None,
        metadata=None,
        event_time=EVENT,
        clock_tolerance=seconds(5),
        history=Lookup.FOUND,
        action=STARTED,
    )


@pytest.mark.parametrize(
    ("facts", "reason", "expected"),
    [
        ({"tags": {"autostop=never"}}, Reason.PROTECTED, ("autostop=never", None)),
        ({"tags": {"AutoStop= Never "}}, Reason.PROTECTED, ("AutoStop= Never ", None)),
        ({"metadata": {"autostop": "never"}}, Reason.PROTECTED, (None, "autostop=never")),
        ({"metadata": {"Autostop": "NEVER"}}, Reason.PROTECTED, (None, "Autostop=NEVER")),
        ({"tags": {f"{KEEP_UNTIL}=soon"}}, Reason.PROTECTED, (f"{KEEP_UNTIL}=soon", None)),
        ({"tags": {KEEP_UNTIL}}, Reason.PROTECTED, (KEEP_UNTIL, None)),
        (
            {"metadata": {KEEP_UNTIL: "2099-01-01T00:00:00Z"}},
            Reason.KEPT_UNTIL,
            (None, f"{KEEP_UNTIL}=2099-01-01T00:00:00Z"),
        ),
        ({"locked": True}, Reason.LOCKED, (None, None)),
        ({"tags": {f"{KEEP_UNTIL}=2001-01-01T00:00:00Z"}}, Reason.CONFIRMED, (None, None)),
        ({}, Reason.CONFIRMED, (None, None)),
    ],
)
def test_the_one_entry_that_decided_is_shown_as_it_is(
    facts: dict[str, Any], reason: Reason, expected: tuple[str | None, str | None]
) -> None:
    """A person finds it on the server as it is written there; entries that decided nothing stay where they are."""
    private = {"tags": {"team=secret", "autostop=always"}, "metadata": {"password": "secret"}}
    mixed = {
        "tags": frozenset(private["tags"] | facts.get("tags", set())),
        "metadata": {**private["metadata"], **facts.get("metadata", {})},  # type: ignore[dict-item]
    }
    result, evidence = judged(seen("active", **{**facts, **mixed}), "stopped")
    assert (result.reason, evidence.tag, evidence.metadata) == (reason, *expected)
    assert "secret" not in repr(result)


@pytest.mark.parametrize(
    ("read", "reason", "name", "value"),
    [
        (seen("active", locked=True), Reason.LOCKED, "locked", True),
        (seen("active", flavor="s3.large.2"), Reason.NOT_BARE_METAL, "flavor", "s3.large.2"),
        (seen("active", flavor=""), Reason.NOT_BARE_METAL, "flavor", None),
        (seen("error", launched=False), Reason.NEVER_LAUNCHED, "launched", False),
        (seen("paused"), Reason.WRONG_STATE, "vm_state", "paused"),
        (seen("active/rebuilding"), Reason.BUSY, "task_state", "rebuilding"),
        (seen("stopped/powering-on"), Reason.STARTED_SINCE, "task_state", "powering-on"),
        (seen("deleted"), Reason.NOT_FOUND, "vm_state", "deleted"),
    ],
)
def test_the_fact_that_decided_is_in_the_evidence(read: Any, reason: Reason, name: str, value: object) -> None:
    """Whatever guard or state stood against the stop."""
    result, evidence = judged(read)
    assert (result.reason, getattr(evidence, name)) == (reason, value)


# --- the history ---


DAY_BEFORE = EVENT - timedelta(days=1)


@pytest.mark.parametrize(
    ("time", "updated", "answer", "lookup"),
    [
        # The event says no time, or the server has not changed since.
        *(
            (time, at, acts(), Lookup.NOT_ASKED)
            for time, at in ((None, NOW), (EVENT, DAY_BEFORE), (EVENT, EVENT - seconds(6)))
        ),
        *((EVENT, RECENT, acts(*actions), Lookup.NONE_COUNTS) for actions in ([], [Action("lock", RECENT)])),
        (EVENT, RECENT, acts(Action("start", EVENT - seconds(60))), Lookup.NONE_COUNTS),
        (EVENT, RECENT, History(None), Lookup.NOT_KEPT),
        (EVENT, RECENT, DENIED, Lookup.FORBIDDEN),
        *((EVENT, RECENT, answer, Lookup.UNREADABLE) for answer in (REJECTED, GONE, CONFUSED)),
    ],
)
def test_a_stop_shows_what_became_of_the_history(time: Any, updated: Any, answer: Any, lookup: Lookup) -> None:
    """Nothing of it that did not count; without one the server is stopped for the event's age alone."""
    result, evidence = judged(seen("active", updated=updated), "stopped", time=time, histories=[answer])
    assert (result.reason, evidence.history, evidence.action) == (Reason.CONFIRMED, lookup, None)
    assert (evidence.event_time, evidence.updated) == (time, updated)
    none_read = lookup in (Lookup.NOT_KEPT, Lookup.FORBIDDEN, Lookup.UNREADABLE)
    assert ("history could not be read" in result.detail) is none_read


def test_our_own_stop_that_the_history_calls_failed_is_the_entry_that_counted() -> None:
    """With its request id, which the cloud's people can look for."""
    ours = Action("stop", NOW, "req-stop", failed=True)
    result, evidence = judged("active", histories=[acts(Action("stop", NOW, "req-other", failed=True), ours)])
    assert (result.reason, evidence.history, evidence.action) == (Reason.REVERTED, Lookup.FOUND, ours)


# --- which read it was ---


def test_the_evidence_of_a_stop_is_the_read_that_allowed_it() -> None:
    """What was seen afterwards stands in the row itself."""
    result, evidence = judged("active", OFF, "stopped")
    assert (evidence.vm_state, evidence.task_state, evidence.observed_at) == ("active", None, NOW)
    assert result.vm_state == "stopped"


def test_the_time_of_the_read_is_not_the_time_of_the_history() -> None:
    """What counts is when the server was seen like that, however long its history took."""
    script: dict[str, Any] = {"histories": [acts(STARTED)], "lasts": 2.0}
    _, evidence = judged(seen("active", updated=RECENT), time=EVENT, **script)
    assert evidence.observed_at == NOW + seconds(2)


def test_a_new_decision_comes_with_new_evidence() -> None:
    """The stop was turned down since a user had locked it; the lock is shown, and when it was seen."""
    conflict = StateConflict("locked", status=409)
    result, evidence = judged("active", seen("active", locked=True), stops=[conflict], lasts=1.0)
    assert (result.reason, evidence.locked, evidence.observed_at) == (Reason.LOCKED, True, NOW + seconds(3))


def test_a_history_counts_for_its_own_read_only() -> None:
    """It was read before the first stop; what was then decided without it does not claim it."""
    reads = [seen("active", updated=RECENT), "stopped"]
    result, evidence = judged(*reads, time=EVENT, stops=[StateConflict("no", status=409)])
    assert (result.reason, evidence.history) == (Reason.ALREADY_STOPPED, Lookup.NOT_ASKED)


def test_a_server_that_is_gone_keeps_the_evidence_of_the_last_read_of_it() -> None:
    """The row says that it is gone, the evidence what it was when the stop was sent."""
    result, evidence = judged(seen("active", name="ci-07"), GONE, stops=[GONE])
    assert (result.reason, result.name, result.vm_state) == (Reason.NOT_FOUND, "ci-07", None)
    assert (result.task_state, evidence.vm_state) == (None, "active")


@pytest.mark.parametrize("fault", [GONE, DENIED, REJECTED, DOWN, FAULT])
def test_a_server_that_was_never_read_has_no_evidence(fault: CloudError) -> None:
    """There is nothing to show, and nothing is made up."""
    result, _ = Scenario(Script(fault), Script("active", "stopped")).results()
    assert (result.evidence, result.vm_state, result.request_id) == (None, None, fault.request_id)
