"""What all chats have in common: who may, what was understood, and the first answer.

The first answer says what was understood and whether it was handed on. It never claims what has not happened: whether
the servers were stopped is in the result, which comes later.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import assert_never
from urllib.parse import urlsplit

from handler.errors import Acceptance
from handler.event_types import STOP_REQUESTED
from handler.inbound.http.responses import Answer
from handler.inbound.skip import Skip
from handler.inbound.webhooks.fields import LONGEST_REASON, LONGEST_REPLY_TO, LONGEST_REQUESTER, cut, identity, text
from handler.inbound.webhooks.grammar import (
    HELP,
    ApproveCommand,
    Command,
    HelpCommand,
    KeepCommand,
    NotUnderstood,
    ReleaseCommand,
    StopCommand,
    Verb,
)
from handler.inbound.webhooks.model import WebhookRequest
from handler.settings.receive_webhook import People
from handler.stop.model import StopRequest

_MOST_SHOWN, _LONGEST_QUOTE = 10, 60
# Both look like what they stand for, and no chat takes them for markup, a mention, a link or the end of a code span.
_HARMLESS = str.maketrans({"`": "\u02cb", "@": "\uff20", "<": "\u2039", ">": "\u203a", "&": "\uff06"})


@dataclass(frozen=True, slots=True)
class ChatCommand:
    """One message of a chat, proven.

    Attributes:
        identity: what the chat calls it.
        command: what was typed, as understood.
        users, channels: every id that the chat has for who said it, and where.
        who: the same for people.
        time: when it was said, or None.
        reply_to: URL for later answers, or None.
        passed_over: why it is not even looked at, or empty.
        in_thread: the answer belongs below a message, not to a command.
    """

    identity: tuple[str, ...]
    command: Command | NotUnderstood
    users: frozenset[str]
    channels: frozenset[str]
    who: str
    time: datetime | None = None
    reply_to: str | None = None
    passed_over: str = ""
    in_thread: bool = False


class Chat(ABC):
    """A producer that people type into.

    Args:
        name: how it is called, and its settings are.
    """

    patience = 2.0

    def __init__(self, name: str, people: People, source: str) -> None:
        self._name = name
        self._people = people
        self._source = source

    @abstractmethod
    def verify(self, delivery: WebhookRequest) -> ChatCommand:
        """Let only what this chat sent pass."""

    @abstractmethod
    def say(self, words: str, said: ChatCommand) -> Answer:
        """An answer as this chat wants it, for nobody else to see where the chat can do that."""

    def gate(self, message: ChatCommand) -> Skip | None:
        """Bots, strangers and what is not understood ask for nothing."""
        if message.passed_over:
            return Skip(message.passed_over, Answer(200))
        setting = f"AUTOSTOP_{self._name.upper().replace('.', '')}"
        if not message.users & self._people.users:
            return Skip("user not allowed", self.say(f"You may not do this: {setting}_USERS lacks you.", message))
        if not message.channels & self._people.channels:
            return Skip(
                "channel not allowed", self.say(f"Not from here: {setting}_CHANNELS lacks this channel.", message)
            )
        match message.command:
            case StopCommand():
                return None
            case KeepCommand():
                return self._not_switched_on(Verb.KEEP, message)
            case ReleaseCommand():
                return self._not_switched_on(Verb.RELEASE, message)
            case ApproveCommand():
                return self._not_switched_on(Verb.APPROVE, message)
            case HelpCommand():
                return Skip("help", self.say(HELP, message))
            case NotUnderstood(quoted, example):
                words = (
                    f"Nothing was handed on. Not understood: {_quoted(quoted, _LONGEST_QUOTE)}\n"
                    f"This would be understood: `{example}`\n{HELP}"
                )
                return Skip("not understood", self.say(words, message))
            case _:
                assert_never(message.command)

    def _not_switched_on(self, verb: Verb, message: ChatCommand) -> Skip:
        words = f"Nothing was handed on. `{verb}` is not switched on here.\n{HELP}"
        return Skip("not switched on", self.say(words, message))

    def extract(self, message: ChatCommand) -> StopRequest:
        """The ids that were typed."""
        command = message.command
        assert isinstance(command, StopCommand)
        return StopRequest(
            source=self._source,
            id=identity(*message.identity),
            type=STOP_REQUESTED,
            server_ids=command.server_ids,
            time=message.time,
            dry_run=command.dry_run,
            reason=cut(command.reason, LONGEST_REASON),
            requested_by=cut(f"{message.who} ({self._name})", LONGEST_REQUESTER),
            reply_to=message.reply_to,
        )

    def handed_on(self, message: ChatCommand, request: StopRequest) -> Answer:
        """What was understood, and that it is on its way."""
        after = "It is a dry run: no stop will be sent." if request.dry_run else "The result comes later."
        return self.say(f"{_understood(request)} The request was handed on. {after}", message)

    def not_handed_on(self, message: ChatCommand, request: StopRequest, acceptance: Acceptance) -> Answer | None:
        """Answer in words: an error status shows as nothing useful in a chat."""
        match acceptance:
            case Acceptance.NOT_TAKEN:
                words = "But it was NOT handed on: the next stage did not take it. Send it again."
            case Acceptance.UNKNOWN:
                words = (
                    "It was sent, and it is not known whether it was taken. Do not send it again: "
                    "if it was taken, the result comes later."
                )
            case unknown:
                assert_never(unknown)
        return self.say(f"{_understood(request)} {words}", message)


def people(*ids: str) -> frozenset[str]:
    """These ids as far as there are any."""
    return frozenset(id_ for id_ in ids if id_)


def who(fields: Mapping[str, object]) -> str:
    """Who spoke, and where, by name and id."""
    return "{user_name} {user_id} in {channel_name} {channel_id}".format_map(
        {name: text(fields, name) for name in ("user_name", "user_id", "channel_name", "channel_id")}
    )


def reply_url(url: str) -> str | None:
    """A URL that may be answered to. Which hosts are trusted is decided where the answer is sent."""
    try:
        usable = urlsplit(url).scheme in ("http", "https") and cut(url, LONGEST_REPLY_TO) == url
    except ValueError:
        usable = False
    return url if usable else None


def _understood(request: StopRequest) -> str:
    ids = request.server_ids
    shown = ", ".join(ids[:_MOST_SHOWN]) + (f" and {len(ids) - _MOST_SHOWN} more" if len(ids) > _MOST_SHOWN else "")
    what = "plan (dry run)" if request.dry_run else "stop"
    because = f" Reason: {_quoted(request.reason, LONGEST_REASON)}." if request.reason else ""
    return f"Understood: {what} {len(ids)} server{'s' if len(ids) != 1 else ''}: {shown}.{because}"


def _quoted(words: str, longest: int) -> str:
    """Untrusted input as a code span in which nothing is markup."""
    return f"`{(cut(words, longest) or '').translate(_HARMLESS)}`"
