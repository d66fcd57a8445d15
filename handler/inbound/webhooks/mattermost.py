"""Mattermost: slash commands, and outgoing webhooks.

A slash command has a `trigger_id` and says no time: its time is the receipt. An outgoing webhook has the id and the
time of the post, and one that is older than five minutes is refused. Neither is signed: the token is all the proof
there is, so who can read a delivery can make another. Without trigger or post (old servers) the same words within an
hour are one event, since nothing else tells a redelivery from a second command. A slash command must be made with the
request method POST: GET, which would leave the token in access logs, is answered 405.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from handler.errors import BadEvent, Unauthenticated, Violation
from handler.inbound.http.responses import Answer, json_answer
from handler.inbound.webhooks import signatures
from handler.inbound.webhooks.chat import Chat, ChatCommand, people, reply_url, who
from handler.inbound.webhooks.fields import form, proving_json
from handler.inbound.webhooks.grammar import parse
from handler.inbound.webhooks.model import WebhookRequest
from handler.settings.receive_webhook import WebhookSettings

# Forms have seconds, JSON has milliseconds; this many seconds are the year 5138.
_MOST_SECONDS = 10**11


class Mattermost(Chat):
    """Proves itself by a token: commands in a header and the body, webhooks in the body only."""

    def __init__(self, settings: WebhookSettings, source: str) -> None:
        super().__init__("Mattermost", settings.mattermost_people, source, settings.max_keep)
        self._tokens = settings.mattermost_tokens

    def verify(self, delivery: WebhookRequest) -> ChatCommand:
        """Every token that is there must be one of ours, and one must be there."""
        fields = _fields(delivery)
        sent = [fields["token"].encode("utf-8", "replace")] if fields.get("token") else []
        if "authorization" in delivery.headers:
            scheme, _, token = delivery.headers["authorization"].partition(" ")
            sent.append(token.strip().encode("latin-1", "replace") if scheme.lower() == "token" else b"")
        hits = [signatures.is_one_of(token, self._tokens) for token in sent]
        if not hits or not all(hits):
            raise Unauthenticated("The token is missing or wrong.")
        return _command(fields, delivery.now) if fields.get("command") else _post(fields, delivery)

    def say(self, words: str, said: ChatCommand) -> Answer:
        """For the eyes of who typed a command; below the post of an outgoing webhook."""
        return json_answer(200, {"response_type": "comment" if said.in_thread else "ephemeral", "text": words})


def _fields(delivery: WebhookRequest) -> Mapping[str, str]:
    if "json" in delivery.headers.get("content-type", "").lower():
        return {
            name: str(value) for name, value in proving_json(delivery.unauthenticated_body).items() if value is not None
        }
    return form(delivery.unauthenticated_body)


def _command(fields: Mapping[str, str], now: datetime) -> ChatCommand:
    user, channel = fields.get("user_id", ""), fields.get("channel_id", "")
    words = (now.strftime("%Y-%m-%dT%H"), user, channel, fields["command"], fields.get("text", ""))
    trigger = fields.get("trigger_id", "")
    return ChatCommand(
        identity=(trigger,) if trigger else words,
        command=parse(fields.get("text", ""), fields["command"]),
        users=people(user),
        channels=people(channel),
        who=who(fields),
        reply_to=reply_url(fields.get("response_url", "")),
    )


def _post(fields: Mapping[str, str], delivery: WebhookRequest) -> ChatCommand:
    trigger, text = fields.get("trigger_word", ""), fields.get("text", "")
    time = _time(fields.get("timestamp", ""))
    if time is not None:
        signatures.fresh(time, delivery.now)
    words = (delivery.now.strftime("%Y-%m-%dT%H"), fields.get("user_id", ""), fields.get("channel_id", ""), text)
    post = fields.get("post_id", "")
    return ChatCommand(
        identity=(post,) if post else words,
        command=parse(text, trigger, begins_with_name=True),
        users=people(fields.get("user_id", "")),
        channels=people(fields.get("channel_id", "")),
        who=who(fields),
        time=time,
        in_thread=True,
    )


def _time(text: str) -> datetime | None:
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 14):
        raise BadEvent(Violation("timestamp", "must be a number of seconds or milliseconds"))
    number = int(text)
    return datetime.fromtimestamp(number if number < _MOST_SECONDS else number / 1000, UTC)


producer = Mattermost
