"""`bms-autostop simulate`: a login that works, servers that can be named, and a quiet end."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys

import pytest
import requests

from handler import cli
from handler.demo.fleet import FLEET
from handler.simulator import Simulator
from tests.cli.conftest import environ, free_port, signalled, start


def _started(command: subprocess.Popen[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return what it exports, and its servers: name to id."""
    assert command.stdout is not None
    lines: list[str] = []
    while not lines or not lines[-1].startswith("# Ctrl-C"):
        line = command.stdout.readline()
        assert line, "it ended before it had printed how to end it"
        lines.append(line.rstrip())
    exported = dict(re.findall(r"^export (\w+)='(.*)'$", "\n".join(lines), re.MULTILINE))
    servers = dict(re.findall(r"^# (\S+) +([0-9a-f-]{36}) ", "\n".join(lines), re.MULTILINE))
    return exported, servers


def _planned(exported: dict[str, str], *options: str) -> list[str]:
    """Plan a stop with that login; return each server and what would become of it."""
    planned = subprocess.run(
        [sys.executable, "-m", "handler.cli", "plan", "--json", *options],
        env=environ(**exported),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (planned.returncode, planned.stderr) == (0, "")
    return [f"{row['name']} {row['reason']}" for row in json.loads(planned.stdout)["servers"]]


def test_it_prints_a_login_that_works_and_ends_on_ctrl_c(cloud: Simulator) -> None:
    """Its lines can be pasted into a shell; the servers that it names are there and run."""
    port = free_port()
    command = start("simulate", "--port", str(port), "--servers", "2", env=environ())
    exported, servers = _started(command)
    assert set(exported) == set(cloud.environ())
    assert exported["OS_AUTH_URL"] == f"http://127.0.0.1:{port}/v3"
    # The same at each start, and as deploy/compose/README.md has them.
    assert servers == {
        "bms-01": "ec9dd12e-8aa1-5aea-8ea1-b2848e01c31b",
        "bms-02": "9f73f00b-939e-5bc5-a0e5-d4b7fde1aa5a",
    }
    options = [word for id_ in servers.values() for word in ("--server", id_)]
    assert _planned(exported, *options) == ["bms-01 dry-run", "bms-02 dry-run"]
    assert signalled(command, signal.SIGINT) == (0, "")


def test_the_demo_fleet_is_that_of_the_samples() -> None:
    """A dozen servers in various states, selected by name from another process, without a failure among ci-*."""
    command = start("simulate", "--port", str(free_port()), "--fleet", "demo", env=environ())
    exported, servers = _started(command)
    assert servers == {server.name: server.id for server in FLEET}
    assert len(servers) == 12
    assert _planned(exported, "--name", "ci-*") == [
        "ci-07 dry-run",
        "ci-08 dry-run",
        "ci-09 already-stopped",
        "ci-10 dry-run",
        "ci-11 kept-until",
    ]
    assert signalled(command, signal.SIGINT) == (0, "")


def test_it_ends_quietly_when_interrupted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Its port is free again then."""

    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("handler.cli.simulate.time.sleep", interrupted)
    assert cli.main(["simulate", "--port", "0", "--servers", "1"]) == 0
    url = re.search(r"OS_AUTH_URL='(.*)/v3'", capsys.readouterr().out)
    assert url is not None
    with pytest.raises(requests.ConnectionError):
        requests.get(url[1], timeout=5)


def test_the_demo_fleet_is_listed_with_what_matters_about_each(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """State, tags and guards."""

    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("handler.cli.simulate.time.sleep", interrupted)
    assert cli.main(["simulate", "--port", "0", "--fleet", "demo"]) == 0
    out = capsys.readouterr().out
    for server in FLEET:
        assert re.search(rf"^# {server.name} +{server.id}  {server.vm_state} +{server.remark}$", out, re.MULTILINE)


def test_a_port_in_use_is_one_line_of_ours(cloud: Simulator, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, and no traceback."""
    number = cloud.url.rpartition(":")[2]
    assert cli.main(["simulate", "--port", number]) == 2
    assert capsys.readouterr().err == (
        f"The simulated cloud cannot run:\n  127.0.0.1, port {number}: Address already in use\n"
    )


def test_it_listens_at_the_given_address_and_the_catalogue_has_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """So that other containers of a network can use it: by the name that they know it by, and with a known password."""
    found: list[str] = []
    passwords: list[str] = []

    def asked(_: float) -> None:
        exported = dict(re.findall(r"export (\w+)='(.*)'", capsys.readouterr().out))
        passwords.append(exported["OS_PASSWORD"])
        identity = {
            "methods": ["password"],
            "password": {
                "user": {
                    "name": exported["OS_USERNAME"],
                    "password": exported["OS_PASSWORD"],
                    "domain": {"name": exported["OS_USER_DOMAIN_NAME"]},
                }
            },
        }
        project = {"name": exported["OS_PROJECT_NAME"], "domain": {"name": exported["OS_PROJECT_DOMAIN_NAME"]}}
        body = {"auth": {"identity": identity, "scope": {"project": project}}}
        answer = requests.post(f"{exported['OS_AUTH_URL']}/auth/tokens", json=body, timeout=5)
        catalogue = answer.json()["token"]["catalog"]
        found.extend(point["url"] for entry in catalogue for point in entry["endpoints"])
        raise KeyboardInterrupt

    monkeypatch.setattr("handler.cli.simulate.time.sleep", asked)
    assert cli.main(["simulate", "--host", "localhost", "--port", "0", "--password", "not-a-secret"]) == 0
    assert passwords == ["not-a-secret"]
    assert found
    assert all(url.startswith("http://localhost:") for url in found)


@pytest.mark.parametrize(
    "options",
    [["--host", "0.0.0.0"], ["--host", "::"], ["--host", ""], ["--fleet", "demo", "--servers", "2"], ["--port", "x"]],
)
def test_a_wrong_command_line_ends_with_2(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """As an address that the catalogue would name and no client could call."""
    assert cli.main(["simulate", *options]) == 2
    assert capsys.readouterr().err.startswith("Usage: bms-autostop simulate")
