"""What the tests of the command share: a login in the environment, and processes of the command."""

from __future__ import annotations

import signal
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import pytest

from handler import cli
from handler.demo.fleet import FLEET, add
from handler.simulator import Simulator
from tests.conftest import ROOT
from tests.inbound.webhooks.fake_smn import as_pem, certificate, new_key
from tests.support.sink_server import SinkServer

SAMPLES = ROOT / "events" / "samples" / "in"


class Ran(NamedTuple):
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command in this process. A function that logs must be started before this fixture."""

    def run(*arguments: str) -> Ran:
        return Ran(cli.main(arguments), *capsys.readouterr())

    return run


@pytest.fixture
def sink() -> Iterator[SinkServer]:
    """A broker that takes everything."""
    with SinkServer() as server:
        yield server


@pytest.fixture
def fleet(cloud: Simulator) -> Simulator:
    """The cloud, with the servers that the samples name."""
    for server in FLEET:
        add(cloud, server)
    return cloud


@pytest.fixture
def login(cloud: Simulator, monkeypatch: pytest.MonkeyPatch) -> Simulator:
    """The cloud, with a login to it in the environment and nothing else."""
    for name, value in cloud.environ().items():
        monkeypatch.setenv(name, value)
    return cloud


@pytest.fixture(autouse=True)
def _width(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines are as long as texts are, so that a test can look for a sentence."""
    monkeypatch.setenv("COLUMNS", "400")


@pytest.fixture
def tls(tmp_path: Path) -> ssl.SSLContext:
    """Return what serves https with a certificate that is not trusted."""
    key = new_key()
    (tmp_path / "cert.pem").write_bytes(certificate(key, datetime.now(UTC) - timedelta(days=1), host="localhost"))
    (tmp_path / "key.pem").write_bytes(as_pem(key))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    return context


def start(*arguments: str, env: Mapping[str, str]) -> subprocess.Popen[str]:
    """Start the command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "handler.cli", *arguments],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell makes its background jobs ignore it, and what they start; these tests may be such a job.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def signalled(command: subprocess.Popen[str], number: signal.Signals) -> tuple[int, str]:
    """Send a signal; return the exit code and what was printed on standard error."""
    command.send_signal(number)
    _, err = command.communicate(timeout=20)
    return command.returncode, err
