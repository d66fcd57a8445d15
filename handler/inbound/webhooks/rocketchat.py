"""Rocket.Chat outgoing webhooks.

Each message has an id, which a redelivery and an edit repeat: edits are not acted on. A message that is older than five
minutes is refused, which leaves time for the first redeliveries. Nothing is signed: the token in the body authenticates
the sender. There is no URL for later messages.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from handler import rfc3339
from handler.errors import BadEvent, Unauthenticated, Violation
from handler.inbound.http.request import HttpRequest
from handler.inbound.http.responses import Answer, json_answer
from handler.inbound.skip import Skip
from handler.inbound.webhooks import signatures
from handler.inbound.webhooks.chat import Chat, ChatCommand, people, person, who
from handler.inbound.webhooks.fields import authenticating_json, text
from handler.inbound.webhooks.grammar import parse
from handler.settings.receive_webhook import WebhookSettings


class RocketChat(Chat):
    """Authenticated by the token in the body."""

    name = "Rocket.Chat"
    patience = 3.5

    def __init__(self, settings: WebhookSettings, source: str) -> None:
        super().__init__(settings, source, settings.rocketchat_people)

    def verify(self, delivery: HttpRequest, now: datetime) -> ChatCommand:
        """Check the token, and that the message is of the last five minutes."""
        message = authenticating_json(delivery.unauthenticated_body)
        if not signatures.is_one_of(
            text(message, "token").encode("utf-8", "replace"), self._settings.rocketchat_tokens
        ):
            raise Unauthenticated("A token of this webhook is required.")
        time = _time(message)
        if time is not None:
            signatures.fresh(time, now)
        typed, trigger = text(message, "text"), text(message, "trigger_word")
        user, channel = text(message, "user_id"), text(message, "channel_id")
        id_ = text(message, "message_id")
        return ChatCommand(
            identity=(id_,) if id_ else (now.strftime("%Y-%m-%dT%H"), user, channel, typed),
            # An integration can permit the trigger word anywhere; text before it is refused.
            command=parse(typed, trigger, begins_with_name=True),
            users=people(user),
            channels=people(channel),
            who=who(message),
            time=time,
            # The response to this webhook is a message of a bot as well: without this there would be a loop.
            ignored_because="sent by a bot" if message.get("bot") else "edited" if message.get("isEdited") else "",
            in_thread=True,
            person=person("rocketchat", user),
        )

    def gate(self, message: ChatCommand) -> Skip | None:
        """Skip edits, with a response that says so, and what `Chat.gate` skips."""
        if message.ignored_because == "edited":
            return Skip("edited", self.reply("An edited message does nothing here; send a new one.", message))
        return super().gate(message)

    def reply(self, words: str, _command: ChatCommand) -> Answer:
        """Return a response that is a message in the channel."""
        return json_answer(200, {"text": words})


def _time(message: Mapping[str, object]) -> datetime | None:
    if message.get("timestamp") is None:
        return None
    try:
        return rfc3339.parse(text(message, "timestamp"))
    except ValueError:
        raise BadEvent(Violation("timestamp", "must be an RFC 3339 timestamp with a zone")) from None


producer = RocketChat
