"""`bms-autostop plan`: what it prints, its exit codes, and that it only reads."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from handler import rfc3339
from handler.demo.fleet import FLEET
from handler.errors import AutostopError
from handler.simulator import CallKind, Fault, Simulator
from tests.cli.conftest import SAMPLES, Run
from tests.conftest import STOP

_UUID = "0b6f6a9e-6a34-4a0e-8d5c-6a3f1f0f7c21"

Write = Callable[..., str]


@pytest.fixture
def event(tmp_path: Path) -> Write:
    """Write a file with an event about servers, valid but for what is given; return its path."""

    def write(*server_ids: str, **attributes: object) -> str:
        usual = {"specversion": "1.0", "id": "1", "source": "/tests", "type": STOP}
        event = {**usual, "data": {"server_ids": list(server_ids)}, **attributes}
        file = tmp_path / "event.json"
        file.write_text(json.dumps({name: value for name, value in event.items() if value is not None}))
        return str(file)

    return write


def _cells(line: str) -> list[str]:
    return re.split(r"\s{2,}", line.strip())


def test_each_server_has_a_row_and_the_last_line_counts(login: Simulator, event: Write, run: Run) -> None:
    """Name, id, state, outcome and reason; nothing stands in the way, so the exit code is 0."""
    active = login.add_server("ci-07")
    stopped = login.add_server("ci-08", vm_state="stopped")
    protected = login.add_server("db-01", tags=["autostop=never"])
    stopping = login.add_server("db-02", task_state="powering-off")
    ran = run("plan", event(active, stopped, protected, stopping))
    head, *rows, note, summary = ran.out.splitlines()
    assert _cells(head) == ["NAME", "SERVER", "STATE", "RESULT"]
    since = rfc3339.render(datetime.fromtimestamp(int(login.server(stopping).updated), UTC))
    already = f"unchanged/already-stopping: It was already powering off, since {since}."
    assert [_cells(row) for row in rows] == [
        ["ci-07", active, "active", "planned/dry-run: It would be stopped; it is active."],
        ["ci-08", stopped, "stopped", "unchanged/already-stopped: It was already stopped."],
        ["db-01", protected, "active", "skipped/protected: It is protected by autostop=never."],
        ["db-02", stopping, "active (powering-off)", already],
    ]
    assert note == "Nothing was sent. Whether the login may stop servers was not tested."
    assert (ran.code, summary) == (0, "4 servers: 1 would be stopped, 1 skipped, 2 unchanged.")


def test_verbose_shows_the_evidence_of_each_server(login: Simulator, event: Write, run: Run) -> None:
    """The tag, the times and the entry of the history; no other tag or metadata. Without -v there is none of it."""
    kept = login.add_server("db-01", tags=["autostop=never", "team=secret"], metadata={"password": "secret"})
    started = login.add_server("ci-07", vm_state="stopped")
    asked_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    login.start_server(started)
    file = event(kept, started, _UUID, time=asked_at)
    assert "observed_at" not in run("plan", file).out
    printed = run("plan", "-v", file).out
    evidence = printed.splitlines()[2::2]
    for words in ("observed_at=20", "tag=autostop=never", "history=not-asked"):
        assert words in evidence[0]
    for words in ("history=found", "action.action=start", f"event_time={asked_at[:-1]}.000Z"):
        assert words in evidence[1]
    assert evidence[2] == "    never seen, so there is no evidence"
    assert "secret" not in printed


def test_json_is_the_data_of_the_result_event_and_nothing_else(login: Simulator, event: Write, run: Run) -> None:
    """So that it can be piped on."""
    active = login.add_server("ci-07")
    ran = run("plan", "--json", event(data={"server_id": active, "reason": "why"}))
    data = json.loads(ran.out)
    assert (ran.code, ran.err) == (0, "")
    assert (data["dry_run"], data["refusal"], data["request"]["reason"]) == (True, None, "why")
    assert [(row["id"], row["outcome"], row["reason"]) for row in data["servers"]] == [(active, "planned", "dry-run")]
    assert data["servers"][0]["evidence"]["vm_state"] == "active"


@pytest.mark.parametrize("environ", [{}, {"AUTOSTOP_INBOUND_AUTH": "none"}, {"AUTOSTOP_DRY_RUN": "false"}])
def test_no_stop_is_sent_whatever_the_settings_say(
    login: Simulator, event: Write, run: Run, monkeypatch: pytest.MonkeyPatch, environ: Mapping[str, str]
) -> None:
    """Every call but the login only reads; how callers are authenticated need not be set."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    active = login.add_server()
    assert run("plan", event(active, time=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))).code == 0
    assert {call.method for call in login.calls if call.kind is not CallKind.LOGIN} == {"GET"}
    assert login.server(active).vm_state == "active"


