"""What the settings of every target share: how a variable is shown, the name check, and a few values of all targets."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from handler.values import Reading, Secret, certificates, choice, overrides, size, token, uri_reference

# Kubernetes describes each service of the namespace in variables of these forms; one may be called `autostop`.
_SERVICE_LINK = re.compile(r"_(SERVICE_(HOST|PORT(_\w+)?)|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$")


class SettingsError(Exception):
    """The environment does not make valid settings.

    Attributes:
        faults: one sentence each, beginning with the variable's name; never a secret's value.
    """

    def __init__(self, faults: tuple[str, ...]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


class Variable(NamedTuple):
    """One setting of ours, as the README's table shows it."""

    name: str
    default: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Shared:
    """What every target reads.

    Attributes:
        source: `source` of the events sent.
        sink_token, sink_token_file: sent along to a sink; the file's content if there is one.
        sink_ca: certificates that a sink's may be signed by too, PEM text (`K_CA_CERTS`).
        extensions: attributes put on every event sent (`K_CE_OVERRIDES`).
        max_body: bytes.
        log_level: a name that `logging` knows.
    """

    source: str
    sink_token: Secret
    sink_token_file: str
    sink_ca: str
    extensions: Mapping[str, str]
    max_body: int
    log_level: str


def read_shared(reading: Reading) -> Shared:
    """Read what every target reads; faults are left in `reading`."""
    token_file = reading.get("AUTOSTOP_SINK_TOKEN_FILE") or ""
    if token_file and reading.get("AUTOSTOP_SINK_TOKEN"):
        reading.faults.append("AUTOSTOP_SINK_TOKEN_FILE: cannot be set beside AUTOSTOP_SINK_TOKEN.")
    return Shared(
        source=reading.value("AUTOSTOP_SOURCE", uri_reference, "/bms-autostop"),
        sink_token=Secret(reading.value("AUTOSTOP_SINK_TOKEN", token, "")),
        sink_token_file=token_file,
        sink_ca=reading.value("K_CA_CERTS", certificates, ""),
        extensions=reading.value("K_CE_OVERRIDES", overrides, {}),
        max_body=reading.value("AUTOSTOP_MAX_BODY", size, 1024 * 1024),
        log_level=reading.value("AUTOSTOP_LOG_LEVEL", choice("DEBUG", "INFO", "WARNING", "ERROR"), "INFO"),
    )


def strange_names(environ: Mapping[str, str], known: Iterable[str]) -> list[str]:
    """The variables that look like settings of ours and are not among these."""
    names = set(known)
    return sorted(
        name
        for name in environ
        if name.startswith("AUTOSTOP_") and name not in names and not _SERVICE_LINK.search(name)
    )


def refuse(reading: Reading, strange: Iterable[str], known: Iterable[str]) -> None:
    """Call these names wrong, each with the setting that was perhaps meant. A misspelt guard would silently be off."""
    from difflib import get_close_matches

    names = list(known)
    for name in strange:
        near = get_close_matches(name, names, 1)
        hint = f" Did you mean {near[0]}?" if near else ""
        reading.faults.append(f"{name}: there is no such setting.{hint}")


def wanted_signals(environ: Mapping[str, str]) -> frozenset[str]:
    """Which of `traces` and `metrics` OpenTelemetry's own variables ask for; nothing of it is loaded otherwise."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return frozenset()
    wanted = set()
    for signal in ("traces", "metrics"):
        exporter = environ.get(f"OTEL_{signal.upper()}_EXPORTER", "").strip().lower()
        endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT")
        if exporter != "none" and (exporter or any(environ.get(name, "").strip() for name in endpoints)):
            wanted.add(signal)
    return frozenset(wanted)
