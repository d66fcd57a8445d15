"""Clicks on Approve, Discard and Keep 2 h in Slack and Mattermost: what is handed on, who may, and the responses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, Protocol

import pytest

from handler.event_types import KEEP_REQUESTED
from handler.inbound.http.responses import Answer
from handler.keep.decide import written
from handler.settings.chat import ButtonAction, mac
from handler.stop.approval import Plan, issue
from handler.stop.model import Approver, Reason
from tests.inbound.webhooks.authentication import BY_SIGNATURE, KEY, SENT, receiver, sample
from tests.inbound.webhooks.receiver import (
    FORM,
    JSON,
    NOW,
    ONE,
    TWO,
    Receiver,
    flip,
    form,
    fresh_secret,
    json_of,
    refused,
)
from tests.inbound.webhooks.test_slack import THEIRS
from tests.outbound.chat.reports import BUTTONS, document
from tests.outbound.chat.test_notice import noticed
from tests.stop.fakes import NOW as ENDED
from tests.stop.fakes import id_of
from tests.support.sink_server import Say, SinkServer

TOKEN = "AQ" + "x_-9" * 20
ACTION_KEY = fresh_secret()
UNTIL = NOW.replace(microsecond=0) + timedelta(hours=3)
VALUES: dict[str, str] = {ButtonAction.APPROVE: TOKEN, ButtonAction.KEEP: f"{ONE} until {written(UNTIL)}"}
SLACK, MATTERMOST = sample("/slack"), sample("/mattermost")


class Response(NamedTuple):
    """What the users of a chat see of a click.

    Attributes:
        kind: `replaced`, for a message without its buttons; `shared` with the channel; or `private`.
        text: of the response.
    """

    kind: str
    text: str


class Clicks(Protocol):
    """A chat whose users click on buttons."""

    here: Receiver
    answer: Answer

    def click(self, action: str = ButtonAction.APPROVE, value: str | None = None, **changes: Any) -> None:
        """Click; the value is that of the action unless it is given, and changes are to the message of the chat."""

    def response(self) -> Response:
        """Return the response to the only click."""


class InSlack:
    """Slack, whose `response_url`s are at a server of the test."""

    def __init__(self, server: SinkServer, *, down: bool = False) -> None:
        self.server, self.origin = server, server.url.removesuffix("/results")
        self.here = receiver("/slack", down=down, AUTOSTOP_SLACK_HOSTS=self.origin)

    def click(self, action: str = ButtonAction.APPROVE, value: str | None = None, **changes: Any) -> None:
        """Send a signed block action."""
        body = slack_click(f"{self.origin}/actions/T0001/1/x", action, value, **changes)
        self.answer = press(self.here, body)
        assert (self.answer.status, self.answer.body) == (200, b"")

    def response(self) -> Response:
        """Return what was posted to the `response_url`."""
        (got,) = self.server.got
        if got.data["replace_original"]:
            return Response("replaced", got.data["text"])
        return Response({"in_channel": "shared", "ephemeral": "private"}[got.data["response_type"]], got.data["text"])


class InMattermost:
    """Mattermost, with a key for buttons that was changed just now."""

    def __init__(self, *, down: bool = False) -> None:
        self.here = receiver("/mattermost", down=down, AUTOSTOP_ACTION_KEYS=f"{fresh_secret()},{ACTION_KEY}")

    def click(self, action: str = ButtonAction.APPROVE, value: str | None = None, **changes: Any) -> None:
        """Send an action with our MAC."""
        self.answer = self.here.post("/mattermost", mattermost_click(action, value, **changes), JSON)

    def response(self) -> Response:
        """Return the answer to the click."""
        document = json_of(self.answer)
        if "update" in document:
            assert document["update"]["props"] == {}
            return Response("replaced", document["update"]["message"])
        assert set(document) == {"ephemeral_text"}
        return Response("private", document["ephemeral_text"])


def slack_click(url: str, action: str = ButtonAction.APPROVE, value: str | None = None, **changes: Any) -> bytes:
    """A block action, as Slack documents it."""
    payload = {
        "type": "block_actions",
        "user": {"id": SLACK["user_id"], "username": "ada", "team_id": "T0001"},
        "trigger_id": "12321423423.333649436676.d8c1bb837935619ccad0f624c448ffb3",
        "team": {"id": "T0001", "domain": "example"},
        "channel": {"id": SLACK["channel_id"], "name": "ops"},
        "message": {"type": "message", "text": "A plan", "ts": "1548261231.000200"},
        "response_url": url,
        "actions": [{"type": "button", "action_id": action, "value": VALUES.get(action) if value is None else value}],
        **changes,
    }
    return form({"payload": json.dumps(payload)})


def press(here: Receiver, body: bytes, **headers: str) -> Answer:
    """Send a click in Slack, signed but for the headers that are given."""
    return here.post("/slack", body, {**FORM, **BY_SIGNATURE["slack"].sign(body, int(SENT), KEY), **headers})


def mattermost_click(action: str = ButtonAction.APPROVE, value: str | None = None, **changes: Any) -> dict[str, Any]:
    """A click, as Mattermost sends it."""
    value = VALUES[action] if value is None else value
    return {
        **{name: MATTERMOST[name] for name in ("user_id", "user_name", "channel_id", "channel_name", "team_id")},
        "post_id": "gzy8q4mh3x7fktnxk8oyzbgwtm",
        "trigger_id": "dGVzdC1jbGljaw",
        "context": {"action": action, "value": value, "mac": mac(ACTION_KEY, action, value)},
        **changes,
    }


@pytest.fixture
def responses() -> Iterator[SinkServer]:
    """What Slack has at a `response_url`."""
    with SinkServer() as server:
        yield server


@pytest.fixture
def slack(responses: SinkServer) -> InSlack:
    """Slack."""
    return InSlack(responses)


@pytest.fixture(params=["slack", "mattermost"])
def chat(request: pytest.FixtureRequest, responses: SinkServer) -> Clicks:
    """Each chat with buttons."""
    return InSlack(responses) if request.param == "slack" else InMattermost()


EITHER = pytest.mark.parametrize("action", [ButtonAction.APPROVE, ButtonAction.KEEP])


# --- both chats


def test_a_click_on_approve_is_an_approval_and_takes_the_buttons_away(chat: Clicks) -> None:
    """The message is replaced, so that it is not clicked again."""
    chat.click()
    user = MATTERMOST["user_id"] if isinstance(chat, InMattermost) else f"T0001/{SLACK['user_id']}"
    request = chat.here.only()
    assert (request.plan, request.approved_by) == (TOKEN, f"{type(chat).__name__[2:].lower()}:{user}")
    kind, text = chat.response()
    assert kind == "replaced"
    assert "handed on" in text
    assert TOKEN not in text


def test_a_click_on_keep_is_a_keep_and_leaves_the_notice(chat: Clicks) -> None:
    """The notice stays for others; in Slack the channel reads who clicked."""
    chat.click(ButtonAction.KEEP)
    (request,) = chat.here.kept
    assert (request.type, request.server_ids, request.until) == (KEEP_REQUESTED, (ONE,), UNTIL)
    assert (request.duration, request.release, request.dry_run, request.reason) == (None, False, False, None)
    who, kind = f"ada {MATTERMOST['user_id']} in ops {MATTERMOST['channel_id']}", "private"
    if isinstance(chat, InSlack):
        who, kind = f"ada {SLACK['user_id']} in ops {SLACK['channel_id']}", "shared"
        assert request.time == datetime.fromtimestamp(int(SENT), UTC)
        assert request.reply_to == f"{chat.origin}/actions/T0001/1/x"
    assert request.requested_by is not None
    assert request.requested_by.startswith(who)
    text = f"Understood: keep 1 server until {written(UNTIL)}: {ONE}. The request was handed on."
    clicked = f"{text} The result comes later. Clicked by `{who}`."
    assert chat.response() == (kind, clicked)


def test_a_click_on_discard_hands_nothing_on(chat: Clicks) -> None:
    """It removes the buttons, and states that nothing was sent."""
    chat.click(ButtonAction.DISCARD, "plan")
    assert chat.here.handed == []
    kind, text = chat.response()
    assert kind == "replaced"
    assert "Nothing was sent" in text


@EITHER
def test_a_replay_asks_for_no_more_than_the_click(chat: Clicks, action: ButtonAction) -> None:
    """It is the same event, and no repeat prolongs a keep: the end is in the button. Another click is another event."""
    for changes in ({}, {}, {"trigger_id": "another"}):
        chat.click(action, **changes)
    one, two, three = [request.id for request in chat.here.handed] + [request.id for request in chat.here.kept]
    assert one == two != three
    assert {request.until for request in chat.here.kept} <= {UNTIL}


@EITHER
@pytest.mark.parametrize("who", ["user", "channel", "nobody"])
def test_clicks_of_others_hand_nothing_on(chat: Clicks, action: ButtonAction, who: str) -> None:
    """The lists apply, only the user who clicked reads why, and the message stays."""
    others: dict[str, dict[str, Any]] = {
        "user": {"user": {"id": "U9", "username": "eve"}, "user_id": "U9"},
        "channel": {"channel": {"id": "C9", "name": "elsewhere"}, "channel_id": "C9"},
        "nobody": {"user": None, "channel": None, "user_id": "", "channel_id": ""},
    }
    chat.click(action, **others[who])
    assert (chat.here.handed, chat.here.kept) == ([], [])
    assert chat.response().kind == "private"


@pytest.mark.parametrize(
    "value",
    ["", ONE, f"{ONE} until", f"{ONE} until tomorrow", f"{ONE} because x", "until 2026-11-20T22:00:00Z", "a b"],
)
@EITHER
def test_a_value_is_parsed_by_the_grammar_of_its_verb(chat: Clicks, action: ButtonAction, value: str) -> None:
    """What it does not have hands nothing on; the id of a server is a token to it."""
    chat.click(action, value)
    if (action, value) != (ButtonAction.APPROVE, ONE):
        assert (chat.here.handed, chat.here.kept) == ([], [])
        assert "Not understood" in chat.response().text


@pytest.mark.parametrize(
    ("ahead", "words"),
    [
        (timedelta(minutes=-10), "That time has passed."),
        (timedelta(hours=25), "A keep may end at most 1d ahead (AUTOSTOP_MAX_KEEP)."),
    ],
)
def test_a_keep_that_is_too_late_or_too_long_is_refused_at_once(chat: Clicks, ahead: timedelta, words: str) -> None:
    """The same limits as for the typed verb."""
    chat.click(ButtonAction.KEEP, f"{ONE} until {written(NOW + ahead)}")
    assert (chat.here.handed, chat.here.kept) == ([], [])
    assert words in chat.response().text


@EITHER
@pytest.mark.parametrize("name", ["slack", "mattermost"])
def test_a_click_that_is_not_handed_on_can_be_made_again(
    responses: SinkServer, action: ButtonAction, name: str
) -> None:
    """The buttons stay, and the user who clicked reads so."""
    chat: Clicks = InSlack(responses, down=True) if name == "slack" else InMattermost(down=True)
    chat.click(action)
    kind, text = chat.response()
    assert kind == "private"
    assert "NOT handed on" in text


def test_a_click_of_the_requester_leaves_the_buttons_for_others(slack: InSlack) -> None:
    """`stop_servers` would refuse it, too; then the message would have no buttons any more."""
    requester = f"slack:T0001/{SLACK['user_id']}"
    plan = Plan(ONE, "/s", "1", requester, Approver.OTHER, datetime.now(UTC), {TWO: b"seen1234"})
    slack.click(value=issue(plan, [ACTION_KEY.encode()], "/bms-autostop"))
    assert slack.here.handed == []
    kind, text = slack.response()
    assert kind == "private"
    assert "another person" in text
    other = issue(replace(plan, requester="slack:T0001/U9"), [ACTION_KEY.encode()], "/bms-autostop")
    slack.click(value=other)
    assert slack.here.only().plan == other


def test_each_button_of_a_message_is_taken_when_it_is_clicked(slack: InSlack) -> None:
    """As `notify_chat` makes it, with the same key."""
    report = noticed(Reason.DRY_RUN, Reason.DRY_RUN)
    for block in document("slack", report)["blocks"]:
        if button := block.get("accessory"):
            slack.click(ButtonAction.KEEP, button["value"], trigger_id=button["value"])
    mattermost = receiver("/mattermost", AUTOSTOP_ACTION_KEYS=BUTTONS.key.reveal())
    for attachment in document("mattermost", report)["attachments"]:
        for each in attachment.get("actions", ()):
            message = mattermost_click(context=each["integration"]["context"], trigger_id=each["id"])
            assert set(json_of(mattermost.post("/mattermost", message, JSON))) == {"ephemeral_text"}
    for here in (slack.here, mattermost):
        assert [request.server_ids for request in here.kept] == [(id_of(0),), (id_of(1),)]
        assert {request.until for request in here.kept} == {ENDED + timedelta(hours=3)}


# --- Slack


@EITHER
@pytest.mark.parametrize("actions", [[], "x", ["same", "same"], ["other"], ["no value"]], ids=str)
def test_other_actions_hand_nothing_on(slack: InSlack, action: ButtonAction, actions: Any) -> None:
    """A click is one action with a known name and a value."""
    known = {
        "same": {"action_id": action, "value": VALUES[action]},
        "other": {"action_id": f"{action}x", "value": VALUES[action]},
        "no value": {"action_id": action},
    }
    slack.click(actions=[known[each] for each in actions] if isinstance(actions, list) else actions)
    assert (slack.here.handed, slack.here.kept, slack.response().kind) == ([], [], "private")


@pytest.mark.parametrize("kind", ["view_submission", "shortcut", "message_action", "", None])
def test_other_interactions_are_ignored(slack: InSlack, kind: str | None) -> None:
    """Without a response."""
    slack.click(type=kind)
    assert (slack.here.handed, slack.server.got) == ([], [])


def test_the_team_of_the_user_counts_where_a_click_has_none(slack: InSlack) -> None:
    """Without either the identity of the approver is not known."""
    slack.click(team=None)
    assert slack.here.only().approved_by == f"slack:T0001/{SLACK['user_id']}"
    slack.server.got.clear()
    slack.click(team=None, user={"id": SLACK["user_id"]})
    assert (len(slack.here.handed), slack.response().kind) == (1, "private")


@EITHER
def test_a_forged_or_old_click_is_401(slack: InSlack, action: ButtonAction) -> None:
    """Signed as a command is, by Slack's own code as well: no other server, user or time can be put in."""
    body = slack_click(f"{slack.origin}/actions/x", action)
    signed = BY_SIGNATURE["slack"].sign(body, int(SENT), KEY)
    assert THEIRS.is_valid_request(body, signed)
    forged = {"x-slack-signature": flip(signed["x-slack-signature"])}
    others = body.replace(b"ada", b"eve"), body.replace(VALUES[action][:8].encode(), b"5c9fd0d6")
    for answer in (
        press(slack.here, body, **forged),
        press(slack.here, body, **BY_SIGNATURE["slack"].sign(body, int(SENT) - 400, KEY)),
        *(slack.here.post("/slack", other, {**FORM, **signed}) for other in others),
        slack.here.post("/slack", body),
    ):
        refused(answer, 401)
    assert (slack.here.handed, slack.here.kept, slack.server.got) == ([], [], [])


