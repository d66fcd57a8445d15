"""Posting of messages to chats.

The status alone is not enough: some chats answer 200 with a body that says that nothing was posted.
"""

from __future__ import annotations

import json
import logging
import re
from importlib import import_module

from handler.errors import Cause, ChatUnreachable
from handler.http_client import FAILURES, HttpClient, call_failure, host_of, retry_after
from handler.keep.model import AnyReport
from handler.outbound.chat.route import MattermostButtons, Target
from handler.settings.notify_chat import ChatName

_LOG = logging.getLogger(__name__)

_CALL = "posting to the chat"
_LARGEST_ANSWER = 64 * 1024
# Too late, too early, too often, or an error of the chat: the same message may be accepted later.
_PASSING = frozenset({408, 425, 429})
# What may precede a page: spaces, and the byte order mark of UTF-8.
_BLANK = b" \t\r\n\xef\xbb\xbf"
_SLACK_ERROR = re.compile(rb"[a-z]+(_[a-z]+)+")


class Poster:
    """Posts reports; keeps the connections, and loads what a chat needs at its first message.

    Args:
        buttons: what Mattermost needs for buttons; None for messages without buttons there.
    """

    def __init__(self, buttons: MattermostButtons | None = None) -> None:
        self._client = HttpClient()
        self._buttons = buttons

    def post(self, report: AnyReport, target: Target, seconds: float) -> bool:
        """Post a report once, within so many seconds.

        Returns:
            Whether the chat has accepted it; if not, it never will.

        Raises:
            ChatUnreachable: it may accept it later, or may have posted it already and its response was lost.
        """
        if seconds <= 0:
            raise ChatUnreachable("There is no time left to post to the chat.")
        chat = import_module(f"{__package__}.{target.chat}")
        host, chat_fields = host_of(target.url.reveal()), {"chat": target.chat.value, "reply": target.reply}
        try:
            answer = self._client.send(
                "POST",
                target.url.reveal(),
                headers={"Content-Type": chat.CONTENT_TYPE},
                body=chat.message(report, target.reply, self._buttons),
                timeout=seconds,
                max_body=_LARGEST_ANSWER,
            )
        except FAILURES as failure:
            # Its message quotes the URL, which is a secret.
            cause = Cause(_CALL, host, None, call_failure(failure))
            _LOG.warning("the chat gave no answer", extra={**chat_fields, "cause": cause._asdict()})
            raise ChatUnreachable("The chat gave no answer.", cause=cause) from None
        if answer.status >= 500 or answer.status in _PASSING or b"returned HTTP error 429" in answer.body:
            raise ChatUnreachable(
                f"The chat does not accept messages now (HTTP {answer.status}).",
                retry_after=retry_after(answer.headers),
                cause=Cause(_CALL, host, answer.status, None),
            )
        taken = 200 <= answer.status < 300 and not _denied(target.chat, answer.body)
        if not taken:
            _LOG.warning("the chat refuses the message", extra={**chat_fields, "status": answer.status})
        return taken


def _denied(chat: ChatName, body: bytes) -> bool:
    """Return whether a chat that answers 2xx has posted nothing, according to its body.

    Slack and Rocket.Chat say so in JSON, the connectors of Teams in text; Slack's error codes, such as
    `invalid_payload`, usually come with other statuses. A page is from a proxy in front of the chat.
    """
    if chat is not ChatName.TEXT and body.lstrip(_BLANK).startswith(b"<"):
        return True
    if body.startswith(b"Webhook message delivery failed"):
        return True
    if chat is ChatName.SLACK and _SLACK_ERROR.fullmatch(body.strip()):
        return True
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return False
    return isinstance(document, dict) and (document.get("ok") is False or document.get("success") is False)
