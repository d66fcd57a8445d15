"""OpenTelemetry behind one protocol, switched on by its standard variables.

The other modules of this package are loaded only if it is switched on. What can be observed is given a `Telemetry` or
None. Its errors never affect the handling of events.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from importlib.util import find_spec
from typing import Any, Protocol

from handler.http_client import HttpClient
from handler.keep.model import KeepReport, KeepRequest, KeepResult
from handler.stop.model import Report, ServerResult, StopRequest

_LOG = logging.getLogger(__name__)

_PACKAGES = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")


class Telemetry(Protocol):
    """Observes the handling of events. No method blocks, and none raises."""

    def install(self, app: Any, routes: Iterable[str]) -> None:
        """Measure each request to a Flask application; these paths become labels."""
        ...

    def http_client(self, peer: str) -> Callable[..., HttpClient]:
        """Return a constructor of HTTP clients for `cloud` or `sink` whose calls are measured."""
        ...

    def executor(self, executor: Executor) -> Executor:
        """Return the executor so that its calls belong to the event that is current where they are submitted."""
        ...

    def events(self, requests: Sequence[StopRequest] | Sequence[KeepRequest]) -> AbstractContextManager[None]:
        """Observe the handling of the events of one HTTP request in a `with` block; what it raises is their error."""
        ...

    def event(self, request: StopRequest | KeepRequest) -> AbstractContextManager[None]:
        """Make one of them current in this thread in a `with` block."""
        ...

    def server(self, result: ServerResult | KeepResult) -> None:
        """Record the result of a server of the current event."""
        ...

    def report(self, report: Report | KeepReport) -> None:
        """Record the result of the current event."""
        ...

    def announced(self, delivered: bool) -> None:
        """Whether the announcement of an event's stops was delivered."""
        ...

    def ignored(self, type_: str, why: str) -> None:
        """Record an event that asked for nothing."""
        ...


def start(signals: frozenset[str], environ: Mapping[str, str], types: Iterable[str] = ()) -> Telemetry | None:
    """Make the observer of this process.

    Args:
        signals: the requested ones of `traces` and `metrics`.
        environ: the environment.
        types: event types that the settings accept.

    Returns:
        The observer; None if it cannot be made, for a reason in the log.
    """
    able = frozenset(signal for signal in signals if _able(signal, environ))
    if not able:
        return None
    if not all(map(_installed, _PACKAGES)):
        _LOG.warning(
            "telemetry is off",
            extra={
                "detail": "OpenTelemetry needs the extra `otel`: pip install '.[otel]' in a clone, or 'FILE.whl[otel]'."
            },
        )
        return None
    from handler.telemetry.observer import OpenTelemetryObserver
    from handler.telemetry.providers import LazyProviders

    return OpenTelemetryObserver(LazyProviders(able, environ), correlate="traces" in able, types=types)


def _able(signal: str, environ: Mapping[str, str]) -> bool:
    upper = signal.upper()
    exporter = environ.get(f"OTEL_{upper}_EXPORTER", "").strip().lower() or "otlp"
    protocol = next(
        filter(None, (environ.get(f"OTEL_EXPORTER_OTLP_{part}PROTOCOL", "").strip() for part in (f"{upper}_", ""))),
        "http/protobuf",
    )
    if exporter != "otlp":
        _LOG.warning("telemetry is off", extra={"detail": f"OTEL_{upper}_EXPORTER must be otlp or none."})
        return False
    if protocol != "http/protobuf":
        detail = f"OTEL_EXPORTER_OTLP_PROTOCOL must be http/protobuf; no {signal} are sent."
        _LOG.warning("telemetry is off", extra={"detail": detail})
        return False
    return True


def _installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:
        return False
