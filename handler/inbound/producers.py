"""Extractors for events that other clouds send as CloudEvents, and for the types that the settings name.

Loaded when the first such event comes: who has only requests and schedules does not pay for them.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import replace

from handler.errors import BadEvent, Violation
from handler.inbound.cloudevents.decode import Event
from handler.inbound.extract import UUID, Ignored, canonical
from handler.stop.model import StopRequest

# A stop makes Cloud Eye tell of a server that was shut down: acting on it would be a loop.
_ECHO = "osshutdown"


def published(event: Event) -> StopRequest:
    """Google's Pub/Sub: the canonical data is base64 in `data.message.data`, as text that holds JSON.

    Raises:
        BadEvent: with every flaw of the data.
    """
    message = _member(event.data, "message")
    if not isinstance(message, dict):
        raise BadEvent(Violation("data.message", "is no object"))
    inner = message.get("data")
    if inner in (None, ""):
        return canonical(replace(event, data=None))
    try:
        text = base64.b64decode(str(inner), validate=True).decode()
    except (binascii.Error, ValueError):
        raise BadEvent(Violation("data.message.data", "is no base64 of UTF-8 text")) from None
    return canonical(replace(event, data=text))


def cloud_eye(event: Event) -> StopRequest | Ignored:
    """Huawei's EventGrid with an event of Cloud Eye: the server is `data.eventInfo.detail.resource_id`.

    Raises:
        BadEvent: the resource is no UUID.
    """
    info = _member(event.data, "eventInfo")
    name = _member(info, "event_name")
    # `CES:Event:SYS.BMS-osShutdown`: the namespace has dots, the name of the event has none.
    if _ECHO in (event.type.rpartition("-")[2].lower(), str(name).lower()):
        return Ignored("echo of a stop")
    resource = _member(_member(info, "detail"), "resource_id")
    if resource in (None, ""):
        return canonical(replace(event, data=None, subject=None))
    asked = canonical(replace(event, data=_told(name)))
    return replace(asked, server_ids=_ids([resource], "data.eventInfo.detail.resource_id"))


def by_path(event: Event, path: str) -> StopRequest:
    """A type of the settings: the ids are where a JMESPath finds them in the data, one text or a list of them.

    Raises:
        BadEvent: what is found there is something else, or not all of it is UUIDs.
    """
    import jmespath

    try:
        found = jmespath.search(path, event.data)
    except jmespath.exceptions.JMESPathError:
        # A function that was given the wrong kind of value.
        raise BadEvent(Violation("data", "cannot be searched by the path of the settings")) from None
    asked = canonical(replace(event, data=None, subject=None))
    if found is None:
        return asked
    return replace(asked, server_ids=_ids(found if isinstance(found, list) else [found], "data"))


def _ids(found: Sequence[object], at: str) -> tuple[str, ...]:
    """Ids by the rules of the canonical data: one that is none refuses the whole event."""
    ids = [id_.lower() for id_ in found if isinstance(id_, str) and UUID.fullmatch(id_)]
    if len(ids) < len(found):
        raise BadEvent(Violation(at, "is no UUID"))
    return tuple(dict.fromkeys(ids))


def _told(name: object) -> Mapping[str, object]:
    return {"reason": f"Cloud Eye event {name}"[:500]} if isinstance(name, str) and name else {}


def _member(document: object, name: str) -> object:
    return document.get(name) if isinstance(document, dict) else None
