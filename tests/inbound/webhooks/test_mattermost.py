"""Mattermost: slash commands and outgoing webhooks, where their tokens are, their identity and their time."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from handler.inbound.http.responses import Answer
from tests.inbound.webhooks.authentication import SECRET, SENT, receiver, sample
from tests.inbound.webhooks.receiver import FORM, JSON, NOW, ONE, Receiver, flip, form, json_of, refused, text_of

PATH = "/mattermost"
POST: dict[str, Any] = {
    "token": SECRET,
    "channel_id": sample(PATH)["channel_id"],
    "timestamp": int(SENT) * 1000 + 250,
    "user_id": sample(PATH)["user_id"],
    "post_id": "jq4b8mh3x7fktnxk8oyzbgwtmr",
    "text": f"bms stop {ONE}",
    "trigger_word": "bms",
}


def use(here: Receiver, *, header: str = f"token {SECRET}", **changes: str) -> Answer:
    """Use the command, with a token in its header and its body."""
    body = form(sample(PATH, **{"token": SECRET, **changes}))
    return here.post(PATH, body, {**FORM, "authorization": header})


def post(here: Receiver, **changes: Any) -> Answer:
    """Send what an outgoing webhook sends."""
    return here.post(PATH, {**POST, **changes}, JSON)


@pytest.mark.parametrize("as_json", [True, False])
def test_the_response_to_a_post_is_below_it(here: Receiver, as_json: bool) -> None:
    """JSON has the time in milliseconds, a form in seconds; a command is answered to its author alone."""
    body = json.dumps(POST).encode() if as_json else form({**POST, "timestamp": SENT})
    answer = here.post(PATH, body, JSON if as_json else FORM)
    assert "handed on" in text_of(answer)
    assert json_of(answer)["response_type"] == "comment"
    assert here.only().time == datetime.fromtimestamp(int(SENT) + (0.25 if as_json else 0), UTC)
    assert json_of(use(here))["response_type"] == "ephemeral"


def test_a_post_without_a_trigger_word_is_a_command(here: Receiver) -> None:
    """Its channel may send every message."""
    post(here, text=f"plan {ONE}", trigger_word="")
    assert here.only().dry_run is True


@pytest.mark.parametrize("who", [{"user_id": "x"}, {"channel_id": "x"}, {"user_id": "", "user_name": POST["user_id"]}])
def test_the_lists_apply_to_posts(here: Receiver, who: dict[str, str]) -> None:
    """As to commands."""
    assert "AUTOSTOP_MATTERMOST_" in text_of(post(here, **who))
    assert here.handed == []


def test_the_id_of_a_trigger_or_a_post_is_that_of_the_event(here: Receiver) -> None:
    """Another use or another post is another event."""
    for trigger in ("one", "one", "two"):
        use(here, trigger_id=trigger)
    for id_ in ("three", "three", "four"):
        post(here, post_id=id_)
    assert [request.id for request in here.handed] == ["one", "one", "two", "three", "three", "four"]


def test_without_an_id_the_same_text_within_an_hour_is_one_event(here: Receiver) -> None:
    """For commands and posts."""
    for minutes in (1, 90, 0):
        use(here, trigger_id="")
        post(here, post_id="", timestamp="")
        here.later(minutes=minutes)
    ids = [request.id for request in here.handed]
    assert ids[0:2] == ids[2:4]
    assert len(set(ids)) == 4


# --- forgery


@pytest.mark.parametrize("header", ["", "Token", f"Token {flip(SECRET)}", f"Bearer {SECRET}", SECRET, "Token é"])
def test_any_other_header_is_401(here: Receiver, header: str) -> None:
    """Even if the token in the body is right."""
    refused(use(here, header=header), 401)
    assert here.handed == []


@pytest.mark.parametrize("token", ["", flip(SECRET), flip(SECRET, 0), SECRET[:-1], "é"])
def test_any_other_token_in_the_body_is_401(here: Receiver, token: str) -> None:
    """Even if the token in the header is right, but for a body without one."""
    if token:
        refused(use(here, token=token), 401)
    refused(post(here, token=token), 401)
    assert here.handed == []


@pytest.mark.parametrize("seconds", [-301, 301])
def test_a_post_outside_the_window_is_401(here: Receiver, seconds: int) -> None:
    """On either side."""
    refused(post(here, timestamp=int((NOW + timedelta(seconds=seconds)).timestamp()) * 1000), 401)
    assert here.handed == []


@pytest.mark.parametrize("time", ["yesterday", "-5", 1.5, "9" * 15, [1]])
def test_a_malformed_time_is_400(time: object) -> None:
    """The violation names it."""
    found = refused(post(receiver(PATH), timestamp=time), 400)
    assert found["violations"][0]["at"] == "timestamp"
