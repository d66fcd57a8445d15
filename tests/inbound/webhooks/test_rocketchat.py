"""Rocket.Chat: the token, the window, bots and edits, the allowed users and channels."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from handler.inbound.http.responses import Answer
from tests.inbound.webhooks.scene import JSON, NOW, ONE, TWO, Scene, flip, fresh_secret, json_of, refused

TOKEN, OLD_TOKEN = fresh_secret(), fresh_secret()


def message(text: str = f"!bms stop {ONE}", **changes: Any) -> dict[str, Any]:
    """What an outgoing webhook sends."""
    return {
        "token": TOKEN,
        "bot": False,
        "trigger_word": "!bms",
        "channel_id": "GENERAL",
        "channel_name": "general",
        "message_id": "nDPoZ3mKPPBKwMpMH",
        "timestamp": "2026-11-20T18:00:00.250Z",
        "user_id": "rocketAda",
        "user_name": "ada",
        "text": text,
        "siteUrl": "https://chat.example",
        **changes,
    }


def scene(**changes: Any) -> Scene:
    """Rocket.Chat switched on, with one user and one channel; the token was just changed."""
    environ = {
        "AUTOSTOP_ROCKETCHAT_TOKENS": f"{OLD_TOKEN},{TOKEN}",
        "AUTOSTOP_ROCKETCHAT_USERS": "rocketAda",
        "AUTOSTOP_ROCKETCHAT_CHANNELS": "GENERAL",
    }
    return Scene(**{**environ, **changes})


def send(here: Scene, text: str = f"!bms stop {ONE}", **changes: Any) -> Answer:
    """A message."""
    return here.post("/rocketchat", message(text, **changes), JSON)


def shown(answer: Answer) -> str:
    """What is posted."""
    assert answer.status == 200
    document = json_of(answer)
    assert list(document) == ["text"]
    text: str = document["text"]
    assert "stopped" not in text
    return text


def test_a_message_is_handed_on() -> None:
    """With its own id and time."""
    here = scene()
    reported = shown(send(here, f"!bms stop {ONE} {TWO} because too hot"))
    request = here.only()
    assert (request.server_ids, request.reason, request.id) == ((ONE, TWO), "too hot", "nDPoZ3mKPPBKwMpMH")
    assert request.time == datetime(2026, 11, 20, 18, 0, 0, 250000, UTC)
    assert (request.source, request.reply_to) == ("/bms-autostop/rocketchat", None)
    assert request.requested_by == "ada rocketAda in general GENERAL (Rocket.Chat)"
    assert reported.startswith("Understood: stop 2 servers")


@pytest.mark.parametrize("bot", [True, {"i": "abc"}, "yes", 1])
def test_bots_are_ignored_without_a_response(bot: object) -> None:
    """Or the answer to this webhook would be answered too."""
    here = scene()
    answer = send(here, bot=bot)
    assert (answer.status, answer.body, here.handed) == (200, b"", [])


def test_an_edit_does_nothing_and_says_so() -> None:
    """It has the id of the message that may have done something already."""
    here = scene()
    assert "edited" in shown(send(here, isEdited=True))
    assert here.handed == []


def test_a_redelivery_is_the_same_event_and_another_message_is_not() -> None:
    """By the message's id; without one the words stand in for an hour."""
    here = scene()
    for id_ in ("one", "one", "two"):
        send(here, message_id=id_)
    for minutes in (1, 90, 0):
        send(here, message_id=None, timestamp=None)
        here.later(minutes=minutes)
    ids = [request.id for request in here.handed]
    assert ids[:3] == ["one", "one", "two"]
    assert ids[3] == ids[4] != ids[5]
    assert here.handed[3].time == NOW


@pytest.mark.parametrize("token", ["", None, flip(TOKEN), flip(TOKEN, 0), TOKEN[:-1], "é", 5, [TOKEN]])
def test_any_other_token_is_401(token: object) -> None:
    """One in a header does not count."""
    here = scene()
    refused(here.post("/rocketchat", message(token=token), {"authorization": f"Bearer {TOKEN}"}), 401)
    assert here.handed == []


@pytest.mark.parametrize("time", ["yesterday", 5, ""])
def test_a_malformed_time_is_400(time: object) -> None:
    """It is not guessed at."""
    found = refused(send(scene(), timestamp=time), 400)
    assert found["faults"][0]["at"] == "timestamp"
