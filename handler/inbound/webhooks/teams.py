"""Microsoft Teams outgoing webhooks.

The whole activity is signed, and the time and the id of the message are in it: an old message is refused, and a replay
within the window is the same event. Message ids count from one conversation to the next, so both make the event's id.
There is no way to answer later.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping

from handler import rfc3339
from handler.errors import Unauthenticated
from handler.inbound.http.responses import Answer, json_answer
from handler.inbound.webhooks import signatures
from handler.inbound.webhooks.chat import Chat, ChatCommand, people, person
from handler.inbound.webhooks.fields import json_object, member, text
from handler.inbound.webhooks.grammar import parse
from handler.inbound.webhooks.model import WebhookRequest
from handler.inbound.webhooks.teams_markup import plain_text
from handler.settings.receive_webhook import WebhookSettings


class Teams(Chat):
    """Proves itself by a signature over the body. Teams waits 5 seconds."""

    patience = 3.5

    def __init__(self, settings: WebhookSettings, source: str) -> None:
        super().__init__("Teams", settings.teams_people, source, settings.max_keep, settings.chat_approval)
        self._key = base64.b64decode(settings.teams_secret.reveal())

    def verify(self, delivery: WebhookRequest) -> ChatCommand:
        """The signature must be over exactly these bytes, and the message of the last five minutes."""
        scheme, _, signed = delivery.headers.get("authorization", "").partition(" ")
        mac = base64.b64encode(signatures.signature(self._key, delivery.unauthenticated_body)).decode("ascii")
        if not signatures.same(signed.strip(), mac) or scheme.lower() != "hmac":
            raise Unauthenticated("The signature is missing or wrong.")
        activity = json_object(delivery.body)
        try:
            time = signatures.fresh(rfc3339.parse(text(activity, "timestamp")), delivery.now)
        except ValueError:
            raise Unauthenticated("The time of the message is missing or malformed.") from None
        said_by, typed = member(activity, "from"), text(activity, "text")
        conversation = text(member(activity, "conversation"), "id")
        name, command = plain_text(typed)
        return ChatCommand(
            identity=(conversation, text(activity, "id") or mac),
            command=parse(command, name),
            users=people(text(said_by, "aadObjectId"), text(said_by, "id")),
            channels=_channels(activity, conversation),
            who=f"{text(said_by, 'name')} {text(said_by, 'aadObjectId') or text(said_by, 'id')}",
            time=time,
            passed_over=_passed_over(activity, said_by),
            in_thread=True,
            person=person(
                "teams", text(member(activity, "channelData", "tenant"), "id"), text(said_by, "aadObjectId").lower()
            ),
        )

    def say(self, words: str, _said: ChatCommand) -> Answer:
        """As a reply in the conversation."""
        return json_answer(200, {"type": "message", "text": words.replace("\n", "\n\n")})


def _channels(activity: Mapping[str, object], conversation: str) -> frozenset[str]:
    channel = text(member(activity, "channelData", "channel"), "id")
    # A conversation is one thread of a channel: the channel's id, then the message that began it.
    return people(channel, text(member(activity, "channelData"), "teamsChannelId"), conversation.partition(";")[0])


def _passed_over(activity: Mapping[str, object], said_by: Mapping[str, object]) -> str:
    if activity.get("type") != "message":
        return "no message"
    return "said by a bot" if said_by.get("role") == "bot" or text(said_by, "id").startswith("28:") else ""


producer = Teams
