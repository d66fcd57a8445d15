"""Clicks on Keep 2 h in Slack and Mattermost: what is handed on, who may, and what is answered."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from slack_sdk.signature import SignatureVerifier

from handler.event_types import KEEP_REQUESTED
from handler.keep.decide import written
from handler.keep.model import KeepRequest
from handler.services.receive_webhook import WebhookService
from handler.settings.chat import ButtonAction, mac
from handler.settings.receive_webhook import from_environ
from handler.stop.model import Reason
from tests.inbound.webhooks import test_mattermost as mattermost
from tests.inbound.webhooks import test_slack as slack
from tests.inbound.webhooks.scene import JSON, NOW, ONE, TWO, Scene, flip, fresh_secret, json_of, refused
from tests.inbound.webhooks.test_approvals import (
    KEY,
    action,
    buttons,
    click,
    clicking,
    origin,
    press,
    responses,
)
from tests.inbound.webhooks.test_slack_sdk import Still
from tests.outbound.chat.reports import BUTTONS, document
from tests.outbound.chat.test_notice import noticed
from tests.stop.fakes import NOW as ENDED
from tests.stop.fakes import id_of
from tests.support.sink_server import SinkServer

__all__ = ["responses"]

UNTIL = NOW.replace(microsecond=0) + timedelta(hours=3)
VALUE = f"{ONE} until {written(UNTIL)}"


def kept(here: Scene) -> KeepRequest:
    """The only request, which is for a keep."""
    assert here.handed == []
    (request,) = here.kept
    return request


def keep_click(responses: SinkServer, value: str = VALUE, **changes: Any) -> bytes:
    """A click on Keep in Slack."""
    return click(f"{origin(responses)}/actions/T0001/1/x", ButtonAction.KEEP, value, **changes)


def keep_action(value: str = VALUE, **changes: Any) -> dict[str, Any]:
    """A click on Keep in Mattermost."""
    return action(ButtonAction.KEEP, value, **changes)


# --- Slack ---


def test_a_click_on_keep_is_a_keep_and_leaves_the_notice(responses: SinkServer) -> None:
    """Slack's own code takes the signature; all in the channel read who clicked, and the notice stays for others."""
    here = clicking(responses)
    body = keep_click(responses)
    assert SignatureVerifier(slack.SECRET, Still()).is_valid_request(body, slack.signed(body))
    answer = press(here, body)
    assert (answer.status, answer.body) == (200, b"")
    request = kept(here)
    assert (request.type, request.server_ids, request.until) == (KEEP_REQUESTED, (ONE,), UNTIL)
    assert (request.duration, request.release, request.dry_run, request.reason) == (None, False, False, None)
    assert request.time == datetime.fromtimestamp(slack.SENT, UTC)
    assert request.requested_by == f"ada {slack.USER} in ops {slack.CHANNEL} (Slack)"
    assert request.reply_to == f"{origin(responses)}/actions/T0001/1/x"
    (shared,) = responses.got
    assert (shared.data["response_type"], shared.data["replace_original"]) == ("in_channel", False)
    assert shared.data["text"] == (
        f"Understood: keep 1 server until {written(UNTIL)}: {ONE}. The request was handed on. The result comes later. "
        f"Clicked by `ada {slack.USER} in ops {slack.CHANNEL}`."
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"user": {"id": "U9", "username": "eve", "team_id": "T0001"}},
        {"channel": {"id": "C9", "name": "elsewhere"}},
        {"user": None},
        {"channel": None},
        {"actions": [{"action_id": ButtonAction.KEEP, "value": VALUE}] * 2},
        {"actions": [{"action_id": ButtonAction.KEEP}]},
        {"actions": [{"action_id": f"{ButtonAction.KEEP}x", "value": VALUE}]},
    ],
)
def test_strangers_and_other_clicks_keep_nothing(responses: SinkServer, changes: dict[str, Any]) -> None:
    """The allow-lists apply, and only the user who clicked reads why."""
    here = clicking(responses)
    assert press(here, keep_click(responses, **changes)).status == 200
    assert (here.handed, here.kept) == ([], [])
    (answer,) = responses.got
    assert (answer.data["replace_original"], answer.data["response_type"]) == (False, "ephemeral")


