"""Mattermost: slash commands, outgoing webhooks, and clicks on the buttons of our messages.

A slash command has a `trigger_id` and no time: its time is that of receipt. An outgoing webhook has the id and the time
of the post, and one that is older than five minutes is refused. Neither is signed: who can read a delivery, with its
token, can forge another. Without trigger or post (old servers) the same text within an hour is one event, since
nothing else distinguishes a redelivery from a second command. A slash command must be made with the request method
POST: GET, which would leave the token in access logs, is answered 405. A click has no token and no time: it is
authenticated by our own MAC in the context of the button, which Mattermost shows to no client.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from handler.errors import BadEvent, Unauthenticated, Violation
from handler.inbound.http.responses import Answer, json_answer
from handler.inbound.webhooks import buttons, signatures
from handler.inbound.webhooks.chat import Chat, ChatCommand, people, person, reply_url, who
from handler.inbound.webhooks.fields import authenticating_json, form, member, text
from handler.inbound.webhooks.grammar import parse
from handler.inbound.webhooks.model import WebhookRequest
from handler.settings.chat import mac
from handler.settings.receive_webhook import WebhookSettings

# Forms have seconds, JSON has milliseconds; so many seconds are the year 5138.
_MOST_SECONDS = 10**11


class Mattermost(Chat):
    """Authenticated by a token: commands in a header and the body, webhooks in the body only."""

    def __init__(self, settings: WebhookSettings, source: str) -> None:
        super().__init__("Mattermost", settings.mattermost_people, source, settings.max_keep, settings.chat_approval)
        self._keys = settings.action_keys
        self._tokens = settings.mattermost_tokens

    def verify(self, delivery: WebhookRequest) -> ChatCommand:
        """Check that there is a token, and that each is one of the settings; or the MAC of a click."""
        if "json" in delivery.headers.get("content-type", "").lower():
            message = authenticating_json(delivery.unauthenticated_body)
            if isinstance(message.get("context"), dict):
                return self._click(message, delivery.now)
        fields = _fields(delivery)
        sent = [fields["token"].encode("utf-8", "replace")] if fields.get("token") else []
        if "authorization" in delivery.headers:
            scheme, _, token = delivery.headers["authorization"].partition(" ")
            sent.append(token.strip().encode("latin-1", "replace") if scheme.lower() == "token" else b"")
        hits = [signatures.is_one_of(token, self._tokens) for token in sent]
        if not hits or not all(hits):
            raise Unauthenticated("A token of this webhook is required.")
        return _command(fields, delivery.now) if fields.get("command") else _post(fields, delivery)

    def _click(self, message: Mapping[str, object], now: datetime) -> ChatCommand:
        """Read a click: https://developers.mattermost.com/integrate/plugins/interactive-messages."""
        context = member(message, "context")
        action, value, sent = text(context, "action"), text(context, "value"), text(context, "mac")
        hits = [signatures.same(sent, mac(key.reveal(), action, value)) for key in self._keys]
        if not any(hits):
            raise Unauthenticated("The context of the button must have a valid MAC.")
        user, channel = text(message, "user_id"), text(message, "channel_id")
        # Without a trigger (old servers) one button of one post is one event for each user.
        words = (text(message, "post_id"), user, action, value)
        trigger = text(message, "trigger_id")
        return ChatCommand(
            identity=(trigger,) if trigger else words,
            command=buttons.command(action, value),
            users=people(user),
            channels=people(channel),
            who=who(message),
            time=now,
            person=person("mattermost", user),
            click=True,
        )

    def close(self, words: str, _message: ChatCommand) -> Answer:
        """Replace the message that has the button, for all who see it."""
        return json_answer(200, {"update": {"message": words, "props": {}}})

    def reply(self, words: str, command: ChatCommand) -> Answer:
        """Return a response for the author of a command or click alone, or below the post of an outgoing webhook."""
        if command.click:
            return json_answer(200, {"ephemeral_text": words})
        return json_answer(200, {"response_type": "comment" if command.in_thread else "ephemeral", "text": words})


def _fields(delivery: WebhookRequest) -> Mapping[str, str]:
    if "json" in delivery.headers.get("content-type", "").lower():
        return {
            name: str(value)
            for name, value in authenticating_json(delivery.unauthenticated_body).items()
            if value is not None
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
        person=person("mattermost", user),
        reply_to=reply_url(fields.get("response_url", "")),
    )


def _post(fields: Mapping[str, str], delivery: WebhookRequest) -> ChatCommand:
    trigger, typed = fields.get("trigger_word", ""), fields.get("text", "")
    time = _time(fields.get("timestamp", ""))
    if time is not None:
        signatures.fresh(time, delivery.now)
    words = (delivery.now.strftime("%Y-%m-%dT%H"), fields.get("user_id", ""), fields.get("channel_id", ""), typed)
    post = fields.get("post_id", "")
    return ChatCommand(
        identity=(post,) if post else words,
        command=parse(typed, trigger, begins_with_name=True),
        users=people(fields.get("user_id", "")),
        channels=people(fields.get("channel_id", "")),
        who=who(fields),
        person=person("mattermost", fields.get("user_id", "")),
        time=time,
        in_thread=True,
    )


def _time(written: str) -> datetime | None:
    if not written:
        return None
    if not (written.isascii() and written.isdigit() and len(written) <= 14):
        raise BadEvent(Violation("timestamp", "must be a number of seconds or milliseconds"))
    number = int(written)
    return datetime.fromtimestamp(number if number < _MOST_SECONDS else number / 1000, UTC)


producer = Mattermost
