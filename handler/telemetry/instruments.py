"""The metrics by name, unit and label.

Names and labels are those of OpenTelemetry's semantic conventions (HTTP, CloudEvents) where these have one, else they
begin with `autostop.`. No label has the id of a server or of an event: each would make a time series of its own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

from opentelemetry.metrics import CallbackOptions, Histogram, Meter, Observation
from opentelemetry.util.types import AttributeValue

_SHORT = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_LONG = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 45.0, 60.0, 120.0, 300.0)

Attributes = dict[str, AttributeValue]


class Key(StrEnum):
    """The labels."""

    METHOD = "http.request.method"
    STATUS = "http.response.status_code"
    ROUTE = "http.route"
    SCHEME = "url.scheme"
    ADDRESS = "server.address"
    PORT = "server.port"
    ERROR = "error.type"
    PEER = "autostop.peer"
    TYPE = "cloudevents.event_type"
    EVENT_OUTCOME = "autostop.event.outcome"
    EVENT_REASON = "autostop.event.reason"
    OUTCOME = "autostop.server.outcome"
    REASON = "autostop.server.reason"
    API = "autostop.api"
    DRY_RUN = "autostop.dry_run"
    ANNOUNCEMENT = "autostop.announcement.outcome"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric.

    Attributes:
        kind: `counter`, `histogram` or `gauge`.
        unit: of UCUM; in braces an annotation.
        always, sometimes: its labels.
    """

    name: str
    kind: str
    unit: str
    meaning: str
    always: tuple[Key, ...]
    sometimes: tuple[Key, ...] = ()


EVENTS = Metric(
    "autostop.events",
    "counter",
    "{event}",
    "Events that were handled, ignored, or must be sent again.",
    (Key.TYPE, Key.EVENT_OUTCOME),
    (Key.EVENT_REASON, Key.ERROR),
)
LAST_EVENT = Metric(
    "autostop.event.last_time",
    "gauge",
    "s",
    "When the handling of the last such event ended, in seconds since 1970.",
    EVENTS.always,
    EVENTS.sometimes,
)
EVENT_DURATION = Metric(
    "autostop.event.duration",
    "histogram",
    "s",
    "Duration of the handling of an event, with the delivery of the result.",
    (Key.TYPE, Key.EVENT_OUTCOME),
)
SERVERS = Metric(
    "autostop.servers",
    "counter",
    "{server}",
    "Results of servers.",
    (Key.OUTCOME, Key.REASON),
)
LAST_SERVER = Metric(
    "autostop.server.last_time",
    "gauge",
    "s",
    "When the last such result was made, in seconds since 1970.",
    SERVERS.always,
)
ANNOUNCEMENTS = Metric(
    "autostop.announcements",
    "counter",
    "{event}",
    "Announcements of stops that were delivered, or were not.",
    (Key.ANNOUNCEMENT,),
)
CALLS = Metric(
    "http.client.request.duration",
    "histogram",
    "s",
    "Duration of calls to the cloud and to the sink.",
    (Key.METHOD, Key.ADDRESS, Key.PORT, Key.PEER),
    (Key.STATUS, Key.ERROR),
)
REQUESTS = Metric(
    "http.server.request.duration",
    "histogram",
    "s",
    "Duration of requests to the function.",
    (Key.METHOD, Key.SCHEME, Key.STATUS),
    (Key.ROUTE, Key.ERROR),
)
METRICS = (EVENTS, LAST_EVENT, EVENT_DURATION, SERVERS, LAST_SERVER, ANNOUNCEMENTS, CALLS, REQUESTS)
"""All of them."""


class Instruments:
    """The instruments of all metrics.

    Args:
        now: seconds since 1970.
    """

    def __init__(self, meter: Meter, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._events = meter.create_counter(EVENTS.name, EVENTS.unit, EVENTS.meaning)
        self._servers = meter.create_counter(SERVERS.name, SERVERS.unit, SERVERS.meaning)
        self._announcements = meter.create_counter(ANNOUNCEMENTS.name, ANNOUNCEMENTS.unit, ANNOUNCEMENTS.meaning)
        self._duration = _histogram(meter, EVENT_DURATION, _LONG)
        self._calls = _histogram(meter, CALLS, _SHORT)
        self._requests = _histogram(meter, REQUESTS, _SHORT)
        self._lock = threading.Lock()
        # A gauge: a counter does not show that nothing arrives any more, and one that begins at 1 shows no increase.
        self._last_events: dict[frozenset[tuple[str, AttributeValue]], float] = {}
        self._last_servers: dict[frozenset[tuple[str, AttributeValue]], float] = {}
        for metric, last in ((LAST_EVENT, self._last_events), (LAST_SERVER, self._last_servers)):
            callback = partial(self._last_times, last)
            meter.create_observable_gauge(metric.name, [callback], metric.unit, metric.meaning)

    def event(self, attributes: Attributes, seconds: float | None = None) -> None:
        """Count an event, and how long it took if it was handled."""
        self._events.add(1, attributes)
        with self._lock:
            self._last_events[frozenset(attributes.items())] = self._now()
        if seconds is not None:
            self._duration.record(seconds, {key: attributes[key] for key in EVENT_DURATION.always})

    def server(self, attributes: Attributes) -> None:
        """Count a server."""
        self._servers.add(1, attributes)
        with self._lock:
            self._last_servers[frozenset(attributes.items())] = self._now()

    def announcement(self, attributes: Attributes) -> None:
        """Count an announcement."""
        self._announcements.add(1, attributes)

    def call(self, attributes: Attributes, seconds: float) -> None:
        """Record the duration of a call of ours."""
        self._calls.record(seconds, attributes)

    def request(self, attributes: Attributes, seconds: float) -> None:
        """Record the duration of a request to us."""
        self._requests.record(seconds, attributes)

    def _last_times(
        self, last: dict[frozenset[tuple[str, AttributeValue]], float], _: CallbackOptions
    ) -> Iterable[Observation]:
        with self._lock:
            known = list(last.items())
        return [Observation(at, dict(attributes)) for attributes, at in known]


def _histogram(meter: Meter, metric: Metric, bounds: tuple[float, ...]) -> Histogram:
    return meter.create_histogram(
        metric.name, metric.unit, metric.meaning, explicit_bucket_boundaries_advisory=list(bounds)
    )
