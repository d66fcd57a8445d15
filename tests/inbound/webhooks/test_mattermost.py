"""Mattermost: commands and outgoing webhooks, the token, the window, the allowed users and channels."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from handler.inbound.http.responses import Answer
from tests.inbound.webhooks.scene import FORM, JSON, NOW, ONE, TWO, Scene, flip, form, fresh_secret, json_of, refused

TOKEN, OLD_TOKEN = fresh_secret(), fresh_secret()
USER, CHANNEL = "c3a4cqe3dfy6dgopqt8ai3hydh", "fukuanbpnpy7fqaus5dqn7oyxw"
SENT = int(NOW.timestamp()) - 5


def command(text: str = f"stop {ONE}", **changes: str) -> dict[str, str]:
    """What one use of a slash command sends."""
    return {
        "channel_id": CHANNEL,
        "channel_name": "ops",
        "command": "/bms",
        "response_url": "https://mm.example/hooks/commands/testonly",
        "team_domain": "example",
        "team_id": "rdc9bgriktyx9p4kowh3dmgqyc",
        "text": text,
        "token": TOKEN,
        "trigger_id": "dGVzdC1vbmx5",
        "user_id": USER,
        "user_name": "ada",
        **changes,
    }


def post(text: str = f"bms stop {ONE}", **changes: Any) -> dict[str, Any]:
    """What an outgoing webhook sends."""
    return {
        "token": TOKEN,
        "team_id": "rdc9bgriktyx9p4kowh3dmgqyc",
        "team_domain": "example",
        "channel_id": CHANNEL,
        "channel_name": "ops",
        "timestamp": SENT * 1000 + 250,
        "user_id": USER,
        "user_name": "ada",
        "post_id": "jq4b8mh3x7fktnxk8oyzbgwtmr",
        "text": text,
        "trigger_word": "bms",
        "file_ids": "",
        **changes,
    }


def scene(**changes: Any) -> Scene:
    """Mattermost switched on, with one user and one channel; the token was just changed."""
    environ = {
        "AUTOSTOP_MATTERMOST_TOKENS": f"{OLD_TOKEN},{TOKEN}",
        "AUTOSTOP_MATTERMOST_USERS": USER,
        "AUTOSTOP_MATTERMOST_CHANNELS": CHANNEL,
    }
    return Scene(**{**environ, **changes})


def type_(here: Scene, text: str = f"stop {ONE}", header: str | None = f"Token {TOKEN}", **changes: str) -> Answer:
    """Use the command."""
    headers = FORM if header is None else {**FORM, "authorization": header}
    return here.post("/mattermost", form(command(text, **changes)), headers)


def shown(answer: Answer, kind: str = "ephemeral") -> str:
    """What is read."""
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json"
    document = json_of(answer)
    assert document["response_type"] == kind
    text: str = document["text"]
    assert "stopped" not in text
    return text


def test_a_command_is_handed_on() -> None:
    """Its time is that of receipt, since it has none; the response is for its author."""
    here = scene()
    answer = shown(type_(here, f"stop {ONE} {TWO} because too hot"))
    request = here.only()
    assert (request.server_ids, request.reason, request.id) == ((ONE, TWO), "too hot", "dGVzdC1vbmx5")
    assert (request.time, request.source) == (NOW, "/bms-autostop/mattermost")
    assert request.reply_to == "https://mm.example/hooks/commands/testonly"
    assert request.requested_by == f"ada {USER} in ops {CHANNEL} (Mattermost)"
    assert answer.startswith(f"Understood: stop 2 servers: {ONE}, {TWO}. Reason: `too hot`. The request was handed on.")


def test_ids_alone_are_enough_for_a_command_that_says_stop() -> None:
    """As the command may have a verb for a name."""
    here = scene()
    shown(type_(here, ONE, command="/bms-stop"))
    assert here.only().server_ids == (ONE,)


@pytest.mark.parametrize("as_json", [True, False])
def test_a_post_is_handed_on(as_json: bool) -> None:
    """With its own id and time, in milliseconds or seconds; the answer goes below it."""
    here = scene()
    if as_json:
        answer = here.post("/mattermost", post(), JSON)
    else:
        fields = {name: str(value) for name, value in post(timestamp=SENT).items()}
        answer = here.post("/mattermost", form(fields), FORM)
    assert "handed on" in shown(answer, "comment")
    request = here.only()
    assert (request.server_ids, request.id) == ((ONE,), "jq4b8mh3x7fktnxk8oyzbgwtmr")
    assert request.time == datetime.fromtimestamp(SENT + (0.25 if as_json else 0), UTC)
    assert request.reply_to is None


@pytest.mark.parametrize(
    ("text", "trigger"), [(f"BMS plan {ONE}", "bms"), (f"plan {ONE}", ""), (f"bms, plan {ONE}", "bms,")]
)
def test_the_trigger_word_is_not_part_of_the_command(text: str, trigger: str) -> None:
    """Whichever it is, and if there is none."""
    here = scene()
    shown(here.post("/mattermost", post(text, trigger_word=trigger), JSON), "comment")
    assert here.only().dry_run is True


def test_stop_may_be_the_trigger_word() -> None:
    """Then it is still the verb."""
    here = scene()
    shown(here.post("/mattermost", post(f"stop {ONE}", trigger_word="stop"), JSON), "comment")
    shown(here.post("/mattermost", post("stops working, see ticket", trigger_word="stop"), JSON), "comment")
    assert here.only().server_ids == (ONE,)


@pytest.mark.parametrize("who", [{"user_id": "x"}, {"channel_id": "x"}, {"user_id": "", "user_name": USER}])
def test_only_the_named_people_may_post(who: dict[str, str]) -> None:
    """As with commands."""
    here = scene()
    shown(here.post("/mattermost", post(**who), JSON), "comment")
    assert here.handed == []


def test_a_redelivery_is_the_same_event() -> None:
    """By trigger or post; another use or post is another."""
    here = scene()
    for trigger in ("one", "one", "two"):
        type_(here, trigger_id=trigger)
    for id_ in ("three", "three", "four"):
        here.post("/mattermost", post(post_id=id_), JSON)
    assert [request.id for request in here.handed] == ["one", "one", "two", "three", "three", "four"]


def test_without_an_id_the_words_stand_in_for_an_hour() -> None:
    """For both kinds."""
    here = scene()
    for minutes in (1, 90, 0):
        type_(here, trigger_id="")
        here.post("/mattermost", post(post_id="", timestamp=""), JSON)
        here.later(minutes=minutes)
    ids = [request.id for request in here.handed]
    assert ids[0:2] == ids[2:4]
    assert len(set(ids)) == 4


# --- forgery


@pytest.mark.parametrize("header", ["", "Token", f"Token {flip(TOKEN)}", f"Bearer {TOKEN}", TOKEN, "Token é"])
def test_any_other_header_is_401(header: str) -> None:
    """Even if the token in the body is right."""
    here = scene()
    refused(type_(here, header=header), 401)
    assert here.handed == []


@pytest.mark.parametrize("token", ["", flip(TOKEN), flip(TOKEN, 0), TOKEN[:-1], "é"])
def test_any_other_token_in_the_body_is_401(token: str) -> None:
    """In commands and posts; only a token that is not there at all can be in the header alone."""
    here = scene()
    if token:
        refused(type_(here, token=token), 401)
    refused(type_(here, header=None, token=token), 401)
    refused(here.post("/mattermost", post(token=token), JSON), 401)
    assert here.handed == []


def test_a_token_in_either_place_is_enough() -> None:
    """And the old one counts while both are set."""
    here = scene()
    shown(type_(here, token=""))
    shown(type_(here, header=None))
    shown(type_(here, header=f"token {OLD_TOKEN}", token=OLD_TOKEN))
    assert len(here.handed) == 3


@pytest.mark.parametrize("seconds", [-301, 301])
def test_a_post_outside_the_window_is_401(seconds: int) -> None:
    """On either side."""
    here = scene()
    sent = int((NOW + timedelta(seconds=seconds)).timestamp()) * 1000
    refused(here.post("/mattermost", post(timestamp=sent), JSON), 401)
    assert here.handed == []


@pytest.mark.parametrize("time", ["yesterday", "-5", 1.5, "9" * 15, [1]])
def test_a_malformed_time_is_400(time: object) -> None:
    """It is not guessed at."""
    found = refused(scene().post("/mattermost", json.dumps(post(timestamp=time)), JSON), 400)
    assert found["faults"][0]["at"] == "timestamp"
