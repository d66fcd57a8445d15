"""What the chats that read Markdown have in common.

Text from outside stands in code spans, in which nothing is markup, a link, an emoji or a hashtag. What could end the
span is replaced, and so is the sign of a mention: some versions look for mentions before they look for code.
"""

from __future__ import annotations

from collections.abc import Iterator

from handler.outbound.chat.chat_message import ChatMessage, Group, Row

# Both look like what they stand for, and no program takes them for it.
_REPLACED = str.maketrans({"`": "\u02cb", "@": "\uff20"})


def markdown(told: ChatMessage, bold: str) -> str:
    """The notice as Markdown.

    Args:
        bold: what stands around bold text.
    """
    lines = [
        f"{bold}{told.headline}{bold}",
        *(f"{label}: {span(text)}" for label, text in told.facts),
        told.closing,
        *([told.approval] if told.approval else []),
        *([f"`{told.command}`"] if told.command else []),
    ]
    # Two spaces at its end make a line end in Markdown that does not take it for a space anyway.
    parts = ["  \n".join(lines), *("\n".join(_group(group, bold)) for group in told.groups)]
    return "\n\n".join(parts)


def span(text: str) -> str:
    """A text from outside, harmless."""
    return f"`{text.translate(_REPLACED)}`"


def _group(group: Group, bold: str) -> Iterator[str]:
    yield f"{bold}{group.title}{bold}  "
    yield group.meaning
    yield ""
    yield from (f"- {_row(row)}" for row in group.rows)
    if group.rest:
        yield f"- {group.rest}"


def _row(row: Row) -> str:
    return " ".join(span(text) for text in (row.name, row.id, row.remark) if text)
