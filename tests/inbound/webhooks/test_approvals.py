"""Approvals from chats: the typed command, the buttons of Slack and Mattermost, allowed users, responses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from slack_sdk.signature import SignatureVerifier

from handler.event_types import STOP_APPROVED
from handler.inbound.http.responses import Answer
from handler.settings.chat import ButtonAction, mac
from handler.stop.approval import Plan, issue
from handler.stop.model import Approver
from tests.inbound.webhooks import test_mattermost as mattermost
from tests.inbound.webhooks import test_rocketchat as rocketchat
from tests.inbound.webhooks import test_slack as slack
from tests.inbound.webhooks import test_teams as teams
from tests.inbound.webhooks.scene import FORM, JSON, ONE, TWO, Scene, flip, form, fresh_secret, json_of, refused
from tests.inbound.webhooks.test_slack_sdk import Still
from tests.settings.environments import violations
from tests.support.sink_server import Say, SinkServer

TOKEN = "AQ" + "x_-9" * 20
KEY = fresh_secret()


# --- typed ---


def test_an_approval_that_is_typed_is_handed_on() -> None:
    """With the token as it is and the identity of the user; the first response has no more than that."""
    here = slack.scene()
    words = slack.shown(slack.send(here, f"approve {TOKEN}"))
    request = here.only()
    assert (request.type, request.plan, request.approved_by) == (STOP_APPROVED, TOKEN, f"slack:T0001/{slack.USER}")
    assert (request.server_ids, request.requester, request.approval) == ((), None, None)
    assert "approve the plan" in words
    assert "handed on" in words
    assert TOKEN not in words


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("approve", "x"),
        (f"approve {TOKEN} {TOKEN}", "x"),
        (f"approve {TOKEN} --dry-run", "x"),
        (f"aprove {TOKEN}", "x"),
    ],
)
def test_what_is_not_an_approval_is_not_handed_on(text: str, kind: str) -> None:
    """The grammar is closed."""
    here = slack.scene()
    assert "Not understood" in slack.shown(slack.send(here, text)), kind
    assert here.handed == []


def test_each_chat_has_its_identities() -> None:
    """They are compared by `stop_servers`, so they must be those of the user."""
    for scene, answer, identity in (
        (here := mattermost.scene(), _typed_mattermost(here), f"mattermost:{mattermost.USER}"),
        (here := teams.scene(), teams.send(here, f"<at>BMS</at> approve {TOKEN}"), f"teams:{TWO}/{teams.AAD}"),
        (
            here := rocketchat.scene(),
            rocketchat.send(here, f"!bms approve {TOKEN}"),
            f"rocketchat:{rocketchat.message()['user_id']}",
        ),
    ):
        assert answer.status == 200
        assert scene.only().approved_by == identity
        assert scene.only().plan == TOKEN


def _typed_mattermost(here: Scene) -> Answer:
    return here.post("/mattermost", form(mattermost.command(f"approve {TOKEN}")), FORM)


def test_a_stop_names_its_requester() -> None:
    """So that another person can approve it."""
    here = slack.scene()
    slack.send(here)
    assert (here.only().requester, here.only().approval) == (f"slack:T0001/{slack.USER}", None)


@pytest.mark.parametrize("approver", Approver)
def test_stops_from_chats_may_need_an_approval(approver: Approver) -> None:
    """A plan needs none, and the first response announces it."""
    here = slack.scene(AUTOSTOP_CHAT_APPROVAL=approver.value)
    assert "needs an approval" in slack.shown(slack.send(here))
    slack.send(here, f"plan {ONE}", trigger_id="2")
    slack.send(here, f"approve {TOKEN}", trigger_id="3")
    assert [request.approval for request in here.handed] == [approver, None, None]


@pytest.mark.parametrize("text", [f"approve {TOKEN}", f"stop {ONE}"])
def test_without_an_identity_nothing_is_handed_on_that_needs_one(text: str) -> None:
    """A request without a requester could be approved by its author."""
    here = slack.scene(AUTOSTOP_CHAT_APPROVAL="other")
    assert "who you are" in slack.shown(slack.send(here, text, team_id=""))
    assert here.handed == []


def test_another_person_must_be_possible() -> None:
    """With one user, or without any chat, nothing could ever be approved."""
    from handler.settings.receive_webhook import from_environ

    sink = {"AUTOSTOP_EVENT_SINK": "http://sink.example/", "AUTOSTOP_CHAT_APPROVAL": "other"}
    chat = {"AUTOSTOP_SLACK_SIGNING_SECRET": KEY, "AUTOSTOP_SLACK_USERS": "U1", "AUTOSTOP_SLACK_CHANNELS": "C1"}
    for environ in (sink, {**sink, **chat}, {**sink, "AUTOSTOP_SLACK_USERS": "U1,U2"}):
        (found,) = violations(environ, from_environ)
        assert found.startswith("AUTOSTOP_CHAT_APPROVAL must be other only if")
    assert from_environ({**sink, **chat, "AUTOSTOP_SLACK_USERS": "U1,U2"}).chat_approval is Approver.OTHER
    assert from_environ({**sink, "AUTOSTOP_CHAT_APPROVAL": "self"}).chat_approval is Approver.SELF
    assert from_environ({**sink, "AUTOSTOP_CHAT_APPROVAL": "off"}).chat_approval is None


# --- Slack's buttons ---


@pytest.fixture
def responses() -> Iterator[SinkServer]:
    """What Slack has at a `response_url`."""
    with SinkServer() as server:
        yield server


def origin(server: SinkServer) -> str:
    """Where it is, without a path."""
    return server.url.removesuffix("/results")


def click(url: str, action: str = ButtonAction.APPROVE, value: str = TOKEN, **changes: Any) -> bytes:
    """A block action, as Slack documents it."""
    payload = {
        "type": "block_actions",
        "user": {"id": slack.USER, "username": "ada", "name": "ada", "team_id": "T0001"},
        "api_app_id": "A02",
        "token": "legacy",
        "container": {"type": "message", "message_ts": "1548261231.000200", "channel_id": slack.CHANNEL},
        "trigger_id": "12321423423.333649436676.d8c1bb837935619ccad0f624c448ffb3",
        "team": {"id": "T0001", "domain": "example"},
        "enterprise": None,
        "is_enterprise_install": False,
        "channel": {"id": slack.CHANNEL, "name": "ops"},
        "message": {"type": "message", "text": "A plan", "ts": "1548261231.000200"},
        "state": {"values": {}},
        "response_url": url,
        "actions": [
            {
                "action_id": action,
                "block_id": "=qXel",
                "text": {"type": "plain_text", "text": "Approve", "emoji": False},
                "value": value,
                "style": "primary",
                "type": "button",
                "action_ts": "1548426417.840180",
            }
        ],
        **changes,
    }
    return form({"payload": json.dumps(payload)})


def clicking(responses: SinkServer, **environ: str) -> Scene:
    """Slack, whose `response_url`s are here."""
    return slack.scene(AUTOSTOP_SLACK_HOSTS=origin(responses), **environ)


def press(here: Scene, body: bytes) -> Answer:
    """A click with a good signature."""
    return here.post("/slack", body, slack.signed(body))


def test_a_click_on_approve_is_an_approval_and_takes_the_buttons_away(responses: SinkServer) -> None:
    """Slack's own code takes the signature; the message is replaced, so that it is not clicked again."""
    here = clicking(responses)
    body = click(f"{origin(responses)}/actions/T0001/1/x")
    assert SignatureVerifier(slack.SECRET, Still()).is_valid_request(body, slack.signed(body))
    answer = press(here, body)
    assert (answer.status, answer.body) == (200, b"")
    request = here.only()
    assert (request.plan, request.approved_by) == (TOKEN, f"slack:T0001/{slack.USER}")
    assert request.reply_to == f"{origin(responses)}/actions/T0001/1/x"
    (update,) = responses.got
    assert update.data["replace_original"] is True
    assert "handed on" in update.data["text"]
    assert TOKEN not in update.data["text"]


