"""`bms-autostop send`: what is posted, what is printed of the answer, and what is known after each failure."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from pathlib import Path
from typing import Any

import pytest

from handler.demo.fleet import CI_07, CI_08, FLEET
from handler.simulator import Simulator
from tests.cli.conftest import SAMPLES, Run
from tests.conftest import STOP, Function, StartFunction
from tests.support.process import free_port
from tests.support.sink_server import Say, SinkServer

ONE = ("--server", CI_07)


@pytest.fixture
def function(fleet: Simulator, start_function: StartFunction) -> Function:
    """The function, before a cloud with the servers that the samples name."""
    return start_function(fleet)


def _stops(cloud: Simulator) -> dict[str, int]:
    return {server.id: sent for server in FLEET if (sent := cloud.stops_sent(server.id))}


def _problem(status: int, word: str = "bad-event") -> Say:
    document = {"type": f"urn:bms-autostop:problem:{word}", "title": "Title", "detail": "A \x1b[2J detail."}
    document |= {"violations": [{"at": "data.server_ids[0]", "message": "must be a UUID"}]}
    return Say(status, {"Content-Type": "application/problem+json"}, json.dumps(document).encode())


# --- what is sent


@pytest.mark.parametrize(("flag", "dry_run"), [("--dry-run", True), ("--stop", False)])
def test_options_become_a_stop_request(sink: SinkServer, run: Run, flag: str, dry_run: bool) -> None:
    """In structured mode, with an id and a time of its own, and what was asked for."""
    ran = run("send", "--url", sink.url, flag, *ONE, "--reason", "why")
    (got,) = sink.got
    event = got.data
    assert (got.method, got.headers["content-type"]) == ("POST", "application/cloudevents+json")
    assert (event["type"], event["source"], event["specversion"]) == (STOP, "/bms-autostop/cli", "1.0")
    assert event["data"] == {"server_ids": [CI_07], "reason": "why", "dry_run": dry_run}
    assert event["time"].endswith("Z")
    assert (ran.code, f"Event {event['id']} from /bms-autostop/cli" in ran.out) == (0, True)


def test_options_become_a_selector(sink: SinkServer, run: Run) -> None:
    """With those parts that are given."""
    options = ["--name", "ci-*", "--tag", "env=ci", "--metadata", "team=build", "--metadata", "empty="]
    assert run("send", "--url", sink.url, "--dry-run", *options).code == 0
    selector = {"name": "ci-*", "tags": ["env=ci"], "metadata": {"team": "build", "empty": ""}}
    assert sink.got[0].data["data"] == {"selector": selector, "dry_run": True}


@pytest.mark.parametrize("sample", ["schedule.json", "schedule-binary.json", "batch.json", "subject-only.json"])
def test_a_file_is_sent_as_a_dry_run_in_its_own_mode(sink: SinkServer, run: Run, sample: str) -> None:
    """Nothing but `dry_run` is changed."""
    assert run("send", "--url", sink.url, "--dry-run", str(SAMPLES / sample)).code == 0
    original, (got,) = json.loads((SAMPLES / sample).read_text()), sink.got
    if sample == "schedule-binary.json":
        assert got.headers["ce-id"] == original["headers"]["Ce-Id"]
        assert got.data == {**json.loads(original["body"]), "dry_run": True}
        return
    events, sent = (one if isinstance(one, list) else [one] for one in (original, got.data))
    assert sent == [{**event, "data": {**event.get("data", {}), "dry_run": True}} for event in events]


def test_a_file_is_sent_byte_by_byte_for_a_stop(sink: SinkServer, run: Run) -> None:
    """Nothing is changed."""
    assert run("send", "--url", sink.url, "--stop", str(SAMPLES / "schedule.json")).code == 0
    assert sink.got[0].body == (SAMPLES / "schedule.json").read_bytes()


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
    sink: SinkServer, run: Run, tmp_path: Path, flag: str, event: str | dict[str, Any], code: int, words: str
) -> None:
    """Nor what contradicts the command line; an event is parsed here as the function parses it."""
    file = tmp_path / "event.json"
    if isinstance(event, dict):
        event = json.dumps({"specversion": "1.0", "id": "1", "source": "/t", "type": STOP, **event})
    file.write_text((SAMPLES / event).read_text() if event.endswith(".json") else event)
    ran = run("send", "--url", sink.url, flag, str(file))
    assert (ran.code, words in ran.err, sink.got) == (code, True, [])


@pytest.mark.parametrize(
    "options",
    [
        ["--name", "ci-*"],
        ["--dry-run"],
        ["--dry-run", "--name", "ci-*", *ONE],
        ["--dry-run", "--name", "ci-*", "--url", "ftp://127.0.0.1/"],
        ["--dry-run", "--name", "ci-*", "--url", "http://user:secret@127.0.0.1/"],
    ],
)
def test_a_wrong_command_line_ends_with_2(sink: SinkServer, run: Run, options: list[str]) -> None:
    """Without --dry-run or --stop nothing is sent, so that no power is cut because a word was left out."""
    ran = run("send", *([] if "--url" in options else ["--url", sink.url]), *options)
    assert ran.err.startswith("Usage: bms-autostop send")
    assert (ran.code, sink.got) == (2, [])


# --- the token


def test_the_token_comes_from_the_environment_or_a_file(
    sink: SinkServer, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file goes before the environment; without either no token is sent."""
    file = tmp_path / "token"
    file.write_text("from-the-file\n")
    send = ["send", "--url", sink.url, "--dry-run", *ONE]
    assert run(*send).code == 0
    monkeypatch.setenv("AUTOSTOP_SINK_TOKEN", "from-the-environment")
    assert run(*send).code == run(*send, "--token-file", str(file)).code == 0
    tokens = [got.headers.get("authorization") for got in sink.got]
    assert tokens == [None, "Bearer from-the-environment", "Bearer from-the-file"]


