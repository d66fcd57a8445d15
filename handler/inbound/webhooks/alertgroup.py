"""A group of alerts as Alertmanager sends it, and Grafana too: each alert is looked at by itself."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from handler.errors import BadEvent, Violation
from handler.inbound.webhooks.fields import LONGEST_REASON, cut, json_object, member, text
from handler.inbound.webhooks.model import Nothing

_LOG = logging.getLogger(__name__)

_MOST_FLAWS = 50


@dataclass(frozen=True, slots=True)
class Alert:
    """One firing alert that names a server.

    Attributes:
        at: where its id stands, as a dotted path.
        server_id: what stands there.
        fingerprint, starts_at: its identity, as its producer writes them.
        name, summary: for people.
    """

    at: str
    server_id: object
    fingerprint: str
    starts_at: str
    name: str
    summary: str


@dataclass(frozen=True, slots=True)
class Group:
    """What one notification says.

    Attributes:
        key: what the producer calls the group.
        why: why it was sent, as newer versions say; else empty.
        alerts: those that fire and name a server.
        cut_off: how many alerts the producer left out.
    """

    key: str
    why: str
    alerts: tuple[Alert, ...]
    cut_off: int

    def gate(self) -> Nothing | None:
        """Say whether there is anything to act on; None if there is."""
        if self.cut_off:
            _LOG.warning("the producer left alerts out; raise its limit", extra={"left_out": self.cut_off})
        return None if self.alerts else Nothing("no alert fires that names a server")

    def identity(self) -> tuple[str, ...]:
        """What tells this notification from others, as far as its body does; the order of the alerts is no matter."""
        pairs = sorted((alert.fingerprint, alert.starts_at) for alert in self.alerts)
        return (self.key, self.why, *(part for pair in pairs for part in pair))

    def reason(self, producer: str) -> str | None:
        """Which alarms fire, and what the first says of itself."""
        names = ", ".join(dict.fromkeys(alert.name for alert in self.alerts if alert.name))
        summary = next((alert.summary for alert in self.alerts if alert.summary), "")
        return cut(": ".join(part for part in (f"{producer} alarm {names}".strip(), summary) if part), LONGEST_REASON)


def read_group(body: bytes, label: str) -> Group:
    """Read a notification.

    Args:
        label: name of the label that holds the server's id.

    Raises:
        BadEvent: it is malformed, with every flaw.
    """
    document = json_object(body)
    alerts = document.get("alerts")
    if not isinstance(alerts, list):
        raise BadEvent(Violation("alerts", "is no array"))
    violations: list[Violation] = []
    found = list(_firing(alerts, label, violations))
    if violations:
        raise BadEvent(*violations[:_MOST_FLAWS])
    left_out = document.get("truncatedAlerts")
    return Group(
        key=text(document, "groupKey"),
        why=text(document, "notification_reason"),
        alerts=tuple(found),
        cut_off=left_out if isinstance(left_out, int) else 0,
    )


def _firing(alerts: Iterable[object], label: str, violations: list[Violation]) -> Iterable[Alert]:
    for index, alert in enumerate(alerts):
        at = f"alerts[{index}]"
        if not isinstance(alert, dict):
            violations.append(Violation(at, "is no object"))
        elif alert.get("status") == "firing":
            # What has another state, or one that nobody knows yet, is not even read.
            labels = alert.get("labels")
            if not isinstance(labels, dict):
                violations.append(Violation(f"{at}.labels", "is no object"))
            elif labels.get(label) not in (None, ""):
                yield _alert(f"{at}.labels.{label}", labels[label], alert, labels)


def _alert(at: str, server_id: object, alert: Mapping[str, object], labels: Mapping[str, object]) -> Alert:
    annotations = member(alert, "annotations")
    return Alert(
        at=at,
        server_id=server_id,
        # Without a fingerprint the labels themselves say which alert it is: that is what it is made of.
        fingerprint=text(alert, "fingerprint") or repr(sorted(labels.items())),
        starts_at=text(alert, "startsAt"),
        name=text(labels, "alertname"),
        summary=text(annotations, "summary"),
    )