def test_a_replayed_click_is_the_same_event(responses: SinkServer) -> None:
    """A consumer can drop the repeat; another click is another event."""
    here = clicking(responses)
    url = f"{origin(responses)}/actions/x"
    for body in (click(url), click(url), click(url, trigger_id="another")):
        press(here, body)
    one, two, three = (request.id for request in here.handed)
    assert one == two != three
    here = buttons()
    for message in (action(), action(), action(trigger_id="another")):
        here.post("/mattermost", message, JSON)
    one, two, three = (request.id for request in here.handed)
    assert one == two != three


def test_a_click_of_the_requester_leaves_the_buttons_for_others(responses: SinkServer) -> None:
    """`stop_servers` would refuse it, too; then the message would be gone."""
    plan = Plan(ONE, "/s", "1", f"slack:T0001/{slack.USER}", Approver.OTHER, datetime.now(UTC), {TWO: b"seen1234"})
    token = issue(plan, [KEY.encode()], "/bms-autostop")
    here = clicking(responses)
    press(here, click(f"{origin(responses)}/actions/x", value=token))
    assert here.handed == []
    (response,) = responses.got
    assert response.data["replace_original"] is False
    assert "another person" in response.data["text"]
    other = issue(replace(plan, requester="slack:T0001/U9"), [KEY.encode()], "/bms-autostop")
    press(here, click(f"{origin(responses)}/actions/x", value=other))
    assert here.only().plan == other


