"""The environment as one frozen object, read once at start; every fault is reported at once, by name.

`VARIABLES` is the one list of the settings that are ours: the README's table and the unknown-name check use it too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from difflib import get_close_matches
from enum import StrEnum
from typing import Any, TypeVar
from urllib.parse import urlsplit

from handler.stop.model import Policy

Value = TypeVar("Value")


class SettingsError(Exception):
    """The environment does not make valid settings.

    Attributes:
        faults: one sentence each, beginning with the variable's name; never a secret's value.
    """

    def __init__(self, faults: tuple[str, ...]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


class Secret:
    """A text that shows itself only when asked by name."""

    __slots__ = ("_text",)

    def __init__(self, text: str = "") -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself."""
        return self._text

    def __bool__(self) -> bool:
        return bool(self._text)

    def __repr__(self) -> str:
        return "Secret(***)" if self._text else "Secret()"


class InboundAuth(StrEnum):
    """How callers prove themselves."""

    NONE = "none"
    BEARER = "bearer"


class LoginKind(StrEnum):
    """Which of Keystone's methods logs in."""

    PASSWORD = "password"
    TOKEN = "token"
    APPLICATION_CREDENTIAL = "application_credential"


@dataclass(frozen=True, slots=True)
class CloudLogin:
    """Who logs in where; the names are those of the `OS_*` variables."""

    kind: LoginKind
    auth_url: str
    username: str | None = None
    user_id: str | None = None
    user_domain_name: str | None = None
    user_domain_id: str | None = None
    password: Secret = field(default_factory=Secret)
    token: Secret = field(default_factory=Secret)
    application_credential_id: str | None = None
    application_credential_name: str | None = None
    application_credential_secret: Secret = field(default_factory=Secret)
    project_id: str | None = None
    project_name: str | None = None
    project_domain_name: str | None = None
    project_domain_id: str | None = None
    region: str | None = None
    interface: str = "public"
    verify: bool | str = True


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that the environment says, checked.

    Attributes:
        inbound_auth, bearer_tokens: who may call.
        policy: what the heart may do.
        deadline: whole budget for one event.
        concurrency: calls to the cloud at once, in the whole process.
        max_body: bytes.
        webhook_origins: lower case; `*` allows any.
        source: `source` of the events sent.
        result_sink: URL, or None to answer with the result.
        extensions: attributes put on every event sent (`K_CE_OVERRIDES`).
        compute_url: explicit base URL of Nova, or None for the catalogue's.
    """

    inbound_auth: InboundAuth
    login: CloudLogin
    policy: Policy
    bearer_tokens: tuple[Secret, ...] = ()
    api: str = "nova"
    compute_url: str | None = None
    deadline: timedelta = timedelta(seconds=50)
    concurrency: int = 16
    max_body: int = 1024 * 1024
    webhook_origins: frozenset[str] = frozenset()
    source: str = "/bms-autostop"
    result_sink: str | None = None
    sink_token: Secret = field(default_factory=Secret)
    extensions: Mapping[str, str] = field(default_factory=dict)
    log_level: str = "INFO"


@dataclass(frozen=True, slots=True)
class Variable:
    """One setting of ours, as the README's table shows it."""

    name: str
    default: str
    meaning: str


