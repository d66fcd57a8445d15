"""Azure Monitor action groups, common alert schema.

An alert has an id of its own and the time at which it fired, and a redelivery repeats both. Azure sends an alert that
goes on firing once; a stateless one comes again with a new time, and is a new event. That time is the alarm's start,
and nothing says when the notification was sent, so the event's time is the receipt.

A webhook action of Azure cannot set a header, so the token may stand in its URL instead.
"""

from __future__ import annotations

from collections.abc import Mapping

from handler.errors import BadEvent, Violation
from handler.inbound.extract import STOP_REQUESTED
from handler.inbound.webhooks import signatures
from handler.inbound.webhooks.fields import LONGEST_REASON, cut, identity, json_object, member, server_ids, text
from handler.inbound.webhooks.model import Alarm, Nothing, WebhookRequest
from handler.settings.receive_webhook import WebhookSettings
from handler.stop.model import StopRequest

_SCHEMA = "azureMonitorCommonAlertSchema"


class AzureMonitor(Alarm):
    """Proves itself by a token; the server's id is a custom property of the alert rule."""

    def __init__(self, settings: WebhookSettings, source: str) -> None:
        self._token = settings.azure_token
        self._property = settings.id_label
        self._source = source

    def verify(self, delivery: WebhookRequest) -> Mapping[str, object]:
        """Bearer token, basic auth's password, or the query parameter `token`."""
        if not signatures.query_token(delivery.query, self._token):
            signatures.bearer_or_password(delivery.headers, self._token)
        return json_object(delivery.body)

    def gate(self, message: Mapping[str, object]) -> Nothing | None:
        """Only the condition `Fired`, and a rule that names a server."""
        if message.get("schemaId") != _SCHEMA:
            raise BadEvent(Violation("schemaId", "is not that of the common alert schema; switch it on in the action"))
        if member(message, "data", "essentials").get("monitorCondition") != "Fired":
            return Nothing("the alert does not fire")
        return None if self._named(message) not in (None, "") else Nothing("the alert names no server")

    def extract(self, message: Mapping[str, object]) -> StopRequest:
        """The custom property."""
        essentials = member(message, "data", "essentials")
        rule, why = text(essentials, "alertRule"), text(essentials, "description")
        return StopRequest(
            source=self._source,
            id=identity("azure", text(essentials, "alertId"), text(essentials, "firedDateTime")),
            type=STOP_REQUESTED,
            server_ids=server_ids([(f"data.customProperties.{self._property}", self._named(message))]),
            reason=cut(": ".join(part for part in (f"Azure alert {rule}".strip(), why) if part), LONGEST_REASON),
            requested_by="Azure Monitor",
        )

    def _named(self, message: Mapping[str, object]) -> object:
        return member(message, "data", "customProperties").get(self._property)


producer = AzureMonitor
