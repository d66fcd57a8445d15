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
from handler.inbound.http.request import HttpRequest
from handler.inbound.http.responses import Answer, json_answer
from handler.inbound.webhooks import signatures
from handler.inbound.webhooks.chat import Chat, ChatCommand, clicked, people, person, reply_url, who
from handler.inbound.webhooks.fields import authenticating_json, form, member, text
from handler.inbound.webhooks.grammar import parse
from handler.settings.chat import mac
from handler.settings.receive_webhook import WebhookSettings

# Forms have seconds, JSON has milliseconds; so many seconds are the year 5138.
_MOST_SECONDS = 10**11


class Mattermost(Chat):
    """Authenticated by a token: commands in a header and the body, webhooks in the body only."""

    name = "Mattermost"

    def __init__(self, settings: WebhookSettings, source: str) -> None:
        super().__init__(settings, source, settings.mattermost_people)

    def verify(self, delivery: HttpRequest, now: datetime) -> ChatCommand:
        """Check that there is a token, and that each is one of the settings; or the MAC of a click."""
        body = delivery.unauthenticated_body
        if "json" in delivery.headers.get("content-type", "").lower():
            message = authenticating_json(body)
            if isinstance(message.get("context"), dict):
                return self._click(message, now)
            fields = {name: str(value) for name, value in message.items() if value is not None}
        else:
            fields = form(body)
        sent = [fields["token"].encode("utf-8", "replace")] if fields.get("token") else []
        if "authorization" in delivery.headers:
            scheme, _, token = delivery.headers["authorization"].partition(" ")
            sent.append(token.strip().encode("latin-1", "replace") if scheme.lower() == "token" else b"")
        hits = [signatures.is_one_of(token, self._settings.mattermost_tokens) for token in sent]
        if not hits or not all(hits):
            raise Unauthenticated("A token of this webhook is required.")
        return _command(fields, now)

    def _click(self, message: Mapping[str, object], now: datetime) -> ChatCommand:
        """Read a click: https://developers.mattermost.com/integrate/plugins/interactive-messages."""
        context = member(message, "context")
        action, value, sent = text(context, "action"), text(context, "value"), text(context, "mac")
        hits = [signatures.same(sent, mac(key.reveal(), action, value)) for key in self._settings.action_keys]
        if not any(hits):
            raise Unauthenticated("The context of the button must have a valid MAC.")
        user, channel = text(message, "user_id"), text(message, "channel_id")
        # Without a trigger (old servers) one button of one post is one event for each user.
        words = (text(message, "post_id"), user, action, value)
        trigger = text(message, "trigger_id")
        return ChatCommand(
            identity=(trigger,) if trigger else words,
            command=clicked(action, value),
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


def _command(fields: Mapping[str, str], now: datetime) -> ChatCommand:
    """Read a slash command, or the post of an outgoing webhook, which has no name of a command."""
    user, channel, typed = (fields.get(name, "") for name in ("user_id", "channel_id", "text"))
    name = fields.get("command", "")
    time = None if name else _time(fields.get("timestamp", ""))
    if time is not None:
        signatures.fresh(time, now)
    id_ = fields.get("trigger_id" if name else "post_id", "")
    words = (now.strftime("%Y-%m-%dT%H"), user, channel, *([name] if name else []), typed)
    return ChatCommand(
        identity=(id_,) if id_ else words,
        command=parse(typed, name) if name else parse(typed, fields.get("trigger_word", ""), begins_with_name=True),
        users=people(user),
        channels=people(channel),
        who=who(fields),
        time=time,
        person=person("mattermost", user),
        reply_to=reply_url(fields.get("response_url", "")) if name else None,
        in_thread=not name,
    )


def _time(written: str) -> datetime | None:
    if not written:
        return None
    if not (written.isascii() and written.isdigit() and len(written) <= 14):
        raise BadEvent(Violation("timestamp", "must be a number of seconds or milliseconds"))
    number = int(written)
    return datetime.fromtimestamp(number if number < _MOST_SECONDS else number / 1000, UTC)


producer = Mattermost
