"""A sink over real HTTP that answers as told and writes down what it gets."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


@dataclass(frozen=True)
class Say:
    """One answer of the sink. Status 0 cuts the connection instead."""

    status: int = 202
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True)
class Got:
    """One request that the sink got; header names in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def data(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class SinkServer:
    """Says each of `answers` once, then 202 to everything.

    Args:
        together: so many requests must be there before any is answered.
        tls: how it serves https, as localhost; None for http.
    """

    def __init__(self, *answers: Say, together: int = 1, tls: ssl.SSLContext | None = None) -> None:
        crowd = threading.Barrier(together, timeout=10)
        self.got: list[Got] = []
        waiting = list(answers)
        got = self.got
        lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                """Write down, then answer."""
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                with lock:
                    got.append(Got(self.command, self.path, headers, body))
                    said = waiting.pop(0) if waiting else Say()
                crowd.wait()
                if said.status == 0:
                    self.close_connection = True
                    return
                self.send_response_only(said.status)
                for name, value in said.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(said.body)))
                self.end_headers()
                self.wfile.write(said.body)

            do_GET = do_POST

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                """Say nothing of a client that did not trust it."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self._origin = f"http://127.0.0.1:{self._server.server_port}"
        if tls is not None:
            self._origin = f"https://localhost:{self._server.server_port}"
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def url(self) -> str:
        """Where to post to."""
        return f"{self._origin}/results"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
