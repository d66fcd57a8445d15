"""Reading of members of producers' documents."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import TypeVar
from urllib.parse import parse_qsl

from handler import rfc3339
from handler.errors import BadEvent, Unauthenticated, Violation
from handler.event_types import STOP_REQUESTED
from handler.inbound.cloudevents import strict_json
from handler.inbound.cloudevents.decode import FORM_TYPES, Event, essence
from handler.inbound.extract.canonical import canonical, not_after
from handler.inbound.http.request import HttpRequest
from handler.stop.model import UUID, StopRequest

LONGEST_REASON, LONGEST_REQUESTER, LONGEST_REPLY_TO, LONGEST_ATTRIBUTE = 500, 200, 2048, 1024
_MOST_VIOLATIONS = 50
# One fixed namespace, so that the same delivery gives the same event id in every deployment.
_IDS = uuid.UUID("b0a6f3d2-94b8-5d55-8a1e-52c1f7f0c1de")
_PLAIN = re.compile(r"[A-Za-z0-9._:/+=-]{1,200}", re.ASCII)
_FORMATTED = re.compile(
    r"(\d{4})/(\d\d)/(\d\d) (\d\d:\d\d:\d\d(?:\.\d+)?) GMT(?:([+-]\d\d):?(\d\d))?(?: \([A-Z]+\))?", re.ASCII
)
_ZONE_WITHOUT_COLON = re.compile(r"([+-]\d\d)(\d\d)$", re.ASCII)
# Seconds since the epoch are below this until the year 5138, milliseconds above it since 1973.
_FIRST_MILLISECOND = 1e11
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ufffe\uffff]+")

_A = TypeVar("_A")
_B = TypeVar("_B")


def json_object(body: object, at: str = "body", media_type: str = "") -> Mapping[str, object]:
    """Parse a JSON object, its text, or the text of that, as senders that encode JSON twice send it.

    Args:
        body: bytes, text or an object.
        at: its path in violations.
        media_type: in lower case; a violation names that of a form, which many clients send by default.

    Raises:
        BadEvent: it is not an object.
    """
    hint = f"; the Content-Type is {media_type}" if media_type in FORM_TYPES else ""
    if isinstance(body, bytes | str):
        try:
            body = strict_json.loads(body)
        except ValueError as error:
            raise BadEvent(Violation(at, f"{error}{hint}")) from None
    if isinstance(body, str):
        body = strict_json.loads_text(body)
    if not isinstance(body, dict):
        raise BadEvent(Violation(at, f"must be a JSON object{hint}"))
    return body


def json_body(delivery: HttpRequest) -> Mapping[str, object]:
    """Parse the body of a delivery, which must be a JSON object."""
    return json_object(delivery.body, media_type=essence(delivery.headers.get("content-type", "")))


def authenticating_json(body: bytes) -> Mapping[str, object]:
    """Parse a body that has the token or the signature in it; any but a JSON object is unauthenticated."""
    try:
        return json_object(body)
    except BadEvent:
        raise Unauthenticated("The body must be a JSON object that authenticates the caller.") from None


def text(document: Mapping[str, object], name: str) -> str:
    """Return a member that is text; empty if there is none."""
    value = document.get(name)
    return value if isinstance(value, str) else ""


def member(document: Mapping[str, object], *names: str) -> Mapping[str, object]:
    """Return an object inside of objects; empty if there is none."""
    for name in names:
        inner = document.get(name)
        document = inner if isinstance(inner, dict) else {}
    return document


def server_ids(found: Iterable[tuple[str, object]]) -> tuple[str, ...]:
    """Return the ids in these values, in lower case, in order and without repeats.

    Args:
        found: path of each value, and the value: one id, or several with commas or spaces between them, or the text of
            a JSON array of them.

    Raises:
        BadEvent: with everything that must be a UUID; one is enough to refuse all.
    """
    ids: dict[str, None] = {}
    violations: list[Violation] = []
    for at, value in found:
        parts = _parts(value)
        if parts and all(UUID.fullmatch(part) for part in parts):
            ids |= dict.fromkeys(part.lower() for part in parts)
        elif len(violations) < _MOST_VIOLATIONS:
            violations.append(Violation(at, "must be a UUID"))
    if violations:
        raise BadEvent(*violations)
    return tuple(ids)


def agreeing_ids(found: list[tuple[str, object]], at: str, message: str) -> tuple[str, ...]:
    """Return the ids of values that must all have the same ones; else the path and the message are a violation."""
    ids = server_ids(found)
    if any(set(server_ids([place])) != set(ids) for place in found):
        raise BadEvent(Violation(at, message))
    return ids


def _parts(value: object) -> list[str]:
    if not isinstance(value, str):
        return []
    array = strict_json.loads_text(value) if value.lstrip().startswith("[") else None
    if isinstance(array, list):
        return [part if isinstance(part, str) else "" for part in array]
    return re.split(r"[,\s]+", value.strip())


def moment(value: object, at: str) -> datetime:
    """Parse a time in any of the forms that producers use.

    Args:
        value: seconds or milliseconds since the epoch, as a number or as text; RFC 3339, also with a zone without a
            colon; or `2026/11/20 19:00:00 GMT+01:00`.
        at: its path in violations.

    Raises:
        BadEvent: it is in none of them.
    """
    written = str(value).strip()
    try:
        if re.fullmatch(r"\d{9,14}(\.\d+)?", written, re.ASCII):
            number = float(written)
            return datetime.fromtimestamp(number / 1000 if number >= _FIRST_MILLISECOND else number, UTC)
        if found := _FORMATTED.fullmatch(written):
            year, month, day, clock, hours, minutes = found.groups()
            return rfc3339.parse(f"{year}-{month}-{day}T{clock}{f'{hours}:{minutes}' if hours else 'Z'}")
        return rfc3339.parse(_ZONE_WITHOUT_COLON.sub(r"\1:\2", written))
    except (ValueError, OverflowError):
        raise BadEvent(Violation(at, "must be a time")) from None


def start_time(value: object, at: str, now: datetime) -> datetime | None:
    """Parse the start of an alarm in the forms of `moment`; None without a value, or for Go's zero time.

    Raises:
        BadEvent: it is not a time, or more than a minute in the future.
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
    """Make an event id of what identifies a message of a producer: a single plain part itself, else a UUID of all."""
    if len(parts) == 1 and _PLAIN.fullmatch(parts[0]):
        return parts[0]
    return str(uuid.uuid5(_IDS, json.dumps(parts)))


