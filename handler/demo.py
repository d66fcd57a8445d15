"""`bms-autostop demo`: the real function before a simulated cloud, shown to a person."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import requests

from handler import rfc3339
from handler.simulator import Simulator

_PACKAGE = Path(__file__).parent
WIRE = requests.Session()
# All of it is on this machine, where no proxy of the person's leads.
WIRE.trust_env = False
# The function ends at once when nobody holds a connection to it.
WIRE.headers["Connection"] = "close"
WIDTH = 100

CI_07 = "5f0c1a52-3d0e-4b7a-9a55-0d6f3c2b1a10"
CI_08 = "0b6f6a9e-6a34-4a0e-8d5c-6a3f1f0f7c21"
CI_09 = "d2b1d3c7-52ce-4f0b-9b3e-2f4a3f6f9b02"
DB_01 = "7c9e6679-7425-40de-944b-e07fc1f90ae7"
DB_02 = "3d813cbb-47fb-42ba-91df-831e1593ac29"
WEB_01 = "1b4e28ba-2fa1-41d2-883f-0016d3cca427"

_FLEET = {
    CI_07: ("ci-07", "runs"),
    CI_08: ("ci-08", "in error, but it ran once"),
    CI_09: ("ci-09", "is stopped already"),
    DB_01: ("db-01", "runs, tagged autostop=never"),
    DB_02: ("db-02", "runs, locked"),
    WEB_01: ("web-01", "runs, a virtual server and no BMS"),
}


@dataclass(frozen=True, slots=True)
class Scene:
    """One event of the demo, and what must come of it.

    Attributes:
        sample: file under `events/samples/in`.
        title: what a person should know beforehand.
        status: the HTTP status expected.
        type: the last words of the result event's type, or None if there is no result event.
        rows: for each server the outcome and reason expected.
        stamped: the event gets the time of sending, as a producer would give it.
    """

    sample: str
    title: str
    status: int
    type: str | None = None
    rows: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    stamped: bool = True


SCENES = (
    Scene(
        "dry-run.json",
        "A rehearsal: the event says dry_run, so nothing is sent to the cloud.",
        200,
        "stop.completed.v1",
        {
            CI_07: ("planned", "dry-run"),
            CI_08: ("planned", "dry-run"),
            CI_09: ("unchanged", "already-stopped"),
            DB_01: ("skipped", "protected"),
        },
    ),
    Scene(
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
    Scene(
        "schedule.json",
        "The same event once more: brokers do deliver twice. The result has the same id, and nothing is stopped again.",
        200,
        "stop.completed.v1",
        {
            CI_07: ("unchanged", "already-stopped"),
            CI_08: ("unchanged", "already-stopped"),
            CI_09: ("unchanged", "already-stopped"),
        },
    ),
    Scene(
        "protected.json",
        "Servers that must not be stopped: one protected by a tag, one locked, one that is no bare metal server.",
        200,
        "stop.completed.v1",
        {
            DB_01: ("skipped", "protected"),
            DB_02: ("skipped", "locked"),
            WEB_01: ("skipped", "not-bare-metal"),
        },
    ),
    Scene("malformed.json", "A malformed event: refused, with every fault named.", 400, stamped=False),
    Scene(
        "outdated.json",
        "An event that was stuck in a queue for too long: refused as a whole.",
        200,
        "stop.refused.v1",
        stamped=False,
    ),
)


def demo() -> int:
    """Run the demo.

    Returns:
        0 if every outcome was the expected one, else 1.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    print(wrapped("bms-autostop, on a simulated cloud: no account is used, and nothing leaves this machine."))
    with Simulator(power_off_delay=0.7) as cloud:
        _fill(cloud)
        _show_fleet(cloud, "The fleet before")
        with _function(cloud) as url:
            wrong = [fault for scene in SCENES for fault in _play(scene, url)]
        _show_fleet(cloud, "The fleet after")
        for server_id in (DB_01, DB_02, WEB_01):
            if cloud.stops_sent(server_id):
                wrong.append(f"a stop was sent to {_FLEET[server_id][0]}")
    if wrong:
        print("\nNot as expected:")
        for fault in wrong:
            print(f"  - {fault}")
        return 1
    print(_NEXT)
    return 0


_NEXT = """
Everything came out as expected.

What to do next
  - Point it at a real cloud: set OS_AUTH_URL, OS_USERNAME, OS_PASSWORD, OS_USER_DOMAIN_NAME, OS_PROJECT_NAME
    and OS_REGION_NAME (an openrc file does), then look before anything is touched:
      .venv/bin/bms-autostop plan events/samples/in/schedule.json       (put your own server ids in)
  - Serve it here: AUTOSTOP_INBOUND_AUTH=none AUTOSTOP_DRY_RUN=true .venv/bin/bms-autostop serve
  - Play with the simulated cloud alone: .venv/bin/bms-autostop simulate
  - Put it into production: deploy/README.md

A stop is a forced power cut, and on Open Telekom Cloud it does not end the bill of a bare metal server.
"""


