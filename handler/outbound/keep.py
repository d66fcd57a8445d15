"""Keeps as events: the result (`keep.completed.v1`, `keep.failed.v1`), its lines in the log, and the request."""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Mapping
from datetime import datetime

from cloudevents.http import CloudEvent

from handler.event_types import KEEP_COMPLETED, KEEP_FAILED
from handler.keep.decide import written
from handler.keep.model import KeepReport, KeepRequest, KeepResult, Outcome
from handler.outbound.logs import report_fields, server_fields
from handler.outbound.result import caused_attributes, present, report_row, request_attributes, request_row
from handler.settings import durations

_LOG = logging.getLogger(__name__)

# A fixed namespace, so that the same result has the same id in every deployment.
_IDS = uuid.UUID("0d0b9d5e-52f6-5b0e-8d1e-4f5a0c1d7b36")
_ROW = ("id", "name", "outcome", "reason", "detail", "vm_state", "task_state", "request_id")
_WRITTEN = frozenset({Outcome.KEPT, Outcome.RELEASED})


def keep_request_event(request: KeepRequest, extensions: Mapping[str, str]) -> CloudEvent:
    """Make the event that `receive_webhook` posts, with `extensions` as of every event sent."""
    data: dict[str, object] = {
        "server_ids": list(request.server_ids),
        "for": durations.render(request.duration) if request.duration is not None else None,
        "until": _time(request.until),
        "release": request.release or None,
        "dry_run": request.dry_run,
        "reason": request.reason,
        "requested_by": request.requested_by,
        "reply_to": request.reply_to,
    }
    return CloudEvent(request_attributes(request, extensions), present(data))


def keep_result_id(report: KeepReport, type_: str) -> str:
    """Derive the id of a result event from the incoming event and from the content of the result.

    Returns:
        A UUID (version 5) of the incoming `source` and `id`, the type, the refusal, and of each server its id, outcome,
        reason, keep-until, states, and the request id of a write that was seen; of no other time.
    """
    rows = [
        (
            *(server.id, server.outcome, server.reason, _time(server.keep_until), server.vm_state, server.task_state),
            server.request_id if server.outcome in _WRITTEN else None,
        )
        for server in report.servers
    ]
    request = report.request
    return str(uuid.uuid5(_IDS, json.dumps([request.source, request.id, type_, report.refusal, rows])))


def keep_result_event(report: KeepReport, *, source: str, extensions: Mapping[str, str]) -> CloudEvent:
    """Make the result event of one report, with `extensions` as of every event sent."""
    type_ = KEEP_FAILED if report.failed else KEEP_COMPLETED
    id_, servers = keep_result_id(report, type_), report.request.server_ids
    attributes = caused_attributes(report.request, servers, id_, type_, source, report.finished_at, extensions)
    return CloudEvent(attributes, keep_result_data(report))


def keep_result_data(report: KeepReport) -> dict[str, object]:
    """Return the `data` of the result event."""
    request = {**request_row(report.request), "release": report.request.release}
    servers = [keep_row(server) for server in report.servers]
    return {**report_row(report, request, servers), "keep_until": _time(report.keep_until)}


def keep_row(server: KeepResult) -> dict[str, str | None]:
    """Return one server as in the result event and the log."""
    row = {name: getattr(server, name) for name in _ROW}
    times = {"keep_until": _time(server.keep_until), "previous_keep_until": _time(server.previous_keep_until)}
    return {**row, **times}


def log_keep_server(request: KeepRequest, server: KeepResult) -> None:
    """Log one line for a server of the event."""
    level = logging.WARNING if server.outcome is Outcome.FAILED else logging.INFO
    _LOG.log(level, "server keep handled", extra=server_fields(request, keep_row(server)))


def log_keep_report(report: KeepReport, result_type: str) -> None:
    """Log one line for the event."""
    level = logging.WARNING if report.failed else logging.INFO
    extra = {**report_fields(report, result_type), "keep_until": _time(report.keep_until)}
    _LOG.log(level, "keep handled", extra=extra)


def _time(stamp: datetime | None) -> str | None:
    return written(stamp) if stamp is not None else None
