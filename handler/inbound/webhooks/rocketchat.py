"""Rocket.Chat outgoing webhooks.

Each message has an id, which a redelivery and an edit repeat: edits are not acted on. A message that is older than five
minutes is refused, which leaves room for the first of the redeliveries. Nothing is signed: the token in the body is all
the proof there is. There is no way to answer later.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from handler import rfc3339
from handler.errors import BadEvent, Unauthenticated, Violation
from handler.inbound.http.responses import Answer, json_answer
from handler.inbound.skip import Skip
from handler.inbound.webhooks import signatures
from handler.inbound.webhooks.chat import Chat, ChatCommand, people, person, who
from handler.inbound.webhooks.fields import proving_json, text
from handler.inbound.webhooks.grammar import parse
from handler.inbound.webhooks.model import WebhookRequest
from handler.settings.receive_webhook import WebhookSettings


class RocketChat(Chat):
    """Proves itself by the token in the body."""

    patience = 3.5

    def __init__(self, settings: WebhookSettings, source: str) -> None:
        super().__init__("Rocket.Chat", settings.rocketchat_people, source, settings.max_keep, settings.chat_approval)
        self._tokens = settings.rocketchat_tokens

    def verify(self, delivery: WebhookRequest) -> ChatCommand:
        """The token must be one of ours, and the message of the last five minutes."""
        message = proving_json(delivery.unauthenticated_body)
        if not signatures.is_one_of(text(message, "token").encode("utf-8", "replace"), self._tokens):
            raise Unauthenticated("The token is missing or wrong.")
        time = _time(message)
        if time is not None:
            signatures.fresh(time, delivery.now)
        typed, trigger = text(message, "text"), text(message, "trigger_word")
        user, channel = text(message, "user_id"), text(message, "channel_id")
        id_ = text(message, "message_id")
        return ChatCommand(
            identity=(id_,) if id_ else (delivery.now.strftime("%Y-%m-%dT%H"), user, channel, typed),
            # The integration can let the trigger word stand anywhere; what stands before it is not guessed at.
            command=parse(typed, trigger, begins_with_name=True),
            users=people(user),
            channels=people(channel),
            who=who(message),
            time=time,
            # The answer to this very webhook is said by a bot too: without this they would talk to each other.
            passed_over="said by a bot" if message.get("bot") else "edited" if message.get("isEdited") else "",
            in_thread=True,
            person=person("rocketchat", user),
        )

    def gate(self, message: ChatCommand) -> Skip | None:
        """An edit is told that it does nothing; whoever edits a command expects something."""
        if message.passed_over == "edited":
            return Skip("edited", self.say("An edited message does nothing here; send a new one.", message))
        return super().gate(message)

    def say(self, words: str, _said: ChatCommand) -> Answer:
        """As a message in the channel."""
        return json_answer(200, {"text": words})


def _time(message: Mapping[str, object]) -> datetime | None:
    if message.get("timestamp") is None:
        return None
    try:
        return rfc3339.parse(text(message, "timestamp"))
    except ValueError:
        raise BadEvent(Violation("timestamp", "must be an RFC 3339 timestamp with a zone")) from None


producer = RocketChat
