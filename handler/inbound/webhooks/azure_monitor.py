"""Azure Monitor action groups, common alert schema.

An alert has an id and the time at which it fired, and a redelivery repeats both. Azure sends an alert that continues to
fire once; a stateless one is sent again with a new time, and is a new event. That time is the start of the alarm; no
member has the time at which the notification was sent, so the event's time is that of receipt.

A webhook action of Azure cannot set a header, so the token may be in its URL instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from handler.errors import BadEvent, Violation
from handler.event_types import STOP_REQUESTED
from handler.inbound import dry_run
from handler.inbound.http.request import HttpRequest
from handler.inbound.skip import Skip
from handler.inbound.webhooks import signatures
from handler.inbound.webhooks.fields import (
    agreeing_ids,
    both,
    identity,
    json_body,
    member,
    reason,
    start_time,
    text,
)
from handler.inbound.webhooks.model import Alarm, Notification
from handler.stop.model import StopRequest

# Where the custom properties of rules are: the first in newer alerts, the second in log alerts.
_PLACES = (("data", "customProperties"), ("data", "alertContext", "properties"))
_SCHEMA = "azureMonitorCommonAlertSchema"


class AzureMonitor(Alarm[Notification]):
    """Authenticated by a token; the server's id is a custom property of the alert rule."""

    def verify(self, delivery: HttpRequest, now: datetime) -> Notification:
        """Check the bearer token, the password of basic authentication, or the query parameter `token`."""
        if not signatures.query_token(delivery.query, self._settings.azure_token):
            signatures.bearer_or_password(delivery.headers, self._settings.azure_token)
        return Notification(json_body(delivery), now, delivery.body)

    def gate(self, message: Notification) -> Skip | None:
        """Skip other conditions than `Fired`, and rules that name no server."""
        if message.document.get("schemaId") != _SCHEMA:
            raise BadEvent(Violation("schemaId", "must be that of the common alert schema; switch it on in the action"))
        if _essentials(message.document).get("monitorCondition") != "Fired":
            return Skip("the alert does not fire")
        return None if self._named(message.document) else Skip("the alert names no server")

    def extract(self, message: Notification) -> StopRequest:
        """Take the ids from the custom property of the rule."""
        document = message.document
        essentials = _essentials(document)
        fired = essentials.get("firedDateTime")
        at = f"data.customProperties.{self._settings.id_label}"
        ids, since = both(
            lambda: agreeing_ids(self._named(document), at, "must agree with alertContext.properties"),
            lambda: start_time(fired, "data.essentials.firedDateTime", message.now),
        )
        return StopRequest(
            source=self._source,
            id=identity("azure", text(essentials, "alertId"), text(essentials, "firedDateTime")),
            type=STOP_REQUESTED,
            server_ids=ids,
            dry_run=dry_run.requested(document, "body"),
            reason=reason(f"Azure alert {text(essentials, 'alertRule')}", text(essentials, "description")),
            requested_by="Azure Monitor",
            since=since,
        )

    def _named(self, document: Mapping[str, object]) -> list[tuple[str, object]]:
        """Return the values of the property, with their places: which there is depends on the kind of alert."""
        label = self._settings.id_label
        found = [(".".join((*place, label)), member(document, *place).get(label)) for place in _PLACES]
        return [(at, value) for at, value in found if value not in (None, "")]


def _essentials(document: Mapping[str, object]) -> Mapping[str, object]:
    """Return the part that all kinds of alerts have in common."""
    return member(document, "data", "essentials")


producer = AzureMonitor
