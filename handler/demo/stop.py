"""`bms-autostop demo`: the real function on a simulated cloud, and a check of the results."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime

import click

from handler import rfc3339
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
        status: the HTTP status expected.
        type: the last words of the result event's type, or None if there is no result event.
        rows: for each server the outcome and reason expected.
        stamped: whether the event gets the time of sending, as from a producer.
    """

    sample: str
    title: str
    status: int
    type: str | None = None
    rows: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    stamped: bool = True


SCENARIOS = (
    Scenario(
        "dry-run.json",
        "A dry run: the event says dry_run, so nothing is sent to the cloud.",
        200,
        "stop.completed.v1",
        {
            CI_07: ("planned", "dry-run"),
            CI_08: ("planned", "dry-run"),
            CI_09: ("unchanged", "already-stopped"),
            DB_01: ("skipped", "protected"),
        },
    ),
    Scenario(
        "schedule.json",
        "The evening schedule, as a Knative PingSource sends it.",
        200,
        "stop.completed.v1",
        {
            CI_07: ("stopped", "confirmed"),
            CI_08: ("stopped", "confirmed"),
            CI_09: ("unchanged", "already-stopped"),
        },
    ),
    Scenario(
        "schedule.json",
        "The same event once more, as brokers may deliver twice. Nothing is stopped again.",
        200,
        "stop.completed.v1",
        {
            CI_07: ("unchanged", "already-stopped"),
            CI_08: ("unchanged", "already-stopped"),
            CI_09: ("unchanged", "already-stopped"),
        },
    ),
    Scenario(
        "protected.json",
        "Servers that must not be stopped: protected by a tag, locked, not bare metal.",
        200,
        "stop.completed.v1",
        {
            DB_01: ("skipped", "protected"),
            DB_02: ("skipped", "locked"),
            WEB_01: ("skipped", "not-bare-metal"),
        },
    ),
    Scenario("malformed.json", "A malformed event: refused, and every violation is named.", 400, stamped=False),
    Scenario(
        "outdated.json",
        "An event that waited in a queue for too long: refused as a whole.",
        200,
        "stop.refused.v1",
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
    """Run the demo.

    Returns:
        0 if every outcome was the expected one, else 1; 130 if it was interrupted.
    """
    width = terminal_width()
    _say("bms-autostop on a simulated cloud: no account is used, and nothing leaves this machine.")
    violations: list[str] = []
    try:
        with Simulator(power_off_delay=0.7) as cloud:
            for server in _SERVERS:
                add(cloud, server)
            _show_servers(cloud, "The servers before", width)
            with Progress("starting the function") as progress, _function(cloud) as url:
                for scenario in SCENARIOS:
                    progress.on(f"sending {scenario.sample}")
                    text, found = _run(scenario, url, width)
                    progress.print(text)
                    violations += found
            _show_servers(cloud, "The servers after", width, stops=True)
            for server in _SERVERS:
                if server.id in (DB_01, DB_02, WEB_01) and cloud.stops_sent(server.id):
                    violations.append(f"a stop was sent to {server.name}")
    except KeyboardInterrupt:
        click.echo("\nInterrupted; everything that was started has ended.")
        return 130
    if violations:
        click.echo("\nNot as expected:")
        for violation in violations:
            click.echo("\n".join(wrap(violation, width, "  - ")))
        return 1
    click.echo("\nWhat to do next (in a clone the command is .venv/bin/bms-autostop)\n")
    for what, how in _NEXT_STEPS:
        click.echo("\n".join([*wrap(f"{what}:", width, "  "), *wrap(how, width, "      ")]))
    _say(
        "\nA stop on Open Telekom Cloud is a forced power cut, and does not end the bill of a bare metal server. On "
        "upstream Nova it is a clean shutdown with a time-out, forced when that ends."
    )
    click.echo(click.style("\n".join(wrap(_summary(), width)), fg="green"))
    return 0


def _summary() -> str:
    return f"{counted(len(SCENARIOS), 'event')} sent. Everything came out as expected."


def _say(text: str) -> None:
    if text.startswith("\n"):
        click.echo()
    click.echo("\n".join(wrap(text, terminal_width())))


def _show_servers(cloud: Simulator, title: str, width: int, *, stops: bool = False) -> None:
    def remark(server: DemoServer) -> str:
        return f"stops sent: {cloud.stops_sent(server.id)}" if stops else server.remark

    rows = [Row((one.name, one.id, cloud.server(one.id).vm_state), "", remark(one)) for one in _SERVERS]
    click.echo("\n".join([_heading(title), "", *table(("NAME", "SERVER", "STATE", "REMARK"), rows, width)]))


def _heading(title: str) -> str:
    width = terminal_width()
    return "\n".join(["", "-" * min(width, 100), *(click.style(line, bold=True) for line in wrap(title, width))])


def _function(cloud: Simulator) -> AbstractContextManager[str]:
    return function("stop_servers", {**cloud.environ(), "AUTOSTOP_INBOUND_AUTH": "none"})


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
    text = [_heading(scenario.title), "", *wrap(sent, width, "  sent    ")]
    text += wrap(f"HTTP {answer.status_code} {type_ or answer.reason}", width, "  answer  ")
    if type_ is not None and body["refusal"]:
        text += wrap(f"refused: {body['refusal']}", width, " " * 10)
    for fault in body.get("faults", []):
        text += wrap(f"{fault['at']}: {fault['fault']}", width, " " * 10)
    text += _rows(body.get("servers", []), width)
    rows = {row["id"]: (row["outcome"], row["reason"]) for row in body.get("servers", [])}
    return "\n".join(text), list(_violations(scenario, answer.status_code, type_, rows))


def _rows(servers: list[Mapping[str, str]], width: int) -> Iterator[str]:
    if servers:
        yield ""
        rows = [
            Row((row["name"],), f"{row['outcome']}/{row['reason']}:", row["detail"], _COLOURS.get(row["outcome"]))
            for row in servers
        ]
        yield from (f"  {line}" for line in table(("NAME", "RESULT"), rows, width - 2))


def _violations(
    scenario: Scenario, status: int, type_: str | None, rows: Mapping[str, tuple[str, str]]
) -> Iterator[str]:
    if status != scenario.status:
        yield f"{scenario.sample}: HTTP {status} instead of {scenario.status}"
    if type_ != (scenario.type and f"io.github.bms-autostop.{scenario.type}"):
        yield f"{scenario.sample}: result {type_} instead of {scenario.type}"
    if rows != scenario.rows:
        yield f"{scenario.sample}: {dict(rows)} instead of {dict(scenario.rows)}"
