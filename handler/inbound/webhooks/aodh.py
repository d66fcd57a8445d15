"""OpenStack Aodh, HTTP(S) alarm action.

It is authenticated by a secret in the URL of the action. The event behind the alarm has an id, which a redelivery
repeats; another event that matches the same alarm is another event here too. An alarm on a threshold or on a composite
of others has no server, whatever other UUIDs it has: there the parameter `server_id` of the action's URL names it.
`generated` is when the event behind the alarm happened; no member has the time at which the notification was sent, so
the event's time is that of receipt.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import parse_qsl

from handler.errors import BadEvent, Unauthenticated, Violation
from handler.event_types import STOP_REQUESTED
from handler.inbound import dry_run
from handler.inbound.http.request import HttpRequest
from handler.inbound.skip import Skip
from handler.inbound.webhooks import signatures
from handler.inbound.webhooks.fields import both, identity, json_body, member, reason, start_time, text
from handler.inbound.webhooks.fields import server_ids as ids_in
from handler.inbound.webhooks.model import Alarm
from handler.stop.model import StopRequest

_COMPUTE = ("compute.instance.", "instance.")
_PARAMETER = "server_id in the URL"
_WITHOUT_ZONE = re.compile(r"[^T]+T[0-9:.]+", re.ASCII)
_ECHOES = tuple(f"{prefix}power_off." for prefix in _COMPUTE)


@dataclass(frozen=True, slots=True)
class Alert:
    """One notification, with the id of its request in Aodh's log, and the servers that its URL names."""

    document: Mapping[str, object]
    request_id: str
    named: list[tuple[str, object]]
    now: datetime

    @property
    def event(self) -> Mapping[str, object]:
        """The event behind the alarm; empty for an alarm of another kind."""
        return member(self.document, "reason_data", "event")

    def instances(self) -> list[tuple[str, object]]:
        """Return the values of the event's traits that name the server, and their places."""
        traits = self.event.get("traits")
        found = [
            (f"reason_data.event.traits[{index}]", trait[0], trait[2])
            for index, trait in enumerate(traits if isinstance(traits, list) else [])
            if isinstance(trait, list) and len(trait) == 3
        ]
        named = [(at, value) for at, name, value in found if name == "instance_id"]
        if not named and text(self.event, "event_type").startswith(_COMPUTE):
            # Some deployments map it to this name, which only in events about servers is a server's.
            named = [(at, value) for at, name, value in found if name == "resource_id"]
        return named

    def server_ids(self) -> tuple[str, ...]:
        """Return the servers that the event or the URL names; both must agree."""
        found, named = both(lambda: ids_in(self.instances()), lambda: ids_in(self.named))
        if found and named and set(found) != set(named):
            raise BadEvent(Violation(_PARAMETER, "must name the server of the event"))
        return found or named

    def since(self) -> datetime | None:
        """Return when the event behind the alarm happened, or None; Aodh's times are in UTC, without a zone."""
        generated = self.event.get("generated")
        if isinstance(generated, str) and _WITHOUT_ZONE.fullmatch(generated):
            generated += "Z"
        return start_time(generated, "reason_data.event.generated", self.now)


class Aodh(Alarm[Alert]):
    """Authenticated by the query parameter `token`."""

    def verify(self, delivery: HttpRequest, now: datetime) -> Alert:
        """Check the token in the URL."""
        if not signatures.query_token(delivery.query, self._settings.aodh_token):
            raise Unauthenticated("The query parameter token must be the token of this webhook.")
        parameters = parse_qsl(delivery.query, keep_blank_values=True, errors="replace")
        named: list[tuple[str, object]] = [(_PARAMETER, value) for name, value in parameters if name == "server_id"]
        return Alert(json_body(delivery), delivery.headers.get("x-openstack-request-id", ""), named, now)

    def gate(self, message: Alert) -> Skip | None:
        """Skip other states than `alarm`, and events that name no server or were caused by a stop."""
        if message.document.get("current") != "alarm":
            return Skip("the alarm does not fire")
        if text(message.event, "event_type").startswith(_ECHOES):
            return Skip("echo of a stop")
        if message.instances() or message.named:
            return None
        return Skip("the alarm names no server; add &server_id=<id> to the URL of its alarm action", warn=True)

    def extract(self, message: Alert) -> StopRequest:
        """Take the ids from the trait `instance_id`, or the parameter `server_id` of the URL; both must agree."""
        document = message.document
        about = text(message.event, "message_id") or message.request_id or text(message.event, "generated")
        ids, since = both(message.server_ids, message.since)
        named = ids if message.named else ()
        return StopRequest(
            source=self._source,
            id=identity("aodh", text(document, "alarm_id"), about, *named),
            type=STOP_REQUESTED,
            server_ids=ids,
            dry_run=dry_run.requested(document, "body"),
            # The reason of the notification has only the id of the event.
            reason=reason(f"Aodh alarm {text(document, 'alarm_name')}", text(message.event, "event_type")),
            requested_by="Aodh",
            since=since,
        )


producer = Aodh
