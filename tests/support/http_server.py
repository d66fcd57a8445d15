"""An HTTP server on loopback, from which each test server is made."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


class Handler(BaseHTTPRequestHandler):
    """Handles one request in `do_GET` or `do_POST`, on kept connections and without logging."""

    protocol_version = "HTTP/1.1"

    def read_body(self) -> bytes:
        """Return the body of the request, whose length must be given."""
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def lower_headers(self) -> dict[str, str]:
        return {name.lower(): value for name, value in self.headers.items()}

    def reply(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        """Send a response; `Content-Length` is that of the body unless it is given."""
        self.send_response_only(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Keep quiet about clients that end early, or do not trust the certificate."""


class HttpServer:
    """Serves HTTP on a port of 127.0.0.1 from `__enter__` to `__exit__`.

    Args:
        tls: how it serves https, as `localhost`; None for http.
        port: to listen on; 0 for any that is free.

    Attributes:
        port: on which it listens already.
        origin: scheme, host and port.
    """

    def __init__(self, handler: type[BaseHTTPRequestHandler], tls: ssl.SSLContext | None = None, port: int = 0) -> None:
        self._server = _Server(("127.0.0.1", port), handler)
        self.port = self._server.server_port
        self.origin = f"http://127.0.0.1:{self.port}"
        if tls is not None:
            self.origin = f"https://localhost:{self.port}"
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
