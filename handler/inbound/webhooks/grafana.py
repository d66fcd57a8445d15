"""Grafana's webhook contact point, version 1.

A notification has no id. With a signed timestamp each has its own time, which is the event's time and a part of its
id: a redelivery repeats it, a repeat of an alarm that still fires has a new one. Without it the two are alike, and a
repeat has the id of the first for the reason given for Alertmanager.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from handler.errors import Unauthenticated
from handler.inbound.skip import Skip
from handler.inbound.webhooks import signatures
from handler.inbound.webhooks.alertgroup import Group, read_group
from handler.inbound.webhooks.model import Alarm, WebhookRequest
from handler.settings.receive_webhook import WebhookSettings
from handler.stop.model import StopRequest

_SIGNATURE = "x-grafana-alerting-signature"


@dataclass(frozen=True, slots=True)
class Notification:
    """A group of alerts, and when it was sent if that is signed."""

    group: Group
    time: datetime | None


class Grafana(Alarm):
    """Authenticated by a token, a signature, or both: what is set must be valid."""

    def __init__(self, settings: WebhookSettings, source: str) -> None:
        self._token = settings.grafana_token
        self._secret = settings.grafana_hmac_secret.reveal().encode()
        self._timestamp_header = settings.grafana_timestamp_header
        self._label = settings.id_label
        self._source = source

    def verify(self, delivery: WebhookRequest) -> Notification:
        """Check the token, then the signature over the body, with the time before it if there is one."""
        if self._token:
            signatures.bearer_or_password(delivery.headers, self._token)
        time = self._signed(delivery) if self._secret else None
        return Notification(read_group(delivery, self._label), time)

    def _signed(self, delivery: WebhookRequest) -> datetime | None:
        prefix, time = b"", None
        if self._timestamp_header:
            written = delivery.headers.get(self._timestamp_header, "")
            time = signatures.unix_time(written)
            prefix = f"{written}:".encode("ascii")
        mac = signatures.signature(self._secret, prefix, delivery.unauthenticated_body)
        if not signatures.same(delivery.headers.get(_SIGNATURE, ""), mac.hex()):
            raise Unauthenticated("A valid signature is required.")
        return None if time is None else signatures.fresh(time, delivery.now)

    def gate(self, message: Notification) -> Skip | None:
        """Skip a group in which no alert fires and names a server."""
        return message.group.gate()

    def extract(self, message: Notification) -> StopRequest:
        """Take the ids from the label of each alert."""
        return message.group.request("Grafana", self._source, message.time)


producer = Grafana
