"""The command: its words, its exit codes, and that none of it stops what was only to be looked at."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import requests

from handler import __version__, cli
from handler.simulator import CallKind, Fault, Simulator
from tests.conftest import ROOT, STOP


@pytest.fixture
def login(cloud: Simulator, monkeypatch: pytest.MonkeyPatch) -> Simulator:
    """The cloud, with a login to it in the environment and nothing else."""
    for name, value in cloud.environ().items():
        monkeypatch.setenv(name, value)
    return cloud


class Events:
    """Writes events into files, as a person does for `plan`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, *server_ids: str, **attributes: object) -> str:
        """A file with a good event, but for what is given."""
        event = {
            "specversion": "1.0",
            "id": "1",
            "source": "/tests",
            "type": STOP,
            "data": {"server_ids": list(server_ids)},
            **attributes,
        }
        return self.text(json.dumps({name: value for name, value in event.items() if value is not None}))

    def text(self, text: str) -> str:
        """A file with any text in it."""
        file = self._folder / "event.json"
        file.write_text(text)
        return str(file)


@pytest.fixture
def events(tmp_path: Path) -> Events:
    """Files with events."""
    return Events(tmp_path)


def _environ(**more: str) -> Mapping[str, str]:
    """The environment of a command that a test starts: free of settings, with this checkout's code."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "NO_PROXY": "127.0.0.1", **more}


# --- plan ---


def test_plan_says_what_would_become_of_each_server(
    login: Simulator, events: Events, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line each, with state, outcome and reason; nothing stands in the way, so the exit code is 0."""
    runs = login.add_server("ci-07")
    rests = login.add_server("ci-08", vm_state="stopped")
    protected = login.add_server("db-01", tags=["autostop=never"])
    stopping = login.add_server("db-02", task_state="powering-off")
    assert cli.main(["plan", events.write(runs, rests, protected, stopping)]) == 0
    head, *lines = [line for line in capsys.readouterr().out.splitlines() if not line.startswith(" ")]
    assert head.split() == ["server", "name", "state", "would", "be"]
    assert [re.split(r"\s{2,}", line.replace(") ", ")  ")) for line in lines] == [
        [runs, "ci-07", "active", "stopped: It would be stopped; it is active."],
        [rests, "ci-08", "stopped", "unchanged/already-stopped: It was already stopped."],
        [protected, "db-01", "active", "skipped/protected: It is protected by autostop=never."],
        [stopping, "db-02", "active (powering-off)", "unchanged/already-stopping: It was already powering off."],
    ]


def test_plan_says_what_each_server_was_judged_by(
    login: Simulator, events: Events, capsys: pytest.CaptureFixture[str]
) -> None:
    """The tag, the times and the entry of the history: "why not?" needs no log. No other metadata is told."""
    kept = login.add_server("db-01", tags=["autostop=never", "team=secret"], metadata={"password": "secret"})
    started = login.add_server("ci-07", vm_state="stopped")
    asked_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    login.start_server(started)
    assert cli.main(["plan", events.write(kept, started, _UUID, time=asked_at)]) == 1
    told = capsys.readouterr().out
    _, of_kept, of_started, of_unknown = re.split(rf"^(?={kept}|{started}|{_UUID})", told, flags=re.MULTILINE)
    assert "observed_at=20" in of_kept
    assert "tag=autostop=never" in of_kept
    assert "history=not-asked" in of_kept
    assert "history=found" in of_started
    assert "action.action=start" in of_started
    assert f"event_time={asked_at[:-1]}.000Z" in of_started
    assert of_unknown.endswith("\n    never seen, so there is no evidence\n")
    assert "secret" not in told


def test_plan_prints_the_data_of_the_result_event_as_json(
    login: Simulator, events: Events, capsys: pytest.CaptureFixture[str]
) -> None:
    """And nothing beside it, so that it can be piped on."""
    runs = login.add_server("ci-07")
    assert cli.main(["plan", "--json", events.write(runs, data={"server_id": runs, "reason": "why"})]) == 0
    told = capsys.readouterr()
    data = json.loads(told.out)
    assert told.err == ""
    assert (data["dry_run"], data["refusal"], data["request"]["reason"]) == (True, None, "why")
    assert [(row["id"], row["outcome"], row["reason"]) for row in data["servers"]] == [(runs, "planned", "dry-run")]
    assert data["servers"][0]["evidence"]["vm_state"] == "active"


