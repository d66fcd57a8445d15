"""Reports, and the messages of every chat."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from importlib import import_module
from types import ModuleType
from typing import Any

from handler.inbound.cloudevents.decode import decode
from handler.inbound.cloudevents.result_events import read
from handler.outbound.chat.route import MattermostButtons
from handler.settings.env import Secret
from handler.settings.notify_chat import ChatName
from handler.stop.model import Approver, PlanOffer, Reason, Refusal, Report, ServerResult
from tests.stop.fakes import NOW, asked, id_of
from tests.test_events_folder import EVENTS

BUTTONS = MattermostButtons("https://hooks.example/mattermost", Secret("the-key-of-the-samples-is-public"))
CHATS: dict[str, ModuleType] = {chat.value: import_module(f"handler.outbound.chat.{chat}") for chat in ChatName}


def sampled(name: str) -> Report:
    """The report of a sample of `events/samples/out`."""
    body = (EVENTS / "samples" / "out" / f"{name}.json").read_bytes()
    (event,) = decode({"content-type": "application/cloudevents+json"}, body).events
    report = read(event).report
    assert isinstance(report, Report)
    return report


def reported(
    *reasons: Reason, refusal: Refusal | None = None, detail: str = "", name: str = "", **request: Any
) -> Report:
    """A report with one server for each reason."""
    rows = tuple(
        ServerResult(id_of(number), reason, detail or f"Detail of {reason.name}.", name=name or f"ci-{number:02}")
        for number, reason in enumerate(reasons)
    )
    dry_run = Reason.DRY_RUN in reasons
    plan = (
        PlanOffer("dG9rZW4", NOW + timedelta(minutes=15), Approver.OTHER) if Reason.NEEDS_APPROVAL in reasons else None
    )
    return Report(asked()._replace(**request), "nova", dry_run, refusal, rows, NOW, NOW, plan=plan)


def texts(node: object) -> Iterator[str]:
    """All the text in a message that a person gets to see."""
    match node:
        case {"type": "mrkdwn" | "plain_text" | "TextBlock" | "TextRun", "text": str(text)}:
            yield text
        case dict():
            for name, value in node.items():
                if name == "text" and isinstance(value, str):
                    yield value
                elif name not in ("type", "contentType", "$schema"):
                    yield from texts(value)
        case list():
            for value in node:
                yield from texts(value)


def text_of(chat: str, report: Report, reply: bool = False) -> str:
    """What a person reads of a report in a chat."""
    body = CHATS[chat].message(report, reply, None)
    return body.decode() if chat == "text" else "\n".join(texts(json.loads(body)))


def document(chat: str, report: Report, reply: bool = False) -> Any:
    """The message, as it would be kept in a file: JSON, or text."""
    body: bytes = CHATS[chat].message(report, reply, BUTTONS)
    return body.decode() if chat == "text" else json.loads(body)
