"""Golden pairs: a result event, and the message that each chat gets of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.outbound.chat.reports import CHATS, document, sampled
from tests.test_events_folder import EVENTS

HERE = Path(__file__).parent / "golden"
SHOWN = "failed"
SAMPLES = (
    "completed",
    "completed-single",
    "completed-dry-run",
    "planned",
    "completed-approved",
    "completed-notice",
    "refused-too-many-fit",
    SHOWN,
)
PAIRS = [(chat, sample) for chat in CHATS for sample in SAMPLES]


def kept(chat: str, sample: str) -> Path:
    """Where a message is kept: one of each chat is an example for users."""
    suffix = "txt" if chat == "text" else "json"
    shown = EVENTS / "samples" / "chat" / f"{chat}.{suffix}"
    return shown if sample == SHOWN else HERE / f"{sample}-{chat}.{suffix}"


def written(chat: str, sample: str) -> str:
    """A message as in its file. Those for Slack and Mattermost are responses to a command."""
    made = document(chat, sampled(sample), reply=True)
    return made if chat == "text" else json.dumps(made, indent=1, ensure_ascii=False) + "\n"


@pytest.mark.parametrize(("chat", "sample"), PAIRS)
def test_each_result_reads_as_written_down(chat: str, sample: str) -> None:
    """`python -m tests.outbound.chat` writes them anew; then read them."""
    assert written(chat, sample) == kept(chat, sample).read_text()


def test_no_message_is_kept_that_nothing_makes() -> None:
    """A file that no pair names would never be checked."""
    files = {*HERE.iterdir(), *(EVENTS / "samples" / "chat").iterdir()}
    assert files == {kept(chat, sample) for chat, sample in PAIRS}
