"""Microsoft Teams: the mention, the ids of users and channels, and the identity and time of a message."""

from __future__ import annotations

import base64
from datetime import timedelta
from typing import Any

import pytest

from tests.inbound.webhooks.authentication import authenticated, receiver, sample, send
from tests.inbound.webhooks.receiver import NOW, ONE, TWO, Receiver, json_of, refused, text_of

PATH = "/teams"
USER, AAD = (sample(PATH)["from"][name] for name in ("id", "aadObjectId"))
CHANNEL = sample(PATH)["channelData"]["teamsChannelId"]


def test_the_response_is_a_message_that_repeats_what_was_understood(here: Receiver) -> None:
    """Without markup of Teams."""
    answer = send(here, PATH, text=f"<at>BMS</at>&nbsp;stop {ONE} {TWO} because R&amp;D is <b>done</b>\n")
    assert (here.only().server_ids, here.only().reason) == ((ONE, TWO), "R&D is done")
    assert json_of(answer)["type"] == "message"
    assert text_of(answer).startswith(f"Understood: stop 2 servers: {ONE}, {TWO}. Reason: `R\uff06D is done`.")


def test_a_message_without_a_mention_is_a_command(here: Receiver) -> None:
    """Its text is all that was typed."""
    send(here, PATH, text=f"plan {ONE}")
    assert (here.only().server_ids, here.only().dry_run) == ((ONE,), True)


@pytest.mark.parametrize("users", [AAD, USER])
def test_either_id_of_a_user_may_be_on_the_list(users: str) -> None:
    """That of the directory, and that of Teams."""
    here = receiver(PATH, AUTOSTOP_TEAMS_USERS=users)
    send(here, PATH)
    assert len(here.handed) == 1


@pytest.mark.parametrize(
    "channel_data",
    [{"channel": {"id": CHANNEL}}, {"teamsChannelId": CHANNEL}, {}, None],
    ids=repr,
)
def test_the_channel_is_named_in_several_places(here: Receiver, channel_data: Any) -> None:
    """The id of the conversation begins with it."""
    send(here, PATH, channelData=channel_data)
    assert len(here.handed) == 1


@pytest.mark.parametrize(
    "changes", [{"type": "conversationUpdate"}, {"type": None}, {"from.id": "28:bot"}, {"from.role": "bot"}]
)
def test_bots_and_other_activities_are_ignored(here: Receiver, changes: dict[str, Any]) -> None:
    """Without a response."""
    answer = send(here, PATH, **changes)
    assert (answer.status, answer.body, here.handed) == (200, b"", [])


def test_the_conversation_is_a_part_of_the_identity(here: Receiver) -> None:
    """The ids of messages are unique within one only; without an id the signature is the identity."""
    for changes in ({}, {}, {"id": "2"}, {"conversation.id": "another"}, {"id": None}, {"id": None}):
        send(here, PATH, **changes)
    ids = [request.id for request in here.handed]
    assert ids[0] == ids[1]
    assert ids[4] == ids[5]
    assert len(set(ids)) == 4


@pytest.mark.parametrize("header", ["HMAC", "Bearer {mac}", "{mac}", "HMAC {mac}=", "HMAC {hex}"])
def test_any_other_header_is_401(here: Receiver, header: str) -> None:
    """The signature must be in base64, after the scheme."""
    body, headers, _ = authenticated(PATH, sample(PATH))
    mac = headers["authorization"].removeprefix("HMAC ")
    forged = header.format(mac=mac, hex=base64.b64decode(mac).hex())
    refused(here.post(PATH, body, {"authorization": forged}), 401)
    assert here.handed == []


@pytest.mark.parametrize("time", ["", None, "now", 5])
def test_a_message_without_a_time_is_401(here: Receiver, time: object) -> None:
    """A recorded message would be valid for ever."""
    refused(send(here, PATH, timestamp=time), 401)
    assert here.handed == []


def test_a_time_may_have_any_zone(here: Receiver) -> None:
    """The event has it in UTC."""
    send(here, PATH, timestamp="2026-11-20T19:05:05+01:00")
    assert here.only().time == NOW + timedelta(minutes=5)
