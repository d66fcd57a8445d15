"""The environment as one frozen object, read once at start; every fault is reported at once, by name.

`VARIABLES` is the one list of the settings of `stop_servers`: the README's table and the unknown-name check use it too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from handler.login_settings import CloudLogin, LoginKind, read_login
from handler.shared_settings import SettingsError, Variable, read_shared, refuse, strange_names
from handler.stop.model import Policy
from handler.values import (
    Reading,
    Secret,
    boolean,
    choice,
    duration,
    event_types,
    http_url,
    pair,
    smn_topic,
    whole,
)

if TYPE_CHECKING:
    from handler.oidc_settings import OidcSettings

__all__ = [
    "VARIABLES",
    "ApiName",
    "Callers",
    "CloudLogin",
    "InboundAuth",
    "LoginKind",
    "Secret",
    "Settings",
    "SettingsError",
    "Variable",
    "from_environ",
    "read_callers",
]


# A message of SMN holds 256 KB, and a server's row with its evidence takes about one.
_MOST_IN_MESSAGE = 150


class InboundAuth(StrEnum):
    """How callers prove themselves."""

    NONE = "none"
    BEARER = "bearer"
    OIDC = "oidc"


class ApiName(StrEnum):
    """Which of the cloud's APIs is spoken."""

    NOVA = "nova"
    BMS = "bms"


class Callers(NamedTuple):
    """Who may call, and how they prove it."""

    inbound_auth: InboundAuth
    bearer_tokens: tuple[Secret, ...]
    oidc: OidcSettings | None


