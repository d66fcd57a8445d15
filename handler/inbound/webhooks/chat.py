"""The common part of all chats: who may ask, how a command is understood, and the first response.

The first response has what was understood, and whether it was handed on. Whether the servers were stopped is in the
result, which comes later.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import ClassVar, assert_never
from urllib.parse import urlsplit

from handler.errors import Acceptance
from handler.event_types import KEEP_REQUESTED, STOP_APPROVED, STOP_REQUESTED
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
    parse,
)
from handler.inbound.webhooks.model import Producer
from handler.keep.decide import written
from handler.keep.model import KeepRequest
from handler.settings import durations
from handler.settings.chat import ButtonAction
from handler.settings.receive_webhook import People, WebhookSettings
from handler.stop.model import Refusal, StopRequest

_MOST_SHOWN, _LONGEST_QUOTE = 10, 60
# Enough of a token to distinguish two of them.
_SHOWN_OF_TOKEN = 12
_NO_IDENTITY = "Nothing was handed on. An approval needs to know who you are, and this chat did not say so."
# Similar characters that no chat takes for markup, a mention, a link or the end of a code span.
_HARMLESS = str.maketrans({"`": "\u02cb", "@": "\uff20", "<": "\u2039", ">": "\u203a", "&": "\uff06"})


@dataclass(frozen=True, slots=True)
class ChatCommand:
    """One message of a chat, authenticated.

    Attributes:
        identity: its id in the chat.
        command: what was typed, as understood.
        users, channels: every id that the chat has for its author, and for the channel.
        who: both, for people.
        time: when it was sent, or None.
        reply_to: URL for later messages, or None.
        ignored_because: reason to ignore it, or empty.
        in_thread: whether the response belongs below a message, not to a command.
        person: identity of the user, `<system>:<id>`; empty if the chat does not send one.
        click: whether it is a click on a button.
    """

    identity: tuple[str, ...]
    command: Command | NotUnderstood | DiscardCommand
    users: frozenset[str]
    channels: frozenset[str]
    who: str
    time: datetime | None = None
    reply_to: str | None = None
    ignored_because: str = ""
    in_thread: bool = False
    person: str = ""
    click: bool = False


@dataclass(frozen=True, slots=True)
class DiscardCommand:
    """A click on Discard: the plan's message loses its buttons. The token itself stays valid until it expires."""


DISCARDED = "The plan was discarded by {who}. Nothing was sent. Its token stays valid until it expires."