@pytest.mark.parametrize("url", ["ELSEWHERE", "https://evil.example/actions/x", "", "file:///etc"])
def test_nothing_is_posted_to_another_host(slack: InSlack, url: str) -> None:
    """The approval itself is handed on."""
    with SinkServer() as elsewhere:
        slack.click(response_url=url.replace("ELSEWHERE", elsewhere.url))
    assert slack.here.only().plan == TOKEN
    assert (slack.server.got, elsewhere.got) == ([], [])


@pytest.mark.parametrize("say", [Say(500), Say(0), Say(302, {"Location": "http://127.0.0.1:1/"})])
def test_a_response_url_that_fails_changes_nothing(say: Say) -> None:
    """A second approval of the plan would find everything changed."""
    with SinkServer(say) as failing:
        slack = InSlack(failing)
        slack.click()
        assert slack.here.only().plan == TOKEN


# --- Mattermost


KEEP, KEPT = ButtonAction.KEEP, VALUES[ButtonAction.KEEP]
GOOD = bytes.fromhex(mac(ACTION_KEY, KEEP, KEPT))


def context(sent: str | None, action: str = KEEP, value: str = KEPT) -> dict[str, Any]:
    """The context of a button with this MAC, or with none."""
    return {"action": action, "value": value} | ({} if sent is None else {"mac": sent})


