"""The log as an interface: JSON lines on stdout with stable keys; one an event, one a server.

Every message is a fixed text; what changes is in keys of its own. `deploy/observability/README.md` has the table of all
lines and their keys, and a test holds it against the code.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import select
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from handler import __version__, rfc3339
from handler.errors import AutostopError, Cause, CloudError, RetryableError, ServerNotFound, StateConflict
from handler.outbound.result import people, present, selector_row, server_row
from handler.stop.model import Outcome, Report, ServerResult, StopRequest

if TYPE_CHECKING:
    from handler.keep.model import AnyReport, KeepRequest

_LOG = logging.getLogger(__name__)
# Bytes of lines that wait for a reader of stdout, and seconds that an answer and the end of the process wait for it.
_CAPACITY = 4 * 1024 * 1024
_ANSWER_TIMEOUT = 0.2
_EXIT_TIMEOUT = 2.0
_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class JsonLines(logging.Formatter):
    """One JSON object a record; what is given as `extra` becomes keys of it."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        line: dict[str, object] = {
            "time": rfc3339.render(datetime.fromtimestamp(record.created, UTC)),
            "level": record.levelname,
            "message": record.getMessage(),
            "logger": record.name,
        }
        line |= {key: value for key, value in record.__dict__.items() if key not in _STANDARD}
        if record.exc_info:
            line["exception"] = "".join(_traceback(record.exc_info[1]))
        return json.dumps(line, default=str)


def _traceback(failure: BaseException | None) -> Iterator[str]:
    """Yield the lines of a traceback, with the text of an exception only if it is ours.

    Other exceptions quote their input: http.client a header's value, which may be a password.
    """
    if failure is None:
        return
    cause = failure.__cause__ or (None if failure.__suppress_context__ else failure.__context__)
    if cause is not None:
        yield from _traceback(cause)
        yield "\nThen:\n\n"
    yield from traceback.format_tb(failure.__traceback__)
    yield f"{type(failure).__name__}{f': {failure}' if isinstance(failure, AutostopError) else ''}\n"


def configure(level: str) -> None:
    """Send what `handler` logs to stdout. Other loggers are left as they are: some would show tokens at DEBUG."""
    logger = logging.getLogger("handler")
    logger.setLevel(level)
    logger.propagate = False
    if not logger.handlers:
        to_stdout = logging.StreamHandler(sys.stdout)
        to_stdout.setFormatter(JsonLines())
        logger.addHandler(to_stdout)


