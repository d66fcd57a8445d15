"""`bms-autostop plan`: what it prints, its exit codes, and that it only reads."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from handler import cli, rfc3339
from handler.demo.fleet import FLEET, add
from handler.errors import AutostopError
from handler.simulator import CallKind, Fault, Simulator
from tests.conftest import ROOT, STOP

_UUID = "0b6f6a9e-6a34-4a0e-8d5c-6a3f1f0f7c21"
_SAMPLES = ROOT / "events" / "samples" / "in"


class Events:
    """Writes events into files, as a person does for `plan`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, *server_ids: str, **attributes: object) -> str:
        """Write a valid event, but for what is given; return the file."""
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
        """Write any text; return the file."""
        file = self._folder / "event.json"
        file.write_text(text)
        return str(file)


@pytest.fixture
def events(tmp_path: Path) -> Events:
    """Files with events."""
    return Events(tmp_path)


def _cells(line: str) -> list[str]:
    return re.split(r"\s{2,}", line.strip())


def test_each_server_has_a_row_and_the_last_line_counts(
    login: Simulator, events: Events, capsys: pytest.CaptureFixture[str]
) -> None:
    """Name, id, state, outcome and reason; nothing stands in the way, so the exit code is 0."""
    active = login.add_server("ci-07")
    stopped = login.add_server("ci-08", vm_state="stopped")
    protected = login.add_server("db-01", tags=["autostop=never"])
    stopping = login.add_server("db-02", task_state="powering-off")
    assert cli.main(["plan", events.write(active, stopped, protected, stopping)]) == 0
    head, *rows, note, summary = capsys.readouterr().out.splitlines()
    assert _cells(head) == ["NAME", "SERVER", "STATE", "RESULT"]
    since = rfc3339.render(datetime.fromtimestamp(int(login.server(stopping).updated), UTC))
    assert [_cells(row) for row in rows] == [
        ["ci-07", active, "active", "planned/dry-run: It would be stopped; it is active."],
        ["ci-08", stopped, "stopped", "unchanged/already-stopped: It was already stopped."],
        ["db-01", protected, "active", "skipped/protected: It is protected by autostop=never."],
        [
            "db-02",
            stopping,
            "active (powering-off)",
            f"unchanged/already-stopping: It was already powering off, since {since}.",
        ],
    ]
    assert note == "Nothing was sent. Whether the login may stop servers was not tested."
    assert summary == "4 servers: 1 would be stopped, 1 skipped, 2 unchanged."


def test_verbose_shows_the_evidence_of_each_server(
    login: Simulator, events: Events, capsys: pytest.CaptureFixture[str]
) -> None:
    """The tag, the times and the entry of the history; no other tag or metadata. Without -v there is none of it."""
    kept = login.add_server("db-01", tags=["autostop=never", "team=secret"], metadata={"password": "secret"})
    started = login.add_server("ci-07", vm_state="stopped")
    asked_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    login.start_server(started)
    file = events.write(kept, started, _UUID, time=asked_at)
    assert cli.main(["plan", file]) == 1
    assert "observed_at" not in capsys.readouterr().out
    assert cli.main(["plan", "-v", file]) == 1
    printed = capsys.readouterr().out
    evidence = printed.splitlines()[2::2]
    assert "observed_at=20" in evidence[0]
    assert "tag=autostop=never" in evidence[0]
    assert "history=not-asked" in evidence[0]
    assert "history=found" in evidence[1]
    assert "action.action=start" in evidence[1]
    assert f"event_time={asked_at[:-1]}.000Z" in evidence[1]
    assert evidence[2] == "    never seen, so there is no evidence"
    assert "secret" not in printed


def test_json_is_the_data_of_the_result_event_and_nothing_else(
    login: Simulator, events: Events, capsys: pytest.CaptureFixture[str]
) -> None:
    """So that it can be piped on."""
    active = login.add_server("ci-07")
    assert cli.main(["plan", "--json", events.write(active, data={"server_id": active, "reason": "why"})]) == 0
    printed = capsys.readouterr()
    data = json.loads(printed.out)
    assert printed.err == ""
    assert (data["dry_run"], data["refusal"], data["request"]["reason"]) == (True, None, "why")
    assert [(row["id"], row["outcome"], row["reason"]) for row in data["servers"]] == [(active, "planned", "dry-run")]
    assert data["servers"][0]["evidence"]["vm_state"] == "active"


