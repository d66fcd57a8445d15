"""Microsoft Teams: an Adaptive Card, for a webhook of a workflow or of a channel.

Untrusted input is in `TextRun`s only, in which Markdown is not parsed (Adaptive Cards' reference); a mention would need
an entity beside it, and there is none. Limit: 28 KB for the whole message (Teams' documentation of webhooks).
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from handler.keep.model import AnyReport
from handler.outbound.chat.chat_message import ChatMessage, fitted

CONTENT_TYPE = "application/json"

_LARGEST = 26 * 1024

_Element = dict[str, object]


def message(report: AnyReport, _reply: bool, _buttons: object) -> bytes:
    """Return the body to POST."""
    return fitted(report, _made, lambda body: len(body) <= _LARGEST)


def _made(content: ChatMessage) -> bytes:
    card = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "msteams": {"width": "Full"},
        "body": list(_elements(content)),
    }
    attachment = {"contentType": "application/vnd.microsoft.card.adaptive", "content": card}
    return json.dumps({"type": "message", "attachments": [attachment]}).encode()


def _elements(content: ChatMessage) -> Iterator[_Element]:
    yield {**_ours(content.headline), "weight": "Bolder", "size": "Medium"}
    for label, text in content.facts:
        yield _untrusted(f"{label}: {text}")
    yield {**_ours(content.closing), "isSubtle": True, "spacing": "None"}
    if content.approval:
        yield _ours(content.approval)
    if content.command:
        # In a text block its underscores would be markup.
        yield _untrusted(content.command)
    for group in content.groups:
        yield {**_ours(group.title), "weight": "Bolder", "separator": True}
        yield {**_ours(group.meaning), "isSubtle": True, "spacing": "None"}
        yield from map(_untrusted, group.lines("•"))


def _ours(text: str) -> _Element:
    return {"type": "TextBlock", "text": text, "wrap": True}


def _untrusted(text: str) -> _Element:
    return {"type": "RichTextBlock", "spacing": "None", "inlines": [{"type": "TextRun", "text": text}]}
