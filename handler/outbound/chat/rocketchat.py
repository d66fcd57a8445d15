"""Rocket.Chat: Markdown, for an incoming webhook.

Limit: `Message_MaxAllowedSize`, which is 5000 characters unless an administrator changes it.
"""

from __future__ import annotations

import json

from handler.keep.model import AnyReport
from handler.outbound.chat.chat_message import fitted
from handler.outbound.chat.markdown import markdown

CONTENT_TYPE = "application/json"

_LONGEST = 4_800


def message(report: AnyReport, _reply: bool, _buttons: object) -> bytes:
    """Return the body to POST."""
    text = fitted(report, lambda content: markdown(content, "*"), lambda made: len(made) <= _LONGEST)
    return json.dumps({"text": text, "parseUrls": False}).encode()
