"""`bms-autostop serve`: it checks first, and then is functions-framework."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time

import pytest
import requests

from handler.simulator import Simulator
from tests.cli.conftest import Run, signalled, start
from tests.conftest import ROOT
from tests.support.process import environment, free_port


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What the process would become."""
    became: list[list[str]] = []

    def execv(_: str, command: list[str]) -> int:
        became.append(command)
        return 0

    monkeypatch.setattr(os, "execv", execv)
    return became


def test_wrong_settings_keep_it_from_starting(commands: list[list[str]], run: Run) -> None:
    """All that is missing is named at once."""
    ran = run("serve")
    named = {line.split()[0] for line in ran.err.splitlines()[1:]}
    assert named >= {"AUTOSTOP_INBOUND_AUTH", "OS_AUTH_URL", "OS_USERNAME", "OS_PASSWORD", "OS_PROJECT_NAME"}
    assert (ran.code, commands) == (2, [])


@pytest.mark.usefixtures("login")
def test_it_becomes_the_function(commands: list[list[str]], run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """`PORT` names the port, as platforms do it, and the command line goes before it."""
    ports = [str(free_port()) for _ in range(3)]
    monkeypatch.setenv("AUTOSTOP_INBOUND_AUTH", "none")
    monkeypatch.setenv("PORT", ports[0])
    assert run("serve").code == 0
    assert run("serve", "--port", ports[1], "--host", "0.0.0.0").code == 0
    monkeypatch.setenv("PORT", "")
    assert run("serve", "--port", ports[2]).code == 0
    program = [sys.executable, "-m", "functions_framework", "--source", str(ROOT / "handler" / "main.py")]
    assert commands == [
        [*program, "--target", "stop_servers", "--host", host, "--port", port]
        for host, port in zip(("127.0.0.1", "0.0.0.0", "127.0.0.1"), ports, strict=True)
    ]


@pytest.mark.parametrize(
    ("target", "setting", "value"),
    [
        ("receive_webhook", "AUTOSTOP_EVENT_SINK", "http://127.0.0.1:9/"),
        ("notify_chat", "AUTOSTOP_INBOUND_AUTH", "none"),
    ],
)
def test_every_target_can_be_served(
    commands: list[list[str]], run: Run, monkeypatch: pytest.MonkeyPatch, target: str, setting: str, value: str
) -> None:
    """With a check of its own settings first."""
    options = ("serve", "--target", target, "--port", str(free_port()))
    ran = run(*options)
    assert (ran.code, f"  {setting} must be set" in ran.err) == (2, True)
    monkeypatch.setenv(setting, value)
    assert run(*options).code == 0
    assert commands[0][5:7] == ["--target", target]


@pytest.mark.usefixtures("login")
def test_a_port_in_use_is_one_line_of_ours(
    commands: list[list[str]], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 2, before the server starts and prints its own."""
    monkeypatch.setenv("AUTOSTOP_INBOUND_AUTH", "none")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ran = run("serve", "--port", str(port))
    expected = f"The function cannot listen:\n  127.0.0.1, port {port}: Address already in use\n"
    assert (ran.code, ran.err, commands) == (2, expected, [])


def test_it_answers_and_ends_on_a_signal(cloud: Simulator) -> None:
    """A process of its own, as at a terminal."""
    port = free_port()
    command = start("serve", "--port", str(port), env=environment(**cloud.environ(), AUTOSTOP_INBOUND_AUTH="none"))
    deadline = time.monotonic() + 60
    status = None
    while status is None and command.poll() is None and time.monotonic() < deadline:
        try:
            status = requests.get(f"http://127.0.0.1:{port}/readyz", timeout=5).status_code
        except requests.ConnectionError:
            time.sleep(0.02)
    code, err = signalled(command, signal.SIGTERM)
    assert (status, code) == (200, 0), err


def test_a_malformed_port_in_the_environment_matters_to_serve_alone(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kubernetes puts addresses into such variables; no other command reads it."""
    monkeypatch.setenv("PORT", "tcp://10.0.0.1:80")
    serve, plan = run("serve"), run("plan", "/nowhere/event.json")
    assert (serve.code, "--port" in serve.err) == (2, True)
    assert (plan.code, "--port" in plan.err) == (2, False)
