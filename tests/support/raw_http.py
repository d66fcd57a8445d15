"""The function as it runs in production, gunicorn and all, and bytes on a socket to it."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from handler.simulator import Simulator
from tests.support.process import HANG, ServerProcess, environment, free_port, function_command

MAX_BODY = 4096
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3}) ")


class FunctionProcess(ServerProcess):
    """A process that serves one target in front of a cloud, with small limits, and raw HTTP to it.

    Args:
        folder: for its log.
        environ: further settings.
        options: as in `ServerProcess`.
    """

    def __init__(
        self,
        cloud: Simulator,
        folder: Path,
        target: str = "stop_servers",
        *,
        environ: Mapping[str, str] | None = None,
        **options: Any,
    ) -> None:
        port = free_port()
        settings = {
            "THREADS": "8",
            "AUTOSTOP_INBOUND_AUTH": "none",
            "AUTOSTOP_WAIT": "5s",
            "AUTOSTOP_MAX_BODY": str(MAX_BODY),
            **cloud.environ(),
            **(environ or {}),
        }
        command = function_command(port, target)
        super().__init__(command, environment(**settings), folder / "function.log", port=port, **options)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), HANG)

    def exchange(self, sent: bytes) -> bytes:
        """Send these bytes and the end of the stream, and return all that comes back."""
        with self.connect() as line:
            try:
                line.sendall(sent)
                line.shutdown(socket.SHUT_WR)
            except TimeoutError:
                raise
            except OSError:
                # It may have answered already, and have closed the connection.
                pass
            return rest(line)


def rest(line: socket.socket) -> bytes:
    """Return all that still comes on a connection."""
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
    """Build an HTTP/1.1 request; Content-Length is added if there is a body and no length or coding is given."""
    wanted = {"Host": "function.example", **(headers or {})}
    if body is not None and not {"Content-Length", "Transfer-Encoding"} & set(wanted):
        wanted["Content-Length"] = str(len(body))
    head = "".join(f"{name}: {value}\r\n" for name, value in wanted.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + (body or b"")


def statuses(answer: bytes) -> list[int]:
    """Return the status of each response."""
    return [int(found) for found in _STATUS.findall(answer)]


def problem(answer: bytes) -> Any:
    """Return the problem document of the only response."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"\r\ncontent-type: application/problem+json\r\n" in head.lower() + b"\r\n"
    return json.loads(body)
