"""Mattermost: Markdown, for an incoming webhook or the `response_url` of a command.

An incoming webhook does notify whoever is mentioned, so nothing from outside may mention anybody. Limit: 16383
characters (Mattermost's documentation of posts).
"""

from __future__ import annotations

import json

from handler.keep.model import AnyReport
from handler.outbound.chat.chat_message import fitted
from handler.outbound.chat.markdown import markdown

CONTENT_TYPE = "application/json"

_LONGEST = 16_000


def message(report: AnyReport, reply: bool) -> bytes:
    """The body to POST.

    Args:
        reply: it goes to a `response_url`. There everybody in the channel is told: a power cut is no private matter.
    """
    text = fitted(report, lambda told: markdown(told, "**"), lambda made: len(made) <= _LONGEST)
    return json.dumps({"text": text, **({"response_type": "in_channel"} if reply else {})}).encode()
