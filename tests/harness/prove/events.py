"""The events that people and machines send, and how they look on the wire."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

_TYPE = "io.github.bms-autostop.stop.requested.v1"
_OWN = "io.github.bms-autostop.stop.completed.v1"

Key = tuple[str, str]


class Kind(StrEnum):
    """What sort of event it is."""

    GOOD = "good"
    MALFORMED = "malformed"
    """One of its ids is none."""
    UNKNOWN = "unknown"
    """Its type is not one that the function takes."""
    ECHO = "echo"
    """It is one of the function's own results that came back."""
    DEAD = "dead"
    """It is the copy of an event that a broker could not deliver."""


class Mode(StrEnum):
    """How one event is put into HTTP."""

    BINARY = "binary"
    STRUCTURED = "structured"
    BATCH = "batch"


@dataclass(frozen=True, slots=True)
class Asked:
    """One event.

    Attributes:
        emitted: when it was really made; seconds since the epoch.
        time: what it says of that, or None.
        expires: its `expirytime`, or None.
        tag: it means the servers that carry this tag, and names none; or None.
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

    @property
    def key(self) -> Key:
        """What names it."""
        return self.source, self.id

    @property
    def impossible(self) -> bool:
        """Whether it can never succeed."""
        return self.kind in (Kind.MALFORMED, Kind.UNKNOWN)

    @property
    def ignorable(self) -> bool:
        """Whether there is rightly nothing to do for it."""
        return self.kind in (Kind.ECHO, Kind.DEAD)


@dataclass(frozen=True, slots=True)
class Message:
    """What the broker delivers in one go: one event, or several as a batch."""

    events: tuple[Asked, ...]
    mode: Mode

    @property
    def impossible(self) -> bool:
        """Whether one of its events can never succeed."""
        return any(event.impossible for event in self.events)

    @property
    def acting(self) -> tuple[Asked, ...]:
        """Its distinct events that something is to be done for."""
        return tuple(dict.fromkeys(event for event in self.events if not event.ignorable))

    def wire(self) -> tuple[dict[str, str], bytes]:
        """Headers, with names in small letters, and body."""
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


def stamp(seconds: float) -> str:
    """RFC 3339, UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def _attributes(event: Asked) -> dict[str, str]:
    types = {Kind.UNKNOWN: "com.example.something", Kind.ECHO: _OWN}
    attributes = {
        "specversion": "1.0",
        "id": event.id,
        "source": event.source,
        "type": types.get(event.kind, _TYPE),
    }
    if event.time is not None:
        attributes["time"] = stamp(event.time)
    if event.expires is not None:
        attributes["expirytime"] = stamp(event.expires)
    if event.kind is Kind.DEAD:
        attributes["knativeerrordest"] = "http://function.test"
    return attributes


def _data(event: Asked) -> dict[str, object]:
    ids: Sequence[str] = event.server_ids
    if event.kind is Kind.MALFORMED:
        ids = [*ids, "everything"]
    which = {"server_ids": ids} if event.tag is None else {"selector": {"tags": [event.tag]}}
    return {**which, **({"dry_run": True} if event.dry_run else {})}


def _structured(event: Asked) -> dict[str, object]:
    return {**_attributes(event), "datacontenttype": "application/json", "data": _data(event)}
