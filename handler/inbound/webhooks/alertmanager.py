"""Prometheus Alertmanager, webhook version 4.

Its notifications have no id. The event id is made of the group and of the alerts that fire, with their starts, so that
a redelivery has the same. A repeat (`repeat_interval`) of an alarm that still fires has the same content but for the
`notification_reason` of newer versions, so it can have the id of the first: to take a redelivery for a new alarm could
cut the power twice. It is handed on all the same. No notification has the time at which it was sent, so the event has
that of receipt; with the start of the alarm, every alarm that lasts would be refused.
"""

from __future__ import annotations

from handler.inbound.skip import Skip
from handler.inbound.webhooks import signatures
from handler.inbound.webhooks.alertgroup import Group, read_group
from handler.inbound.webhooks.model import Alarm, WebhookRequest
from handler.settings.receive_webhook import WebhookSettings
from handler.stop.model import StopRequest


class Alertmanager(Alarm):
    """Authenticated by a token; each alert that fires and has the label is acted on."""

    def __init__(self, settings: WebhookSettings, source: str) -> None:
        self._token = settings.alertmanager_token
        self._label = settings.id_label
        self._source = source

    def verify(self, delivery: WebhookRequest) -> Group:
        """Check the bearer token, or the password of basic authentication."""
        signatures.bearer_or_password(delivery.headers, self._token)
        return read_group(delivery, self._label)

    def gate(self, message: Group) -> Skip | None:
        """Skip a group in which no alert fires and names a server."""
        return message.gate()

    def extract(self, message: Group) -> StopRequest:
        """Take the ids from the label of each alert."""
        return message.request("Alertmanager", self._source)


producer = Alertmanager
