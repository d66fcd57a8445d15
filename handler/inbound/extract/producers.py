"""Extractors for events that other clouds send as CloudEvents, and for the types that the settings name.

Loaded when the first such event arrives.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from datetime import datetime

from handler.errors import BadEvent, Violation
from handler.event_types import CLOUD_EYE_PREFIX
from handler.inbound import dry_run
from handler.inbound.cloudevents import strict_json
from handler.inbound.cloudevents.decode import Event
from handler.inbound.extract.canonical import canonical, data_object, not_an_object, request_for
from handler.inbound.skip import Skip
from handler.stop.model import UUID, StopRequest

# A stop makes Cloud Eye report a server that was shut down: to act on it would be a loop.
_ECHO = "osshutdown"
# What the namespaces of servers end with; `CES:Event:SYS.BMS-osShutdown` has the namespace before the dash.
_SERVERS = (".BMS", ".ECS")


def published(event: Event, now: datetime) -> StopRequest:
    """Read a message of Google's Pub/Sub: `data.message.data` is base64 of canonical data.

    Raises:
        BadEvent: the data is malformed; with every violation.
    """
    data = _object(event)
    message = data.get("message")
    if not isinstance(message, dict):
        raise BadEvent(Violation("data.message", "must be a JSON object"))
    text = message.get("data")
    inner: object = None
    if text not in (None, ""):
        try:
            inner = strict_json.loads_text(base64.b64decode(str(text), validate=True).decode())
        except (binascii.Error, ValueError):
            raise BadEvent(Violation("data.message.data", "must be base64 of UTF-8 text")) from None
    # An attribute of the message may ask for a dry run as well.
    dry = dry_run.requested(data, "data")
    asked = canonical(event._replace(data=inner, media_type=""), now)
    return asked._replace(dry_run=asked.dry_run or dry)


def cloud_eye(event: Event) -> StopRequest | Skip:
    """Read an event of Cloud Eye from Huawei's EventGrid: the server is `data.eventInfo.detail.resource_id`.

    Raises:
        BadEvent: the resource is not a UUID.
    """
    info = _member(_object(event), "eventInfo", "data.eventInfo")
    name = info.get("event_name")
    # The namespace has dots, the name of the event has none.
    namespace, _, kind = event.type.removeprefix(CLOUD_EYE_PREFIX).rpartition("-")
    if _ECHO in (kind.lower(), str(name).lower()):
        return Skip("echo of a stop")
    if not namespace.upper().endswith(_SERVERS):
        return Skip("the event is not about a server")
    resource = _member(info, "detail", "data.eventInfo.detail").get("resource_id")
    ids = () if resource in (None, "") else _ids([resource], "data.eventInfo.detail.resource_id")
    reason = f"Cloud Eye event {name}"[:500] if isinstance(name, str) and name else None
    return request_for(event, ids, dry_run.requested(event.data, "data"), reason)


def by_path(event: Event, path: str) -> StopRequest:
    """Read an event of a type of the settings: a JMESPath finds the ids in its data, one text or a list of texts.

    Raises:
        BadEvent: it finds something else, or not only UUIDs; or nothing, and the data is not an object.
    """
    import jmespath

    try:
        found = jmespath.search(path, event.data)
    except jmespath.exceptions.JMESPathError:
        # A function of the path got a value of the wrong type.
        raise BadEvent(Violation("data", "must be searchable by the path of the settings")) from None
    if found is None and not isinstance(event.data, dict):
        raise BadEvent(Violation("data", not_an_object(event.data, event.media_type)))
    if found is None:
        found = []
    return request_for(
        event, _ids(found if isinstance(found, list) else [found], "data"), dry_run.requested(event.data, "data")
    )


def _ids(found: Sequence[object], at: str) -> tuple[str, ...]:
    """Read ids by the rules of canonical data: one that is malformed refuses the whole event."""
    ids = [id_.lower() for id_ in found if isinstance(id_, str) and UUID.fullmatch(id_)]
    if len(ids) < len(found):
        raise BadEvent(Violation(at, "must be a UUID"))
    return tuple(dict.fromkeys(ids))


def _object(event: Event) -> Mapping[str, object]:
    """Return the data, which must be an object for a path to find something in it."""
    data = data_object(event)
    if data is None:
        raise BadEvent(Violation("data", "must be a JSON object"))
    return data


def _member(document: Mapping[str, object], name: str, at: str) -> Mapping[str, object]:
    """Return an object inside of another; empty if there is none."""
    value = document.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadEvent(Violation(at, "must be a JSON object"))
    return value
