"""The log as an interface: JSON lines with stable keys."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime

import pytest

from handler.errors import CloudUnreachable, ServerNotFound, StateConflict
from handler.outbound import logs
from handler.stop.model import Reason, Refusal
from tests.outbound.test_result import ONE, REQUEST, TRACE, TWO, report, row
from tests.support.capture import logged
from tests.support.process import HANG

OF_AN_EVENT = {"time", "level", "message", "logger", "event_source", "event_id", "event_type", "trace_id"}


@contextmanager
def bare_logger() -> Iterator[logging.Logger]:
    """The `handler` logger as at the start of a process; within the test, as pytest adds handlers of its own."""
    logger = logging.getLogger("handler")
    before = logger.handlers[:], logger.level, logger.propagate
    logger.handlers, logger.propagate = [], True
    try:
        yield logger
    finally:
        logger.handlers, logger.propagate = before[0], before[2]
        logger.setLevel(before[1])


def test_an_event_is_one_line() -> None:
    """With its identity, its result, and how long it took; a WARNING, as a server of it failed."""
    with logged() as lines:
        logs.log_report(report(row(), row(Reason.BUSY, TWO), traceparent=TRACE), "the.type")
    (line,) = lines.all
    assert datetime.fromisoformat(line.pop("time")).tzinfo is not None
    assert line == {
        "message": "event handled",
        "level": "WARNING",
        "logger": "handler.outbound.logs",
        "event_source": REQUEST.source,
        "event_id": REQUEST.id,
        "event_type": REQUEST.type,
        "trace_id": TRACE.split("-")[1],
        "result_type": "the.type",
        "refusal": None,
        "dry_run": False,
        "summary": {"stopped": 1, "accepted": 0, "unchanged": 0, "skipped": 0, "failed": 1, "planned": 0},
        "duration_ms": 4790,
    }


def test_an_event_without_a_failed_server_is_information() -> None:
    """Refused, by the word of the refusal, or handled; without a trace there is no trace id."""
    with logged() as lines:
        logs.log_report(report(row()), "the.type")
        logs.log_report(report(refusal=Refusal.EXPIRED), "the.type")
    assert [(line["level"], line["refusal"], line["trace_id"]) for line in lines.all] == [
        ("INFO", None, None),
        ("INFO", "expired", None),
    ]


def test_each_server_is_one_line() -> None:
    """With the same keys as its row in the result, and the event it belongs to."""
    with logged() as lines:
        made = report(row(), row(Reason.BUSY, TWO))
        for server in made.servers:
            logs.log_server(made.request, server)
    first, second = lines.all
    keys = {"server_id", "server_name", "outcome", "reason", "detail", "vm_state", "task_state"}
    assert set(first) == OF_AN_EVENT | keys | {"previous_vm_state", "request_id", "job_id"}
    assert (first["message"], first["server_id"], first["outcome"]) == ("server handled", ONE, "stopped")
    assert (second["server_id"], second["reason"], second["event_id"]) == (TWO, "busy", REQUEST.id)
    assert (first["level"], second["level"]) == ("INFO", "WARNING")


def test_a_failed_call_is_logged_once_for_each_cause() -> None:
    """With the event, the cause and what to do; the state of one server is not a failure."""
    with logged() as lines:
        failed = logs.FailedCalls(REQUEST)
        for status in (503, 503, 502):
            error = CloudUnreachable(f"reading the server: HTTP {status}", status=status)
            error.host = "ecs.example"
            failed(error)
        failed(ServerNotFound("reading the server: HTTP 404", status=404))
        failed(StateConflict("stopping the server: HTTP 409", status=409))
    assert [(line["message"], line["level"]) for line in lines.all] == [("call to the cloud failed", "WARNING")] * 2
    first, second = lines.all
    assert first["cause"] == {"call": "reading the server", "host": "ecs.example", "status": 503, "failure": None}
    assert (first["event_id"], first["problem"]) == (REQUEST.id, "cloud-unreachable")
    assert "bms-autostop doctor" in first["fix"]
    assert second["cause"]["status"] == 502


def test_a_line_break_in_a_value_does_not_make_a_line() -> None:
    """No line can be forged with an id."""
    forged = report(row())._replace(request=REQUEST._replace(id='x\n{"message": "forged"}\u2028'))
    with logged() as lines:
        logs.log_report(forged, "the.type")
    assert [line["message"] for line in lines.all] == ["event handled"]


def test_what_json_does_not_have_is_written_as_text() -> None:
    """Such an extra does not lose the line, nor does a traceback that is asked for where there is none."""
    with logged() as lines:
        logging.getLogger("handler.test").error("odd", extra={"thing": {1}}, exc_info=True)
    assert (lines.all[0]["thing"], lines.all[0]["exception"]) == ("{1}", "")


def test_the_level_is_kept() -> None:
    """With WARNING, successes are not logged."""
    with logged("WARNING") as lines:
        logs.log_report(report(row()), "the.type")
    assert lines.all == []


def test_lines_go_to_stdout_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Configured twice, a line still comes once, and the last level counts."""
    stdout = io.StringIO()
    monkeypatch.setattr("sys.stdout", stdout)
    with bare_logger() as logger:
        logs.configure("INFO")
        logs.configure("ERROR")
        logger.info("silent")
        logger.error("loud")
    assert [json.loads(line)["message"] for line in stdout.getvalue().splitlines()] == ["loud"]


