"""AWS EventBridge API destinations: CloudWatch alarms in EventBridge's envelope, and constant input of rules.

The envelope has an id and a time, and redeliveries, for up to a day, repeat both. A rule's constant input has neither
unless its author puts them there (`{"id": "<id>", "time": "<time>", "server_ids": [...]}` in an input transformer):
without an id the same bytes within the same hour are one event. Schedules run at full hours or less often than hourly,
redeliveries begin at once, which distinguishes most of them; two that are confused have the same content.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from handler import rfc3339
from handler.errors import BadEvent, Violation
from handler.event_types import STOP_REQUESTED
from handler.inbound import dry_run
from handler.inbound.cloudevents import strict_json
from handler.inbound.extract.canonical import is_canonical
from handler.inbound.http.request import HttpRequest
from handler.inbound.skip import Skip
from handler.inbound.webhooks import signatures
from handler.inbound.webhooks.fields import (
    agreeing_ids,
    both,
    canonical_request,
    identity,
    json_body,
    member,
    reason,
    start_time,
    text,
)
from handler.inbound.webhooks.model import Alarm, Notification
from handler.stop.model import StopRequest

_ALARM = "CloudWatch Alarm State Change"


class EventBridge(Alarm[Notification]):
    """Authenticated by the token of the connection. EventBridge waits 5 seconds."""

    patience = 3.5

    def verify(self, delivery: HttpRequest, now: datetime) -> Notification:
        """Check the bearer token, or the password of basic authentication."""
        signatures.bearer_or_password(delivery.headers, self._settings.eventbridge_token)
        return Notification(json_body(delivery), now, delivery.body)

    def gate(self, message: Notification) -> Skip | None:
        """Skip alarms in other states than `ALARM` or without a server; constant input is always acted on."""
        document = message.document
        if not _is_envelope(document):
            return None if is_canonical(document) else Skip("neither an envelope nor a stop request")
        if document.get("detail-type") != _ALARM:
            return Skip("an event of another kind")
        if member(document, "detail", "state").get("value") != "ALARM":
            return Skip("the alarm does not fire")
        if _lacks_data(member(document, "detail", "state")):
            return Skip("the alarm has no data")
        return None if self._instances(document) else Skip("the alarm names no server")

    def extract(self, message: Notification) -> StopRequest:
        """Take the ids from the dimension of the alarm's metrics, or from the canonical data of a constant input."""
        document = message.document
        id_ = text(document, "id")
        if not _is_envelope(document):
            hour = message.now.strftime("%Y-%m-%dT%H")
            made = identity(id_) if id_ else identity("eventbridge", hour, message.body.hex())
            request, time = both(
                lambda: canonical_request(
                    document, id_=made, source=self._source, requested_by="EventBridge", now=message.now
                ),
                lambda: _time(document),
            )
            return request._replace(time=time)
        state = member(document, "detail", "state")
        found = self._instances(document)
        # Of several servers in a calculation, or in several metrics, it is not clear which is meant.
        (ids, time), since = both(
            lambda: both(
                lambda: agreeing_ids(found, "detail.configuration.metrics", "must be about one server"),
                lambda: _time(document),
            ),
            lambda: start_time(state.get("timestamp"), "detail.state.timestamp", message.now),
        )
        return StopRequest(
            source=self._source,
            id=identity(id_) if id_ else identity("eventbridge", message.body.hex()),
            type=STOP_REQUESTED,
            server_ids=ids,
            time=time,
            dry_run=dry_run.requested(document, "body"),
            since=since,
            reason=reason(f"CloudWatch alarm {text(member(document, 'detail'), 'alarmName')}", text(state, "reason")),
            requested_by="EventBridge",
        )

    def _instances(self, document: Mapping[str, object]) -> list[tuple[str, object]]:
        """Return the dimension with the server of each watched metric that has one, with its place."""
        found = []
        for at, metric in _watched(document):
            dimensions = member(metric, "metricStat", "metric", "dimensions")
            name = next(
                (name for name in (self._settings.id_label, "InstanceId") if dimensions.get(name) not in (None, "")), ""
            )
            if name:
                found.append((f"{at}.metricStat.metric.dimensions.{name}", dimensions[name]))
        return found


def _watched(document: Mapping[str, object]) -> list[tuple[str, Mapping[str, object]]]:
    """Return the metrics that an alarm watches: all, if it watches something that is calculated of them.

    Those of AWS's own services are not among them: none is about a server of this cloud.
    """
    metrics = member(document, "detail", "configuration").get("metrics")
    found = [
        (f"detail.configuration.metrics[{index}]", metric)
        for index, metric in enumerate(metrics if isinstance(metrics, list) else [])
        if isinstance(metric, dict)
    ]
    watched = [(at, metric) for at, metric in found if metric.get("returnData") is not False]
    if not watched or any(not member(metric, "metricStat") for _, metric in watched):
        watched = found
    return [
        (at, metric)
        for at, metric in watched
        if not text(member(metric, "metricStat", "metric"), "namespace").startswith("AWS/")
    ]


def _lacks_data(state: Mapping[str, object]) -> bool:
    """Return whether an alarm fires because its data is missing, which a rule may treat as breaching."""
    if "no datapoints were received" in text(state, "reason"):
        return True
    data = strict_json.loads_text(text(state, "reasonData"))
    return isinstance(data, dict) and data.get("recentDatapoints") == []


def _is_envelope(document: Mapping[str, object]) -> bool:
    return "detail-type" in document


def _time(document: Mapping[str, object]) -> datetime | None:
    if document.get("time") is None:
        return None
    try:
        return rfc3339.parse(text(document, "time"))
    except ValueError:
        raise BadEvent(Violation("time", "must be an RFC 3339 timestamp with a zone")) from None


producer = EventBridge
