"""`bms-autostop serve`: it checks first, and then is functions-framework."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time

import pytest
import requests

from handler import cli
from handler.simulator import Simulator
from tests.cli.conftest import environ, free_port, signalled, start
from tests.conftest import ROOT


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What the process would become."""
    became: list[list[str]] = []

    def execv(_: str, command: list[str]) -> int:
        became.append(command)
        return 0

    monkeypatch.setattr(os, "execv", execv)
    return became


def test_wrong_settings_keep_it_from_starting(commands: list[list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    """All that is missing is named at once."""
    assert cli.main(["serve"]) == 2
    err = capsys.readouterr().err
    named = {line.split()[0] for line in err.splitlines()[1:]}
    assert named >= {"AUTOSTOP_INBOUND_AUTH", "OS_AUTH_URL", "OS_USERNAME", "OS_PASSWORD", "OS_PROJECT_NAME"}
    assert commands == []


@pytest.mark.usefixtures("login")
def test_it_becomes_the_function(commands: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    """`PORT` names the port, as platforms do it, and the command line wins over it."""
    ports = [str(free_port()) for _ in range(3)]
    monkeypatch.setenv("AUTOSTOP_INBOUND_AUTH", "none")
    monkeypatch.setenv("PORT", ports[0])
    assert cli.main(["serve"]) == 0
    assert cli.main(["serve", "--port", ports[1], "--host", "0.0.0.0"]) == 0
    monkeypatch.setenv("PORT", "")
    assert cli.main(["serve", "--port", ports[2]]) == 0
    assert [command[-4:] for command in commands] == [
        ["--host", "127.0.0.1", "--port", ports[0]],
        ["--host", "0.0.0.0", "--port", ports[1]],
        ["--host", "127.0.0.1", "--port", ports[2]],
    ]
    assert {tuple(command[:7]) for command in commands} == {
        (
            *(sys.executable, "-m", "functions_framework", "--source", str(ROOT / "handler" / "main.py")),
            *("--target", "stop_servers"),
        )
    }


@pytest.mark.parametrize(
    ("target", "setting"),
    [("receive_webhook", "AUTOSTOP_EVENT_SINK"), ("notify_chat", "AUTOSTOP_INBOUND_AUTH")],
)
def test_every_target_can_be_served(
    commands: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    target: str,
    setting: str,
) -> None:
    """With a check of its own settings first."""
    options = ["serve", "--target", target, "--port", str(free_port())]
    assert cli.main(options) == 2
    assert f"  {setting} must be set" in capsys.readouterr().err
    monkeypatch.setenv(setting, {"AUTOSTOP_EVENT_SINK": "http://127.0.0.1:9/"}.get(setting, "none"))
    assert cli.main(options) == 0
    assert commands[0][5:7] == ["--target", target]


@pytest.mark.usefixtures("login")
def test_a_port_in_use_is_one_line_of_ours(
    commands: list[list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, before the server starts and prints its own."""
    monkeypatch.setenv("AUTOSTOP_INBOUND_AUTH", "none")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert cli.main(["serve", "--port", str(port)]) == 2
    expected = f"The function cannot listen:\n  127.0.0.1, port {port}: Address already in use\n"
    assert (capsys.readouterr().err, commands) == (expected, [])


def test_it_answers_and_ends_on_a_signal(cloud: Simulator) -> None:
    """A process of its own, as at a terminal."""
    port = free_port()
    command = start("serve", "--port", str(port), env=environ(**cloud.environ(), AUTOSTOP_INBOUND_AUTH="none"))
    deadline = time.monotonic() + 60
    status = None
    while status is None and command.poll() is None and time.monotonic() < deadline:
        try:
            status = requests.get(f"http://127.0.0.1:{port}/readyz", timeout=5).status_code
        except requests.ConnectionError:
            time.sleep(0.02)
    code, err = signalled(command, signal.SIGTERM)
    assert (status, code) == (200, 0), err


def test_a_malformed_port_in_the_environment_matters_to_serve_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Kubernetes puts addresses into such variables; no other command looks at it."""
    monkeypatch.setenv("PORT", "tcp://10.0.0.1:80")
    assert cli.main(["serve"]) == 2
    assert "--port" in capsys.readouterr().err
    assert cli.main(["plan", "/nowhere/event.json"]) == 2
    assert "--port" not in capsys.readouterr().err
