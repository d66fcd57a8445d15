"""The settings of `stop_servers`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from enum import StrEnum
from typing import NamedTuple

from handler.settings import common, declared
from handler.settings.common import Callers, InboundAuth, SinkSettings
from handler.settings.env import (
    Env,
    For,
    Secret,
    Setting,
    boolean,
    choice,
    duration,
    http_url,
    long_secrets,
    pair,
    signing_keys,
    whole,
    word_set,
)
from handler.settings.login import CloudLogin, read_login
from handler.stop.model import Approver, Policy

# A message of SMN has at most 256 KB, and a server's row with its evidence about one.
_MOST_IN_MESSAGE = 150
_TOPIC = "smn:"
_BY_CATALOG = "from clouds.yaml or the catalogue"
_with_login = For("stop_servers", "keep_servers")


class ApiName(StrEnum):
    """The API of the cloud that is called."""

    NOVA = "nova"
    BMS = "bms"


class AnnounceMode(StrEnum):
    """Whether the stops of an event are announced before the first of them."""

    OFF = "off"
    BEST_EFFORT = "best-effort"
    REQUIRED = "required"


class StopLimit(NamedTuple):
    """How many servers this process may send stops for.

    Attributes:
        servers: at most so many within the window; 0 for no limit.
        window: for how long an attempt counts.
    """

    servers: int
    window: timedelta


class ApprovalSettings(NamedTuple):
    """Which events need an approval, and by whom.

    Attributes:
        above: an event for more servers than this needs one; None: only one that asks for it.
        approver: who may approve at least, whatever the event says; None: it alone says so.
        keys: the first one signs plans, all verify them.
        ttl: how long a plan can be approved.
    """

    above: int | None = None
    approver: Approver | None = None
    keys: tuple[Secret, ...] = ()
    ttl: timedelta = timedelta(minutes=15)

    def needed(self, asked: Approver | None, servers: int) -> Approver | None:
        """Return who must approve the stops of an event; None if they need no approval.

        Args:
            asked: what the event itself asks for; it can only tighten what is set here.
            servers: how many servers its delivery is about.
        """
        if asked is None and (self.above is None or servers <= self.above):
            return None
        return Approver.OTHER if Approver.OTHER in (asked, self.approver) else Approver.SELF


class Settings(NamedTuple):
    """The settings of `stop_servers`, checked.

    Attributes:
        callers: who may call.
        policy: what may be stopped.
        deadline: time budget of one event.
        concurrency: most calls to the cloud at once, in the whole process.
        max_body: bytes.
        source: `source` of the events sent.
        sink: where results are posted to, or None.
        result_topic: URN of the SMN topic that results are published to, or None. Neither: the response is the result.
        extensions: attributes of every event sent.
        compute_url, bms_url, smn_url: explicit base URLs, or None for the catalogue's.
        event_types: further event types, each with the JMESPath of the server ids, or with an empty text.
        stop_limit: most servers within a time, or None.
        approval: which events need an approval, and by whom.
        announce: whether stops are announced.
    """

    callers: Callers
    login: CloudLogin
    policy: Policy
    api: ApiName
    compute_url: str | None
    bms_url: str | None
    smn_url: str | None
    deadline: timedelta
    concurrency: int
    max_body: int
    source: str
    sink: SinkSettings | None
    result_topic: str | None
    extensions: Mapping[str, str]
    event_types: Mapping[str, str]
    log_level: str
    stop_limit: StopLimit | None
    approval: ApprovalSettings
    announce: AnnounceMode


def _sink(text: str) -> str:
    """Parse a URL, or `smn:` and the URN of a topic; the prefix stays."""
    if not text.startswith(_TOPIC):
        return http_url(text)
    try:
        return _TOPIC + common.urn_of_topic(text.removeprefix(_TOPIC))
    except ValueError:
        raise ValueError("must be of the form smn:urn:smn:<region>:<project id>:<topic>") from None


def _stop_limit(text: str) -> StopLimit:
    """Parse `200/10m`, or `0` for no limit."""
    count, sign, window = text.partition("/")
    try:
        limit = StopLimit(whole(0, 999_999)(count), duration(window) if sign else timedelta(0))
    except ValueError:
        limit = StopLimit(-1, timedelta(0))
    if limit.servers < 0 or bool(limit.servers) is not bool(limit.window):
        raise ValueError("must be a number of servers within a time such as 200/10m, or 0")
    return limit


def _approval(text: str) -> int | None:
    """Parse `off`, `above:N` or `always` to the most servers that need no approval; None for any number."""
    word, sign, count = text.lower().partition(":")
    match word.strip(), sign:
        case "off", "":
            return None
        case "always", "":
            return 0
        case "above", ":":
            with suppress(ValueError):
                return whole(0, 1000)(count)
    raise ValueError("must be off, always, or above:N with a number of servers up to 1000")


def _ttl(text: str) -> timedelta:
    found = duration(text)
    if not timedelta(seconds=1) <= found <= timedelta(hours=1):
        raise ValueError("must be a duration from 1s to 1h")
    return found


def _event_types(text: str) -> dict[str, str]:
    """Parse `type; type=JMESPath`, separated by semicolons, since a path may have commas."""
    found: dict[str, str] = {}
    for entry in filter(None, (part.strip() for part in text.split(";"))):
        name, sign, path = (part.strip() for part in entry.partition("="))
        if not re.fullmatch(r"[\x21-\x7e]{1,1024}", name) or (sign and not path):
            raise ValueError("must be of the form type; type=JMESPath")
        if name in found:
            raise ValueError("must name each type once")
        if path:
            import jmespath

            try:
                jmespath.compile(path)
            except jmespath.exceptions.JMESPathError:
                raise ValueError("must have only paths that are JMESPath") from None
        found[name] = path
    return found


API = Setting(
    "AUTOSTOP_API",
    choice(*ApiName),
    "which API is called: `nova` (Nova v2.1, one call a server) or `bms` (OTC BMS v1, one call for up to 1000)",
    "nova",
)
COMPUTE_URL = _with_login(
    "AUTOSTOP_COMPUTE_URL", http_url, "base URL of Nova, with or without version and project", unset=_BY_CATALOG
)
BMS_URL = Setting("AUTOSTOP_BMS_URL", http_url, "the same of BMS v1", unset=_BY_CATALOG)
SMN_URL = _with_login("AUTOSTOP_SMN_URL", http_url, "the same of SMN, if a topic is the sink", unset=_BY_CATALOG)
RESULT_SINK = _with_login(
    "AUTOSTOP_RESULT_SINK",
    _sink,
    "`http(s)://` URL that result events are posted to, or `smn:` and the URN of an SMN topic",
    unset="`K_SINK`, else the response",
)
EVENT_TYPES = Setting(
    "AUTOSTOP_EVENT_TYPES",
    _event_types,
    "further event types, separated by `;`: `type` for canonical data, or `type=JMESPath` of the ids in the data",
)
BARE_METAL_ONLY = Setting("AUTOSTOP_BARE_METAL_ONLY", boolean, "skip servers that are not bare metal", "true")
PROTECT = _with_login(
    "AUTOSTOP_PROTECT", pair, "tag, or metadata key and value, that keeps a server running", "autostop=never"
)
ONLY = Setting(
    "AUTOSTOP_ONLY",
    pair,
    "tag, or metadata key and value, that a server must have to be stopped",
    unset="none: any server",
)
MAX_SERVERS = _with_login(
    "AUTOSTOP_MAX_SERVERS", whole(1, 1000), "most servers one delivery may name or select; more are refused whole", "50"
)
STOP_LIMIT = Setting(
    "AUTOSTOP_STOP_LIMIT",
    _stop_limit,
    "most servers this process sends stops for within a time, at least `AUTOSTOP_MAX_SERVERS`; `0` = no limit",
    unset="4 times `AUTOSTOP_MAX_SERVERS` per `10m`",
)
APPROVAL = Setting(
    "AUTOSTOP_APPROVAL",
    _approval,
    "which events need an approval: `off` (those that ask for one), `above:N` (those for more than N servers) or "
    "`always`",
    "off",
)
APPROVER = Setting(
    "AUTOSTOP_APPROVER",
    choice(*Approver),
    "who may approve: `self` (any person, also the requester) or `other` (another person); an event can only tighten "
    "it",
    unset="`other`, or what the event says",
)
APPROVAL_KEYS = Setting(
    "AUTOSTOP_APPROVAL_KEYS",
    signing_keys,
    "keys of plans, comma-separated for rotation, each of at least 32 characters: the first signs, all verify",
    secret=True,
)
APPROVAL_TTL = Setting("AUTOSTOP_APPROVAL_TTL", _ttl, "how long a plan can be approved, `1s` to `1h`", "15m")
APPROVER_TOKENS = Setting(
    "AUTOSTOP_APPROVER_TOKENS",
    long_secrets,
    "with `bearer`: tokens of the callers that may send approvals, comma-separated; other callers get 403",
    unset="every caller may",
    secret=True,
)
APPROVER_SUBJECTS = Setting(
    "AUTOSTOP_APPROVER_SUBJECTS",
    word_set,
    "with `oidc`: the callers that may send approvals, as in `AUTOSTOP_OIDC_SUBJECTS`; other callers get 403",
    unset="every caller may",
)
ANNOUNCE = Setting(
    "AUTOSTOP_ANNOUNCE",
    choice(*AnnounceMode),
    "whether `stop.announced.v1` goes to the sink before the first stop of an event: `off`, `best-effort`, or "
    "`required`: nothing is stopped without it",
    "off",
)
MAX_EVENT_AGE = _with_login(
    "AUTOSTOP_MAX_EVENT_AGE", duration, "oldest event `time` that is acted on; `0` = any", "15m"
)
WAIT = Setting(
    "AUTOSTOP_WAIT", duration, "how long a stop is watched (half of a shorter deadline); `0` = not at all", "20s"
)
CONCURRENCY = _with_login("AUTOSTOP_CONCURRENCY", whole(1, 256), "most calls to the cloud at once", "16")


def from_environ(environ: Mapping[str, str]) -> Settings:
    """Read and check the settings. An empty variable counts as unset.

    Raises:
        SettingsError: with every violation.
    """
    env = Env(environ)
    callers = _with_approvers(env, common.read_callers(env))
    deadline, wait = env.value(common.DEADLINE), env.value(WAIT)
    if env.text(WAIT) is None:
        # If only the deadline is set, and shorter, the waiting time follows.
        wait = min(wait, deadline / 2)
    if wait >= deadline:
        env.note(WAIT, "must be shorter than AUTOSTOP_DEADLINE")
    policy = Policy(
        protect=env.value(PROTECT),
        only=env.optional(ONLY),
        bare_metal_only=env.value(BARE_METAL_ONLY),
        dry_run=env.value(common.DRY_RUN),
        max_servers=env.value(MAX_SERVERS),
        max_event_age=env.value(MAX_EVENT_AGE),
        clock_tolerance=env.value(common.CLOCK_TOLERANCE),
        wait=wait,
    )
    limit = env.optional(STOP_LIMIT) or StopLimit(4 * policy.max_servers, timedelta(minutes=10))
    if 0 < limit.servers < policy.max_servers:
        env.note(STOP_LIMIT, "must be 0, or at least AUTOSTOP_MAX_SERVERS")
    sink, topic = read_results(env, policy.max_servers)
    announce = env.value(ANNOUNCE)
    if announce is not AnnounceMode.OFF and not sink and not topic:
        env.note(ANNOUNCE, "needs a sink: AUTOSTOP_RESULT_SINK or K_SINK")
    settings = Settings(
        callers=callers,
        login=read_login(env, url_is_set=bool(env.text(COMPUTE_URL) or env.text(BMS_URL))),
        policy=policy,
        api=env.value(API),
        compute_url=env.optional(COMPUTE_URL),
        bms_url=env.optional(BMS_URL),
        smn_url=env.optional(SMN_URL),
        deadline=deadline,
        concurrency=env.value(CONCURRENCY),
        max_body=env.value(common.MAX_BODY),
        source=env.value(common.SOURCE),
        sink=sink,
        result_topic=topic,
        extensions=common.read_extensions(env),
        event_types=env.optional(EVENT_TYPES) or {},
        log_level=env.value(common.LOG_LEVEL),
        stop_limit=limit if limit.servers else None,
        approval=_read_approval(env),
        announce=announce,
    )
    env.finish(declared)
    return settings


def _with_approvers(env: Env, callers: Callers) -> Callers:
    """Read which callers may send approvals; they may call, too."""
    tokens, subjects = env.optional(APPROVER_TOKENS), env.optional(APPROVER_SUBJECTS)
    for setting, found, auth in (
        (APPROVER_TOKENS, tokens, InboundAuth.BEARER),
        (APPROVER_SUBJECTS, subjects, InboundAuth.OIDC),
    ):
        if found is None:
            continue
        if not found:
            env.note(setting, "must name at least one caller")
        if callers.inbound_auth is not auth:
            env.note(setting, f"must be set only with AUTOSTOP_INBOUND_AUTH={auth}")
    oidc = callers.oidc
    if oidc is not None and subjects:
        oidc = oidc._replace(subjects=oidc.subjects | subjects)
    return callers._replace(oidc=oidc, approver_tokens=tokens or (), approver_subjects=subjects or frozenset())


def _read_approval(env: Env) -> ApprovalSettings:
    above, approver, keys = env.value(APPROVAL), env.optional(APPROVER), env.optional(APPROVAL_KEYS) or ()
    if not keys and env.text(APPROVAL_KEYS) is None:
        if above is not None:
            env.note(APPROVAL_KEYS, "must be set if AUTOSTOP_APPROVAL is not off: plans are signed with it")
        elif approver is not None:
            env.note(APPROVAL_KEYS, "must be set with AUTOSTOP_APPROVER: plans are signed with it")
    if above is not None and approver is None:
        approver = Approver.OTHER
    return ApprovalSettings(above, approver, keys, env.value(APPROVAL_TTL))


def read_results(env: Env, max_servers: int) -> tuple[SinkSettings | None, str | None]:
    """Read the sink, or the URN of the topic, that results go to; both None: the response is the result."""
    url = env.optional(RESULT_SINK) or env.optional(common.K_SINK) or ""
    topic = url.removeprefix(_TOPIC) if url.startswith(_TOPIC) else None
    if topic and max_servers > _MOST_IN_MESSAGE:
        env.note(
            MAX_SERVERS, f"must be at most {_MOST_IN_MESSAGE} with an SMN topic as the sink: no message holds more"
        )
    sink = common.read_sink(env, url)
    return (None, topic) if topic or not url else (sink, None)
