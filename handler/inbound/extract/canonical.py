"""Canonical data: which servers to stop, by ids or a selector, and the optional members beside them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from handler import event_types, rfc3339
from handler.errors import BadEvent, Violation
from handler.inbound import dry_run, names
from handler.inbound.cloudevents import strict_json
from handler.inbound.cloudevents.decode import FORM_TYPES, Event
from handler.inbound.skip import Skip
from handler.inbound.trace_context import traced
from handler.stop.model import UUID, Approver, Selector, StopRequest

_IDS = ("server_ids", "server_id", "selector")
LONGEST = {"reason": 500, "requested_by": 200, "reply_to": 2048}
MEMBERS = (*_IDS, "dry_run", *LONGEST, "requester", "since", "left_out", "approval", "notice_for")
MOST_VIOLATIONS = 50
# At most 16 characters of the system, so that the identity fits into the token of a plan.
_IDENTITY = r"[A-Za-z][A-Za-z0-9-]{0,15}:[\x21-\x7e]{1,183}"
_FUTURE_TOLERANCE = timedelta(minutes=1)
_NOT_A_TIME = "must be an RFC 3339 timestamp with a zone"
_LONGEST_NOTICE = timedelta(days=30)
_NOT_A_NOTICE = "must be a duration such as 30m or 1h, or an RFC 3339 timestamp with a zone"
_IN_THE_FUTURE = "must not be more than a minute in the future"


def canonical(event: Event, now: datetime) -> StopRequest:
    """Read canonical data: `server_ids`, or `server_id`, or a `subject` that is one UUID; or a `selector`.

    Raises:
        BadEvent: the data is malformed; with every violation.
    """
    data = data_object(event) or {}
    violations: list[Violation] = []
    ids, selector, dry = targets(event, data, MEMBERS, violations)
    since = _since(data.get("since"), None if selector else ids, now, violations)
    texts = texts_of(data, violations)
    left_out = data.get("left_out")
    if left_out is not None and (isinstance(left_out, bool) or not isinstance(left_out, int) or left_out < 0):
        violations.append(Violation("data.left_out", "must be a whole number that is not negative"))
        left_out = None
    approval = data.get("approval")
    if approval is not None and approval not in (*Approver,):
        violations.append(Violation("data.approval", "must be self or other"))
        approval = None
    requester = identity(data, "requester", violations)
    notice_for = _notice_for(data.get("notice_for"), now, violations)
    if not dry and data.get("notice_for") is not None:
        violations.append(Violation("data.notice_for", "must be beside dry_run: true"))
    if violations:
        raise BadEvent(*violations[:MOST_VIOLATIONS])
    return request_for(event, ids, dry, texts["reason"])._replace(
        requested_by=texts["requested_by"],
        reply_to=texts["reply_to"],
        selector=selector,
        since=since,
        left_out=left_out or 0,
        requester=requester,
        approval=None if approval is None else Approver(str(approval)),
        notice_for=notice_for,
    )


def targets(
    event: Event, data: Mapping[str, object], members: Sequence[str], violations: list[Violation]
) -> tuple[tuple[str, ...], Selector | None, bool]:
    """Read ids, selector and dry run of canonical data or of a keep, whose data may have these members."""
    ids = _server_ids(data, violations)
    violations += misspelt(data, members)
    if not ids and event.subject is not None and UUID.fullmatch(event.subject):
        ids = [event.subject.lower()]
    dry = dry_run_of(data, members, violations)
    selector = _selector(data, violations, beside_ids=bool(ids))
    return tuple(dict.fromkeys(ids)), selector, dry


def ignored(event: Event) -> Skip | None:
    """Skip results and announcements of our own, and copies of events that could not be delivered."""
    if event.type in event_types.RESULTS | event_types.KEEP_RESULTS:
        return Skip("own result event")
    if event.type == event_types.STOP_ANNOUNCED:
        return Skip("own announcement")
    return Skip("dead-lettered copy") if event.dead_letter else None


def identity(data: Mapping[str, object], name: str, violations: list[Violation]) -> str | None:
    """Read the identity of a person or an agent: `<system>:<id>`; None if there is none, or it is malformed."""
    value = data.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not re.fullmatch(_IDENTITY, value):
        violations.append(Violation(f"data.{name}", "must be an identity of the form <system>:<id>"))
        return None
    return value


def request_for(event: Event, server_ids: tuple[str, ...], dry: bool, reason: str | None = None) -> StopRequest:
    """Make the request of an event, which is a dry run if the event or its data (`dry`) asks for one."""
    return StopRequest(
        source=event.source,
        id=event.id,
        type=event.type,
        server_ids=server_ids,
        time=event.time,
        expires=event.expirytime,
        dry_run=dry or event.dry_run,
        reason=reason,
        correlationid=event.correlationid,
        **traced(event.traceparent, event.tracestate),
    )


def data_object(event: Event) -> Mapping[str, object] | None:
    """Return the data of an event, which must be an object; None if there is none.

    Raises:
        BadEvent: it is not an object.
    """
    if event.data is None or isinstance(event.data, dict):
        return event.data
    raise BadEvent(Violation("data", not_an_object(event.data, event.media_type)))


def not_an_object(data: object, media_type: str) -> str:
    """Return the message about data that is not a JSON object, without quoting it."""
    if media_type in FORM_TYPES:
        return f"must be a JSON object; the Content-Type is {media_type}"
    if isinstance(data, bytes):
        return "must be a JSON object; the Content-Type is not that of JSON"
    if isinstance(data, str):
        try:
            strict_json.loads(data)
        except ValueError as error:
            return str(error)
    return "must be a JSON object"


def is_canonical(document: Mapping[str, object]) -> bool:
    """Return whether a document that came without a CloudEvents envelope is meant as canonical data.

    Members whose names are close to `server_ids`, `server_id` or `selector` count, so that a misspelling is reported.
    """
    return any(name in _IDS or names.meant(name, MEMBERS) in _IDS for name in document)


def time_of(value: object, at: str, violations: list[Violation]) -> datetime | None:
    """Read an RFC 3339 timestamp; None if it is malformed."""
    try:
        return rfc3339.parse(value if isinstance(value, str) else "")
    except ValueError:
        violations.append(Violation(at, _NOT_A_TIME))
        return None


def _notice_for(value: object, now: datetime, violations: list[Violation]) -> datetime | timedelta | None:
    """Read the time that notice is given for: RFC 3339, or a duration such as `1h`."""
    if value is None:
        return None
    from handler.settings import durations

    text = value if isinstance(value, str) else ""
    try:
        # Only a time has a colon in it.
        found = rfc3339.parse(text) if ":" in text else durations.parse(text)
    except ValueError:
        violations.append(Violation("data.notice_for", _NOT_A_NOTICE))
        return None
    ahead = found - now if isinstance(found, datetime) else found
    if ahead > _LONGEST_NOTICE:
        violations.append(Violation("data.notice_for", f"must be at most {_LONGEST_NOTICE.days} days ahead"))
        return None
    return found


def not_after(stamp: datetime, at: str, now: datetime, violations: list[Violation]) -> datetime | None:
    """Return a time that is ahead of `now` by at most the difference of clocks; None for a later one.

    A run takes a time that is ahead for the present. Here it stays as it is, so that two deliveries of one event have
    the same content.
    """
    if stamp - now > _FUTURE_TOLERANCE:
        violations.append(Violation(at, _IN_THE_FUTURE))
        return None
    return stamp


def misspelt(data: Mapping[str, object], known: Sequence[str]) -> list[Violation]:
    """Return a violation for each known member with another spelling; unknown members are permitted."""
    found = (names.meant(name, known) for name in data if name not in known)
    return [Violation(f"data.{name}", f"must be spelled {name}") for name in dict.fromkeys(found) if name]


def dry_run_of(data: Mapping[str, object], known: Sequence[str], violations: list[Violation]) -> bool:
    """Return whether the data asks for a dry run."""
    requested = data.get("dry_run", False)
    if not isinstance(requested, bool):
        violations.append(Violation("data.dry_run", "must be true or false"))
    for name, value in data.items():
        if isinstance(value, dict | list):
            requested = (
                dry_run.requested_in(value, f"data.{name}" if name in known else "data", violations) or requested
            )
    return requested is True


def _selector(data: Mapping[str, object], violations: list[Violation], *, beside_ids: bool) -> Selector | None:
    """Return the selector, which must not be beside ids."""
    if data.get("selector") is None:
        return None
    from handler.inbound.extract.selector import parse

    if beside_ids or data.get("server_ids") is not None or data.get("server_id") is not None:
        violations.append(Violation("data.selector", "must not be beside ids of servers"))
    return parse(data["selector"], violations)


def _server_ids(data: Mapping[str, object], violations: list[Violation]) -> list[str]:
    """Return the ids of `server_ids` and `server_id`, in lower case."""
    found: list[tuple[str, object]] = []
    many = data.get("server_ids")
    if isinstance(many, list) and many:
        found += [(f"data.server_ids[{index}]", id_) for index, id_ in enumerate(many)]
    elif many is not None:
        violations.append(Violation("data.server_ids", "must be an array of at least one id"))
    if data.get("server_id") is not None:
        found.append(("data.server_id", data["server_id"]))
    ids = []
    for at, id_ in found:
        if isinstance(id_, str) and UUID.fullmatch(id_):
            ids.append(id_.lower())
        elif len(violations) < MOST_VIOLATIONS:
            violations.append(Violation(at, "must be a UUID"))
    return ids


def _since(
    value: object, ids: Iterable[str] | None, now: datetime, violations: list[Violation]
) -> datetime | Mapping[str, datetime] | None:
    """Read `since`: one time, or a time for each of some ids; any if these are None, since there is a selector."""
    at = "data.since"
    match value:
        case None:
            return None
        case str():
            stamp = time_of(value, at, violations)
            return stamp and not_after(stamp, at, now, violations)
        case dict():
            found: dict[str, datetime] = {}
            for id_, time in value.items():
                if not UUID.fullmatch(id_) or (ids is not None and id_.lower() not in ids):
                    violations.append(Violation(at, "must name only servers that are to be stopped"))
                elif (stamp := time_of(time, at, violations)) and not_after(stamp, at, now, violations):
                    found[id_.lower()] = stamp
            return found
        case _:
            violations.append(Violation(at, "must be an RFC 3339 time, or an object of ids and such times"))
            return None


def texts_of(data: Mapping[str, object], violations: list[Violation]) -> dict[str, str | None]:
    """Return the texts that are copied to the result."""
    return {name: _text(data, name, longest, violations) for name, longest in LONGEST.items()}


def _text(data: Mapping[str, object], name: str, longest: int, violations: list[Violation]) -> str | None:
    value = data.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        violations.append(Violation(f"data.{name}", "must be a string"))
        return None
    if len(value) > longest:
        violations.append(Violation(f"data.{name}", f"must have at most {longest} characters"))
        return None
    return value
