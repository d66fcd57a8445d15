"""Slack slash commands.

Each is signed together with the second at which Slack sent it, which is the event's time. `trigger_id` names one use of
a command: a replay within the window is the same event, the same words typed again are another.
"""

from __future__ import annotations

from handler.errors import Unauthenticated
from handler.inbound.http.responses import Answer, json_answer
from handler.inbound.webhooks import signatures
from handler.inbound.webhooks.chat import Chat, ChatCommand, people, reply_url, who
from handler.inbound.webhooks.fields import form
from handler.inbound.webhooks.grammar import parse
from handler.inbound.webhooks.model import WebhookRequest
from handler.settings.receive_webhook import WebhookSettings


class Slack(Chat):
    """Proves itself by a signature over time and body. Slack waits 3 seconds."""

    def __init__(self, settings: WebhookSettings, source: str) -> None:
        super().__init__("Slack", settings.slack_people, source, settings.max_keep)
        self._secret = settings.slack_signing_secret.reveal().encode()

    def verify(self, delivery: WebhookRequest) -> ChatCommand:
        """The signature must be over exactly these bytes, and the time in it within five minutes of now."""
        written = delivery.headers.get("x-slack-request-timestamp", "")
        signed = delivery.headers.get("x-slack-signature", "")
        time = signatures.unix_time(written)
        mac = signatures.signature(self._secret, b"v0:", written.encode("ascii"), b":", delivery.unauthenticated_body)
        if not signatures.same(signed, f"v0={mac.hex()}"):
            raise Unauthenticated("The signature is missing or wrong.")
        signatures.fresh(time, delivery.now)
        fields = form(delivery.body)
        user, channel = fields.get("user_id", ""), fields.get("channel_id", "")
        return ChatCommand(
            identity=(fields.get("trigger_id") or signed,),
            command=parse(_unescaped(fields.get("text", "")), fields.get("command", "")),
            users=people(user),
            channels=people(channel),
            who=who(fields),
            time=time,
            reply_to=reply_url(fields.get("response_url", "")),
            passed_over="probe of the certificate" if fields.get("ssl_check") == "1" else "",
        )

    def say(self, words: str, _said: ChatCommand) -> Answer:
        """For the eyes of who typed the command."""
        return json_answer(200, {"response_type": "ephemeral", "text": words})


def _unescaped(text: str) -> str:
    # Slack writes the three characters that mean something to it as entities, and no others.
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


producer = Slack
