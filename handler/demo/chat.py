"""`bms-autostop demo-chat`: the four functions on a simulated cloud, from a chat command to the chat's message."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from urllib.parse import urlencode
from zoneinfo import available_timezones

import click
import requests

from handler.demo.fleet import CI_07, CI_08, CI_09, CI_10, CI_11, DB_01, FLEET, GPU_01, GPU_02, LAB_01, add
from handler.demo.function import HTTP, function
from handler.demo.stand_ins import BROKER, Posted, StandIns, stand_ins
from handler.event_types import STOP_REQUESTED
from handler.settings.chat import ButtonAction
from handler.simulator import Simulator
from handler.terminal import Progress, Row, counted, table, terminal_width, wrap

_ZONE = "Europe/Berlin"
_USER, _CHANNEL, _WORKSPACE = "U2147483697", "C2147483705", "T0001"
_SECOND_USER = "U2147483698"
# The expected number of stops of each server.
_EXPECTED_STOPS = {CI_07: 1, CI_08: 1, CI_09: 0, CI_10: 0, CI_11: 0, DB_01: 0, GPU_01: 1, GPU_02: 1, LAB_01: 0}
_SHOWN_OF_COMMAND = 40
_SERVERS = tuple(server for server in FLEET if server.id in _EXPECTED_STOPS)
_NAMES = {server.id: server.name for server in _SERVERS}


Click = Callable[[Mapping[str, str]], tuple[Mapping[str, str], bytes]]


@dataclass(frozen=True, slots=True)
class Keys:
    """Secrets of this run; the next one has others."""

    slack: str = field(default_factory=lambda: secrets.token_hex(16))
    alertmanager: str = field(default_factory=lambda: secrets.token_hex(16))
    internal: str = field(default_factory=lambda: secrets.token_hex(16))
    approval: str = field(default_factory=lambda: secrets.token_hex(32))


@dataclass(frozen=True, slots=True)
class Scenario:
    """One request to `receive_webhook` or to the broker, and its expected results.

    Attributes:
        title: introduction for the reader.
        sent: the request as its sender writes it.
        path, headers, body: the request.
        status: the HTTP status expected.
        response: words that the immediate answer must have.
        posted_to: path of the chat's address that gets the message, or None if there must be none.
        message: texts that the message must have, each within a line.
        click: makes headers and body of a click from what the buttons that were posted last carry; its immediate answer
            is posted to the chat. None if it is no click.
    """

    title: str
    sent: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    status: int
    response: str
    posted_to: str | None = None
    message: tuple[str, ...] = ()
    click: Click | None = None


def demo_chat() -> int:
    """Run the demo.

    Returns:
        0 if everything came out as expected, 130 if it was interrupted, else 1.
    """
    width = terminal_width()
    about = "bms-autostop, a chat and a simulated cloud: no account is used, and nothing leaves this machine."
    click.echo("\n".join(wrap(about, width)))
    keys = Keys()
    try:
        with Simulator(power_off_delay=0.7) as cloud, stand_ins() as chat, ExitStack() as running:
            for server in _SERVERS:
                add(cloud, server)
            with Progress("starting four functions") as progress:
                url = _start(running, cloud, chat, keys)
                made = scenarios(chat.url, keys)
                violations = []
                for scenario in made:
                    progress.on(f"sending to {scenario.path}")
                    text, found = _run(scenario, url, chat, width)
                    progress.print(text)
                    violations += found
            violations += [*chat.undelivered, *_show_servers(cloud, width)]
            if chat.posted(timeout=0.0) is not None:
                violations.append("the chat got more than one message for a request")
    except KeyboardInterrupt:
        click.echo("\nInterrupted; everything that was started has ended.")
        return 130
    if violations:
        click.echo("\nNot as expected:")
        for violation in violations:
            click.echo("\n".join(wrap(violation, width, "  - ")))
        return 1
    click.echo("\n".join(["", *wrap("How to set this up: events/webhooks.md and events/chat.md.", width)]))
    summary = f"{counted(len(made), 'request')} sent. Everything came out as expected."
    click.echo(click.style("\n".join(wrap(summary, width)), fg="green"))
    return 0


def _start(running: ExitStack, cloud: Simulator, chat: StandIns, keys: Keys) -> str:
    """Start the four functions, each connected to the next by its URL; return that of `receive_webhook`."""
    callers = {"AUTOSTOP_INBOUND_AUTH": "bearer", "AUTOSTOP_BEARER_TOKENS": keys.internal}
    notify = running.enter_context(
        function(
            "notify_chat",
            {
                **callers,
                "AUTOSTOP_NOTIFY_SLACK_URL": f"{chat.url}/services/ops",
                "AUTOSTOP_SLACK_HOSTS": chat.url,
                # A machine may have no data of time zones.
                **({"AUTOSTOP_NOTIFY_TIMEZONE": _ZONE} if _ZONE in available_timezones() else {}),
            },
        )
    )
    chat.deliver_keeps_to = running.enter_context(
        function(
            "keep_servers",
            {**callers, **cloud.environ(), "AUTOSTOP_RESULT_SINK": notify, "AUTOSTOP_SINK_TOKEN": keys.internal},
        )
    )
    chat.deliver_to = running.enter_context(
        function(
            "stop_servers",
            {
                **callers,
                **cloud.environ(),
                "AUTOSTOP_RESULT_SINK": notify,
                "AUTOSTOP_SINK_TOKEN": keys.internal,
                "AUTOSTOP_APPROVAL": "above:3",
                "AUTOSTOP_APPROVAL_KEYS": keys.approval,
            },
        )
    )
    return running.enter_context(
        function(
            "receive_webhook",
            {
                "AUTOSTOP_EVENT_SINK": f"{chat.url}{BROKER}",
                "AUTOSTOP_SINK_TOKEN": keys.internal,
                "AUTOSTOP_SLACK_SIGNING_SECRET": keys.slack,
                "AUTOSTOP_SLACK_USERS": f"{_USER},{_SECOND_USER}",
                "AUTOSTOP_SLACK_HOSTS": chat.url,
                "AUTOSTOP_SLACK_CHANNELS": _CHANNEL,
                "AUTOSTOP_ALERTMANAGER_TOKEN": keys.alertmanager,
            },
        )
    )


def scenarios(chat: str, keys: Keys) -> tuple[Scenario, ...]:
    """Return what is sent, signed with the keys of this run.

    Args:
        chat: its origin, for the `response_url` of a command.
        keys: the secrets to sign with.
    """
    typed = f"stop {CI_07} {CI_09} {DB_01} because weekend"
    body = _command(typed, f"{chat}/commands/T0001/1/demo")
    sent = f"/bms {typed}"
    return (
        Scenario(
            "A command typed in Slack. It is signed. It is answered twice: at once, and when it is done.",
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
        Scenario(
            "The same command with a wrong signature: refused, and nothing is posted.",
            sent,
            "/slack",
            _signed(body, "made-up"),
            body,
            401,
            "A valid signature is required.",
        ),
        Scenario(
            "An alert group: the alert about ci-08 fires, the one about ci-10 is resolved.",
            "an Alertmanager notification",
            "/alertmanager",
            {"Content-Type": "application/json", "Authorization": f"Bearer {keys.alertmanager}"},
            _alerts(),
            200,
            "handed-on",
            "/services/ops",
            (
                "Asked to stop: 1 server, of which 1 stopped.",
                "Asked by: Alertmanager",
                f"• ci-08 ({CI_08})",
            ),
        ),
        *_approval_scenarios(chat, keys),
        *_notice_scenarios(chat, keys),
    )


def _approval_scenarios(chat: str, keys: Keys) -> tuple[Scenario, ...]:
    """Return a plan, and the clicks on it: of the requester, of a second person, and again."""
    typed = f"stop {GPU_01} {GPU_02} {CI_11} {LAB_01} because maintenance"
    body = _command(typed, f"{chat}/commands/T0001/2/demo")
    replies = f"{chat}/actions/T0001/demo"

    def clicks(user: str, name: str) -> Click:
        return _clicks(ButtonAction.APPROVE, user, name, replies, keys)

    return (
        Scenario(
            "A command for four servers: more than three need the approval of another person (AUTOSTOP_APPROVAL).",
            f"/bms {typed}",
            "/slack",
            _signed(body, keys.slack),
            body,
            200,
            "Understood: stop 4 servers",
            "/commands/T0001/2/demo",
            (
                "An approval is needed, nothing was sent: 4 servers, of which 1 failed, 1 skipped, "
                "2 would be switched off.",
                "[Approve] [Discard]",
                f"• gpu-01 ({GPU_01})",
                f"• gpu-02 ({GPU_02})",
            ),
        ),
        Scenario(
            "The requester clicks on Approve: refused, and the buttons stay for others.",
            "ada clicks on [Approve]",
            "/slack",
            {},
            b"",
            200,
            "Nothing was handed on. The plan must be approved by another person",
            click=clicks(_USER, "ada"),
        ),
        Scenario(
            "A second person clicks on Approve: what was planned is stopped.",
            "grace clicks on [Approve]",
            "/slack",
            {},
            b"",
            200,
            f"as `slack:{_WORKSPACE}/{_SECOND_USER}`. The request was handed on.",
            "/actions/T0001/demo",
            (
                "Asked to stop: 2 servers, of which 2 stopped.",
                f"Approved by: slack:{_WORKSPACE}/{_SECOND_USER}",
                f"• gpu-01 ({GPU_01})",
                f"• gpu-02 ({GPU_02})",
            ),
            click=clicks(_SECOND_USER, "grace"),
        ),
        Scenario(
            "The same plan is approved again: nothing happens, since the servers are not as they were planned.",
            "grace clicks on [Approve]",
            "/slack",
            {},
            b"",
            200,
            "The request was handed on.",
            "/actions/T0001/demo",
            ("Asked to stop: 2 servers, of which 2 skipped.",),
            click=clicks(_SECOND_USER, "grace"),
        ),
    )


def _notice_scenarios(chat: str, keys: Keys) -> tuple[Scenario, ...]:
    """Return a notice, a click that keeps a server, and the stop that the notice was about."""
    ids = {"server_ids": [CI_10, DB_01]}
    return (
        _scheduled(
            "A schedule gives notice, an hour before it stops ci-10 and db-01.",
            {**ids, "dry_run": True, "notice_for": "1h", "reason": "weekday evening"},
            keys,
            ("1 server will lose power at ", " unless kept. ", f"• ci-10 ({CI_10}) [Keep 2 h]"),
        ),
        Scenario(
            "A person needs ci-10 for longer.",
            "ada clicks on [Keep 2 h]",
            "/slack",
            {},
            b"",
            200,
            f"Clicked by `ada {_USER} in ops {_CHANNEL}`.",
            "/actions/T0001/keep",
            ("Asked to keep until ", ": 1 server, of which 1 kept.", f"• ci-10 ({CI_10})"),
            click=_clicks(ButtonAction.KEEP, _USER, "ada", f"{chat}/actions/T0001/keep", keys),
        ),
        _scheduled(
            "The schedule stops ci-10 and db-01: both are left running (here at once, to save an hour).",
            {**ids, "reason": "weekday evening"},
            keys,
            (
                "Asked to stop: 2 servers, of which 2 skipped.",
                "Skipped (kept-until): 1",
                f"• ci-10 ({CI_10}) It is to be kept running until ",
            ),
        ),
    )


def _scheduled(title: str, data: Mapping[str, object], keys: Keys, message: tuple[str, ...]) -> Scenario:
    """Return what a schedule sends to the broker."""
    headers = {
        "Content-Type": "application/json",
        "Authorization": f"Bearer {keys.internal}",
        "ce-specversion": "1.0",
        "ce-id": secrets.token_hex(8),
        "ce-source": "/schedules/weekday",
        "ce-type": STOP_REQUESTED,
    }
    body = json.dumps(data).encode()
    return Scenario(title, body.decode(), BROKER, headers, body, 202, "", "/services/ops", message)


def _clicks(action: ButtonAction, user: str, name: str, response_url: str, keys: Keys) -> Click:
    """Return what makes a click on the last button of this kind."""

    def click(values: Mapping[str, str]) -> tuple[Mapping[str, str], bytes]:
        clicked = _click(action, values.get(action, ""), user, name, response_url)
        return _signed(clicked, keys.slack), clicked

    return click


def _command(typed: str, response_url: str) -> bytes:
    fields = {
        "command": "/bms",
        "text": typed,
        "user_id": _USER,
        "user_name": "ada",
        "channel_id": _CHANNEL,
        "channel_name": "ops",
        "team_id": _WORKSPACE,
        "trigger_id": secrets.token_hex(8),
        "response_url": response_url,
    }
    return urlencode(fields).encode()


def _click(action: ButtonAction, value: str, user: str, name: str, response_url: str) -> bytes:
    """Return a block action of Slack, as far as it is read."""
    payload = {
        "type": "block_actions",
        "user": {"id": user, "username": name, "team_id": _WORKSPACE},
        "team": {"id": _WORKSPACE},
        "channel": {"id": _CHANNEL, "name": "ops"},
        "trigger_id": secrets.token_hex(8),
        "response_url": response_url,
        "actions": [{"action_id": action.value, "type": "button", "value": value}],
    }
    return urlencode({"payload": json.dumps(payload)}).encode()


def _signed(body: bytes, key: str) -> dict[str, str]:
    """Return the headers with Slack's signature."""
    now = str(int(time.time()))
    mac = hmac.new(key.encode(), f"v0:{now}:".encode() + body, hashlib.sha256).hexdigest()
    return {
        "Content-Type": "application/x-www-form-urlencoded",
        "X-Slack-Request-Timestamp": now,
        "X-Slack-Signature": f"v0={mac}",
    }