class StopLimit(NamedTuple):
    """How many servers this process may send stops for.

    Attributes:
        servers: most of them within the window.
        window: how long an attempt counts.
    """

    servers: int
    window: timedelta


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that the environment says, checked.

    Attributes:
        inbound_auth, bearer_tokens, oidc: who may call.
        policy: what the heart may do.
        deadline: whole budget for one event.
        concurrency: calls to the cloud at once, in the whole process.
        max_body: bytes.
        webhook_origins: lower case; `*` allows any.
        source: `source` of the events sent.
        result_sink: URL, or None.
        result_topic: URN of the SMN topic that results are published to, or None. Neither: the answer is the result.
        extensions: attributes put on every event sent (`K_CE_OVERRIDES`).
        compute_url, bms_url, smn_url: explicit base URLs, or None for the catalogue's.
    """

    inbound_auth: InboundAuth
    login: CloudLogin
    policy: Policy
    bearer_tokens: tuple[Secret, ...] = ()
    oidc: OidcSettings | None = None
    api: ApiName = ApiName.NOVA
    compute_url: str | None = None
    bms_url: str | None = None
    smn_url: str | None = None
    deadline: timedelta = timedelta(seconds=50)
    stop_limit: StopLimit | None = None
    concurrency: int = 16
    max_body: int = 1024 * 1024
    webhook_origins: frozenset[str] = frozenset()
    source: str = "/bms-autostop"
    result_sink: str | None = None
    result_topic: str | None = None
    sink_token: Secret = field(default_factory=Secret)
    sink_token_file: str = ""
    sink_ca: str = ""
    extensions: Mapping[str, str] = field(default_factory=dict)
    event_types: Mapping[str, str] = field(default_factory=dict)
    log_level: str = "INFO"


VARIABLES = (
    Variable("AUTOSTOP_INBOUND_AUTH", "none: must be set", "who may call: `none` (said out loud), `bearer` or `oidc`"),
    Variable(
        "AUTOSTOP_BEARER_TOKENS",
        "none",
        "tokens accepted with `bearer`, comma-separated, so that they can rotate",
    ),
    Variable("AUTOSTOP_OIDC_ISSUER", "none", "with `oidc`: what `iss` says in the callers' tokens"),
    Variable("AUTOSTOP_OIDC_AUDIENCE", "none", "with `oidc`: what `aud` says; several comma-separated"),
    Variable(
        "AUTOSTOP_OIDC_SUBJECTS",
        "none",
        "with `oidc`: who may call, comma-separated: `sub`, verified `email`, or `azp:` and an application of Entra",
    ),
    Variable(
        "AUTOSTOP_OIDC_JWKS_URL", "by discovery", "`https:` or `file:` URL of the issuer's keys, if it has no discovery"
    ),
    Variable("AUTOSTOP_OIDC_CA", "certifi's", "CA bundle for the issuer's certificate"),
    Variable("AUTOSTOP_OIDC_TOKEN_FILE", "none", "file with the token that the issuer's keys are asked for with"),
    Variable(
        "AUTOSTOP_API",
        "`nova`",
        "which stop call: `nova` (Nova v2.1, one call a server) or `bms` (OTC BMS v1, one call for up to 1000)",
    ),
    Variable(
        "AUTOSTOP_COMPUTE_URL",
        "from the catalogue",
        "explicit base URL of Nova, with or without version and project",
    ),
    Variable("AUTOSTOP_BMS_URL", "from the catalogue", "the same for BMS v1"),
    Variable(
        "AUTOSTOP_RESULT_SINK",
        "`K_SINK`, else reply",
        "`http(s)://` URL that result events are posted to, or `smn:` and the URN of an SMN topic",
    ),
    Variable("AUTOSTOP_SMN_URL", "from the catalogue", "explicit base URL of SMN, if a topic is the sink"),
    Variable("AUTOSTOP_SINK_TOKEN", "none", "bearer token sent along to the sink"),
    Variable("AUTOSTOP_SINK_TOKEN_FILE", "none", "file with that token, read each time, as Knative's `/oidc/token`"),
    Variable("AUTOSTOP_SOURCE", "`/bms-autostop`", "`source` of the events sent"),
    Variable(
        "AUTOSTOP_EVENT_TYPES",
        "none",
        "further event types, separated by `;`: `type` for canonical data, or `type=JMESPath` of the ids in the data",
    ),
    Variable("AUTOSTOP_DRY_RUN", "`false`", "never stop anything, only say what would be done"),
    Variable("AUTOSTOP_BARE_METAL_ONLY", "`true`", "leave servers alone that are no BMS"),
    Variable("AUTOSTOP_PROTECT", "`autostop=never`", "tag, or metadata key and value, that keeps a server running"),
    Variable("AUTOSTOP_MAX_SERVERS", "`50`", "most servers one event may name or select; more and it is refused whole"),
    Variable("AUTOSTOP_MAX_EVENT_AGE", "`15m`", "oldest event `time` that is acted on; `0` = any"),
    Variable("AUTOSTOP_CLOCK_TOLERANCE", "`5s`", "how far the clocks of producer, function and cloud may differ"),
    Variable(
        "AUTOSTOP_WAIT", "`20s`", "how long an accepted stop is watched (half of a shorter deadline); `0` = not at all"
    ),
    Variable("AUTOSTOP_DEADLINE", "`50s`", "whole time budget for one event"),
    Variable("AUTOSTOP_CONCURRENCY", "`16`", "calls to the cloud at once"),
    Variable("AUTOSTOP_MAX_BODY", "`1MiB`", "largest request body"),
    Variable(
        "AUTOSTOP_WEBHOOK_ORIGINS",
        "none",
        "origins that may subscribe (`OPTIONS` handshake), comma-separated; `*` = any",
    ),
    Variable("AUTOSTOP_LOG_LEVEL", "`INFO`", "`DEBUG`, `INFO`, `WARNING` or `ERROR`; JSON lines on stdout"),
)


def from_environ(environ: Mapping[str, str]) -> Settings:
    """Read and check the settings. An empty variable counts as unset.

    Raises:
        SettingsError: with every fault there is.
    """
    reading = Reading(environ)
    _unknown_names(reading)
    callers = read_callers(reading)
    deadline = reading.value("AUTOSTOP_DEADLINE", duration, timedelta(seconds=50))
    # Who shortens the budget alone has not asked for a watch that is longer than it.
    wait = reading.value("AUTOSTOP_WAIT", duration, min(timedelta(seconds=20), deadline / 2))
    if deadline < timedelta(seconds=1):
        reading.faults.append("AUTOSTOP_DEADLINE: must be at least 1s.")
    elif wait >= deadline:
        reading.faults.append("AUTOSTOP_WAIT: must be shorter than AUTOSTOP_DEADLINE.")
    policy = Policy(
        protect=reading.value("AUTOSTOP_PROTECT", pair, ("autostop", "never")),
        bare_metal_only=reading.value("AUTOSTOP_BARE_METAL_ONLY", boolean, True),
        dry_run=reading.value("AUTOSTOP_DRY_RUN", boolean, False),
        max_servers=reading.value("AUTOSTOP_MAX_SERVERS", whole(1, 1000), 50),
        max_event_age=reading.value("AUTOSTOP_MAX_EVENT_AGE", duration, timedelta(minutes=15)),
        clock_tolerance=_tolerance(reading),
        wait=wait,
    )
    shared = read_shared(reading)
    topic, sink = _result_sink(reading)
    if topic and policy.max_servers > _MOST_IN_MESSAGE:
        reading.faults.append(
            f"AUTOSTOP_MAX_SERVERS: must be at most {_MOST_IN_MESSAGE} with an SMN topic as the sink, or the result "
            "is too large for a message."
        )
    made = Settings(
        inbound_auth=callers.inbound_auth,
        bearer_tokens=callers.bearer_tokens,
        oidc=callers.oidc,
        login=read_login(reading),
        policy=policy,
        api=ApiName(reading.value("AUTOSTOP_API", choice(*ApiName), ApiName.NOVA)),
        compute_url=reading.value("AUTOSTOP_COMPUTE_URL", http_url, None),
        bms_url=reading.value("AUTOSTOP_BMS_URL", http_url, None),
        smn_url=reading.value("AUTOSTOP_SMN_URL", http_url, None),
        deadline=deadline,
        stop_limit=StopLimit(4 * policy.max_servers, timedelta(minutes=10)),
        concurrency=reading.value("AUTOSTOP_CONCURRENCY", whole(1, 256), 16),
        max_body=shared.max_body,
        webhook_origins=frozenset(part.lower() for part in reading.parts("AUTOSTOP_WEBHOOK_ORIGINS")),
        source=shared.source,
        result_sink=sink,
        result_topic=topic,
        sink_token=shared.sink_token,
        sink_token_file=shared.sink_token_file,
        sink_ca=shared.sink_ca,
        extensions=shared.extensions,
        event_types=reading.value("AUTOSTOP_EVENT_TYPES", event_types, {}),
        log_level=shared.log_level,
    )
    if reading.faults:
        raise SettingsError(tuple(reading.faults))
    return made


def read_callers(reading: Reading) -> Callers:
    """Read who may call; faults are left in `reading`."""
    auth = _inbound_auth(reading)
    tokens = reading.secrets("AUTOSTOP_BEARER_TOKENS")
    oidc = None
    match auth:
        case InboundAuth.BEARER if not tokens:
            reading.faults.append(
                "AUTOSTOP_BEARER_TOKENS: must hold at least one token with AUTOSTOP_INBOUND_AUTH=bearer."
            )
        case InboundAuth.OIDC:
            from handler.oidc_settings import read_oidc

            # Producer, issuer and function may differ by the same for a token's times as for an event's.
            oidc = read_oidc(reading, _tolerance(reading))
    return Callers(auth, tokens, oidc)


def _tolerance(reading: Reading) -> timedelta:
    found: timedelta = reading.value("AUTOSTOP_CLOCK_TOLERANCE", duration, timedelta(seconds=5))
    return found


def _unknown_names(reading: Reading) -> None:
    known = [variable.name for variable in VARIABLES]
    strange = strange_names(reading.environ, known)
    if strange:
        # What is meant for another target does no harm here: one image and one Secret can serve all of them.
        from handler.notify_variables import NOTIFY_VARIABLES
        from handler.webhook_variables import WEBHOOK_VARIABLES

        known += [variable.name for variable in (*WEBHOOK_VARIABLES, *NOTIFY_VARIABLES)]
        refuse(reading, strange_names(reading.environ, known), known)


def _result_sink(reading: Reading) -> tuple[str | None, str | None]:
    """The topic and the URL that results go to; one of them at most."""
    if (reading.get("AUTOSTOP_RESULT_SINK") or "").startswith("smn:"):
        return reading.value("AUTOSTOP_RESULT_SINK", smn_topic, None), None
    return None, reading.value("AUTOSTOP_RESULT_SINK", http_url, None) or reading.value("K_SINK", http_url, None)


def _inbound_auth(reading: Reading) -> InboundAuth:
    name = "AUTOSTOP_INBOUND_AUTH"
    if reading.get(name) is None:
        reading.faults.append(
            f"{name}: must be set: `bearer` (with AUTOSTOP_BEARER_TOKENS), `oidc` (with AUTOSTOP_OIDC_ISSUER), or "
            "`none` to let anybody who reaches this function stop servers."
        )
        return InboundAuth.NONE
    return InboundAuth(reading.value(name, choice(*InboundAuth), InboundAuth.NONE))
