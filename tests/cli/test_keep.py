"""`bms-autostop keep`: what is posted, and what the exit code says of it."""

from __future__ import annotations

import json

import pytest

from handler import cli
from handler.demo.fleet import CI_07
from handler.simulator import Simulator
from tests.cli.conftest import free_port
from tests.conftest import KEEP, Function, StartFunction
from tests.support.sink_server import Say, SinkServer

KEY = "autostop-keep-until"


@pytest.fixture
def keep(cloud: Simulator, start_keep: StartFunction) -> Function:
    """The function before a cloud."""
    return start_keep(cloud)


def test_options_become_a_keep_request() -> None:
    """In structured mode, with an id and a time of its own."""
    with SinkServer() as sink:
        options = ["--reason", "why", "--requested-by", "job 7"]
        assert cli.main(["keep", "--url", sink.url, "--server", CI_07, "--for", "2h", *options]) == 0
        assert cli.main(["keep", "--url", sink.url, "--tag", "ci", "--until", "2026-12-24T08:00:00+01:00"]) == 0
        assert cli.main(["keep", "--url", sink.url, "--server", CI_07, "--release", "--dry-run"]) == 0
    first, second, third = (got.data for got in sink.got)
    assert (first["type"], first["source"]) == (KEEP, "/bms-autostop/cli")
    assert first["data"] == {
        "server_ids": [CI_07],
        "for": "2h",
        "reason": "why",
        "requested_by": "job 7",
        "dry_run": False,
    }
    assert second["data"] == {"selector": {"tags": ["ci"]}, "until": "2026-12-24T08:00:00+01:00", "dry_run": False}
    assert third["data"] == {"server_ids": [CI_07], "release": True, "dry_run": True}


def test_a_lease_is_taken_and_given_back(cloud: Simulator, keep: Function, capsys: pytest.CaptureFixture[str]) -> None:
    """The rows are printed, and a summary."""
    server = cloud.add_server("db-1")
    assert cli.main(["keep", "--url", keep.url, "--server", server, "--for", "1h"]) == 0
    until = cloud.server(server).metadata[KEY]
    out = capsys.readouterr().out
    assert f"kept/kept: It is kept until {until}." in " ".join(out.split())
    assert out.endswith("1 server: 1 kept.\n")
    assert cli.main(["keep", "--url", keep.url, "--server", server, "--release"]) == 0
    assert KEY not in cloud.server(server).metadata
    assert capsys.readouterr().out.endswith("1 server: 1 released.\n")


def test_a_dry_run_says_so(cloud: Simulator, keep: Function, capsys: pytest.CaptureFixture[str]) -> None:
    """Not that servers would be stopped."""
    assert cli.main(["keep", "--url", keep.url, "--server", cloud.add_server(), "--for", "1h", "--dry-run"]) == 0
    assert capsys.readouterr().out.endswith("1 server: 1 would be changed.\n")


def test_a_server_that_is_not_kept_is_an_exit_code(
    cloud: Simulator, keep: Function, capsys: pytest.CaptureFixture[str]
) -> None:
    """1 for a failed row, 3 for what is refused, as a script needs it."""
    locked = cloud.add_server(locked=True)
    assert cli.main(["keep", "--url", keep.url, "--server", locked, "--for", "1h"]) == 1
    assert "is locked" in capsys.readouterr().out
    assert cli.main(["keep", "--url", keep.url, "--server", locked, "--for", "25h"]) == 3
    assert "AUTOSTOP_MAX_KEEP" in capsys.readouterr().err
    assert cli.main(["keep", "--url", keep.url, "--server", locked, "--until", "2001-01-01T00:00:00Z"]) == 3
    assert "expired" in capsys.readouterr().out
    assert cli.main(["keep", "--url", keep.url, "--server", locked, "--for", "1h", "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["results"][0]["servers"][0]["reason"] == "conflict"


@pytest.mark.parametrize(("status", "code"), [(503, 4), (500, 4), (403, 3), (202, 0)])
def test_the_answer_decides(status: int, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    """And after a failure it is safe to ask again."""
    with SinkServer(Say(status)) as sink:
        assert cli.main(["keep", "--url", sink.url, "--server", CI_07, "--for", "1h"]) == code
    shown = capsys.readouterr()
    assert ("Sending it again is safe" in shown.err) is (status == 500)
    assert "servers may be stopped" not in shown.out + shown.err


def test_no_function_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing was sent."""
    url = f"http://127.0.0.1:{free_port()}/"
    assert cli.main(["keep", "--url", url, "--server", CI_07, "--for", "1h"]) == 4
    assert "nothing was sent" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "One of --for, --until and --release must be given."),
        (["--for", "1h", "--release"], "One of --for, --until and --release must be given."),
        (["--for", "an hour"], "must be a duration such as 30m, 2h or 1d"),
        (["--until", "tomorrow"], "must be an RFC 3339 time with a zone"),
        (["--until", "2026-12-24T08:00:00"], "must be an RFC 3339 time with a zone"),
        (["--for", "1h", "--server", "db-1"], "must be the UUID of a server"),
        (["--for", "1h", "--tag", "ci"], "Name the servers"),
        (["--for", "1h", "--token-file", "/nowhere"], "Cannot read"),
    ],
)
def test_a_wrong_command_line_sends_nothing(options: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2."""
    with SinkServer() as sink:
        assert cli.main(["keep", "--url", sink.url, "--server", CI_07, *options]) == 2
    assert sink.got == []
    assert words in capsys.readouterr().err


def test_a_selector_that_means_all_is_not_sent(capsys: pytest.CaptureFixture[str]) -> None:
    """As the function would refuse it."""
    with SinkServer() as sink:
        assert cli.main(["keep", "--url", sink.url, "--name", "*", "--for", "1h"]) == 3
    assert sink.got == []
    assert "data.selector.name" in capsys.readouterr().err
