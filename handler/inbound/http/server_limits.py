"""What gunicorn's threaded worker leaves unbounded: clients that are slow, idle, or never stop sending.

gunicorn gives each new connection to a thread of its pool, and that thread waits for the request. Here the event loop
of the worker, which accepts connections, also reads each request's head, without blocking; a thread gets a connection
once the head is complete. The event loop also waits for clients to close their connections after an answer, which
gunicorn does blocking.

functions-framework passes its own options to gunicorn and reads no configuration. So this module builds on internals of
gunicorn; `pyproject.toml` bounds its version, and a test lists the versions that it was verified with. TLS is not
supported: it ends in front of the function.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import select
import socket
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from http import HTTPStatus
from selectors import EVENT_READ
from typing import Any

from gunicorn import config
from gunicorn.http.errors import (
    ChunkMissingTerminator,
    LimitRequestHeaders,
    LimitRequestLine,
    NoMoreData,
    ParseException,
)
from gunicorn.http.parser import RequestParser
from gunicorn.http.unreader import SocketUnreader
from gunicorn.workers.gthread import STOP_KEEPALIVE_LINGER, TConn, ThreadWorker

from handler.errors import AutostopError, BadEvent, HeadersTooLarge, InternalError, RequestLineTooLong, Violation
from handler.inbound.http import responses, wsgi
from handler.inbound.http.responses import Answer

# All times are in seconds, all sizes in bytes; a line includes its CRLF.
HEAD_TIMEOUT = 5.0
BODY_TIMEOUT = 20.0
SEND_TIMEOUT = 20.0
LINGER_TIMEOUT = 2.0
MAX_LINE = 8 * 1024
MAX_PLATFORM_LINE = 16 * 1024
MAX_HEADERS = 64 * 1024

# Of each kind of connection that no thread works on; beyond that the oldest is closed.
_MAX_IDLE = 256
# Of all incomplete heads together; beyond that the connection that began first is closed.
_MAX_BUFFERED = 4 * 1024 * 1024
_MAX_DISCARDED = 16 * 1024 * 1024
# Beyond the longest event: for a body that is still read then, and for the answer.
_GRACE = 10
_READ_SIZE = 16 * 1024
_PROBES = (b"GET /healthz ", b"HEAD /healthz ")
_NO_ROOM = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
# FunctionGraph passes a function's login in these headers.
_PLATFORM_PREFIX = b"x-cff-"


class Head:
    """The head of a request while it arrives, measured line by line; `data` may extend beyond it.

    `max_platform_line` is for header lines that begin with `X-CFF-`.
    """

    __slots__ = ("_headers", "_line", "_max_platform_line", "data")

    def __init__(self, max_platform_line: int = MAX_LINE) -> None:
        self.data = bytearray()
        self._max_platform_line = max_platform_line
        # Where the last line begins, and the first header line; 0 before there is one.
        self._line = self._headers = 0

    def feed(self, data: bytes) -> bool:
        """Add what has arrived.

        Returns:
            Whether the parser can decide without reading more: the head is complete, or cannot become a valid one.

        Raises:
            RequestLineTooLong: over `MAX_LINE`.
            HeadersTooLarge: a line over `MAX_LINE`, or all header lines over `MAX_HEADERS`.
        """
        searched = len(self.data)
        self.data += data
        while end := self.data.find(b"\n", searched) + 1:
            self._measure(end)
            # A line feed alone, which the parser refuses, or the empty line at the end. One empty line is permitted
            # before the request line (RFC 9112, 2.2).
            if self.data[max(self._line, end - 2) : end] != b"\r\n" or (end - self._line == 2 and end > 2):
                return True
            if end > 2 and not self._headers:
                self._headers = end
            self._line = searched = end
        self._measure(len(self.data))
        return False

    def _measure(self, end: int) -> None:
        size = end - self._line
        if not self._headers:
            if size > MAX_LINE:
                raise RequestLineTooLong(f"The request line must have at most {MAX_LINE} bytes.")
            return
        if end - self._headers > MAX_HEADERS:
            raise HeadersTooLarge(f"All header lines together must have at most {MAX_HEADERS} bytes.")
        prefix = self.data[self._line : self._line + len(_PLATFORM_PREFIX)]
        limit = self._max_platform_line if prefix.lower() == _PLATFORM_PREFIX else MAX_LINE
        if size > limit:
            raise HeadersTooLarge(f"This header line must have at most {limit} bytes.")


class _Unreader(SocketUnreader):  # type: ignore[misc]
    """Reads a body from the socket until a deadline; a head is complete before a thread parses it."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.deadline: float | None = None
        self.continue_expected = False

    def chunk(self, size_hint: int | None = None) -> bytes:
        """Read once; after the deadline raise TimeoutError."""
        if self.deadline is None:
            raise NoMoreData  # No body is being read.
        if (left := self.deadline - time.monotonic()) <= 0:
            raise TimeoutError
        self.sock.settimeout(left)
        try:
            if self.continue_expected:
                self.continue_expected = False
                self.sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            data: bytes = super().chunk(size_hint)
            return data
        finally:
            self.sock.settimeout(SEND_TIMEOUT)