class BackgroundStream:
    """A text stream that a thread writes to a file descriptor, so that no writer waits for a reader of it.

    Order is kept. What does not fit into the buffer is dropped, and counted in a line of its own later.

    Args:
        descriptor: blocks while its reader does not read.
        capacity: bytes that wait at most.
    """

    def __init__(self, descriptor: int, capacity: int = _CAPACITY) -> None:
        self._descriptor = descriptor
        self._capacity = capacity
        self._start_empty()
        # The threads of a process are not in its forks; what waits is written by the process that logged it.
        os.register_at_fork(after_in_child=self._start_empty)

    def _start_empty(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._logged = self._written = 0
        self._dropped = 0
        self._thread: threading.Thread | None = None
        self._stalled = False

    def write(self, text: str) -> int:
        """Queue a text for the thread that writes, or drop it."""
        data = text.encode("utf-8", "backslashreplace")
        with self._changed:
            if self._size + len(data) > self._capacity:
                self._dropped += 1
                return len(text)
            self._waiting.append(data)
            self._size += len(data)
            self._logged += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="log", daemon=True)
                self._thread.start()
            self._changed.notify_all()
        return len(text)

    def flush(self) -> None:
        """Do nothing: a log handler calls it for each line."""

    def wait(self, seconds: float) -> None:
        """Wait until what came before is written, but no longer than this, and not at all while it is not read."""
        with self._changed:
            logged = self._logged
            if not self._stalled:
                self._stalled = not self._changed.wait_for(lambda: self._written >= logged, seconds)

    def drain(self, seconds: float) -> None:
        """Wait until all is written, but no longer than this."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting, seconds)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                data = self._waiting[0]
            self._write(data)
            with self._changed:
                self._waiting.popleft()
                self._size -= len(data)
                self._stalled = False
                dropped = self._dropped if self._size < self._capacity // 2 else 0
                self._dropped -= dropped
                self._written += 1
                self._changed.notify_all()
            if dropped:
                _LOG.warning("log lines dropped", extra={"count": dropped})

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:
                # Another process that has the same pipe may have set it so.
                select.select([], [self._descriptor], [])
            except OSError:
                # Its reader is gone, or the disk is full: this cannot be logged.
                return


def write_in_background() -> Callable[[], None]:
    """Let a thread write what `configure` sends to stdout, for a server process.

    Returns:
        A function that waits until what was logged is written, but not long. Called before an answer is sent, it
        prevents the loss of lines where a platform stops a process after its answer.
    """
    for handler in logging.getLogger("handler").handlers:
        if isinstance(handler, logging.StreamHandler) and handler.stream is sys.__stdout__:
            sys.stdout.flush()
            stream = BackgroundStream(sys.stdout.fileno())
            handler.setStream(stream)
            atexit.register(stream.drain, _EXIT_TIMEOUT)
            return partial(stream.wait, _ANSWER_TIMEOUT)
    return lambda: None


def log_started(target: str, **facts: object) -> None:
    """Log that a process begins to serve a target."""
    _LOG.info("started", extra={"version": __version__, "target": target, **facts})


def log_received(request: StopRequest | KeepRequest) -> None:
    """Log an event that arrived and asks for something."""
    selector = present({"selector": selector_row(request.selector)})
    extra = {**about(request), "servers": len(request.server_ids), "dry_run": request.dry_run, **selector}
    _LOG.info("event received", extra=extra)


class FailedCalls:
    """Logs the failed calls to the cloud of one event: each cause once, at its first failure.

    The state of one server is not a failure: that it does not exist, or cannot be stopped now.
    """

    def __init__(self, request: StopRequest | KeepRequest) -> None:
        self._request = request
        self._logged: set[Cause] = set()

    def __call__(self, error: CloudError) -> None:
        """Log a failure unless one with the same cause is logged already."""
        if isinstance(error, ServerNotFound | StateConflict) or error.cause in self._logged:
            return
        self._logged.add(error.cause)
        _LOG.warning("call to the cloud failed", extra={**about(self._request), **error.log_fields()})


def log_server(request: StopRequest, server: ServerResult) -> None:
    """Log the result of a server of the event."""
    level = logging.WARNING if server.outcome is Outcome.FAILED else logging.INFO
    _LOG.log(level, "server handled", extra=server_fields(request, server_row(server)))


def server_fields(request: StopRequest | KeepRequest, row: Mapping[str, object]) -> dict[str, object]:
    """Return the keys of the line about a server: the members of its row, with other names for id and name."""
    names = {"id": "server_id", "name": "server_name"}
    return {**about(request), **{names.get(name, name): value for name, value in row.items()}}


def log_report(report: Report, result_type: str) -> None:
    """Log the result of the event."""
    level = logging.WARNING if report.failed else logging.INFO
    _LOG.log(level, "event handled", extra={**report_fields(report, result_type), **people(report.request)})


def report_fields(report: AnyReport, result_type: str) -> dict[str, object]:
    """Return the keys of the line about an event that was handled."""
    return {
        **about(report.request),
        "result_type": result_type,
        "refusal": report.refusal,
        "dry_run": report.dry_run,
        "summary": report.summary,
        "duration_ms": round((report.finished_at - report.started_at).total_seconds() * 1000),
        **present({"selector": selector_row(report.request.selector)}),
    }


def log_unhandled(request: StopRequest | KeepRequest, error: RetryableError) -> None:
    """Log an event that must be sent again."""
    _LOG.warning("event not handled", extra={**about(request), **error.log_fields()})


def about(request: StopRequest | KeepRequest) -> dict[str, str | None]:
    """Return the keys of every log line about an event."""
    return {
        "event_source": request.source,
        "event_id": request.id,
        "event_type": request.type,
        "trace_id": request.traceparent.split("-")[1] if request.traceparent else None,
    }
