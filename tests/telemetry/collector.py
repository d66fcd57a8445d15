"""An OTLP collector over HTTP, which decodes what OpenTelemetry exports."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.support.http_server import Handler, HttpServer


class Span(NamedTuple):
    """One span; ids in hexadecimal."""

    name: str
    kind: int
    trace: str
    id: str
    parent: str
    attributes: Mapping[str, Any]
    error: bool
    began: int
    ended: int


@dataclass(frozen=True)
class Point:
    """The newest state of one series of a metric."""

    metric: str
    kind: str
    unit: str
    attributes: Mapping[str, Any]
    value: float
    count: int


class Collector(HttpServer):
    """Answers 200 to every export.

    Attributes:
        raw: the bodies of all exports.
        headers: of all exports.
        resources: the resource attributes of all exports.
        points: the series of the last export of metrics.
        url: for `OTEL_EXPORTER_OTLP_ENDPOINT`.
    """

    def __init__(self) -> None:
        self.raw: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.resources: list[dict[str, Any]] = []
        self.points: list[Point] = []
        self._spans: list[Span] = []
        self._lock = threading.Lock()
        collector = self

        class Answers(Handler):
            def do_POST(self) -> None:
                """Store the export, then answer."""
                body = self.read_body()
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                collector._store(self.path, dict(self.headers.items()), body)
                self.reply(200)

        super().__init__(Answers)
        self.url = self.origin

    @property
    def spans(self) -> list[Span]:
        """All spans so far, in the order of their beginning."""
        return sorted(self._spans, key=lambda span: span.began)

    def of(self, metric: str) -> list[Point]:
        """The series of one metric."""
        return [point for point in self.points if point.metric == metric]

    def _store(self, path: str, headers: dict[str, str], body: bytes) -> None:
        with self._lock:
            self.raw.append(body)
            self.headers.append(headers)
            if path == "/v1/traces":
                for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                    self.resources.append(_attributes(resource.resource))
                    self._spans += [_span(span) for scope in resource.scope_spans for span in scope.spans]
            else:
                assert path == "/v1/metrics"
                self.points = []
                for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                    self.resources.append(_attributes(resource.resource))
                    for scope in resource.scope_metrics:
                        self.points += [point for metric in scope.metrics for point in _points(metric)]


def _attributes(message: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in message.attributes}


def _span(span: Any) -> Span:
    return Span(
        span.name,
        span.kind,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        _attributes(span),
        span.status.code == 2,
        span.start_time_unix_nano,
        span.end_time_unix_nano,
    )


def _points(metric: Any) -> Iterator[Point]:
    kind = metric.WhichOneof("data")
    for point in getattr(metric, kind).data_points:
        value, count = (point.sum, point.count) if kind == "histogram" else (point.as_double or point.as_int, 0)
        yield Point(metric.name, kind, metric.unit, _attributes(point), value, count)