class _Connection(TConn):  # type: ignore[misc]
    """A connection whose request heads are read by the event loop."""

    def __init__(self, cfg: Any, sock: socket.socket, client: Any, server: Any) -> None:
        super().__init__(cfg, sock, client, server)
        self.parser = RequestParser(cfg, sock, client)
        self.parser.unreader = _Unreader(sock)
        # Neither negotiate TLS or HTTP/2, nor wait for data in a thread.
        self.initialized = self.data_ready = True
        self.head = Head()
        self.answered = 0
        self.received = 0.0
        self.discarded = 0


class Exchange:
    """A request as the application may influence it beyond WSGI; an attribute `exchange` of `wsgi.input`.

    Attributes:
        received: when the head was complete, on the monotonic clock.
    """

    def __init__(self, request: Any, connection: _Connection) -> None:
        self.received = connection.received
        self._request = request
        self._unreader: _Unreader = connection.parser.unreader
        # "100 Continue" is sent when the body is read, not before the caller is authenticated.
        self._unreader.continue_expected = request._expected_100_continue
        request._expected_100_continue = False

    def read(self, size: int, within: float) -> bytes:
        """Read at most `size` bytes of the body, or all if it has fewer, within so many seconds from now on.

        Raises:
            TimeoutError: it was not complete in time.
            ConnectionError: the connection ended in it.
            BadEvent: its chunks are malformed.
        """
        self._unreader.deadline = time.monotonic() + min(within, BODY_TIMEOUT)
        try:
            body: bytes = self._request.body.read(size)
            return body
        except (NoMoreData, ParseException) as failure:
            half = isinstance(failure, ChunkMissingTerminator) and len(failure.term) < len("\r\n")
            if half or isinstance(failure, NoMoreData):
                raise ConnectionError("The connection ended inside the body.") from None
            raise BadEvent(Violation("body", "must be complete and correctly framed")) from None
        finally:
            self._unreader.deadline = None

    def close(self) -> None:
        """Close the connection after the answer: what is left of the body is not read."""
        self._request.force_close()


