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

from opentelemetry.metrics import CallbackOptions, Meter, Observation
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
        bounds: of the buckets of a histogram.
    """

    name: str
    kind: str
    unit: str
    meaning: str
    always: tuple[Key, ...]
    sometimes: tuple[Key, ...] = ()
    bounds: tuple[float, ...] = ()


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
    bounds=_LONG,
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
    _SHORT,
)
REQUESTS = Metric(
    "http.server.request.duration",
    "histogram",
    "s",
    "Duration of requests to the function.",
    (Key.METHOD, Key.SCHEME, Key.STATUS),
    (Key.ROUTE, Key.ERROR),
    _SHORT,
)
METRICS = (EVENTS, LAST_EVENT, EVENT_DURATION, SERVERS, LAST_SERVER, ANNOUNCEMENTS, CALLS, REQUESTS)
"""All of them."""
# A gauge beside a counter: this does not show that nothing arrives any more, and one that begins at 1 no increase.
_LAST = {EVENTS: LAST_EVENT, SERVERS: LAST_SERVER}


class Instruments:
    """The instruments of all metrics.

    Args:
        now: seconds since 1970.
    """

    def __init__(self, meter: Meter, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._counters = {
            metric: meter.create_counter(metric.name, metric.unit, metric.meaning)
            for metric in METRICS
            if metric.kind == "counter"
        }
        self._histograms = {
            metric: meter.create_histogram(
                metric.name, metric.unit, metric.meaning, explicit_bucket_boundaries_advisory=list(metric.bounds)
            )
            for metric in METRICS
            if metric.kind == "histogram"
        }
        self._lock = threading.Lock()
        self._last: dict[Metric, dict[frozenset[tuple[str, AttributeValue]], float]] = {}
        for metric in _LAST.values():
            self._last[metric] = {}
            callback = partial(self._last_times, metric)
            meter.create_observable_gauge(metric.name, [callback], metric.unit, metric.meaning)

    def count(self, metric: Metric, attributes: Attributes) -> None:
        """Add one to a counter, and set the gauge beside it to the present time."""
        self._counters[metric].add(1, attributes)
        if metric in _LAST:
            with self._lock:
                self._last[_LAST[metric]][frozenset(attributes.items())] = self._now()

    def record(self, metric: Metric, attributes: Attributes, seconds: float) -> None:
        """Record a duration in a histogram, with those attributes that are its labels."""
        labels: Attributes = {key: attributes[key] for key in (*metric.always, *metric.sometimes) if key in attributes}
        self._histograms[metric].record(seconds, labels)

    def _last_times(self, metric: Metric, _: CallbackOptions) -> Iterable[Observation]:
        with self._lock:
            known = list(self._last[metric].items())
        return [Observation(at, dict(attributes)) for attributes, at in known]