def test_a_click_on_discard_hands_nothing_on(responses: SinkServer) -> None:
    """It removes the buttons, and states that the token is still valid."""
    here = clicking(responses)
    press(here, click(f"{origin(responses)}/actions/x", ButtonAction.DISCARD, "plan"))
    assert here.handed == []
    (update,) = responses.got
    assert update.data["replace_original"] is True
    assert "Nothing was sent" in update.data["text"]


@pytest.mark.parametrize(
    "changes",
    [
        {"user": {"id": "U9", "username": "eve", "team_id": "T0001"}},
        {"channel": {"id": "C9", "name": "elsewhere"}},
        {"team": None, "user": {"id": slack.USER}},
        {"actions": []},
        {"actions": "x"},
        {"actions": [{"action_id": ButtonAction.APPROVE, "value": TOKEN}] * 2},
        {"actions": [{"action_id": "other", "value": TOKEN}]},
        {"actions": [{"action_id": ButtonAction.APPROVE, "value": f"{TOKEN} {TOKEN}"}]},
        {"actions": [{"action_id": ButtonAction.APPROVE, "value": ""}]},
    ],
)
def test_other_clicks_hand_nothing_on_and_leave_the_message(responses: SinkServer, changes: dict[str, Any]) -> None:
    """The allow-lists apply, and only the author of the click gets the response."""
    here = clicking(responses)
    assert press(here, click(f"{origin(responses)}/actions/x", **changes)).status == 200
    assert here.handed == []
    (response,) = responses.got
    assert (response.data["replace_original"], response.data["response_type"]) == (False, "ephemeral")


@pytest.mark.parametrize("kind", ["view_submission", "shortcut", "message_action", "", None])
def test_other_interactions_are_ignored(responses: SinkServer, kind: str | None) -> None:
    """They are none of ours."""
    here = clicking(responses)
    assert press(here, click(f"{origin(responses)}/actions/x", type=kind)).status == 200
    assert (here.handed, responses.got) == ([], [])


def test_a_forged_or_old_click_is_401(responses: SinkServer) -> None:
    """Signed like a command."""
    here = clicking(responses)
    body = click(f"{origin(responses)}/actions/x")
    headers = slack.signed(body)
    assert refused(here.post("/slack", body, {**headers, "X-Slack-Signature": flip(headers["X-Slack-Signature"])}), 401)
    assert refused(here.post("/slack", body.replace(b"ada", b"eve"), headers), 401)
    assert refused(here.post("/slack", body, slack.signed(body, slack.SENT - 400)), 401)
    assert (here.handed, responses.got) == ([], [])


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/actions/x", "https://evil.example/actions/x", "", "file:///etc"])
def test_nothing_is_posted_to_another_host(responses: SinkServer, url: str) -> None:
    """The approval itself is handed on."""
    here = clicking(responses)
    assert press(here, click(url)).status == 200
    assert here.only().plan == TOKEN
    assert responses.got == []


@pytest.mark.parametrize("say", [Say(500), Say(0), Say(302, {"Location": "http://127.0.0.1:1/"})])
def test_a_response_url_that_fails_changes_nothing(say: Say) -> None:
    """A second approval of the plan would find everything changed."""
    with SinkServer(say) as failing:
        here = clicking(failing)
        assert press(here, click(f"{origin(failing)}/actions/x")).status == 200
        assert here.only().plan == TOKEN


