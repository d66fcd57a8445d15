"""The HTTP/1.1 server of the simulated cloud: persistent connections, one thread for each.

`stop` closes each connection and waits for each thread, so that no test leaks a socket or a thread.
"""

import contextlib
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler
from socketserver import BaseServer
from typing import cast

from handler.simulator.cloud import Cloud, Delivery
from handler.simulator.messages import Answer, Request


class Server:
    """Serves the cloud on a port.

    Args:
        cloud: answers the requests.
        host: the address to listen on.
        port: 0 for a free one, which is used again after a `stop`.
        stopping: set while the server shuts down; everything that waits must wait on it.
    """

    def __init__(self, cloud: Cloud, host: str, port: int, stopping: threading.Event) -> None:
        self.cloud = cloud
        self.host = host
        self.port = port
        self.stopping = stopping
        self._listener: socket.socket | None = None
        self._acceptor: threading.Thread | None = None
        self._connections: dict[socket.socket, threading.Thread] = {}
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        """Scheme, host and port, without a slash at the end."""
        return f"http://{self.host}:{self.port}"

    def start(self) -> None:
        """Listen and serve.

        Raises:
            OSError: the port is taken.
            RuntimeError: it listens already.
        """
        if self._listener:
            raise RuntimeError("the simulator runs already")
        self.stopping.clear()
        self._listener = socket.create_server((self.host, self.port), backlog=256)
        self.port = self._listener.getsockname()[1]
        self._acceptor = threading.Thread(target=self._accept, args=(self._listener,), name="simulator", daemon=True)
        self._acceptor.start()

    def stop(self) -> None:
        """Close the port and every connection, and wait for all threads; no error if not started."""
        if self._listener is None or self._acceptor is None:
            return
        self.stopping.set()
        # Closing a listening socket does not wake the thread that waits on it on every platform; a connection does.
        with contextlib.suppress(OSError):
            socket.create_connection((self.host, self.port), timeout=1).close()
        self._acceptor.join()
        self._listener.close()
        self._listener = self._acceptor = None
        with self._lock:
            threads = list(self._connections.values())
            for connection in self._connections:
                _shut(connection)
        for thread in threads:
            thread.join()

    def _accept(self, listener: socket.socket) -> None:
        while not self.stopping.is_set():
            try:
                connection, address = listener.accept()
            except OSError:
                # Out of file descriptors, or the client has disconnected: neither ends the server.
                self.stopping.wait(0.01)
                continue
            thread = threading.Thread(
                target=self._serve, args=(connection, address), name=f"simulator-{address[1]}", daemon=True
            )
            with self._lock:
                self._connections[connection] = thread
            thread.start()

    def _serve(self, connection: socket.socket, address: tuple[str, int]) -> None:
        try:
            # A client that disconnects is expected with several faults, and not an error here.
            with contextlib.suppress(OSError):
                _Connection(connection, address, self)
        finally:
            with self._lock:
                del self._connections[connection]
                _shut(connection)
                connection.close()


class _Connection(BaseHTTPRequestHandler):
    """Handles the requests of one connection in order."""

    protocol_version = "HTTP/1.1"
    server_version = "bms-autostop-simulator"
    sys_version = ""
    disable_nagle_algorithm = True

    def __init__(self, connection: socket.socket, address: tuple[str, int], carrier: Server) -> None:
        self.carrier = carrier
        self.arrived = 0.0
        # The base class only stores its server.
        super().__init__(connection, address, cast(BaseServer, carrier))

    def parse_request(self) -> bool:
        """Record when the request line was received, and read the headers."""
        self.arrived = time.monotonic()
        return super().parse_request()

    def handle_request(self) -> None:
        """Answer the request that was just read."""
        length = self.headers.get("Content-Length") or "0"
        if "Transfer-Encoding" in self.headers or not length.isdecimal():
            self.send_error(411)
            self.close_connection = True
            return
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            self.close_connection = True
            return
        request = Request(
            method=self.command,
            target=self.path,
            headers=tuple(self.headers.items()),
            body=body,
            base_url=f"http://{self.headers.get('Host') or f'{self.carrier.host}:{self.carrier.port}'}",
        )
        delivery = self.carrier.cloud.handle(request, self.arrived)
        if delivery.answer is None or self.carrier.stopping.is_set():
            self.close_connection = True
            return
        self._send(delivery, delivery.answer)

    do_DELETE = do_GET = do_HEAD = do_PATCH = do_POST = do_PUT = handle_request

    def _send(self, delivery: Delivery, answer: Answer) -> None:
        head = self._head(answer)
        body = b"" if self.command == "HEAD" else answer.body
        if delivery.half:
            self.wfile.write(head + body[: len(body) // 2])
            self.close_connection = True
            return
        if not delivery.drip:
            # In one segment: two would cost a delayed acknowledgement of 40 ms.
            self.wfile.write(head + body)
            return
        self.wfile.write(head)
        for byte in body:
            if self.carrier.stopping.wait(delivery.drip):
                self.close_connection = True
                return
            self.wfile.write(bytes((byte,)))

    def _head(self, answer: Answer) -> bytes:
        lines = [f"HTTP/1.1 {answer.status} {answer.phrase}"]
        lines += [f"{name}: {value}" for name, value in answer.headers]
        lines.append(f"Server: {self.version_string()}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def version_string(self) -> str:
        """Return the value of the `Server` header."""
        return self.server_version

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing, since calls are recorded."""


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