def _alerts() -> bytes:
    def alert(status: str, server_id: str) -> dict[str, object]:
        return {
            "status": status,
            "labels": {"alertname": "BareMetalIdle", "server_id": server_id},
            "annotations": {"summary": f"{_NAMES[server_id]} idle for 6h"},
            "startsAt": "2026-11-20T12:00:00Z",
            "fingerprint": server_id[:8],
        }

    group = {"version": "4", "groupKey": "{}:{}", "status": "firing", "commonLabels": {"alertname": "BareMetalIdle"}}
    return json.dumps({**group, "alerts": [alert("firing", CI_08), alert("resolved", CI_10)]}).encode()


def _run(scenario: Scenario, url: str, chat: StandIns, width: int) -> tuple[str, list[str]]:
    """Send one request; return a text with both answers, and the deviations from what is expected."""
    text = [*_heading(scenario.title, width), "", *wrap(scenario.sent, width, "  sent     ")]
    headers, body = scenario.click(chat.buttons) if scenario.click else (scenario.headers, scenario.body)
    origin = chat.url if scenario.path == BROKER else url.rstrip("/")
    answer = HTTP.post(f"{origin}{scenario.path}", data=body, headers=dict(headers), timeout=30)
    words = _immediate(answer, chat) if scenario.click else _words(answer)
    text += wrap(f"HTTP {answer.status_code}{f': {words}' if words else ' of the broker'}", width, "  at once  ")
    violations = []
    if answer.status_code != scenario.status or scenario.response not in words:
        expected = f"{scenario.status} ({scenario.response})"
        violations.append(f"{scenario.path}: HTTP {answer.status_code} ({words}) instead of {expected}")
    if scenario.posted_to is None:
        return "\n".join(text), violations
    posted = chat.posted()
    if posted is None:
        return "\n".join(text), [*violations, f"{scenario.path}: no message in the chat"]
    text += _shown(posted, width)
    if posted.path != scenario.posted_to:
        violations.append(f"{scenario.path}: posted to {posted.path} instead of {scenario.posted_to}")
    missing = [text for text in scenario.message if not any(text in line for line in posted.lines)]
    return "\n".join(text), violations + [f"{scenario.path}: the message lacks: {line}" for line in missing]


