"""Plain text, for chats that are not known here. It has no limit, and no markup that could be forged."""

from __future__ import annotations

from collections.abc import Iterator

from handler.keep.model import AnyReport
from handler.outbound.chat.chat_message import ChatMessage, Group, Row, fitted

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
        *(line for group in content.groups for line in ("", *_group(group))),
    ]


def _group(group: Group) -> Iterator[str]:
    yield f"{group.title}. {group.meaning}"
    yield from (f"- {row_text(row)}" for row in group.rows)
    if group.rest:
        yield f"- {group.rest}"


def row_text(row: Row) -> str:
    """Return a server in one line, untrusted input unchanged."""
    return " ".join(part for part in (row.name, f"({row.id})" if row.name else row.id, row.remark) if part)
