"""Plain text, for what is no chat or none that is known here. It has no limit, and no markup that could be forged."""

from __future__ import annotations

from collections.abc import Iterator

from handler.keep.model import AnyReport
from handler.outbound.chat.chat_message import ChatMessage, Group, Row, fitted

CONTENT_TYPE = "text/plain; charset=utf-8"


def message(report: AnyReport, _reply: bool, _buttons: object) -> bytes:
    """The body to POST."""
    return "".join(f"{line}\n" for line in fitted(report, _lines, lambda _: True)).encode()


def _lines(told: ChatMessage) -> list[str]:
    return [
        told.headline,
        *(f"{label}: {text}" for label, text in told.facts),
        told.closing,
        *filter(None, (told.approval, told.command)),
        *(line for group in told.groups for line in ("", *_group(group))),
    ]


def _group(group: Group) -> Iterator[str]:
    yield f"{group.title}. {group.meaning}"
    yield from (f"- {row_text(row)}" for row in group.rows)
    if group.rest:
        yield f"- {group.rest}"


def row_text(row: Row) -> str:
    """A server in one line, its text from outside as it is."""
    return " ".join(part for part in (row.name, f"({row.id})" if row.name else row.id, row.remark) if part)
