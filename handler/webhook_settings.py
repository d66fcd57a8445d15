"""The environment of `receive_webhook` as one frozen object, read once at start; every fault is reported at once.

A producer whose secret is not set is switched off. The other target's settings may stand beside these.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec

from handler.notify_variables import NOTIFY_VARIABLES
from handler.settings import VARIABLES
from handler.shared_settings import SettingsError, read_shared, refuse, strange_names
from handler.values import SMN_TOPIC, Reading, Secret, boolean, http_url, token
from handler.webhook_variables import WEBHOOK_VARIABLES

_SMN_HOSTS = ("smn.eu-de.otc.t-systems.com", "smn.eu-nl.otc.t-systems.com", "smn.eu-ch2.sc.otc.t-systems.com")
# A subscription is confirmed at the console's host; which one the second Swiss cloud uses is not documented.
_CONFIRM_HOSTS = ("console.otc.t-systems.com", *_SMN_HOSTS)
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", re.ASCII)
_HOST = re.compile(r"[A-Za-z0-9.-]+(:\d{1,5})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class People:
    """Who may ask for a stop in one chat. Empty means nobody.

    Attributes:
        users: their ids, as the chat has them.
        channels: the ids of the channels where they may.
    """

    users: frozenset[str] = frozenset()
    channels: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class WebhookSettings:
    """Everything that the environment says to `receive_webhook`, checked. What is empty is switched off.

    Attributes:
        event_sink: URL that stop requests are posted to.
        source: what the `source` of each event begins with; the producer's path follows.
        extensions: attributes put on every event sent (`K_CE_OVERRIDES`).
        max_body: bytes.
        dry_run: whatever a producer asks for is handed on as a dry run.
        id_label: name of the label, property or dimension that holds a server's id.
        grafana_timestamp_header: lower case; empty if Grafana signs no time.
        smn_cert_hosts, smn_confirm_hosts: lower case, each `host` or `host:port`.
    """

    event_sink: str
    source: str = "/bms-autostop"
    sink_token: Secret = field(default_factory=Secret)
    sink_token_file: str = ""
    sink_ca: str = ""
    extensions: Mapping[str, str] = field(default_factory=dict)
    max_body: int = 1024 * 1024
    log_level: str = "INFO"
    dry_run: bool = False
    id_label: str = "server_id"
    alertmanager_token: Secret = field(default_factory=Secret)
    grafana_token: Secret = field(default_factory=Secret)
    grafana_hmac_secret: Secret = field(default_factory=Secret)
    grafana_timestamp_header: str = ""
    aodh_token: Secret = field(default_factory=Secret)
    azure_token: Secret = field(default_factory=Secret)
    eventbridge_token: Secret = field(default_factory=Secret)
    gitlab_token: Secret = field(default_factory=Secret)
    gitlab_signing_token: Secret = field(default_factory=Secret)
    slack_signing_secret: Secret = field(default_factory=Secret)
    slack_people: People = field(default_factory=People)
    mattermost_tokens: tuple[Secret, ...] = ()
    mattermost_people: People = field(default_factory=People)
    teams_secret: Secret = field(default_factory=Secret)
    teams_people: People = field(default_factory=People)
    rocketchat_tokens: tuple[Secret, ...] = ()
    rocketchat_people: People = field(default_factory=People)
    smn_topics: frozenset[str] = frozenset()
    smn_cert_hosts: frozenset[str] = frozenset(_SMN_HOSTS)
    smn_confirm_hosts: frozenset[str] = frozenset(_CONFIRM_HOSTS)


def from_environ(environ: Mapping[str, str]) -> WebhookSettings:
    """Read and check the settings. An empty variable counts as unset.

    Raises:
        SettingsError: with every fault there is.
    """
    reading = Reading(environ)
    known = [variable.name for variable in (*WEBHOOK_VARIABLES, *VARIABLES, *NOTIFY_VARIABLES)]
    refuse(reading, strange_names(environ, known), known)
    named, injected = (reading.value(name, _event_sink, None) for name in ("AUTOSTOP_EVENT_SINK", "K_SINK"))
    if reading.get("AUTOSTOP_EVENT_SINK") is None and reading.get("K_SINK") is None:
        reading.faults.append("AUTOSTOP_EVENT_SINK: must be set (or K_SINK): stop requests are posted there.")
    shared = read_shared(reading)
    grafana_hmac_secret = Secret(reading.get("AUTOSTOP_GRAFANA_HMAC_SECRET") or "")
    timestamp_header = reading.value("AUTOSTOP_GRAFANA_TIMESTAMP_HEADER", _header_name, "")
    if timestamp_header and not grafana_hmac_secret:
        reading.faults.append("AUTOSTOP_GRAFANA_TIMESTAMP_HEADER: needs AUTOSTOP_GRAFANA_HMAC_SECRET.")
    topics = _each(reading, "AUTOSTOP_SMN_TOPICS", SMN_TOPIC, "has what is no URN of an SMN topic")
    if topics and find_spec("cryptography") is None:
        reading.faults.append("AUTOSTOP_SMN_TOPICS: needs the extra `smn`: pip install 'bms-autostop[smn]'.")
    made = WebhookSettings(
        event_sink=named or injected or "",
        source=shared.source,
        sink_token=shared.sink_token,
        sink_token_file=shared.sink_token_file,
        sink_ca=shared.sink_ca,
        extensions=shared.extensions,
        max_body=shared.max_body,
        log_level=shared.log_level,
        dry_run=reading.value("AUTOSTOP_DRY_RUN", boolean, False),
        id_label=reading.get("AUTOSTOP_ID_LABEL") or "server_id",
        alertmanager_token=_token(reading, "AUTOSTOP_ALERTMANAGER_TOKEN"),
        grafana_token=_token(reading, "AUTOSTOP_GRAFANA_TOKEN"),
        grafana_hmac_secret=grafana_hmac_secret,
        grafana_timestamp_header=timestamp_header,
        aodh_token=_token(reading, "AUTOSTOP_AODH_TOKEN"),
        azure_token=_token(reading, "AUTOSTOP_AZURE_TOKEN"),
        eventbridge_token=_token(reading, "AUTOSTOP_EVENTBRIDGE_TOKEN"),
        gitlab_token=_token(reading, "AUTOSTOP_GITLAB_TOKEN"),
        gitlab_signing_token=Secret(reading.value("AUTOSTOP_GITLAB_SIGNING_TOKEN", _webhook_key, "")),
        slack_signing_secret=_token(reading, "AUTOSTOP_SLACK_SIGNING_SECRET"),
        slack_people=_people(reading, "SLACK"),
        mattermost_tokens=reading.secrets("AUTOSTOP_MATTERMOST_TOKENS"),
        mattermost_people=_people(reading, "MATTERMOST"),
        teams_secret=Secret(reading.value("AUTOSTOP_TEAMS_SECRET", _base64, "")),
        teams_people=_people(reading, "TEAMS"),
        rocketchat_tokens=reading.secrets("AUTOSTOP_ROCKETCHAT_TOKENS"),
        rocketchat_people=_people(reading, "ROCKETCHAT"),
        smn_topics=topics,
        smn_cert_hosts=_hosts(reading, "AUTOSTOP_SMN_CERT_HOSTS", _SMN_HOSTS),
        smn_confirm_hosts=_hosts(reading, "AUTOSTOP_SMN_CONFIRM_HOSTS", _CONFIRM_HOSTS),
    )
    if reading.faults:
        raise SettingsError(tuple(reading.faults))
    return made


def _event_sink(text: str) -> str:
    if text.strip().startswith("smn:"):
        raise ValueError("cannot be an SMN topic: webhooks have no login at the cloud")
    return http_url(text)


def _token(reading: Reading, name: str) -> Secret:
    return Secret(reading.value(name, token, ""))


def _people(reading: Reading, chat: str) -> People:
    return People(
        users=frozenset(reading.parts(f"AUTOSTOP_{chat}_USERS")),
        channels=frozenset(reading.parts(f"AUTOSTOP_{chat}_CHANNELS")),
    )


def _each(reading: Reading, name: str, form: re.Pattern[str], fault: str) -> frozenset[str]:
    parts = reading.parts(name)
    if not all(form.fullmatch(part) for part in parts):
        reading.faults.append(f"{name}: {fault}.")
    return frozenset(parts)


def _hosts(reading: Reading, name: str, default: tuple[str, ...]) -> frozenset[str]:
    named = _each(reading, name, _HOST, "has what is no host, with or without a port")
    return frozenset(host.lower() for host in named or default)


def _header_name(text: str) -> str:
    if not _HEADER_NAME.fullmatch(text):
        raise ValueError("is no name of a header")
    return text.lower()


def _base64(text: str) -> str:
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("is no base64") from None
    return text


def _webhook_key(text: str) -> str:
    if not _base64(text.removeprefix("whsec_")):
        raise ValueError("has no key after whsec_")
    return text
