"""`bms-autostop demo-chat`: all three functions and a simulated cloud, from a command in a chat to its answer there."""

from __future__ import annotations

import hashlib
import hmac
import io
import json
import secrets
import sys
import textwrap
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from urllib.parse import urlencode

from handler.demo import CI_07, CI_08, CI_09, DB_01, WIDTH, WIRE, function, wrapped
from handler.demo_desk import Desk, desk
from handler.simulator import Simulator

CI_10 = "9b2f7c1e-4d3a-4e8b-a1c5-7f6e5d4c3b2a"
_USER, _CHANNEL = "U2147483697", "C2147483705"
_FLEET = {
    CI_07: ("ci-07", "active", "runs", 1),
    CI_08: ("ci-08", "active", "runs, and idles", 1),
    CI_09: ("ci-09", "stopped", "is stopped already", 0),
    CI_10: ("ci-10", "active", "runs; it idled until a while ago", 0),
    DB_01: ("db-01", "active", "runs, tagged autostop=never", 0),
}


@dataclass(frozen=True, slots=True)
class Keys:
    """Secrets of this run; the next one has others."""

    slack: str = field(default_factory=lambda: secrets.token_hex(16))
    alertmanager: str = field(default_factory=lambda: secrets.token_hex(16))
    inside: str = field(default_factory=lambda: secrets.token_hex(16))


@dataclass(frozen=True, slots=True)
class Scene:
    """Something that is sent to `receive_webhook`, and what must come of it.

    Attributes:
        title: what a person should know beforehand.
        sent: the same in the words of who sends it.
        path, headers, body: the request.
        status: the HTTP status expected.
        says: words of the immediate answer.
        told_at: path of the chat's address that gets the message, or None if there must be none.
        message: lines of the message, or beginnings of them.
    """

    title: str
    sent: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    status: int
    says: str
    told_at: str | None = None
    message: tuple[str, ...] = ()


def demo_chat() -> int:
    """Run the demo.

    Returns:
        0 if everything came out as expected, 130 if it was interrupted, else 1.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    print(wrapped("bms-autostop, a chat and a simulated cloud: no account is used, and nothing leaves this machine."))
    keys = Keys()
    try:
        with Simulator(power_off_delay=0.7) as cloud, desk() as around, ExitStack() as running:
            _fill(cloud)
            url = _start(running, cloud, around, keys)
            wrong = [fault for scene in scenes(around.url, keys) for fault in _play(scene, url, around)]
            wrong += [*around.undelivered, *_show_fleet(cloud)]
            if around.posted(patience=0.0) is not None:
                wrong.append("the chat was told more than once")
    except KeyboardInterrupt:
        print("\nInterrupted; everything that was started has ended.")
        return 130
    if wrong:
        print("\nNot as expected:")
        for fault in wrong:
            print(f"  - {fault}")
        return 1
    print("\nEverything came out as expected. How to set this up: README.md, `Webhooks` and `Answers in the chat`.")
    return 0


def _start(running: ExitStack, cloud: Simulator, around: Desk, keys: Keys) -> str:
    """Start the three functions, each joined to the next by its URL; gives that of `receive_webhook`."""
    callers = {"AUTOSTOP_INBOUND_AUTH": "bearer", "AUTOSTOP_BEARER_TOKENS": keys.inside}
    notify = running.enter_context(
        function(
            "notify_chat",
            {
                **callers,
                "AUTOSTOP_NOTIFY_SLACK_URL": f"{around.url}/services/ops",
                "AUTOSTOP_SLACK_HOSTS": around.url,
            },
        )
    )
    around.deliver_to = running.enter_context(
        function(
            "stop_servers",
            {**callers, **cloud.environ(), "AUTOSTOP_RESULT_SINK": notify, "AUTOSTOP_SINK_TOKEN": keys.inside},
        )
    )
    return running.enter_context(
        function(
            "receive_webhook",
            {
                "AUTOSTOP_EVENT_SINK": f"{around.url}/broker",
                "AUTOSTOP_SINK_TOKEN": keys.inside,
                "AUTOSTOP_SLACK_SIGNING_SECRET": keys.slack,
                "AUTOSTOP_SLACK_USERS": _USER,
                "AUTOSTOP_SLACK_CHANNELS": _CHANNEL,
                "AUTOSTOP_ALERTMANAGER_TOKEN": keys.alertmanager,
            },
        )
    )


def scenes(chat: str, keys: Keys) -> tuple[Scene, ...]:
    """What is sent, signed with the keys of this run.

    Args:
        chat: its origin, for the address that a command brings for its answer.
    """
    typed = f"stop {CI_07} {CI_09} {DB_01} because weekend"
    body = _command(typed, f"{chat}/commands/T0001/1/demo")
    sent = f"/bms {typed}"
    return (
        Scene(
            "Somebody types a command in Slack. It is signed; the answer comes twice: at once, and when it is done.",
            sent,
            "/slack",
            _signed(body, keys.slack),
            body,
            200,
            f"Understood: stop 3 servers: {CI_07}, {CI_09}, {DB_01}. Reason: `weekend`. The request was handed on.",
            "/commands/T0001/1/demo",
            (
                "Asked to stop: 3 servers, of which 1 skipped, 1 stopped, 1 unchanged.",
                f"Asked by: ada {_USER} in ops {_CHANNEL} (Slack)",
                "Reason: weekend",
                f"• db-01 ({DB_01}) It is protected by autostop=never.",
                f"• ci-07 ({CI_07})",
                f"• ci-09 ({CI_09})",
            ),
        ),
        Scene(
            "The same command, signed with a key that somebody made up: refused, and nobody is told anything.",
            sent,
            "/slack",
            _signed(body, "made-up"),
            body,
            401,
            "The signature is missing or wrong.",
        ),
        Scene(
            "An alarm: a group with one alert that fires, for ci-08, and one that is resolved, for ci-10.",
            "an Alertmanager notification",
            "/alertmanager",
            {"Content-Type": "application/json", "Authorization": f"Bearer {keys.alertmanager}"},
            _alarm(),
            200,
            "handed-on",
            "/services/ops",
            (
                "Asked to stop: 1 server, of which 1 stopped.",
                "Asked by: Alertmanager",
                f"• ci-08 ({CI_08})",
            ),
        ),
    )


def _command(typed: str, response_url: str) -> bytes:
    fields = {
        "command": "/bms",
        "text": typed,
        "user_id": _USER,
        "user_name": "ada",
        "channel_id": _CHANNEL,
        "channel_name": "ops",
        "trigger_id": secrets.token_hex(8),
        "response_url": response_url,
    }
    return urlencode(fields).encode()


def _signed(body: bytes, key: str) -> dict[str, str]:
    """The headers with Slack's signature."""
    now = str(int(time.time()))
    mac = hmac.new(key.encode(), f"v0:{now}:".encode() + body, hashlib.sha256).hexdigest()
    return {
        "Content-Type": "application/x-www-form-urlencoded",
        "X-Slack-Request-Timestamp": now,
        "X-Slack-Signature": f"v0={mac}",
    }


