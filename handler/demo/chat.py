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

from handler.demo import heading, run_demo
from handler.demo.chat_and_broker import BROKER, ChatAndBroker, Posted, chat_and_broker
from handler.demo.fleet import CI_07, CI_08, CI_09, CI_10, CI_11, DB_01, FLEET, GPU_01, GPU_02, LAB_01, add
from handler.demo.function import HTTP, function
from handler.event_types import STOP_REQUESTED
from handler.settings.chat import ButtonAction
from handler.simulator import Simulator
from handler.terminal import Progress, Row, table, terminal_width, wrap

_ZONE = "Europe/Berlin"
_USER, _CHANNEL, _WORKSPACE = "U2147483697", "C2147483705", "T0001"
_SECOND_USER = "U2147483698"
_ADA, _GRACE = (_USER, "ada"), (_SECOND_USER, "grace")
# The expected number of stops of each server.
_EXPECTED_STOPS = {CI_07: 1, CI_08: 1, CI_09: 0, CI_10: 0, CI_11: 0, DB_01: 0, GPU_01: 1, GPU_02: 1, LAB_01: 0}
_SHOWN_OF_COMMAND = 40
_SERVERS = tuple(server for server in FLEET if server.id in _EXPECTED_STOPS)
_NAMES = {server.id: server.name for server in _SERVERS}

