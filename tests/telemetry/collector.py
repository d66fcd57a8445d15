"""A collector over real HTTP: takes what OpenTelemetry exports, and reads it as any other would."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.support.http_server import Handler, HttpServer


def _value(value: Any) -> Any:
    return getattr(value, value.WhichOneof("value"))


def attributes(pairs: Any) -> dict[str, Any]:
    """The attributes of a message as a dictionary."""
    return {pair.key: _value(pair.value) for pair in pairs}


@dataclass(frozen=True)
class Span:
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
    """Answers every export with one status, and keeps what it got."""

    def __init__(self, status: int = 200) -> None:
        self.raw: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.resources: list[dict[str, Any]] = []
        self._traces: list[ExportTraceServiceRequest] = []
        self._metrics: list[ExportMetricsServiceRequest] = []
        self._got = threading.Condition()
        collector = self

        class Answers(Handler):
            def do_POST(self) -> None:
                """Keep the export, then answer."""
                body = self.read_body()
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                collector._take(self.path, dict(self.headers.items()), body)
                self.reply(status)

        super().__init__(Answers)
        # For `OTEL_EXPORTER_OTLP_ENDPOINT`.
        self.url = self.origin

    @property
    def spans(self) -> list[Span]:
        """All spans so far, in the order of their beginning."""
        found = [
            Span(
                span.name,
                span.kind,
                span.trace_id.hex(),
                span.span_id.hex(),
                span.parent_span_id.hex(),
                attributes(span.attributes),
                span.status.code == 2,
                span.start_time_unix_nano,
                span.end_time_unix_nano,
            )
            for request in self._traces
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]
        return sorted(found, key=lambda span: span.began)

    @property
    def points(self) -> list[Point]:
        """The series of the last export."""
        if not self._metrics:
            return []
        found = []
        for resource in self._metrics[-1].resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    kind = metric.WhichOneof("data")
                    for point in getattr(metric, kind).data_points:
                        histogram = kind == "histogram"
                        value = point.sum if histogram else point.as_double or point.as_int
                        found.append(
                            Point(
                                metric.name,
                                kind,
                                metric.unit,
                                attributes(point.attributes),
                                value,
                                point.count if histogram else 0,
                            )
                        )
        return found

    def of(self, metric: str) -> list[Point]:
        """The series of one metric."""
        return [point for point in self.points if point.metric == metric]

    def wait(self, exports: int, seconds: float = 20.0) -> None:
        """Wait for so many exports."""
        with self._got:
            assert self._got.wait_for(lambda: len(self.raw) >= exports, seconds)

    def _take(self, path: str, headers: dict[str, str], body: bytes) -> None:
        with self._got:
            self.raw.append(body)
            self.headers.append(headers)
            if path == "/v1/traces":
                traces = ExportTraceServiceRequest.FromString(body)
                self._traces.append(traces)
                self.resources += [attributes(each.resource.attributes) for each in traces.resource_spans]
            else:
                assert path == "/v1/metrics"
                metrics = ExportMetricsServiceRequest.FromString(body)
                self._metrics.append(metrics)
                self.resources += [attributes(each.resource.attributes) for each in metrics.resource_metrics]
            self._got.notify_all()