def test_every_bit_of_the_mac_counts() -> None:
    """One that differs in one is 401."""
    here = InMattermost().here
    for bit in range(len(GOOD) * 8):
        forged = bytearray(GOOD)
        forged[bit // 8] ^= 1 << bit % 8
        refused(here.post("/mattermost", mattermost_click(context=context(forged.hex())), JSON), 401)
    assert (here.handed, here.kept) == ([], [])


@pytest.mark.parametrize(
    "sent",
    [
        {},
        context(None),
        context(""),
        context("é"),
        context(GOOD.hex(), value=KEPT.replace(ONE, TWO)),
        context(GOOD.hex(), value=f"{ONE} until {written(UNTIL + timedelta(hours=1))}"),
        context(GOOD.hex(), action=ButtonAction.APPROVE),
        context(mac(fresh_secret(), KEEP, KEPT)),
        context(mac(ACTION_KEY, ButtonAction.DISCARD, TOKEN), ButtonAction.APPROVE, TOKEN),
        context(mac(ACTION_KEY, ButtonAction.APPROVE, TOKEN), ButtonAction.APPROVE, f"{TOKEN}x"),
    ],
)
def test_a_context_that_is_not_ours_is_401(sent: dict[str, str]) -> None:
    """Who reaches the URL could forge one, also with a token of Mattermost's beside it."""
    here = InMattermost().here
    for token in ({}, {"token": KEY.decode()}):
        refused(here.post("/mattermost", mattermost_click(context=sent, **token), JSON), 401)
    assert (here.handed, here.kept) == ([], [])


def test_without_a_key_every_click_is_401() -> None:
    """No click could be authenticated."""
    refused(receiver("/mattermost").post("/mattermost", mattermost_click(), JSON), 401)


def test_without_a_trigger_two_servers_of_one_notice_are_two_events() -> None:
    """Old servers send none; one server clicked twice is one event."""
    chat = InMattermost()
    for value in (KEPT, KEPT, KEPT.replace(ONE, TWO)):
        chat.click(KEEP, value, trigger_id="")
    one, two, three = (request.id for request in chat.here.kept)
    assert one == two != three
