"""Slack: the signature, the window, the allowed users and channels, and the responses."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from handler.inbound.http.responses import Answer
from tests.inbound.webhooks.scene import FORM, NOW, ONE, TWO, Scene, form, fresh_secret, json_of, mac

SECRET = fresh_secret()
USER, CHANNEL = "U2147483697", "C2147483705"
SENT = int(NOW.timestamp()) - 5


def fields(text: str = f"stop {ONE}", **changes: Any) -> dict[str, str]:
    """What one use of a command sends."""
    return {
        "token": "legacy",
        "team_id": "T0001",
        "team_domain": "example",
        "channel_id": CHANNEL,
        "channel_name": "ops",
        "user_id": USER,
        "user_name": "ada",
        "command": "/bms",
        "text": text,
        "api_app_id": "A123456",
        "is_enterprise_install": "false",
        "response_url": "https://hooks.slack.example/commands/T0001/1234567890/test",
        "trigger_id": "13345224609.738474920.8088930838d88f008e0",
        **changes,
    }


def signed(body: bytes, at: int = SENT, secret: str = SECRET) -> dict[str, str]:
    """The headers that authenticate a body."""
    return {
        **FORM,
        "X-Slack-Request-Timestamp": str(at),
        "X-Slack-Signature": "v0=" + mac(secret, f"v0:{at}:".encode() + body).hex(),
    }


def scene(**changes: Any) -> Scene:
    """Slack switched on, with one user and one channel."""
    environ = {
        "AUTOSTOP_SLACK_SIGNING_SECRET": SECRET,
        "AUTOSTOP_SLACK_USERS": f"U0, {USER}",
        "AUTOSTOP_SLACK_CHANNELS": CHANNEL,
    }
    return Scene(**{**environ, **changes})


def send(here: Scene, text: str = f"stop {ONE}", at: int = SENT, **changes: Any) -> Answer:
    """A command with a good signature."""
    body = form(fields(text, **changes))
    return here.post("/slack", body, signed(body, at))


def shown(answer: Answer) -> str:
    """The text that its author alone reads."""
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json"
    document = json_of(answer)
    assert document["response_type"] == "ephemeral"
    text: str = document["text"]
    assert "stopped" not in text
    return text


def test_a_command_is_handed_on() -> None:
    """With the signed time, the use of the command as id, and the URL for later answers."""
    here = scene()
    reported = shown(send(here, f"stop {ONE} {TWO} because R&amp;D is done"))
    request = here.only()
    assert (request.server_ids, request.reason, request.dry_run) == ((ONE, TWO), "R&D is done", False)
    assert request.id == "13345224609.738474920.8088930838d88f008e0"
    assert request.time == datetime.fromtimestamp(SENT, UTC)
    assert request.source == "/bms-autostop/slack"
    assert request.requested_by == f"ada {USER} in ops {CHANNEL} (Slack)"
    assert request.reply_to == "https://hooks.slack.example/commands/T0001/1234567890/test"
    assert reported == (
        f"Understood: stop 2 servers: {ONE}, {TWO}. Reason: `R\uff06D is done`. "
        "The request was handed on. The result comes later."
    )


def test_ids_alone_are_enough_for_a_command_that_says_stop() -> None:
    """As an app with a command of its own for each verb sends it."""
    here = scene()
    shown(send(here, f"{ONE} {TWO}", command="/bms-stop"))
    assert here.only().server_ids == (ONE, TWO)


@pytest.mark.parametrize("text", [f"plan {ONE}", f"stop {ONE} --dry-run"])
def test_a_dry_run_is_reported_as_one(text: str) -> None:
    """It is clear whether the power will be cut."""
    here = scene()
    assert "plan (dry run) 1 server" in shown(send(here, text))
    assert here.only().dry_run is True


def test_a_probe_of_the_certificate_is_200_and_nothing_else() -> None:
    """Even one that carries a command."""
    here = scene()
    answer = send(here, ssl_check="1")
    assert (answer.status, answer.body, here.handed) == (200, b"", [])


def test_many_servers_stay_readable() -> None:
    """The answer lists the first ten."""
    here = scene()
    ids = [f"{n:08x}-0000-4000-8000-000000000000" for n in range(25)]
    reported = shown(send(here, f"stop {' '.join(ids)}"))
    assert f"{ids[9]} and 15 more." in reported
    assert ids[10] not in reported
    assert here.only().server_ids == tuple(ids)


# --- one event or two?


def test_a_replay_is_the_same_event() -> None:
    """The same signed bytes within the window give the same id and the same time."""
    here = scene()
    send(here)
    here.later(seconds=60)
    send(here)
    first, again = here.handed
    assert (first.id, first.time) == (again.id, again.time)


def test_the_same_words_typed_again_are_another_event() -> None:
    """Each use of a command has its trigger."""
    here = scene()
    send(here)
    send(here, trigger_id="another")
    assert len({request.id for request in here.handed}) == 2


def test_without_a_trigger_the_signature_stands_in() -> None:
    """It covers time and text."""
    here = scene()
    for at in (SENT, SENT, SENT + 1):
        send(here, at=at, trigger_id="")
    first, again, other = (request.id for request in here.handed)
    assert first == again != other


# --- forgery


@pytest.mark.parametrize("url", ["", "javascript:alert(1)", "ftp://x/", "https://x/" + "y" * 2050, "https://[::1", "x"])
def test_what_is_not_a_url_is_not_answered_to(url: str) -> None:
    """The request goes on without it."""
    here = scene()
    shown(send(here, response_url=url))
    assert here.only().reply_to is None
