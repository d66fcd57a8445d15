"""OpenStack Aodh, HTTP(S) alarm action.

It can prove itself by nothing but a secret in the action's URL. The event behind the alarm has an id, which a
redelivery repeats; another event that hits the same alarm is another event here too. An alarm on a threshold or on a
composite of others says nothing of a server, whatever other UUIDs it holds: there the URL of the alarm's action names
it, by the parameter `server_id`. `generated` is when the event behind the alarm happened, and nothing says when the
notification was sent, so its time is the receipt.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import parse_qsl

from handler.errors import BadEvent, Unauthenticated, Violation
from handler.event_types import STOP_REQUESTED
from handler.inbound import dry_run
from handler.inbound.skip import Skip
from handler.inbound.webhooks import signatures
from handler.inbound.webhooks.fields import (
    LONGEST_REASON,
    both,
    cut,
    identity,
    json_body,
    member,
    start_time,
    text,
)
from handler.inbound.webhooks.fields import server_ids as ids_in
from handler.inbound.webhooks.model import Alarm, WebhookRequest
from handler.settings.receive_webhook import WebhookSettings
from handler.stop.model import StopRequest

_COMPUTE = ("compute.instance.", "instance.")
_PARAMETER = "server_id in the URL"
_WITHOUT_ZONE = re.compile(r"[^T]+T[0-9:.]+", re.ASCII)
_ECHOES = tuple(f"{prefix}power_off." for prefix in _COMPUTE)


@dataclass(frozen=True, slots=True)
class Notification:
    """What Aodh says.

    Attributes:
        document: the body.
        request_id: the id that Aodh's log has for this request.
        named: what the URL of the alarm's action says of the server, and where.
        now: when it was received (aware).
    """

    document: Mapping[str, object]
    request_id: str
    named: tuple[tuple[str, object], ...]
    now: datetime

    @property
    def event(self) -> Mapping[str, object]:
        """The event behind the alarm; empty for an alarm of another kind."""
        return member(self.document, "reason_data", "event")

    def instances(self) -> list[tuple[str, object]]:
        """The server in the event's traits, and where it stands."""
        traits = list(self._traits())
        named = [(at, value) for at, name, value in traits if name == "instance_id"]
        if not named and text(self.event, "event_type").startswith(_COMPUTE):
            # Some deployments map it to this name, which in events about anything else is no server's.
            named = [(at, value) for at, name, value in traits if name == "resource_id"]
        return named

    def server_ids(self) -> tuple[str, ...]:
        """Return the servers that the event or the URL names.

        Raises:
            BadEvent: one must be a UUID, or event and URL name different ones.
        """
        found, named = both(lambda: ids_in(self.instances()), lambda: ids_in(self.named))
        if found and named and set(found) != set(named):
            raise BadEvent(Violation(_PARAMETER, "must name the server of the event"))
        return found or named

    def since(self) -> datetime | None:
        """Return when the event behind the alarm happened, as far as the alarm says; Aodh leaves its zone out: UTC.

        Raises:
            BadEvent: it is no time, or in the future.
        """
        generated = self.event.get("generated")
        if isinstance(generated, str) and _WITHOUT_ZONE.fullmatch(generated):
            generated += "Z"
        return start_time(generated, "reason_data.event.generated", self.now)

    def _traits(self) -> Iterator[tuple[str, object, object]]:
        traits = self.event.get("traits")
        for index, trait in enumerate(traits if isinstance(traits, list) else []):
            if isinstance(trait, list) and len(trait) == 3:
                yield f"reason_data.event.traits[{index}]", trait[0], trait[2]


class Aodh(Alarm):
    """Proves itself by the query parameter `token`."""

    def __init__(self, settings: WebhookSettings, source: str) -> None:
        self._token = settings.aodh_token
        self._source = source

    def verify(self, delivery: WebhookRequest) -> Notification:
        """The token in the URL."""
        if not signatures.query_token(delivery.query, self._token):
            raise Unauthenticated("The query parameter token is missing or wrong.")
        parameters = parse_qsl(delivery.query, keep_blank_values=True, errors="replace")
        return Notification(
            document=json_body(delivery),
            request_id=delivery.headers.get("x-openstack-request-id", ""),
            named=tuple((_PARAMETER, value) for name, value in parameters if name == "server_id"),
            now=delivery.now,
        )

    def gate(self, message: Notification) -> Skip | None:
        """Only the state `alarm`, and an event that names a server and is no echo of a stop."""
        if message.document.get("current") != "alarm":
            return Skip("the alarm does not fire")
        if text(message.event, "event_type").startswith(_ECHOES):
            return Skip("echo of a stop")
        if message.instances() or message.named:
            return None
        return Skip("the alarm names no server; add &server_id=<id> to the URL of its alarm action", warn=True)

    def extract(self, message: Notification) -> StopRequest:
        """The trait `instance_id`, or the parameter `server_id` of the action's URL; both must agree."""
        document = message.document
        about = text(message.event, "message_id") or message.request_id or text(message.event, "generated")
        # Its own reason quotes the id of the event and no more.
        name, why = text(document, "alarm_name"), text(message.event, "event_type")
        ids, since = both(message.server_ids, message.since)
        named = ids if message.named else ()
        return StopRequest(
            source=self._source,
            id=identity("aodh", text(document, "alarm_id"), about, *named),
            type=STOP_REQUESTED,
            server_ids=ids,
            dry_run=dry_run.requested(document, "body"),
            reason=cut(": ".join(part for part in (f"Aodh alarm {name}".strip(), why) if part), LONGEST_REASON),
            requested_by="Aodh",
            since=since,
        )


producer = Aodh
