"""Grafana's webhook contact point, version 1.

A notification has no id. With a signed timestamp each has its own time, which is the event's time and a part of its
id: a redelivery repeats it, a repeat of an alarm that still fires has a new one. Without it the two are alike, and a
repeat has the id of the first for the reason given for Alertmanager.
"""

from __future__ import annotations

from datetime import datetime

from handler.errors import Unauthenticated
from handler.inbound.http.request import HttpRequest
from handler.inbound.webhooks import signatures
from handler.inbound.webhooks.alertgroup import AlertGroups, Group

_SIGNATURE = "x-grafana-alerting-signature"


class Grafana(AlertGroups):
    """Authenticated by a token, a signature, or both: what is set must be valid."""

    name = "Grafana"

    def verify(self, delivery: HttpRequest, now: datetime) -> Group:
        """Check the token, then the signature over the body, with the time before it if there is one."""
        if self._settings.grafana_token:
            signatures.bearer_or_password(delivery.headers, self._settings.grafana_token)
        time = self._signed(delivery, now) if self._settings.grafana_hmac_secret else None
        return self._read(delivery, now, time)

    def _signed(self, delivery: HttpRequest, now: datetime) -> datetime | None:
        prefix, time = b"", None
        if header := self._settings.grafana_timestamp_header:
            written = delivery.headers.get(header, "")
            time = signatures.unix_time(written)
            prefix = f"{written}:".encode("ascii")
        key = self._settings.grafana_hmac_secret.reveal().encode()
        mac = signatures.signature(key, prefix, delivery.unauthenticated_body)
        if not signatures.same(delivery.headers.get(_SIGNATURE, ""), mac.hex()):
            raise Unauthenticated("A valid signature is required.")
        return None if time is None else signatures.fresh(time, now)


producer = Grafana
