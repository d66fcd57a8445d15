"""From a CloudEvent to a StopRequest: one extractor for each event type, and the gates before them.

An extractor takes ids only from where its producer puts them. Nothing sweeps a body for UUIDs: nearly every payload
also holds those of alarms, users and tenants.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypedDict

from handler.errors import BadEvent, Violation
from handler.inbound.cloudevents import strict_json
from handler.inbound.cloudevents.decode import Event
from handler.stop.model import StopRequest

TYPE_PREFIX = "io.github.bms-autostop."
STOP_REQUESTED = f"{TYPE_PREFIX}stop.requested.v1"
OWN_RESULTS = frozenset(f"{TYPE_PREFIX}stop.{word}.v1" for word in ("completed", "failed", "refused"))
PING = "dev.knative.sources.ping"
PUBLISHED = "google.cloud.pubsub.topic.v1.messagePublished"
CLOUD_EYE = "CES:Event:"

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII)
_TRACESTATE = re.compile(r"[\x21-\x7e][\x20-\x7e]{0,511}", re.ASCII)
_LONGEST = {"reason": 500, "requested_by": 200, "reply_to": 2048}
_MOST_FLAWS = 50
_NO_MORE: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Ignored:
    """An event that is rightly not acted on.

    Attributes:
        why: for the log, in a few words.
    """

    why: str


Extractor = Callable[[Event], StopRequest | Ignored]


def extract(event: Event, more: Mapping[str, str] = _NO_MORE) -> StopRequest | Ignored:
    """Find out what an event asks for.

    Args:
        more: further types that are accepted, each with the JMESPath of the ids in its data; empty for canonical data.

    Raises:
        BadEvent: its type is not accepted, or its data is malformed.
    """
    if event.type in OWN_RESULTS:
        return Ignored("own result event")
    if event.dead_letter:
        return Ignored("dead-lettered copy")
    path = more.get(event.type)
    extractor = _of(event.type) if path is None else canonical
    if path:
        from handler.inbound.producers import by_path

        return by_path(event, path)
    if extractor is None:
        if event.type.strip():
            raise BadEvent(Violation("type", "is not accepted here"))
        # Without a type it is malformed anyway; what its data lacks is told along with that.
        extractor = canonical
    return extractor(event)


def canonical(event: Event) -> StopRequest:
    """The canonical data: `server_ids`, or `server_id`, or a `subject` that is one UUID; or a `selector`.

    Raises:
        BadEvent: with every flaw of the data.
    """
    violations: list[Violation] = []
    data = _object(event.data, violations)
    ids = _server_ids(data, violations)
    if not ids and event.subject is not None and UUID.fullmatch(event.subject):
        ids = [event.subject.lower()]
    dry_run = data.get("dry_run", False)
    if not isinstance(dry_run, bool):
        violations.append(Violation("data.dry_run", "is neither true nor false"))
    if any(name != "dry_run" and re.sub(r"[-_ ]", "", name).lower() == "dryrun" for name in data):
        # Somebody who misspells it expects a rehearsal and would get a power cut.
        violations.append(Violation("data.dry_run", "is spelt differently"))
    selector = None
    if data.get("selector") is not None:
        from handler.inbound.selector import parse

        selector = parse(data["selector"], violations)
        if ids or data.get("server_ids") is not None or data.get("server_id") is not None:
            violations.append(
                Violation("data.selector", "is there beside ids of servers, so it is ambiguous which are meant")
            )
    texts = {name: _text(data, name, longest, violations) for name, longest in _LONGEST.items()}
    if violations:
        raise BadEvent(*violations[:_MOST_FLAWS])
    return StopRequest(
        source=event.source,
        id=event.id,
        type=event.type,
        server_ids=tuple(dict.fromkeys(ids)),
        time=event.time,
        expires=event.expirytime,
        dry_run=bool(dry_run),
        reason=texts["reason"],
        requested_by=texts["requested_by"],
        reply_to=texts["reply_to"],
        correlationid=event.correlationid,
        selector=selector,
        **traced(event.traceparent, event.tracestate),
    )


class Trace(TypedDict):
    """The trace context of a request, as keywords."""

    traceparent: str | None
    tracestate: str | None


def traced(parent: str | None, state: str | None) -> Trace:
    """A trace context as far as it is well-formed; a malformed one is to be dropped (W3C Trace Context)."""
    if parent is None or not _TRACEPARENT.fullmatch(parent):
        return Trace(traceparent=None, tracestate=None)
    return Trace(traceparent=parent, tracestate=state if _TRACESTATE.fullmatch(state or "") else None)


def _of(type_: str) -> Extractor | None:
    """The extractor of a type that is known without settings."""
    if type_ in (STOP_REQUESTED, PING):
        return canonical
    if type_ != PUBLISHED and not type_.startswith(CLOUD_EYE):
        return None
    from handler.inbound import producers

    return producers.published if type_ == PUBLISHED else producers.cloud_eye


def _object(data: object, violations: list[Violation]) -> Mapping[str, object]:
    """The data as an object; text that holds JSON counts, as a PingSource without `contentType` sends it."""
    if isinstance(data, str):
        try:
            data = strict_json.loads(data)
        except ValueError as fault:
            violations.append(Violation("data", str(fault)))
            return {}
    if data is None:
        return {}
    if not isinstance(data, dict):
        violations.append(Violation("data", "is no JSON object"))
        return {}
    return data


def _server_ids(data: Mapping[str, object], violations: list[Violation]) -> list[str]:
    found: list[tuple[str, object]] = []
    many = data.get("server_ids")
    if isinstance(many, list) and many:
        found += [(f"data.server_ids[{index}]", id_) for index, id_ in enumerate(many)]
    elif many is not None:
        violations.append(Violation("data.server_ids", "is no array with at least one id"))
    if data.get("server_id") is not None:
        found.append(("data.server_id", data["server_id"]))
    ids = []
    for at, id_ in found:
        if isinstance(id_, str) and UUID.fullmatch(id_):
            ids.append(id_.lower())
        elif len(violations) < _MOST_FLAWS:
            violations.append(Violation(at, "is no UUID"))
    return ids


def _text(data: Mapping[str, object], name: str, longest: int, violations: list[Violation]) -> str | None:
    value = data.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        violations.append(Violation(f"data.{name}", "is no text"))
        return None
    if len(value) > longest:
        violations.append(Violation(f"data.{name}", f"is longer than {longest} characters"))
        return None
    return value
