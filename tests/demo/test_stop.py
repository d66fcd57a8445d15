"""The demo: it shows the real function, and fails if a result is not as expected."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from handler.demo import function as process
from handler.demo import stop
from handler.demo.fleet import CI_07, CI_08, CI_09, DB_01
from handler.demo.function import samples
from handler.demo.stop import SCENARIOS, demo
from handler.simulator import Simulator


def test_every_scenario_is_shown_and_comes_out_as_expected(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the settings nor the proxy of this machine get in the way."""
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("AUTOSTOP_NO_SUCH_THING", "1")
    monkeypatch.setenv("OS_CLOUD", "production")
    assert demo() == 0
    out = capsys.readouterr().out
    flat = " ".join(out.split())
    assert all(" ".join(scenario.title.split()) in flat for scenario in SCENARIOS)
    after = out.partition("The servers after")[2]
    assert f"ci-07   {CI_07}  stopped  stops sent: 1" in after
    assert f"ci-08   {CI_08}  stopped  stops sent: 1" in after
    assert f"ci-09   {CI_09}  stopped  stops sent: 0" in after
    assert f"db-01   {DB_01}  active   stops sent: 0" in after
    assert "refused: too-old" in out
    assert "data.server_ids[1]: " in out
    assert out.splitlines()[-1] == "6 events sent. Everything came out as expected."
    assert "pip install" not in out


@pytest.mark.usefixtures("in_threads")
def test_it_fails_if_a_result_is_not_as_expected(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status, type and rows of a result are each judged, and so is every server that must not be touched."""
    rows = {CI_07: "planned/dry-run", CI_08: "stopped/confirmed"}
    wrong = replace(SCENARIOS[0], status=201, type="stop.failed.v1", rows=rows)
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setattr(stop, "SCENARIOS", (wrong,))
    monkeypatch.setattr("handler.simulator.Simulator.stops_sent", lambda _, server_id: int(server_id == DB_01))
    assert demo() == 1
    violations = capsys.readouterr().out.partition("Not as expected:")[2]
    assert "dry-run.json: HTTP 200 instead of 201" in violations
    assert "dry-run.json: result io.github.bms-autostop.stop.completed.v1 instead of stop.failed.v1" in violations
    assert "instead of {" in violations
    assert "a stop was sent to db-01" in violations


def _stop_servers(cloud: Simulator) -> dict[str, str]:
    return {**cloud.environ(), "AUTOSTOP_INBOUND_AUTH": "none"}


def test_a_function_that_does_not_start_is_an_error(monkeypatch: pytest.MonkeyPatch, cloud: Simulator) -> None:
    """Instead of waiting for it."""
    monkeypatch.setattr(process, "_PACKAGE", Path("/nowhere"))
    with (
        pytest.raises(RuntimeError, match="did not start"),
        process.function("stop_servers", _stop_servers(cloud)),
    ):
        raise AssertionError("it did")


def test_the_samples_are_found_in_a_checkout_and_in_an_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside the package, or inside it; and nowhere else."""
    assert (samples() / "schedule.json").is_file()
    monkeypatch.setattr(process, "_PACKAGE", tmp_path / "handler")
    with pytest.raises(FileNotFoundError, match="not installed"):
        samples()
    inside = tmp_path / "handler" / "_events" / "samples" / "in"
    inside.mkdir(parents=True)
    assert samples() == inside


def test_no_process_is_left_behind(monkeypatch: pytest.MonkeyPatch, cloud: Simulator) -> None:
    """Also when it breaks off in the middle."""
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def start(*arguments: object, **options: object) -> subprocess.Popen[bytes]:
        started.append(popen(*arguments, **options))  # type: ignore[call-overload]
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", start)
    monkeypatch.setattr(process, "_wait_until_up", lambda *_: None)
    with pytest.raises(KeyboardInterrupt), process.function("stop_servers", _stop_servers(cloud)):
        raise KeyboardInterrupt
    (child,) = started
    assert child.poll() is not None
