"""From a result event back to the report that it tells: what `notify_chat` takes.

Strict where a message could say something untrue: an outcome must be the one of its reason, a rehearsal stops nothing,
and a refused event has no servers. Members that are not needed for a message are not looked at, so that they may be
added to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from handler import rfc3339
from handler.errors import BadEvent, Violation
from handler.event_types import PREFIX, RESULTS
from handler.inbound.cloudevents.decode import Event
from handler.inbound.trace_context import traced
from handler.stop.model import UUID, Outcome, Reason, Refusal, Report, ServerResult, StopRequest

_MOST_FLAWS = 50
_MOST_SERVERS = 1000
_LONGEST = 4096
# A rehearsal sends nothing, and what is no rehearsal plans nothing.
_UNLIKE = {True: (Outcome.STOPPED, Outcome.ACCEPTED), False: (Outcome.PLANNED,)}

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class ResultEvent:
    """A result event.

    Attributes:
        source, id, type: its identity, and what it is.
        trace_id: of the trace that it belongs to, or None.
    """

    source: str
    id: str
    type: str
    report: Report
    trace_id: str | None = None


def read(event: Event) -> ResultEvent:
    """Read the report that a result event tells.

    Raises:
        BadEvent: it is no result event, or its data is not that of one; with every flaw.
    """
    if event.type not in RESULTS and event.type.strip():
        raise BadEvent(Violation("type", "must be a result event"))
    if not isinstance(event.data, dict):
        raise BadEvent(Violation("data", "must be a JSON object"))
    data, reading = event.data, _Reading()
    refusal = reading.optional(data, "refusal", "data.refusal", Refusal)
    servers = reading.servers(data)
    report = Report(
        request=reading.request(data),
        api=reading.text(data, "api", "data.api"),
        dry_run=reading.flag(data, "dry_run", "data.dry_run"),
        refusal=refusal,
        servers=servers,
        started_at=reading.time(data, "started_at"),
        finished_at=reading.time(data, "finished_at"),
        detail=reading.optional(data, "detail", "data.detail", str),
    )
    if refusal and servers:
        reading.violation("data.servers", "must be empty, since the event was refused")
    if any(server.outcome in _UNLIKE[report.dry_run] for server in servers):
        reading.violation("data.dry_run", "must fit the servers")
    if not reading.violations and event.type in RESULTS and event.type != _type(report):
        reading.violation("type", "must fit the data")
    if reading.violations:
        raise BadEvent(*reading.violations)
    parent = traced(event.traceparent, None)["traceparent"]
    return ResultEvent(event.source, event.id, event.type, report, parent.split("-")[1] if parent else None)


def _type(report: Report) -> str:
    """The type that the result event of a report has."""
    word = "refused" if report.refusal else "failed" if report.failed else "completed"
    return f"{PREFIX}stop.{word}.v1"


class _Reading:
    """What was found wrong so far. A value that is wrong is replaced by one that is never used."""

    def __init__(self) -> None:
        self.violations: list[Violation] = []

    def violation(self, at: str, fault: str) -> None:
        if len(self.violations) < _MOST_FLAWS:
            self.violations.append(Violation(at, fault))

    def text(self, document: Mapping[str, object], name: str, at: str) -> str:
        value = document.get(name)
        if isinstance(value, str) and value:
            return value[:_LONGEST]
        self.violation(at, "must be a string")
        return ""

    def optional(
        self, document: Mapping[str, object], name: str, at: str, kind: Callable[[str], _Value]
    ) -> _Value | None:
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
        value = document.get(name)
        if not isinstance(value, bool):
            self.violation(at, "must be true or false")
        return value is True

    def time(self, data: Mapping[str, object], name: str) -> datetime:
        try:
            return rfc3339.parse(str(data.get(name)))
        except ValueError:
            self.violation(f"data.{name}", "must be an RFC 3339 timestamp with a zone")
            return datetime.min

    def request(self, data: Mapping[str, object]) -> StopRequest:
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
        )

    def servers(self, data: Mapping[str, object]) -> tuple[ServerResult, ...]:
        rows = data.get("servers")
        if not isinstance(rows, list) or len(rows) > _MOST_SERVERS:
            self.violation("data.servers", f"must be an array of at most {_MOST_SERVERS} servers")
            return ()
        return tuple(self._server(row, f"data.servers[{index}]") for index, row in enumerate(rows))

    def _server(self, row: object, at: str) -> ServerResult:
        if not isinstance(row, dict):
            self.violation(at, "must be a JSON object")
            row = {}
        id_ = self.text(row, "id", f"{at}.id")
        if id_ and not UUID.fullmatch(id_):
            self.violation(f"{at}.id", "must be a UUID")
        reason = self.optional(row, "reason", f"{at}.reason", Reason)
        if reason is None or row.get("outcome") != reason.outcome:
            self.violation(f"{at}.outcome", "must be that of its reason")
        return ServerResult(
            id=id_.lower(),
            reason=reason or Reason.CLOUD_ERROR,
            detail=self.optional(row, "detail", f"{at}.detail", str) or "",
            name=self.optional(row, "name", f"{at}.name", str),
            vm_state=self.optional(row, "vm_state", f"{at}.vm_state", str),
        )
