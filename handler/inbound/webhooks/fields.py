"""Reading what producers send, and making what a stop request needs of it."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import TypeVar
from urllib.parse import parse_qsl

from handler import rfc3339
from handler.errors import BadEvent, Unauthenticated, Violation
from handler.event_types import STOP_REQUESTED
from handler.inbound.cloudevents import strict_json
from handler.inbound.cloudevents.decode import FORM_TYPES, Event, essence
from handler.inbound.extract.canonical import canonical, not_after
from handler.inbound.webhooks.model import WebhookRequest
from handler.stop.model import UUID, StopRequest

LONGEST_REASON, LONGEST_REQUESTER, LONGEST_REPLY_TO, LONGEST_ATTRIBUTE = 500, 200, 2048, 1024
_MOST_FLAWS = 50
# One fixed namespace, so that the same delivery gives the same event id in every deployment.
_IDS = uuid.UUID("b0a6f3d2-94b8-5d55-8a1e-52c1f7f0c1de")
_PLAIN = re.compile(r"[A-Za-z0-9._:/+=-]{1,200}", re.ASCII)
_FORMATTED = re.compile(
    r"(\d{4})/(\d\d)/(\d\d) (\d\d:\d\d:\d\d(?:\.\d+)?) GMT(?:([+-]\d\d):?(\d\d))?(?: \([A-Z]+\))?", re.ASCII
)
_ZONE_WITHOUT_COLON = re.compile(r"([+-]\d\d)(\d\d)$", re.ASCII)
# Seconds since the epoch stay below this until the year 5138, milliseconds were above it since 1973.
_FIRST_MILLISECOND = 1e11
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ufffe\uffff]+")

_A = TypeVar("_A")
_B = TypeVar("_B")


def json_object(body: object, at: str = "body", media_type: str = "") -> Mapping[str, object]:
    """A JSON object, or the text of one; or text of that, as a sender makes it that encodes JSON twice.

    Args:
        at: what a flaw calls it.
        media_type: in lower case; a flaw names that of a form, which clients send unless told otherwise.

    Raises:
        BadEvent: it is none.
    """
    hint = f"; the Content-Type is {media_type}" if media_type in FORM_TYPES else ""
    if isinstance(body, bytes | str):
        try:
            body = strict_json.loads(body)
        except ValueError as fault:
            raise BadEvent(Violation(at, f"{fault}{hint}")) from None
    if isinstance(body, str):
        body = strict_json.loads_text(body)
    if not isinstance(body, dict):
        raise BadEvent(Violation(at, f"must be a JSON object{hint}"))
    return body


def json_body(delivery: WebhookRequest) -> Mapping[str, object]:
    """The body of a delivery as a JSON object.

    Raises:
        BadEvent: it is none.
    """
    return json_object(delivery.body, media_type=essence(delivery.headers.get("content-type", "")))


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
        found: where each value stands, and the value: one id, or several with commas or spaces between them, or the
            text of a JSON array of them.

    Raises:
        BadEvent: with everything that must be a UUID; one is enough to refuse all.
    """
    ids: dict[str, None] = {}
    violations: list[Violation] = []
    for at, value in found:
        parts = _parts(value)
        if parts and all(UUID.fullmatch(part) for part in parts):
            ids |= dict.fromkeys(part.lower() for part in parts)
        elif len(violations) < _MOST_FLAWS:
            violations.append(Violation(at, "must be a UUID"))
    if violations:
        raise BadEvent(*violations)
    return tuple(ids)


def _parts(value: object) -> list[str]:
    if not isinstance(value, str):
        return []
    array = strict_json.loads_text(value) if value.lstrip().startswith("[") else None
    if isinstance(array, list):
        return [part if isinstance(part, str) else "" for part in array]
    return re.split(r"[,\s]+", value.strip())


def moment(value: object, at: str) -> datetime:
    """A time in any of the forms that producers use.

    Args:
        value: seconds or milliseconds since the epoch, as a number or as text; RFC 3339, also with a zone without a
            colon; or `2026/11/20 19:00:00 GMT+01:00`.

    Raises:
        BadEvent: it is none.
    """
    said = str(value).strip()
    try:
        if re.fullmatch(r"\d{9,14}(\.\d+)?", said, re.ASCII):
            number = float(said)
            return datetime.fromtimestamp(number / 1000 if number >= _FIRST_MILLISECOND else number, UTC)
        if found := _FORMATTED.fullmatch(said):
            year, month, day, clock, hours, minutes = found.groups()
            return rfc3339.parse(f"{year}-{month}-{day}T{clock}{f'{hours}:{minutes}' if hours else 'Z'}")
        return rfc3339.parse(_ZONE_WITHOUT_COLON.sub(r"\1:\2", said))
    except (ValueError, OverflowError):
        raise BadEvent(Violation(at, "must be a time")) from None


def start_time(value: object, at: str, now: datetime) -> datetime | None:
    """When an alarm began.

    Args:
        value: as `moment` takes it, or nothing.
        now: aware.

    Returns:
        The time, not after `now`; None if the producer does not say: no value, or Go's zero time.

    Raises:
        BadEvent: it is no time, or more than a minute in the future.
    """
    if value is None or value == "":
        return None
    stamp = moment(value, at)
    if stamp.year == 1:
        return None
    violations: list[Violation] = []
    found = not_after(stamp, at, now, violations)
    if violations:
        raise BadEvent(*violations)
    return found


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


def canonical_request(
    data: Mapping[str, object], *, id_: str, source: str, requested_by: str, now: datetime
) -> StopRequest:
    """The stop request of canonical data that came without an envelope of CloudEvents; its time is not set.

    Args:
        requested_by: who asks if the data does not say.
        now: aware.

    Raises:
        BadEvent: with every flaw of the data.
    """
    request = canonical(plain_event(data, id_=id_, source=source), now)
    if not request.server_ids and request.selector is None:
        raise BadEvent(Violation("data.server_ids", "must be present"))
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
        data=strict_json.loads_text(data) if isinstance(data, str) else data,
    )
