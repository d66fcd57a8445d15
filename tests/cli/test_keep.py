"""`bms-autostop keep`: what is posted, and the exit code."""

from __future__ import annotations

import json

import pytest

from handler.demo.fleet import CI_07
from handler.simulator import Simulator
from tests.cli.conftest import Run
from tests.conftest import KEEP, Function, StartFunction
from tests.support.process import free_port
from tests.support.sink_server import Say, SinkServer

KEY = "autostop-keep-until"


@pytest.fixture
def keep(cloud: Simulator, start_keep: StartFunction) -> Function:
    """The function before a cloud."""
    return start_keep(cloud)


@pytest.mark.parametrize(
    ("options", "data"),
    [
        (
            ["--server", CI_07, "--for", "2h", "--reason", "why", "--requested-by", "job 7"],
            {"server_ids": [CI_07], "for": "2h", "reason": "why", "requested_by": "job 7", "dry_run": False},
        ),
        (
            ["--tag", "ci", "--until", "2026-12-24T08:00:00+01:00"],
            {"selector": {"tags": ["ci"]}, "until": "2026-12-24T08:00:00+01:00", "dry_run": False},
        ),
        (["--server", CI_07, "--release", "--dry-run"], {"server_ids": [CI_07], "release": True, "dry_run": True}),
    ],
    ids=["for", "until", "release"],
)
def test_options_become_a_keep_request(sink: SinkServer, run: Run, options: list[str], data: dict[str, object]) -> None:
    """In structured mode, with an id and a time of its own."""
    assert run("keep", "--url", sink.url, *options).code == 0
    event = sink.got[0].data
    assert (event["type"], event["source"], event["data"]) == (KEEP, "/bms-autostop/cli", data)


def test_a_lease_is_taken_and_given_back(cloud: Simulator, keep: Function, run: Run) -> None:
    """The rows are printed, and a summary; of a dry run not that servers would be stopped."""
    command = ("keep", "--url", keep.url, "--server", cloud.add_server("db-1", id=CI_07))
    assert run(*command, "--for", "1h", "--dry-run").out.endswith("1 server: 1 would be changed.\n")
    ran = run(*command, "--for", "1h")
    until = cloud.server(CI_07).metadata[KEY]
    assert f"kept/kept: It is kept until {until}." in " ".join(ran.out.split())
    assert (ran.code, ran.out.endswith("1 server: 1 kept.\n")) == (0, True)
    ran = run(*command, "--release")
    assert KEY not in cloud.server(CI_07).metadata
    assert (ran.code, ran.out.endswith("1 server: 1 released.\n")) == (0, True)


def test_a_server_that_is_not_kept_is_an_exit_code(cloud: Simulator, keep: Function, run: Run) -> None:
    """1 for a failed row, 3 for what is refused, as a script needs it."""
    command = ("keep", "--url", keep.url, "--server", cloud.add_server(locked=True))
    ran = run(*command, "--for", "1h")
    assert (ran.code, "is locked" in ran.out) == (1, True)
    ran = run(*command, "--for", "25h")
    assert (ran.code, "AUTOSTOP_MAX_KEEP" in ran.err) == (3, True)
    ran = run(*command, "--until", "2001-01-01T00:00:00Z")
    assert (ran.code, "expired" in ran.out) == (3, True)
    ran = run(*command, "--for", "1h", "--json")
    assert (ran.code, json.loads(ran.out)["results"][0]["servers"][0]["reason"]) == (1, "conflict")


@pytest.mark.parametrize(("status", "code"), [(503, 4), (500, 4), (403, 3), (202, 0)])
def test_the_answer_decides(run: Run, status: int, code: int) -> None:
    """And after a failure it is safe to ask again."""
    with SinkServer(Say(status)) as sink:
        ran = run("keep", "--url", sink.url, "--server", CI_07, "--for", "1h")
    assert (ran.code, "Sending it again is safe" in ran.err) == (code, status == 500)
    assert "servers may be stopped" not in ran.out + ran.err


def test_no_function_is_there(run: Run) -> None:
    """Nothing was sent."""
    ran = run("keep", "--url", f"http://127.0.0.1:{free_port()}/", "--server", CI_07, "--for", "1h")
    assert (ran.code, "nothing was sent" in ran.err) == (4, True)


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ([], 2, "One of --for, --until and --release must be given."),
        (["--for", "1h", "--release"], 2, "One of --for, --until and --release must be given."),
        (["--for", "an hour"], 2, "must be a duration such as 30m, 2h or 1d"),
        (["--until", "tomorrow"], 2, "must be an RFC 3339 time with a zone"),
        (["--until", "2026-12-24T08:00:00"], 2, "must be an RFC 3339 time with a zone"),
        (["--for", "1h", "--server", "db-1"], 2, "must be the UUID of a server"),
        (["--for", "1h", "--server", CI_07, "--tag", "ci"], 2, "Name the servers"),
        (["--for", "1h", "--token-file", "/nowhere"], 2, "Cannot read"),
        # As the function would refuse it.
        (["--for", "1h", "--name", "*"], 3, "data.selector.name"),
    ],
)
def test_a_wrong_command_line_sends_nothing(
    sink: SinkServer, run: Run, options: list[str], code: int, words: str
) -> None:
    """Nor does an event that can never succeed."""
    servers = [] if {"--server", "--name"} & {*options} else ["--server", CI_07]
    ran = run("keep", "--url", sink.url, *servers, *options)
    assert (ran.code, words in ran.err, sink.got) == (code, True, [])