@pytest.mark.parametrize(
    "value", ["", ONE, f"{ONE} until", f"{ONE} until tomorrow", f"{ONE} because x", "until 2026-11-20T22:00:00Z"]
)
def test_a_value_that_is_no_keep_keeps_nothing(responses: SinkServer, value: str) -> None:
    """The value of a button is parsed by the grammar of the verb."""
    here = clicking(responses)
    press(here, keep_click(responses, value))
    assert (here.handed, here.kept) == ([], [])
    assert "Not understood" in responses.got[0].data["text"]


def test_a_forged_or_old_click_on_keep_is_401(responses: SinkServer) -> None:
    """Signed as a command is: no other server, user or time can be put in."""
    here = clicking(responses)
    body = keep_click(responses)
    headers = slack.signed(body)
    assert refused(here.post("/slack", body, {**headers, "X-Slack-Signature": flip(headers["X-Slack-Signature"])}), 401)
    assert refused(here.post("/slack", body.replace(ONE.encode(), TWO.encode()), headers), 401)
    assert refused(here.post("/slack", body.replace(b"ada", b"eve"), headers), 401)
    assert refused(here.post("/slack", body, slack.signed(body, slack.SENT - 400)), 401)
    assert refused(here.post("/slack", body, {}), 401)
    assert (here.handed, here.kept, responses.got) == ([], [], [])


@pytest.mark.parametrize(
    ("ahead", "words"),
    [
        (timedelta(minutes=-10), "That time has passed."),
        (timedelta(hours=25), "A keep may end at most 1d ahead (AUTOSTOP_MAX_KEEP)."),
    ],
)
def test_a_click_too_late_or_too_early_keeps_nothing(responses: SinkServer, ahead: timedelta, words: str) -> None:
    """The same limits as for the typed verb; the user who clicked reads so at once."""
    here, mm = clicking(responses), buttons()
    press(here, keep_click(responses, f"{ONE} until {written(NOW + ahead)}"))
    answer = json_of(mm.post("/mattermost", keep_action(f"{ONE} until {written(NOW + ahead)}"), JSON))
    assert (here.handed, here.kept, mm.handed, mm.kept) == ([], [], [], [])
    assert words in responses.got[0].data["text"]
    assert words in answer["ephemeral_text"]


def test_a_click_that_is_not_handed_on_says_so(responses: SinkServer) -> None:
    """To the user who clicked; the button stays."""
    here = slack.scene(AUTOSTOP_SLACK_HOSTS=origin(responses), down=True)
    press(here, keep_click(responses))
    (answer,) = responses.got
    assert (answer.data["replace_original"], answer.data["response_type"]) == (False, "ephemeral")
    assert "NOT handed on" in answer.data["text"]


# --- both ---


def test_a_replay_asks_for_no_more_than_the_click(responses: SinkServer) -> None:
    """It is the same event, and no repeat at whatever time prolongs the keep: the end is in the button."""
    here = clicking(responses)
    for body in (keep_click(responses), keep_click(responses), keep_click(responses, trigger_id="another")):
        press(here, body)
    one, two, three = (request.id for request in here.kept)
    assert one == two != three
    mm = buttons()
    for message in (keep_action(), keep_action(), keep_action(trigger_id="another")):
        mm.post("/mattermost", message, JSON)
    one, two, three = (request.id for request in mm.kept)
    assert one == two != three
    assert [request.until for request in (*here.kept, *mm.kept)] == [UNTIL] * 6


# --- Mattermost ---


def test_a_click_on_keep_in_mattermost_is_a_keep_and_leaves_the_notice() -> None:
    """Our MAC in the context is the proof; the user who clicked reads that it was handed on."""
    here = buttons()
    answer = json_of(here.post("/mattermost", keep_action(), JSON))
    request = kept(here)
    assert (request.type, request.server_ids, request.until) == (KEEP_REQUESTED, (ONE,), UNTIL)
    assert request.requested_by is not None
    assert request.requested_by.startswith(f"ada {mattermost.USER} in ops {mattermost.CHANNEL}")
    assert set(answer) == {"ephemeral_text"}
    assert answer["ephemeral_text"].startswith(f"Understood: keep 1 server until {written(UNTIL)}: {ONE}.")


