"""The settings that several targets read."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from enum import StrEnum
from string import ascii_letters, digits
from typing import TYPE_CHECKING, NamedTuple

from handler.settings.env import (
    Env,
    For,
    Secret,
    Setting,
    bearer_token,
    boolean,
    choice,
    duration,
    http_url,
    long_secrets,
    size,
    word_set,
    words,
)

if TYPE_CHECKING:
    from handler.settings.oidc import OidcSettings

_called = For("stop_servers", "notify_chat", "keep_servers")
_posting = For("stop_servers", "receive_webhook", "keep_servers")
# The attributes of CloudEvents, and the extensions that are set here.
_RESERVED = (
    "id|source|type|specversion|time|subject|datacontenttype|dataschema|data|"
    "causationid|correlationid|traceparent|tracestate"
)
_URI_CHARACTERS = frozenset(f"{ascii_letters}{digits}._~:/?#[]@!$&'()*+,;=%-")


class InboundAuth(StrEnum):
    """How callers are authenticated."""

    NONE = "none"
    BEARER = "bearer"
    OIDC = "oidc"


class Callers(NamedTuple):
    """Who may call, how they are authenticated, and which origins may subscribe (lower case; `*` is any).

    Of these callers, those of `approver_tokens` or `approver_subjects` may send approvals; every one if both are empty.
    """

    inbound_auth: InboundAuth
    bearer_tokens: tuple[Secret, ...]
    oidc: OidcSettings | None
    webhook_origins: frozenset[str]
    approver_tokens: tuple[Secret, ...] = ()
    approver_subjects: frozenset[str] = frozenset()

    @property
    def names_approvers(self) -> bool:
        """Whether only some callers may send approvals."""
        return bool(self.approver_tokens or self.approver_subjects)


class SinkSettings(NamedTuple):
    """Where events are posted to.

    Attributes:
        url: an http or https URL.
        token: sent as a bearer token unless it is empty.
        token_file: path of a file that holds the bearer token instead; empty for none.
        ca: certificates that are trusted too, PEM text; empty for none.
    """

    url: str
    token: Secret = Secret()
    token_file: str = ""
    ca: str = ""


def urn_of_topic(text: str) -> str:
    """Parse the URN of a topic of Open Telekom Cloud's Simple Message Notification."""
    if not re.fullmatch(r"urn:smn:[A-Za-z0-9_-]+:[A-Za-z0-9]+:[A-Za-z0-9_-]+", text, re.ASCII):
        raise ValueError("must be of the form urn:smn:<region>:<project id>:<topic>")
    return text


def _at_least(least: str) -> Callable[[str], timedelta]:
    def parse(text: str) -> timedelta:
        found = duration(text)
        if found < duration(least):
            raise ValueError(f"must be at least {least}")
        return found

    return parse


def _uri_reference(text: str) -> str:
    """Parse the `source` of a CloudEvent, a URI reference."""
    if not text or len(text) > 1024 or not _URI_CHARACTERS.issuperset(text):
        raise ValueError("must be a URI reference")
    return text


def _origins(text: str) -> frozenset[str]:
    """Parse a comma-separated list of origins, to lower case."""
    return word_set(text.lower())


