"""`bms-autostop send`: what is posted, what is printed of the answer, and what is known after each failure."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from handler import cli
from handler.demo.fleet import CI_07, CI_08, FLEET, add
from handler.simulator import Simulator
from tests.cli.conftest import free_port
from tests.conftest import ROOT, STOP, Function, StartFunction
from tests.support.sink_server import Say, SinkServer

_SAMPLES = ROOT / "events" / "samples" / "in"


@pytest.fixture
def sink() -> Iterator[SinkServer]:
    """A broker that takes everything."""
    with SinkServer() as server:
        yield server


@pytest.fixture
def fleet_function(cloud: Simulator, start_function: StartFunction) -> Function:
    """The function, before a cloud with the servers that the samples name."""
    for server in FLEET:
        add(cloud, server)
    return start_function(cloud)


def _problem(status: int, word: str = "bad-event") -> Say:
    document = {"type": f"urn:bms-autostop:problem:{word}", "title": "Title", "detail": "A \x1b[2J detail."}
    faults = [{"at": "data.server_ids[0]", "fault": "must be a UUID"}]
    return Say(
        status, {"Content-Type": "application/problem+json"}, json.dumps({**document, "faults": faults}).encode()
    )


# --- what is sent


@pytest.mark.parametrize(("flag", "dry_run"), [("--dry-run", True), ("--stop", False)])
def test_options_become_a_stop_request(
    sink: SinkServer, flag: str, dry_run: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """In structured mode, with an id and a time of its own, and what was asked for."""
    assert cli.main(["send", "--url", sink.url, flag, "--server", CI_07, "--reason", "why"]) == 0
    (got,) = sink.got
    event = got.data
    assert (got.method, got.headers["content-type"]) == ("POST", "application/cloudevents+json")
    assert (event["type"], event["source"], event["specversion"]) == (STOP, "/bms-autostop/cli", "1.0")
    assert event["data"] == {"server_ids": [CI_07], "reason": "why", "dry_run": dry_run}
    assert event["time"].endswith("Z")
    assert f"Event {event['id']} from /bms-autostop/cli" in capsys.readouterr().out


def test_options_become_a_selector(sink: SinkServer) -> None:
    """With those parts that are given."""
    options = ["--name", "ci-*", "--tag", "env=ci", "--metadata", "team=build", "--metadata", "empty="]
    assert cli.main(["send", "--url", sink.url, "--dry-run", *options]) == 0
    selector = {"name": "ci-*", "tags": ["env=ci"], "metadata": {"team": "build", "empty": ""}}
    assert sink.got[0].data["data"] == {"selector": selector, "dry_run": True}


@pytest.mark.parametrize("sample", ["schedule.json", "schedule-binary.json", "batch.json", "subject-only.json"])
def test_a_file_is_sent_as_a_dry_run_in_its_own_mode(sink: SinkServer, sample: str) -> None:
    """Nothing but `dry_run` is changed."""
    assert cli.main(["send", "--url", sink.url, "--dry-run", str(_SAMPLES / sample)]) == 0
    original, (got,) = json.loads((_SAMPLES / sample).read_text()), sink.got
    if sample == "schedule-binary.json":
        assert got.headers["ce-id"] == original["headers"]["Ce-Id"]
        assert got.data == {**json.loads(original["body"]), "dry_run": True}
        return
    events, sent = (one if isinstance(one, list) else [one] for one in (original, got.data))
    assert sent == [{**event, "data": {**event.get("data", {}), "dry_run": True}} for event in events]


def test_a_file_is_sent_byte_by_byte_for_a_stop(sink: SinkServer) -> None:
    """As it is."""
    assert cli.main(["send", "--url", sink.url, "--stop", str(_SAMPLES / "schedule.json")]) == 0
    assert sink.got[0].body == (_SAMPLES / "schedule.json").read_bytes()


@pytest.mark.parametrize(
    ("flag", "event", "code", "words"),
    [
        ("--stop", "dry-run.json", 2, "says dry_run, and --stop"),
        ("--dry-run", "malformed.json", 3, "data.dry_run"),
        ("--stop", "malformed.json", 3, "data.server_ids[1]"),
        ("--dry-run", f'{{"data": {{"server_id": "{CI_07}", "server_id": "{CI_08}"}}}}', 3, "twice"),
        ("--dry-run", {"data": "text"}, 3, "data:"),
        ("--dry-run", {"data": {"server_id": CI_07, "dry-run": False}}, 3, "data.dry_run"),
        ("--stop", {"type": "io.github.bms-autostop.stop.completed.v1"}, 3, "asks for nothing"),
        ("--stop", {"type": "com.example.other"}, 3, "type:"),
    ],
)
def test_what_is_not_understood_is_not_sent(
    sink: SinkServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    flag: str,
    event: str | dict[str, Any],
    code: int,
    words: str,
) -> None:
    """Nor what contradicts the command line; an event is read here as the function reads it."""
    file = tmp_path / "event.json"
    usual = {"specversion": "1.0", "id": "1", "source": "/t", "type": STOP}
    if isinstance(event, dict):
        event = json.dumps({**usual, **event})
    file.write_text((_SAMPLES / event).read_text() if event.endswith(".json") else event)
    assert cli.main(["send", "--url", sink.url, flag, str(file)]) == code
    assert words in capsys.readouterr().err
    assert sink.got == []


@pytest.mark.parametrize(
    "options",
    [
        ["--name", "ci-*"],
        ["--dry-run"],
        ["--dry-run", "--name", "ci-*", "--server", CI_07],
        ["--dry-run", "--name", "ci-*", "--url", "ftp://127.0.0.1/"],
        ["--dry-run", "--name", "ci-*", "--url", "http://user:secret@127.0.0.1/"],
    ],
)
def test_a_wrong_command_line_ends_with_2(
    sink: SinkServer, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Without --dry-run or --stop nothing is sent, so that no power is cut because a word was left out."""
    url = [] if "--url" in options else ["--url", sink.url]
    assert cli.main(["send", *url, *options]) == 2
    assert capsys.readouterr().err.startswith("Usage: bms-autostop send")
    assert sink.got == []