def test_other_loggers_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some libraries show tokens at DEBUG, so our level is not theirs."""
    stdout = io.StringIO()
    monkeypatch.setattr("sys.stdout", stdout)
    before = logging.getLogger().level
    with bare_logger() as logger:
        logs.configure("DEBUG")
        logging.getLogger("keystoneauth").debug("X-Auth-Token: marked")
        logging.getLogger("urllib3.connectionpool").debug("marked")
        assert (stdout.getvalue(), logging.getLogger().level) == ("", before)
        assert not logger.propagate


# --- written in the background


@contextmanager
def piped(capacity: int = 2**20, *, blocking: bool = True) -> Iterator[tuple[logs.BackgroundStream, int]]:
    """A stream into a pipe, and the end at which it is read."""
    reader, writer = os.pipe()
    os.set_blocking(writer, blocking)
    stream = logs.BackgroundStream(writer, capacity)
    try:
        yield stream, reader
    finally:
        # Whatever still waits for a reader gets one, and then none.
        os.set_blocking(reader, False)
        with suppress(BlockingIOError):
            while os.read(reader, 2**20):
                stream.drain(0.05)
        stream.drain(HANG)
        os.close(reader)
        os.close(writer)


def received(reader: int, size: int) -> bytes:
    """So many bytes of a pipe."""
    parts = b""
    while len(parts) < size:
        parts += os.read(reader, size - len(parts))
    return parts


def fill(writer: int, blocking: bool) -> int:
    """Fill a pipe, and return with how many bytes."""
    os.set_blocking(writer, False)
    filled = 0
    for size in (65536, 1):
        with suppress(BlockingIOError):
            while True:
                filled += os.write(writer, b"." * size)
    os.set_blocking(writer, blocking)
    return filled


def test_lines_are_written_in_order() -> None:
    """Those of each thread; and once they were waited for, all are there."""
    with piped() as (stream, reader):
        threads = [
            threading.Thread(target=lambda name=name: [stream.write(f"{name} {n}\n") for n in range(200)])
            for name in "abcd"
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        stream.wait(HANG)
        os.set_blocking(reader, False)
        lines = os.read(reader, 2**20).decode().splitlines()
    for name in "abcd":
        assert [line for line in lines if line[0] == name] == [f"{name} {n}" for n in range(200)]


@pytest.mark.parametrize("blocking", [True, False])
def test_a_reader_that_does_not_read_blocks_no_writer(blocking: bool) -> None:
    """What fits comes once it reads, in order; what was dropped is counted."""
    line = "x" * 999 + "\n"
    with logged() as log, piped(100_000, blocking=blocking) as (stream, reader):
        filled = fill(stream._descriptor, blocking)
        began = time.monotonic()
        for _ in range(500):
            stream.write(line)
        stream.wait(0.1)
        for _ in range(100):
            stream.wait(HANG)
        assert time.monotonic() - began < HANG
        assert received(reader, filled + 100_000)[filled:] == line.encode() * 100
        stream.drain(HANG)
        stream.write("after\n")
        assert received(reader, 6) == b"after\n"
        give_up = time.monotonic() + HANG
        while not log.of("log lines dropped"):
            assert time.monotonic() < give_up
            time.sleep(0.01)
    assert [line["count"] for line in log.of("log lines dropped")] == [400]


def test_a_reader_that_is_gone_blocks_no_writer() -> None:
    """Nor is it an error of the event."""
    reader, writer = os.pipe()
    os.close(reader)
    stream = logs.BackgroundStream(writer)
    stream.write("lost\n")
    stream.drain(HANG)
    assert not stream._waiting
    os.close(writer)


def test_what_waits_is_not_written_by_a_fork() -> None:
    """Or each worker of a server would write what was logged before it was started."""
    with piped() as (stream, _):
        stream._waiting.append(b"before")
        stream._start_empty()
        assert not stream._waiting
        stream._waiting.clear()


def test_only_a_server_process_writes_in_the_background(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not the process's own stdout is left as it is."""
    monkeypatch.setattr("sys.stdout", io.StringIO())
    with bare_logger() as logger:
        logs.configure("INFO")
        logs.write_in_background()()
        (handler,) = logger.handlers
        assert isinstance(handler, logging.StreamHandler)
        assert isinstance(handler.stream, io.StringIO)


_ENDS = """
import logging, sys
from handler.errors import CloudUnreachable, ServerNotFound, StateConflict
from handler.outbound import logs
logs._EXIT_TIMEOUT = 20.0
logs.configure("INFO")
flush = logs.write_in_background()
for number in range(2000):
    logging.getLogger("handler.test").info("line", extra={"number": number})
flush()
print("ends", file=sys.stderr, flush=True)
"""


def test_a_process_that_ends_waits_for_a_reader() -> None:
    """Nothing of its last lines is lost."""
    program = [sys.executable, "-c", _ENDS]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stderr.readline() == b"ends\n"
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        lines = [json.loads(line) for line in process.stdout.read().splitlines()]
        assert process.stderr.read() == b""
    assert [line["number"] for line in lines] == list(range(2000))
    assert process.returncode == 0
