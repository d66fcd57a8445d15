"""The facts that a decision is based on, with the cloud's history of a server, as a result shows them."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from handler.errors import CallDenied, CallRejected, CloudError, CloudUnexpectedAnswer, ServerNotFound


class Lookup(StrEnum):
    """The result of the check whether the server was started after the event."""

    NOT_ASKED = "not-asked"
    NOT_KEPT = "not-kept"
    FORBIDDEN = "forbidden"
    UNREADABLE = "unreadable"
    NONE_COUNTS = "none-counts"
    FOUND = "found"


class Action(NamedTuple):
    """One entry of the cloud's own history of a server.

    Attributes:
        name: as Nova names actions: `stop`, `start`, `reboot`, `rebuild` ...
        at: when it began (aware).
        request_id: of the request that caused it, or None.
        user_id: of the user who requested it, or None.
        failed: the cloud recorded an error for it.
    """

    name: str
    at: datetime
    request_id: str | None = None
    user_id: str | None = None
    failed: bool = False


class UnreadEntry(NamedTuple):
    """An entry of the history of which the action, the time, or both could not be parsed.

    Attributes:
        name: the action, in lower case, or None.
        at: when it began (aware), or None.
    """

    name: str | None = None
    at: datetime | None = None


class History(NamedTuple):
    """The cloud's history of a server.

    Attributes:
        actions: the parsed entries, newest first; None if the cloud has no history or does not show it.
        gap: why there are no actions; ignored if there are.
        unread: the other entries, in the cloud's order.
    """

    actions: tuple[Action, ...] | None
    gap: Lookup = Lookup.NOT_KEPT
    unread: tuple[UnreadEntry, ...] = ()


def gap_of(error: CloudError) -> Lookup | None:
    """Return why a cloud has no history, or none for this login; None if it only fails to show it.

    A page in place of JSON, or a redirect, comes from a proxy, and does not show whether the cloud has one.
    """
    match error:
        case CallDenied():
            return Lookup.FORBIDDEN
        case CallRejected() | ServerNotFound():
            return Lookup.UNREADABLE
        case CloudUnexpectedAnswer(status=int(status)) if status >= 400:
            return Lookup.UNREADABLE
        case _:
            return None


class Evidence(NamedTuple):
    """What was known of a server at the last decision on it.

    Of its tags and metadata it has only the one entry that decided: the others may be confidential.

    Attributes:
        observed_at: when the cloud's answer was received, by the local clock (aware).
        vm_state, task_state, locked, launched, updated: as in `Server`, of that answer.
        power_state: as in `Server`; the last one seen if the reason depends on it.
        flavor: None if the cloud did not show it.
        tag: the tag that kept it running, as it is on the server; None if none did.
        metadata: the same for an entry of its metadata, as `key=value`.
        event_time: the event's real time, or None.
        clock_tolerance: how far the clocks may differ.
        history: the result of reading the history.
        action: the entry that counted: a start after the event, or our own stop if the cloud recorded that it
            failed; None unless `history` is FOUND.
    """

    observed_at: datetime
    vm_state: str
    task_state: str | None
    power_state: int | None
    locked: bool
    launched: bool
    flavor: str | None
    updated: datetime | None
    tag: str | None
    metadata: str | None
    event_time: datetime | None
    clock_tolerance: timedelta
    history: Lookup
    action: Action | None
