"""An alarm of Cloud Eye, as it comes inside of an SMN message.

Its form is not documented; it is known from captures. Two places name the resource, and both must agree.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from handler.errors import BadEvent, Violation
from handler.inbound.webhooks.fields import LONGEST_REASON, attribute, cut, member, server_ids, text
from handler.inbound.webhooks.model import Nothing

# What stopping a server raises: an alarm on it would go round in circles.
_ECHOES = {"osshutdown", "servershutdown", "stopbaremetalservers"}


@dataclass(frozen=True, slots=True)
class CloudEyeAlarm:
    """One alarm, or the notice that it is over."""

    document: Mapping[str, object]

    @classmethod
    def is_one(cls, document: Mapping[str, object]) -> bool:
        """Whether a message is Cloud Eye's at all."""
        return document.get("message_type") == "alarm" or "alarm_status" in document

    @property
    def _details(self) -> Mapping[str, object]:
        return member(self.document, "template_variable")

    def gate(self) -> Nothing | None:
        """Only the state `alarm`, where nothing says otherwise, and no echo of a stop."""
        if self.document.get("alarm_status") != "alarm" or self._details.get("IsAlarm") is False:
            return Nothing("the alarm does not fire")
        named = [
            text(self.document, "metric_name"),
            text(self.document, "event_name"),
            text(self._details, "EventName"),
        ]
        if any(name.lower() in _ECHOES for name in named):
            return Nothing("echo of a stop")
        if not self._resource() and self.document.get("dimension") is None:
            return Nothing("the alarm names no resource")
        return None

    def server_ids(self) -> tuple[str, ...]:
        """The resource, which `dimension` must confirm if it is there.

        Raises:
            BadEvent: they disagree, or one is no UUID.
        """
        found: list[tuple[str, object]] = []
        if self._resource():
            found.append(("message.template_variable.ResourceId", self._resource()))
        if self.document.get("dimension") is not None:
            found.append(("message.dimension", self._instance()))
        ids = server_ids(found)
        if len(ids) != 1:
            raise BadEvent(Violation("message.dimension", "names another resource than ResourceId"))
        return ids

    def reason(self) -> str | None:
        """Name and metric of the alarm."""
        name, metric = text(self.document, "alarm_name"), text(self.document, "metric_name")
        return cut(": ".join(part for part in (f"Cloud Eye alarm {name}".strip(), metric) if part), LONGEST_REASON)

    def alarm_id(self) -> str | None:
        """Its id, as far as it can be an attribute of an event."""
        return attribute(text(self.document, "alarm_id"))

    def _resource(self) -> str:
        return text(self._details, "ResourceId").strip()

    def _instance(self) -> str:
        """The instance among the dimensions, which are written `name:value`; empty if there is none."""
        pairs = [part.partition(":") for part in re.split(r"[,;]", text(self.document, "dimension"))]
        values = [value.strip() for name, _, value in pairs if name.strip() == "instance_id"]
        return values[0] if len(values) == 1 else ""
