"""The HTTP/1.1 server of the simulated cloud: persistent connections, one thread for each.

`stop` closes each connection and waits for each thread, so that no test leaks a socket or a thread.
"""

import contextlib
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from typing import Any

from handler.simulator.cloud import Cloud, Delivery
from handler.simulator.messages import Answer, Request


class Server(ThreadingTCPServer):
    """Serves the cloud on a port as long as it is not stopped.

    Args:
        cloud: answers the requests.
        host: the address to listen on.
        port: 0 for a free one.
        stopping: set while the server shuts down; everything that waits must wait on it.

    Raises:
        OSError: the port is taken.
    """

    allow_reuse_address = True
    request_queue_size = 256

    def __init__(self, cloud: Cloud, host: str, port: int, stopping: threading.Event) -> None:
        super().__init__((host, port), _Connection)
        self.cloud = cloud
        self._host = host
        self.stopping = stopping
        self._connections: dict[socket.socket, threading.Thread] = {}
        stopping.clear()
        self._acceptor = threading.Thread(target=self._accept, name="simulator", daemon=True)
        self._acceptor.start()

    def stop(self) -> None:
        """Close the port and every connection, and wait for all threads."""
        self.stopping.set()
        # A connection ends the wait for one.
        with contextlib.suppress(OSError):
            socket.create_connection((self._host, self.server_address[1]), timeout=1).close()
        self._acceptor.join()
        for connection, thread in list(self._connections.items()):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            thread.join()
        self.server_close()

    def _accept(self) -> None:
        while not self.stopping.is_set():
            self.handle_request()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread of its own, which does not keep the process alive."""
        thread = threading.Thread(target=self.process_request_thread, args=(request, client_address), daemon=True)
        self._connections[request] = thread
        thread.start()

    def shutdown_request(self, request: Any) -> None:
        """Close a connection."""
        super().shutdown_request(request)
        del self._connections[request]

    def handle_error(self, *_: object) -> None:
        """Ignore a client that disconnects, which is expected with several faults."""
        with contextlib.suppress(OSError):
            raise


class _Connection(BaseHTTPRequestHandler):
    """Handles the requests of one connection in order."""

    protocol_version = "HTTP/1.1"
    server_version = "bms-autostop-simulator"
    sys_version = ""
    disable_nagle_algorithm = True
    server: Server

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
        host = self.headers.get("Host") or ":".join(map(str, self.server.server_address[:2]))
        request = Request(
            method=self.command,
            target=self.path,
            headers=tuple(self.headers.items()),
            body=body,
            base_url=f"http://{host}",
        )
        delivery = self.server.cloud.handle(request, self.arrived)
        if delivery.answer is None or self.server.stopping.is_set():
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
            if self.server.stopping.wait(delivery.drip):
                self.close_connection = True
                return
            self.wfile.write(bytes((byte,)))

    def _head(self, answer: Answer) -> bytes:
        lines = [f"HTTP/1.1 {answer.status} {answer.phrase}"]
        lines += [f"{name}: {value}" for name, value in answer.headers]
        lines.append(f"Server: {self.server_version}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing, since calls are recorded."""