# Headers and body.
Request = tuple[Mapping[str, str], bytes]


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
        path: where it is sent.
        request: makes it from the buttons that were posted last.
        response: words that the immediate answer must have.
        status: the expected HTTP status.
        posted_to: path of the chat's address that gets the message.
        message: texts that the message must have, each within a line; without any there must be no message.
        click: whether it is a click, whose immediate answer is posted to the chat.
    """

    title: str
    sent: str
    path: str
    request: Callable[[Mapping[str, str]], Request]
    response: str
    status: int = 200
    posted_to: str = "/services/ops"
    message: tuple[str, ...] = ()
    click: bool = False


def demo_chat() -> int:
    """Run the demo; see `run_demo`."""
    about = "bms-autostop, a chat and a simulated cloud: no account is used, and nothing leaves this machine."
    closing = ["", *wrap("How to set this up: events/webhooks.md and events/chat.md.", terminal_width())]
    return run_demo(about, _send, "request", closing)


def _send() -> tuple[int, list[str]]:
    width = terminal_width()
    keys = Keys()
    violations: list[str] = []
    with Simulator(power_off_delay=0.7) as cloud, chat_and_broker() as chat, ExitStack() as running:
        for server in _SERVERS:
            add(cloud, server)
        with Progress("starting four functions") as progress:
            url = _start(running, cloud, chat, keys)
            made = scenarios(chat.url, keys)
            for scenario in made:
                progress.on(f"sending to {scenario.path}")
                text, found = _run(scenario, url, chat, width)
                progress.print(text)
                violations += found
        violations += [*chat.undelivered, *_show_servers(cloud, width)]
        if chat.posted(timeout=0.0) is not None:
            violations.append("the chat got more than one message for a request")
    return len(made), violations


def _start(running: ExitStack, cloud: Simulator, chat: ChatAndBroker, keys: Keys) -> str:
    """Start the four functions, each connected to the next by its URL; return that of `receive_webhook`."""

    def start(target: str, **environ: str) -> str:
        return running.enter_context(function(target, environ))

    callers = {"AUTOSTOP_INBOUND_AUTH": "bearer", "AUTOSTOP_BEARER_TOKENS": keys.internal}
    # A machine may have no data of time zones.
    zone = {"AUTOSTOP_NOTIFY_TIMEZONE": _ZONE} if _ZONE in available_timezones() else {}
    webhook = f"{chat.url}/services/ops"
    notify = start("notify_chat", **callers, **zone, AUTOSTOP_NOTIFY_SLACK_URL=webhook, AUTOSTOP_SLACK_HOSTS=chat.url)
    results = {**callers, **cloud.environ(), "AUTOSTOP_RESULT_SINK": notify, "AUTOSTOP_SINK_TOKEN": keys.internal}
    chat.deliver_keeps_to = start("keep_servers", **results)
    chat.deliver_to = start(
        "stop_servers", **results, AUTOSTOP_APPROVAL="above:3", AUTOSTOP_APPROVAL_KEYS=keys.approval
    )
    return start(
        "receive_webhook",
        AUTOSTOP_EVENT_SINK=f"{chat.url}{BROKER}",
        AUTOSTOP_SINK_TOKEN=keys.internal,
        AUTOSTOP_SLACK_SIGNING_SECRET=keys.slack,
        AUTOSTOP_SLACK_USERS=f"{_USER},{_SECOND_USER}",
        AUTOSTOP_SLACK_HOSTS=chat.url,
        AUTOSTOP_SLACK_CHANNELS=_CHANNEL,
        AUTOSTOP_ALERTMANAGER_TOKEN=keys.alertmanager,
    )


def scenarios(chat: str, keys: Keys) -> tuple[Scenario, ...]:
    """Return what is sent, signed with the keys of this run.

    Args:
        chat: its origin, for the `response_url` of a command.
        keys: the secrets to sign with.
    """

    def command(
        title: str, typed: str, posted_to: str, response: str, *message: str, key: str = keys.slack, status: int = 200
    ) -> Scenario:
        body = _command(typed, f"{chat}{posted_to}")
        request = _signed(body, key)
        return Scenario(title, f"/bms {typed}", "/slack", lambda _: request, response, status, posted_to, message)

    def click(
        title: str, who: tuple[str, str], action: ButtonAction, label: str, replies: str, response: str, *message: str
    ) -> Scenario:
        def request(buttons: Mapping[str, str]) -> Request:
            return _signed(_click(action, buttons.get(action, ""), *who, f"{chat}{replies}"), keys.slack)

        sent = f"{who[1]} clicks on [{label}]"
        return Scenario(title, sent, "/slack", request, response, 200, replies, message, click=True)

    def approve(title: str, who: tuple[str, str], response: str, *message: str) -> Scenario:
        return click(title, who, ButtonAction.APPROVE, "Approve", "/actions/T0001/demo", response, *message)

    def scheduled(title: str, data: Mapping[str, object], *message: str) -> Scenario:
        request = _scheduled(data, keys.internal)
        return Scenario(title, request[1].decode(), BROKER, lambda _: request, "", 202, message=message)

    alerts = {"Content-Type": "application/json", "Authorization": f"Bearer {keys.alertmanager}"}, _alerts()
    weekend = f"stop {CI_07} {CI_09} {DB_01} because weekend"
    return (
        command(
            "A command typed in Slack. It is signed. It is answered twice: at once, and when it is done.",
            weekend,
            "/commands/T0001/1/demo",
            f"Understood: stop 3 servers: {CI_07}, {CI_09}, {DB_01}. Reason: `weekend`. The request was handed on.",
            "Asked to stop: 3 servers, of which 1 skipped, 1 stopped, 1 unchanged.",
            f"Asked by: ada {_USER} in ops {_CHANNEL} (Slack)",
            "Reason: weekend",
            f"• db-01 ({DB_01}) It is protected by autostop=never.",
            f"• ci-07 ({CI_07})",
            f"• ci-09 ({CI_09})",
        ),
        command(
            "The same command with a wrong signature: refused, and nothing is posted.",
            weekend,
            "/commands/T0001/1/demo",
            "A valid signature is required.",
            key="made-up",
            status=401,
        ),
        Scenario(
            "An alert group: the alert about ci-08 fires, the one about ci-10 is resolved.",
            "an Alertmanager notification",
            "/alertmanager",
            lambda _: alerts,
            "handed-on",
            message=(
                "Asked to stop: 1 server, of which 1 stopped.",
                "Asked by: Alertmanager",
                f"• ci-08 ({CI_08})",
            ),
        ),
        command(
            "A command for four servers: more than three need the approval of another person (AUTOSTOP_APPROVAL).",
            f"stop {GPU_01} {GPU_02} {CI_11} {LAB_01} because maintenance",
            "/commands/T0001/2/demo",
            "Understood: stop 4 servers",
            "An approval is needed, nothing was sent: 4 servers, of which 1 failed, 1 skipped, "
            "2 would be switched off.",
            "[Approve] [Discard]",
            f"• gpu-01 ({GPU_01})",
            f"• gpu-02 ({GPU_02})",
        ),
        approve(
            "The requester clicks on Approve: refused, and the buttons stay for others.",
            _ADA,
            "Nothing was handed on. The plan must be approved by another person",
        ),
        approve(
            "A second person clicks on Approve: what was planned is stopped.",
            _GRACE,
            f"as `slack:{_WORKSPACE}/{_SECOND_USER}`. The request was handed on.",
            "Asked to stop: 2 servers, of which 2 stopped.",
            f"Approved by: slack:{_WORKSPACE}/{_SECOND_USER}",
            f"• gpu-01 ({GPU_01})",
            f"• gpu-02 ({GPU_02})",
        ),
        approve(
            "The same plan is approved again: nothing happens, since the servers are not as they were planned.",
            _GRACE,
            "The request was handed on.",
            "Asked to stop: 2 servers, of which 2 skipped.",
        ),
        scheduled(
            "A schedule gives notice, an hour before it stops ci-10 and db-01.",
            {"server_ids": [CI_10, DB_01], "dry_run": True, "notice_for": "1h", "reason": "weekday evening"},
            "1 server will lose power at ",
            " unless kept. ",
            f"• ci-10 ({CI_10}) [Keep 2 h]",
        ),
        click(
            "A person needs ci-10 for longer.",
            _ADA,
            ButtonAction.KEEP,
            "Keep 2 h",
            "/actions/T0001/keep",
            f"Clicked by `ada {_USER} in ops {_CHANNEL}`.",
            "Asked to keep until ",
            ": 1 server, of which 1 kept.",
            f"• ci-10 ({CI_10})",
        ),
        scheduled(
            "The schedule stops ci-10 and db-01: both are left running (here at once, to save an hour).",
            {"server_ids": [CI_10, DB_01], "reason": "weekday evening"},
            "Asked to stop: 2 servers, of which 2 skipped.",
            "Skipped (kept-until): 1",
            f"• ci-10 ({CI_10}) It is to be kept running until ",
        ),
    )


def _scheduled(data: Mapping[str, object], token: str) -> Request:
    """Return what a schedule sends to the broker."""
    headers = {
        "Content-Type": "application/json",
        "Authorization": f"Bearer {token}",
        "ce-specversion": "1.0",
        "ce-id": secrets.token_hex(8),
        "ce-source": "/schedules/weekday",
        "ce-type": STOP_REQUESTED,
    }
    return headers, json.dumps(data).encode()


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


def _signed(body: bytes, key: str) -> Request:
    """Return a request with Slack's signature."""
    now = str(int(time.time()))
    mac = hmac.new(key.encode(), f"v0:{now}:".encode() + body, hashlib.sha256).hexdigest()
    headers = {
        "Content-Type": "application/x-www-form-urlencoded",
        "X-Slack-Request-Timestamp": now,
        "X-Slack-Signature": f"v0={mac}",
    }
    return headers, body


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