@pytest.mark.parametrize("content", [None, "", "two words", "line\nbreak"])
def test_a_file_without_a_token_ends_with_2(sink: SinkServer, run: Run, tmp_path: Path, content: str | None) -> None:
    """Nothing is sent without it, and its content is not printed."""
    file = tmp_path / "token"
    if content is not None:
        file.write_text(content)
    ran = run("send", "--url", sink.url, "--dry-run", *ONE, "--token-file", str(file))
    assert (ran.code, str(file) in ran.err, "two words" in ran.err, sink.got) == (2, True, False, [])


# --- the answer


@pytest.mark.parametrize(
    ("servers", "names"),
    [(["--name", "ci-0*"], ["NAME", "ci-07", "ci-08", "ci-09"]), ([str(SAMPLES / "batch.json")], None)],
    ids=["one event", "batch"],
)
def test_the_results_are_printed(function: Function, run: Run, servers: list[str], names: list[str] | None) -> None:
    """From a real function: rows as `plan` prints them, one event after the other, the summary last."""
    ran = run("send", "--url", function.url, "--dry-run", *servers)
    lines = ran.out.splitlines()
    assert (ran.code, lines[-1]) == (0, "3 servers: 2 would be stopped, 1 unchanged.")
    if names is None:
        assert "Event 2 of 2" in lines
    else:
        assert lines[1] == "HTTP 200: The event was handled."
        assert [line.split()[0] for line in lines[2:-1]] == names


def test_a_stop_is_a_stop(cloud: Simulator, function: Function, run: Run) -> None:
    """And no other server is touched."""
    ran = run("send", "--url", function.url, "--stop", *ONE)
    assert (ran.code, "stopped/confirmed" in ran.out, _stops(cloud)) == (0, True, {CI_07: 1})


@pytest.fixture
def planning(fleet: Simulator, start_function: StartFunction) -> Function:
    """The function, which asks for an approval of every stop."""
    return start_function(fleet, AUTOSTOP_APPROVAL="always", AUTOSTOP_APPROVAL_KEYS="k" * 32)


