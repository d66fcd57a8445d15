"""OpenTelemetry, switched on by its standard variables; its errors never affect the handling of events.

The other modules of this package are loaded only if it is switched on. What can be observed is given a `Telemetry` or
None.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from handler.telemetry.observer import Telemetry as Telemetry

_LOG = logging.getLogger(__name__)

_PACKAGES = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")


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
    from handler.telemetry.observer import Telemetry
    from handler.telemetry.providers import LazyProviders

    return Telemetry(LazyProviders(able, environ), correlate="traces" in able, types=types)


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
