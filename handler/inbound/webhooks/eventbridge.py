"""AWS EventBridge API destinations: CloudWatch alarms in EventBridge's envelope, and what a rule says by itself.

The envelope has an id and a time, and redeliveries, for up to a day, repeat both. A rule's constant input has neither
unless its author puts them there (`{"id": "<id>", "time": "<time>", "server_ids": [...]}` in an input transformer):
without an id the same words within the same hour are one event. Schedules run at full hours or less often than hourly,
redeliveries begin at once, so that tells most of them apart; and the two of a wrong guess have the same content.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from handler import rfc3339
from handler.errors import BadEvent, Violation
from handler.inbound.extract import STOP_REQUESTED
from handler.inbound.webhooks import signatures
from handler.inbound.webhooks.fields import (
    LONGEST_REASON,
    both,
    canonical_request,
    cut,
    identity,
    is_canonical,
    json_object,
    member,
    server_ids,
    text,
)
from handler.inbound.webhooks.model import Alarm, Nothing, WebhookRequest
from handler.settings.receive_webhook import WebhookSettings
from handler.stop.model import StopRequest

_ALARM = "CloudWatch Alarm State Change"


@dataclass(frozen=True, slots=True)
class Sent:
    """A document, its exact bytes, and when it came."""

    document: Mapping[str, object]
    body: bytes
    now: datetime


class EventBridge(Alarm):
    """Proves itself by the token of the connection. EventBridge waits 5 seconds."""

    patience = 3.5

    def __init__(self, settings: WebhookSettings, source: str) -> None:
        self._token = settings.eventbridge_token
        self._dimension = settings.id_label
        self._source = source

    def verify(self, delivery: WebhookRequest) -> Sent:
        """Bearer token, or basic auth's password."""
        signatures.bearer_or_password(delivery.headers, self._token)
        return Sent(json_object(delivery.body), delivery.body, delivery.now)

    def gate(self, message: Sent) -> Nothing | None:
        """An alarm must be in the state `ALARM` and name a server; constant input always acts."""
        document = message.document
        if not _is_envelope(document):
            return None if is_canonical(document) else Nothing("neither an envelope nor a stop request")
        if document.get("detail-type") != _ALARM:
            return Nothing("an event of another kind")
        if member(document, "detail", "state").get("value") != "ALARM":
            return Nothing("the alarm does not fire")
        return None if list(self._instances(document)) else Nothing("the alarm names no server")

    def extract(self, message: Sent) -> StopRequest:
        """The dimension of the alarm's metrics, or the canonical data of a constant input."""
        document = message.document
        id_ = text(document, "id")
        if not _is_envelope(document):
            hour = message.now.strftime("%Y-%m-%dT%H")
            made = identity(id_) if id_ else identity("eventbridge", hour, message.body.hex())
            request, time = both(
                lambda: canonical_request(document, id_=made, source=self._source, requested_by="EventBridge"),
                lambda: _time(document),
            )
            return replace(request, time=time)
        ids, time = both(lambda: server_ids(self._instances(document)), lambda: _time(document))
        name, why = text(member(document, "detail"), "alarmName"), text(member(document, "detail", "state"), "reason")
        return StopRequest(
            source=self._source,
            id=identity(id_) if id_ else identity("eventbridge", message.body.hex()),
            type=STOP_REQUESTED,
            server_ids=ids,
            time=time,
            reason=cut(": ".join(part for part in (f"CloudWatch alarm {name}".strip(), why) if part), LONGEST_REASON),
            requested_by="EventBridge",
        )

    def _instances(self, document: Mapping[str, object]) -> Iterator[tuple[str, object]]:
        metrics = member(document, "detail", "configuration").get("metrics")
        for index, metric in enumerate(metrics if isinstance(metrics, list) else []):
            dimensions = member(metric if isinstance(metric, dict) else {}, "metricStat", "metric", "dimensions")
            for name in (self._dimension, "InstanceId"):
                if dimensions.get(name) not in (None, ""):
                    yield f"detail.configuration.metrics[{index}].metricStat.metric.dimensions.{name}", dimensions[name]
                    break


def _is_envelope(document: Mapping[str, object]) -> bool:
    return "detail-type" in document


def _time(document: Mapping[str, object]) -> datetime | None:
    if document.get("time") is None:
        return None
    try:
        return rfc3339.parse(text(document, "time"))
    except ValueError:
        raise BadEvent(Violation("time", "is not an RFC 3339 timestamp with a zone")) from None


producer = EventBridge