class Chat(Producer[ChatCommand]):
    """A producer whose messages are typed by the users that are allowed, in the channels that are."""

    name: ClassVar[str]
    """Of the chat, also in the names of its settings."""
    patience = 2.0

    def __init__(self, settings: WebhookSettings, source: str, people: People) -> None:
        super().__init__(settings, source)
        self._people = people

    @abstractmethod
    def reply(self, words: str, command: ChatCommand) -> Answer:
        """Return a response in the form of this chat, visible to the author alone where the chat permits that."""

    def gate(self, message: ChatCommand) -> Skip | None:
        """Skip messages of bots, of users who are not listed, and what is not understood."""
        if message.ignored_because:
            return Skip(message.ignored_because, Answer(200))
        setting = f"AUTOSTOP_{self.name.upper().replace('.', '')}"
        if not message.users & self._people.users:
            return Skip("user not allowed", self.reply(f"You may not do this: {setting}_USERS lacks you.", message))
        if not message.channels & self._people.channels:
            return Skip(
                "channel not allowed", self.reply(f"Not from here: {setting}_CHANNELS lacks this channel.", message)
            )
        match message.command:
            case ReleaseCommand():
                return None
            case StopCommand():
                if self._settings.chat_approval is not None and not message.person:
                    return Skip("no identity", self.reply(_NO_IDENTITY, message))
                return None
            case KeepCommand() as keep:
                return self._keep_refused(keep, message)
            case ApproveCommand():
                return self._approval_refused(message.command, message)
            case DiscardCommand():
                return Skip("discarded", self.close(DISCARDED.format(who=_quoted(message.who, 80)), message))
            case HelpCommand():
                return Skip("help", self.reply(HELP, message))
            case NotUnderstood(quoted, example):
                words = (
                    f"Nothing was handed on. Not understood: {_quoted(quoted, _LONGEST_QUOTE)}\n"
                    f"This would be understood: `{example}`\n{HELP}"
                )
                return Skip("not understood", self.reply(words, message))
            case _:
                assert_never(message.command)

    def _approval_refused(self, command: ApproveCommand, message: ChatCommand) -> Skip | None:
        """Refuse at once what `stop_servers` would refuse later, when the buttons for others would be gone."""
        if not message.person:
            return Skip("no identity", self.reply(_NO_IDENTITY, message))
        from handler.stop.approval import refuses_approver

        if refuses_approver(command.token, message.person):
            words = f"Nothing was handed on. {Refusal.APPROVAL_SELF.meaning}"
            return Skip("approval-self", self.reply(words, message))
        return None

    def _keep_refused(self, command: KeepCommand, message: ChatCommand) -> Skip | None:
        """Refuse at once what `keep_servers` would refuse later, which the chat would not show."""
        now = message.time or datetime.now(UTC)
        length = command.until - now if command.until is not None else command.duration or timedelta(0)
        if length > self._settings.max_keep:
            words = f"A keep may end at most {durations.render(self._settings.max_keep)} ahead (AUTOSTOP_MAX_KEEP)."
        elif length <= timedelta(0):
            words = "That time has passed."
        else:
            return None
        return Skip("keep not possible", self.reply(f"Nothing was handed on. {words}", message))

    def extract(self, message: ChatCommand) -> StopRequest | KeepRequest:
        """Make the request of the command."""
        command = message.command
        id_, requested_by = identity(*message.identity), cut(f"{message.who} ({self.name})", LONGEST_REQUESTER)
        if isinstance(command, ApproveCommand):
            return StopRequest(
                source=self._source,
                id=id_,
                type=STOP_APPROVED,
                server_ids=(),
                time=message.time,
                requested_by=requested_by,
                reply_to=message.reply_to,
                plan=command.token,
                approved_by=message.person,
            )
        if isinstance(command, StopCommand):
            return StopRequest(
                source=self._source,
                id=id_,
                type=STOP_REQUESTED,
                server_ids=command.server_ids,
                time=message.time,
                dry_run=command.dry_run,
                reason=cut(command.reason, LONGEST_REASON),
                requested_by=requested_by,
                reply_to=message.reply_to,
                requester=message.person or None,
                approval=None if command.dry_run else self._settings.chat_approval,
            )
        assert isinstance(command, KeepCommand | ReleaseCommand)
        keep = command if isinstance(command, KeepCommand) else None
        return KeepRequest(
            source=self._source,
            id=id_,
            type=KEEP_REQUESTED,
            server_ids=command.server_ids,
            duration=keep.duration if keep else None,
            until=keep.until if keep else None,
            release=keep is None,
            time=message.time,
            reason=cut(keep.reason, LONGEST_REASON) if keep else None,
            requested_by=requested_by,
            reply_to=message.reply_to,
        )

    def close(self, words: str, message: ChatCommand) -> Answer:
        """Return a response that replaces the buttons of a message, so that none is clicked again."""
        return self.reply(words, message)

    def share(self, words: str, message: ChatCommand) -> Answer:
        """An answer that leaves the message with its buttons; for all who saw it where the chat can do that."""
        return self.reply(words, message)

    def handed_on(self, message: ChatCommand, request: StopRequest | KeepRequest) -> Answer:
        """Return a response with what was understood, and that it was handed on."""
        unsent = "no stop will be sent" if isinstance(request, StopRequest) else "nothing will be written"
        after = f"It is a dry run: {unsent}." if request.dry_run else "The result comes later."
        if isinstance(request, StopRequest) and request.approval is not None and not request.dry_run:
            after = "It needs an approval; the plan comes later."
        words = f"{_understood(request)} The request was handed on. {after}"
        if not message.click:
            return self.reply(words, message)
        if isinstance(request, KeepRequest):
            return self.share(f"{words} Clicked by {_quoted(message.who, LONGEST_REQUESTER)}.", message)
        return self.close(words, message)

    def not_handed_on(
        self, message: ChatCommand, request: StopRequest | KeepRequest, acceptance: Acceptance
    ) -> Answer | None:
        """Return a response in text: no chat shows an error status usefully."""
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
        return self.reply(f"{_understood(request)} {words}", message)


