"""Decoding of result events, which `notify_chat` receives, to the reports that they are made of.

Strict where a message could otherwise be untrue: an outcome must be that of its reason, a dry run stops nothing, and a
refused event has no servers. Members that no message needs are not read, so that members can be added.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from handler import rfc3339
from handler.errors import BadEvent, Violation
from handler.event_types import KEEP_COMPLETED, KEEP_FAILED, KEEP_RESULTS, PREFIX, RESULTS
from handler.inbound.cloudevents.decode import Event
from handler.inbound.trace_context import traced
from handler.keep.model import AnyReport, KeepReport, KeepRequest, KeepResult
from handler.keep.model import Outcome as KeepOutcome
from handler.keep.model import Reason as KeepReason
from handler.stop.model import (
    UUID,
    Approver,
    Outcome,
    PlanOffer,
    Reason,
    Refusal,
    Report,
    ServerResult,
    StopRequest,
)

_MOST_VIOLATIONS = 50
_MOST_SERVERS = 1000
_LONGEST = 4096
_MOST_TOKEN = 65536
_LONGEST_NOTICE = timedelta(days=60)

_Value = TypeVar("_Value")
_Reason = TypeVar("_Reason", Reason, KeepReason)


@dataclass(frozen=True, slots=True)
class ResultEvent:
    """A result event: its identity, its report, and the id of its trace or None."""

    source: str
    id: str
    type: str
    report: AnyReport
    trace_id: str | None = None


def read(event: Event) -> ResultEvent:
    """Read the report of a result event.

    Raises:
        BadEvent: it is not a result event, or its data is malformed; with every violation.
    """
    if event.type not in RESULTS | KEEP_RESULTS and event.type.strip():
        raise BadEvent(Violation("type", "must be a result event"))
    if not isinstance(event.data, dict):
        raise BadEvent(Violation("data", "must be a JSON object"))
    data = _Reader(event.data, "data", [])
    report: AnyReport = _keep_report(data, event.type) if event.type in KEEP_RESULTS else _report(data, event.type)
    if data.violations:
        raise BadEvent(*data.violations)
    parent = traced(event.traceparent, None)["traceparent"]
    return ResultEvent(event.source, event.id, event.type, report, parent.split("-")[1] if parent else None)


def _report(data: _Reader, type_: str) -> Report:
    refusal = data.optional("refusal", Refusal)
    servers = tuple(_server(row) for row in data.servers())
    notice_for = data.optional("notice_for", rfc3339.parse)
    report = Report(
        request=_request(data)._replace(notice_for=notice_for),
        api=data.text("api"),
        dry_run=data.flag("dry_run"),
        refusal=refusal,
        servers=servers,
        started_at=data.time("started_at"),
        finished_at=data.time("finished_at"),
        detail=data.optional("detail", str),
        plan=_plan(data),
    )
    if refusal and servers:
        data.violation("servers", "must be empty, since the event was refused")
    if any(_unlike(server, report) for server in servers):
        data.violation("dry_run", "must fit the servers")
    if (report.plan is not None) != any(server.reason is Reason.NEEDS_APPROVAL for server in servers):
        data.violation("plan", "must fit the servers")
    if notice_for is not None and not report.dry_run:
        data.violation("notice_for", "must be absent, since it was no dry run")
    elif notice_for is not None and abs(notice_for - report.finished_at) > _LONGEST_NOTICE:
        data.violation("notice_for", f"must be at most {_LONGEST_NOTICE.days} days away")
    if not data.violations and type_ in RESULTS and type_ != _type(report):
        raise BadEvent(Violation("type", "must fit the data"))
    return report


def _keep_report(data: _Reader, type_: str) -> KeepReport:
    asked = _request(data)
    report = KeepReport(
        request=KeepRequest(
            source=asked.source,
            id=asked.id,
            type=asked.type,
            server_ids=(),
            reason=asked.reason,
            requested_by=asked.requested_by,
            reply_to=asked.reply_to,
        ),
        keep_until=data.optional("keep_until", rfc3339.parse),
        dry_run=data.flag("dry_run"),
        refusal=data.optional("refusal", Refusal),
        servers=tuple(_keep_result(row) for row in data.servers()),
        started_at=data.time("started_at"),
        finished_at=data.time("finished_at"),
        detail=data.optional("detail", str),
    )
    if report.refusal and report.servers:
        data.violation("servers", "must be empty, since the event was refused")
    unlike = (KeepOutcome.KEPT, KeepOutcome.RELEASED) if report.dry_run else (KeepOutcome.PLANNED,)
    if any(server.outcome in unlike for server in report.servers):
        data.violation("dry_run", "must fit the servers")
    if not data.violations and type_ != (KEEP_FAILED if report.failed else KEEP_COMPLETED):
        raise BadEvent(Violation("type", "must fit the data"))
    return report


def _keep_result(row: _Reader) -> KeepResult:
    reason = row.reason(KeepReason)
    until = row.optional("keep_until", rfc3339.parse)
    if reason is KeepReason.KEPT and until is None:
        row.violation("keep_until", "must be present, since the server is kept")
    return KeepResult(
        id=row.server_id(),
        reason=reason or KeepReason.CLOUD_ERROR,
        detail=row.optional("detail", str) or "",
        name=row.optional("name", str),
        keep_until=until,
        vm_state=row.optional("vm_state", str),
        task_state=row.optional("task_state", str),
    )


def _server(row: _Reader) -> ServerResult:
    return ServerResult(
        id=row.server_id(),
        reason=row.reason(Reason) or Reason.CLOUD_ERROR,
        detail=row.optional("detail", str) or "",
        name=row.optional("name", str),
        vm_state=row.optional("vm_state", str),
    )


def _request(data: _Reader) -> StopRequest:
    """Read the request that the result is of, without its servers."""
    asked = data.inner("request")
    if asked is None:
        return StopRequest("", "", "", ())
    return StopRequest(
        source=asked.text("source"),
        id=asked.text("id"),
        type=asked.text("type"),
        server_ids=(),
        reason=asked.optional("reason", str),
        requested_by=asked.optional("requested_by", str),
        reply_to=asked.optional("reply_to", str),
        requester=asked.optional("requester", str),
        approved_by=asked.optional("approved_by", str),
        plan_id=asked.optional("plan_id", str),
    )


def _plan(data: _Reader) -> PlanOffer | None:
    """Read the plan that waits for an approval, if there is one."""
    plan = data.inner("plan") if data.document.get("plan") is not None else None
    if plan is None:
        return None
    token, approver = plan.document.get("token"), plan.optional("approver", Approver)
    # It is shown as it is, so it must not be markup.
    if not isinstance(token, str) or len(token) > _MOST_TOKEN or not re.fullmatch("[A-Za-z0-9_-]+", token):
        plan.violation("token", "must be the token of a plan")
        token = ""
    if approver is None:
        plan.violation("approver", "must be self or other")
    return PlanOffer(token, plan.time("expires_at"), approver or Approver.OTHER)


def _type(report: Report) -> str:
    """Return the type of the result event of a report."""
    word = "refused" if report.refusal else "planned" if report.plan else "failed" if report.failed else "completed"
    return f"{PREFIX}stop.{word}.v1"


def _unlike(server: ServerResult, report: Report) -> bool:
    """Return whether the outcome of a server contradicts its report: neither a dry run nor a plan stops anything."""
    if server.outcome in (Outcome.STOPPED, Outcome.ACCEPTED):
        return report.dry_run or report.plan is not None
    return server.outcome is Outcome.PLANNED and report.dry_run is not (server.reason is Reason.DRY_RUN)


class _Reader:
    """An object inside of the data, and the violations found so far in all of it.

    A malformed value is replaced by one that is never used.
    """

    def __init__(self, document: Mapping[str, object], at: str, violations: list[Violation]) -> None:
        self.document = document
        self.violations = violations
        self._at = at

    def violation(self, name: str, message: str) -> None:
        """Add a violation, unless there are too many already."""
        if len(self.violations) < _MOST_VIOLATIONS:
            self.violations.append(Violation(f"{self._at}.{name}" if name else self._at, message))

    def text(self, name: str) -> str:
        """Read a string that must not be empty."""
        value = self.document.get(name)
        if isinstance(value, str) and value:
            return value[:_LONGEST]
        self.violation(name, "must be a string")
        return ""

    def optional(self, name: str, kind: Callable[[str], _Value]) -> _Value | None:
        """Read a string that may be absent or null, and convert it with `kind`, which raises ValueError."""
        value = self.document.get(name)
        if value is not None and not isinstance(value, str):
            self.violation(name, "must be a string")
        elif value is not None:
            try:
                return kind(value[:_LONGEST])
            except ValueError:
                self.violation(name, "must be a value that is known here")
        return None

    def flag(self, name: str) -> bool:
        """Read a boolean."""
        value = self.document.get(name)
        if not isinstance(value, bool):
            self.violation(name, "must be true or false")
        return value is True

    def time(self, name: str) -> datetime:
        """Read an RFC 3339 timestamp."""
        try:
            return rfc3339.parse(str(self.document.get(name)))
        except ValueError:
            self.violation(name, "must be an RFC 3339 timestamp with a zone")
            return datetime.min

    def inner(self, name: str) -> _Reader | None:
        """Return an object inside of this one; None if it is malformed."""
        value = self.document.get(name)
        if isinstance(value, dict):
            return _Reader(value, f"{self._at}.{name}", self.violations)
        self.violation(name, "must be a JSON object")
        return None

    def servers(self) -> Iterator[_Reader]:
        """Return the rows of the servers."""
        rows = self.document.get("servers")
        if not isinstance(rows, list) or len(rows) > _MOST_SERVERS:
            self.violation("servers", f"must be an array of at most {_MOST_SERVERS} servers")
            rows = []
        for index, row in enumerate(rows):
            reader = _Reader(row if isinstance(row, dict) else {}, f"{self._at}.servers[{index}]", self.violations)
            if not isinstance(row, dict):
                reader.violation("", "must be a JSON object")
            yield reader

    def server_id(self) -> str:
        """Return the id of a server, in lower case."""
        id_ = self.text("id")
        if id_ and not UUID.fullmatch(id_):
            self.violation("id", "must be a UUID")
        return id_.lower()

    def reason(self, kind: Callable[[str], _Reason]) -> _Reason | None:
        """Return the reason of a server, which must have its outcome."""
        reason = self.optional("reason", kind)
        if reason is None or self.document.get("outcome") != reason.outcome:
            self.violation("outcome", "must be that of its reason")
        return reason