@pytest.mark.parametrize("environ", [{}, {"AUTOSTOP_INBOUND_AUTH": "none"}, {"AUTOSTOP_DRY_RUN": "false"}])
def test_plan_sends_no_stop_whatever_the_settings_say(
    login: Simulator, events: Events, monkeypatch: pytest.MonkeyPatch, environ: Mapping[str, str]
) -> None:
    """Every call but the login only looks; who may call the function need not be said."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    runs = login.add_server()
    assert cli.main(["plan", events.write(runs, time=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))]) == 0
    assert {call.method for call in login.calls if call.kind is not CallKind.LOGIN} == {"GET"}
    assert login.server(runs).vm_state == "active"


def test_plan_reads_the_event_from_standard_input(
    login: Simulator, events: Events, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As `-`."""
    with open(events.write(login.add_server("ci-07"))) as file:
        monkeypatch.setattr(sys, "stdin", file)
        assert cli.main(["plan", "-"]) == 0
    assert "ci-07" in capsys.readouterr().out


def test_plan_ends_with_1_if_a_server_would_fail(
    login: Simulator, events: Events, capsys: pytest.CaptureFixture[str]
) -> None:
    """A server of which nothing is known shows dashes."""
    unknown = "0b6f6a9e-6a34-4a0e-8d5c-6a3f1f0f7c21"
    assert cli.main(["plan", events.write(login.add_server(), unknown)]) == 1
    line = capsys.readouterr().out.splitlines()[-2]
    assert re.fullmatch(rf"{unknown}\s+-\s+-\s+failed/not-found: .+", line)


def test_plan_ends_with_2_if_the_settings_are_wrong(
    login: Simulator, events: Events, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All of them are named, and the cloud is not called."""
    monkeypatch.delenv("OS_PASSWORD")
    monkeypatch.setenv("AUTOSTOP_WAIT", "soon")
    assert cli.main(["plan", events.write(login.add_server())]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert {"OS_PASSWORD", "AUTOSTOP_WAIT"} <= set(told.err.split())
    assert login.calls == []


@pytest.mark.usefixtures("login")
def test_plan_ends_with_2_if_there_is_no_such_file(capsys: pytest.CaptureFixture[str]) -> None:
    """The command line is wrong, not the event."""
    assert cli.main(["plan", "/nowhere/event.json"]) == 2
    assert "/nowhere/event.json" in capsys.readouterr().err


_UUID = "0b6f6a9e-6a34-4a0e-8d5c-6a3f1f0f7c21"


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ({"id": "", "source": None, "data": {"server_ids": ["x"]}}, {"id:", "source:", "data.server_ids[0]:"}),
        ({"time": "today"}, {"time:"}),
        ({"type": "com.example.other"}, {"type:"}),
        ({"type": "io.github.bms-autostop.stop.completed.v1"}, {"ignored:", "own", "result"}),
    ],
)
def test_plan_ends_with_3_if_the_event_can_never_succeed(
    login: Simulator,
    events: Events,
    capsys: pytest.CaptureFixture[str],
    attributes: Mapping[str, object],
    said: set[str],
) -> None:
    """Every fault of it is named at once, and the cloud is not called."""
    assert cli.main(["plan", events.write(_UUID, **attributes)]) == 3
    told = capsys.readouterr()
    assert told.out == ""
    assert said <= set(told.err.split())
    assert login.calls == []


@pytest.mark.parametrize("text", ["", "{", "[]", '"text"', "\ufeff{}"])
@pytest.mark.usefixtures("login")
def test_plan_ends_with_3_if_the_file_is_no_event(
    events: Events, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    """Without a stack trace."""
    assert cli.main(["plan", events.text(text)]) == 3
    assert capsys.readouterr().err.startswith("The event can never succeed:\n  ")


@pytest.mark.usefixtures("login")
def test_plan_ends_with_3_if_the_event_is_too_large_to_be_one(
    events: Events, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the door would answer with another code than 400 is told as well."""

    def too_large(*_: object) -> None:
        raise cli.AutostopError("At most 100 events are taken.")

    monkeypatch.setattr("handler.inbound.cloudevents.decode.decode", too_large)
    assert cli.main(["plan", events.write(_UUID)]) == 3
    assert "At most 100 events are taken." in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_plan_ends_with_3_if_the_event_would_be_refused(
    login: Simulator, events: Events, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    """With the reason; the cloud is not called."""
    assert cli.main(["plan", *arguments, events.write(_UUID, time="2026-01-09T19:30:00Z")]) == 3
    assert "too-old" in capsys.readouterr().out
    assert login.calls == []


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"on": CallKind.LOGIN, "status": 401}, "login-refused"),
        (
            {"on": CallKind.READ, "status": 429, "headers": {"Retry-After": "60"}, "times": None},
            "budget-spent: 1 of 1 servers not handled in time (cloud-throttled).",
        ),
    ],
)
def test_plan_ends_with_4_if_the_cloud_could_not_be_asked(
    login: Simulator, events: Events, capsys: pytest.CaptureFixture[str], fault: Mapping[str, Any], said: str
) -> None:
    """And says what kept it."""
    login.inject(Fault(**fault))
    assert cli.main(["plan", events.write(login.add_server())]) == 4
    told = capsys.readouterr()
    assert told.out == ""
    assert said in told.err