def test_every_bit_of_the_mac_counts() -> None:
    """And each part of what it covers."""
    here = buttons()
    good = bytes.fromhex(mac(KEY, ButtonAction.KEEP, VALUE))
    for bit in range(len(good) * 8):
        forged = bytearray(good)
        forged[bit // 8] ^= 1 << bit % 8
        context = {"action": ButtonAction.KEEP, "value": VALUE, "mac": forged.hex()}
        assert refused(here.post("/mattermost", action(context=context), JSON), 401), bit
    later = f"{ONE} until {written(UNTIL + timedelta(hours=1))}"
    for context in (
        {"action": ButtonAction.KEEP, "value": VALUE.replace(ONE, TWO), "mac": good.hex()},
        {"action": ButtonAction.KEEP, "value": later, "mac": good.hex()},
        {"action": ButtonAction.APPROVE, "value": VALUE, "mac": good.hex()},
        {
            "action": ButtonAction.KEEP,
            "value": VALUE,
            "mac": mac(fresh_secret(), ButtonAction.KEEP, VALUE),
        },
        {"action": ButtonAction.KEEP, "value": VALUE},
    ):
        assert refused(here.post("/mattermost", action(context=context), JSON), 401), context
    assert (here.handed, here.kept) == ([], [])


@pytest.mark.parametrize("changes", [{"user_id": "eve"}, {"channel_id": "elsewhere"}, {"user_id": ""}])
def test_strangers_clicks_on_keep_in_mattermost_hand_nothing_on(changes: dict[str, str]) -> None:
    """The allow-lists apply."""
    here = buttons()
    assert set(json_of(here.post("/mattermost", keep_action(**changes), JSON))) == {"ephemeral_text"}
    assert (here.handed, here.kept) == ([], [])


def test_without_a_trigger_two_servers_of_one_notice_are_two_events() -> None:
    """Old servers send none; one server clicked twice is one event."""
    here = buttons()
    for value in (VALUE, VALUE, VALUE.replace(ONE, TWO)):
        here.post("/mattermost", keep_action(value, trigger_id=""), JSON)
    one, two, three = (request.id for request in here.kept)
    assert one == two != three


# --- where they are posted ---


@pytest.mark.parametrize("separate", [True, False])
def test_clicks_are_posted_where_typed_keeps_are(separate: bool, responses: SinkServer) -> None:
    """To `AUTOSTOP_KEEP_SINK`, else to where stops are posted, such as a broker."""
    with SinkServer() as stops, SinkServer() as keeps:
        environ = {"AUTOSTOP_EVENT_SINK": stops.url, **({"AUTOSTOP_KEEP_SINK": keeps.url} if separate else {})}
        here = clicking(responses)
        press(here, keep_click(responses))
        WebhookService(from_environ(environ)).hand_on(kept(here), time.monotonic() + 30)
        assert [len(stops.got), len(keeps.got)] == ([0, 1] if separate else [1, 0])
        (got,) = keeps.got if separate else stops.got
    assert got.headers["ce-type"] == KEEP_REQUESTED
    assert (got.data["server_ids"], got.data["until"]) == ([ONE], written(UNTIL))


# --- from the message to the click ---


def test_each_button_of_a_message_is_taken_when_it_is_clicked(responses: SinkServer) -> None:
    """As `notify_chat` makes it, with the same key."""
    ids = (id_of(0), id_of(1))
    report = noticed(Reason.DRY_RUN, Reason.DRY_RUN)
    slack_here = clicking(responses)
    for block in document("slack", report)["blocks"]:
        if button := block.get("accessory"):
            assert press(slack_here, keep_click(responses, button["value"], trigger_id=button["value"])).status == 200
    mm = mattermost.scene(AUTOSTOP_ACTION_KEYS=BUTTONS.key.reveal())
    for attachment in document("mattermost", report)["attachments"]:
        for each in attachment.get("actions", ()):
            message = keep_action(context=each["integration"]["context"], trigger_id=each["id"])
            assert set(json_of(mm.post("/mattermost", message, JSON))) == {"ephemeral_text"}
    for here in (slack_here, mm):
        assert [request.server_ids for request in here.kept] == [(id_,) for id_ in ids]
        assert {request.until for request in here.kept} == {ENDED + timedelta(hours=3)}
