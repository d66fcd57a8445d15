"""The log as an interface: JSON lines on stdout with stable keys; one an event, one a server.

Keys of every line: `time`, `level`, `message`, `logger`. Lines about an event add `event_source`, `event_id`,
`event_type`, `trace_id`. `event handled` adds `result_type`, `refusal`, `dry_run`, `summary`, `duration_ms`, and
`selector` if the event had one; `event not handled` adds `problem`; `server handled` adds `server_id`, `server_name`,
`outcome`, `reason`, `detail`, `vm_state`, `task_state`, `previous_vm_state`, `request_id`, `job_id`. A line about a
fault adds `problem` or `exception`.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

from handler import rfc3339
from handler.errors import PassingTrouble
from handler.outbound.result import selector_row, server_row
from handler.stop.model import Outcome, Report, ServerResult, StopRequest

_LOG = logging.getLogger(__name__)
_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class JsonLines(logging.Formatter):
    """One JSON object a record; what is given as `extra` becomes keys of it."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        line: dict[str, object] = {
            "time": rfc3339.render(datetime.fromtimestamp(record.created, UTC)),
            "level": record.levelname,
            "message": record.getMessage(),
            "logger": record.name,
        }
        line |= {key: value for key, value in record.__dict__.items() if key not in _STANDARD}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def configure(level: str) -> None:
    """Send what `handler` logs to stdout. Other loggers are left as they are: some would show tokens at DEBUG."""
    logger = logging.getLogger("handler")
    logger.setLevel(level)
    logger.propagate = False
    if not logger.handlers:
        to_stdout = logging.StreamHandler(sys.stdout)
        to_stdout.setFormatter(JsonLines())
        logger.addHandler(to_stdout)


def log_server(request: StopRequest, server: ServerResult) -> None:
    """One line for a server of the event."""
    row: dict[str, object] = dict(server_row(server))
    row["server_id"], row["server_name"] = row.pop("id"), row.pop("name")
    _LOG.info("server handled", extra={**_about(request), **row})


def log_report(report: Report, result_type: str) -> None:
    """One line for the event."""
    _LOG.info(
        "event handled",
        extra={
            **_about(report.request),
            "result_type": result_type,
            "refusal": report.refusal,
            "dry_run": report.dry_run,
            "summary": {outcome.value: report.count(outcome) for outcome in Outcome},
            "duration_ms": round((report.finished_at - report.started_at).total_seconds() * 1000),
            **({"selector": selector_row(report.request.selector)} if report.request.selector else {}),
        },
    )


def log_unhandled(request: StopRequest, trouble: PassingTrouble) -> None:
    """One line for an event that must come again."""
    _LOG.warning("event not handled: %s", trouble, extra={**_about(request), "problem": trouble.name})


def _about(request: StopRequest) -> dict[str, str | None]:
    return {
        "event_source": request.source,
        "event_id": request.id,
        "event_type": request.type,
        "trace_id": request.traceparent.split("-")[1] if request.traceparent else None,
    }