def clicked(action: str, value: str) -> ApproveCommand | KeepCommand | DiscardCommand | NotUnderstood:
    """Return the command of a click on a button of our messages, whose value could be typed after the verb instead."""
    match action:
        case ButtonAction.APPROVE:
            found = parse(f"{Verb.APPROVE} {value}")
            return found if isinstance(found, ApproveCommand) else NotUnderstood(action, f"{Verb.APPROVE} TOKEN")
        case ButtonAction.DISCARD:
            return DiscardCommand()
        case ButtonAction.KEEP:
            keep = parse(f"{Verb.KEEP} {value}")
            return keep if isinstance(keep, KeepCommand) else NotUnderstood(action, f"{Verb.KEEP} ID 2h")
        case _:
            return NotUnderstood(action[:60], f"{Verb.APPROVE} TOKEN")


def people(*ids: str) -> frozenset[str]:
    """Return the ids that are not empty."""
    return frozenset(id_ for id_ in ids if id_)


def who(fields: Mapping[str, object]) -> str:
    """Return the author and the channel, by name and id."""
    return "{user_name} {user_id} in {channel_name} {channel_id}".format_map(
        {name: text(fields, name) for name in ("user_name", "user_id", "channel_name", "channel_id")}
    )


def reply_url(url: str) -> str | None:
    """Return a URL for later messages, or None; which hosts are trusted is decided where they are sent."""
    try:
        usable = urlsplit(url).scheme in ("http", "https") and cut(url, LONGEST_REPLY_TO) == url
    except ValueError:
        usable = False
    return url if usable else None


def person(system: str, *ids: str) -> str:
    """Return the identity of a user, as plans and approvals name it; empty unless all of its parts are usable."""
    found = f"{system}:{'/'.join(ids)}"
    return found if all(ids) and re.fullmatch(r"[a-z]+:[!-~]{1,183}", found) else ""


def _understood(request: StopRequest | KeepRequest) -> str:
    if isinstance(request, StopRequest) and request.plan is not None:
        return f"Understood: approve the plan `…{request.plan[-_SHOWN_OF_TOKEN:]}` as `{request.approved_by}`."
    ids = request.server_ids
    shown = ", ".join(ids[:_MOST_SHOWN]) + (f" and {len(ids) - _MOST_SHOWN} more" if len(ids) > _MOST_SHOWN else "")
    what = _verb(request)
    because = f" Reason: {_quoted(request.reason, LONGEST_REASON)}." if request.reason else ""
    count = f"{len(ids)} server{'s' if len(ids) != 1 else ''}"
    return f"Understood: {what} {count}{_end(request)}: {shown}.{because}"


def _verb(request: StopRequest | KeepRequest) -> str:
    if isinstance(request, StopRequest):
        return "plan (dry run)" if request.dry_run else "stop"
    verb = "release" if request.release else "keep"
    return f"{verb} (dry run)" if request.dry_run else verb


def _end(request: StopRequest | KeepRequest) -> str:
    """Return until when servers are to be kept, with the duration if one was typed."""
    if isinstance(request, StopRequest) or request.release:
        return ""
    end = request.end(request.time or datetime.now(UTC))
    length = f" for {durations.render(request.duration)}," if request.duration is not None else ""
    return f"{length} until {written(end)}" if end is not None else length


def _quoted(words: str, longest: int) -> str:
    """Return untrusted input as a code span without markup."""
    return f"`{(cut(words, longest) or '').translate(_HARMLESS)}`"
