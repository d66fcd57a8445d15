"""The reason and the sentence of each result, and of each error of an event."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest

from handler.errors import (
    BudgetSpent,
    CallDenied,
    CallRejected,
    CloudFault,
    CloudUnreachable,
    ServerNotFound,
    StateConflict,
)
from handler.stop.approval import ApprovedReview, PlanReview
from handler.stop.evidence import Action, History, UnreadEntry
from handler.stop.model import Policy, Reason
from handler.stop.ports import Pending, StopFailed, Taken
from tests.stop.fakes import NOW, Scenario, Script, acts, seconds, seen

CONFLICT = StateConflict("busy", status=409)
FAULT = CloudFault("broken", status=500)
DOWN = CloudUnreachable("down", status=503)
LOST = CloudUnreachable("no answer", maybe_acted=True)
DENIED = CallDenied("no", status=403)
REJECTED = CallRejected("what?", status=400)
GONE = ServerNotFound("none", status=404)
OFF = "active/powering-off"
EVENT = NOW - timedelta(minutes=2)
UPDATED, RUNNING = seen("active", updated=NOW), seen("active", updated=NOW - timedelta(hours=1))
NO_HISTORY: Any = {"histories": [History(None)]}
AGE_ALONE = "Its history could not be read, so only the event's age counted."


def one(
    *reads: Any, wait: float = 20.0, budget: float = 50.0, time: Any = None, **script: Any
) -> Callable[[], Scenario]:
    """A run over one server."""
    return lambda: Scenario(Script(*reads, **script), wait=wait, budget=budget, time=time)


def beside(other: Sequence[Any], *reads: Any, **script: Any) -> Callable[[], Scenario]:
    """The same with a second server, which is read as `other`."""
    return lambda: Scenario(Script(*reads, **script), Script(*other))


def started(at: Any, user_id: str | None = None) -> Callable[[], Scenario]:
    """A run over a server that a user started."""
    return one(UPDATED, histories=[acts(Action("start", at, user_id=user_id))], time=EVENT)


SENTENCES: dict[Reason, list[tuple[Callable[[], Scenario], str]]] = {
    Reason.CONFIRMED: [
        (one("active", "stopped"), "Stopped; it was active."),
        (one("error", "stopped"), "Stopped; it was error."),
        (one(UPDATED, "stopped", time=EVENT, **NO_HISTORY), f"Stopped; it was active. {AGE_ALONE}"),
        (one(UPDATED, "stopped", time=EVENT, stops=[LOST], **NO_HISTORY), f"Stopped; it was active. {AGE_ALONE}"),
    ],
    Reason.ACCEPTED: [
        (one("active", OFF), "The cloud took the stop; it was not seen stopped in time."),
        (one("active", OFF, wait=99, budget=5), "The cloud took the stop; it was not seen stopped in time."),
        (one("active", DOWN, wait=3), "The cloud took the stop; it was not seen stopped in time."),
        (one("active", Pending(), wait=3), "The cloud took the stop; it was not seen stopped in time."),
        (one("active", OFF, "deleted"), "The cloud took the stop; the server has been deleted since."),
        (one("active", OFF, GONE), "The cloud took the stop; the server is gone since."),
        (one("active", OFF, DENIED), "The cloud took the stop; it does not show the server any more."),
        (one("active", OFF, REJECTED), "The cloud took the stop; it does not show the server any more."),
        (
            one(UPDATED, OFF, time=EVENT, wait=3, **NO_HISTORY),
            f"The cloud took the stop; it was not seen stopped in time. {AGE_ALONE}",
        ),
    ],
    Reason.ALREADY_STOPPED: [
        (one("active", "stopped", stops=[CONFLICT]), "It was already stopped. Our stop was answered with 409."),
        (
            one("active", StopFailed(StateConflict("BMS.0039")), "stopped"),
            "It was already stopped. The job of our stop failed.",
        ),
        (one(seen("stopped", power_state=0)), "It was already stopped; its power state is unknown."),
        (one("active", FAULT, "stopped", stops=[CONFLICT]), "It was already stopped. Our stop was answered with 409."),
        (one(DOWN, "stopped"), "It was already stopped."),
        (one("stopped"), "It was already stopped."),
    ],
    Reason.ALREADY_STOPPING: [
        (one(seen(OFF, updated=NOW - seconds(60))), "It was already powering off, since 2026-11-20T18:59:00.000Z."),
        (one(OFF), "It was already powering off."),
    ],
    Reason.PROTECTED: [
        (one(seen("active", tags=frozenset({"autostop=never"}))), "It is protected by autostop=never."),
        (
            one(seen("active", tags=frozenset({"autostop-keep-until=2099-01-01T00:00:00"}))),
            "Its autostop-keep-until is not an RFC 3339 time with a zone, so it is treated as protected.",
        ),
    ],
    Reason.KEPT_UNTIL: [
        (
            one(seen("active", metadata={"autostop-keep-until": "2099-01-01T01:00:00+01:00"})),
            "It is to be kept running until 2099-01-01T00:00:00.000Z.",
        )
    ],
    Reason.LOCKED: [
        (one("active", seen("active", locked=True), stops=[LOST]), "It is locked. Our stop had no answer."),
        (
            one(UPDATED, seen("active", locked=True), time=EVENT, stops=[LOST], **NO_HISTORY),
            "It is locked. Our stop had no answer.",
        ),
        (one(seen("active", locked=True)), "It is locked."),
    ],
    Reason.NOT_BARE_METAL: [(one(seen("active", flavor="s3.large.2")), "It does not look like a bare metal server.")],
    Reason.STARTED_SINCE: [
        (started(NOW, "u-7"), "It was started again (start by user u-7 at 2026-11-20T19:00:00.000Z)."),
        (started(NOW), "It was started again (start at 2026-11-20T19:00:00.000Z)."),
        (
            started(EVENT + seconds(1), "u-7"),
            "It was started again (start by user u-7 at 2026-11-20T18:58:01.000Z, too close to the event to tell).",
        ),
        (one("stopped/powering-on"), "It is being started (task powering-on)."),
        (
            one(seen("stopped/powering-on", updated=NOW - seconds(60))),
            "It is being started (task powering-on since 2026-11-20T18:59:00.000Z).",
        ),
        (
            one(UPDATED, histories=[History((), unread=(UnreadEntry(at=NOW),))], time=EVENT),
            "An entry of 2026-11-20T19:00:00.000Z in its history could not be read and may be a start, "
            "so it is left running.",
        ),
        (
            one(UPDATED, histories=[History((), unread=(UnreadEntry("start"),))], time=EVENT),
            "An entry in its history could not be read (start) and may be a start, so it is left running.",
        ),
        (
            one(UPDATED, histories=[acts(Action("power_cycle", NOW))], time=EVENT),
            "An entry of 2026-11-20T19:00:00.000Z in its history could not be read (power_cycle) and may be a start, "
            "so it is left running.",
        ),
        (
            one(
                UPDATED,
                time=EVENT,
                histories=[
                    acts(Action("start", NOW, user_id="ironic"), Action("reboot", EVENT - seconds(10), user_id="u-7"))
                ],
            ),
            "It was started again (start by user ironic at 2026-11-20T19:00:00.000Z; "
            "right before it reboot by user u-7 at 2026-11-20T18:57:50.000Z).",
        ),
        (
            one(UPDATED, time=EVENT, histories=[acts(Action("reboot", NOW), Action("reboot", EVENT - seconds(10)))]),
            "It was started again (reboot at 2026-11-20T19:00:00.000Z).",
        ),
        (
            one(seen("active", updated=NOW), seen("active", updated=NOW + seconds(1)), stops=[LOST], **NO_HISTORY),
            "It runs, and its record has changed since our stop; without a history nothing shows that nobody started "
            "it again, so it is left running. Our stop had no answer.",
        ),
    ],
    Reason.OTHER_PROJECT: [
        (one(seen("active", other_project="0a1b")), "It belongs to another project (0a1b) than the login.")
    ],
    Reason.NOT_OPTED_IN: [
        (
            lambda: Scenario(Script("active"), policy=Policy(only=("autostop", "allowed"))),
            "It does not carry autostop=allowed, which is required here.",
        )
    ],
    Reason.CHANGED_SINCE_PLAN: [
        (
            lambda: Scenario(Script(RUNNING), review=ApprovedReview({})),
            "It has changed since the plan. Its states, its history or its record are not those of the plan.",
        )
    ],
    Reason.NOT_FOUND: [
        (one(GONE), "The cloud knows no such server in this project; check the id, and the project of the login."),
        (
            one("active", StopFailed(CloudFault("x"), "BMS.1007"), GONE),
            "The server is gone. The job of our stop failed (BMS.1007).",
        ),
        (one("deleted"), "It has been deleted."),
    ],
    Reason.WRONG_STATE: [
        (one("building"), "It is still being built."),
        (one("paused"), "It is paused; only active or error can be stopped."),
    ],
    Reason.POWER_STILL_ON: [
        (
            one(seen("stopped", power_state=1)),
            "The cloud shows it as SHUTOFF, but its power is on (power_state 1). Check its management controller.",
        ),
        (
            one("active", StopFailed(CloudFault("x"), "BMS.1007"), seen("stopped", power_state=1), wait=3),
            "The cloud took the stop and shows the server as SHUTOFF, but its power is on (power_state 1). "
            "Check its management controller. The job of our stop failed (BMS.1007).",
        ),
    ],
    Reason.BUSY: [
        (
            one("active/rebooting", budget=5),
            "Another operation is running on it (task rebooting). It was still running when the time was up.",
        ),
        (
            one(seen("stopped/powering-on", updated=NOW - timedelta(days=3))),
            "Its task powering-on has been running since 2026-11-17T19:00:00.000Z, for more than 30 minutes: "
            "the operation is stuck.",
        ),
        (
            one(seen(OFF, updated=NOW - timedelta(days=3))),
            "Its task powering-off has been running since 2026-11-17T19:00:00.000Z, for more than 30 minutes: "
            "the operation is stuck.",
        ),
        (
            one("reboot", budget=5),
            "Another operation is running on it (vm_state reboot). It was still running when the time was up.",
        ),
    ],
    Reason.DELETING: [(one("active/deleting"), "It is being deleted.")],
    Reason.NEVER_LAUNCHED: [
        (one(seen("error", launched=False)), "It is in error and never ran, so there is nothing to stop.")
    ],
    Reason.FORBIDDEN: [
        (one(DENIED), "The login may not read it."),
        (one("active", stops=[DENIED]), "The login may not stop it."),
        (
            one("active", StopFailed(CallDenied("x"), "BMS.0288: policy")),
            "The login may not stop it. The job of our stop failed (BMS.0288: policy).",
        ),
    ],
    Reason.CONFLICT: [
        (
            one("active", stops=[CONFLICT]),
            "The cloud keeps turning the stop down though nothing stands against it (busy).",
        )
    ],
    Reason.REJECTED: [
        (one(REJECTED), "The cloud calls the request to read it wrong."),
        (one("active", stops=[REJECTED]), "The cloud calls the request to stop it wrong."),
        (
            one("active", StopFailed(CallRejected("x"), "BMS.0018")),
            "The cloud calls the request to stop it wrong. The job of our stop failed (BMS.0018).",
        ),
    ],
    Reason.REVERTED: [
        (one("active", OFF, "active"), "The cloud took the stop, but the server is active after it."),
        (one("active", OFF, "error"), "The cloud took the stop, but the server is error after it."),
        (one("active", OFF, "active", stops=[LOST]), "The cloud took the stop, but the server is active after it."),
        (
            one("active", stops=[Taken("req-1")], histories=[acts(Action("stop", NOW, "req-1", failed=True))]),
            "The cloud took the stop, then recorded that it failed.",
        ),
        (
            one("active", StopFailed(CloudFault("x"), "BMS.1007: no power unit"), "active"),
            "The cloud took the stop, but the server is active after it. The job of our stop failed "
            "(BMS.1007: no power unit).",
        ),
        (
            one("active", StopFailed(CloudFault("x"), "BMS.1007"), OFF, wait=3),
            "The cloud took the stop; it was not seen stopped in time. The job of our stop failed (BMS.1007).",
        ),
        (
            one("active", StopFailed(CloudFault("x"), "BMS.1007"), DENIED),
            "The cloud took the stop; it does not show the server any more. The job of our stop failed (BMS.1007).",
        ),
    ],
    Reason.CLOUD_ERROR: [
        (one("active", stops=[FAULT]), "The cloud failed each time it was to stop it."),
        (
            beside(["active", "stopped"], "active", stops=[DOWN]),
            "The cloud takes the stops of other servers, but not of this one.",
        ),
        (beside(["stopped"], DOWN), "The cloud answers for other servers, not for this one."),
        (
            beside(["stopped"], "active", DOWN, stops=[LOST]),
            "The cloud answers for other servers, not for this one. Our stop had no answer.",
        ),
        (one(UPDATED, histories=[FAULT], time=EVENT), "The cloud shows the server, but fails to show its history."),
    ],
    Reason.DRY_RUN: [
        (lambda: Scenario(Script("active"), dry_run=True), "It would be stopped; it is active."),
        (lambda: Scenario(Script("error"), dry_run=True), "It would be stopped; it is in error."),
    ],
    Reason.NEEDS_APPROVAL: [
        (
            lambda: Scenario(Script(RUNNING), review=PlanReview()),
            "It would be stopped; it is active. It needs an approval.",
        )
    ],
}


@pytest.mark.parametrize(
    ("reason", "scenario", "sentence"), [(reason, *row) for reason, rows in SENTENCES.items() for row in rows]
)
def test_each_result_has_a_reason_and_a_full_sentence(
    reason: Reason, scenario: Callable[[], Scenario], sentence: str
) -> None:
    """Nothing is cut off or repeated."""
    result = scenario().results()[0]
    assert (result.reason, result.detail) == (reason, sentence)


def test_each_reason_can_be_reached() -> None:
    """A new reason needs a row of its own above."""
    assert SENTENCES.keys() == set(Reason)


def test_the_error_of_an_event_that_must_come_again_counts_servers_and_names_causes() -> None:
    """It stands in the problem document and in the log."""
    with pytest.raises(BudgetSpent) as caught:
        Scenario(Script(DOWN), Script("stopped"), budget=0.4).report()
    assert str(caught.value) == (
        "1 of 2 servers not handled in time (cloud-unreachable); the last failure: down: HTTP 503."
    )
    with pytest.raises(BudgetSpent) as caught:
        Scenario(Script("active"), budget=0.0).report()
    assert str(caught.value) == "1 of 1 servers not handled in time (the time was too short)."
    assert caught.value.cause is None
    assert "AUTOSTOP_DEADLINE" in caught.value.fix