class LimitedThreadWorker(ThreadWorker):  # type: ignore[misc]
    """gunicorn's threaded worker, which reads heads and waits for clients to leave in its event loop."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._max_platform_line = MAX_PLATFORM_LINE if os.environ.get("RUNTIME_PROJECT_ID") else MAX_LINE
        self.cfg.set("limit_request_line", MAX_LINE - len("\r\n"))
        self.cfg.set("limit_request_field_size", self._max_platform_line)
        # No peer is trusted to set the client, the scheme or the path of a request.
        self.cfg.set("forwarded_allow_ips", "")
        self.cfg.set("forwarder_headers", "")
        self.cfg.set("secure_scheme_headers", {})
        os.environ.pop("SCRIPT_NAME", None)
        self.max_keepalived: int = min(self.cfg.worker_connections - self.cfg.threads, _MAX_IDLE)
        # Both ordered by the time at which they are closed.
        self._reading: dict[_Connection, None] = {}
        self._lingering: dict[_Connection, None] = {}
        self._buffered = 0
        self._probe_pool: ThreadPoolExecutor

    def init_process(self) -> None:
        """Start the threads; called in the process that serves."""
        self._probe_pool = ThreadPoolExecutor(1, thread_name_prefix="healthz")
        super().init_process()

    # --- new connections

    def accept(self, listener: socket.socket) -> None:
        """Accept a connection, and wait for its first head."""
        try:
            sock, client = listener.accept()
        except OSError as failure:
            if failure.errno in _NO_ROOM:
                self._make_room()
            elif failure.errno not in (errno.EAGAIN, errno.EWOULDBLOCK, errno.ECONNABORTED):
                raise
            return
        self.nr_conns += 1
        self._read_head(_Connection(self.cfg, sock, client, listener.getsockname()))

    def _make_room(self) -> None:
        if waiting := self._reading or self._lingering:
            self._close(next(iter(waiting)))
        elif self.keepalived_conns:
            self.keepalived_conns[0].timeout = 0.0
            self.murder_keepalived()
        else:
            # Each connection has a request that is worked on; the listener stays readable meanwhile.
            time.sleep(0.01)

    def on_client_socket_readable(self, conn: _Connection, client: socket.socket) -> None:
        """Read what a connection without a request has sent: a head, or bytes that are discarded."""
        if conn not in self._reading and conn not in self._lingering:
            if conn not in self.keepalived_conns:
                return  # Closed for another one within this round of events.
            self.poller.unregister(client)
            self.keepalived_conns.remove(conn)
            self._read_head(conn)
        try:
            data = client.recv(_READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if conn in self._lingering:
            conn.discarded += len(data)
        if not data or conn.discarded > _MAX_DISCARDED:
            self._close(conn)
        elif conn in self._reading:
            self._feed(conn, data)

    def _read_head(self, conn: _Connection) -> None:
        conn.head = Head(self._max_platform_line)
        self._wait(conn, self._reading, HEAD_TIMEOUT)

    def _feed(self, conn: _Connection, data: bytes) -> None:
        self._buffered += len(data)
        try:
            complete = conn.head.feed(data)
        except AutostopError as error:
            self._forget(conn)
            with contextlib.suppress(OSError):
                conn.sock.send(_message(responses.refused(error)))
            self._linger(conn)
            return
        if complete:
            self._forget(conn)
            if conn.answered and not _is_writable(conn.sock):
                # It sends requests and does not read the answers; the next one would keep a thread waiting.
                self._close(conn)
            else:
                conn.received = time.monotonic()
                conn.parser.unreader.unread(bytes(conn.head.data))
                self.enqueue_req(conn)
        while self._buffered > _MAX_BUFFERED:
            self._close(next(iter(self._reading)))

    # --- requests

    def enqueue_req(self, conn: _Connection) -> None:
        """Handle a request in a thread of the pool; the first of a connection, if for `/healthz`, in one of its own.

        Its answer fits into the empty buffer of the socket, and it reads no body: nothing can keep it waiting.
        """
        alive = not conn.answered and conn.head.data.startswith(_PROBES)
        conn.head = Head()
        pool = self._probe_pool if alive else self.tpool
        pool.submit(self.handle, conn).add_done_callback(
            lambda future: self.method_queue.defer(self.finish_request, conn, future)
        )

    def handle_request(self, req: Any, conn: _Connection) -> bool:
        """Handle a request whose head was parsed; called in a thread."""
        req.body.exchange = Exchange(req, conn)
        conn.sock.settimeout(SEND_TIMEOUT)
        try:
            kept: bool = super().handle_request(req, conn)
            return kept
        except TimeoutError:
            self.log.debug("The client does not read its answer.")
            return False

    def handle_error(self, _req: Any, client: socket.socket, _addr: Any, exc: Exception) -> None:
        """Answer a request that cannot be parsed, without quoting it; called in a thread."""
        error: AutostopError = BadEvent(Violation("request", "must be valid HTTP/1.1"))
        match exc:
            case LimitRequestLine():
                error = RequestLineTooLong(f"The request line must have at most {MAX_LINE} bytes.")
            case LimitRequestHeaders():
                error = HeadersTooLarge("The request has too many header lines, or too long ones.")
            case ParseException():
                pass
            case _:
                self.log.exception("Error handling request")
                error = InternalError("Something unexpected happened; the log has the details.")
        with contextlib.suppress(OSError):
            client.settimeout(SEND_TIMEOUT)
            client.sendall(_message(responses.refused(error)))

    def finish_request(self, conn: _Connection, fs: Future[bool]) -> None:
        """Wait for the next request on a connection, or for its end; called in the event loop."""
        conn.answered += 1
        try:
            kept = fs.result()
            conn.sock.setblocking(False)
        except Exception:
            self._close(conn)
            return
        if not kept:
            self._linger(conn)
        elif further := conn.parser.unreader.take_buffered():
            # Clients may send requests without waiting for answers (pipelining).
            self._read_head(conn)
            self._feed(conn, further)
        else:
            conn.set_timeout()
            if not self.alive:
                conn.timeout = min(conn.timeout, time.monotonic() + STOP_KEEPALIVE_LINGER)
            self.keepalived_conns.append(conn)
            self._register(conn)

    # --- connections to be closed

    def _linger(self, conn: _Connection) -> None:
        """End our side of the connection, and discard what arrives until the client ends its side.

        To close it at once would reset it if something is unread, and the client could lose the answer (RFC 9112, 9.6).
        """
        try:
            conn.sock.setblocking(False)
            conn.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._close(conn)
        else:
            self._wait(conn, self._lingering, LINGER_TIMEOUT)

    def _wait(self, conn: _Connection, waiting: dict[_Connection, None], seconds: float) -> None:
        conn.timeout = time.monotonic() + seconds
        waiting[conn] = None
        self._register(conn)
        if len(waiting) > _MAX_IDLE:
            self._close(next(iter(waiting)))

    def _register(self, conn: _Connection) -> None:
        self.poller.register(conn.sock, EVENT_READ, partial(self.on_client_socket_readable, conn))

    def _forget(self, conn: _Connection) -> None:
        """Take a connection out of those that the event loop waits for."""
        if conn in self._reading:
            del self._reading[conn]
            self._buffered -= len(conn.head.data)
        self._lingering.pop(conn, None)
        with contextlib.suppress(OSError, KeyError, ValueError):
            self.poller.unregister(conn.sock)

    def _close(self, conn: _Connection) -> None:
        self._forget(conn)
        self.nr_conns -= 1
        conn.close()

    # --- the event loop

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        """Wait no longer than until the next connection is to be closed."""
        ends = [next(iter(waiting)).timeout for waiting in (self._reading, self._lingering) if waiting]
        super().wait_for_and_dispatch_events(max(0.0, min([timeout, *(end - time.monotonic() for end in ends)])))

    def murder_pending(self) -> None:
        """Close the connections whose time is over; called in each round of the event loop."""
        now = time.monotonic()
        for waiting in (self._reading, self._lingering):
            while waiting and (oldest := next(iter(waiting))).timeout <= now:
                self._close(oldest)

    def _cap_keepalive(self, deadline: float) -> None:
        super()._cap_keepalive(deadline)
        for conn in (*self._reading, *self._lingering):
            conn.timeout = min(conn.timeout, deadline)

    def set_accept_enabled(self, enabled: bool) -> None:
        """Start or stop to accept connections; on SIGTERM let go of the port as well."""
        super().set_accept_enabled(enabled)
        # It also stops for a while when it has too many connections.
        if not enabled and not self.alive:
            wsgi.shutting_down.set()
            for listener in self.sockets:
                listener.close()


def install(longest: timedelta) -> None:
    """Make functions-framework's gunicorn use this worker.

    functions-framework makes its configuration after it has loaded the function, from gunicorn's defaults and a few
    values of its own.

    Args:
        longest: the whole budget of one event. An event that has begun before SIGTERM may take as long from then on;
            gunicorn would end it after 30 seconds.

    Raises:
        SystemExit: with these variables the limits cannot hold.
    """
    threads = os.environ.get("THREADS")
    if threads is not None and not (threads.strip().isdecimal() and int(threads) > 1):
        sys.exit("bms-autostop does not start:\n  THREADS: must be a whole number of at least 2.")
    if os.environ.get("THREADED_TIMEOUT_ENABLED", "").lower() == "true":
        # It would raise an exception in the middle of an event, in a worker of its own.
        sys.exit("bms-autostop does not start:\n  THREADED_TIMEOUT_ENABLED: must not be set; see AUTOSTOP_DEADLINE.")
    config.WorkerClass.default = LimitedThreadWorker
    config.GracefulTimeout.default = max(30, math.ceil(longest.total_seconds()) + _GRACE)


def _is_writable(sock: socket.socket) -> bool:
    """Return whether a short answer can be sent without waiting."""
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    return bool(poll.poll(0))


def _message(answer: Answer) -> bytes:
    """Return an answer that ends its connection, as bytes."""
    headers = {**answer.headers, "Content-Length": str(len(answer.body)), "Connection": "close"}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}\r\n{lines}\r\n".encode() + answer.body
