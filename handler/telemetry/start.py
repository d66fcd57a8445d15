"""Switches telemetry on as OpenTelemetry's standard variables say; whatever is wrong with it stops no server's stop."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from importlib.util import find_spec

from handler.telemetry import Telemetry

_LOG = logging.getLogger(__name__)

_PACKAGES = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")


def start(signals: frozenset[str], environ: Mapping[str, str], types: Iterable[str] = ()) -> Telemetry | None:
    """Make what watches this process.

    Args:
        signals: those that are asked for, of `traces` and `metrics`.
        types: of events that the settings accept.

    Returns:
        None if there is nothing to watch with; the log says why.
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
        _LOG.warning("telemetry is off", extra={"detail": f"OTEL_{upper}_EXPORTER: only otlp and none are known here."})
        return False
    if protocol != "http/protobuf":
        detail = f"OTEL_EXPORTER_OTLP_PROTOCOL: only http/protobuf is spoken here, so no {signal} are sent."
        _LOG.warning("telemetry is off", extra={"detail": detail})
        return False
    return True


def _installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:
        return False
