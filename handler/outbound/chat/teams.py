"""Microsoft Teams: an Adaptive Card, for a webhook of a workflow or of a channel.

Text from outside stands in `TextRun`s only, in which Markdown is not read (Adaptive Cards' reference); a mention would
need an entity beside it, and there is none. Limit: 28 KB for the whole message (Teams' documentation of webhooks).
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from handler.keep.model import AnyReport
from handler.outbound.chat.chat_message import ChatMessage, Group, fitted
from handler.outbound.chat.plain import row_text

CONTENT_TYPE = "application/json"

_LARGEST = 26 * 1024

_Element = dict[str, object]


def message(report: AnyReport, _reply: bool, _buttons: object) -> bytes:
    """The body to POST."""
    return fitted(report, _made, lambda body: len(body) <= _LARGEST)


def _made(told: ChatMessage) -> bytes:
    card = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "msteams": {"width": "Full"},
        "body": list(_elements(told)),
    }
    attachment = {"contentType": "application/vnd.microsoft.card.adaptive", "content": card}
    return json.dumps({"type": "message", "attachments": [attachment]}).encode()


def _elements(told: ChatMessage) -> Iterator[_Element]:
    yield {**_ours(told.headline), "weight": "Bolder", "size": "Medium"}
    for label, text in told.facts:
        yield _outside(f"{label}: {text}")
    yield {**_ours(told.closing), "isSubtle": True, "spacing": "None"}
    if told.approval:
        yield _ours(told.approval)
    if told.command:
        # In a text block its underscores would be markup.
        yield _outside(told.command)
    for group in told.groups:
        yield from _group(group)


def _group(group: Group) -> Iterator[_Element]:
    yield {**_ours(group.title), "weight": "Bolder", "separator": True}
    yield {**_ours(group.meaning), "isSubtle": True, "spacing": "None"}
    yield from (_outside(f"• {row_text(row)}") for row in group.rows)
    if group.rest:
        yield _outside(f"• {group.rest}")


def _ours(text: str) -> _Element:
    return {"type": "TextBlock", "text": text, "wrap": True}


def _outside(text: str) -> _Element:
    return {"type": "RichTextBlock", "spacing": "None", "inlines": [{"type": "TextRun", "text": text}]}