def _run(scenario: Scenario, url: str, chat: ChatAndBroker, width: int) -> tuple[str, list[str]]:
    """Send one request; return a text with both answers, and the deviations from what is expected."""
    text = [*heading(scenario.title), "", *wrap(scenario.sent, width, "  sent     ")]
    headers, body = scenario.request(chat.buttons)
    origin = chat.url if scenario.path == BROKER else url.rstrip("/")
    answer = HTTP.post(f"{origin}{scenario.path}", data=body, headers=dict(headers), timeout=30)
    posted = [chat.posted() for _ in range(scenario.click + bool(scenario.message))]
    words = _words(answer)
    if scenario.click:
        # Slack shows nothing of the response itself: its answer is posted as well, before the result or after it.
        first = next((one for one in posted if one and scenario.response in " ".join(one.lines)), posted[0])
        posted.remove(first)
        words = " ".join(first.lines) if first else ""
    text += wrap(f"HTTP {answer.status_code}{f': {words}' if words else ' of the broker'}", width, "  at once  ")
    violations = []
    if answer.status_code != scenario.status or scenario.response not in words:
        expected = f"{scenario.status} ({scenario.response})"
        violations.append(f"{scenario.path}: HTTP {answer.status_code} ({words}) instead of {expected}")
    if not scenario.message:
        return "\n".join(text), violations
    (message,) = posted
    if message is None:
        return "\n".join(text), [*violations, f"{scenario.path}: no message in the chat"]
    text += _shown(message, width)
    if message.path != scenario.posted_to:
        violations.append(f"{scenario.path}: posted to {message.path} instead of {scenario.posted_to}")
    missing = [text for text in scenario.message if not any(text in line for line in message.lines)]
    return "\n".join(text), violations + [f"{scenario.path}: the message lacks: {line}" for line in missing]


def _words(answer: requests.Response) -> str:
    body: Mapping[str, str] = answer.json() if answer.content else {}
    return body.get("text") or body.get("detail") or body.get("status") or ""


def _shown(posted: Posted, width: int) -> list[str]:
    """Return the lines that show a message of the chat."""
    where = "in the channel" if posted.path.startswith("/services/") else "as an answer to it"
    lines = [f"  later    {where}:"]
    for line in posted.lines:
        shown = f"{line[:_SHOWN_OF_COMMAND]}…" if line.startswith("approve ") else line
        lines += wrap(shown, width, "           | ", "           |   ")
    return lines


def _show_servers(cloud: Simulator, width: int) -> list[str]:
    """Print the final state of every server; return where the number of stops is not as expected."""
    sent = {server.id: cloud.stops_sent(server.id) for server in _SERVERS}
    rows = [
        Row((one.name, cloud.server(one.id).vm_state, str(sent[one.id])), "", f"{one.vm_state}, {one.remark}")
        for one in _SERVERS
    ]
    header = ("NAME", "STATE", "STOPS SENT", "BEFORE")
    click.echo("\n".join([*heading("The servers after"), "", *table(header, rows, width)]))
    return [
        f"{_NAMES[id_]}: {sent[id_]} stops were sent to it instead of {expected}"
        for id_, expected in _EXPECTED_STOPS.items()
        if sent[id_] != expected
    ]