def cut(words: str, longest: int) -> str | None:
    """Return a text in one line, cut to a length; None if nothing is left of it."""
    line = _CONTROL.sub(" ", words).strip()
    return (line if len(line) <= longest else f"{line[: longest - 1]}…") or None


def reason(about: str, why: str) -> str | None:
    """Return the reason of a request: what it is about, and why if that is known."""
    return cut(": ".join(part for part in (about.strip(), why) if part), LONGEST_REASON)


def attribute(words: str) -> str | None:
    """Return a text that can be an attribute of an event; None for any other."""
    return words if words.strip() and not _CONTROL.search(words) and len(words.encode()) <= LONGEST_ATTRIBUTE else None


def form(body: bytes) -> dict[str, str]:
    """Parse the fields of a form; bytes that are not UTF-8 are replaced."""
    return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, errors="replace"))


def both(first: Callable[[], _A], second: Callable[[], _B]) -> tuple[_A, _B]:
    """Call both, so that the violations of both are reported together."""
    try:
        made = first()
    except BadEvent as error:
        try:
            second()
        except BadEvent as second_error:
            raise BadEvent(*error.violations, *second_error.violations) from None
        raise
    return made, second()


def canonical_request(
    data: Mapping[str, object], *, id_: str, source: str, requested_by: str, now: datetime
) -> StopRequest:
    """Make the stop request of canonical data that came without a CloudEvents envelope; its time is not set.

    The data's own `requested_by` comes before the one that is given.

    Raises:
        BadEvent: the data is malformed; with every violation.
    """
    request = canonical(plain_event(data, id_=id_, source=source), now)
    if not request.server_ids and request.selector is None:
        raise BadEvent(Violation("data.server_ids", "must be present"))
    return request._replace(requested_by=request.requested_by or requested_by)


def plain_event(data: object, *, id_: str, source: str) -> Event:
    """Return the event that data without an envelope is read as."""
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