def test_a_plan_is_printed_with_the_command_that_approves_it(
    cloud: Simulator, planning: Function, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The token is in one line, however narrow the terminal; the command does what it says."""
    monkeypatch.setenv("COLUMNS", "60")
    *lines, command, summary = run("send", "--url", planning.url, "--stop", *ONE).out.splitlines()
    assert summary == "1 server: 1 would be stopped."
    assert command.startswith(f"bms-autostop approve --url {planning.url} --as SYSTEM:ID ")
    assert "another person than the requester" in " ".join(lines[-3:])
    assert _stops(cloud) == {}
    assert "1 server: 1 stopped." in run(*command.replace("SYSTEM:ID", "slack:T1/U2").split()[1:]).out


def test_a_token_that_could_control_the_terminal_is_not_printed(run: Run) -> None:
    """It is printed as it is, so it must be one."""
    body = json.dumps({"servers": [], "plan": {"token": "\x1b[2J", "expires_at": "now"}}).encode()
    with SinkServer(Say(200, {"ce-type": "x"}, body)) as server:
        ran = run("send", "--url", server.url, "--stop", *ONE)
    assert (ran.code, "\x1b" in ran.out, "approve" in ran.out) == (0, False, False)


def test_json_is_one_object(function: Function, run: Run) -> None:
    """With what is known of the delivery, and the result's data."""
    ran = run("send", "--url", function.url, "--dry-run", "--server", CI_08, "--json")
    document = json.loads(ran.out)
    assert (ran.code, ran.err) == (0, "")
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
def test_the_exit_code_says_what_is_known(run: Run, answer: Say, code: int, delivery: str) -> None:
    """An event is posted once, whatever the answer."""
    with SinkServer(answer) as sink:
        ran = run("send", "--url", sink.url, "--stop", *ONE, "--json")
    assert (ran.code, json.loads(ran.out)["delivery"], len(sink.got)) == (code, delivery, 1)


def test_a_problem_document_is_printed_with_what_to_do(run: Run) -> None:
    """Title, detail and violations; nothing in them is a command to the terminal."""
    with SinkServer(_problem(400)) as sink:
        err = run("send", "--url", sink.url, "--stop", *ONE).err
    for words in (
        "Title",
        r"A \x1b[2J detail.",
        "data.server_ids[0]: must be a UUID",
        "bms-autostop explain bad-event",
    ):
        assert words in err


def test_nothing_in_a_result_reaches_the_terminal_as_a_command(run: Run) -> None:
    """Another function may have made it, or a proxy."""
    rows = [{"id": "\x1b[2J", "name": "a\nb", "outcome": "\u202e", "evidence": {"x\ty": {"z": True}}}, "row", {}]
    result = Say(200, {"ce-type": "x"}, json.dumps({"servers": rows, "refusal": None}).encode())
    with SinkServer(result) as sink:
        lines = run("send", "--url", sink.url, "--stop", *ONE, "-v").out.splitlines()
    assert all(line.isprintable() for line in lines)
    assert r"x\ty.z=yes" in "\n".join(lines)


# --- no answer


@pytest.mark.parametrize(
    ("url", "why"),
    [("http://127.0.0.1:{port}", "Connection refused."), ("http://nowhere.invalid/", "no address for the host name.")],
)
def test_without_a_connection_nothing_was_sent(run: Run, url: str, why: str) -> None:
    """It can be sent again."""
    ran = run("send", "--url", url.format(port=free_port()), "--stop", *ONE)
    assert (ran.code, f"nothing was sent: {why}" in ran.err) == (4, True)


def test_a_certificate_that_is_not_trusted_means_that_nothing_was_sent(tls: ssl.SSLContext, run: Run) -> None:
    """The event is not shown to that host."""
    with SinkServer(tls=tls) as sink:
        ran = run("send", "--url", sink.url, "--stop", *ONE)
    assert "nothing was sent: the certificate is not trusted" in ran.err
    assert (ran.code, sink.got) == (4, [])


def test_after_a_time_out_it_is_not_known_whether_it_was_taken(run: Run) -> None:
    """The servers may have lost their power by then."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        accepted: list[Any] = []
        thread = threading.Thread(target=lambda: accepted.append(server.accept()))
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        ran = run("send", "--url", url, "--stop", *ONE, "--timeout", "1")
        thread.join()
        accepted[0][0].close()
    assert "It is not known whether the event was taken: servers may be stopped." in ran.err
    assert (ran.code, "event: " in ran.err) == (4, True)


def test_no_redirect_is_followed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The token would be sent to another host."""
    monkeypatch.setenv("AUTOSTOP_SINK_TOKEN", "secret-token-of-this-test")
    with SinkServer() as elsewhere, SinkServer(Say(307, {"Location": elsewhere.url})) as sink:
        assert run("send", "--url", sink.url, "--stop", *ONE).code == 3
    assert elsewhere.got == []
