"""Servers in processes of their own: the function as it runs in production, and programs beside it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import requests

ROOT = Path(__file__).parent.parent.parent
MAIN = ROOT / "handler" / "main.py"
HANG = 10.0
"""Seconds after which something that should have come at once is taken to hang."""
_START_TIMEOUT = 60.0


def environment(**wanted: str) -> dict[str, str]:
    """Return an environment with nothing of the user's but `PATH`, with these variables added.

    All processes import this source tree and share one bytecode cache, which `make clean` deletes.
    """
    shared = {"PYTHONPATH": str(ROOT), "PYTHONPYCACHEPREFIX": str(ROOT / "build" / "pycache")}
    return {"PATH": os.environ["PATH"], **shared, **wanted}


def free_port() -> int:
    """Return a port of 127.0.0.1 on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def in_use(port: int) -> bool:
    """Say whether something on this machine accepts connections on a port."""
    with socket.socket() as client:
        client.settimeout(1)
        return client.connect_ex(("127.0.0.1", port)) == 0


def function_command(
    port: int, target: str = "stop_servers", *, source: Path = MAIN, python: str = sys.executable
) -> list[str]:
    """Return the command line that serves a target on 127.0.0.1, as in production."""
    served = ["--source", str(source), "--target", target, "--host", "127.0.0.1", "--port", str(port)]
    return [python, "-m", "functions_framework", *served]


class ServerProcess:
    """A program that listens on a port; as a context manager, from when it answers to the end of the block.

    Args:
        command: its command line.
        environ: its whole environment.
        log: file to which stdout and stderr are appended.
        stdout: as in `subprocess.Popen`, in place of the log.
        ready: path at which it answers 200 once it is ready.
        port: on which it listens.
        ended_by: signal that ends the block; SIGINT ends gunicorn without waiting for connections.
    """

    def __init__(
        self,
        command: Sequence[str],
        environ: Mapping[str, str],
        log: Path,
        *,
        port: int,
        stdout: int | None = None,
        ready: str = "/healthz",
        ended_by: signal.Signals = signal.SIGINT,
    ) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self._command, self._environ, self._ready, self._ended_by = list(command), dict(environ), ready, ended_by
        self._log, self._stdout = log, stdout
        self._popen: subprocess.Popen[bytes] | None = None

    @property
    def popen(self) -> subprocess.Popen[bytes]:
        assert self._popen is not None
        return self._popen

    @property
    def pid(self) -> int:
        """The id of the process; gunicorn's child does the work."""
        return self.popen.pid

    def start(self) -> None:
        """Start it; it need not listen yet."""
        with self._log.open("ab") as log:
            stdout = log if self._stdout is None else self._stdout
            self._popen = subprocess.Popen(self._command, env=self._environ, stdout=stdout, stderr=log, cwd=ROOT)

    def wait_until_ready(self) -> None:
        """Wait until it answers 200.

        Raises:
            AssertionError: it ended, or did not answer so in time.
        """
        deadline = time.monotonic() + _START_TIMEOUT
        with requests.Session() as session:
            # Proxies of the environment do not lead to this machine.
            session.trust_env = False
            while True:
                with suppress(requests.ConnectionError):
                    if session.get(f"{self.url}{self._ready}", timeout=HANG, headers={"Connection": "close"}).ok:
                        return
                assert self.popen.poll() is None, self.output()
                assert time.monotonic() < deadline, self.output()
                time.sleep(0.02)

    def restart(self) -> None:
        """Start it, also after it has ended, and wait until it is ready."""
        self.start()
        self.wait_until_ready()

    def kill(self) -> None:
        """Kill it and its children, and wait until nothing listens on its port."""
        if self._popen is None:
            return
        if self._popen.poll() is None:
            # Or gunicorn would start another child in place of the first.
            self._popen.send_signal(signal.SIGSTOP)
            for child in children(self._popen.pid):
                with suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            self._popen.kill()
            self._popen.wait()
            deadline = time.monotonic() + _START_TIMEOUT
            while in_use(self.port):
                assert time.monotonic() < deadline, f"something still listens on port {self.port}"
                time.sleep(0.005)
        if self._popen.stdout is not None:
            self._popen.stdout.close()

    def stop(self, ended_by: signal.Signals = signal.SIGTERM, timeout: float = 30.0) -> int:
        """Ask it to end, by default as a platform does; return the exit code."""
        self.popen.send_signal(ended_by)
        return self.popen.wait(timeout)

    def output(self) -> str:
        return self._log.read_text()

    def log_lines(self) -> list[dict[str, Any]]:
        """Return the lines of the log, each of which must be JSON."""
        return [json.loads(line) for line in self.output().splitlines()]

    def __enter__(self) -> Self:
        try:
            self.restart()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self.popen.poll() is None:
                self.stop(self._ended_by)
        finally:
            self.kill()


def children(pid: int) -> list[int]:
    """Return the ids of a process's children; none where there is no /proc."""
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in path.read_text().split()] if path.exists() else []