def samples() -> Path:
    """The folder `events/samples/in`: beside the package in a checkout, inside it once installed."""
    for root in (_PACKAGE.parent / "events", _PACKAGE / "_events"):
        if (root / "samples" / "in").is_dir():
            return root / "samples" / "in"
    raise FileNotFoundError("the samples of events/ are not installed")


def _fill(cloud: Simulator) -> None:
    three_days_ago = time.time() - 3 * 86400
    for server_id, (name, _) in _FLEET.items():
        cloud.add_server(
            name,
            id=server_id,
            vm_state={CI_08: "error", CI_09: "stopped"}.get(server_id, "active"),
            tags=["autostop=never"] if server_id == DB_01 else [],
            locked=server_id == DB_02,
            flavor="s3.medium.2" if server_id == WEB_01 else "physical.o2.medium",
            updated=three_days_ago,
        )


def _function(cloud: Simulator) -> AbstractContextManager[str]:
    """`stop_servers` before this cloud."""
    return function("stop_servers", {**cloud.environ(), "AUTOSTOP_INBOUND_AUTH": "none"})


@contextmanager
def function(target: str, environ: Mapping[str, str]) -> Iterator[str]:
    """A function as it runs in production, in a process of its own that ends with the block; gives its URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AUTOSTOP_", "OS_", "K_")) and not name.lower().endswith("_proxy")
    }
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "functions_framework", "--source", str(_PACKAGE / "main.py")),
            *("--target", target, "--host", "127.0.0.1", "--port", str(port)),
        ],
        env={**kept, **environ},
        stdout=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}/"
    try:
        _await(url, process)
        yield url
    finally:
        process.terminate()
        process.wait(timeout=40)


def _await(url: str, process: subprocess.Popen[bytes]) -> None:
    give_up = time.monotonic() + 30
    while process.poll() is None and time.monotonic() < give_up:
        try:
            if WIRE.get(f"{url}healthz", timeout=5).ok:
                return
        except requests.RequestException:
            time.sleep(0.05)
    raise RuntimeError("the function did not start")


def _play(scene: Scene, url: str) -> list[str]:
    """Send one event, show what comes back, and say what was not as expected."""
    event = json.loads((samples() / scene.sample).read_text())
    if scene.stamped:
        event["time"] = rfc3339.render(datetime.now(UTC))
    print(f"\n{'─' * WIDTH}\n{wrapped(scene.title)}\n")
    asked = event.get("data", {}).get("server_ids", [])
    print(f"  event    {event.get('type')}  from {event.get('source', 'nobody')}")
    print(f"           {scene.sample}, {len(asked)} server{'s' * (len(asked) != 1)}")
    answer = WIRE.post(
        url, data=json.dumps(event), headers={"Content-Type": "application/cloudevents+json"}, timeout=90
    )
    print(f"  answer   HTTP {answer.status_code}")
    type_ = answer.headers.get("ce-type")
    body = answer.json() if answer.content else {}
    rows = {row["id"]: row for row in body.get("servers", [])}
    if type_ is not None:
        refusal = f"  refused: {body['refusal']}" if body["refusal"] else ""
        print(f"  result   {type_}  id {answer.headers['ce-id'][:8]}…{refusal}")
    for fault in body.get("faults", []):
        print(f"             {fault['at']}: {fault['fault']}")
    for row in rows.values():
        print(f"             {row['name']:<8}{row['outcome'] + '/' + row['reason']:<28}{row['detail']}")
    return _judge(scene, answer.status_code, type_, rows)


def _judge(scene: Scene, status: int, type_: str | None, rows: Mapping[str, Mapping[str, str]]) -> list[str]:
    wrong = []
    if status != scene.status:
        wrong.append(f"{scene.sample}: HTTP {status} instead of {scene.status}")
    if type_ != (scene.type and f"io.github.bms-autostop.{scene.type}"):
        wrong.append(f"{scene.sample}: result {type_} instead of {scene.type}")
    found = {server_id: (row["outcome"], row["reason"]) for server_id, row in rows.items()}
    if found != scene.rows:
        wrong.append(f"{scene.sample}: {found} instead of {dict(scene.rows)}")
    return wrong


def _show_fleet(cloud: Simulator, title: str) -> None:
    print(f"\n{'─' * WIDTH}\n{title}\n")
    for server_id, (name, remark) in _FLEET.items():
        told = f"({remark})" if title.endswith("before") else f"stops sent: {cloud.stops_sent(server_id)}"
        print(f"  {name:<8}{server_id}  {cloud.server(server_id).vm_state:<9}{told}")


def wrapped(text: str) -> str:
    """A text in lines that fit a terminal."""
    return textwrap.fill(text, WIDTH)
