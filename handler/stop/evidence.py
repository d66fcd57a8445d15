"""What a server was judged by: the cloud's own history of it, and the facts that a result shows.

It is there so that "why was it not stopped?" is answered by the result alone.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from handler.errors import CallDenied, CallRejected, CloudError, CloudUnexpectedAnswer, ServerNotFound


class Lookup(StrEnum):
    """What came of the question whether somebody started the server after the event."""

    NOT_ASKED = "not-asked"
    NOT_KEPT = "not-kept"
    FORBIDDEN = "forbidden"
    UNREADABLE = "unreadable"
    NONE_COUNTS = "none-counts"
    FOUND = "found"


class Action(NamedTuple):
    """One entry of the cloud's own history of a server.

    Attributes:
        name: what was done, in Nova's words: `stop`, `start`, `reboot`, `rebuild` ...
        at: when it began (aware).
        request_id: the request that caused it, or None.
        user_id: who asked for it, or None.
        failed: the cloud recorded an error for it.
    """

    name: str
    at: datetime
    request_id: str | None = None
    user_id: str | None = None
    failed: bool = False


class UnreadEntry(NamedTuple):
    """An entry of the history of which the action, the time, or both could not be read.

    Attributes:
        name: the action, in lower case, or None.
        at: when it began (aware), or None.
    """

    name: str | None = None
    at: datetime | None = None


class History(NamedTuple):
    """What the cloud's history of a server says.

    Attributes:
        actions: the entries that could be read, newest first; None if the cloud has no history or does not show it to
            us.
        gap: why there are no actions; says nothing if there are.
        unread: the other entries, in the cloud's order.
    """

    actions: tuple[Action, ...] | None
    gap: Lookup = Lookup.NOT_KEPT
    unread: tuple[UnreadEntry, ...] = ()


def gap_of(fault: CloudError) -> Lookup | None:
    """Why there is no history, if a cloud keeps none, or none for us; None if it only fails to show it.

    A page where JSON is due, or a redirect, comes from something in between, and says nothing of what the cloud keeps.
    """
    match fault:
        case CallDenied():
            return Lookup.FORBIDDEN
        case CallRejected() | ServerNotFound():
            return Lookup.UNREADABLE
        case CloudUnexpectedAnswer(status=int(status)) if status >= 400:
            return Lookup.UNREADABLE
        case _:
            return None


class Evidence(NamedTuple):
    """What was known of a server when the last decision on it fell.

    Of its tags and metadata only the one entry that decided: the others may be nobody else's business. No dataclass,
    since that would cost each cold start half a millisecond.

    Attributes:
        observed_at: when the cloud's answer was here, by our clock (aware).
        vm_state, task_state, locked, launched, updated: as `Server` has them, in that answer.
        power_state: as `Server` has it; the last one seen where the reason rests on it.
        flavor: None if the cloud did not show it.
        tag: the tag that kept it running, as it is on the server; None if none did.
        metadata: the same for an entry of its metadata, as `key=value`.
        event_time: the event's real time, or None.
        clock_tolerance: how far the clocks may differ.
        history: what came of asking for the history.
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
