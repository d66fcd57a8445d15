"""OpenTelemetry's SDK, set up when it is first used: after the server has forked, in the process that serves.

functions-framework loads the function in gunicorn's arbiter, which forks its workers after that; threads and
connections would be left behind there.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar

from opentelemetry.metrics import Meter, NoOpMeter
from opentelemetry.sdk.resources import Resource
from opentelemetry.trace import NoOpTracer, Tracer

from handler import __version__
from handler.http_client import host_of
from handler.telemetry.instruments import Instruments

_LOG = logging.getLogger(__name__)

_SCOPE = "bms-autostop"
# Seconds by which a collector that does not respond can delay the end of the process.
_CLOSING = 5.0
_REPEAT = 300.0


_Made = TypeVar("_Made")


class Signals(NamedTuple):
    """Where spans and metrics go."""

    tracer: Tracer
    instruments: Instruments


class LazyProviders:
    """Sets up the signals on first use, once in a process.

    Args:
        wanted: of `traces` and `metrics`.
    """

    def __init__(self, wanted: frozenset[str], environ: Mapping[str, str]) -> None:
        self._wanted = wanted
        self._environ = dict(environ)
        self._lock = threading.Lock()
        self._made: Signals | None = None
        self._closers: list[threading.Thread] = []
        self._ending = threading.Event()

    def __call__(self) -> Signals:
        """Return the signals; what cannot be set up is logged, and is not recorded then."""
        if self._made is None:
            with self._lock:
                if self._made is None:
                    self._made = self._make()
        return self._made

    def close(self) -> None:
        """Export what is still queued, for `_CLOSING` seconds at most."""
        self._ending.set()
        deadline = time.monotonic() + _CLOSING
        for closer in self._closers:
            closer.join(max(deadline - time.monotonic(), 0.0))

    def _make(self) -> Signals:
        _replace_log_output()
        resource = _resource(self._environ)
        tracer = self._try("traces", lambda: self._tracer(resource)) or NoOpTracer()
        meter = self._try("metrics", lambda: self._meter(resource)) or NoOpMeter(_SCOPE)
        atexit.register(self.close)
        return Signals(tracer, Instruments(meter))

    def _try(self, signal: str, make: Callable[[], _Made]) -> _Made | None:
        if signal not in self._wanted:
            return None
        try:
            return make()
        except Exception as failure:
            # Its message may quote a variable, and those of OpenTelemetry can have passwords.
            detail = f"No {signal}: OpenTelemetry cannot be set up ({type(failure).__name__}); check its variables."
            _LOG.error("telemetry is off", extra={"detail": detail})
            return None

    def _tracer(self, resource: Resource) -> Tracer:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._close_with(provider.shutdown)
        return provider.get_tracer(_SCOPE, __version__)

    def _meter(self, resource: Resource) -> Meter:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

        reader = PeriodicExportingMetricReader(OTLPMetricExporter())
        provider = MeterProvider([reader], resource=resource, shutdown_on_exit=False)
        self._close_with(provider.shutdown)
        return provider.get_meter(_SCOPE, __version__)

    def _close_with(self, shutdown: Callable[[], None]) -> None:
        """Prepare a thread that shuts this down: at the end of the process Python cannot start one any more."""

        def close() -> None:
            self._ending.wait()
            shutdown()

        closer = threading.Thread(target=close, name="telemetry-closer", daemon=True)
        closer.start()
        self._closers.append(closer)


def _resource(environ: Mapping[str, str]) -> Resource:
    """Return the resource attributes that the variables do not set."""
    ours = {
        "service.name": "bms-autostop",
        "service.version": __version__,
        "service.instance.id": str(uuid.uuid4()),
        "faas.name": environ.get("FUNCTION_TARGET") or "stop_servers",
    }
    detected = Resource.create().attributes
    set_already = {name for name in ours if name in detected and not str(detected[name]).startswith("unknown_service")}
    return Resource.create({name: value for name, value in ours.items() if name not in set_already})


class _Warnings(logging.Handler):
    """Logs the warnings of OpenTelemetry in its words but without its values, each once in `_REPEAT` seconds.

    The values are URLs and responses of the collector, either of which may have its credentials. Only the names of
    exceptions and the collector's host, from the variables, are logged as well.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._logged_at: dict[str, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Log the record, unless the same was logged recently."""
        detail = str(record.msg)
        if record.created - self._logged_at.get(detail, float("-inf")) < _REPEAT:
            return
        self._logged_at[detail] = record.created
        extra = {"detail": detail, "failure": _failure(record), "host": _collector_host(os.environ)}
        _LOG.warning("telemetry failed", extra={name: value for name, value in extra.items() if value})


def _failure(record: logging.LogRecord) -> str | None:
    """Return the name of the exception that a warning is about, or None."""
    values = record.args if isinstance(record.args, tuple) else ()
    raised = record.exc_info[1] if record.exc_info else None
    return next((type(one).__name__ for one in (raised, *values) if isinstance(one, BaseException)), None)


def _collector_host(environ: Mapping[str, str]) -> str | None:
    """Return `host` or `host:port` of the collector, as the variables name it; None if they name none."""
    names = ("ENDPOINT", "TRACES_ENDPOINT", "METRICS_ENDPOINT")
    return next(
        (host for name in names if (host := host_of(environ.get(f"OTEL_EXPORTER_OTLP_{name}", "")))),
        None,
    )


def _replace_log_output() -> None:
    theirs = logging.getLogger("opentelemetry")
    theirs.propagate = False
    if not any(isinstance(handler, _Warnings) for handler in theirs.handlers):
        theirs.addHandler(_Warnings())
