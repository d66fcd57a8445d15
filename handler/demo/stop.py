"""`bms-autostop demo`: the real function on a simulated cloud, and a check of the results."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import click

from handler import rfc3339
from handler.demo import heading, run_demo
from handler.demo.fleet import CI_07, CI_08, CI_09, DB_01, DB_02, FLEET, WEB_01, DemoServer, add
from handler.demo.function import HTTP, function, samples
from handler.simulator import Simulator
from handler.terminal import Progress, Row, counted, table, terminal_width, wrap

_SERVERS = tuple(server for server in FLEET if server.id in (CI_07, CI_08, CI_09, DB_01, DB_02, WEB_01))
_COLOURS = {"stopped": "green", "planned": "green", "failed": "red", "unchanged": "cyan", "skipped": "cyan"}


@dataclass(frozen=True, slots=True)
class Scenario:
    """One event of the demo, and its expected result.

    Attributes:
        sample: file under `events/samples/in`.
        title: introduction for the reader.
        rows: for each server the expected outcome and reason.
        type: the last words of the result event's type, or None if there is no result event.
        status: the expected HTTP status.
        stamped: whether the event gets the time of sending, as from a producer.
    """

    sample: str
    title: str
    rows: Mapping[str, str] = field(default_factory=dict)
    type: str | None = "stop.completed.v1"
    status: int = 200
    stamped: bool = True


_ALREADY_STOPPED = "unchanged/already-stopped"
SCENARIOS = (
    Scenario(
        "dry-run.json",
        "A dry run: the event says dry_run, so nothing is sent to the cloud.",
        {
            CI_07: "planned/dry-run",
            CI_08: "planned/dry-run",
            CI_09: _ALREADY_STOPPED,
            DB_01: "skipped/protected",
        },
    ),
    Scenario(
        "schedule.json",
        "The evening schedule, as a Knative PingSource sends it.",
        {CI_07: "stopped/confirmed", CI_08: "stopped/confirmed", CI_09: _ALREADY_STOPPED},
    ),
    Scenario(
        "schedule.json",
        "The same event once more, as brokers may deliver twice. Nothing is stopped again.",
        dict.fromkeys((CI_07, CI_08, CI_09), _ALREADY_STOPPED),
    ),
    Scenario(
        "protected.json",
        "Servers that must not be stopped: protected by a tag, locked, not bare metal.",
        {DB_01: "skipped/protected", DB_02: "skipped/locked", WEB_01: "skipped/not-bare-metal"},
    ),
    Scenario(
        "malformed.json",
        "A malformed event: refused, and every violation is named.",
        type=None,
        status=400,
        stamped=False,
    ),
    Scenario(
        "outdated.json",
        "An event that waited in a queue for too long: refused as a whole.",
        type="stop.refused.v1",
        stamped=False,
    ),
)

_NEXT_STEPS = (
    ("Play with a larger simulated cloud", "bms-autostop simulate --fleet demo"),
    ("Check the login to your own cloud (OS_* variables)", "bms-autostop doctor"),
    ("See what a stop would do there", "bms-autostop plan --name 'ci-*'"),
    ("Serve the function as a dry run", "AUTOSTOP_INBOUND_AUTH=none AUTOSTOP_DRY_RUN=true bms-autostop serve"),
    ("Put it into production", "deploy/README.md"),
)


def demo() -> int:
    """Run the demo; see `run_demo`."""
    about = "bms-autostop on a simulated cloud: no account is used, and nothing leaves this machine."
    return run_demo(about, _send, "event", _closing(terminal_width()))


def _send() -> tuple[int, list[str]]:
    width = terminal_width()
    violations: list[str] = []
    with Simulator(power_off_delay=0.7) as cloud:
        for server in _SERVERS:
            add(cloud, server)
        _show_servers(cloud, "The servers before", width)
        environ = {**cloud.environ(), "AUTOSTOP_INBOUND_AUTH": "none"}
        with Progress("starting the function") as progress, function("stop_servers", environ) as url:
            for scenario in SCENARIOS:
                progress.on(f"sending {scenario.sample}")
                text, found = _run(scenario, url, width)
                progress.print(text)
                violations += found
        _show_servers(cloud, "The servers after", width, stops=True)
        stopped = [one for one in _SERVERS if one.id in (DB_01, DB_02, WEB_01) and cloud.stops_sent(one.id)]
    return len(SCENARIOS), [*violations, *(f"a stop was sent to {server.name}" for server in stopped)]


def _closing(width: int) -> Iterator[str]:
    yield "\nWhat to do next (in a clone the command is .venv/bin/bms-autostop)\n"
    for what, how in _NEXT_STEPS:
        yield from wrap(f"{what}:", width, "  ")
        yield from wrap(how, width, "      ")
    yield ""
    yield from wrap(
        "A stop on Open Telekom Cloud is a forced power cut, and does not end the bill of a bare metal server. On "
        "upstream Nova it is a clean shutdown with a time-out, forced when that ends.",
        width,
    )


def _show_servers(cloud: Simulator, title: str, width: int, *, stops: bool = False) -> None:
    def remark(server: DemoServer) -> str:
        return f"stops sent: {cloud.stops_sent(server.id)}" if stops else server.remark

    rows = [Row((one.name, one.id, cloud.server(one.id).vm_state), "", remark(one)) for one in _SERVERS]
    click.echo("\n".join([*heading(title), "", *table(("NAME", "SERVER", "STATE", "REMARK"), rows, width)]))


def _run(scenario: Scenario, url: str, width: int) -> tuple[str, list[str]]:
    """Send one event; return the text to show, and the deviations from what is expected."""
    event = json.loads((samples() / scenario.sample).read_text())
    if scenario.stamped:
        event["time"] = rfc3339.render(datetime.now(UTC))
    headers = {"Content-Type": "application/cloudevents+json"}
    answer = HTTP.post(url, data=json.dumps(event), headers=headers, timeout=90)
    type_ = answer.headers.get("ce-type")
    body = answer.json() if answer.content else {}
    named = len(event.get("data", {}).get("server_ids", []))
    sent = f"{scenario.sample}: {event['type']} about {counted(named, 'server')}"
    text = [*heading(scenario.title), "", *wrap(sent, width, "  sent    ")]
    text += wrap(f"HTTP {answer.status_code} {type_ or answer.reason}", width, "  answer  ")
    if type_ is not None and body["refusal"]:
        text += wrap(f"refused: {body['refusal']}", width, " " * 10)
    for violation in body.get("violations", []):
        text += wrap(f"{violation['at']}: {violation['message']}", width, " " * 10)
    text += _rows(body.get("servers", []), width)
    rows = {row["id"]: f"{row['outcome']}/{row['reason']}" for row in body.get("servers", [])}
    return "\n".join(text), list(_violations(scenario, answer.status_code, type_, rows))


def _rows(servers: list[Mapping[str, str]], width: int) -> Iterator[str]:
    if servers:
        yield ""
        rows = [
            Row((row["name"],), f"{row['outcome']}/{row['reason']}:", row["detail"], _COLOURS.get(row["outcome"]))
            for row in servers
        ]
        yield from (f"  {line}" for line in table(("NAME", "RESULT"), rows, width - 2))


def _violations(scenario: Scenario, status: int, type_: str | None, rows: Mapping[str, str]) -> Iterator[str]:
    if status != scenario.status:
        yield f"{scenario.sample}: HTTP {status} instead of {scenario.status}"
    if type_ != (scenario.type and f"io.github.bms-autostop.{scenario.type}"):
        yield f"{scenario.sample}: result {type_} instead of {scenario.type}"
    if rows != scenario.rows:
        yield f"{scenario.sample}: {rows} instead of {dict(scenario.rows)}"
