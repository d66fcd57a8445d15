"""Slack slash commands, and clicks on the buttons of our messages (block actions).

Each is signed together with the second at which Slack sent it, which is the event's time. `trigger_id` identifies one
use of a command: a replay within the window is the same event, the same text typed again is another.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from datetime import datetime
from functools import cached_property
from urllib.parse import urlsplit

from handler.errors import Unauthenticated
from handler.http_client import FAILURES, HttpClient
from handler.inbound.http.request import HttpRequest
from handler.inbound.http.responses import Answer, json_answer
from handler.inbound.webhooks import signatures
from handler.inbound.webhooks.chat import Chat, ChatCommand, clicked, people, person, reply_url, who
from handler.inbound.webhooks.fields import form, json_object, member, text
from handler.inbound.webhooks.grammar import parse
from handler.settings.receive_webhook import WebhookSettings

_LOG = logging.getLogger(__name__)

# Slack waits 3 seconds for the response to a click, of which handing on has the first two.
_PATIENCE, _MOST_ANSWER = 0.8, 64 * 1024


class Slack(Chat):
    """Authenticated by a signature over time and body. Slack waits 3 seconds."""

    name = "Slack"

    def __init__(self, settings: WebhookSettings, source: str) -> None:
        super().__init__(settings, source, settings.slack_people)

    def verify(self, delivery: HttpRequest, now: datetime) -> ChatCommand:
        """Check the signature over exactly these bytes, and that its time is within five minutes of now."""
        written = delivery.headers.get("x-slack-request-timestamp", "")
        signed = delivery.headers.get("x-slack-signature", "")
        time = signatures.unix_time(written)
        key = self._settings.slack_signing_secret.reveal().encode()
        mac = signatures.signature(key, b"v0:", written.encode("ascii"), b":", delivery.unauthenticated_body)
        if not signatures.same(signed, f"v0={mac.hex()}"):
            raise Unauthenticated("A valid signature is required.")
        signatures.fresh(time, now)
        fields = form(delivery.body)
        if "payload" in fields:
            return _click(json_object(fields["payload"], "payload"), time, signed)
        user, channel = fields.get("user_id", ""), fields.get("channel_id", "")
        return ChatCommand(
            identity=(fields.get("trigger_id") or signed,),
            command=parse(_unescaped(fields.get("text", "")), fields.get("command", "")),
            users=people(user),
            channels=people(channel),
            who=who(fields),
            time=time,
            reply_to=reply_url(fields.get("response_url", "")),
            ignored_because="probe of the certificate" if fields.get("ssl_check") == "1" else "",
            person=person("slack", fields.get("team_id", ""), user),
        )

    def reply(self, words: str, command: ChatCommand) -> Answer:
        """Return a response for the author of the command or click alone."""
        document: dict[str, object] = {"response_type": "ephemeral", "text": words}
        return (
            self._respond({**document, "replace_original": False}, command)
            if command.click
            else json_answer(200, document)
        )

    def close(self, words: str, message: ChatCommand) -> Answer:
        """Replace the message that has the button, for all who see it."""
        return self._respond({"replace_original": True, "text": words}, message)

    def share(self, words: str, message: ChatCommand) -> Answer:
        """Below the message that has the button, for all who saw it."""
        return self._respond({"response_type": "in_channel", "replace_original": False, "text": words}, message)

    def _respond(self, document: Mapping[str, object], click: ChatCommand) -> Answer:
        """Answer a click by a POST to its `response_url`: Slack does not show the response to it."""
        url = click.reply_to or ""
        parts = urlsplit(url)
        if f"{parts.scheme}://{parts.netloc.removesuffix(':443')}" not in self._settings.slack_origins:
            _LOG.warning("a click was not answered", extra={"detail": "AUTOSTOP_SLACK_HOSTS lacks its response_url."})
            return Answer(200)
        headers, body = {"Content-Type": "application/json"}, json.dumps(document).encode()
        try:
            answer = self._client.send(
                "POST", url, headers=headers, body=body, timeout=_PATIENCE, max_body=_MOST_ANSWER
            )
            if not 200 <= answer.status < 300:
                _LOG.warning("a click was not answered", extra={"detail": f"Slack answered HTTP {answer.status}."})
        except FAILURES as failure:
            # Its message quotes the URL, which is a secret.
            _LOG.warning("a click was not answered", extra={"detail": type(failure).__name__})
        return Answer(200)

    @cached_property
    def _client(self) -> HttpClient:
        return HttpClient()


def _click(payload: Mapping[str, object], time: datetime, signed: str) -> ChatCommand:
    """Read a block action: https://docs.slack.dev/reference/interaction-payloads/block_actions-payload."""
    user, channel = text(member(payload, "user"), "id"), text(member(payload, "channel"), "id")
    team = text(member(payload, "team"), "id") or text(member(payload, "user"), "team_id")
    actions = payload.get("actions")
    action = actions[0] if isinstance(actions, list) and len(actions) == 1 and isinstance(actions[0], dict) else {}
    ours = payload.get("type") == "block_actions"
    where = f"{text(member(payload, 'channel'), 'name')} {channel}"
    return ChatCommand(
        identity=(text(payload, "trigger_id") or signed,),
        command=clicked(text(action, "action_id"), text(action, "value")),
        users=people(user),
        channels=people(channel),
        who=f"{text(member(payload, 'user'), 'username')} {user} in {where}",
        time=time,
        reply_to=reply_url(text(payload, "response_url")),
        ignored_because="" if ours else "another interaction",
        person=person("slack", team, user),
        click=True,
    )


def _unescaped(text: str) -> str:
    # Slack writes its three control characters as entities, and no others.
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


producer = Slack
