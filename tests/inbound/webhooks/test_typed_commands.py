"""`approve`, `keep` and `release` typed into a chat: what is handed on, where, and what the response repeats."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from handler.event_types import KEEP_REQUESTED, STOP_APPROVED
from handler.keep.model import KeepRequest
from handler.services.receive_webhook import WebhookService
from handler.settings.receive_webhook import from_environ
from handler.stop.model import Approver
from tests.inbound.webhooks.authentication import ACTS, SENT, receiver, send
from tests.inbound.webhooks.receiver import NOW, ONE, TWO, Receiver, fresh_secret, text_of
from tests.settings.environments import violations
from tests.support.sink_server import SinkServer

TOKEN = "AQ" + "x_-9" * 20
USERS = "U0,U2147483697"
SENT_AT = datetime.fromtimestamp(int(SENT), UTC)


def typed(text: str, here: Receiver | None = None, **changes: Any) -> tuple[Receiver, str]:
    """A command of Slack, and what its user reads."""
    here = here or receiver("/slack")
    return here, text_of(send(here, "/slack", **{"text": text, "command": "/bms", **changes}))


# --- approvals


def test_an_approval_that_is_typed_is_handed_on() -> None:
    """With the token as it is and the identity of the user; the first response has no more than that."""
    here, words = typed(f"approve {TOKEN}")
    request = here.only()
    assert (request.type, request.server_ids, request.requester, request.approval) == (STOP_APPROVED, (), None, None)
    assert "approve the plan" in words
    assert "handed on" in words
    assert TOKEN not in words


@pytest.mark.parametrize(
    "text", ["approve", f"approve {TOKEN} {TOKEN}", f"approve {TOKEN} --dry-run", f"aprove {TOKEN}"]
)
def test_what_is_not_an_approval_is_not_handed_on(text: str) -> None:
    """The grammar is closed."""
    here, words = typed(text)
    assert "Not understood" in words
    assert here.handed == []


@pytest.mark.parametrize(
    ("path", "changes"),
    [
        ("/slack", {"text": f"approve {TOKEN}", "command": "/bms"}),
        ("/mattermost", {"text": f"approve {TOKEN}", "command": "/bms"}),
        ("/teams", {"text": f"<at>BMS</at> approve {TOKEN}"}),
        ("/rocketchat", {"text": f"!bms approve {TOKEN}"}),
    ],
)
def test_the_approver_is_identified_as_a_requester_is(path: str, changes: dict[str, str]) -> None:
    """`stop_servers` compares the two."""
    here = receiver(path)
    send(here, path, **changes)
    assert here.only().approved_by == ACTS[path]["event"]["data"]["requester"]
    assert here.only().plan == TOKEN


@pytest.mark.parametrize("approver", [*Approver, None])
def test_stops_from_chats_may_need_an_approval(approver: Approver | None) -> None:
    """A plan needs none, and the first response announces it."""
    here = receiver("/slack", AUTOSTOP_SLACK_USERS=USERS, AUTOSTOP_CHAT_APPROVAL=approver or "off")
    _, words = typed(f"stop {ONE}", here)
    assert ("needs an approval" in words) == (approver is not None)
    for text in (f"plan {ONE}", f"approve {TOKEN}"):
        typed(text, here, trigger_id=text)
    assert [request.approval for request in here.handed] == [approver, None, None]


@pytest.mark.parametrize("text", [f"approve {TOKEN}", f"stop {ONE}"])
def test_without_an_identity_nothing_is_handed_on_that_needs_one(text: str) -> None:
    """A request without a requester could be approved by its author."""
    here = receiver("/slack", AUTOSTOP_SLACK_USERS=USERS, AUTOSTOP_CHAT_APPROVAL="other")
    _, words = typed(text, here, team_id="")
    assert "who you are" in words
    assert here.handed == []


def test_another_person_must_be_possible() -> None:
    """With one user, or without any chat, nothing could ever be approved."""
    sink = {"AUTOSTOP_EVENT_SINK": "http://sink.example/", "AUTOSTOP_CHAT_APPROVAL": "other"}
    secret = fresh_secret()
    chat = {"AUTOSTOP_SLACK_SIGNING_SECRET": secret, "AUTOSTOP_SLACK_USERS": "U1", "AUTOSTOP_SLACK_CHANNELS": "C1"}
    for environ in (sink, {**sink, **chat}, {**sink, "AUTOSTOP_SLACK_USERS": "U1,U2"}):
        (found,) = violations(environ, from_environ)
        assert found.startswith("AUTOSTOP_CHAT_APPROVAL must be other only if")
    assert from_environ({**sink, **chat, "AUTOSTOP_SLACK_USERS": "U1,U2"}).chat_approval is Approver.OTHER
    assert from_environ({**sink, "AUTOSTOP_CHAT_APPROVAL": "self"}).chat_approval is Approver.SELF
    assert from_environ({**sink, "AUTOSTOP_CHAT_APPROVAL": "off"}).chat_approval is None


# --- keeps


def asked(here: Receiver) -> KeepRequest:
    """The only request, which is for a keep."""
    assert here.handed == []
    (request,) = here.kept
    return request


@pytest.mark.parametrize(
    ("text", "length"), [("2h", timedelta(hours=2)), ("90m", timedelta(minutes=90)), ("1d", timedelta(days=1))]
)
def test_a_duration_is_handed_on_and_repeated_with_its_end(text: str, length: timedelta) -> None:
    """It counts from the second at which the command was sent."""
    here, reply = typed(f"keep {ONE}, {TWO} {text} because tests run")
    request = asked(here)
    assert (request.server_ids, request.duration, request.until, request.release) == ((ONE, TWO), length, None, False)
    assert (request.reason, request.time, request.dry_run) == ("tests run", SENT_AT, False)
    assert request.requested_by == "ada U2147483697 in ops C2147483705 (Slack)"
    assert reply == (
        f"Understood: keep 2 servers for {text}, until {SENT_AT + length:%Y-%m-%dT%H:%M:%SZ}: {ONE}, {TWO}. "
        "Reason: `tests run`. The request was handed on. The result comes later."
    )


def test_a_time_is_handed_on_and_repeated_in_utc() -> None:
    """Whatever zone was typed."""
    until = NOW.replace(microsecond=0) + timedelta(hours=3)
    there = until.astimezone(datetime.strptime("+0200", "%z").tzinfo).isoformat()
    here, reply = typed(f"keep {ONE} until {there}")
    assert (asked(here).until, asked(here).duration) == (until, None)
    assert reply.startswith(f"Understood: keep 1 server until {until:%Y-%m-%dT%H:%M:%SZ}: {ONE}.")


def test_a_release_is_handed_on() -> None:
    """Without a time."""
    here, reply = typed(f"release {ONE}")
    assert asked(here).release is True
    assert reply == f"Understood: release 1 server: {ONE}. The request was handed on. The result comes later."


def test_a_deployment_that_only_plans_plans_keeps_too() -> None:
    """Nothing would be written."""
    here, reply = typed(f"keep {ONE} 2h", receiver("/slack", AUTOSTOP_DRY_RUN="true"))
    assert asked(here).dry_run is True
    assert reply.startswith("Understood: keep (dry run) 1 server for 2h,")
    assert reply.endswith("It is a dry run: nothing will be written.")


@pytest.mark.parametrize(
    ("text", "max_keep", "words"),
    [
        ("25h", "1d", "Nothing was handed on. A keep may end at most 1d ahead (AUTOSTOP_MAX_KEEP)."),
        ("61m", "1h", "Nothing was handed on. A keep may end at most 1h ahead (AUTOSTOP_MAX_KEEP)."),
        ("until 2199-01-01T00:00:00Z", "1d", "Nothing was handed on. A keep may end at most 1d ahead"),
        ("until 2001-01-01T00:00:00Z", "1d", "Nothing was handed on. That time has passed."),
        ("", "1d", "Nothing was handed on. Not understood: "),
    ],
)
def test_what_cannot_be_kept_is_refused_at_once(text: str, max_keep: str, words: str) -> None:
    """Else it would end with the dead letters of a broker, unseen by its author."""
    here, reply = typed(f"keep {ONE} {text}", receiver("/slack", AUTOSTOP_MAX_KEEP=max_keep))
    assert (here.kept, here.handed) == ([], [])
    assert reply.startswith(words)


def test_the_lists_of_users_apply_to_keeps() -> None:
    """They are those of a stop."""
    here, reply = typed(f"keep {ONE} 2h", user_id="U9")
    assert here.kept == []
    assert "AUTOSTOP_SLACK_USERS" in reply


@pytest.mark.parametrize("own", [True, False])
def test_keeps_go_to_a_sink_of_their_own_or_to_that_of_stops(own: bool) -> None:
    """With the same token."""
    with SinkServer() as broker, SinkServer() as keeps:
        environ: dict[str, Any] = {"AUTOSTOP_EVENT_SINK": broker.url, "AUTOSTOP_SINK_TOKEN": "token-of-this-test"}
        if own:
            environ["AUTOSTOP_KEEP_SINK"] = keeps.url
        request = KeepRequest(
            "/bms-autostop/slack", "k-1", KEEP_REQUESTED, (ONE,), duration=timedelta(hours=2), time=NOW
        )
        WebhookService(from_environ(environ)).hand_on(request, time.monotonic() + 30)
        got, other = (keeps, broker) if own else (broker, keeps)
    (received,) = got.got
    assert other.got == []
    assert received.headers["ce-type"] == KEEP_REQUESTED
    assert received.headers["authorization"] == "Bearer token-of-this-test"
    assert received.data == {"server_ids": [ONE], "for": "2h", "dry_run": False}
