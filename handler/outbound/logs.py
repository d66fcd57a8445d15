"""The log as an interface: JSON lines on stdout with stable keys; one an event, one a server.

Every message is a fixed text; what changes is in keys of its own. `deploy/observability/README.md` has the table of all
lines and their keys, and a test holds it against the code.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime

from handler import rfc3339
from handler.errors import AutostopError, RetryableError
from handler.outbound.result import selector_row, server_row
from handler.stop.model import Report, ServerResult, StopRequest

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
            line["exception"] = "".join(_traceback(record.exc_info[1]))
        return json.dumps(line, default=str)


def _traceback(failure: BaseException | None) -> Iterator[str]:
    """Where an exception came from, and what it was; its text only if it is ours.

    Others quote what they stumbled over: http.client a header's value, which may be a password.
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


def log_server(request: StopRequest, server: ServerResult) -> None:
    """One line for a server of the event."""
    row: dict[str, object] = dict(server_row(server))
    row["server_id"], row["server_name"] = row.pop("id"), row.pop("name")
    _LOG.info("server handled", extra={**about(request), **row})


def log_report(report: Report, result_type: str) -> None:
    """One line for the event."""
    _LOG.info(
        "event handled",
        extra={
            **about(report.request),
            "result_type": result_type,
            "refusal": report.refusal,
            "dry_run": report.dry_run,
            "summary": report.summary,
            "duration_ms": round((report.finished_at - report.started_at).total_seconds() * 1000),
            **({"selector": selector_row(report.request.selector)} if report.request.selector else {}),
        },
    )


def log_unhandled(request: StopRequest, trouble: RetryableError) -> None:
    """One line for an event that must come again."""
    extra = {**about(request), "problem": trouble.name, "detail": str(trouble)}
    _LOG.warning("event not handled", extra=extra)


def about(request: StopRequest) -> dict[str, str | None]:
    """The keys of every line about an event."""
    return {
        "event_source": request.source,
        "event_id": request.id,
        "event_type": request.type,
        "trace_id": request.traceparent.split("-")[1] if request.traceparent else None,
    }