VARIABLES = (
    Variable("AUTOSTOP_INBOUND_AUTH", "none: must be set", "who may call: `none` (said out loud) or `bearer`"),
    Variable(
        "AUTOSTOP_BEARER_TOKENS",
        "none",
        "tokens accepted with `bearer`, comma-separated, so that they can rotate",
    ),
    Variable("AUTOSTOP_API", "`nova`", "which stop call: `nova` (Nova v2.1, one call a server)"),
    Variable("AUTOSTOP_COMPUTE_URL", "from the catalogue", "explicit base URL of Nova"),
    Variable("AUTOSTOP_RESULT_SINK", "`K_SINK`, else reply", "`http(s)://` URL that result events are posted to"),
    Variable("AUTOSTOP_SINK_TOKEN", "none", "bearer token sent along to the sink"),
    Variable("AUTOSTOP_SOURCE", "`/bms-autostop`", "`source` of the events sent"),
    Variable("AUTOSTOP_DRY_RUN", "`false`", "never stop anything, only say what would be done"),
    Variable("AUTOSTOP_BARE_METAL_ONLY", "`true`", "leave servers alone that are no BMS"),
    Variable("AUTOSTOP_PROTECT", "`autostop=never`", "tag, or metadata key and value, that keeps a server running"),
    Variable("AUTOSTOP_MAX_SERVERS", "`50`", "most servers one event may name; more and it is refused whole"),
    Variable("AUTOSTOP_MAX_EVENT_AGE", "`15m`", "oldest event `time` that is acted on; `0` = any"),
    Variable("AUTOSTOP_CLOCK_TOLERANCE", "`5s`", "how far the clocks of producer, function and cloud may differ"),
    Variable("AUTOSTOP_WAIT", "`20s`", "how long an accepted stop is watched; `0` = not at all"),
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

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "": 1.0}
_SIZES = {"": 1, "B": 1, "KB": 1000, "MB": 1000**2, "KIB": 1024, "MIB": 1024**2}
_TRUE, _FALSE = {"true", "1", "yes", "on"}, {"false", "0", "no", "off"}
_CORE_ATTRIBUTES = {
    "id",
    "source",
    "type",
    "specversion",
    "time",
    "subject",
    "datacontenttype",
    "dataschema",
    "data",
}
_OWN_EXTENSIONS = {"causationid", "correlationid", "traceparent", "tracestate"}
_URI_REFERENCE = re.compile(r"[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]+", re.ASCII)
# Kubernetes describes each service of the namespace in variables of these forms; one may be called `autostop`.
_SERVICE_LINK = re.compile(r"_(SERVICE_(HOST|PORT(_\w+)?)|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$")


def from_environ(environ: Mapping[str, str]) -> Settings:
    """Read and check the settings. An empty variable counts as unset.

    Raises:
        SettingsError: with every fault there is.
    """
    return _Reading(environ).settings()


def duration(text: str) -> timedelta:
    """`500ms`, `20s`, `15m`, `1h`, `2d`, or plain seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|)", text.strip(), re.ASCII)
    if match is None:
        raise ValueError("is no duration such as 20s, 15m or 1h")
    seconds = float(match[1]) * _UNITS[match[2]]
    if seconds > 365 * 86400:
        raise ValueError("is longer than a year")
    return timedelta(seconds=seconds)


def size(text: str) -> int:
    """`1MiB`, `512KiB`, `2MB`, or plain bytes."""
    match = re.fullmatch(r"(\d+)\s*([A-Za-z]*)", text.strip(), re.ASCII)
    if match is None or match[2].upper() not in _SIZES:
        raise ValueError("is no size such as 1MiB or 65536")
    return int(match[1]) * _SIZES[match[2].upper()]


def boolean(text: str) -> bool:
    """`true` or `false`, and what people write for them."""
    word = text.strip().lower()
    if word in _TRUE | _FALSE:
        return word in _TRUE
    raise ValueError("is neither true nor false")


def whole(low: int, high: int) -> Callable[[str], int]:
    """A parser for whole numbers from `low` to `high`."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"\d{1,9}", text.strip(), re.ASCII) or not low <= int(text) <= high:
            raise ValueError(f"is no whole number from {low} to {high}")
        return int(text)

    return parse


def http_url(text: str) -> str:
    """An absolute http or https URL without credentials in it."""
    try:
        parts = urlsplit(text.strip())
        _ = parts.port
    except ValueError:
        raise ValueError("is no valid URL") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("is no http or https URL")
    if parts.username or parts.password:
        raise ValueError("must not carry credentials")
    return text.strip()


def pair(text: str) -> tuple[str, str]:
    """`key=value`."""
    key, sign, value = text.partition("=")
    if not sign or not key.strip() or not value.strip():
        raise ValueError("is not of the form key=value")
    return key.strip(), value.strip()


def uri_reference(text: str) -> str:
    """What a CloudEvent may have as `source`."""
    if not _URI_REFERENCE.fullmatch(text) or len(text) > 1024:
        raise ValueError("is no URI reference")
    return text


def choice(*words: str) -> Callable[[str], str]:
    """A parser for one of `words`, in any case."""

    def parse(text: str) -> str:
        found = next((word for word in words if word.lower() == text.strip().lower()), None)
        if found is None:
            raise ValueError(f"is none of {', '.join(words)}")
        return found

    return parse


