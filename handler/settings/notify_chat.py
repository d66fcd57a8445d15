"""The settings of `notify_chat`. A chat whose URL is not set is not posted to."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from handler.settings import declared
from handler.settings.common import DEADLINE, LOG_LEVEL, MAX_BODY, Callers, read_callers
from handler.settings.env import Env, Secret, Setting, choice, http_url, words


class ChatName(StrEnum):
    """The chats that can be posted to."""

    SLACK = "slack"
    MATTERMOST = "mattermost"
    TEAMS = "teams"
    ROCKETCHAT = "rocketchat"
    TEXT = "text"


@dataclass(frozen=True, slots=True)
class NotifySettings:
    """The settings of `notify_chat`, checked.

    Attributes:
        callers: who may call, as for `stop_servers`.
        webhooks: the URLs that are posted to: secrets, since everyone who knows one can post.
        default: the chat that gets the results that no chat asked for; None if there is none.
        origins: for each chat whose commands have a `response_url`, the origins it may have, in lower case and without
            the port of https.
        deadline: time budget of one request.
        max_body: bytes.
    """

    callers: Callers
    webhooks: Mapping[ChatName, Secret]
    default: ChatName | None
    origins: Mapping[ChatName, frozenset[str]]
    deadline: timedelta
    max_body: int
    log_level: str


def _webhook(text: str) -> Secret:
    return Secret(http_url(text))


def _origins(text: str) -> frozenset[str]:
    """Parse hosts, to origins, of https but for addresses of this machine, which are for trials."""
    hosts = words(text.lower())
    form = r"[a-z0-9.-]+(:\d{1,5})?|http://127\.0\.0\.1:\d{1,5}"
    if not all(re.fullmatch(form, host, re.ASCII) for host in hosts):
        raise ValueError("must be a list of hosts, with or without a port")
    return frozenset(host if host.startswith("http://") else f"https://{host.removesuffix(':443')}" for host in hosts)


SLACK_URL = Setting("AUTOSTOP_NOTIFY_SLACK_URL", _webhook, "incoming webhook of Slack", secret=True)
MATTERMOST_URL = Setting("AUTOSTOP_NOTIFY_MATTERMOST_URL", _webhook, "incoming webhook of Mattermost", secret=True)
TEAMS_URL = Setting(
    "AUTOSTOP_NOTIFY_TEAMS_URL", _webhook, "webhook of a Teams workflow that posts Adaptive Cards", secret=True
)
ROCKETCHAT_URL = Setting("AUTOSTOP_NOTIFY_ROCKETCHAT_URL", _webhook, "incoming webhook of Rocket.Chat", secret=True)
TEXT_URL = Setting("AUTOSTOP_NOTIFY_TEXT_URL", _webhook, "URL that plain text is posted to", secret=True)
DEFAULT = Setting(
    "AUTOSTOP_NOTIFY_DEFAULT",
    choice(*ChatName),
    "which chat gets the results that no chat asked for: `slack`, `mattermost`, `teams`, `rocketchat` or `text`",
    unset="the only one",
)
SLACK_HOSTS = Setting(
    "AUTOSTOP_SLACK_HOSTS", _origins, "hosts that a `response_url` of Slack may have", "hooks.slack.com"
)
MATTERMOST_HOSTS = Setting("AUTOSTOP_MATTERMOST_HOSTS", _origins, "hosts that a `response_url` of Mattermost may have")

_URLS = {
    ChatName.SLACK: SLACK_URL,
    ChatName.MATTERMOST: MATTERMOST_URL,
    ChatName.TEAMS: TEAMS_URL,
    ChatName.ROCKETCHAT: ROCKETCHAT_URL,
    ChatName.TEXT: TEXT_URL,
}


def from_environ(environ: Mapping[str, str]) -> NotifySettings:
    """Read and check the settings. An empty variable counts as unset.

    Raises:
        SettingsError: with every violation.
    """
    env = Env(environ)
    callers = read_callers(env)
    webhooks = {chat: url for chat, setting in _URLS.items() if (url := env.optional(setting))}
    origins = {ChatName.SLACK: env.value(SLACK_HOSTS), ChatName.MATTERMOST: env.value(MATTERMOST_HOSTS)}
    if origins[ChatName.SLACK] & origins[ChatName.MATTERMOST]:
        env.note(MATTERMOST_HOSTS, "must not name a host of AUTOSTOP_SLACK_HOSTS")
    settings = NotifySettings(
        callers=callers,
        webhooks=webhooks,
        default=_default(env, webhooks),
        origins=origins,
        deadline=env.value(DEADLINE),
        max_body=env.value(MAX_BODY),
        log_level=env.value(LOG_LEVEL),
    )
    env.finish(declared)
    return settings


def _default(env: Env, webhooks: Mapping[ChatName, Secret]) -> ChatName | None:
    chat: ChatName | None = env.optional(DEFAULT)
    if chat is None:
        if len(webhooks) > 1 and env.text(DEFAULT) is None:
            env.note(DEFAULT, "must be set if several chats are")
        return next(iter(webhooks), None)
    if not env.text(_URLS[chat]):
        env.note(DEFAULT, f"needs {_URLS[chat].name}")
    return chat