# --- simulate ---


def _signalled(command: subprocess.Popen[str], number: signal.Signals) -> tuple[int, str]:
    """Send a signal, and return the exit code and what was said on standard error."""
    command.send_signal(number)
    _, err = command.communicate(timeout=20)
    return command.returncode, err


def test_simulate_prints_a_login_that_works_and_ends_on_ctrl_c(cloud: Simulator) -> None:
    """Its lines can be pasted into a shell; the servers that it names are there and run."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = subprocess.Popen(
        [sys.executable, "-m", "handler.cli", "simulate", "--port", str(port), "--servers", "2"],
        env=_environ(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell has its background jobs ignore it, and what they start; these tests may be such a job.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert command.stdout is not None
    lines: list[str] = []
    while not lines or not lines[-1].startswith("# Ctrl-C"):
        line = command.stdout.readline()
        assert line, "it ended before it had said how to end it"
        lines.append(line.rstrip())
    exported = dict(re.fullmatch(r"export (\w+)='(.*)'", line).groups() for line in lines if line.startswith("export"))  # type: ignore[union-attr]
    assert set(exported) == set(cloud.environ())
    assert exported["OS_AUTH_URL"] == f"http://127.0.0.1:{port}/v3"
    servers = [line.split()[2] for line in lines if line.startswith("# bms-")]
    # The same at each start, and as deploy/compose/README.md has them.
    assert servers == ["ec9dd12e-8aa1-5aea-8ea1-b2848e01c31b", "9f73f00b-939e-5bc5-a0e5-d4b7fde1aa5a"]
    event = json.dumps({"specversion": "1.0", "id": "1", "source": "/t", "type": STOP, "data": {"server_ids": servers}})
    planned = subprocess.run(
        [sys.executable, "-m", "handler.cli", "plan", "-"],
        env=_environ(**exported),
        input=event,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (planned.returncode, planned.stderr) == (0, "")
    assert planned.stdout.count("stopped: It would be stopped; it is active.") == 2
    assert _signalled(command, signal.SIGINT) == (0, "")


def test_simulate_ends_quietly_when_interrupted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its port is free again then."""

    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.time, "sleep", interrupted)
    assert cli.main(["simulate", "--port", "0", "--servers", "1"]) == 0
    url = re.search(r"OS_AUTH_URL='(.*)/v3'", capsys.readouterr().out)
    assert url is not None
    with pytest.raises(requests.ConnectionError):
        requests.get(url[1], timeout=5)


