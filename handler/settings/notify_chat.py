"""The settings of `notify_chat`. A chat whose URL is not set is not posted to."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta, tzinfo
from enum import StrEnum
from typing import NamedTuple

from handler.settings import declared
from handler.settings.chat import ACTION_KEYS, SLACK_HOSTS, hosts_as_origins
from handler.settings.common import DEADLINE, LOG_LEVEL, MAX_BODY, Callers, read_callers
from handler.settings.env import Env, Secret, Setting, choice, http_url


class ChatName(StrEnum):
    """The chats that can be posted to."""

    SLACK = "slack"
    MATTERMOST = "mattermost"
    TEAMS = "teams"
    ROCKETCHAT = "rocketchat"
    TEXT = "text"


class NotifySettings(NamedTuple):
    """The settings of `notify_chat`, checked.

    Attributes:
        callers: who may call, as for `stop_servers`.
        webhooks: the URLs that are posted to: secrets, since everyone who knows one can post.
        default: the chat that gets the results that no chat asked for; None if there is none.
        origins: for each chat whose commands have a `response_url`, the origins it may have, in lower case and without
            the port of https.
        deadline: time budget of one request.
        max_body: bytes.
        webhook_url: address of `receive_webhook` for Mattermost, without a slash at its end; None for no buttons there.
        action_keys: the first one signs Mattermost's buttons.
        timezone: in which notices name times beside UTC, or None.
    """

    callers: Callers
    webhooks: Mapping[ChatName, Secret]
    default: ChatName | None
    origins: Mapping[ChatName, frozenset[str]]
    deadline: timedelta
    max_body: int
    log_level: str
    webhook_url: str | None
    action_keys: tuple[Secret, ...]
    timezone: tzinfo | None


def _webhook(text: str) -> Secret:
    return Secret(http_url(text))


def _timezone(text: str) -> tzinfo:
    """Parse the IANA name of a time zone."""
    from zoneinfo import ZoneInfo

    try:
        return ZoneInfo(text)
    except (KeyError, ValueError, OSError):
        raise ValueError("must be the IANA name of a time zone that is known here, such as Europe/Berlin") from None


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
TIMEZONE = Setting(
    "AUTOSTOP_NOTIFY_TIMEZONE",
    _timezone,
    "IANA name of the time zone in which notices name the time of a stop, beside UTC",
    unset="UTC alone",
)
WEBHOOK_URL = Setting(
    "AUTOSTOP_WEBHOOK_URL",
    http_url,
    "address of `receive_webhook` as Mattermost reaches it, for the buttons in its messages; needs "
    "`AUTOSTOP_ACTION_KEYS`",
    unset="no buttons in Mattermost",
)
MATTERMOST_HOSTS = Setting(
    "AUTOSTOP_MATTERMOST_HOSTS", hosts_as_origins, "hosts that a `response_url` of Mattermost may have"
)

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
    webhook_url, action_keys = env.optional(WEBHOOK_URL), env.optional(ACTION_KEYS) or ()
    if webhook_url is not None and env.text(ACTION_KEYS) is None:
        env.note(ACTION_KEYS, "must be set with AUTOSTOP_WEBHOOK_URL")
    settings = NotifySettings(
        callers=callers,
        webhooks=webhooks,
        default=_default(env, webhooks),
        origins=origins,
        deadline=env.value(DEADLINE),
        max_body=env.value(MAX_BODY),
        log_level=env.value(LOG_LEVEL),
        webhook_url=webhook_url.rstrip("/") if webhook_url else None,
        action_keys=action_keys,
        timezone=env.optional(TIMEZONE),
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