def test_the_event_can_come_from_standard_input(
    login: Simulator, event: Write, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `-`."""
    with open(event(login.add_server("ci-07"))) as file:
        monkeypatch.setattr(sys, "stdin", file)
        assert "ci-07" in run("plan", "-").out


# --- every sample, and servers named by options


@pytest.mark.usefixtures("login", "fleet")
@pytest.mark.parametrize("sample", sorted(path.name for path in SAMPLES.iterdir()))
def test_every_sample_can_be_planned(sample: str, run: Run) -> None:
    """Whatever its mode; those that are to be refused are, and of the others each names a server of the fleet."""
    refused = {"malformed.json", "outdated.json", "expired.json", "schedule-without-ids.json"}
    # It names a server that does not exist.
    failed = {"stop-request.json"}
    ran = run("plan", str(SAMPLES / sample))
    assert ran.code == (3 if sample in refused else 1 if sample in failed else 0)
    assert any(server.id in ran.out for server in FLEET) is (sample not in refused)


@pytest.mark.usefixtures("login", "fleet")
def test_a_batch_is_one_plan_of_all_its_events(run: Run) -> None:
    """With one summary, and an array as JSON."""
    lines = run("plan", str(SAMPLES / "batch.json")).out.splitlines()
    assert [line for line in lines if line.startswith("Event ")] == ["Event 1 of 2", "Event 2 of 2"]
    assert lines[-1] == "3 servers: 2 would be stopped, 1 unchanged."
    assert [len(one["servers"]) for one in json.loads(run("plan", "--json", str(SAMPLES / "batch.json")).out)] == [2, 1]


@pytest.mark.usefixtures("login", "fleet")
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
def test_options_name_the_servers(options: list[str], names: list[str], run: Run) -> None:
    """Tags, metadata and name must all fit; ids may be in upper case. The reason goes along."""
    data = json.loads(run("plan", "--json", *options, "--reason", "why").out)
    assert [row["name"] for row in data["servers"]] == names
    assert (data["request"]["reason"], data["request"]["source"]) == ("why", "/bms-autostop/cli")


# --- exit codes


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
def test_a_wrong_command_line_ends_with_2(login: Simulator, options: list[str], run: Run) -> None:
    """Before anything is called; the usage is shown."""
    ran = run("plan", *options)
    assert ran.err.startswith("Usage: bms-autostop plan")
    assert (ran.code, login.calls) == (2, [])


def test_it_ends_with_1_if_a_server_would_fail(login: Simulator, event: Write, run: Run) -> None:
    """A server of which nothing is known shows dashes."""
    ran = run("plan", event(login.add_server(), _UUID))
    (row,) = [line for line in ran.out.splitlines() if _UUID in line]
    assert re.fullmatch(rf"-\s+{_UUID}\s+-\s+failed/not-found: .+", row)
    assert ran.code == 1


def test_it_ends_with_2_if_the_settings_are_wrong(
    login: Simulator, event: Write, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All violations are named, and the cloud is not called."""
    monkeypatch.delenv("OS_PASSWORD")
    monkeypatch.setenv("AUTOSTOP_WAIT", "soon")
    ran = run("plan", event(login.add_server()))
    assert {"OS_PASSWORD", "AUTOSTOP_WAIT"} <= set(ran.err.split())
    assert (ran.code, ran.out, login.calls) == (2, "", [])


@pytest.mark.usefixtures("login")
def test_it_ends_with_2_if_there_is_no_such_file(run: Run) -> None:
    """The command line is wrong, not the event."""
    ran = run("plan", "/nowhere/event.json")
    assert (ran.code, "/nowhere/event.json" in ran.err) == (2, True)


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"id": "", "source": None, "data": {"server_ids": ["x"]}}, {"id:", "source:", "data.server_ids[0]:"}),
        ({"time": "today"}, {"time:"}),
        ({"type": "com.example.other"}, {"type:"}),
        ({"type": "io.github.bms-autostop.stop.completed.v1"}, {"ignored:", "own", "result"}),
        # As the function refuses a selector that means every server.
        ({"data": {"selector": {"name": "*"}}}, {"data.selector.name:"}),
    ],
)
def test_it_ends_with_3_if_the_event_can_never_succeed(
    login: Simulator, event: Write, run: Run, attributes: Mapping[str, object], words: set[str]
) -> None:
    """Every violation is named at once, and the cloud is not called."""
    ran = run("plan", event(_UUID, **attributes))
    assert words <= set(ran.err.split())
    assert (ran.code, ran.out, login.calls) == (3, "", [])


