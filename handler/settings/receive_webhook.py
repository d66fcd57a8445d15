"""The settings of `receive_webhook`. A producer whose secret is not set is switched off."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from importlib.util import find_spec
from typing import NamedTuple

from handler.settings import common, declared
from handler.settings.chat import ACTION_KEYS, SLACK_HOSTS
from handler.settings.common import SinkSettings
from handler.settings.env import (
    Env,
    Secret,
    Setting,
    base64_secret,
    bearer_token,
    choice,
    http_url,
    long_secret,
    long_secrets,
    needs_extra,
    word_set,
    words,
)
from handler.stop.model import Approver

_OFF = "off"
_SMN_HOSTS = "smn.eu-de.otc.t-systems.com,smn.eu-nl.otc.t-systems.com,smn.eu-ch2.sc.otc.t-systems.com"


class People(NamedTuple):
    """The users that may request a stop in one chat; none if empty.

    Attributes:
        users: their ids in the chat.
        channels: ids of the channels in which they may.
    """

    users: frozenset[str] = frozenset()
    channels: frozenset[str] = frozenset()


class WebhookSettings(NamedTuple):
    """The settings of `receive_webhook`, checked. What is empty is switched off.

    Attributes:
        sink: URL that stop requests are posted to.
        keep_sink: URL that keep requests are posted to.
        max_keep: the longest keep.
        source: beginning of the `source` of each event; the producer's path follows.
        extensions: attributes of every event sent.
        max_body: bytes.
        dry_run: whether every event is marked as a dry run.
        id_label: name of the label, property or dimension that has a server's id.
        grafana_timestamp_header: lower case; empty if Grafana signs no time.
        smn_cert_hosts, smn_confirm_hosts: lower case, each `host` or `host:port`.
        chat_approval: who must approve the stops that are requested in chats; None without approvals.
        slack_origins: where a `response_url` of Slack may lead.
        action_keys: one of them must have signed a button of Mattermost.
    """

    sink: SinkSettings
    keep_sink: SinkSettings
    max_keep: timedelta
    source: str
    extensions: Mapping[str, str]
    max_body: int
    log_level: str
    dry_run: bool
    id_label: str
    alertmanager_token: Secret
    grafana_token: Secret
    grafana_hmac_secret: Secret
    grafana_timestamp_header: str
    aodh_token: Secret
    azure_token: Secret
    eventbridge_token: Secret
    gitlab_token: Secret
    gitlab_signing_token: Secret
    slack_signing_secret: Secret
    slack_people: People
    mattermost_tokens: tuple[Secret, ...]
    mattermost_people: People
    teams_secret: Secret
    teams_people: People
    rocketchat_tokens: tuple[Secret, ...]
    rocketchat_people: People
    smn_topics: frozenset[str]
    smn_cert_hosts: frozenset[str]
    smn_confirm_hosts: frozenset[str]
    chat_approval: Approver | None
    slack_origins: frozenset[str]
    action_keys: tuple[Secret, ...]


def _approval(text: str) -> Approver | None:
    word = choice(_OFF, *Approver)(text)
    return None if word == _OFF else Approver(word)


def _sink(text: str) -> str:
    if text.startswith("smn:"):
        raise ValueError("must not be an SMN topic: webhooks have no login at the cloud")
    return http_url(text)


def _header_name(text: str) -> str:
    if text and not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", text, re.ASCII):
        raise ValueError("must be the name of a header")
    return text.lower()


def _gitlab_key(text: str) -> Secret:
    base64_secret(text.removeprefix("whsec_"))
    return Secret(text)


def _topics(text: str) -> frozenset[str]:
    return frozenset(map(common.urn_of_topic, words(text)))


def _hosts(text: str) -> frozenset[str]:
    hosts = word_set(text.lower())
    if not all(re.fullmatch(r"[a-z0-9.-]+(:\d{1,5})?", host, re.ASCII) for host in hosts):
        raise ValueError("must be a list of hosts, with or without a port")
    return hosts


def _token(name: str, description: str) -> Setting[Secret]:
    return Setting(name, bearer_token, description, secret=True)


def _people(prefix: str) -> tuple[Setting[frozenset[str]], Setting[frozenset[str]]]:
    return (
        Setting(f"{prefix}_USERS", word_set, "ids of the users who may ask for a stop, comma-separated"),
        Setting(f"{prefix}_CHANNELS", word_set, "ids of the channels in which they may, comma-separated"),
    )


EVENT_SINK = Setting(
    "AUTOSTOP_EVENT_SINK",
    _sink,
    "`http(s)://` URL that stop requests are posted to; this or `K_SINK` must be set",
    unset="`K_SINK`",
)
KEEP_SINK = Setting(
    "AUTOSTOP_KEEP_SINK",
    _sink,
    "`http(s)://` URL that keep requests from chats are posted to, with the same token",
    unset="that of stop requests",
)
ID_LABEL = Setting(
    "AUTOSTOP_ID_LABEL", str, "label, property, dimension or variable that holds the server's id", "server_id"
)
ALERTMANAGER_TOKEN = _token(
    "AUTOSTOP_ALERTMANAGER_TOKEN", "switches `/alertmanager` on: bearer token or basic-auth password"
)
GRAFANA_TOKEN = _token("AUTOSTOP_GRAFANA_TOKEN", "switches `/grafana` on: bearer token or basic-auth password")
GRAFANA_HMAC_SECRET = Setting(
    "AUTOSTOP_GRAFANA_HMAC_SECRET",
    long_secret,
    "switches `/grafana` on: key of the signature. Both set: both needed",
    secret=True,
)
GRAFANA_TIMESTAMP_HEADER = Setting(
    "AUTOSTOP_GRAFANA_TIMESTAMP_HEADER", _header_name, "header with the signed time, as in Grafana's contact point"
)
AODH_TOKEN = _token("AUTOSTOP_AODH_TOKEN", "switches `/aodh` on: query parameter `token` of the alarm action's URL")
AZURE_TOKEN = _token("AUTOSTOP_AZURE_TOKEN", "switches `/azure-monitor` on: bearer token, or query parameter `token`")
EVENTBRIDGE_TOKEN = _token(
    "AUTOSTOP_EVENTBRIDGE_TOKEN", "switches `/eventbridge` on: bearer token or basic-auth password"
)
GITLAB_TOKEN = _token("AUTOSTOP_GITLAB_TOKEN", "switches `/gitlab` on: the webhook's secret token")
GITLAB_SIGNING_TOKEN = Setting(
    "AUTOSTOP_GITLAB_SIGNING_TOKEN",
    _gitlab_key,
    "switches `/gitlab` on: key of the signature (`whsec_…`). Both set: both needed",
    secret=True,
)
CHAT_APPROVAL = Setting(
    "AUTOSTOP_CHAT_APPROVAL",
    _approval,
    "who must approve the stops that people ask for in chats: `off`, `self` (any person, also the requester) or "
    "`other` (another person)",
    "off",
)
SLACK_SIGNING_SECRET = _token("AUTOSTOP_SLACK_SIGNING_SECRET", "switches `/slack` on: the app's signing secret")
SLACK_USERS, SLACK_CHANNELS = _people("AUTOSTOP_SLACK")
MATTERMOST_TOKENS = Setting(
    "AUTOSTOP_MATTERMOST_TOKENS",
    long_secrets,
    "switches `/mattermost` on: tokens of its commands and webhooks, comma-separated",
    secret=True,
)
MATTERMOST_USERS, MATTERMOST_CHANNELS = _people("AUTOSTOP_MATTERMOST")
TEAMS_SECRET = Setting(
    "AUTOSTOP_TEAMS_SECRET",
    base64_secret,
    "switches `/teams` on: security token as Teams shows it (base64)",
    secret=True,
)
TEAMS_USERS, TEAMS_CHANNELS = _people("AUTOSTOP_TEAMS")
ROCKETCHAT_TOKENS = Setting(
    "AUTOSTOP_ROCKETCHAT_TOKENS",
    long_secrets,
    "switches `/rocketchat` on: tokens of its outgoing webhooks, comma-separated",
    secret=True,
)
ROCKETCHAT_USERS, ROCKETCHAT_CHANNELS = _people("AUTOSTOP_ROCKETCHAT")
SMN_TOPICS = Setting("AUTOSTOP_SMN_TOPICS", _topics, "switches `/smn` on: URNs of the topics that are accepted")
SMN_CERT_HOSTS = Setting(
    "AUTOSTOP_SMN_CERT_HOSTS",
    _hosts,
    "hosts that a signing certificate may come from",
    _SMN_HOSTS,
    unset="Open Telekom Cloud's",
)
# A subscription is confirmed at the console's host; which one the second Swiss cloud uses is not documented.
SMN_CONFIRM_HOSTS = Setting(
    "AUTOSTOP_SMN_CONFIRM_HOSTS",
    _hosts,
    "hosts that a subscription may be confirmed at",
    f"console.otc.t-systems.com,{_SMN_HOSTS}",
    unset="Open Telekom Cloud's",
)


def from_environ(environ: Mapping[str, str]) -> WebhookSettings:
    """Read and check the settings. An empty variable counts as unset.

    Raises:
        SettingsError: with every violation.
    """
    env = Env(environ)
    named, injected = env.optional(EVENT_SINK), env.optional(common.K_SINK)
    if env.text(EVENT_SINK) is None and env.text(common.K_SINK) is None:
        env.note(EVENT_SINK, "must be set (or K_SINK): stop requests are posted there")
    if env.text(GRAFANA_TIMESTAMP_HEADER) and not env.text(GRAFANA_HMAC_SECRET):
        env.note(GRAFANA_TIMESTAMP_HEADER, "needs AUTOSTOP_GRAFANA_HMAC_SECRET")
    if env.text(SMN_TOPICS) and find_spec("cryptography") is None:
        env.note(SMN_TOPICS, needs_extra("smn"))
    if env.value(CHAT_APPROVAL) is Approver.OTHER and not _two_people(env):
        env.note(CHAT_APPROVAL, "must be other only if a chat is switched on in which two users may ask for a stop")
    sink = common.read_sink(env, named or injected or "")
    keep_sink = env.optional(KEEP_SINK)
    settings = WebhookSettings(
        sink=sink,
        keep_sink=sink._replace(url=keep_sink) if keep_sink else sink,
        max_keep=env.value(common.MAX_KEEP),
        source=env.value(common.SOURCE),
        extensions=common.read_extensions(env),
        max_body=env.value(common.MAX_BODY),
        log_level=env.value(common.LOG_LEVEL),
        dry_run=env.value(common.DRY_RUN),
        id_label=env.value(ID_LABEL),
        alertmanager_token=env.secret(ALERTMANAGER_TOKEN),
        grafana_token=env.secret(GRAFANA_TOKEN),
        grafana_hmac_secret=env.secret(GRAFANA_HMAC_SECRET),
        grafana_timestamp_header=env.value(GRAFANA_TIMESTAMP_HEADER),
        aodh_token=env.secret(AODH_TOKEN),
        azure_token=env.secret(AZURE_TOKEN),
        eventbridge_token=env.secret(EVENTBRIDGE_TOKEN),
        gitlab_token=env.secret(GITLAB_TOKEN),
        gitlab_signing_token=env.secret(GITLAB_SIGNING_TOKEN),
        slack_signing_secret=env.secret(SLACK_SIGNING_SECRET),
        slack_people=People(env.value(SLACK_USERS), env.value(SLACK_CHANNELS)),
        mattermost_tokens=env.value(MATTERMOST_TOKENS),
        mattermost_people=People(env.value(MATTERMOST_USERS), env.value(MATTERMOST_CHANNELS)),
        teams_secret=env.secret(TEAMS_SECRET),
        teams_people=People(env.value(TEAMS_USERS), env.value(TEAMS_CHANNELS)),
        rocketchat_tokens=env.value(ROCKETCHAT_TOKENS),
        rocketchat_people=People(env.value(ROCKETCHAT_USERS), env.value(ROCKETCHAT_CHANNELS)),
        smn_topics=env.value(SMN_TOPICS),
        smn_cert_hosts=env.value(SMN_CERT_HOSTS),
        smn_confirm_hosts=env.value(SMN_CONFIRM_HOSTS),
        chat_approval=env.value(CHAT_APPROVAL),
        slack_origins=env.value(SLACK_HOSTS),
        action_keys=env.optional(ACTION_KEYS) or (),
    )
    env.finish(declared)
    return settings


def _two_people(env: Env) -> bool:
    """Whether there is a chat in which another person than the requester can approve a plan."""
    chats = (
        (SLACK_SIGNING_SECRET, SLACK_USERS),
        (MATTERMOST_TOKENS, MATTERMOST_USERS),
        (TEAMS_SECRET, TEAMS_USERS),
        (ROCKETCHAT_TOKENS, ROCKETCHAT_USERS),
    )
    return any(env.text(secret) and len(env.value(users)) > 1 for secret, users in chats)
