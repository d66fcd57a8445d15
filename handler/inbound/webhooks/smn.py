"""Open Telekom Cloud's Simple Message Notification, and through it Cloud Eye's alarms.

Every message has an id and the time at which it was first sent, and a redelivery repeats both; a repeat of an alarm
that still fires is another message. For how long SMN sends again is not documented: a message is refused once it is
older than an hour, and `stop_servers` has its own limit of an event's age.

A subscription is confirmed once its request has passed every check of a notification.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from handler import rfc3339
from handler.errors import CallerForbidden, Cause, ProducerUnreachable, Unauthenticated
from handler.http_client import host_of
from handler.inbound import dry_run
from handler.inbound.http.request import HttpRequest
from handler.inbound.http.responses import Answer
from handler.inbound.skip import Skip
from handler.inbound.webhooks import fetch
from handler.inbound.webhooks.fields import authenticating_json, text
from handler.inbound.webhooks.model import Alarm
from handler.inbound.webhooks.smn_message import SmnMessage
from handler.inbound.webhooks.smn_signature import Certificates, signed_text
from handler.settings.receive_webhook import WebhookSettings
from handler.stop.model import StopRequest

_LOG = logging.getLogger(__name__)

_TEXTS = ("type", "message", "message_id", "topic_urn", "timestamp", "signature", "signing_cert_url")
# All signed fields but the message, which comes first in the signed text and may have several lines.
_ONE_LINE = ("message_id", "subject", "subscribe_url", "timestamp", "topic_urn", "type")
_BREAKS = frozenset("\r\n")
_HEADERS = {"x-smn-message-type": "type", "x-smn-message-id": "message_id", "x-smn-topic-urn": "topic_urn"}
_OLDEST = timedelta(hours=1)
# For how long a subscription can be confirmed.
_OLDEST_CONFIRMATION = timedelta(hours=48)
_FUTURE = timedelta(minutes=5)
_CONFIRMATION = "SubscriptionConfirmation"


@dataclass(frozen=True, slots=True)
class Message:
    """One authenticated message.

    Attributes:
        fields: the members of the document that are text.
        time: when it was first sent.
        until: when the response must be sent, on the monotonic clock.
        now: when it was received (aware).
    """

    fields: Mapping[str, str]
    document: Mapping[str, object]
    time: datetime
    until: float
    now: datetime


class Smn(Alarm[Message]):
    """Authenticated by a signature; only the topics of the settings are accepted."""

    def __init__(self, settings: WebhookSettings, source: str, get: fetch.Get = fetch.get) -> None:
        super().__init__(settings, source)
        self._certificates = Certificates(settings.smn_cert_hosts, get)
        self._get = get

    def verify(self, delivery: HttpRequest, now: datetime) -> Message:
        """Check topic and time first, which needs no request; then certificate and signature."""
        document = authenticating_json(delivery.unauthenticated_body)
        fields = _fields(document, delivery.headers)
        if fields["topic_urn"] not in self._settings.smn_topics:
            raise Unauthenticated("The topic must be one of AUTOSTOP_SMN_TOPICS.")
        sent, until = _time(fields, now), delivery.received + self.patience
        signature = fields["signature"]
        self._certificates.check(
            fields["signing_cert_url"], signature, signed_text(fields), now, until - time.monotonic()
        )
        return Message(fields, document, sent, until, now)

    def gate(self, message: Message) -> Skip | None:
        """Confirm a subscription; skip what is not a notification, and alarms of Cloud Eye that do not fire."""
        kind = message.fields["type"]
        if kind == _CONFIRMATION:
            return self._confirm(message)
        if kind != "Notification":
            return Skip("no notification", Answer(200))
        return self._notification(message).gate()

    def extract(self, message: Message) -> StopRequest:
        """Take the ids from the alarm of Cloud Eye, or from canonical data."""
        request = self._notification(message).extract()
        # A dry run may also be asked for beside the message, where nothing is signed: it can only prevent a stop.
        return request._replace(dry_run=request.dry_run or dry_run.requested(message.document, "body"))

    def _notification(self, message: Message) -> SmnMessage:
        fields = message.fields
        return SmnMessage(fields["message_id"], fields["message"], message.time, self._source, message.now)

    def _confirm(self, message: Message) -> Skip:
        url = message.fields["subscribe_url"]
        if not fetch.is_at(url, self._settings.smn_confirm_hosts):
            raise CallerForbidden("The host of the subscription must be one of AUTOSTOP_SMN_CONFIRM_HOSTS.")
        status, _ = self._get(url, message.until - time.monotonic())
        if not 200 <= status < 300:
            cause = Cause("confirming the subscription", host_of(url), status, None)
            raise ProducerUnreachable(f"The subscription could not be confirmed (HTTP {status}).", cause=cause)
        _LOG.info("subscription confirmed", extra={"topic_urn": message.fields["topic_urn"]})
        return Skip("subscription confirmed", Answer(200))


def _fields(document: Mapping[str, object], headers: Mapping[str, str]) -> Mapping[str, str]:
    fields = {name: text(document, name) for name in (*_TEXTS, "subject", "subscribe_url")}
    no_text = document.get("subject") is not None and not isinstance(document["subject"], str)
    if no_text or not all(fields[name] for name in _TEXTS) or document.get("signature_version") != "v1":
        raise Unauthenticated("The message must have all signed fields, and signature_version v1.")
    if any(set(fields[name]) & _BREAKS for name in _ONE_LINE):
        # The signed text has a line for each: with a line break in one, another message could have the same text.
        raise Unauthenticated("Signed fields must not have line breaks.")
    for header, name in _HEADERS.items():
        # Headers are not signed, but must agree with the body.
        if headers.get(header, fields[name]) != fields[name]:
            raise Unauthenticated("Headers and body must agree.")
    return fields


def _time(fields: Mapping[str, str], now: datetime) -> datetime:
    try:
        time = rfc3339.parse(fields["timestamp"])
    except ValueError:
        raise Unauthenticated("The time of the message must be an RFC 3339 timestamp.") from None
    oldest = _OLDEST_CONFIRMATION if fields["type"] == _CONFIRMATION else _OLDEST
    if not now - oldest <= time <= now + _FUTURE:
        raise Unauthenticated("The message must not be too old, nor from the future.")
    return time


producer = Smn
