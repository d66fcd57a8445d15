"""Recording of spans and metrics."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import AbstractContextManager, contextmanager
from contextvars import copy_context
from functools import partial
from typing import Any

from opentelemetry.trace import format_span_id, format_trace_id

from handler import event_types
from handler.errors import RetryableError
from handler.http_client import HttpClient
from handler.keep.model import KeepReport, KeepRequest, KeepResult
from handler.stop.model import Report, ServerResult, StopRequest
from handler.telemetry.event_span import EventSpan, current, use_event_span
from handler.telemetry.http import MeasuredHttpClient, measured
from handler.telemetry.instruments import ANNOUNCEMENTS, EVENT_DURATION, EVENTS, SERVERS, Attributes, Key
from handler.telemetry.providers import Signals

# Labels for types that are chosen by senders: each would make a time series of its own.
_CLOUD_EYE = f"{event_types.CLOUD_EYE_PREFIX}*"
_OTHER = "other"


class OpenTelemetryObserver:
    """Records spans and metrics; the methods are those of `handler.telemetry.Telemetry`.

    Args:
        signals: returns where spans and metrics go.
        correlate: whether log lines about an event have its span.
        types: event types that become labels, beside those that are known without a setting.
    """

    def __init__(self, signals: Callable[[], Signals], *, correlate: bool, types: Iterable[str] = ()) -> None:
        self._signals = signals
        self._types = event_types.KNOWN.union(types)
        self._lock = threading.Lock()
        self._event_spans: dict[int, EventSpan] = {}
        self._named: dict[tuple[str, str], EventSpan] = {}
        if correlate:
            for handler in logging.getLogger("handler").handlers:
                handler.addFilter(self._correlated)

    def install(self, app: Any, routes: Iterable[str]) -> None:
        """Measure each request to a Flask application; these paths become labels."""
        app.wsgi_app = measured(app.wsgi_app, self._signals, frozenset(routes))

    def http_client(self, peer: str) -> Callable[..., HttpClient]:
        """Return a constructor of HTTP clients for `cloud` or `sink` whose calls are measured."""
        return partial(MeasuredHttpClient, self._signals, peer)

    def executor(self, executor: Executor) -> Executor:
        """Return the executor so that its calls belong to the event that is current where they are submitted."""
        return _ContextExecutor(executor)

    @contextmanager
    def events(self, requests: Sequence[StopRequest] | Sequence[KeepRequest]) -> Iterator[None]:
        """Observe the handling of the events of one HTTP request in a `with` block; what it raises is their error."""
        tracer, _ = self._signals()
        event_spans = [EventSpan(tracer, request, self._type(request.type)) for request in requests]
        with self._lock:
            self._event_spans |= {id(one.request): one for one in event_spans}
            self._named |= {
                (event_span.request.source, event_span.request.id): event_span for event_span in event_spans
            }
        error: str | None = None
        try:
            # Work for a whole batch belongs to none of its events.
            with use_event_span(event_spans[0] if len(event_spans) == 1 else None):
                yield
        except RetryableError as failure:
            error = failure.name
            raise
        except BaseException:
            error = "internal-error"
            raise
        finally:
            self._end(event_spans, error)

    def event(self, request: StopRequest | KeepRequest) -> AbstractContextManager[None]:
        """Make one of them current in this thread in a `with` block."""
        return use_event_span(self._event_spans.get(id(request)))

    def server(self, result: ServerResult | KeepResult) -> None:
        """Record the result of a server of the current event."""
        event_span = current()
        if event_span is not None:
            event_span.result(result)
        labels: Attributes = {Key.OUTCOME: result.outcome.value, Key.REASON: result.reason.value}
        self._signals().instruments.count(SERVERS, labels)

    def report(self, report: Report | KeepReport) -> None:
        """Record the result of the current event."""
        event_span = current()
        if event_span is not None:
            planned = isinstance(report, Report) and report.plan is not None
            done = "failed" if report.failed else "completed"
            event_span.outcome = "refused" if report.refusal else "planned" if planned else done
            event_span.reason = report.refusal.value if report.refusal else None
            if isinstance(report, Report) and report.notice_for and not report.refusal:
                # To distinguish a schedule that gives notice from the one that stops.
                event_span.reason = "notice"
            event_span.span.set_attributes({"autostop.api": report.api, "autostop.dry_run": report.dry_run})

    def announced(self, delivered: bool) -> None:
        """Whether the announcement of an event's stops was delivered."""
        self._signals().instruments.count(ANNOUNCEMENTS, {Key.ANNOUNCEMENT: "delivered" if delivered else "failed"})

    def ignored(self, type_: str, why: str) -> None:
        """Record an event that asked for nothing."""
        labels: Attributes = {Key.TYPE: self._type(type_), Key.EVENT_OUTCOME: "ignored", Key.EVENT_REASON: why}
        self._signals().instruments.count(EVENTS, labels)

    def _type(self, type_: str) -> str:
        """Return the label for an event type."""
        if type_ in self._types:
            return type_
        return _CLOUD_EYE if type_.startswith(event_types.CLOUD_EYE_PREFIX) else _OTHER

    def _end(self, event_spans: Sequence[EventSpan], error: str | None) -> None:
        for event_span in event_spans:
            labels, instruments = event_span.end(error), self._signals().instruments
            instruments.count(EVENTS, labels)
            instruments.record(EVENT_DURATION, labels, time.monotonic() - event_span.began)
        with self._lock:
            for event_span in event_spans:
                self._event_spans.pop(id(event_span.request), None)
                named = (event_span.request.source, event_span.request.id)
                if self._named.get(named) is event_span:
                    del self._named[named]

    def _correlated(self, record: logging.LogRecord) -> bool:
        event_span = self._named.get((record.__dict__.get("event_source", ""), record.__dict__.get("event_id", "")))
        if event_span is not None:
            context = event_span.span.get_span_context()
            if context.is_valid:
                record.__dict__["trace_id"] = format_trace_id(context.trace_id)
                record.__dict__["span_id"] = format_span_id(context.span_id)
        return True


class _ContextExecutor(Executor):
    """Submits calls together with the context in which they are submitted."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Submit a call."""
        return self._executor.submit(copy_context().run, fn, *args, **kwargs)
