"""Azure Monitor action groups, common alert schema.

An alert has an id and the time at which it fired, and a redelivery repeats both. Azure sends an alert that continues to
fire once; a stateless one is sent again with a new time, and is a new event. That time is the start of the alarm; no
member has the time at which the notification was sent, so the event's time is that of receipt.

A webhook action of Azure cannot set a header, so the token may be in its URL instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from handler.errors import BadEvent, Violation
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
    server_ids,
    start_time,
    text,
)
from handler.inbound.webhooks.model import Alarm, WebhookRequest
from handler.settings.receive_webhook import WebhookSettings
from handler.stop.model import StopRequest

# Where the custom properties of rules are: the first in newer alerts, the second in log alerts.
_PLACES = (("data", "customProperties"), ("data", "alertContext", "properties"))
_SCHEMA = "azureMonitorCommonAlertSchema"


@dataclass(frozen=True, slots=True)
class Notification:
    """One notification.

    Attributes:
        document: the body.
        label: name of the custom property that has the server's id.
        now: when it was received (aware).
    """

    document: Mapping[str, object]
    label: str
    now: datetime

    @property
    def essentials(self) -> Mapping[str, object]:
        """The part that all kinds of alerts have in common."""
        return member(self.document, "data", "essentials")

    def named(self) -> list[tuple[str, object]]:
        """Return the values of the property, with their places: which there is depends on the kind of alert."""
        found = [(".".join((*place, self.label)), member(self.document, *place).get(self.label)) for place in _PLACES]
        return [(at, value) for at, value in found if value not in (None, "")]

    def server_ids(self) -> tuple[str, ...]:
        """Return the servers that the rule names.

        Raises:
            BadEvent: one is not a UUID, or the two places name different ones.
        """
        ids = server_ids(self.named())
        if any(set(server_ids([place])) != set(ids) for place in self.named()):
            raise BadEvent(Violation(f"data.customProperties.{self.label}", "must agree with alertContext.properties"))
        return ids

    def since(self) -> datetime | None:
        """Return when the alert fired.

        Raises:
            BadEvent: it is not a time, or in the future.
        """
        return start_time(self.essentials.get("firedDateTime"), "data.essentials.firedDateTime", self.now)


class AzureMonitor(Alarm):
    """Authenticated by a token; the server's id is a custom property of the alert rule."""

    def __init__(self, settings: WebhookSettings, source: str) -> None:
        self._token = settings.azure_token
        self._property = settings.id_label
        self._source = source

    def verify(self, delivery: WebhookRequest) -> Notification:
        """Check the bearer token, the password of basic authentication, or the query parameter `token`."""
        if not signatures.query_token(delivery.query, self._token):
            signatures.bearer_or_password(delivery.headers, self._token)
        return Notification(json_body(delivery), self._property, delivery.now)

    def gate(self, message: Notification) -> Skip | None:
        """Skip other conditions than `Fired`, and rules that name no server."""
        if message.document.get("schemaId") != _SCHEMA:
            raise BadEvent(Violation("schemaId", "must be that of the common alert schema; switch it on in the action"))
        if message.essentials.get("monitorCondition") != "Fired":
            return Skip("the alert does not fire")
        return None if message.named() else Skip("the alert names no server")

    def extract(self, message: Notification) -> StopRequest:
        """Take the ids from the custom property of the rule."""
        essentials = message.essentials
        ids, since = both(message.server_ids, message.since)
        rule, why = text(essentials, "alertRule"), text(essentials, "description")
        return StopRequest(
            source=self._source,
            id=identity("azure", text(essentials, "alertId"), text(essentials, "firedDateTime")),
            type=STOP_REQUESTED,
            server_ids=ids,
            dry_run=dry_run.requested(message.document, "body"),
            reason=cut(": ".join(part for part in (f"Azure alert {rule}".strip(), why) if part), LONGEST_REASON),
            requested_by="Azure Monitor",
            since=since,
        )


producer = AzureMonitor
