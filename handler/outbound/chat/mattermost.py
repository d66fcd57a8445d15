"""Mattermost: Markdown, for an incoming webhook or the `response_url` of a command.

An incoming webhook notifies users who are mentioned, so untrusted input must not contain mentions. Limit: 16383
characters (Mattermost's documentation of posts).
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from handler.keep.model import AnyReport
from handler.outbound.chat.chat_message import Button, ChatMessage, chat_message, fitted
from handler.outbound.chat.markdown import markdown, row_markdown
from handler.outbound.chat.route import MattermostButtons

CONTENT_TYPE = "application/json"

_LONGEST = 16_000


def message(report: AnyReport, reply: bool, to_click: MattermostButtons | None) -> bytes:
    """Return the body to POST; a reply is visible to the whole channel, which a power cut concerns.

    `to_click` is what buttons need; None for a message without buttons.
    """
    text = fitted(report, lambda content: markdown(content, "**"), lambda made: len(made) <= _LONGEST)
    document: dict[str, object] = {"text": text, **({"response_type": "in_channel"} if reply else {})}
    attachments = list(_attachments(chat_message(report, len(report.servers)), to_click)) if to_click else []
    if attachments:
        document["attachments"] = attachments
    return json.dumps(document).encode()


def _attachments(content: ChatMessage, to_click: MattermostButtons) -> Iterator[dict[str, object]]:
    """Yield the buttons of a plan, or each server of a notice with its button."""
    actions = [_action(button, to_click) for button in content.buttons()]
    if actions:
        yield {"fallback": "approve, or discard", "actions": actions}
    if content.keep_hint:
        yield {"fallback": content.keep_hint, "text": content.keep_hint}
    for row in (row for group in content.groups for row in group.rows):
        button = content.keep_button(row)
        if button:
            words = row_markdown(row)
            # Mattermost finds the action of a click by its id alone, which must be unique in the whole message.
            action = {**_action(button, to_click), "id": f"{button.action.value}{row.id.replace('-', '')}"}
            yield {"fallback": words, "text": words, "actions": [action]}


def _action(button: Button, to_click: MattermostButtons) -> dict[str, object]:
    return {
        "id": button.action.value,
        "type": "button",
        "name": button.label,
        "style": "primary" if button.primary else "default",
        "integration": {"url": to_click.url, "context": to_click.context(button.action.value, button.value)},
    }