# --- the token


def test_the_token_comes_from_the_environment_or_a_file(
    sink: SinkServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file wins; without either no token is sent."""
    file = tmp_path / "token"
    file.write_text("from-the-file\n")
    send = ["send", "--url", sink.url, "--dry-run", "--server", CI_07]
    assert cli.main(send) == 0
    monkeypatch.setenv("AUTOSTOP_SINK_TOKEN", "from-the-environment")
    assert cli.main(send) == 0
    assert cli.main([*send, "--token-file", str(file)]) == 0
    tokens = [got.headers.get("authorization") for got in sink.got]
    assert tokens == [None, "Bearer from-the-environment", "Bearer from-the-file"]


@pytest.mark.parametrize("content", [None, "", "two words", "line\nbreak"])
def test_a_file_without_a_token_ends_with_2(
    sink: SinkServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None
) -> None:
    """Nothing is sent without it, and its content is not printed."""
    file = tmp_path / "token"
    if content is not None:
        file.write_text(content)
    assert cli.main(["send", "--url", sink.url, "--dry-run", "--server", CI_07, "--token-file", str(file)]) == 2
    err = capsys.readouterr().err
    assert str(file) in err
    assert "two words" not in err
    assert sink.got == []


# --- the answer


def test_the_result_is_printed(fleet_function: Function, capsys: pytest.CaptureFixture[str]) -> None:
    """From a real function: rows as `plan` prints them, the summary last."""
    assert cli.main(["send", "--url", fleet_function.url, "--dry-run", "--name", "ci-0*"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "HTTP 200: The event was handled."
    assert [line.split()[0] for line in lines[2:-1]] == ["NAME", "ci-07", "ci-08", "ci-09"]
    assert lines[-1] == "3 servers: 2 would be stopped, 1 unchanged."


def test_a_stop_is_a_stop(cloud: Simulator, fleet_function: Function, capsys: pytest.CaptureFixture[str]) -> None:
    """And no other server is touched."""
    assert cli.main(["send", "--url", fleet_function.url, "--stop", "--server", CI_07]) == 0
    assert "stopped/confirmed" in capsys.readouterr().out
    assert {server.id: cloud.stops_sent(server.id) for server in FLEET if cloud.stops_sent(server.id)} == {CI_07: 1}


@pytest.fixture
def planning(cloud: Simulator, start_function: StartFunction) -> Function:
    """The function, which asks for an approval of every stop."""
    for server in FLEET:
        add(cloud, server)
    return start_function(cloud, AUTOSTOP_APPROVAL="always", AUTOSTOP_APPROVAL_KEYS="k" * 32)


def test_a_plan_is_printed_with_the_command_that_approves_it(
    cloud: Simulator, planning: Function, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The token is in one line, however narrow the terminal; the command does what it says."""
    monkeypatch.setenv("COLUMNS", "60")
    assert cli.main(["send", "--url", planning.url, "--stop", "--server", CI_07]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "1 server: 1 would be stopped."
    command = lines[-2]
    assert command.startswith(f"bms-autostop approve --url {planning.url} --as SYSTEM:ID ")
    assert "another person than the requester" in " ".join(lines[-5:-2])
    assert [cloud.stops_sent(server.id) for server in FLEET if cloud.stops_sent(server.id)] == []
    assert cli.main(command.replace("SYSTEM:ID", "slack:T1/U2").split()[1:]) == 0
    assert "1 server: 1 stopped." in capsys.readouterr().out


def test_a_token_that_could_control_the_terminal_is_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """It is printed as it is, so it must be one."""
    body = json.dumps({"servers": [], "plan": {"token": "\x1b[2J", "expires_at": "now"}}).encode()
    with SinkServer(Say(200, {"ce-type": "x"}, body)) as server:
        assert cli.main(["send", "--url", server.url, "--stop", "--server", CI_07]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "approve" not in out


def test_the_results_of_a_batch_are_printed(fleet_function: Function, capsys: pytest.CaptureFixture[str]) -> None:
    """One after the other."""
    assert cli.main(["send", "--url", fleet_function.url, "--dry-run", str(_SAMPLES / "batch.json")]) == 0
    out = capsys.readouterr().out
    assert "Event 2 of 2" in out
    assert out.splitlines()[-1] == "3 servers: 2 would be stopped, 1 unchanged."


def test_json_is_one_object(fleet_function: Function, capsys: pytest.CaptureFixture[str]) -> None:
    """With what is known of the delivery, and the result's data."""
    assert cli.main(["send", "--url", fleet_function.url, "--dry-run", "--server", CI_08, "--json"]) == 0
    printed = capsys.readouterr()
    document = json.loads(printed.out)
    assert printed.err == ""
    assert (document["delivery"], document["status"], document["problem"]) == ("taken", 200, None)
    assert [event["dry_run"] for event in document["events"]] == [True]
    assert [row["outcome"] for row in document["results"][0]["servers"]] == ["planned"]


@pytest.mark.parametrize(
    ("answer", "code", "delivery"),
    [
        (Say(200), 0, "taken"),
        (Say(202), 0, "taken"),
        (Say(200, {"ce-type": "x"}, b"[]"), 0, "taken"),
        (Say(200, {"Content-Type": "application/cloudevents-batch+json"}, b'[1, {"data": 2}]'), 0, "taken"),
        (_problem(400), 3, "refused"),
        (Say(401), 3, "refused"),
        (Say(302, {"Location": "http://127.0.0.1:9/"}), 3, "refused"),
        (_problem(503, "budget-spent"), 4, "not-handled"),
        (Say(503, {}, b"<html>"), 4, "not-handled"),
        (Say(500), 4, "unknown"),
        (Say(504), 4, "unknown"),
        (Say(0), 4, "unknown"),
    ],
)
def test_the_exit_code_says_what_is_known(
    answer: Say, code: int, delivery: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """An event is posted once, whatever the answer."""
    with SinkServer(answer) as sink:
        assert cli.main(["send", "--url", sink.url, "--stop", "--server", CI_07, "--json"]) == code
    assert len(sink.got) == 1
    assert json.loads(capsys.readouterr().out)["delivery"] == delivery


def test_a_problem_document_is_printed_with_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    """Title, detail and violations; nothing in them is a command to the terminal."""
    with SinkServer(_problem(400)) as sink:
        assert cli.main(["send", "--url", sink.url, "--stop", "--server", CI_07]) == 3
    err = capsys.readouterr().err
    for words in (
        "Title",
        r"A \x1b[2J detail.",
        "data.server_ids[0]: must be a UUID",
        "bms-autostop explain bad-event",
    ):
        assert words in err


def test_nothing_in_a_result_reaches_the_terminal_as_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    """Another function may have made it, or a proxy."""
    rows = [{"id": "\x1b[2J", "name": "a\nb", "outcome": "\u202e", "evidence": {"x\ty": {"z": True}}}, "row", {}]
    result = Say(200, {"ce-type": "x"}, json.dumps({"servers": rows, "refusal": None}).encode())
    with SinkServer(result) as sink:
        assert cli.main(["send", "--url", sink.url, "--stop", "--server", CI_07, "-v"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line.isprintable() for line in lines)
    assert r"x\ty.z=yes" in "\n".join(lines)


# --- no answer


def test_a_refused_connection_means_that_nothing_was_sent(capsys: pytest.CaptureFixture[str]) -> None:
    """It can be sent again."""
    assert cli.main(["send", "--url", f"http://127.0.0.1:{free_port()}", "--stop", "--server", CI_07]) == 4
    assert "nothing was sent: Connection refused." in capsys.readouterr().err


def test_a_name_without_an_address_means_that_nothing_was_sent(capsys: pytest.CaptureFixture[str]) -> None:
    """As a misspelt host."""
    assert cli.main(["send", "--url", "http://nowhere.invalid/", "--stop", "--server", CI_07]) == 4
    assert "nothing was sent: no address for the host name." in capsys.readouterr().err


def test_a_certificate_that_is_not_trusted_means_that_nothing_was_sent(
    tls: ssl.SSLContext, capsys: pytest.CaptureFixture[str]
) -> None:
    """The event is not shown to that host."""
    with SinkServer(tls=tls) as sink:
        assert cli.main(["send", "--url", sink.url, "--stop", "--server", CI_07]) == 4
    assert "nothing was sent: the certificate is not trusted" in capsys.readouterr().err
    assert sink.got == []


def test_after_a_time_out_it_is_not_known_whether_it_was_taken(capsys: pytest.CaptureFixture[str]) -> None:
    """The servers may have lost their power by then."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        accepted: list[Any] = []
        thread = threading.Thread(target=lambda: accepted.append(server.accept()))
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        assert cli.main(["send", "--url", url, "--stop", "--server", CI_07, "--timeout", "1"]) == 4
        thread.join()
        accepted[0][0].close()
    err = capsys.readouterr().err
    assert "It is not known whether the event was taken: servers may be stopped." in err
    assert "event: " in err


def test_no_redirect_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The token would be sent to another host."""
    monkeypatch.setenv("AUTOSTOP_SINK_TOKEN", "secret-token-of-this-test")
    headers: Mapping[str, str]
    with SinkServer() as elsewhere:
        headers = {"Location": elsewhere.url}
        with SinkServer(Say(307, headers)) as sink:
            assert cli.main(["send", "--url", sink.url, "--stop", "--server", CI_07]) == 3
    assert elsewhere.got == []
