"""The guards of approvals and announcements that are removed, as in `breakages.py`; `people.py` finds that."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any
from unittest import mock

from handler.errors import NotAnnounced
from handler.inbound.extract import approved
from handler.outbound import announcement
from handler.outbound.announcement import Announcer
from handler.services import approvals
from handler.settings.stop_servers import ApprovalSettings
from handler.stop import approval
from handler.stop.approval import ApprovedReview, Plan, seen_of
from handler.stop.model import Approver, Decision, Move, Policy, Reason, Refusal, Server
from tests.harness.prove import scheduler

Breakage = AbstractContextManager[object]

# What stands in the place of what is patched below.
_verify, _issue, _needed, _review = approval.verify, approval.issue, ApprovalSettings.needed, ApprovedReview.review


def _without_refusal(refusal: Refusal) -> Breakage:
    def verify(*arguments: Any) -> Any:
        plan, found = _verify(*arguments)
        return plan, None if found is refusal else found

    return mock.patch.object(approvals, "verify", verify)


def _needed_as(needed: Callable[[ApprovalSettings, Approver | None, int], Approver | None]) -> Breakage:
    return mock.patch.object(ApprovalSettings, "needed", needed)


def _event_decides(settings: ApprovalSettings, asked: Approver | None, servers: int) -> Approver | None:
    return asked if asked is not None else _needed(settings, None, servers)


def _deployment_decides(settings: ApprovalSettings, asked: Approver | None, servers: int) -> Approver | None:
    if _needed(settings, asked, servers) is None:
        return None
    return settings.approver or Approver.SELF


def _seen_as(change: Callable[[Server], Server]) -> Breakage:
    def seen(server: Server) -> bytes | None:
        return seen_of(change(server))

    return mock.patch.object(approval, "seen_of", seen)


def _without_actions(server: Server) -> Server:
    history = server.history
    if history is None or not history.actions:
        return server
    return replace(server, history=history._replace(actions=history.actions[-1:]))


def _without_unread(server: Server) -> Server:
    return server if server.history is None else replace(server, history=server.history._replace(unread=()))


def _without_states(server: Server) -> Server:
    return replace(server, vm_state="active", task_state=None, power_state=1)


def _without_updated(server: Server) -> Server:
    return replace(server, updated=server.updated and server.updated.replace(2001, 1, 1, 0, 0, 0))


def _approved_whatever_was_seen(self: ApprovedReview, server: Server, decision: Decision, *others: Any) -> Decision:
    if decision.move is Move.STOP and server.history is not None:
        return decision
    return _review(self, server, decision, *others)


def _approved_waits(self: ApprovedReview, server: Server, decision: Decision, policy: Policy, now: Any) -> Decision:
    return decision if decision.move is Move.WAIT else _review(self, server, decision, policy, now)


def _approved_says_what_it_sees(self: ApprovedReview, server: Server, decision: Decision, *others: Any) -> Decision:
    return decision if decision.move is Move.LEAVE else _review(self, server, decision, *others)


def _approved_before_guards(self: ApprovedReview, server: Server, decision: Decision, *others: Any) -> Decision:
    if decision.move is Move.LEAVE and decision.reason in (Reason.LOCKED, Reason.PROTECTED, Reason.KEPT_UNTIL):
        decision = replace(decision, move=Move.STOP)
    return _review(self, server, decision, *others)


def _unsigned() -> Breakage:
    def signed(token: str, _: Sequence[bytes]) -> bytes | None:
        raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        return raw[:-32] if approval._base64(raw) == token and raw[:1] == b"\x01" else None

    return mock.patch.object(approval, "_signed", signed)


def _any_spelling() -> Breakage:
    real = approval._signed

    def signed(token: str, keys: Sequence[bytes]) -> bytes | None:
        try:
            return real(approval._base64(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))), keys)
        except ValueError:
            return None

    return mock.patch.object(approval, "_signed", signed)


def _keys_are_kept() -> Breakage:
    real, kept = approvals._keys, set[bytes]()

    def keys(settings: ApprovalSettings) -> list[bytes]:
        found = real(settings)
        kept.update(found)
        return [*found, *sorted(kept.difference(found))]

    return mock.patch.object(approvals, "_keys", keys)


def _only_the_first_key() -> Breakage:
    real = approvals._keys
    return mock.patch.object(approvals, "_keys", lambda settings: real(settings)[:1])


def _plans_are_stored() -> Breakage:
    """Each process knows only the plans that it has issued itself."""
    issued: dict[int, set[str]] = {}

    def process() -> int:
        number: int = scheduler.current().command.process
        return number

    def issue(*arguments: Any) -> str:
        token = _issue(*arguments)
        issued.setdefault(process(), set()).add(token)
        return token

    def verify(token: str, *arguments: Any) -> Any:
        return _verify(token if token in issued.get(process(), ()) else "unknown", *arguments)

    return mock.patch.multiple(approvals, issue=issue, verify=verify)


def _token_without_requester() -> Breakage:
    return mock.patch.object(approvals, "Plan", lambda **fields: Plan(**{**fields, "requester": None}))


def _unsigned_plan_is_a_stop() -> Breakage:
    real = approvals.to_be_planned
    return mock.patch.object(
        approvals, "to_be_planned", lambda request, who, given: real(request, who, given) if given.keys else request
    )


def _announcement_that_fails_is_ignored() -> Breakage:
    real = Announcer.announce

    def announce(*arguments: Any) -> None:
        with suppress(NotAnnounced):
            real(*arguments)

    return mock.patch.object(Announcer, "announce", announce)


def _announcement_is_always_required() -> Breakage:
    real = Announcer.announce

    def announce(self: Announcer, *arguments: Any) -> None:
        self._required = True
        real(self, *arguments)

    return mock.patch.object(Announcer, "announce", announce)


def _first_server_is_announced() -> Breakage:
    real = announcement.announcement_event
    return mock.patch.object(
        announcement, "announcement_event", lambda request, servers, **given: real(request, servers[:1], **given)
    )


def _patch(target: object, name: str, value: object) -> Callable[[], Breakage]:
    return lambda: mock.patch.object(target, name, value)


WHOLE_WITH_PEOPLE = "nothing, with people"
PEOPLE_BREAKAGES: Mapping[str, Callable[[], Breakage]] = {
    WHOLE_WITH_PEOPLE: nullcontext,
    # which event needs an approval
    "an event that needs an approval": lambda: _needed_as(lambda *_: None),
    "an event can only tighten who approves": lambda: _needed_as(_event_decides),
    "an event can tighten who approves": lambda: _needed_as(_deployment_decides),
    "approval above a number of servers": lambda: _needed_as(lambda self, asked, _: _needed(self, asked, 1)),
    "approval-not-configured": _unsigned_plan_is_a_stop,
    # tokens
    "approval-invalid": _unsigned,
    "one spelling of a token": _any_spelling,
    "audience of a plan": _patch(approval, "_plan", lambda signed, _: approval._read(signed)[0]),
    "a key that was removed": _keys_are_kept,
    "a key that verifies": _only_the_first_key,
    "approval-expired": lambda: _without_refusal(Refusal.APPROVAL_EXPIRED),
    "no plan is stored": _plans_are_stored,
    # approvers
    "approval-self": lambda: _without_refusal(Refusal.APPROVAL_SELF),
    "requester of a plan": _token_without_requester,
    "approver of the same workspace": _patch(approval, "_system", lambda *_: ""),
    "approver is a person": _patch(approved, "is_person", lambda *_: True),
    # servers
    "changed-since-plan": _patch(ApprovedReview, "review", _approved_whatever_was_seen),
    "guards apply to an approval": _patch(ApprovedReview, "review", _approved_before_guards),
    "an approval waits for no one": _patch(ApprovedReview, "review", _approved_waits),
    "an approval of a server that is stopped": _patch(ApprovedReview, "review", _approved_says_what_it_sees),
    "states of a plan": lambda: _seen_as(_without_states),
    "history of a plan": lambda: _seen_as(_without_actions),
    "unreadable history of a plan": lambda: _seen_as(_without_unread),
    "record of a plan without a history": lambda: _seen_as(_without_updated),
    "no plan within the second of a change": _patch(approval, "_SECOND", timedelta(days=-1)),
    # announcements
    "no stop without a required announcement": _announcement_that_fails_is_ignored,
    "a failing sink changes no stop": _announcement_is_always_required,
    "an announcement lists each server": _first_server_is_announced,
    "stops are announced": _patch(Announcer, "announce", lambda *_: None),
}
