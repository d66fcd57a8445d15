"""Rocket.Chat: bots, edits, and the identity and time of a message."""

from __future__ import annotations

import pytest

from tests.inbound.webhooks.authentication import SECRET, encoded, receiver, sample, send
from tests.inbound.webhooks.receiver import JSON, NOW, Receiver, bearer, refused, text_of

PATH = "/rocketchat"


@pytest.mark.parametrize("bot", [True, {"i": "abc"}, "yes", 1])
def test_bots_are_ignored_without_a_response(here: Receiver, bot: object) -> None:
    """The response to this webhook is a message of a bot, too."""
    answer = send(here, PATH, bot=bot)
    assert (answer.status, answer.body, here.handed) == (200, b"", [])


def test_an_edit_does_nothing_and_says_so(here: Receiver) -> None:
    """It has the id of the message that may have been handed on."""
    assert "edited" in text_of(send(here, PATH, isEdited=True))
    assert here.handed == []


def test_without_an_id_the_same_text_within_an_hour_is_one_event(here: Receiver) -> None:
    """Else the id of the message is that of the event."""
    for id_ in ("one", "one", "two"):
        send(here, PATH, message_id=id_)
    for minutes in (1, 90, 0):
        send(here, PATH, message_id=None, timestamp=None)
        here.later(minutes=minutes)
    ids = [request.id for request in here.handed]
    assert ids[:3] == ["one", "one", "two"]
    assert ids[3] == ids[4] != ids[5]
    assert here.handed[3].time == NOW


@pytest.mark.parametrize("token", ["", None, 5, [SECRET]])
def test_a_token_in_a_header_does_not_count(here: Receiver, token: object) -> None:
    """Nor one that is not text."""
    refused(here.post(PATH, encoded(PATH, sample(PATH, token=token)), {**JSON, **bearer(SECRET)}), 401)
    assert here.handed == []


@pytest.mark.parametrize("time", ["yesterday", 5, ""])
def test_a_malformed_time_is_400(time: object) -> None:
    """The violation names it."""
    found = refused(send(receiver(PATH), PATH, timestamp=time), 400)
    assert found["violations"][0]["at"] == "timestamp"