def overrides(text: str) -> dict[str, str]:
    """`K_CE_OVERRIDES`: `{"extensions": {name: text}}`, or nothing at all."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("is not JSON") from None
    found = document.get("extensions") or {} if isinstance(document, dict) else None
    if not isinstance(found, dict):
        raise ValueError('is not of the form {"extensions": {...}}')
    for name, value in found.items():
        if not re.fullmatch(r"[a-z0-9]{1,64}", name) or name in _CORE_ATTRIBUTES | _OWN_EXTENSIONS:
            raise ValueError("names an attribute that cannot be an extension here")
        if not isinstance(value, str):
            raise ValueError("has an extension that is no text")
    return found


class _Reading:
    """One pass over the environment that collects faults instead of stopping at the first."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._faults: list[str] = []

    def settings(self) -> Settings:
        self._unknown_names()
        auth = self._inbound_auth()
        tokens = self._secrets("AUTOSTOP_BEARER_TOKENS")
        if auth is InboundAuth.BEARER and not tokens:
            self._faults.append(
                "AUTOSTOP_BEARER_TOKENS: must hold at least one token with AUTOSTOP_INBOUND_AUTH=bearer."
            )
        self._value("AUTOSTOP_API", choice("nova"), "nova")
        deadline = self._value("AUTOSTOP_DEADLINE", duration, timedelta(seconds=50))
        wait = self._value("AUTOSTOP_WAIT", duration, timedelta(seconds=20))
        if deadline < timedelta(seconds=1):
            self._faults.append("AUTOSTOP_DEADLINE: must be at least 1s.")
        elif wait >= deadline:
            self._faults.append("AUTOSTOP_WAIT: must be shorter than AUTOSTOP_DEADLINE.")
        policy = Policy(
            protect=self._value("AUTOSTOP_PROTECT", pair, ("autostop", "never")),
            bare_metal_only=self._value("AUTOSTOP_BARE_METAL_ONLY", boolean, True),
            dry_run=self._value("AUTOSTOP_DRY_RUN", boolean, False),
            max_servers=self._value("AUTOSTOP_MAX_SERVERS", whole(1, 1000), 50),
            max_event_age=self._value("AUTOSTOP_MAX_EVENT_AGE", duration, timedelta(minutes=15)),
            clock_tolerance=self._value("AUTOSTOP_CLOCK_TOLERANCE", duration, timedelta(seconds=5)),
            wait=wait,
        )
        sink = self._value("AUTOSTOP_RESULT_SINK", http_url, None) or self._value("K_SINK", http_url, None)
        made = Settings(
            inbound_auth=auth,
            bearer_tokens=tokens,
            login=self._login(),
            policy=policy,
            compute_url=self._value("AUTOSTOP_COMPUTE_URL", http_url, None),
            deadline=deadline,
            concurrency=self._value("AUTOSTOP_CONCURRENCY", whole(1, 256), 16),
            max_body=self._value("AUTOSTOP_MAX_BODY", size, 1024 * 1024),
            webhook_origins=frozenset(part.lower() for part in self._parts("AUTOSTOP_WEBHOOK_ORIGINS")),
            source=self._value("AUTOSTOP_SOURCE", uri_reference, "/bms-autostop"),
            result_sink=sink,
            sink_token=Secret(self._get("AUTOSTOP_SINK_TOKEN") or ""),
            extensions=self._value("K_CE_OVERRIDES", overrides, {}),
            log_level=self._value("AUTOSTOP_LOG_LEVEL", choice("DEBUG", "INFO", "WARNING", "ERROR"), "INFO"),
        )
        if self._faults:
            raise SettingsError(tuple(self._faults))
        return made

    def _unknown_names(self) -> None:
        """A misspelt guard would silently be off."""
        known = {variable.name for variable in VARIABLES}
        for name in sorted(self._environ):
            if name.startswith("AUTOSTOP_") and name not in known and not _SERVICE_LINK.search(name):
                near = get_close_matches(name, known, 1)
                hint = f" Did you mean {near[0]}?" if near else ""
                self._faults.append(f"{name}: there is no such setting.{hint}")

    def _inbound_auth(self) -> InboundAuth:
        name = "AUTOSTOP_INBOUND_AUTH"
        if self._get(name) is None:
            self._faults.append(
                f"{name}: must be set: `bearer` (with AUTOSTOP_BEARER_TOKENS), or `none` to let anybody who reaches "
                "this function stop servers."
            )
            return InboundAuth.NONE
        return InboundAuth(self._value(name, choice(*InboundAuth), InboundAuth.NONE))

    def _login(self) -> CloudLogin:
        kind = self._login_kind()
        url = self._value("OS_AUTH_URL", http_url, None)
        if url is None and not self._get("OS_AUTH_URL"):
            self._faults.append("OS_AUTH_URL: must be set, such as https://iam.eu-de.otc.t-systems.com/v3.")
        user = (self._get("OS_USERNAME"), self._get("OS_USER_ID"))
        user_domain = (
            self._get("OS_USER_DOMAIN_NAME") or self._get("OS_DOMAIN_NAME"),
            self._get("OS_USER_DOMAIN_ID") or self._get("OS_DOMAIN_ID"),
        )
        project = (self._get("OS_PROJECT_NAME") or self._get("OS_TENANT_NAME"), self._get("OS_PROJECT_ID"))
        project_domain = (
            self._get("OS_PROJECT_DOMAIN_NAME") or user_domain[0],
            self._get("OS_PROJECT_DOMAIN_ID") or user_domain[1],
        )
        credential = (
            self._get("OS_APPLICATION_CREDENTIAL_NAME"),
            self._get("OS_APPLICATION_CREDENTIAL_ID"),
        )
        match kind:
            case LoginKind.PASSWORD:
                self._need("OS_USERNAME", *user)
                self._need("OS_PASSWORD", self._get("OS_PASSWORD"))
                if not user[1]:
                    self._need("OS_USER_DOMAIN_NAME", *user_domain)
            case LoginKind.TOKEN:
                self._need("OS_TOKEN", self._get("OS_TOKEN"))
            case LoginKind.APPLICATION_CREDENTIAL:
                self._need("OS_APPLICATION_CREDENTIAL_ID", *credential)
                self._need("OS_APPLICATION_CREDENTIAL_SECRET", self._get("OS_APPLICATION_CREDENTIAL_SECRET"))
                if not credential[1]:
                    self._need("OS_USERNAME", *user)
        if kind is not LoginKind.APPLICATION_CREDENTIAL:
            self._need("OS_PROJECT_NAME", *project)
        insecure = self._value("OS_INSECURE", boolean, False)
        return CloudLogin(
            kind=kind,
            auth_url=url or "",
            username=user[0],
            user_id=user[1],
            user_domain_name=user_domain[0],
            user_domain_id=user_domain[1],
            password=Secret(self._get("OS_PASSWORD") or ""),
            token=Secret(self._get("OS_TOKEN") or ""),
            application_credential_name=credential[0],
            application_credential_id=credential[1],
            application_credential_secret=Secret(self._get("OS_APPLICATION_CREDENTIAL_SECRET") or ""),
            project_name=project[0],
            project_id=project[1],
            project_domain_name=project_domain[0],
            project_domain_id=project_domain[1],
            region=self._get("OS_REGION_NAME"),
            interface=(self._get("OS_INTERFACE") or self._get("OS_ENDPOINT_TYPE") or "public").removesuffix("URL"),
            verify=False if insecure else self._get("OS_CACERT") or True,
        )

    def _login_kind(self) -> LoginKind:
        word = self._get("OS_AUTH_TYPE")
        if word is None:
            if self._get("OS_APPLICATION_CREDENTIAL_SECRET"):
                return LoginKind.APPLICATION_CREDENTIAL
            return LoginKind.TOKEN if self._get("OS_TOKEN") and not self._get("OS_PASSWORD") else LoginKind.PASSWORD
        names = {
            "password": LoginKind.PASSWORD,
            "token": LoginKind.TOKEN,
            "applicationcredential": LoginKind.APPLICATION_CREDENTIAL,
        }
        kind = names.get(word.strip().lower().removeprefix("v3"))
        if kind is None:
            self._faults.append("OS_AUTH_TYPE: is none of password, token, v3applicationcredential.")
        return kind or LoginKind.PASSWORD

    def _get(self, name: str) -> str | None:
        return self._environ.get(name, "").strip() or None

    def _need(self, name: str, *values: str | None) -> None:
        if not any(values):
            self._faults.append(f"{name}: must be set for this kind of login.")

    def _parts(self, name: str) -> tuple[str, ...]:
        return tuple(part.strip() for part in (self._get(name) or "").split(",") if part.strip())

    def _secrets(self, name: str) -> tuple[Secret, ...]:
        return tuple(Secret(part) for part in self._parts(name))

    def _value(self, name: str, parse: Callable[[str], Any], default: Any) -> Any:
        text = self._get(name)
        if text is None:
            return default
        try:
            return parse(text)
        except ValueError as fault:
            self._faults.append(f"{name}: {fault}.")
            return default
