"""The log as an interface: JSON lines with stable keys."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime

import pytest

from handler.outbound import logs
from handler.stop.model import Reason, Refusal
from tests.outbound.test_result import ONE, REQUEST, TRACE, TWO, report, row
from tests.support.capture import logged

EVERY_LINE = {"time", "level", "message", "logger"}
OF_AN_EVENT = EVERY_LINE | {"event_source", "event_id", "event_type", "trace_id"}


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
    """With its identity, what came of it, and how long it took."""
    with logged() as lines:
        logs.log_report(report(row(), row(Reason.BUSY, TWO), traceparent=TRACE), "the.type")
    (line,) = lines.all
    assert set(line) == OF_AN_EVENT | {"result_type", "refusal", "dry_run", "summary", "duration_ms"}
    assert (line["message"], line["level"], line["logger"]) == ("event handled", "INFO", "handler.outbound.logs")
    assert (line["event_source"], line["event_id"], line["event_type"]) == (REQUEST.source, REQUEST.id, REQUEST.type)
    assert line["trace_id"] == TRACE.split("-")[1]
    assert (line["result_type"], line["refusal"], line["dry_run"], line["duration_ms"]) == (
        "the.type",
        None,
        False,
        4790,
    )
    assert line["summary"] == {
        "stopped": 1,
        "accepted": 0,
        "unchanged": 0,
        "skipped": 0,
        "failed": 1,
        "planned": 0,
    }
    assert datetime.fromisoformat(line["time"]).tzinfo is not None


def test_a_refusal_is_in_the_line() -> None:
    """By its word; without a trace there is no trace id."""
    with logged() as lines:
        logs.log_report(report(refusal=Refusal.EXPIRED), "the.type")
    (line,) = lines.all
    assert (line["refusal"], line["trace_id"]) == ("expired", None)


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


def test_a_line_break_in_a_value_does_not_make_a_line() -> None:
    """Nobody forges a line by way of an id."""
    forged = replace(report(row()), request=replace(REQUEST, id='x\n{"message": "forged"}\u2028'))
    with logged() as lines:
        logs.log_report(forged, "the.type")
    assert [line["message"] for line in lines.all] == ["event handled"]


def test_what_json_does_not_have_is_written_as_text() -> None:
    """An odd extra does not lose the line."""
    with logged() as lines:
        logging.getLogger("handler.test").info("odd", extra={"thing": {1}})
    assert lines.all[0]["thing"] == "{1}"


def test_the_level_is_kept() -> None:
    """With WARNING the good news is silent."""
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


def test_an_exception_that_is_none_is_an_empty_text() -> None:
    """Whoever asks for the traceback where there is none loses no line."""
    with logged() as lines:
        logging.getLogger("handler.test").error("odd", exc_info=True)
    assert lines.all[0]["exception"] == ""
