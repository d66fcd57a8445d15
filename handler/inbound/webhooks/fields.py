"""Reading what producers send, and making what a stop request needs of it."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TypeVar
from urllib.parse import parse_qsl

from handler.errors import BadEvent, Unauthenticated, Violation
from handler.inbound.cloudevents import strict_json
from handler.inbound.cloudevents.decode import Event
from handler.inbound.extract import STOP_REQUESTED, UUID, canonical
from handler.stop.model import StopRequest

LONGEST_REASON, LONGEST_REQUESTER, LONGEST_REPLY_TO, LONGEST_ATTRIBUTE = 500, 200, 2048, 1024
_MOST_FLAWS = 50
# One fixed namespace, so that the same delivery gives the same event id in every deployment.
_IDS = uuid.UUID("b0a6f3d2-94b8-5d55-8a1e-52c1f7f0c1de")
_PLAIN = re.compile(r"[A-Za-z0-9._:/+=-]{1,200}", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ufffe\uffff]+")

_A = TypeVar("_A")
_B = TypeVar("_B")


def json_object(body: object, at: str = "body") -> Mapping[str, object]:
    """A JSON object, or the text of one.

    Args:
        at: what a flaw calls it.

    Raises:
        BadEvent: it is none.
    """
    if isinstance(body, bytes | str):
        try:
            body = strict_json.loads(body)
        except ValueError as fault:
            raise BadEvent(Violation(at, str(fault))) from None
    if not isinstance(body, dict):
        raise BadEvent(Violation(at, "is no JSON object"))
    return body


def proving_json(body: bytes) -> Mapping[str, object]:
    """The body as a JSON object, where the proof is in the body: what cannot be read proves nothing.

    Raises:
        CallerUnproven: it is no JSON object.
    """
    try:
        return json_object(body)
    except BadEvent:
        raise Unauthenticated("The message cannot be read, so it proves nothing.") from None


def text(document: Mapping[str, object], name: str) -> str:
    """A member that is text; empty if it is not there or something else."""
    value = document.get(name)
    return value if isinstance(value, str) else ""


def member(document: Mapping[str, object], *names: str) -> Mapping[str, object]:
    """An object inside of objects; empty if any of them is not there or something else."""
    for name in names:
        inner = document.get(name)
        document = inner if isinstance(inner, dict) else {}
    return document


def server_ids(found: Iterable[tuple[str, object]]) -> tuple[str, ...]:
    """The ids in these values, lower case, in order and without repeats.

    Args:
        found: where each value stands, and the value: one id, or several with commas or spaces between them.

    Raises:
        BadEvent: with everything that is no UUID; one is enough to refuse all.
    """
    ids: dict[str, None] = {}
    violations: list[Violation] = []
    for at, value in found:
        parts = re.split(r"[,\s]+", value.strip()) if isinstance(value, str) else [""]
        if all(UUID.fullmatch(part) for part in parts):
            ids |= dict.fromkeys(part.lower() for part in parts)
        elif len(violations) < _MOST_FLAWS:
            violations.append(Violation(at, "is no UUID"))
    if violations:
        raise BadEvent(*violations)
    return tuple(ids)


def identity(*parts: str) -> str:
    """An event id made of what a producer calls its message: the same parts, the same id.

    Returns:
        The text itself if there is one plain part, else a UUID made of all.
    """
    if len(parts) == 1 and _PLAIN.fullmatch(parts[0]):
        return parts[0]
    return str(uuid.uuid5(_IDS, json.dumps(parts)))


def cut(words: str, longest: int) -> str | None:
    """A text in one line and no longer than this; None if nothing is left of it."""
    line = _CONTROL.sub(" ", words).strip()
    return (line if len(line) <= longest else f"{line[: longest - 1]}…") or None


def attribute(words: str) -> str | None:
    """A text that can be an attribute of an event as it is; None if it cannot."""
    return words if words.strip() and not _CONTROL.search(words) and len(words.encode()) <= LONGEST_ATTRIBUTE else None


def form(body: bytes) -> Mapping[str, str]:
    """The fields of a form; what is no UTF-8 in them is replaced."""
    return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, errors="replace"))


def both(first: Callable[[], _A], second: Callable[[], _B]) -> tuple[_A, _B]:
    """Make two things, so that the flaws of both are told together.

    Raises:
        BadEvent: with the flaws of either.
    """
    try:
        made = first()
    except BadEvent as bad:
        try:
            second()
        except BadEvent as worse:
            raise BadEvent(*bad.violations, *worse.violations) from None
        raise
    return made, second()


def is_canonical(document: Mapping[str, object]) -> bool:
    """Whether a document that came without an envelope of CloudEvents is meant as canonical data."""
    return not {"server_ids", "server_id", "selector"}.isdisjoint(document)


def canonical_request(data: Mapping[str, object], *, id_: str, source: str, requested_by: str) -> StopRequest:
    """The stop request of canonical data that came without an envelope of CloudEvents; its time is not set.

    Args:
        requested_by: who asks if the data does not say.

    Raises:
        BadEvent: with every flaw of the data.
    """
    request = canonical(plain_event(data, id_=id_, source=source))
    if not request.server_ids and request.selector is None:
        raise BadEvent(Violation("data.server_ids", "is missing"))
    return replace(request, requested_by=request.requested_by or requested_by)


def plain_event(data: object, *, id_: str, source: str) -> Event:
    """The stop request that data without an envelope stands for."""
    return Event(
        id=id_,
        source=source,
        type=STOP_REQUESTED,
        time=None,
        expirytime=None,
        subject=None,
        correlationid=None,
        traceparent=None,
        tracestate=None,
        violations=(),
        dead_letter=False,
        data=data,
    )
