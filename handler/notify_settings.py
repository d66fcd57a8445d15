"""The environment of `notify_chat` as one frozen object, read once at start; every fault is reported at once.

A chat whose URL is not set is not posted to. The other targets' settings may stand beside these.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum

from handler.notify_variables import NOTIFY_VARIABLES
from handler.settings import VARIABLES, Callers, read_callers
from handler.shared_settings import SettingsError, read_shared, refuse, strange_names
from handler.values import Reading, Secret, choice, duration, http_url
from handler.webhook_variables import WEBHOOK_VARIABLES

_HOST = re.compile(r"[a-z0-9.-]+(:\d{1,5})?", re.ASCII)
# For trying it out on one machine. No other address may do without https.
_LOOPBACK = re.compile(r"http://127\.0\.0\.1:\d{1,5}", re.ASCII)


class ChatName(StrEnum):
    """What can be posted to."""

    SLACK = "slack"
    MATTERMOST = "mattermost"
    TEAMS = "teams"
    ROCKETCHAT = "rocketchat"
    TEXT = "text"


# Where a command brings an address for its answer, and the hosts that such an address may have if none are set.
_ANSWERED: Mapping[ChatName, tuple[str, ...]] = {ChatName.SLACK: ("hooks.slack.com",), ChatName.MATTERMOST: ()}


@dataclass(frozen=True, slots=True)
class NotifySettings:
    """Everything that the environment says to `notify_chat`, checked.

    Attributes:
        callers, webhook_origins: who may call, and subscribe, as for `stop_servers`.
        webhooks: the URLs that are posted to. Whoever knows one can post, so they are secrets.
        default: which of them gets what no chat asked for; None if there is none.
        origins: for each chat whose commands bring an address for the answer, the origins it may have, lower case,
            without the port if it is https's own.
        deadline: whole budget for one request.
        max_body: bytes.
    """

    callers: Callers
    webhook_origins: frozenset[str] = frozenset()
    webhooks: Mapping[ChatName, Secret] = field(default_factory=dict)
    default: ChatName | None = None
    origins: Mapping[ChatName, frozenset[str]] = field(default_factory=dict)
    deadline: timedelta = timedelta(seconds=50)
    max_body: int = 1024 * 1024
    log_level: str = "INFO"


def from_environ(environ: Mapping[str, str]) -> NotifySettings:
    """Read and check the settings. An empty variable counts as unset.

    Raises:
        SettingsError: with every fault there is.
    """
    reading = Reading(environ)
    known = [variable.name for variable in (*NOTIFY_VARIABLES, *VARIABLES, *WEBHOOK_VARIABLES)]
    refuse(reading, strange_names(environ, known), known)
    callers = read_callers(reading)
    shared = read_shared(reading)
    urls = {chat: reading.value(f"AUTOSTOP_NOTIFY_{chat.upper()}_URL", http_url, "") for chat in ChatName}
    webhooks = {chat: Secret(url) for chat, url in urls.items() if url}
    origins = {chat: _origins(reading, chat, hosts) for chat, hosts in _ANSWERED.items()}
    if origins[ChatName.SLACK] & origins[ChatName.MATTERMOST]:
        reading.faults.append("AUTOSTOP_MATTERMOST_HOSTS: names a host of AUTOSTOP_SLACK_HOSTS too.")
    deadline = reading.value("AUTOSTOP_DEADLINE", duration, timedelta(seconds=50))
    if deadline < timedelta(seconds=1):
        reading.faults.append("AUTOSTOP_DEADLINE: must be at least 1s.")
    made = NotifySettings(
        callers=callers,
        webhook_origins=frozenset(part.lower() for part in reading.parts("AUTOSTOP_WEBHOOK_ORIGINS")),
        webhooks=webhooks,
        default=_default(reading, webhooks),
        origins=origins,
        deadline=deadline,
        max_body=shared.max_body,
        log_level=shared.log_level,
    )
    if reading.faults:
        raise SettingsError(tuple(reading.faults))
    return made


def _default(reading: Reading, webhooks: Mapping[ChatName, Secret]) -> ChatName | None:
    name = "AUTOSTOP_NOTIFY_DEFAULT"
    word = reading.value(name, choice(*ChatName), None)
    if word is None:
        if len(webhooks) > 1 and reading.get(name) is None:
            reading.faults.append(f"{name}: must be set, since several chats are: which gets what no chat asked for?")
        return next(iter(webhooks), None)
    if ChatName(word) not in webhooks:
        reading.faults.append(f"{name}: needs AUTOSTOP_NOTIFY_{word.upper()}_URL.")
    return ChatName(word)


def _origins(reading: Reading, chat: ChatName, default: tuple[str, ...]) -> frozenset[str]:
    name = f"AUTOSTOP_{chat.upper()}_HOSTS"
    hosts = [part.lower() for part in reading.parts(name)] or default
    if not all(_HOST.fullmatch(host) or _LOOPBACK.fullmatch(host) for host in hosts):
        reading.faults.append(f"{name}: has what is no host, with or without a port.")
    return frozenset(host if host.startswith("http://") else f"https://{host.removesuffix(':443')}" for host in hosts)
