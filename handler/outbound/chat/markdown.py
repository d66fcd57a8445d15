"""The common part of the chats with Markdown.

Untrusted input is in code spans, in which nothing is markup, a link, an emoji or a hashtag. What could end the span is
replaced, and so is the sign of a mention: some versions parse mentions before code.
"""

from __future__ import annotations

from collections.abc import Iterator

from handler.outbound.chat.chat_message import ChatMessage, Group, Row

# Characters of the same look without a meaning.
_REPLACED = str.maketrans({"`": "\u02cb", "@": "\uff20"})


def markdown(content: ChatMessage, bold: str) -> str:
    """Return a message as Markdown, with `bold` around bold text."""
    lines = [
        f"{bold}{content.headline}{bold}",
        *(f"{label}: {span(text)}" for label, text in content.facts),
        content.closing,
        *filter(None, (content.approval, content.command and f"`{content.command}`")),
    ]
    # Two spaces at its end make a line break in Markdown that takes line ends for spaces.
    parts = ["  \n".join(lines), *("\n".join(_group(group, bold)) for group in content.groups)]
    return "\n\n".join(parts)


def span(text: str) -> str:
    """Return untrusted input as a code span."""
    return f"`{text.translate(_REPLACED)}`"


def _group(group: Group, bold: str) -> Iterator[str]:
    yield f"{bold}{group.title}{bold}  "
    yield group.meaning
    yield ""
    yield from group.lines("-", row_markdown)


def row_markdown(row: Row) -> str:
    """Return a server in one line, its text from outside in code spans."""
    return " ".join(span(text) for text in (row.name, row.id, row.remark) if text)
