"""The keep request of an event: the data of `keep.requested.v1`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from handler import event_types
from handler.errors import BadEvent, CallerForbidden, Violation
from handler.inbound.cloudevents.decode import Event
from handler.inbound.extract.canonical import (
    LONGEST,
    MOST_VIOLATIONS,
    data_object,
    ignored,
    targets,
    texts_of,
    time_of,
)
from handler.inbound.skip import Skip
from handler.inbound.trace_context import traced
from handler.keep.model import KeepRequest
from handler.settings import durations

_MEMBERS = ("server_ids", "server_id", "selector", "for", "until", "release", "dry_run", *LONGEST, "requester")


def extract_keep(event: Event, max_keep: timedelta, now: datetime) -> KeepRequest | Skip:
    """Read the keep request of an event, which may end `max_keep` after `now` at most.

    Raises:
        BadEvent: its data is malformed, or asks for a longer keep; with every violation.
        CallerForbidden: its type is not handled here.
    """
    if skip := ignored(event):
        return skip
    if event.type.strip() and event.type != event_types.KEEP_REQUESTED:
        raise CallerForbidden("Only events of the type keep.requested.v1 are handled here.")
    data = data_object(event) or {}
    violations: list[Violation] = []
    ids, selector, dry_run = targets(event, data, _MEMBERS, violations)
    duration, until, release = _how_long(data, violations)
    texts = texts_of(data, violations)
    violations += too_long(duration, until, max_keep, now)
    if violations:
        raise BadEvent(*violations[:MOST_VIOLATIONS])
    return KeepRequest(
        server_ids=ids,
        duration=duration,
        until=until,
        release=release,
        dry_run=dry_run or event.dry_run,
        selector=selector,
        source=event.source,
        id=event.id,
        type=event.type,
        time=event.time,
        expires=event.expirytime,
        reason=texts["reason"],
        requested_by=texts["requested_by"],
        reply_to=texts["reply_to"],
        correlationid=event.correlationid,
        **traced(event.traceparent, event.tracestate),
    )


def too_long(duration: timedelta | None, until: datetime | None, max_keep: timedelta, now: datetime) -> list[Violation]:
    """Return a violation if a keep would end later than is allowed."""
    longest = f"must be at most {durations.render(max_keep)} ahead (AUTOSTOP_MAX_KEEP)"
    if duration is not None and duration > max_keep:
        return [Violation("data.for", longest)]
    if until is not None and until - now > max_keep:
        return [Violation("data.until", longest)]
    return []


def _how_long(
    data: Mapping[str, object], violations: list[Violation]
) -> tuple[timedelta | None, datetime | None, bool]:
    """Read `for`, `until` and `release`, of which exactly one must be present."""
    release = data.get("release", False)
    if not isinstance(release, bool):
        violations.append(Violation("data.release", "must be true or false"))
    given = [name for name in ("for", "until") if data.get(name) is not None] + ["release"] * (release is True)
    if len(given) > 1:
        violations += [Violation(f"data.{name}", f"must not stand beside {given[0]}") for name in given[1:]]
    if not given and isinstance(release, bool):
        violations.append(Violation("data.for", "must be present, or until, or release"))
    duration, until = data.get("for"), data.get("until")
    found_duration = None
    if duration is not None:
        try:
            found_duration = durations.parse(duration if isinstance(duration, str) else "")
        except ValueError as error:
            violations.append(Violation("data.for", str(error)))
    found_until = None if until is None else time_of(until, "data.until", violations)
    return found_duration, found_until, release is True
