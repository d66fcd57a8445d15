"""The chats to which a result is posted: the one that asked, or the configured one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from handler.keep.model import AnyReport
from handler.settings.chat import mac
from handler.settings.env import Secret
from handler.settings.notify_chat import ChatName, NotifySettings

# URLs that every parser reads alike: no user, no backslash, no upper-case scheme, no character beyond ASCII.
_URL = re.compile(r"(https://[A-Za-z0-9.-]+(?::\d{1,5})?|http://127\.0\.0\.1:\d{1,5})(/[A-Za-z0-9_/-]*)", re.ASCII)
# Paths of a command's `response_url`. Other paths of the same hosts can do more than answer a command.
_PATHS: Mapping[ChatName, re.Pattern[str]] = {
    ChatName.SLACK: re.compile(r"/(commands|actions)/.+"),
    ChatName.MATTERMOST: re.compile(r"(/[^/]+)*/hooks/commands/[^/]+"),
}


@dataclass(frozen=True, slots=True)
class Target:
    """Where to post.

    Attributes:
        url: a secret, since everyone who knows it can post.
        reply: whether it is the `response_url` of a command, not a configured one.
    """

    chat: ChatName
    url: Secret
    reply: bool


class MattermostButtons(NamedTuple):
    """What Mattermost needs for buttons: where clicks are sent, and the key of the MAC that authenticates a button."""

    url: str
    key: Secret

    def context(self, action: str, value: str) -> dict[str, str]:
        """Return the context that Mattermost returns with a click."""
        return {"action": action, "value": value, "mac": mac(self.key.reveal(), action, value)}


def targets(report: AnyReport, settings: NotifySettings) -> tuple[Target, ...]:
    """Return where to post a result; the first that accepts it is enough.

    The URL in the event is untrusted input. It is used only if it is https, its host is exactly one that the settings
    name for a chat, and its path is that of a response to a command.
    """
    request = report.request
    found: list[Target] = []
    asked = _chat_of_url(request.reply_to or "", settings)
    if asked is not None and request.reply_to:
        found.append(Target(asked, Secret(request.reply_to), reply=True))
    for chat in (asked or _chat_of_source(request.source), settings.default):
        if chat is not None and chat in settings.webhooks:
            found.append(Target(chat, settings.webhooks[chat], reply=False))
            break
    return tuple(found)


def _chat_of_url(url: str, settings: NotifySettings) -> ChatName | None:
    """Return the chat of a `response_url`; None if it is not one."""
    parts = _URL.fullmatch(url)
    if parts is None:
        return None
    origin = parts[1].lower().removesuffix(":443")
    return next(
        (chat for chat, origins in settings.origins.items() if origin in origins and _PATHS[chat].fullmatch(parts[2])),
        None,
    )


def _chat_of_source(source: str) -> ChatName | None:
    """Return the chat that an event of `receive_webhook` comes from: the last part of its source is the path."""
    word = source.rpartition("/")[2]
    return next((chat for chat in ChatName if chat == word and chat is not ChatName.TEXT), None)
