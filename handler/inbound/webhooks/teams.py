"""Microsoft Teams outgoing webhooks.

The whole activity is signed, and the time and the id of the message are in it: an old message is refused, and a replay
within the window is the same event. Message ids are unique within a conversation, so both make the event's id. There is
no URL for later messages.
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
    """Authenticated by a signature over the body. Teams waits 5 seconds."""

    patience = 3.5

    def __init__(self, settings: WebhookSettings, source: str) -> None:
        super().__init__("Teams", settings.teams_people, source, settings.max_keep, settings.chat_approval)
        self._key = base64.b64decode(settings.teams_secret.reveal())

    def verify(self, delivery: WebhookRequest) -> ChatCommand:
        """Check the signature over exactly these bytes, and that the message is of the last five minutes."""
        scheme, _, signed = delivery.headers.get("authorization", "").partition(" ")
        mac = base64.b64encode(signatures.signature(self._key, delivery.unauthenticated_body)).decode("ascii")
        if not signatures.same(signed.strip(), mac) or scheme.lower() != "hmac":
            raise Unauthenticated("A valid signature is required.")
        activity = json_object(delivery.body)
        try:
            time = signatures.fresh(rfc3339.parse(text(activity, "timestamp")), delivery.now)
        except ValueError:
            raise Unauthenticated("The time of the message must be an RFC 3339 timestamp.") from None
        author, typed = member(activity, "from"), text(activity, "text")
        conversation = text(member(activity, "conversation"), "id")
        name, command = plain_text(typed)
        return ChatCommand(
            identity=(conversation, text(activity, "id") or mac),
            command=parse(command, name),
            users=people(text(author, "aadObjectId"), text(author, "id")),
            channels=_channels(activity, conversation),
            who=f"{text(author, 'name')} {text(author, 'aadObjectId') or text(author, 'id')}",
            time=time,
            ignored_because=_ignored_because(activity, author),
            in_thread=True,
            person=person(
                "teams", text(member(activity, "channelData", "tenant"), "id"), text(author, "aadObjectId").lower()
            ),
        )

    def reply(self, words: str, _command: ChatCommand) -> Answer:
        """Return a response that is a reply in the conversation."""
        return json_answer(200, {"type": "message", "text": words.replace("\n", "\n\n")})


def _channels(activity: Mapping[str, object], conversation: str) -> frozenset[str]:
    channel = text(member(activity, "channelData", "channel"), "id")
    # A conversation is one thread of a channel: the channel's id, then the message that began it.
    return people(channel, text(member(activity, "channelData"), "teamsChannelId"), conversation.partition(";")[0])


def _ignored_because(activity: Mapping[str, object], author: Mapping[str, object]) -> str:
    if activity.get("type") != "message":
        return "no message"
    return "sent by a bot" if author.get("role") == "bot" or text(author, "id").startswith("28:") else ""


producer = Teams