@pytest.mark.parametrize("environ", [{}, {"AUTOSTOP_INBOUND_AUTH": "none"}, {"AUTOSTOP_DRY_RUN": "false"}])
def test_no_stop_is_sent_whatever_the_settings_say(
    login: Simulator, events: Events, monkeypatch: pytest.MonkeyPatch, environ: Mapping[str, str]
) -> None:
    """Every call but the login only reads; how callers are authenticated need not be set."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    active = login.add_server()
    assert cli.main(["plan", events.write(active, time=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))]) == 0
    assert {call.method for call in login.calls if call.kind is not CallKind.LOGIN} == {"GET"}
    assert login.server(active).vm_state == "active"


def test_the_event_can_come_from_standard_input(
    login: Simulator, events: Events, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As `-`."""
    with open(events.write(login.add_server("ci-07"))) as file:
        monkeypatch.setattr(sys, "stdin", file)
        assert cli.main(["plan", "-"]) == 0
    assert "ci-07" in capsys.readouterr().out


# --- every sample, and servers named by options


@pytest.fixture
def fleet(login: Simulator) -> Simulator:
    """The servers that the samples name."""
    for server in FLEET:
        add(login, server)
    return login


@pytest.mark.usefixtures("fleet")
@pytest.mark.parametrize("sample", sorted(path.name for path in _SAMPLES.iterdir()))
def test_every_sample_can_be_planned(sample: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever its mode; those that are to be refused are, and of the others each names a server of the fleet."""
    refused = {"malformed.json", "outdated.json", "expired.json", "schedule-without-ids.json"}
    # It names a server that does not exist.
    failed = {"stop-request.json"}
    code = cli.main(["plan", str(_SAMPLES / sample)])
    assert code == (3 if sample in refused else 1 if sample in failed else 0)
    printed = capsys.readouterr().out
    assert any(server.id in printed for server in FLEET) is (sample not in refused)


@pytest.mark.usefixtures("fleet")
def test_a_batch_is_one_plan_of_all_its_events(capsys: pytest.CaptureFixture[str]) -> None:
    """With one summary, and an array as JSON."""
    assert cli.main(["plan", str(_SAMPLES / "batch.json")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("Event ")] == ["Event 1 of 2", "Event 2 of 2"]
    assert lines[-1] == "3 servers: 2 would be stopped, 1 unchanged."
    assert cli.main(["plan", "--json", str(_SAMPLES / "batch.json")]) == 0
    assert [len(one["servers"]) for one in json.loads(capsys.readouterr().out)] == [2, 1]


@pytest.mark.usefixtures("fleet")
@pytest.mark.parametrize(
    ("options", "names"),
    [
        (["--name", "ci-0*"], ["ci-07", "ci-08", "ci-09"]),
        (["--tag", "env=prod", "--tag", "autostop=never"], ["db-01"]),
        (["--metadata", "team=ml"], ["gpu-01", "gpu-02"]),
        (["--name", "*-01", "--metadata", "team=ml"], ["gpu-01"]),
        (["--server", FLEET[0].id.upper(), "--server", FLEET[1].id], ["ci-07", "ci-08"]),
    ],
)
def test_options_name_the_servers(options: list[str], names: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Tags, metadata and name must all fit; ids may be in upper case. The reason goes along."""
    assert cli.main(["plan", "--json", *options, "--reason", "why"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in data["servers"]] == names
    assert data["request"]["reason"] == "why"
    assert data["request"]["source"] == "/bms-autostop/cli"


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["event.json", "--name", "ci-*"],
        ["event.json", "--reason", "x"],
        ["--server", _UUID, "--tag", "a"],
        ["--server", "ci-07"],
        ["--server", f"{{{_UUID}}}"],
        ["--metadata", "team"],
        ["--metadata", "=ml"],
        ["--timeout", "0", "--name", "ci-*"],
    ],
)
def test_a_wrong_command_line_ends_with_2(
    login: Simulator, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is called; the usage is shown."""
    assert cli.main(["plan", *options]) == 2
    assert capsys.readouterr().err.startswith("Usage: bms-autostop plan")
    assert login.calls == []


def test_a_glob_that_fits_every_server_is_refused(login: Simulator, capsys: pytest.CaptureFixture[str]) -> None:
    """As the function refuses it."""
    assert cli.main(["plan", "--name", "*"]) == 3
    assert "data.selector.name:" in capsys.readouterr().err
    assert login.count(CallKind.LIST) == 0


# --- exit codes


def test_it_ends_with_1_if_a_server_would_fail(
    login: Simulator, events: Events, capsys: pytest.CaptureFixture[str]
) -> None:
    """A server of which nothing is known shows dashes."""
    assert cli.main(["plan", events.write(login.add_server(), _UUID)]) == 1
    (row,) = [line for line in capsys.readouterr().out.splitlines() if _UUID in line]
    assert re.fullmatch(rf"-\s+{_UUID}\s+-\s+failed/not-found: .+", row)


def test_it_ends_with_2_if_the_settings_are_wrong(
    login: Simulator, events: Events, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All violations are named, and the cloud is not called."""
    monkeypatch.delenv("OS_PASSWORD")
    monkeypatch.setenv("AUTOSTOP_WAIT", "soon")
    assert cli.main(["plan", events.write(login.add_server())]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert {"OS_PASSWORD", "AUTOSTOP_WAIT"} <= set(printed.err.split())
    assert login.calls == []


@pytest.mark.usefixtures("login")
def test_it_ends_with_2_if_there_is_no_such_file(capsys: pytest.CaptureFixture[str]) -> None:
    """The command line is wrong, not the event."""
    assert cli.main(["plan", "/nowhere/event.json"]) == 2
    assert "/nowhere/event.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"id": "", "source": None, "data": {"server_ids": ["x"]}}, {"id:", "source:", "data.server_ids[0]:"}),
        ({"time": "today"}, {"time:"}),
        ({"type": "com.example.other"}, {"type:"}),
        ({"type": "io.github.bms-autostop.stop.completed.v1"}, {"ignored:", "own", "result"}),
    ],
)
def test_it_ends_with_3_if_the_event_can_never_succeed(
    login: Simulator,
    events: Events,
    capsys: pytest.CaptureFixture[str],
    attributes: Mapping[str, object],
    words: set[str],
) -> None:
    """Every violation is named at once, and the cloud is not called."""
    assert cli.main(["plan", events.write(_UUID, **attributes)]) == 3
    printed = capsys.readouterr()
    assert printed.out == ""
    assert words <= set(printed.err.split())
    assert login.calls == []


