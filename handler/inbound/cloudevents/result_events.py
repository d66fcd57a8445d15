"""Decoding of result events, which `notify_chat` receives, to the reports that they are made of.

Strict where a message could otherwise be untrue: an outcome must be that of its reason, a dry run stops nothing, and a
refused event has no servers. Members that no message needs are not read, so that members can be added.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
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


@dataclass(frozen=True, slots=True)
class ResultEvent:
    """A result event.

    Attributes:
        source, id, type: attributes of the event.
        report: the result.
        trace_id: of its trace, or None.
    """

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
    reading = ResultReader()
    report: AnyReport
    if event.type in KEEP_RESULTS:
        report = keep_report(event.data, event.type, reading)
    else:
        report = _report(event.data, event.type, reading)
    if reading.violations:
        raise BadEvent(*reading.violations)
    parent = traced(event.traceparent, None)["traceparent"]
    return ResultEvent(event.source, event.id, event.type, report, parent.split("-")[1] if parent else None)


def _report(data: Mapping[str, object], type_: str, reading: ResultReader) -> Report:
    refusal = reading.optional(data, "refusal", "data.refusal", Refusal)
    servers = reading.servers(data)
    notice_for = reading.optional(data, "notice_for", "data.notice_for", rfc3339.parse)
    report = Report(
        request=replace(reading.request(data), notice_for=notice_for),
        api=reading.text(data, "api", "data.api"),
        dry_run=reading.flag(data, "dry_run", "data.dry_run"),
        refusal=refusal,
        servers=servers,
        started_at=reading.time(data, "started_at"),
        finished_at=reading.time(data, "finished_at"),
        detail=reading.optional(data, "detail", "data.detail", str),
        plan=reading.plan(data),
    )
    if refusal and servers:
        reading.violation("data.servers", "must be empty, since the event was refused")
    if any(_unlike(server, report) for server in servers):
        reading.violation("data.dry_run", "must fit the servers")
    if (report.plan is not None) != any(server.reason is Reason.NEEDS_APPROVAL for server in servers):
        reading.violation("data.plan", "must fit the servers")
    if notice_for is not None and not report.dry_run:
        reading.violation("data.notice_for", "must be absent, since it was no dry run")
    elif notice_for is not None and abs(notice_for - report.finished_at) > _LONGEST_NOTICE:
        reading.violation("data.notice_for", f"must be at most {_LONGEST_NOTICE.days} days away")
    if not reading.violations and type_ in RESULTS and type_ != _type(report):
        reading.violation("type", "must fit the data")
    return report


def keep_report(data: Mapping[str, object], type_: str, reading: ResultReader) -> KeepReport:
    """Read the report of a keep.

    Args:
        data: of the event.
        type_: of the event.
        reading: receives the violations.
    """
    asked = reading.request(data)
    refusal = reading.optional(data, "refusal", "data.refusal", Refusal)
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
        keep_until=reading.optional(data, "keep_until", "data.keep_until", rfc3339.parse),
        dry_run=reading.flag(data, "dry_run", "data.dry_run"),
        refusal=refusal,
        servers=tuple(_keep_result(row, at, reading) for row, at in reading.rows(data)),
        started_at=reading.time(data, "started_at"),
        finished_at=reading.time(data, "finished_at"),
        detail=reading.optional(data, "detail", "data.detail", str),
    )
    if refusal and report.servers:
        reading.violation("data.servers", "must be empty, since the event was refused")
    unlike = (KeepOutcome.KEPT, KeepOutcome.RELEASED) if report.dry_run else (KeepOutcome.PLANNED,)
    if any(server.outcome in unlike for server in report.servers):
        reading.violation("data.dry_run", "must fit the servers")
    if not reading.violations and type_ != (KEEP_FAILED if report.failed else KEEP_COMPLETED):
        reading.violation("type", "must fit the data")
    return report


def _keep_result(row: Mapping[str, object], at: str, reading: ResultReader) -> KeepResult:
    reason = reading.optional(row, "reason", f"{at}.reason", KeepReason)
    if reason is None or row.get("outcome") != reason.outcome:
        reading.violation(f"{at}.outcome", "must be that of its reason")
    until = reading.optional(row, "keep_until", f"{at}.keep_until", rfc3339.parse)
    if reason is KeepReason.KEPT and until is None:
        reading.violation(f"{at}.keep_until", "must be present, since the server is kept")
    return KeepResult(
        id=reading.server_id(row, at),
        reason=reason or KeepReason.CLOUD_ERROR,
        detail=reading.optional(row, "detail", f"{at}.detail", str) or "",
        name=reading.optional(row, "name", f"{at}.name", str),
        keep_until=until,
        vm_state=reading.optional(row, "vm_state", f"{at}.vm_state", str),
        task_state=reading.optional(row, "task_state", f"{at}.task_state", str),
    )


def _type(report: Report) -> str:
    """Return the type of the result event of a report."""
    word = "refused" if report.refusal else "planned" if report.plan else "failed" if report.failed else "completed"
    return f"{PREFIX}stop.{word}.v1"


def _unlike(server: ServerResult, report: Report) -> bool:
    """Return whether the outcome of a server contradicts its report: neither a dry run nor a plan stops anything."""
    if server.outcome in (Outcome.STOPPED, Outcome.ACCEPTED):
        return report.dry_run or report.plan is not None
    return server.outcome is Outcome.PLANNED and report.dry_run is not (server.reason is Reason.DRY_RUN)


class ResultReader:
    """The violations found so far. A malformed value is replaced by one that is never used."""

    def __init__(self) -> None:
        self.violations: list[Violation] = []

    def violation(self, at: str, message: str) -> None:
        """Add a violation, unless there are too many already."""
        if len(self.violations) < _MOST_VIOLATIONS:
            self.violations.append(Violation(at, message))

    def text(self, document: Mapping[str, object], name: str, at: str) -> str:
        """Read a string that must not be empty."""
        value = document.get(name)
        if isinstance(value, str) and value:
            return value[:_LONGEST]
        self.violation(at, "must be a string")
        return ""

    def optional(
        self, document: Mapping[str, object], name: str, at: str, kind: Callable[[str], _Value]
    ) -> _Value | None:
        """Read a string that may be absent or null, and convert it with `kind`, which raises ValueError."""
        value = document.get(name)
        if value is not None and not isinstance(value, str):
            self.violation(at, "must be a string")
        elif value is not None:
            try:
                return kind(value[:_LONGEST])
            except ValueError:
                self.violation(at, "must be a value that is known here")
        return None

    def flag(self, document: Mapping[str, object], name: str, at: str) -> bool:
        """Read a boolean."""
        value = document.get(name)
        if not isinstance(value, bool):
            self.violation(at, "must be true or false")
        return value is True

    def time(self, data: Mapping[str, object], name: str, within: str = "data") -> datetime:
        """Read an RFC 3339 timestamp."""
        try:
            return rfc3339.parse(str(data.get(name)))
        except ValueError:
            self.violation(f"{within}.{name}", "must be an RFC 3339 timestamp with a zone")
            return datetime.min

    def request(self, data: Mapping[str, object]) -> StopRequest:
        """Read the request that the result is of, without its servers."""
        asked = data.get("request")
        if not isinstance(asked, dict):
            self.violation("data.request", "must be a JSON object")
            return StopRequest("", "", "", ())
        return StopRequest(
            source=self.text(asked, "source", "data.request.source"),
            id=self.text(asked, "id", "data.request.id"),
            type=self.text(asked, "type", "data.request.type"),
            server_ids=(),
            reason=self.optional(asked, "reason", "data.request.reason", str),
            requested_by=self.optional(asked, "requested_by", "data.request.requested_by", str),
            reply_to=self.optional(asked, "reply_to", "data.request.reply_to", str),
            requester=self.optional(asked, "requester", "data.request.requester", str),
            approved_by=self.optional(asked, "approved_by", "data.request.approved_by", str),
            plan_id=self.optional(asked, "plan_id", "data.request.plan_id", str),
        )

    def plan(self, data: Mapping[str, object]) -> PlanOffer | None:
        """Read the plan that waits for an approval, if there is one."""
        plan = data.get("plan")
        if plan is None:
            return None
        if not isinstance(plan, dict):
            self.violation("data.plan", "must be a JSON object")
            return None
        token, approver = plan.get("token"), self.optional(plan, "approver", "data.plan.approver", Approver)
        # It is shown as it is, so it must not be markup.
        if not isinstance(token, str) or len(token) > _MOST_TOKEN or not re.fullmatch("[A-Za-z0-9_-]+", token):
            self.violation("data.plan.token", "must be the token of a plan")
            token = ""
        if approver is None:
            self.violation("data.plan.approver", "must be self or other")
        return PlanOffer(token, self.time(plan, "expires_at", "data.plan"), approver or Approver.OTHER)

    def servers(self, data: Mapping[str, object]) -> tuple[ServerResult, ...]:
        """Read the results of all servers."""
        return tuple(self._server(row, at) for row, at in self.rows(data))

    def rows(self, data: Mapping[str, object]) -> list[tuple[Mapping[str, object], str]]:
        """Return the rows of the servers, each with its path."""
        rows = data.get("servers")
        if not isinstance(rows, list) or len(rows) > _MOST_SERVERS:
            self.violation("data.servers", f"must be an array of at most {_MOST_SERVERS} servers")
            return []
        found: list[tuple[Mapping[str, object], str]] = []
        for index, row in enumerate(rows):
            at = f"data.servers[{index}]"
            if not isinstance(row, dict):
                self.violation(at, "must be a JSON object")
                row = {}
            found.append((row, at))
        return found

    def server_id(self, row: Mapping[str, object], at: str) -> str:
        """Return the id of a row, in lower case."""
        id_ = self.text(row, "id", f"{at}.id")
        if id_ and not UUID.fullmatch(id_):
            self.violation(f"{at}.id", "must be a UUID")
        return id_.lower()

    def _server(self, row: Mapping[str, object], at: str) -> ServerResult:
        id_ = self.server_id(row, at)
        reason = self.optional(row, "reason", f"{at}.reason", Reason)
        if reason is None or row.get("outcome") != reason.outcome:
            self.violation(f"{at}.outcome", "must be that of its reason")
        return ServerResult(
            id=id_,
            reason=reason or Reason.CLOUD_ERROR,
            detail=self.optional(row, "detail", f"{at}.detail", str) or "",
            name=self.optional(row, "name", f"{at}.name", str),
            vm_state=self.optional(row, "vm_state", f"{at}.vm_state", str),
        )
