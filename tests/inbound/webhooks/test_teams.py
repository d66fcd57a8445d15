"""Microsoft Teams: the signature, the window, the mention, the allowed users and channels."""

from __future__ import annotations

import base64
import json
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from handler.inbound.http.responses import Answer
from tests.inbound.webhooks.scene import JSON, NOW, ONE, THREE, TWO, Scene, json_of, mac, refused

KEY = secrets.token_bytes(32)
SECRET = base64.b64encode(KEY).decode()
CHANNEL = "19:253b1f341670408fb6fe51aaba1c9e4f@thread.skype"
USER = "29:1Ij3Ab"
AAD = THREE


def activity(text: str = f"<at>BMS</at>&nbsp;stop {ONE}\n", **changes: Any) -> dict[str, Any]:
    """A message that mentions the webhook; user and tenant have UUIDs of their own."""
    return {
        "type": "message",
        "id": "1795197600123",
        "timestamp": "2026-11-20T18:00:00.1234567Z",
        "localTimestamp": "2026-11-20T19:00:00.1234567+01:00",
        "serviceUrl": "https://smba.trafficmanager.example/emea/",
        "channelId": "msteams",
        "from": {"id": USER, "name": "Ada", "aadObjectId": AAD},
        "conversation": {"isGroup": True, "id": f"{CHANNEL};messageid=1795197600123", "name": None},
        "recipient": None,
        "textFormat": "plain",
        "text": text,
        "attachments": [{"contentType": "text/html", "content": f"<div>{TWO}</div>"}],
        "channelData": {
            "teamsChannelId": CHANNEL,
            "channel": {"id": CHANNEL},
            "team": {"id": CHANNEL},
            "tenant": {"id": TWO},
        },
        **changes,
    }


def signed(body: bytes, key: bytes = KEY) -> dict[str, str]:
    """The headers that authenticate a body."""
    return {**JSON, "Authorization": "HMAC " + base64.b64encode(mac(key, body)).decode()}


def scene(**changes: Any) -> Scene:
    """Teams switched on, with one user and one channel."""
    environ = {"AUTOSTOP_TEAMS_SECRET": SECRET, "AUTOSTOP_TEAMS_USERS": AAD, "AUTOSTOP_TEAMS_CHANNELS": CHANNEL}
    return Scene(**{**environ, **changes})


def send(here: Scene, text: str = f"<at>BMS</at> stop {ONE}", **changes: Any) -> Answer:
    """A message with a good signature."""
    body = json.dumps(activity(text, **changes)).encode()
    return here.post("/teams", body, signed(body))


def shown(answer: Answer) -> str:
    """What is read."""
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json"
    document = json_of(answer)
    assert document["type"] == "message"
    text: str = document["text"]
    assert "stopped" not in text
    return text


def test_a_message_is_handed_on() -> None:
    """With its own time, and an id made of conversation and message."""
    here = scene()
    reported = shown(send(here, f"<at>BMS</at>&nbsp;stop {ONE} {TWO} because R&amp;D is <b>done</b>\n"))
    request = here.only()
    assert (request.server_ids, request.reason) == ((ONE, TWO), "R&D is done")
    assert request.time == datetime(2026, 11, 20, 18, 0, 0, 123456, UTC)
    assert (request.source, request.reply_to) == ("/bms-autostop/teams", None)
    assert request.requested_by == f"Ada {AAD} (Teams)"
    assert reported.startswith(
        f"Understood: stop 2 servers: {ONE}, {TWO}. Reason: `R\uff06D is done`. The request was handed on."
    )


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        (f'<at id="0">BMS</at> plan {ONE}', (ONE,)),
        (f"<div><at>BMS</at> plan&nbsp;{ONE}</div>", (ONE,)),
        (f"plan {ONE}", (ONE,)),
        (f"<p><at>BMS plan</at> {ONE}</p>", (ONE,)),
    ],
)
def test_the_mention_is_not_part_of_the_command(text: str, ids: tuple[str, ...]) -> None:
    """However it is written; a name that is a verb counts as one."""
    here = scene()
    shown(send(here, text))
    assert (here.only().server_ids, here.only().dry_run) == (ids, True)


@pytest.mark.parametrize("users", [AAD, USER])
def test_a_user_has_two_ids(users: str) -> None:
    """Either may be on the list."""
    here = scene(AUTOSTOP_TEAMS_USERS=users)
    shown(send(here))
    assert len(here.handed) == 1


@pytest.mark.parametrize(
    "channel_data",
    [{"channel": {"id": CHANNEL}}, {"teamsChannelId": CHANNEL}, {}, None],
)
def test_the_channel_is_named_in_several_places(channel_data: Any) -> None:
    """The conversation's id begins with it."""
    here = scene()
    shown(send(here, channelData=channel_data))
    assert len(here.handed) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"type": "conversationUpdate"},
        {"type": None},
        {"from": {"id": "28:bot", "aadObjectId": AAD}},
        {"from": {"id": USER, "aadObjectId": AAD, "role": "bot"}},
    ],
)
def test_bots_and_other_activities_are_ignored(changes: dict[str, Any]) -> None:
    """Without a word."""
    here = scene()
    answer = send(here, **changes)
    assert (answer.status, answer.body, here.handed) == (200, b"", [])


def test_a_replay_is_the_same_event_and_another_message_is_not() -> None:
    """Messages are counted from one conversation to the next."""
    here = scene()
    for changes in ({}, {}, {"id": "2"}, {"conversation": {"id": "another"}}, {"id": None}, {"id": None}):
        send(here, **changes)
    ids = [request.id for request in here.handed]
    assert ids[0] == ids[1]
    assert ids[4] == ids[5]
    assert len(set(ids)) == 4


# --- forgery


@pytest.mark.parametrize("header", ["", "HMAC", "HMAC é", "Bearer {mac}", "{mac}", "HMAC {mac}=", "HMAC {hex}"])
def test_any_other_header_is_401(header: str) -> None:
    """And none at all."""
    here = scene()
    body = json.dumps(activity()).encode()
    found = mac(KEY, body)
    header = header.format(mac=base64.b64encode(found).decode(), hex=found.hex())
    refused(here.post("/teams", body, {"Authorization": header}), 401)
    refused(here.post("/teams", body), 401)
    assert here.handed == []


@pytest.mark.parametrize("time", ["2026-11-20T17:55:04Z", "2026-11-20T18:05:06Z", "", None, "now", 5])
def test_a_time_outside_the_window_or_none_is_401(time: object) -> None:
    """It is all that keeps a recorded message from working for ever."""
    here = scene()
    refused(send(here, timestamp=time), 401)
    assert here.handed == []


def test_a_time_may_have_any_zone() -> None:
    """It is the moment that counts."""
    here = scene()
    send(here, timestamp="2026-11-20T19:05:05+01:00")
    assert here.only().time == NOW + timedelta(minutes=5)