def test_a_click_that_is_not_handed_on_can_be_made_again(responses: SinkServer) -> None:
    """The buttons stay."""
    here = slack.scene(AUTOSTOP_SLACK_HOSTS=origin(responses), down=True)
    press(here, click(f"{origin(responses)}/actions/x"))
    (response,) = responses.got
    assert response.data["replace_original"] is False
    assert "NOT handed on" in response.data["text"]


# --- Mattermost's buttons ---


def action(action: str = ButtonAction.APPROVE, value: str = TOKEN, **changes: Any) -> dict[str, Any]:
    """A click, as Mattermost sends it."""
    return {
        "user_id": mattermost.USER,
        "user_name": "ada",
        "channel_id": mattermost.CHANNEL,
        "channel_name": "ops",
        "team_id": "rdc9bgriktyx9p4kowh3dmgqyc",
        "team_domain": "example",
        "post_id": "gzy8q4mh3x7fktnxk8oyzbgwtm",
        "trigger_id": "dGVzdC1jbGljaw",
        "type": "button",
        "data_source": "",
        "context": {"action": action, "value": value, "mac": mac(KEY, action, value)},
        **changes,
    }


def buttons(**environ: str) -> Scene:
    """Mattermost, with a key for buttons that was changed just now."""
    return mattermost.scene(AUTOSTOP_ACTION_KEYS=f"{fresh_secret()},{KEY}", **environ)


def test_a_click_in_mattermost_is_an_approval_and_takes_the_buttons_away() -> None:
    """Our MAC in the context authenticates it."""
    here = buttons()
    answer = json_of(here.post("/mattermost", action(), JSON))
    assert (here.only().plan, here.only().approved_by) == (TOKEN, f"mattermost:{mattermost.USER}")
    assert answer["update"]["props"] == {}
    assert "handed on" in answer["update"]["message"]


def test_a_click_on_discard_in_mattermost_hands_nothing_on() -> None:
    """It takes the buttons away."""
    here = buttons()
    answer = json_of(here.post("/mattermost", action(ButtonAction.DISCARD, "plan"), JSON))
    assert here.handed == []
    assert "Nothing was sent" in answer["update"]["message"]


@pytest.mark.parametrize(
    "context",
    [
        {"action": ButtonAction.APPROVE, "value": TOKEN},
        {"action": ButtonAction.APPROVE, "value": TOKEN, "mac": ""},
        {"action": ButtonAction.APPROVE, "value": TOKEN, "mac": "\u00e9"},
        {"action": ButtonAction.APPROVE, "value": TOKEN, "mac": mac(KEY, ButtonAction.DISCARD, TOKEN)},
        {"action": ButtonAction.APPROVE, "value": f"{TOKEN}x", "mac": mac(KEY, ButtonAction.APPROVE, TOKEN)},
        {"action": ButtonAction.APPROVE, "value": TOKEN, "mac": mac("x" * 32, ButtonAction.APPROVE, TOKEN)},
        {},
    ],
)
def test_a_context_that_is_not_ours_is_401(context: dict[str, str]) -> None:
    """Who reaches the URL could forge one, also with a token of Mattermost's beside it."""
    here = buttons()
    assert refused(here.post("/mattermost", action(context=context), JSON), 401)
    assert refused(here.post("/mattermost", action(context=context, token=mattermost.TOKEN), JSON), 401)
    assert here.handed == []


def test_without_a_key_every_click_is_401() -> None:
    """No click could be authenticated."""
    here = mattermost.scene()
    assert refused(here.post("/mattermost", action(), JSON), 401)


@pytest.mark.parametrize("changes", [{"user_id": "eve"}, {"channel_id": "elsewhere"}, {"user_id": ""}])
def test_strangers_clicks_in_mattermost_hand_nothing_on(changes: dict[str, str]) -> None:
    """The allow-lists apply; the message stays."""
    here = buttons()
    answer = json_of(here.post("/mattermost", action(**changes), JSON))
    assert here.handed == []
    assert set(answer) == {"ephemeral_text"}
