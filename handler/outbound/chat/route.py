"""Where a result is told: the chat that it was asked from, or the configured one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from handler.keep.model import AnyReport
from handler.settings.chat_actions import mac
from handler.settings.env import Secret
from handler.settings.notify_chat import ChatName, NotifySettings

# One way to read it for every parser: no user, no backslash, no upper-case scheme, no character beyond ASCII.
_URL = re.compile(r"(https://[A-Za-z0-9.-]+(?::\d{1,5})?|http://127\.0\.0\.1:\d{1,5})(/[A-Za-z0-9_/-]*)", re.ASCII)
# What a command's `response_url` looks like. Other paths of the same hosts can do more than answer a command.
_PATHS: Mapping[ChatName, re.Pattern[str]] = {
    ChatName.SLACK: re.compile(r"/(commands|actions)/.+"),
    ChatName.MATTERMOST: re.compile(r"(/[^/]+)*/hooks/commands/[^/]+"),
}


@dataclass(frozen=True, slots=True)
class Target:
    """Where to post.

    Attributes:
        url: whoever knows it can post.
        reply: it is the address that the command itself brought, not a configured one.
    """

    chat: ChatName
    url: Secret
    reply: bool


class MattermostButtons(NamedTuple):
    """What Mattermost needs for buttons.

    Attributes:
        url: where it sends clicks to.
        key: proves that a button is ours.
    """

    url: str
    key: Secret

    def context(self, action: str, value: str) -> dict[str, str]:
        """Return what Mattermost sends back with a click."""
        return {"action": action, "value": value, "mac": mac(self.key.reveal(), action, value)}


def targets(report: AnyReport, settings: NotifySettings) -> tuple[Target, ...]:
    """Where to tell a result: the first that takes it is enough.

    The address that the event brings is somebody else's text. It is used only if it is https, its host is exactly one
    that the settings name for a chat, and its path is that of an answer to a command.
    """
    request = report.request
    found: list[Target] = []
    asked = _answered(request.reply_to or "", settings)
    if asked is not None and request.reply_to:
        found.append(Target(asked, Secret(request.reply_to), reply=True))
    for chat in (asked or _spoken(request.source), settings.default):
        if chat is not None and chat in settings.webhooks:
            found.append(Target(chat, settings.webhooks[chat], reply=False))
            break
    return tuple(found)


def _answered(url: str, settings: NotifySettings) -> ChatName | None:
    """The chat that this is an address for an answer of; None if it is none."""
    parts = _URL.fullmatch(url)
    if parts is None:
        return None
    origin = parts[1].lower().removesuffix(":443")
    return next(
        (chat for chat, origins in settings.origins.items() if origin in origins and _PATHS[chat].fullmatch(parts[2])),
        None,
    )


def _spoken(source: str) -> ChatName | None:
    """The chat that an event of `receive_webhook` comes from: its source ends like the path it was sent to."""
    word = source.rpartition("/")[2]
    return next((chat for chat in ChatName if chat == word and chat is not ChatName.TEXT), None)
