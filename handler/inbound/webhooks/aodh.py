"""OpenStack Aodh, HTTP(S) alarm action.

It can prove itself by nothing but a secret in the action's URL. The event behind the alarm has an id, which a
redelivery repeats; another event that hits the same alarm is another event here too. An alarm on a threshold or on a
composite of others says nothing of a server, whatever other UUIDs it holds. `generated` is when the event behind the
alarm happened, and nothing says when the notification was sent, so its time is the receipt.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from handler.errors import Unauthenticated
from handler.inbound.extract import STOP_REQUESTED
from handler.inbound.webhooks import signatures
from handler.inbound.webhooks.fields import LONGEST_REASON, cut, identity, json_object, member, server_ids, text
from handler.inbound.webhooks.model import Alarm, Nothing, WebhookRequest
from handler.settings.receive_webhook import WebhookSettings
from handler.stop.model import StopRequest

_COMPUTE = ("compute.instance.", "instance.")
_ECHOES = tuple(f"{prefix}power_off." for prefix in _COMPUTE)


@dataclass(frozen=True, slots=True)
class Notification:
    """What Aodh says, and the id that its log has for this request."""

    document: Mapping[str, object]
    request_id: str

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
        return Notification(json_object(delivery.body), delivery.headers.get("x-openstack-request-id", ""))

    def gate(self, message: Notification) -> Nothing | None:
        """Only the state `alarm`, and an event that names a server and is no echo of a stop."""
        if message.document.get("current") != "alarm":
            return Nothing("the alarm does not fire")
        if text(message.event, "event_type").startswith(_ECHOES):
            return Nothing("echo of a stop")
        return None if message.instances() else Nothing("the alarm names no server")

    def extract(self, message: Notification) -> StopRequest:
        """The trait `instance_id`."""
        document = message.document
        about = text(message.event, "message_id") or message.request_id or text(message.event, "generated")
        # Its own reason quotes the id of the event and no more.
        name, why = text(document, "alarm_name"), text(message.event, "event_type")
        return StopRequest(
            source=self._source,
            id=identity("aodh", text(document, "alarm_id"), about),
            type=STOP_REQUESTED,
            server_ids=server_ids(message.instances()),
            reason=cut(": ".join(part for part in (f"Aodh alarm {name}".strip(), why) if part), LONGEST_REASON),
            requested_by="Aodh",
        )


producer = Aodh
