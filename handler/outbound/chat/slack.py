"""Slack: Block Kit, for an incoming webhook or the `response_url` of a command.

Untrusted input is in `plain_text` objects only, in which Slack has neither markup, mentions nor links; its three
control characters are written as entities as everywhere. Limits: 50 blocks, 3000 characters a text, 150 a header
(Slack's reference of blocks); all blocks together are refused from about 13,000 characters on, which is not written
down there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import zip_longest

from handler.keep.model import AnyReport
from handler.outbound.chat.chat_message import Button, ChatMessage, chat_message, fitted
from handler.outbound.chat.route import MattermostButtons

CONTENT_TYPE = "application/json"

_MOST_BLOCKS, _LONGEST_TEXT, _LONGEST_IN_ALL = 50, 2900, 11_000

_Block = dict[str, object]


def message(report: AnyReport, reply: bool, _buttons: MattermostButtons | None) -> bytes:
    """Return the body to POST; a reply is visible to the whole channel, which a power cut concerns."""
    blocks = fitted(report, lambda content: list(_blocks(content)), _fits)
    document: dict[str, object] = {
        # For notifications, and for clients without blocks.
        "text": _escaped(chat_message(report, 0).headline),
        "blocks": blocks,
        "unfurl_links": False,
        "unfurl_media": False,
    }
    if reply:
        document |= {"response_type": "in_channel", "replace_original": False}
    return json.dumps(document).encode()


def _fits(blocks: list[_Block]) -> bool:
    return len(blocks) <= _MOST_BLOCKS and len(json.dumps(blocks, ensure_ascii=False)) <= _LONGEST_IN_ALL


def _blocks(content: ChatMessage) -> Iterator[_Block]:
    yield _section(f"*{_escaped(content.headline)}*", "mrkdwn")
    lines = [*(f"{label}: {text}" for label, text in content.facts), content.closing]
    yield {"type": "context", "elements": [_text(_escaped(line)) for line in lines]}
    if content.approval:
        yield _section(_escaped("\n".join(filter(None, (content.approval, content.command)))))
    if content.command:
        yield {"type": "actions", "elements": [_button(button) for button in content.buttons()]}
    for group in content.groups:
        heading = f"*{_escaped(group.title)}*\n{_escaped(group.meaning)}"
        lines = [_escaped(line) for line in group.lines("•")]
        if group.rows and group.rows[0].id in content.keepable:
            yield _section(f"{heading}\n{_escaped(content.keep_hint)}", "mrkdwn")
            for row, line in zip_longest(group.rows, lines):
                button = content.keep_button(row) if row else None
                yield {**_section(line), **({"accessory": _button(button)} if button else {})}
        elif group.rows:
            yield _section(heading, "mrkdwn")
            yield from map(_section, _texts(lines))
        else:
            # One block for each reason, so that there are never too many blocks.
            yield _section("\n".join((heading, *lines)), "mrkdwn")


def _button(button: Button) -> _Block:
    return {
        "type": "button",
        "action_id": button.action.value,
        "text": _text(button.label),
        "value": button.value,
        **({"style": "primary"} if button.primary else {}),
    }


def _texts(lines: Iterable[str]) -> Iterator[str]:
    """Join lines to as few texts as hold them."""
    text = ""
    for line in lines:
        if text and len(text) + 1 + len(line) > _LONGEST_TEXT:
            yield text
            text = ""
        text = f"{text}\n{line}" if text else line
    yield text


def _section(text: str, kind: str = "plain_text") -> _Block:
    return {"type": "section", "text": _text(text, kind)}


def _text(text: str, kind: str = "plain_text") -> _Block:
    # `verbatim` keeps Slack from making links of text, `emoji` from making pictures.
    return {"type": kind, "text": text, **({"verbatim": True} if kind == "mrkdwn" else {"emoji": False})}


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
