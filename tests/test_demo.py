"""The demo: it shows the real function, and notices by itself when something comes out otherwise."""

from __future__ import annotations

import io
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from handler import demo as demo_module
from handler.demo import CI_07, CI_08, CI_09, DB_01, SCENES, demo, samples
from tests.conftest import StartFunction


def test_the_demo_shows_every_scene_and_ends_well(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the settings nor the proxy of the person who runs it get in the way."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("AUTOSTOP_NO_SUCH_THING", "1")
    monkeypatch.setenv("OS_CLOUD", "production")
    assert demo() == 0
    out = capsys.readouterr().out
    flat = " ".join(out.split())
    assert all(" ".join(scene.title.split()) in flat for scene in SCENES)
    assert "Everything came out as expected." in out
    after = out.partition("The fleet after")[2]
    assert f"ci-07   {CI_07}  stopped  stops sent: 1" in after
    assert f"ci-08   {CI_08}  stopped  stops sent: 1" in after
    assert f"ci-09   {CI_09}  stopped  stops sent: 0" in after
    assert f"db-01   {DB_01}  active   stops sent: 0" in after
    assert "refused: too-old" in out
    assert "data.server_ids[1]: is no UUID" in out


def test_the_demo_fails_if_something_comes_out_otherwise(
    start_function: StartFunction, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Status, type and rows of a result are each judged, and so is every server that must not be touched."""
    rows = {CI_07: ("planned", "dry-run"), CI_08: ("stopped", "confirmed")}
    wrong = replace(SCENES[0], status=201, type="stop.failed.v1", rows=rows)
    monkeypatch.setattr(demo_module, "SCENES", (wrong,))
    monkeypatch.setattr(demo_module, "_function", lambda cloud: nullcontext(f"{start_function(cloud).url}/"))
    monkeypatch.setattr("handler.simulator.Simulator.stops_sent", lambda _, server_id: int(server_id == DB_01))
    monkeypatch.setattr(sys, "stdout", stdout := io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    assert demo() == 1
    stdout.seek(0)
    told = stdout.read().partition("Not as expected:")[2]
    assert "dry-run.json: HTTP 200 instead of 201" in told
    assert "dry-run.json: result io.github.bms-autostop.stop.completed.v1 instead of stop.failed.v1" in told
    assert "instead of {" in told
    assert "a stop was sent to db-01" in told


def test_a_function_that_does_not_start_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Instead of waiting for it."""
    monkeypatch.setattr(demo_module, "_PACKAGE", Path("/nowhere"))
    with (
        demo_module.Simulator() as cloud,
        pytest.raises(RuntimeError, match="did not start"),
        demo_module._function(cloud),
    ):
        raise AssertionError("it did")


def test_the_samples_are_found_in_a_checkout_and_in_an_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside the package, or inside it; and nowhere else."""
    assert (samples() / "schedule.json").is_file()
    monkeypatch.setattr(demo_module, "_PACKAGE", tmp_path / "handler")
    with pytest.raises(FileNotFoundError, match="not installed"):
        samples()
    inside = tmp_path / "handler" / "_events" / "samples" / "in"
    inside.mkdir(parents=True)
    assert samples() == inside


def test_the_demo_leaves_no_process_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when it breaks off in the middle."""
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def start(*arguments: object, **options: object) -> subprocess.Popen[bytes]:
        started.append(popen(*arguments, **options))  # type: ignore[call-overload]
        return started[-1]

    monkeypatch.setattr(demo_module.subprocess, "Popen", start)
    monkeypatch.setattr(demo_module, "_await", lambda *_: None)
    with demo_module.Simulator() as cloud, pytest.raises(KeyboardInterrupt), demo_module._function(cloud):
        raise KeyboardInterrupt
    (process,) = started
    assert process.poll() is not None
