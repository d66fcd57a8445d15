"""Alarms of Cloud Eye, which come inside SMN messages.

Their form is not documented; it is known from captures. Two members name the resource, and both must agree.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from handler.errors import BadEvent, Violation
from handler.inbound.skip import Skip
from handler.inbound.webhooks.fields import LONGEST_REASON, attribute, cut, member, server_ids, start_time, text

# Events that a stop causes: an alarm on them would be a loop.
_PLATFORM = {"SYS", "AGT", "SERVICE"}
# Last parts of the namespaces of servers, such as SERVICE.BMS, AGT.ECS, SYS.BMS.
_SERVERS = {"BMS", "ECS"}
_ECHOES = {"osshutdown", "servershutdown", "stopbaremetalservers"}


@dataclass(frozen=True, slots=True)
class CloudEyeAlarm:
    """One alarm, or the message that it has ended."""

    document: Mapping[str, object]

    @classmethod
    def is_one(cls, document: Mapping[str, object]) -> bool:
        """Return whether a message is of Cloud Eye."""
        return document.get("message_type") == "alarm" or "alarm_status" in document

    @property
    def _details(self) -> Mapping[str, object]:
        return member(self.document, "template_variable")

    def gate(self) -> Skip | None:
        """Skip other states than `alarm`, alarms about other things than servers, and those that a stop causes."""
        if self.document.get("alarm_status") != "alarm" or self._details.get("IsAlarm") is False:
            return Skip("the alarm does not fire")
        named = [
            text(self.document, "metric_name"),
            text(self.document, "event_name"),
            text(self._details, "EventName"),
        ]
        if any(name.lower() in _ECHOES for name in named):
            return Skip("echo of a stop")
        if not self._resource() and self.document.get("dimension") is None:
            return Skip("the alarm names no resource")
        return None if self._about_server() else Skip("the alarm is not about a server")

    def server_ids(self) -> tuple[str, ...]:
        """Return the resource, which must be that of `dimension` if there is one.

        Raises:
            BadEvent: they disagree, or one is not a UUID.
        """
        found: list[tuple[str, object]] = []
        if self._resource():
            found.append(("message.template_variable.ResourceId", self._resource()))
        if self.document.get("dimension") is not None:
            found.append(("message.dimension", self._instance()))
        ids = server_ids(found)
        if len(ids) != 1:
            raise BadEvent(Violation("message.dimension", "must name the same resource as ResourceId"))
        return ids

    def reason(self) -> str | None:
        """Return name and metric of the alarm."""
        name, metric = text(self.document, "alarm_name"), text(self.document, "metric_name")
        return cut(": ".join(part for part in (f"Cloud Eye alarm {name}".strip(), metric) if part), LONGEST_REASON)

    def alarm_id(self) -> str | None:
        """Return its id, if that can be an attribute of an event."""
        return attribute(text(self.document, "alarm_id"))

    def since(self, now: datetime) -> datetime | None:
        """Return when the alarm began, or None.

        Args:
            now: aware.

        Raises:
            BadEvent: it is not a time, or in the future.
        """
        return start_time(self.document.get("time"), "message.time", now)

    def _about_server(self) -> bool:
        """Return whether it is about a server, by the namespace of its metric or event.

        The platform's own services have namespaces that begin with SYS, AGT or SERVICE. Metrics of users have others,
        or a message has none: then the name of the dimension decides.
        """
        service, _, kind = text(self.document, "namespace").strip().upper().partition(".")
        if service in _PLATFORM:
            return kind in _SERVERS
        return self.document.get("dimension") is not None and bool(self._instances())

    def _resource(self) -> str:
        return text(self._details, "ResourceId").strip()

    def _instance(self) -> str:
        """Return the instance among the dimensions; empty if there is none, or several."""
        values = self._instances()
        return values[0] if len(values) == 1 else ""

    def _instances(self) -> list[str]:
        """Return the instances among the dimensions, which are written `name:value`."""
        pairs = [part.partition(":") for part in re.split(r"[,;]", text(self.document, "dimension"))]
        return [value.strip() for name, _, value in pairs if name.strip() == "instance_id"]