def test_simulate_says_that_its_port_is_taken(cloud: Simulator, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, and no stack trace."""
    number = cloud.url.rpartition(":")[2]
    assert cli.main(["simulate", "--port", number]) == 2
    assert f"port {number}: " in capsys.readouterr().err


def test_simulate_listens_where_it_is_told_and_gives_that_to_its_clients(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """So that other containers of a network can use it: by the name that they know it by, and with a known password."""
    found: list[str] = []
    passwords: list[str] = []

    def asked(_: float) -> None:
        told = dict(re.findall(r"export (\w+)='(.*)'", capsys.readouterr().out))
        passwords.append(told["OS_PASSWORD"])
        identity = {
            "methods": ["password"],
            "password": {
                "user": {
                    "name": told["OS_USERNAME"],
                    "password": told["OS_PASSWORD"],
                    "domain": {"name": told["OS_USER_DOMAIN_NAME"]},
                }
            },
        }
        project = {"name": told["OS_PROJECT_NAME"], "domain": {"name": told["OS_PROJECT_DOMAIN_NAME"]}}
        login = {"auth": {"identity": identity, "scope": {"project": project}}}
        answer = requests.post(f"{told['OS_AUTH_URL']}/auth/tokens", json=login, timeout=5)
        catalogue = answer.json()["token"]["catalog"]
        found.extend(point["url"] for entry in catalogue for point in entry["endpoints"])
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.time, "sleep", asked)
    assert cli.main(["simulate", "--host", "localhost", "--port", "0", "--password", "not-a-secret"]) == 0
    assert passwords == ["not-a-secret"]
    assert found
    assert all(url.startswith("http://localhost:") for url in found)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", ""])
def test_simulate_refuses_an_address_that_no_client_can_call(host: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The catalogue would name it, and every client would look for the cloud at home."""
    assert cli.main(["simulate", "--host", host]) == 2
    assert "--host: must be a name or address that clients can call" in capsys.readouterr().err


# --- serve ---


def test_serve_refuses_bad_settings_by_all_their_names(capsys: pytest.CaptureFixture[str]) -> None:
    """It does not start, and says all that is missing at once."""
    assert cli.main(["serve"]) == 2
    err = capsys.readouterr().err
    named = {line.split()[0] for line in err.splitlines()[1:]}
    assert named >= {"AUTOSTOP_INBOUND_AUTH", "OS_AUTH_URL", "OS_USERNAME", "OS_PASSWORD", "OS_PROJECT_NAME"}


@pytest.mark.usefixtures("login")
def test_serve_becomes_the_function(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process is replaced; `PORT` names the port, as platforms do it, and the command line wins over it."""
    became: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda _, command: became.append(command))
    monkeypatch.setenv("AUTOSTOP_INBOUND_AUTH", "none")
    for environ, arguments in (("", []), ("9090", []), ("9090", ["--port", "7070", "--host", "0.0.0.0"])):
        monkeypatch.setenv("PORT", environ)
        cli.main(["serve", *arguments])
    assert [command[-4:] for command in became] == [
        ["--host", "127.0.0.1", "--port", "8080"],
        ["--host", "127.0.0.1", "--port", "9090"],
        ["--host", "0.0.0.0", "--port", "7070"],
    ]
    assert {tuple(command[:5]) for command in became} == {
        (sys.executable, "-m", "functions_framework", "--source", str(ROOT / "handler" / "main.py"))
    }


def test_serve_answers_and_ends_on_a_signal(cloud: Simulator) -> None:
    """A process of its own, as on somebody's machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = subprocess.Popen(
        [sys.executable, "-m", "handler.cli", "serve", "--port", str(port)],
        env=_environ(**cloud.environ(), AUTOSTOP_INBOUND_AUTH="none"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    give_up = time.monotonic() + 30
    status = None
    while status is None and command.poll() is None and time.monotonic() < give_up:
        try:
            status = requests.get(f"http://127.0.0.1:{port}/readyz", timeout=5).status_code
        except requests.ConnectionError:
            time.sleep(0.02)
    code, err = _signalled(command, signal.SIGTERM)
    assert (status, code) == (200, 0), err


# --- the rest ---


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """With the name of the command, and exit code 0."""
    with pytest.raises(SystemExit) as caught:
        cli.main(["--version"])
    assert (caught.value.code, capsys.readouterr().out) == (0, f"bms-autostop {__version__}\n")


@pytest.mark.parametrize(
    "arguments", [[], ["stop"], ["plan"], ["simulate", "--port", "99999"], ["serve", "--port", "x"]]
)
def test_a_wrong_command_line_ends_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """And shows how it is used."""
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("usage: bms-autostop")


def test_a_strange_port_in_the_environment_is_told_by_serve_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Kubernetes puts addresses into such variables; no other command looks at it."""
    monkeypatch.setenv("PORT", "tcp://10.0.0.1:80")
    with pytest.raises(SystemExit) as caught:
        cli.main(["serve"])
    assert caught.value.code == 2
    assert "--port" in capsys.readouterr().err
    assert cli.main(["plan", "/nowhere/event.json"]) == 2
    assert "--port" not in capsys.readouterr().err


def test_demo_is_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its exit code is the command's."""
    monkeypatch.setattr("handler.demo.demo", lambda: 7)
    assert cli.main(["demo"]) == 7
