"""deploy/recipes: each snippet runs with the simulated cloud, with the variables that its caller sets."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
import yaml

from handler import rfc3339
from handler.simulator import Simulator
from tests.conftest import ROOT, StartFunction
from tests.deploy.test_platforms import systemd_messages
from tests.support.blocks import blocks
from tests.support.process import ServerProcess, free_port
from tests.support.sink_server import Say, SinkServer
from tests.test_events_folder import sample

PAGE = ROOT / "deploy" / "recipes" / "keep-lease.md"
SILENCE = ROOT / "deploy" / "recipes" / "alertmanager-silence.md"
BLOCKS = blocks(PAGE)
KEY = "autostop-keep-until"
TOKEN = "token-of-this-test"


def text(heading: str, language: str) -> str:
    """The last block of that language under a heading."""
    return [block.text for block in BLOCKS if block.heading.startswith(heading) and block.language == language][-1]


class Host:
    """A server of the simulated cloud with the files of the recipe, in a folder in place of /etc and /usr/local."""

    def __init__(self, folder: Path, cloud: Simulator, url: str) -> None:
        self._folder = folder
        self._cloud = cloud
        self.id = cloud.add_server("node-1")
        (folder / "server-id").write_text(f"{self.id}\n")
        (folder / "keep.env").write_text(f"KEEP_URL={url}/\nAUTOSTOP_SINK_TOKEN={TOKEN}\n")
        self._program("bms-autostop", f'#!/bin/sh\nexec {sys.executable} -m handler.cli "$@"\n')
        self._program("logger", f'#!/bin/sh\necho "$@" >> {folder}/log\n')
        self._program("bms-keep", text("On each server", "sh").replace("/etc/bms-autostop", str(folder)))

    def _program(self, name: str, script: str) -> None:
        path = self._folder / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(script)
        path.chmod(0o755)

    @property
    def log(self) -> str:
        """What was given to `logger`."""
        path = self._folder / "log"
        return path.read_text() if path.exists() else ""

    @property
    def hours(self) -> float | None:
        """For how long it is kept from now on."""
        until = self._cloud.server(self.id).metadata.get(KEY)
        return None if until is None else (rfc3339.parse(until).timestamp() - time.time()) / 3600

    def run(self, script: str, **variables: str) -> int:
        """Run a script with these variables; return its exit code."""
        environ = {
            "PATH": f"{self._folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "NO_PROXY": "127.0.0.1",
            **variables,
        }
        return subprocess.run(
            ["sh", "-c", script], env=environ, check=False, timeout=60, capture_output=True
        ).returncode


@pytest.fixture
def host(cloud: Simulator, start_keep: StartFunction, tmp_path: Path) -> Host:
    """A server, and keep_servers with a token."""
    keep = start_keep(cloud, AUTOSTOP_INBOUND_AUTH="bearer", AUTOSTOP_BEARER_TOKENS=TOKEN)
    return Host(tmp_path, cloud, keep.url)


@pytest.mark.parametrize(
    ("left", "hours"), [("3600", 1.0), ("172800", 24.0), ("-5", 24.0), (None, 24.0)], ids=["1h", "2d", "past", "unset"]
)
def test_a_slurm_job_keeps_its_node(host: Host, left: str | None, hours: float) -> None:
    """Until its end, or for a day if that is not known or later."""
    end = {"SLURM_JOB_END_TIME": str(int(time.time()) + int(left))} if left is not None else {}
    assert host.run(text("Slurm", "sh"), SLURM_JOB_ID="4711", **end) == 0
    assert host.hours == pytest.approx(hours, abs=0.05)
    assert host.log == ""


def test_a_slurm_job_starts_though_its_node_cannot_be_kept(host: Host, cloud: Simulator) -> None:
    """A prolog that fails would drain the node; the log says so instead."""
    cloud.change(host.id, locked=True)
    assert host.run(text("Slurm", "sh"), SLURM_JOB_ID="4711") == 0
    assert "job 4711 runs on a server that may be stopped" in host.log
    assert host.hours is None


def _directive(unit: str, name: str) -> str:
    (found,) = re.findall(rf"^{name}=(.*)$", unit, re.MULTILINE)
    return str(found).replace("/usr/local/sbin/", "").replace("%n", "compute.service")


def test_a_service_of_systemd_keeps_its_server_while_it_runs(host: Host, cloud: Simulator) -> None:
    """It does not start without."""
    unit = text("systemd", "text")
    assert host.run(_directive(unit, "ExecStartPre")) == 0
    assert host.hours == pytest.approx(12.0, abs=0.05)
    assert host.run(_directive(unit, "ExecStopPost")) == 0
    assert host.hours is None
    cloud.change(host.id, vm_state="error")
    assert host.run(_directive(unit, "ExecStartPre")) != 0


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_the_unit_has_only_directives_of_systemd(tmp_path: Path) -> None:
    """None is misspelt; one that is, is found."""
    unit = tmp_path / "compute.service"
    unit.write_text(text("systemd", "text"))
    assert systemd_messages(unit) == []
    unit.write_text(text("systemd", "text").replace("ExecStopPost", "ExecStopPosts"))
    assert systemd_messages(unit) != []


def test_a_ci_job_keeps_its_server_while_it_runs(host: Host) -> None:
    """For as long as it may run."""
    job = yaml.safe_load(text("A CI job", "yaml"))["integration-tests"]
    assert job["timeout"] == "2 hours"
    assert host.run("\n".join(job["before_script"]), CI_JOB_ID="7") == 0
    assert host.hours == pytest.approx(2.0, abs=0.05)
    assert host.run("\n".join(job["after_script"])) == 0
    assert host.hours is None


# --- an announcement as a silence of Alertmanager

ANNOUNCED = {"ce-type": "io.github.bms-autostop.stop.announced.v1", "Authorization": f"Bearer {TOKEN}"}


@contextmanager
def receiver(folder: Path, alertmanager: str) -> Iterator[str]:
    """The receiver of the page; its URL."""
    (code,) = [block.text for block in blocks(SILENCE) if block.language == "python"]
    script = folder / "autostop-silence"
    script.write_text(code.replace('("", int(', '("127.0.0.1", int('))
    port = free_port()
    environ = {"ALERTMANAGER_URL": alertmanager, "SILENCE_TOKEN": TOKEN, "PORT": str(port)}
    command = [sys.executable, str(script)]
    # A shell that runs jobs in the background makes them ignore SIGINT.
    with ServerProcess(command, environ, folder / "log", port=port, ended_by=signal.SIGTERM) as process:
        yield process.url


def test_an_announcement_becomes_one_silence_that_ends(tmp_path: Path) -> None:
    """Of all its servers, for half an hour; nothing else that comes does anything."""
    data = sample("announce/announced.json")["data"]
    ids = [server["id"] for server in data["servers"]]
    with SinkServer() as alertmanager, receiver(tmp_path, alertmanager.origin) as url:
        for document, changes, status in (
            (data, {}, 204),
            (data, {"ce-type": "io.github.bms-autostop.stop.completed.v1"}, 204),
            (data, {"Authorization": "Bearer another"}, 401),
            ({}, {}, 400),
        ):
            answer = requests.post(url, json=document, headers={**ANNOUNCED, **changes}, timeout=30)
            assert answer.status_code == status
    (got,) = alertmanager.got
    silence = json.loads(got.body)
    assert got.path == "/api/v2/silences"
    assert silence["matchers"] == [{"name": "server_id", "value": "|".join(ids), "isRegex": True, "isEqual": True}]
    length = rfc3339.parse(silence["endsAt"]) - rfc3339.parse(silence["startsAt"])
    assert length.total_seconds() == 1800
    assert data["request"]["id"] in silence["comment"]


def test_a_silence_that_is_not_taken_is_a_503(tmp_path: Path) -> None:
    """So `required` stops nothing."""
    data = sample("announce/announced.json")["data"]
    with SinkServer(Say(500)) as alertmanager, receiver(tmp_path, alertmanager.origin) as url:
        assert requests.post(url, json=data, headers=ANNOUNCED, timeout=30).status_code == 503
