"""`bms-autostop simulate`: a login that works, servers that can be named, and a quiet end."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import requests

from handler.demo.fleet import FLEET
from handler.simulator import Simulator
from tests.cli.conftest import Run, signalled, start
from tests.support.process import environment, free_port

Meanwhile = Callable[..., tuple[int, str]]


@pytest.fixture
def meanwhile(run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Meanwhile:
    """Run the command until it waits, then `use` its cloud with its login; return the exit code and what it printed."""

    def simulate(*options: str, use: Callable[[], object] = lambda: None) -> tuple[int, str]:
        printed = ""

        def waiting(_: float) -> None:
            nonlocal printed
            printed = capsys.readouterr().out
            for name, value in _exported(printed).items():
                monkeypatch.setenv(name, value)
            use()
            raise KeyboardInterrupt

        monkeypatch.setattr("handler.cli.simulate.time", SimpleNamespace(sleep=waiting))
        return run("simulate", *options).code, printed

    return simulate


def _exported(text: str) -> dict[str, str]:
    return dict(re.findall(r"^export (\w+)='(.*)'$", text, re.MULTILINE))


def _planned(run: Run, *options: str) -> list[str]:
    """Plan a stop; return each server and its reason."""
    return [f"{row['name']} {row['reason']}" for row in json.loads(run("plan", "--json", *options).out)["servers"]]


def test_it_prints_a_login_that_works_and_ends_on_ctrl_c(
    cloud: Simulator, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lines can be pasted into a shell; the servers that it names are there and run."""
    port = free_port()
    command = start("simulate", "--port", str(port), "--servers", "2", env=environment())
    assert command.stdout is not None
    text = ""
    while "# Ctrl-C" not in text:
        line = command.stdout.readline()
        assert line, "it ended before it had printed how to end it"
        text += line
    exported = _exported(text)
    assert set(exported) == set(cloud.environ())
    assert exported["OS_AUTH_URL"] == f"http://127.0.0.1:{port}/v3"
    # The same at each start, and as deploy/compose/README.md has them.
    servers = dict(re.findall(r"^# (\S+) +([0-9a-f-]{36}) ", text, re.MULTILINE))
    assert servers == {
        "bms-01": "ec9dd12e-8aa1-5aea-8ea1-b2848e01c31b",
        "bms-02": "9f73f00b-939e-5bc5-a0e5-d4b7fde1aa5a",
    }
    for name, value in exported.items():
        monkeypatch.setenv(name, value)
    options = [word for id_ in servers.values() for word in ("--server", id_)]
    assert _planned(run, *options) == ["bms-01 dry-run", "bms-02 dry-run"]
    assert signalled(command, signal.SIGINT) == (0, "")


def test_the_demo_fleet_is_that_of_the_samples(meanwhile: Meanwhile, run: Run) -> None:
    """A dozen servers with state, tags and guards, selected by name, without a failure among ci-*."""
    planned: list[str] = []
    code, out = meanwhile("--port", "0", "--fleet", "demo", use=lambda: planned.extend(_planned(run, "--name", "ci-*")))
    assert (code, len(FLEET)) == (0, 12)
    for server in FLEET:
        assert re.search(rf"^# {server.name} +{server.id}  {server.vm_state} +{server.remark}$", out, re.MULTILINE)
    reasons = {"ci-07": "dry-run", "ci-08": "dry-run", "ci-09": "already-stopped", "ci-10": "dry-run"}
    assert planned == [f"{name} {reason}" for name, reason in {**reasons, "ci-11": "kept-until"}.items()]


def test_it_listens_at_the_given_address_and_the_catalogue_has_it(meanwhile: Meanwhile, run: Run) -> None:
    """So that other containers can use it: by a name that they know, with a known password; its port is free again."""
    found: list[str] = []

    def use() -> None:
        found.extend(row["detail"] for row in json.loads(run("doctor", "--json").out) if row["check"] == "endpoint")

    code, out = meanwhile("--host", "localhost", "--port", "0", "--password", "not-a-secret", use=use)
    exported = _exported(out)
    assert (code, exported["OS_PASSWORD"]) == (0, "not-a-secret")
    (detail,) = found
    assert detail.startswith("Nova is at http://localhost:")
    with pytest.raises(requests.ConnectionError):
        requests.get(exported["OS_AUTH_URL"], timeout=5)


def test_a_port_in_use_is_one_line_of_ours(cloud: Simulator, run: Run) -> None:
    """Exit code 2, and no traceback."""
    number = cloud.url.rpartition(":")[2]
    ran = run("simulate", "--port", number)
    expected = f"The simulated cloud cannot run:\n  127.0.0.1, port {number}: Address already in use\n"
    assert (ran.code, ran.err) == (2, expected)


@pytest.mark.parametrize(
    "options",
    [["--host", "0.0.0.0"], ["--host", "::"], ["--host", ""], ["--fleet", "demo", "--servers", "2"], ["--port", "x"]],
)
def test_a_wrong_command_line_ends_with_2(options: list[str], run: Run) -> None:
    """As an address that the catalogue would name and no client could call."""
    ran = run("simulate", *options)
    assert (ran.code, ran.err.startswith("Usage: bms-autostop simulate")) == (2, True)
