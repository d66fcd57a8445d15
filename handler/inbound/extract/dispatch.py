"""The choice of the extractor of an event.

An extractor takes ids only from where its producer puts them. No body is searched for UUIDs: nearly every payload also
has those of alarms, users and tenants.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from handler import event_types
from handler.errors import BadEvent, CallerForbidden, Violation
from handler.inbound.cloudevents.decode import Event
from handler.inbound.extract.canonical import canonical, ignored
from handler.inbound.skip import Skip
from handler.stop.model import StopRequest

_NO_MORE: Mapping[str, str] = {}


def extract(event: Event, more: Mapping[str, str] = _NO_MORE, now: datetime | None = None) -> StopRequest | Skip:
    """Return what an event asks for.

    The types of `more` are accepted, too, each with the JMESPath of the ids in its data; empty for canonical data.

    Raises:
        BadEvent: its type is not accepted, or its data is malformed.
        CallerForbidden: it asks for a keep.
    """
    now = now or datetime.now(UTC)
    if skip := ignored(event):
        return skip
    if event.type == event_types.KEEP_REQUESTED:
        raise CallerForbidden("Keeps are handled by the target keep_servers only.")
    if event.type == event_types.STOP_APPROVED:
        from handler.inbound.extract.approved import approved

        return approved(event)
    if path := more.get(event.type):
        from handler.inbound.extract.producers import by_path

        return by_path(event, path)
    if event.type in more or event.type in (event_types.STOP_REQUESTED, event_types.PING):
        return canonical(event, now)
    if event.type == event_types.MESSAGE_PUBLISHED:
        from handler.inbound.extract.producers import published

        return published(event, now)
    if event.type.startswith(event_types.CLOUD_EYE_PREFIX):
        from handler.inbound.extract.producers import cloud_eye

        return cloud_eye(event)
    if event.type.strip():
        raise BadEvent(Violation("type", "must be a type that is accepted here"))
    # Without a type it is malformed anyway; the violations of its data are reported as well.
    return canonical(event, now)