def _overrides(text: str) -> dict[str, str]:
    """Parse the JSON that Knative's SinkBinding sets: `{"extensions": {name: text}}`."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("must be JSON") from None
    found = document.get("extensions") or {} if isinstance(document, dict) else None
    if not isinstance(found, dict):
        raise ValueError('must be of the form {"extensions": {...}}')
    for name, value in found.items():
        if not re.fullmatch(r"[a-z0-9]{1,64}", name) or re.fullmatch(_RESERVED, name):
            raise ValueError("must name only attributes that can be extensions here")
        if not isinstance(value, str) or re.search("[\ud800-\udfff]", value):
            raise ValueError("must have text as the value of each extension")
    return found


def _certificates(text: str) -> str:
    """Parse one certificate or several as PEM text."""
    import ssl

    try:
        ssl.create_default_context(cadata=text)
    except (ssl.SSLError, ValueError, TypeError):
        raise ValueError("must hold certificates as PEM text") from None
    return text


INBOUND_AUTH = _called(
    "AUTOSTOP_INBOUND_AUTH",
    choice(*InboundAuth),
    "how callers are authenticated: `bearer`, `oidc`, or `none` for every caller that reaches the function",
    unset="none: must be set",
)
BEARER_TOKENS = _called(
    "AUTOSTOP_BEARER_TOKENS",
    long_secrets,
    "tokens accepted with `bearer`, comma-separated for rotation, each of at least 16 characters",
    secret=True,
)
WEBHOOK_ORIGINS = _called(
    "AUTOSTOP_WEBHOOK_ORIGINS", _origins, "origins that may subscribe by `OPTIONS`, comma-separated; `*` = any"
)
CLOCK_TOLERANCE = _called(
    "AUTOSTOP_CLOCK_TOLERANCE", duration, "how far clocks may differ; of a token's times at most `1m`", "5s"
)
DEADLINE = _called("AUTOSTOP_DEADLINE", _at_least("1s"), "time budget of one event, at least `1s`", "50s")
MAX_BODY = Setting("AUTOSTOP_MAX_BODY", size, "largest request body", "1MiB")
LOG_LEVEL = Setting(
    "AUTOSTOP_LOG_LEVEL", choice("DEBUG", "INFO", "WARNING", "ERROR"), "`DEBUG`, `INFO`, `WARNING` or `ERROR`", "INFO"
)
DRY_RUN = _posting(
    "AUTOSTOP_DRY_RUN",
    boolean,
    "never change a server, only report what would be done; of `receive_webhook`: mark every event as a dry run",
    "false",
)
MAX_KEEP = For("keep_servers", "receive_webhook")(
    "AUTOSTOP_MAX_KEEP", _at_least("1m"), "how far ahead a keep may end, at least `1m`; longer ones are refused", "24h"
)
SOURCE = _posting("AUTOSTOP_SOURCE", _uri_reference, "`source` of events sent, or its beginning", "/bms-autostop")
SINK_TOKEN = _posting(
    "AUTOSTOP_SINK_TOKEN", bearer_token, "bearer token for the sink, at least 16 characters", secret=True
)
SINK_TOKEN_FILE = _posting("AUTOSTOP_SINK_TOKEN_FILE", str, "file with this token, read for every attempt")
K_SINK = _posting("K_SINK", http_url, "URL of the sink if none is set here; set by Knative's SinkBinding")
K_CE_OVERRIDES = _posting(
    "K_CE_OVERRIDES", _overrides, "JSON with attributes of events sent; set by Knative's SinkBinding"
)
K_CA_CERTS = _posting(
    "K_CA_CERTS", _certificates, "certificates to trust at the sink, PEM; set by Knative's SinkBinding"
)


def read_callers(env: Env) -> Callers:
    """Read who may call."""
    auth, tokens, oidc = env.optional(INBOUND_AUTH), env.value(BEARER_TOKENS), None
    if env.text(INBOUND_AUTH) is None:
        env.note(
            INBOUND_AUTH,
            "must be set: `bearer` (with AUTOSTOP_BEARER_TOKENS), `oidc` (with AUTOSTOP_OIDC_ISSUER), or `none` to "
            "accept every caller that reaches this function",
        )
    if auth is InboundAuth.BEARER and not words(env.text(BEARER_TOKENS) or ""):
        env.note(BEARER_TOKENS, "must hold at least one token with AUTOSTOP_INBOUND_AUTH=bearer")
    if auth is InboundAuth.OIDC:
        from handler.settings.oidc import read_oidc

        # The tolerance of an event's times counts for those of a token as well.
        oidc = read_oidc(env, env.value(CLOCK_TOLERANCE))
    return Callers(auth or InboundAuth.NONE, tokens, oidc, env.value(WEBHOOK_ORIGINS))


def read_sink(env: Env, url: str) -> SinkSettings:
    """Read the settings of the sink at `url`."""
    token, token_file = env.secret(SINK_TOKEN), env.value(SINK_TOKEN_FILE)
    if token_file and env.text(SINK_TOKEN):
        env.note(SINK_TOKEN_FILE, "must not be set beside AUTOSTOP_SINK_TOKEN")
    return SinkSettings(url, token, token_file, env.optional(K_CA_CERTS) or "")


def read_extensions(env: Env) -> Mapping[str, str]:
    """Read the attributes that every event sent gets."""
    return env.optional(K_CE_OVERRIDES) or {}


def wanted_signals(environ: Mapping[str, str]) -> frozenset[str]:
    """Return which of `traces` and `metrics` OpenTelemetry's own variables ask for; only these are loaded."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return frozenset()
    wanted = set()
    for signal in ("traces", "metrics"):
        exporter = environ.get(f"OTEL_{signal.upper()}_EXPORTER", "").strip().lower()
        endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT")
        if exporter != "none" and (exporter or any(environ.get(name, "").strip() for name in endpoints)):
            wanted.add(signal)
    return frozenset(wanted)
