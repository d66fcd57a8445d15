"""Groups of alerts as Alertmanager and Grafana send them; each alert is judged by itself."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from handler.errors import BadEvent, Violation
from handler.event_types import STOP_REQUESTED
from handler.inbound import dry_run
from handler.inbound.http.request import HttpRequest
from handler.inbound.skip import Skip
from handler.inbound.webhooks.fields import (
    attribute,
    both,
    cut,
    identity,
    json_body,
    member,
    reason,
    server_ids,
    start_time,
    text,
)
from handler.inbound.webhooks.model import Alarm
from handler.stop.model import StopRequest

_LOG = logging.getLogger(__name__)

_MOST_VIOLATIONS = 50
_LONGEST_NAME = 200
# Grafana's own alerts about a rule that it could not evaluate. They have the labels of the rule.
_NO_DATA = {"datasourcenodata", "datasourceerror"}
# Why an alert of Grafana has its state, if it is not because of what was measured: `NoData`, `Error`, `KeepLast`.
_MISSING_DATA = "the alarm has no data"
_STATE_REASON = "grafana_state_reason"


@dataclass(frozen=True, slots=True)
class Alert:
    """One firing alert that names servers; fingerprint and start are its identity, name and summary are for people."""

    server_ids: tuple[str, ...]
    fingerprint: str
    starts_at: str
    since: datetime | None
    name: str
    summary: str


@dataclass(frozen=True, slots=True)
class Group:
    """One notification.

    Attributes:
        document: all of it.
        alerts: those that fire and name a server.
        missing_data: whether others fire only because data is missing.
        time: when it was sent, if that is signed. It distinguishes a repeat from a redelivery.
    """

    document: Mapping[str, object]
    alerts: tuple[Alert, ...]
    missing_data: bool
    time: datetime | None

    @property
    def left_out(self) -> int:
        """How many alerts the producer left out."""
        count = self.document.get("truncatedAlerts")
        return count if isinstance(count, int) and not isinstance(count, bool) and count > 0 else 0


class AlertGroups(Alarm[Group]):
    """The common part of both producers: each alert that fires and has the label is acted on."""

    name: ClassVar[str]

    def gate(self, message: Group) -> Skip | None:
        """Skip a group in which no alert fires and names a server."""
        if message.left_out:
            _LOG.warning("the producer left alerts out; raise its limit", extra={"left_out": message.left_out})
        if message.alerts:
            return None
        return Skip(_MISSING_DATA if message.missing_data else "no alert fires that names a server")

    def extract(self, message: Group) -> StopRequest:
        """Take the ids from the label of each alert."""
        document, alerts = message.document, message.alerts
        # The same whatever the order of the alerts. Only newer versions have the reason of the notification.
        pairs = sorted((alert.fingerprint, alert.starts_at) for alert in alerts)
        group = (text(document, "groupKey"), text(document, "notification_reason"))
        sent = (str(int(message.time.timestamp())),) if message.time else ()
        names = ", ".join(dict.fromkeys(alert.name for alert in alerts if alert.name))
        summary = next((alert.summary for alert in alerts if alert.summary), "")
        return StopRequest(
            source=self._source,
            id=identity(*group, *(part for pair in pairs for part in pair), *sent),
            type=STOP_REQUESTED,
            server_ids=tuple(dict.fromkeys(id_ for alert in alerts for id_ in alert.server_ids)),
            time=message.time,
            dry_run=dry_run.requested(document, "body"),
            reason=reason(f"{self.name} alarm {names}", summary),
            requested_by=self.name,
            correlationid=attribute(text(document, "groupKey")),
            since=_since(alerts) or None,
            left_out=message.left_out,
        )

    def _read(self, delivery: HttpRequest, now: datetime, time: datetime | None = None) -> Group:
        """Read a notification, whose time is that of its signature.

        Alerts that are malformed are left out, with a line in the log, unless there are no others.

        Raises:
            BadEvent: it is malformed, or all alerts are that could be acted on; with every violation.
        """
        document = json_body(delivery)
        entries = document.get("alerts")
        if not isinstance(entries, list):
            raise BadEvent(Violation("alerts", "must be a JSON array"))
        firing = [(f"alerts[{index}]", entry) for index, entry in enumerate(entries) if _may_fire(document, entry)]
        alerts: list[Alert] = []
        violations: list[Violation] = []
        missing_data = False
        for at, entry in firing:
            if _lacks_data(entry):
                missing_data = True
                _LOG.info("alert ignored", extra={**_about(entry), "detail": _MISSING_DATA})
                continue
            try:
                alerts += _alerts(at, entry, self._settings.id_label, now)
            except BadEvent as error:
                violations += error.violations
                _LOG.warning("alert malformed", extra={**_about(entry), "detail": str(error)})
        if violations and not alerts:
            raise BadEvent(*violations[:_MOST_VIOLATIONS])
        return Group(document, tuple(alerts), missing_data, time)


def _since(alerts: Iterable[Alert]) -> Mapping[str, datetime]:
    """Return when the last alert about each server began: any of them is a reason to stop it.

    A server with an alert that has no start is left out.
    """
    began: dict[str, datetime | None] = {}
    for alert in alerts:
        for id_ in alert.server_ids:
            before = began.get(id_, alert.since)
            began[id_] = None if before is None or alert.since is None else max(before, alert.since)
    return {id_: since for id_, since in began.items() if since is not None}


def _about(entry: object) -> dict[str, str | None]:
    """Return the keys of a log line about one alert."""
    alert = entry if isinstance(entry, dict) else {}
    return {
        "alertname": cut(text(member(alert, "labels"), "alertname"), _LONGEST_NAME),
        "fingerprint": cut(text(alert, "fingerprint"), _LONGEST_NAME),
    }


def _may_fire(document: Mapping[str, object], entry: object) -> bool:
    """Return whether an alert fires, by its own state; one that is not an object may."""
    # What has another state, or an unknown one, is not read. A group that fires only in part has the state `firing`.
    return document.get("status", "firing") == "firing" and (
        not isinstance(entry, dict) or entry.get("status") == "firing"
    )


def _lacks_data(entry: object) -> bool:
    """Return whether an alert fires because Grafana had no data, which is no measurement of the server."""
    if not isinstance(entry, dict):
        return False
    labels, annotations = member(entry, "labels"), member(entry, "annotations")
    return text(labels, "alertname").strip().casefold() in _NO_DATA or any(
        entries.get(_STATE_REASON) not in (None, "") for entries in (labels, annotations)
    )


def _alerts(at: str, entry: object, label: str, now: datetime) -> Iterable[Alert]:
    """Read a firing alert; nothing if it names no server."""
    if not isinstance(entry, dict):
        raise BadEvent(Violation(at, "must be a JSON object"))
    labels = entry.get("labels")
    if not isinstance(labels, dict):
        raise BadEvent(Violation(f"{at}.labels", "must be a JSON object"))
    if labels.get(label) in (None, ""):
        return []
    ids, since = both(
        lambda: server_ids([(f"{at}.labels.{label}", labels[label])]),
        lambda: start_time(entry.get("startsAt"), f"{at}.startsAt", now),
    )
    return [
        Alert(
            server_ids=ids,
            # A fingerprint is made of the labels, which are used where it is missing.
            fingerprint=text(entry, "fingerprint") or repr(sorted(labels.items())),
            starts_at=text(entry, "startsAt"),
            since=since,
            name=text(labels, "alertname"),
            summary=text(member(entry, "annotations"), "summary"),
        )
    ]
