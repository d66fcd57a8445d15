"""The events that users and schedules send, their form in HTTP, and the broker that delivers them at least once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum

from tests.harness.prove.approvals import Approved

_TYPE = "io.github.bms-autostop.stop.requested.v1"
_APPROVED_TYPE = "io.github.bms-autostop.stop.approved.v1"
_RESULT_TYPE = "io.github.bms-autostop.stop.completed.v1"

# As in a Knative Trigger with `retry: 6`: the first delivery and six more.
MAX_DELIVERIES = 7
# What a broker delivers again (Knative's delivery contract), beside every 5xx.
_RETRIED = frozenset({404, 408, 409, 429})

Key = tuple[str, str]


class Kind(StrEnum):
    """What sort of event it is."""

    GOOD = "good"
    MALFORMED = "malformed"
    """One of its ids is not a UUID; or an approval names no person."""
    UNKNOWN = "unknown"
    """Its type is not one that the function accepts."""
    OWN_RESULT = "own result"
    """It is one of the function's own results that came back."""
    DEAD_LETTER = "dead letter"
    """It is the copy of an event that a broker could not deliver."""


class Mode(StrEnum):
    """How one event is put into HTTP."""

    BINARY = "binary"
    STRUCTURED = "structured"
    BATCH = "batch"


@dataclass(frozen=True, slots=True)
class Event:
    """One event. All times are in seconds since the epoch.

    Attributes:
        server_ids: those that it names; none with a `tag`, and none in an event that forgot to name any.
        emitted: when it was really made.
        tag: it selects the servers that carry this tag; or None.
        since_by_server: it states `since` for each server.
        approval: who must approve its stops, as it says; or None.
        approves: what it approves, if it is an approval; then `server_ids` are those of the plan.
    """

    source: str
    id: str
    kind: Kind
    server_ids: tuple[str, ...]
    emitted: float
    time: float | None
    expires: float | None = None
    dry_run: bool = False
    tag: str | None = None
    since: float | None = None
    since_by_server: bool = False
    approval: str | None = None
    requester: str | None = None
    approves: Approved | None = None

    @property
    def key(self) -> Key:
        return self.source, self.id

    @property
    def impossible(self) -> bool:
        """Whether it can never succeed."""
        return self.kind in (Kind.MALFORMED, Kind.UNKNOWN)

    @property
    def ignorable(self) -> bool:
        """Whether there is nothing to do for it."""
        return self.kind in (Kind.OWN_RESULT, Kind.DEAD_LETTER)


@dataclass(frozen=True, slots=True)
class Message:
    """What the broker delivers in one request: one event, or several as a batch."""

    events: tuple[Event, ...]
    mode: Mode

    @property
    def impossible(self) -> bool:
        """Whether one of its events can never succeed."""
        return any(event.impossible for event in self.events)

    @property
    def acting(self) -> tuple[Event, ...]:
        """Its distinct events that something is to be done for."""
        return tuple(dict.fromkeys(event for event in self.events if not event.ignorable))

    def wire(self) -> tuple[dict[str, str], bytes]:
        """Return headers, with names in lower case, and body."""
        match self.mode:
            case Mode.BATCH:
                body = json.dumps([_structured(event) for event in self.events]).encode()
                return {"content-type": "application/cloudevents-batch+json"}, body
            case Mode.STRUCTURED:
                return {"content-type": "application/cloudevents+json"}, json.dumps(
                    _structured(self.events[0])
                ).encode()
        attributes = _attributes(self.events[0])
        headers = {f"ce-{name}": value for name, value in attributes.items()}
        return {**headers, "content-type": "application/json"}, json.dumps(_data(self.events[0])).encode()


def timestamp(seconds: float) -> str:
    """Return RFC 3339, UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def basic_timestamp(seconds: float) -> str:
    """Return RFC 3339 in ISO 8601's basic form, UTC, in whole seconds."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y%m%dT%H%M%SZ")


def _attributes(event: Event) -> dict[str, str]:
    types = {Kind.UNKNOWN: "com.example.something", Kind.OWN_RESULT: _RESULT_TYPE}
    attributes = {
        "specversion": "1.0",
        "id": event.id,
        "source": event.source,
        "type": types.get(event.kind, _TYPE if event.approves is None else _APPROVED_TYPE),
    }
    if event.time is not None:
        attributes["time"] = timestamp(event.time)
    if event.expires is not None:
        attributes["expirytime"] = timestamp(event.expires)
    if event.kind is Kind.DEAD_LETTER:
        attributes["knativeerrordest"] = "http://function.test"
    return attributes


def _data(event: Event) -> dict[str, object]:
    dry_run = {"dry_run": True} if event.dry_run else {}
    if event.approves is not None:
        by = {} if event.approves.approved_by is None else {"approved_by": event.approves.approved_by}
        return {"plan": event.approves.token, **by, **dry_run}
    ids: Sequence[str] = event.server_ids
    if event.kind is Kind.MALFORMED:
        ids = [*ids, "everything"]
    data: dict[str, object] = {**dry_run}
    if event.tag is not None:
        data["selector"] = {"tags": [event.tag]}
    elif ids:
        data["server_ids"] = ids
    if event.approval is not None:
        data["approval"] = event.approval
    if event.requester is not None:
        data["requester"] = event.requester
    if event.since is not None:
        since = timestamp(event.since)
        data["since"] = dict.fromkeys(event.server_ids, since) if event.since_by_server and event.server_ids else since
    return data


def _structured(event: Event) -> dict[str, object]:
    return {**_attributes(event), "datacontenttype": "application/json", "data": _data(event)}


@dataclass(slots=True, eq=False)
class Copy:
    """One copy of a message on its way.

    Attributes:
        statuses: what those deliveries were answered with; None for no answer.
    """

    message: Message
    tries: int = 0
    statuses: list[int | None] = field(default_factory=list)


class Broker:
    """Holds copies of messages until they are acknowledged or given up; it delays, duplicates and reorders them."""

    def __init__(self) -> None:
        self.published: list[Message] = []
        self.waiting: list[Copy] = []
        self.acknowledged: list[Copy] = []
        self.dead: list[Copy] = []

    def publish(self, message: Message) -> None:
        self.published.append(message)
        self.waiting.append(Copy(message))

    def duplicate(self, number: int) -> None:
        """Deliver a message once more that was published at any time before."""
        self.waiting.append(Copy(self.published[number % len(self.published)]))

    def take(self, number: int) -> Copy:
        copy = self.waiting.pop(number % len(self.waiting))
        copy.tries += 1
        return copy

    def give_up(self, copy: Copy) -> None:
        self.waiting.remove(copy)
        self.dead.append(copy)

    def settle(self, copy: Copy, status: int | None) -> None:
        """Note the end of a delivery.

        Args:
            status: None if no answer came, or it was lost.
        """
        copy.statuses.append(status)
        if status is not None and 200 <= status < 300:
            self.acknowledged.append(copy)
        elif (status is None or status >= 500 or status in _RETRIED) and copy.tries < MAX_DELIVERIES:
            self.waiting.append(copy)
        else:
            self.dead.append(copy)
