"""The function as it runs in production, gunicorn and all, and bytes on a socket to it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from handler.simulator import Simulator

ROOT = Path(__file__).parent.parent.parent
HANG = 10.0
MAX_BODY = 4096
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3}) ")


def environment(**wanted: str) -> dict[str, str]:
    """An environment with nothing of the person who runs the tests in it."""
    # The tree that the tests stand in goes before whatever is installed.
    base = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "THREADS": "8"}
    return {**base, **wanted}


def command(port: int, target: str = "stop_servers") -> list[str]:
    """The command line of the function."""
    tool = Path(sys.executable).parent / "functions-framework"
    source = str(ROOT / "handler" / "main.py")
    return [str(tool), "--source", source, "--target", target, "--host", "127.0.0.1", "--port", str(port)]


class Wire:
    """Raw HTTP to one running function."""

    def __init__(self, port: int, log: IO[bytes], pid: int) -> None:
        self.port = port
        self.pid = pid
        self._log = log

    def connect(self) -> socket.socket:
        """A connection on which everything that hangs becomes an error."""
        return socket.create_connection(("127.0.0.1", self.port), HANG)

    def exchange(self, sent: bytes) -> bytes:
        """Send these bytes, say that no more will come, and return all that comes back."""
        with self.connect() as line:
            try:
                line.sendall(sent)
                line.shutdown(socket.SHUT_WR)
            except TimeoutError:
                raise
            except OSError:
                # It may have heard enough already, and have closed the line.
                pass
            return rest(line)

    def log_lines(self) -> list[dict[str, Any]]:
        """What the function has logged so far; each line has to be JSON."""
        return [json.loads(line) for line in self.output().splitlines()]

    def output(self) -> str:
        """Everything that the process has written to stdout and stderr."""
        self._log.seek(0)
        return self._log.read().decode()


def rest(line: socket.socket) -> bytes:
    """All that still comes on a connection."""
    parts = []
    try:
        while part := line.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def request(
    method: str = "POST", path: str = "/", headers: Mapping[str, str] | None = None, body: bytes | None = None
) -> bytes:
    """One HTTP/1.1 request; Content-Length is added if there is a body and no length or coding is given."""
    wanted = {"Host": "function.example", **(headers or {})}
    if body is not None and not {"Content-Length", "Transfer-Encoding"} & set(wanted):
        wanted["Content-Length"] = str(len(body))
    head = "".join(f"{name}: {value}\r\n" for name, value in wanted.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + (body or b"")


def statuses(answer: bytes) -> list[int]:
    """The status of each answer in what came back."""
    return [int(found) for found in _STATUS.findall(answer)]


def problem(answer: bytes) -> Any:
    """The problem document of the one answer in what came back."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"\r\ncontent-type: application/problem+json\r\n" in head.lower() + b"\r\n"
    return json.loads(body)


@contextmanager
def running(
    cloud: Simulator,
    folder: Path,
    ended_by: signal.Signals = signal.SIGINT,
    target: str = "stop_servers",
    **environ: str,
) -> Iterator[Wire]:
    """Run the function in a process of its own, in front of this cloud."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    wanted = {
        "AUTOSTOP_INBOUND_AUTH": "none",
        "AUTOSTOP_WAIT": "5s",
        "AUTOSTOP_MAX_BODY": str(MAX_BODY),
        **cloud.environ(),
        **environ,
    }
    with (folder / "function.log").open("w+b") as log:
        process = subprocess.Popen(
            command(port, target), env=environment(**wanted), stdout=log, stderr=subprocess.STDOUT
        )
        wire = Wire(port, log, process.pid)
        try:
            _await_start(process, wire)
            yield wire
        finally:
            # SIGINT is gunicorn's quick way out; SIGTERM waits for connections to end.
            process.send_signal(ended_by)
            try:
                process.wait(HANG)
            finally:
                process.kill()


def _await_start(process: subprocess.Popen[bytes], wire: Wire) -> None:
    for _ in range(600):
        try:
            if statuses(wire.exchange(request("GET", "/healthz"))) == [200]:
                return
        except ConnectionError:
            pass
        try:
            process.wait(0.05)
        except subprocess.TimeoutExpired:
            continue
        break
    raise AssertionError(f"the function did not start: {wire.output()}")
