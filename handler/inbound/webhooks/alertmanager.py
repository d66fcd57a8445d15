"""Prometheus Alertmanager, webhook version 4.

Its notifications have no id. What one is about is the group, and which alert of it fires since when: a redelivery says
the same, so it has the same event id. A repeat (`repeat_interval`) of an alarm that still fires says the same too, but
for newer versions' `notification_reason`, so it gets the id of the first one: of the two mistakes, taking a redelivery
for a new alarm is the one that can cut the power twice. It is handed on all the same. Nothing in a notification says
when it was sent, so its time is the receipt; that of the alarm's start would refuse every alarm that lasts.
"""

from __future__ import annotations

from handler.inbound.skip import Skip
from handler.inbound.webhooks import signatures
from handler.inbound.webhooks.alertgroup import Group, read_group
from handler.inbound.webhooks.model import Alarm, WebhookRequest
from handler.settings.receive_webhook import WebhookSettings
from handler.stop.model import StopRequest


class Alertmanager(Alarm):
    """Proves itself by a token; each alert that fires and has the label is acted on."""

    def __init__(self, settings: WebhookSettings, source: str) -> None:
        self._token = settings.alertmanager_token
        self._label = settings.id_label
        self._source = source

    def verify(self, delivery: WebhookRequest) -> Group:
        """Bearer token, or basic auth's password."""
        signatures.bearer_or_password(delivery.headers, self._token)
        return read_group(delivery, self._label)

    def gate(self, message: Group) -> Skip | None:
        """At least one alert must fire and name a server."""
        return message.gate()

    def extract(self, message: Group) -> StopRequest:
        """The label's value of each alert."""
        return message.request("Alertmanager", self._source)


producer = Alertmanager
