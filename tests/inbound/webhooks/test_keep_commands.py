"""`keep` and `release` typed into a chat: what is handed on, where, and what the first answer repeats."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from handler.keep.model import KeepRequest
from handler.services.receive_webhook import WebhookService
from handler.settings.receive_webhook import from_environ
from tests.inbound.webhooks import test_slack
from tests.inbound.webhooks.scene import NOW, ONE, TWO, Scene
from tests.support.sink_server import SinkServer

SENT = datetime.fromtimestamp(test_slack.SENT, UTC)


def typed(text: str, **environ: str) -> tuple[Scene, str]:
    """A command of Slack, and what its user reads."""
    here = test_slack.scene(**environ)
    return here, test_slack.shown(test_slack.send(here, text))


def asked(here: Scene) -> KeepRequest:
    """The only request, which is for a keep."""
    assert here.handed == []
    (request,) = here.kept
    return request


@pytest.mark.parametrize(
    ("text", "length", "shown"),
    [("2h", timedelta(hours=2), "2h"), ("90m", timedelta(minutes=90), "90m"), ("1d", timedelta(days=1), "1d")],
)
def test_a_duration_is_handed_on_and_repeated_with_its_end(text: str, length: timedelta, shown: str) -> None:
    """It counts from the second at which the command was sent."""
    here, reply = typed(f"keep {ONE}, {TWO} {text} because tests run")
    request = asked(here)
    assert (request.server_ids, request.duration, request.until, request.release) == ((ONE, TWO), length, None, False)
    assert (request.reason, request.time, request.dry_run) == ("tests run", SENT, False)
    assert request.requested_by == "ada U2147483697 in ops C2147483705 (Slack)"
    end = (SENT + length).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert reply == (
        f"Understood: keep 2 servers for {shown}, until {end}: {ONE}, {TWO}. Reason: `tests run`. "
        "The request was handed on. The result comes later."
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
    here, reply = typed(f"keep {ONE} 2h", AUTOSTOP_DRY_RUN="true")
    assert asked(here).dry_run is True
    assert reply.startswith("Understood: keep (dry run) 1 server for 2h,")
    assert reply.endswith("It is a dry run: nothing will be written.")


@pytest.mark.parametrize(
    ("text", "environ", "words"),
    [
        (f"keep {ONE} 25h", {}, "A keep may end at most 1d ahead (AUTOSTOP_MAX_KEEP)."),
        (f"keep {ONE} 61m", {"AUTOSTOP_MAX_KEEP": "1h"}, "A keep may end at most 1h ahead (AUTOSTOP_MAX_KEEP)."),
        (f"keep {ONE} until 2199-01-01T00:00:00Z", {}, "A keep may end at most 1d ahead (AUTOSTOP_MAX_KEEP)."),
        (f"keep {ONE} until 2001-01-01T00:00:00Z", {}, "That time has passed."),
    ],
)
def test_what_cannot_be_kept_is_said_at_once(text: str, environ: dict[str, str], words: str) -> None:
    """Else it would end with the dead letters of a broker, unseen by its author."""
    here, reply = typed(text, **environ)
    assert (here.kept, here.handed) == ([], [])
    assert reply == f"Nothing was handed on. {words}"


@pytest.mark.parametrize("text", [f"keep {ONE}", f"keep {ONE} 2", f"keep {ONE} tomorrow", f"release {ONE} 2h"])
def test_what_is_not_understood_is_not_handed_on(text: str) -> None:
    """As for a stop."""
    here, reply = typed(text)
    assert (here.kept, here.handed) == ([], [])
    assert "Not understood" in reply


def test_a_stranger_may_not_keep() -> None:
    """The lists are those of a stop."""
    here = test_slack.scene()
    reply = test_slack.shown(test_slack.send(here, f"keep {ONE} 2h", user_id="U9"))
    assert here.kept == []
    assert "AUTOSTOP_SLACK_USERS" in reply


def test_a_sink_that_does_not_take_it_is_reported() -> None:
    """In words."""
    here = test_slack.scene(down=True)
    reply = test_slack.shown(test_slack.send(here, f"keep {ONE} 2h"))
    assert "But it was NOT handed on" in reply


@pytest.mark.parametrize("own", [True, False])
def test_keeps_go_to_a_sink_of_their_own_or_to_that_of_stops(own: bool) -> None:
    """With the same token."""
    with SinkServer() as broker, SinkServer() as keeps:
        environ: dict[str, Any] = {"AUTOSTOP_EVENT_SINK": broker.url, "AUTOSTOP_SINK_TOKEN": "token-of-this-test"}
        if own:
            environ["AUTOSTOP_KEEP_SINK"] = keeps.url
        service = WebhookService(from_environ(environ))
        request = KeepRequest(
            "/bms-autostop/slack",
            "k-1",
            "io.github.bms-autostop.keep.requested.v1",
            (ONE,),
            duration=timedelta(hours=2),
            time=NOW,
        )
        service.hand_on(request, time.monotonic() + 30)
        got, other = (keeps, broker) if own else (broker, keeps)
    (received,) = got.got
    assert other.got == []
    assert received.headers["ce-type"] == "io.github.bms-autostop.keep.requested.v1"
    assert received.headers["authorization"] == "Bearer token-of-this-test"
    assert received.data == {"server_ids": [ONE], "for": "2h", "dry_run": False}