@pytest.mark.parametrize("text", ["", "{", "[]x", '"text"', "\ufeff{}", "[" * 100_000])
@pytest.mark.usefixtures("login")
def test_it_ends_with_3_if_the_file_is_not_an_event(tmp_path: Path, run: Run, text: str) -> None:
    """Without a traceback."""
    file = tmp_path / "event.json"
    file.write_text(text)
    ran = run("plan", str(file))
    assert (ran.code, ran.err[:31]) == (3, "The event can never succeed:\n  ")


@pytest.mark.usefixtures("login")
def test_it_ends_with_3_if_the_event_is_refused_otherwise(
    event: Write, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that the function answers with another status than 400."""

    def too_large(*_: object) -> None:
        raise AutostopError("At most 100 events are taken.")

    monkeypatch.setattr("handler.inbound.cloudevents.decode.decode", too_large)
    ran = run("plan", event(_UUID))
    assert (ran.code, "At most 100 events are taken." in ran.err) == (3, True)


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_it_ends_with_3_if_the_event_would_be_refused(
    login: Simulator, event: Write, run: Run, arguments: list[str]
) -> None:
    """With the reason; the cloud is not called."""
    ran = run("plan", *arguments, event(_UUID, time="2026-01-09T19:30:00Z"))
    assert (ran.code, "too-old" in ran.out, login.calls) == (3, True, [])


_THROTTLED = {"status": 429, "headers": {"Retry-After": "60"}, "times": None}


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"on": CallKind.LOGIN, "status": 401}, ["login-refused", "Cause: logging in at 127.0.0.1:", ": HTTP 401."]),
        (
            {"on": CallKind.READ, **_THROTTLED},
            ["budget-spent: 1 of 1 servers not handled in time", "Cause: reading the server at 127.0.0.1:", "HTTP 429"],
        ),
        ({"on": CallKind.LIST, **_THROTTLED}, ["budget-spent: ", "cloud-throttled: listing servers: HTTP 429"]),
    ],
    ids=["login", "read", "list"],
)
def test_it_ends_with_4_if_the_cloud_could_not_be_asked(
    login: Simulator, event: Write, run: Run, fault: Mapping[str, Any], words: list[str]
) -> None:
    """The cause is named, and the command that says more."""
    login.inject(Fault(**fault))
    servers = {"selector": {"name": "ci-*"}} if fault["on"] is CallKind.LIST else {"server_id": login.add_server()}
    ran = run("plan", event(data=servers))
    assert (ran.code, ran.out) == (4, "")
    for text in (*words, "bms-autostop doctor"):
        assert text in ran.err


def test_nothing_in_a_name_reaches_the_terminal_as_a_command(login: Simulator, event: Write, run: Run) -> None:
    """Escape sequences, line breaks and right-to-left overrides are written out; a name forges no row."""
    name = "ci-\x1b[2J07\r\nweb-01\u202e\u200b"
    file = event(login.add_server(name, tags=["autostop=never"]), login.add_server("db-01", vm_state="stopped"))
    lines = run("plan", "-v", file).out.splitlines()
    assert all(line.isprintable() for line in lines)
    assert r"ci-\x1b[2J07\r\nweb-01\u202e\u200b" in "\n".join(lines)
    assert not [line for line in lines if line.startswith("web-01")]
