"""Plain text, for chats that are not known here. It has no limit, and no markup that could be forged."""

from __future__ import annotations

from handler.keep.model import AnyReport
from handler.outbound.chat.chat_message import ChatMessage, fitted

CONTENT_TYPE = "text/plain; charset=utf-8"


def message(report: AnyReport, _reply: bool, _buttons: object) -> bytes:
    """Return the body to POST."""
    return "".join(f"{line}\n" for line in fitted(report, _lines, lambda _: True)).encode()


def _lines(content: ChatMessage) -> list[str]:
    return [
        content.headline,
        *(f"{label}: {text}" for label, text in content.facts),
        content.closing,
        *filter(None, (content.approval, content.command)),
        *(line for group in content.groups for line in ("", f"{group.title}. {group.meaning}", *group.lines("-"))),
    ]
