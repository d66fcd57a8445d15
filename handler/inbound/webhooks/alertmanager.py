"""Prometheus Alertmanager, webhook version 4.

Its notifications have no id. The event id is made of the group and of the alerts that fire, with their starts, so that
a redelivery has the same. A repeat (`repeat_interval`) of an alarm that still fires has the same content but for the
`notification_reason` of newer versions, so it can have the id of the first: to take a redelivery for a new alarm could
cut the power twice. It is handed on all the same. No notification has the time at which it was sent, so the event has
that of receipt; with the start of the alarm, every alarm that lasts would be refused.
"""

from __future__ import annotations

from datetime import datetime

from handler.inbound.http.request import HttpRequest
from handler.inbound.webhooks import signatures
from handler.inbound.webhooks.alertgroup import AlertGroups, Group


class Alertmanager(AlertGroups):
    """Authenticated by a token."""

    name = "Alertmanager"

    def verify(self, delivery: HttpRequest, now: datetime) -> Group:
        """Check the bearer token, or the password of basic authentication."""
        signatures.bearer_or_password(delivery.headers, self._settings.alertmanager_token)
        return self._read(delivery, now)


producer = Alertmanager