def _alarm() -> bytes:
    def alert(status: str, server_id: str) -> dict[str, object]:
        return {
            "status": status,
            "labels": {"alertname": "BareMetalIdle", "server_id": server_id},
            "annotations": {"summary": f"{_FLEET[server_id][0]} idle for 6h"},
            "startsAt": "2026-11-20T12:00:00Z",
            "fingerprint": server_id[:8],
        }

    group = {"version": "4", "groupKey": "{}:{}", "status": "firing", "commonLabels": {"alertname": "BareMetalIdle"}}
    return json.dumps({**group, "alerts": [alert("firing", CI_08), alert("resolved", CI_10)]}).encode()


def _play(scene: Scene, url: str, around: Desk) -> list[str]:
    """Send something, show both answers, and say what was not as expected."""
    print(f"\n{'─' * WIDTH}\n{wrapped(scene.title)}\n")
    _print("  sent     ", scene.sent)
    answer = WIRE.post(f"{url.rstrip('/')}{scene.path}", data=scene.body, headers=dict(scene.headers), timeout=30)
    said = answer.json()
    words = said.get("text") or said.get("detail") or said.get("status")
    _print("  at once  ", f"HTTP {answer.status_code}: {words}")
    wrong = []
    if answer.status_code != scene.status or scene.says not in words:
        wrong.append(f"{scene.path}: HTTP {answer.status_code} ({words}) instead of {scene.status} ({scene.says})")
    if scene.told_at is None:
        return wrong
    posted = around.posted()
    if posted is None:
        return [*wrong, f"{scene.path}: the chat was told nothing"]
    where = "as an answer to the command" if posted.path.startswith("/commands/") else "in the channel"
    print(f"  later    {where}:")
    for line in posted.lines:
        _print("           │ ", line)
    if posted.path != scene.told_at:
        wrong.append(f"{scene.path}: told at {posted.path} instead of {scene.told_at}")
    return wrong + [
        f"{scene.path}: the chat does not show: {line}" for line in scene.message if line not in posted.lines
    ]


def _print(begin: str, text: str) -> None:
    margin = begin if "│" in begin else " " * len(begin)
    print(
        textwrap.fill(text, WIDTH, initial_indent=begin, subsequent_indent=margin, break_on_hyphens=False)
        or begin.rstrip()
    )


def _fill(cloud: Simulator) -> None:
    for server_id, (name, state, *_) in _FLEET.items():
        tags = ["autostop=never"] if server_id == DB_01 else []
        cloud.add_server(name, id=server_id, vm_state=state, tags=tags, updated=time.time() - 3 * 86400)


def _show_fleet(cloud: Simulator) -> list[str]:
    print(f"\n{'─' * WIDTH}\nThe fleet after\n")
    wrong = []
    for server_id, (name, _, remark, expected) in _FLEET.items():
        sent = cloud.stops_sent(server_id)
        print(f"  {name:<8}{cloud.server(server_id).vm_state:<9}stops sent: {sent}   (before: {remark})")
        if sent != expected:
            wrong.append(f"{name}: {sent} stops were sent to it instead of {expected}")
    return wrong
