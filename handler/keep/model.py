"""The data and the closed vocabularies of a keep: request and result."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple, Self

from handler.stop.model import AnyReason, Policy, Refusal, Report, Selector


class Outcome(StrEnum):
    """The outcome for one server."""

    KEPT = "kept"
    RELEASED = "released"
    UNCHANGED = "unchanged"
    FAILED = "failed"
    PLANNED = "planned"


class Reason(AnyReason):
    """The reason for the outcome of a keep."""

    outcome: Outcome

    KEPT = "kept", Outcome.KEPT, "The keep-until was written and then read back from the cloud."
    RELEASED = "released", Outcome.RELEASED, "The keep-until was removed, and then no longer seen."
    ALREADY_KEPT = (
        "already-kept",
        Outcome.UNCHANGED,
        "The server is already kept at least that long; a keep is never shortened.",
    )
    NOT_KEPT = "not-kept", Outcome.UNCHANGED, "There was no keep to end."
    PROTECTED = (
        "protected",
        Outcome.UNCHANGED,
        "It is protected for good, or its keep-until is not a valid time; it was left as it is.",
    )
    NOT_FOUND = "not-found", Outcome.FAILED, "The cloud knows no such server in this project, or it has been deleted."
    FORBIDDEN = "forbidden", Outcome.FAILED, "The login may not read the server or may not write its metadata."
    CONFLICT = (
        "conflict",
        Outcome.FAILED,
        "The cloud refused the change in the server's present state, such as error or locked.",
    )
    NOT_SEEN = "not-seen", Outcome.FAILED, "The change was sent, but was not seen on the server afterwards."
    CLOUD_ERROR = "cloud-error", Outcome.FAILED, "The cloud failed for this server."
    DRY_RUN = "dry-run", Outcome.PLANNED, "The keep would have been written or removed; it was a dry run."


class KeepPolicy(NamedTuple):
    """What this deployment permits.

    Attributes:
        limits: age, number of servers, protection and dry run, as for a stop; the rest of it is not used.
        max_keep: how far ahead a keep may end.
    """

    limits: Policy
    max_keep: timedelta


class KeepRequest(NamedTuple):
    """The content of one event: exactly one of `duration`, `until` and `release` is set.

    Attributes:
        duration: how long the servers are to be kept, from the event's time on; or None.
        until: the time until which they are to be kept (aware); or None.
        release: whether their keep is to end.
        source, id, type, server_ids, time, expires, dry_run, reason, requested_by, reply_to, correlationid,
            traceparent, tracestate, selector: as in `handler.stop.model.StopRequest`.
    """

    source: str
    id: str
    type: str
    server_ids: tuple[str, ...]
    duration: timedelta | None = None
    until: datetime | None = None
    release: bool = False
    time: datetime | None = None
    expires: datetime | None = None
    dry_run: bool = False
    reason: str | None = None
    requested_by: str | None = None
    reply_to: str | None = None
    correlationid: str | None = None
    traceparent: str | None = None
    tracestate: str | None = None
    selector: Selector | None = None

    def with_servers(self, server_ids: tuple[str, ...]) -> Self:
        """Return the request with these servers."""
        return self._replace(server_ids=server_ids)

    def end(self, now: datetime) -> datetime | None:
        """Return the time until which the servers are to be kept, in whole seconds; None for a release.

        Args:
            now: aware. A duration counts from the event's time, so that a repeat of the event has the same result; from
                `now` if the event has no time, or one in the future.
        """
        until = self.until
        if self.duration is not None:
            until = min(self.time or now, now) + self.duration
        return until.replace(microsecond=0) if until is not None else None


class KeepResult(NamedTuple):
    """The result of one server.

    Attributes:
        keep_until: until when the server is kept, as last seen (aware); None if it is not kept, or was never seen.
        previous_keep_until: the same before anything was written.
        vm_state, task_state: as last seen; None if it was never seen.
        request_id: the cloud's id for the write, or for the call that failed.
    """

    id: str
    reason: Reason
    detail: str
    name: str | None = None
    keep_until: datetime | None = None
    previous_keep_until: datetime | None = None
    vm_state: str | None = None
    task_state: str | None = None
    request_id: str | None = None

    @property
    def outcome(self) -> Outcome:
        """The outcome that the reason belongs to."""
        return self.reason.outcome


class KeepReport(NamedTuple):
    """The result of one event: either it was refused as a whole, or each server has a result.

    Attributes:
        keep_until: the requested time (aware); None for a release.
        dry_run: nothing was written because the event or the deployment asked for a dry run.
        servers: in the order of the request; empty if refused, or if no server matches the selector.
        started_at, finished_at: aware, UTC.
        detail: one plain sentence about the event as a whole, or None.
    """

    request: KeepRequest
    keep_until: datetime | None
    dry_run: bool
    refusal: Refusal | None
    servers: tuple[KeepResult, ...]
    started_at: datetime
    finished_at: datetime
    detail: str | None = None
    # The metadata of a server is Nova's, with either API.
    api: str = "nova"

    @property
    def summary(self) -> dict[str, int]:
        """Return the number of servers of each outcome, by its name; also where it is 0."""
        counts = {outcome.value: 0 for outcome in Outcome}
        for server in self.servers:
            counts[server.outcome] += 1
        return counts

    @property
    def failed(self) -> bool:
        """Whether the event was refused, or at least one server failed."""
        return self.refusal is not None or any(server.outcome is Outcome.FAILED for server in self.servers)


AnyReport = Report | KeepReport
"""The report of an event, of a stop or of a keep."""
