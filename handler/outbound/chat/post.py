"""Posts a message to a chat, once, and understands what the chat says to it.

A status alone is not enough: some chats answer 200 and say in the body that nothing was posted.
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
# Asking for less time, too early, too often, or the chat is in trouble: the same message may be taken later.
_PASSING = frozenset({408, 425, 429})
_MODULES = {"text": "plain"}
# What may stand before a page: spaces, and the marks of UTF-8.
_BLANK = b" \t\r\n\xef\xbb\xbf"
_FAULT_OF_SLACK = re.compile(rb"[a-z]+(_[a-z]+)+")


class Poster:
    """Keeps the connections, and loads what a chat needs when it is first posted to.

    Args:
        buttons: what Mattermost needs for buttons; None for none there.
    """

    def __init__(self, buttons: MattermostButtons | None = None) -> None:
        self._client = HttpClient()
        self._buttons = buttons

    def post(self, report: AnyReport, target: Target, seconds: float) -> bool:
        """Tell a report.

        Args:
            seconds: for the whole of it.

        Returns:
            Whether the chat has taken it. If not, it never will.

        Raises:
            ChatUnreachable: it may take it later. It may also have posted it already, and its answer got lost.
        """
        if seconds <= 0:
            raise ChatUnreachable("There was no time left to tell the chat.")
        chat = import_module(f"{__package__}.{_MODULES.get(target.chat, target.chat)}")
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
            # Its text would quote the URL, which is a secret.
            cause = Cause(_CALL, host_of(target.url.reveal()), None, call_failure(failure))
            _LOG.warning(
                "the chat gave no answer",
                extra={"chat": target.chat.value, "reply": target.reply, "cause": cause._asdict()},
            )
            raise ChatUnreachable("The chat gave no answer.", cause=cause) from None
        if answer.status >= 500 or answer.status in _PASSING or b"returned HTTP error 429" in answer.body:
            raise ChatUnreachable(
                f"The chat does not take messages just now (HTTP {answer.status}).",
                retry_after=retry_after(answer.headers),
                cause=Cause(_CALL, host_of(target.url.reveal()), answer.status, None),
            )
        taken = 200 <= answer.status < 300 and not _denied(target.chat, answer.body)
        if not taken:
            _LOG.warning(
                "the chat refuses the message",
                extra={"chat": target.chat.value, "reply": target.reply, "status": answer.status},
            )
        return taken


def _denied(chat: ChatName, body: bytes) -> bool:
    """Whether a chat that answers 2xx says that it has posted nothing.

    Slack and Rocket.Chat say so in JSON; the connectors of Teams in words; Slack's words for faults, such as
    `invalid_payload`, come with other statuses as a rule. A page is from somebody who answers in the chat's place.
    """
    if chat is not ChatName.TEXT and body.lstrip(_BLANK).startswith(b"<"):
        return True
    if body.startswith(b"Webhook message delivery failed"):
        return True
    if chat is ChatName.SLACK and _FAULT_OF_SLACK.fullmatch(body.strip()):
        return True
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return False
    return isinstance(said, dict) and (said.get("ok") is False or said.get("success") is False)
