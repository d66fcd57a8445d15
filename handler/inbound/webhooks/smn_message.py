"""The message of an SMN notification: an alarm of Cloud Eye, or canonical data as JSON text.

The form of an alarm is not documented; it is known from captures. Two members name the resource, and both must agree.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from handler.errors import BadEvent, Violation
from handler.event_types import STOP_REQUESTED
from handler.inbound import dry_run
from handler.inbound.extract.canonical import is_canonical
from handler.inbound.skip import Skip
from handler.inbound.webhooks.fields import (
    attribute,
    both,
    canonical_request,
    identity,
    json_object,
    member,
    reason,
    server_ids,
    start_time,
    text,
)
from handler.stop.model import StopRequest

# Namespaces of the platform's own services begin with these, and those of servers continue so: SERVICE.BMS, AGT.ECS.
_PLATFORM, _SERVERS = {"SYS", "AGT", "SERVICE"}, {"BMS", "ECS"}
# Events that a stop causes: an alarm on them would be a loop.
_ECHOES = {"osshutdown", "servershutdown", "stopbaremetalservers"}


class CloudEyeAlarm(NamedTuple):
    """One alarm, or the message that it has ended."""

    document: Mapping[str, object]

    @property
    def _details(self) -> Mapping[str, object]:
        return member(self.document, "template_variable")

    def gate(self) -> Skip | None:
        """Skip other states than `alarm`, alarms about other things than servers, and those that a stop causes."""
        if self.document.get("alarm_status") != "alarm" or self._details.get("IsAlarm") is False:
            return Skip("the alarm does not fire")
        events = (self.document.get("metric_name"), self.document.get("event_name"), self._details.get("EventName"))
        if any(str(event).lower() in _ECHOES for event in events):
            return Skip("echo of a stop")
        if not self._resource() and self.document.get("dimension") is None:
            return Skip("the alarm names no resource")
        return None if self._about_server() else Skip("the alarm is not about a server")

    def server_ids(self) -> tuple[str, ...]:
        """Return the resource, which must be that of `dimension` if there is one."""
        found: list[tuple[str, object]] = []
        if self._resource():
            found.append(("message.template_variable.ResourceId", self._resource()))
        if self.document.get("dimension") is not None:
            instances = self._instances()
            found.append(("message.dimension", instances[0] if len(instances) == 1 else ""))
        ids = server_ids(found)
        if len(ids) != 1:
            raise BadEvent(Violation("message.dimension", "must name the same resource as ResourceId"))
        return ids

    def _about_server(self) -> bool:
        """Return whether it is about a server: by its namespace, or by its dimension if that is not the platform's."""
        service, _, kind = text(self.document, "namespace").strip().upper().partition(".")
        if service in _PLATFORM:
            return kind in _SERVERS
        return bool(self._instances())

    def _resource(self) -> str:
        return text(self._details, "ResourceId").strip()

    def _instances(self) -> list[str]:
        """Return the instances among the dimensions, which are written `name:value`."""
        pairs = [part.partition(":") for part in re.split(r"[,;]", text(self.document, "dimension"))]
        return [value.strip() for name, _, value in pairs if name.strip() == "instance_id"]


class SmnMessage(NamedTuple):
    """One notification.

    Attributes:
        message_id: of SMN; a redelivery has the same.
        text: of the message.
        time: when it was first sent (aware).
        source: of the stop request.
        now: when it was received (aware).
    """

    message_id: str
    text: str
    time: datetime
    source: str
    now: datetime

    def gate(self) -> Skip | None:
        """Skip alarms of Cloud Eye that do not fire, and what is neither an alarm nor canonical data.

        Raises:
            BadEvent: the text is not a JSON object.
        """
        document = self._document()
        if _is_alarm(document):
            return CloudEyeAlarm(document).gate()
        return None if is_canonical(document) else Skip("neither an alarm nor a stop request")

    def extract(self) -> StopRequest:
        """Make the stop request of the alarm of Cloud Eye, or of canonical data.

        Raises:
            BadEvent: it is malformed; with every violation.
        """
        document, id_ = self._document(), identity(self.message_id)
        if not _is_alarm(document):
            request = canonical_request(document, id_=id_, source=self.source, requested_by="SMN", now=self.now)
        else:
            ids, since = both(
                CloudEyeAlarm(document).server_ids,
                lambda: start_time(document.get("time"), "message.time", self.now),
            )
            request = StopRequest(
                source=self.source,
                id=id_,
                type=STOP_REQUESTED,
                server_ids=ids,
                dry_run=dry_run.requested(document, "message"),
                since=since,
                reason=reason(f"Cloud Eye alarm {text(document, 'alarm_name')}", text(document, "metric_name")),
                requested_by="Cloud Eye",
                correlationid=attribute(text(document, "alarm_id")),
            )
        return request._replace(time=self.time)

    def _document(self) -> Mapping[str, object]:
        return json_object(self.text, "message")


def _is_alarm(document: Mapping[str, object]) -> bool:
    return document.get("message_type") == "alarm" or "alarm_status" in document