@pytest.mark.parametrize("text", ["", "{", "[]x", '"text"', "\ufeff{}", "[" * 100_000])
@pytest.mark.usefixtures("login")
def test_it_ends_with_3_if_the_file_is_not_an_event(
    events: Events, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    """Without a traceback."""
    assert cli.main(["plan", events.text(text)]) == 3
    assert capsys.readouterr().err.startswith("The event can never succeed:\n  ")


@pytest.mark.usefixtures("login")
def test_it_ends_with_3_if_the_event_is_refused_otherwise(
    events: Events, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that the function answers with another status than 400."""

    def too_large(*_: object) -> None:
        raise AutostopError("At most 100 events are taken.")

    monkeypatch.setattr("handler.inbound.cloudevents.decode.decode", too_large)
    assert cli.main(["plan", events.write(_UUID)]) == 3
    assert "At most 100 events are taken." in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_it_ends_with_3_if_the_event_would_be_refused(
    login: Simulator, events: Events, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    """With the reason; the cloud is not called."""
    assert cli.main(["plan", *arguments, events.write(_UUID, time="2026-01-09T19:30:00Z")]) == 3
    assert "too-old" in capsys.readouterr().out
    assert login.calls == []


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"on": CallKind.LOGIN, "status": 401}, ["login-refused", "Cause: logging in at 127.0.0.1:", ": HTTP 401."]),
        (
            {"on": CallKind.READ, "status": 429, "headers": {"Retry-After": "60"}, "times": None},
            ["budget-spent: 1 of 1 servers not handled in time", "Cause: reading the server at 127.0.0.1:", "HTTP 429"],
        ),
        (
            {"on": CallKind.LIST, "status": 429, "headers": {"Retry-After": "60"}, "times": None},
            ["budget-spent: ", "cloud-throttled: listing servers: HTTP 429"],
        ),
    ],
)
def test_it_ends_with_4_if_the_cloud_could_not_be_asked(
    login: Simulator,
    events: Events,
    capsys: pytest.CaptureFixture[str],
    fault: Mapping[str, Any],
    words: list[str],
) -> None:
    """The cause is named, and the command that says more."""
    login.inject(Fault(**fault))
    servers = {"selector": {"name": "ci-*"}} if fault["on"] is CallKind.LIST else {"server_id": login.add_server()}
    assert cli.main(["plan", events.write(data=servers)]) == 4
    printed = capsys.readouterr()
    assert printed.out == ""
    assert all(word in printed.err for word in words)
    assert "bms-autostop doctor" in printed.err


# --- what the cloud says is not trusted


def test_nothing_in_a_name_reaches_the_terminal_as_a_command(
    login: Simulator, events: Events, capsys: pytest.CaptureFixture[str]
) -> None:
    """Escape sequences, line breaks and right-to-left overrides are written out; a name forges no row."""
    name = "ci-\x1b[2J07\r\nweb-01\u202e\u200b"
    protect = "autostop=never"
    file = events.write(login.add_server(name, tags=[protect]), login.add_server("db-01", vm_state="stopped"))
    assert cli.main(["plan", "-v", file]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line.isprintable() for line in lines)
    assert r"ci-\x1b[2J07\r\nweb-01\u202e\u200b" in "\n".join(lines)
    assert not [line for line in lines if line.startswith("web-01")]
