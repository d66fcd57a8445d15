"""The span of one event, and the spans of its servers."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer, get_current_span, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from handler.keep.model import KeepRequest, KeepResult
from handler.stop.model import ServerResult, StopRequest
from handler.telemetry.instruments import Attributes, Key


class EventSpan:
    """An event that is being handled; its cloud calls come from several threads.

    Attributes:
        context: makes spans its children.
        outcome, reason: labels of its metrics.
    """

    def __init__(self, tracer: Tracer, request: StopRequest | KeepRequest, type_: str) -> None:
        self.request = request
        self.type = type_
        self.began = time.monotonic()
        self.outcome = "unhandled"
        self.reason: str | None = None
        carried = {"traceparent": request.traceparent or "", "tracestate": request.tracestate or ""}
        self.span = tracer.start_span(
            f"CloudEvents Process {type_}",
            TraceContextTextMapPropagator().extract(carried, Context()),
            SpanKind.CONSUMER,
            {
                "cloudevents.event_id": request.id,
                "cloudevents.event_source": request.source,
                "cloudevents.event_spec_version": "1.0",
                "cloudevents.event_type": request.type,
            },
        )
        self.context = set_span_in_context(self.span, Context())
        self._tracer = tracer
        self._began_ns = time.time_ns()
        self._lock = threading.Lock()
        self._servers: dict[str, Context] = {}
        self._ended = False

    def server(self, id_: str) -> Context:
        """Return the context of a server's span, which begins with the first call about it."""
        with self._lock:
            if self._ended:
                return self.context
            return self._opened(id_, None)

    def result(self, result: ServerResult | KeepResult) -> None:
        """End the span of a server with its result."""
        with self._lock:
            # A server that was only read in a list has no call of its own.
            span = get_current_span(self._opened(result.id, self._began_ns))
            del self._servers[result.id]
        attributes: dict[str, AttributeValue | None] = {
            Key.OUTCOME: result.outcome.value,
            Key.REASON: result.reason.value,
            "autostop.server.vm_state": result.vm_state,
            "autostop.server.task_state": result.task_state,
            "autostop.cloud.request_id": result.request_id,
            "autostop.cloud.job_id": result.job_id if isinstance(result, ServerResult) else None,
        }
        span.set_attributes({name: value for name, value in attributes.items() if value is not None})
        if result.outcome.value == "failed":
            span.set_attribute(Key.ERROR, result.reason.value)
            span.set_status(Status(StatusCode.ERROR))
        span.end()

    def end(self, error: str | None = None) -> Attributes:
        """End all spans of it.

        Args:
            error: name of the error after which the event is sent again, or None.

        Returns:
            The labels of its metrics.
        """
        with self._lock:
            self._ended = True
            left = list(self._servers.values())
            self._servers.clear()
        for context in left:
            get_current_span(context).end()
        if error is not None:
            self.outcome, self.reason = "unhandled", None
        labels: Attributes = {Key.TYPE: self.type, Key.EVENT_OUTCOME: self.outcome}
        if self.reason is not None:
            labels[Key.EVENT_REASON] = self.reason
        if error is not None:
            labels[Key.ERROR] = error
        self.span.set_attributes({name: value for name, value in labels.items() if name != Key.TYPE})
        if error is not None or self.outcome == "failed":
            self.span.set_status(Status(StatusCode.ERROR))
        self.span.end()
        return labels

    def _opened(self, id_: str, began: int | None) -> Context:
        if id_ not in self._servers:
            span = self._tracer.start_span(
                "keep server" if isinstance(self.request, KeepRequest) else "stop server",
                self.context,
                attributes={"autostop.server.id": id_},
                start_time=began,
            )
            self._servers[id_] = set_span_in_context(span, Context())
        return self._servers[id_]


_CURRENT: ContextVar[EventSpan | None] = ContextVar("current", default=None)


def current() -> EventSpan | None:
    """Return the event that is current in this thread."""
    return _CURRENT.get()


@contextmanager
def use_event_span(event_span: EventSpan | None) -> Iterator[None]:
    """Make an event current in this thread in a `with` block."""
    token = _CURRENT.set(event_span)
    try:
        yield
    finally:
        _CURRENT.reset(token)