def _words(answer: requests.Response) -> str:
    body: Mapping[str, str] = answer.json() if answer.content else {}
    return body.get("text") or body.get("detail") or body.get("status") or ""


def _immediate(answer: requests.Response, chat: StandIns) -> str:
    """Return what who clicked is answered at once: Slack shows nothing of the response itself."""
    posted = chat.posted() if answer.status_code == 200 else None
    return " ".join(posted.lines) if posted else ""


def _shown(posted: Posted, width: int) -> list[str]:
    """Return the lines that show a message of the chat."""
    where = "in the channel" if posted.path.startswith("/services/") else "as an answer to it"
    lines = [f"  later    {where}:"]
    for line in posted.lines:
        shown = f"{line[:_SHOWN_OF_COMMAND]}…" if line.startswith("approve ") else line
        lines += wrap(shown, width, "           | ", "           |   ")
    return lines


def _heading(title: str, width: int) -> list[str]:
    return ["", "-" * min(width, 100), *(click.style(line, bold=True) for line in wrap(title, width))]


def _show_servers(cloud: Simulator, width: int) -> list[str]:
    """Print the final state of every server; return where the number of stops is not as expected."""
    sent = {server.id: cloud.stops_sent(server.id) for server in _SERVERS}
    rows = [
        Row((one.name, cloud.server(one.id).vm_state, str(sent[one.id])), "", f"{one.vm_state}, {one.remark}")
        for one in _SERVERS
    ]
    header = ("NAME", "STATE", "STOPS SENT", "BEFORE")
    click.echo("\n".join([*_heading("The servers after", width), "", *table(header, rows, width)]))
    return [
        f"{_NAMES[id_]}: {sent[id_]} stops were sent to it instead of {expected}"
        for id_, expected in _EXPECTED_STOPS.items()
        if sent[id_] != expected
    ]
