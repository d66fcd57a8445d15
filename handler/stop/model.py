"""The data and the closed vocabularies of a stop: request, server, decision, result."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple, Protocol, Self

from handler.stop.evidence import Action, Evidence, History, Lookup

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)
"""The text form of a UUID, as of the ids of servers."""


class Outcome(StrEnum):
    """The outcome for one server."""

    STOPPED = "stopped"
    ACCEPTED = "accepted"
    UNCHANGED = "unchanged"
    SKIPPED = "skipped"
    FAILED = "failed"
    PLANNED = "planned"


class AnyReason(StrEnum):
    """The reason for an outcome, of a stop or of a keep.

    Attributes:
        outcome: the outcome that it belongs to.
        meaning: one sentence for documents and chats; it has the word "stopped" only where that is true.
    """

    outcome: StrEnum
    meaning: str

    def __new__(cls, value: str, outcome: StrEnum | None = None, meaning: str = "") -> Self:
        """Create a member; only a look-up by value leaves out the rest."""
        assert outcome is not None
        reason = str.__new__(cls, value)
        reason._value_, reason.outcome, reason.meaning = value, outcome, meaning
        return reason


class Reason(AnyReason):
    """The reason for the outcome of a stop."""

    outcome: Outcome

    CONFIRMED = (
        "confirmed",
        Outcome.STOPPED,
        "Our stop was sent, and then the server was seen stopped, with its power off.",
    )
    ACCEPTED = (
        "accepted",
        Outcome.ACCEPTED,
        "The cloud took our stop, but the server was not seen off in the waiting time.",
    )
    ALREADY_STOPPED = "already-stopped", Outcome.UNCHANGED, "The server was stopped when we looked."
    ALREADY_STOPPING = "already-stopping", Outcome.UNCHANGED, "The server was powering off when we looked."
    PROTECTED = (
        "protected",
        Outcome.SKIPPED,
        "It carries the protect tag or metadata, or a keep-until that is no valid time.",
    )
    KEPT_UNTIL = "kept-until", Outcome.SKIPPED, "It is to be kept running until a time that has not come."
    LOCKED = "locked", Outcome.SKIPPED, "It is locked in the cloud."
    NOT_BARE_METAL = (
        "not-bare-metal",
        Outcome.SKIPPED,
        "Neither tag, metadata nor flavor says that it is a bare metal server.",
    )
    STARTED_SINCE = (
        "started-since",
        Outcome.SKIPPED,
        "It was started after the event or our first stop, may have been, or is being started now.",
    )
    OTHER_PROJECT = "other-project", Outcome.SKIPPED, "It belongs to another project than the login."
    NOT_OPTED_IN = "not-opted-in", Outcome.SKIPPED, "It lacks the tag or metadata that is required of servers here."
    CHANGED_SINCE_PLAN = (
        "changed-since-plan",
        Outcome.SKIPPED,
        "It is not as it was when its stop was planned, so the approval does not cover it.",
    )
    NOT_FOUND = "not-found", Outcome.FAILED, "The cloud knows no such server in this project, or it has been deleted."
    WRONG_STATE = (
        "wrong-state",
        Outcome.FAILED,
        "It is in a state that allows no stop, such as paused, shelved or building.",
    )
    POWER_STILL_ON = "power-still-on", Outcome.FAILED, "The cloud shows it as SHUTOFF, but its power is on."
    BUSY = (
        "busy",
        Outcome.FAILED,
        "Another operation, such as a reboot, outlasted the time budget, or has run for over 30 minutes.",
    )
    DELETING = "deleting", Outcome.FAILED, "It is being deleted."
    NEVER_LAUNCHED = "never-launched", Outcome.FAILED, "It is in error and never ran, so there is nothing to stop."
    FORBIDDEN = "forbidden", Outcome.FAILED, "The login may not read it or may not stop it."
    CONFLICT = (
        "conflict",
        Outcome.FAILED,
        "The cloud kept turning the stop down, though nothing seemed to stand against it.",
    )
    REJECTED = "rejected", Outcome.FAILED, "The cloud called our request wrong."
    REVERTED = (
        "reverted",
        Outcome.FAILED,
        "The cloud took our stop, but the server was not off after it, or it recorded the stop as failed.",
    )
    CLOUD_ERROR = "cloud-error", Outcome.FAILED, "The cloud kept failing for this server, while it answered otherwise."
    DRY_RUN = "dry-run", Outcome.PLANNED, "A stop would have been sent; it was a dry run."
    NEEDS_APPROVAL = (
        "needs-approval",
        Outcome.PLANNED,
        "A stop would be sent, and needs an approval first; nothing was sent.",
    )


class Refusal(StrEnum):
    """Why an event as a whole was refused.

    Attributes:
        meaning: one sentence for documents and chats.
    """

    meaning: str

    def __new__(cls, value: str, meaning: str = "") -> Self:
        """Create a member; only a look-up by value leaves out the rest."""
        refusal = str.__new__(cls, value)
        refusal._value_, refusal.meaning = value, meaning
        return refusal

    TOO_OLD = "too-old", "The event was older than is acted on here."
    EXPIRED = "expired", "The time until which the event was to be acted on had passed."
    TOO_MANY_SERVERS = "too-many-servers", "The event asks for more servers than one event may."
    NO_SERVER_IDS = "no-server-ids", "The event names no server."
    IN_THE_FUTURE = "in-the-future", "The event's time is in the future: the clock of its sender, or ours, is wrong."
    APPROVAL_INVALID = (
        "approval-invalid",
        "The token of the plan is not one that this deployment signed, or it was altered.",
    )
    APPROVAL_EXPIRED = "approval-expired", "The time in which the plan could be approved had passed."
    APPROVAL_SELF = "approval-self", "The plan must be approved by another person of the same system as its requester."


class Approver(StrEnum):
    """Who may approve a plan: any person, also the requester, or only another person."""

    SELF = "self"
    OTHER = "other"


class Selector(NamedTuple):
    """A selector of servers: those that match all its parts; an empty part is ignored.

    Attributes:
        tags: the server must have each of them.
        metadata: key and value; the server must have each of them.
        name: a glob that must match the server's whole name.
    """

    tags: tuple[str, ...] = ()
    metadata: tuple[tuple[str, str], ...] = ()
    name: str = ""


class EventRequest(Protocol):
    """What a request of any type has, to be refused as a whole or to have its servers found; see `StopRequest`."""

    @property
    def server_ids(self) -> tuple[str, ...]:
        """The ids of the servers."""

    @property
    def selector(self) -> Selector | None:
        """The selector in place of ids."""

    @property
    def time(self) -> datetime | None:
        """The time of the event (aware)."""

    @property
    def expires(self) -> datetime | None:
        """The `expirytime` of the event (aware)."""

    def with_servers(self, server_ids: tuple[str, ...]) -> Self:
        """Return the request with these servers."""


class StopRequest(NamedTuple):
    """The content of one event.

    Attributes:
        source, id, type: the incoming CloudEvent's identity and type.
        server_ids: lower-case UUIDs, without duplicates, in the event's order; may be empty. In a report of an event
            with a selector: the servers that were found, by name.
        time: of the event (aware), or None.
        expires: the event's `expirytime` (aware), or None.
        dry_run: whether the event asks for a dry run.
        reason, requested_by, reply_to: passed on to the result.
        correlationid, traceparent, tracestate: passed on to the result event.
        selector: in place of ids; None if there are ids, or neither.
        since: since when the condition for the stop has held (aware): for all servers, or by id.
        left_out: the number of parts that the producer left out of its message.
        requester: identity of the requester, `<system>:<id>`, or None.
        approval: the event asks that its stops are approved, and by whom; None if it does not.
        plan: the token of the plan that the event approves, as it came; None if it is not an approval.
        approved_by: identity of the approver, `<system>:<id>`, or None.
        plan_id: id of the `stop.planned.v1` event that was approved; None if there is none.
        review: has the last word on each stop; None without an approval or a plan.
        notice_for: of a dry run that gives notice of a stop: when it is to be, as a time (aware) or as a duration
            from the event's time (from its receipt if it has none).
    """

    source: str
    id: str
    type: str
    server_ids: tuple[str, ...]
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
    since: datetime | Mapping[str, datetime] | None = None
    left_out: int = 0
    requester: str | None = None
    approval: Approver | None = None
    plan: str | None = None
    approved_by: str | None = None
    plan_id: str | None = None
    review: Review | None = None
    notice_for: datetime | timedelta | None = None

    def with_servers(self, server_ids: tuple[str, ...]) -> Self:
        """Return the request with these servers."""
        return self._replace(server_ids=server_ids)

    def due(self, now: datetime) -> datetime:
        """Return when the servers are to be stopped: now, or the time that it gives notice for if that is later."""
        match self.notice_for:
            case None:
                return now
            case timedelta() as ahead:
                return max(now, (self.time or now) + ahead)
            case stamp:
                return max(now, stamp)

    def since_of(self, server_id: str) -> datetime | None:
        """Return since when the condition for the stop of a server has held (aware); None if that is not known.

        A server that was started after it is not to be stopped.
        """
        return self.since.get(server_id) if isinstance(self.since, Mapping) else self.since


class Power(StrEnum):
    """Whether a server's power is on, as Nova's `power_state` shows it (nova/compute/power_state.py).

    A server that is `stopped` can be on: Nova with Ironic records the stop as done when the machine's management
    controller refused it, ignored it or did not answer.
    """

    ON = "on"
    OFF = "off"
    UNKNOWN = "unknown"


_RUNNING = 1
# Paused, shut down, crashed, suspended.
_NOT_RUNNING = frozenset({3, 4, 6, 7})


class StopAttempt(NamedTuple):
    """A stop that was sent without success, with what a further stop depends on.

    Attributes:
        at: when the server was last read before the first stop was sent, by the cloud's clock if known (aware).
        updated: the server's `updated` in the last read before the latest stop.
        lost: whether for at least one stop it is not known whether the cloud acted.
    """

    at: datetime
    updated: datetime | None
    lost: bool = False


class Server(NamedTuple):
    """One server in one read.

    Attributes:
        id: lower-case UUID.
        vm_state: Nova's settled state, lower case, with `stopped` for `shutoff`.
        task_state: the running operation, lower case, or None.
        locked: whether the cloud refuses operations on it.
        launched: whether it ever ran (`OS-SRV-USG:launched_at` is set).
        tags, metadata: as the cloud has them; metadata values are text, so `"false"` is not false.
        flavor: the flavor's id, or its original name from microversion 2.47 on; empty if unknown.
        updated: when the cloud last changed the record (aware), or None.
        power_state: Nova's number: 1 running, 4 shut down, 0 not known; -1 for a value that is not a number; None if
            the API shows none.
        history: the cloud's history of it, or None until it was read.
        other_project: the id of the project that it belongs to, if that is not the login's; else None.
        cloud_time: the cloud's time of the answer (HTTP `Date`, aware), or None.
        attempt: the stops that this run has sent for it, or None.
    """

    id: str
    vm_state: str
    task_state: str | None = None
    name: str | None = None
    locked: bool = False
    launched: bool = True
    tags: frozenset[str] = frozenset()
    metadata: Mapping[str, str] = MappingProxyType({})
    flavor: str = ""
    updated: datetime | None = None
    history: History | None = None
    power_state: int | None = None
    other_project: str | None = None
    cloud_time: datetime | None = None
    attempt: StopAttempt | None = None

    @property
    def power(self) -> Power:
        """Whether its power is on; an API that shows no power state counts as off (BMS v1 may leave it out)."""
        if self.power_state is None or self.power_state in _NOT_RUNNING:
            return Power.OFF
        return Power.ON if self.power_state == _RUNNING else Power.UNKNOWN


class Policy(NamedTuple):
    """What this deployment permits, and its times.

    Attributes:
        protect: tag `key=value`, or metadata of that key and value, that keeps a server running.
        bare_metal_only: whether servers that are not BMS are left running.
        only: tag or metadata, likewise, without which a server is left running; None if none is required.
        dry_run: never send a stop, also if the event does not ask for a dry run.
        max_servers: most servers one event may name, or its selector may match.
        max_event_age: oldest real `time` that is acted on; zero switches the rule off.
        clock_tolerance: how far the clocks of producer, function and cloud may differ.
        wait: how long an accepted stop is watched; zero means not at all.
    """

    protect: tuple[str, str] = ("autostop", "never")
    bare_metal_only: bool = True
    dry_run: bool = False
    max_servers: int = 50
    max_event_age: timedelta = timedelta(minutes=15)
    clock_tolerance: timedelta = timedelta(seconds=5)
    wait: timedelta = timedelta(seconds=20)
    only: tuple[str, str] | None = None

    @property
    def future_tolerance(self) -> timedelta:
        """How far the time of an event may be ahead of the local clock."""
        return max(timedelta(minutes=1), self.clock_tolerance)


class Move(StrEnum):
    """What to do next with a server."""

    STOP = "stop"
    ASK = "ask"
    WAIT = "wait"
    LEAVE = "leave"


class Decision(NamedTuple):
    """What to do with one server, and why.

    Attributes:
        move: STOP sends the stop, ASK reads the server's history first, WAIT reads again later, LEAVE ends.
        reason: for LEAVE the final one; for WAIT the one if time runs out; for STOP and ASK that of a dry run.
        detail: one plain sentence for a person.
        tag, metadata: the one entry that keeps the server running, as in `Evidence`.
        history, action: as in `Evidence`.
        seen: digest of what a planned stop rests on, or None.
    """

    move: Move
    reason: Reason
    detail: str
    tag: str | None = None
    metadata: str | None = None
    history: Lookup = Lookup.NOT_ASKED
    action: Action | None = None
    seen: bytes | None = None


class Review(Protocol):
    """Has the last word on the decision on a server, for stops that need an approval or have one."""

    def review(self, server: Server, decision: Decision, policy: Policy, now: datetime) -> Decision:
        """Return the decision that counts, which never does more than the one that is given."""


class ServerResult(NamedTuple):
    """The result of one server.

    Attributes:
        vm_state, task_state: as last seen; None if it was never seen.
        previous_vm_state: as seen before a stop was sent; None if none was.
        request_id, job_id: the cloud's ids for the stop, or for the call that failed.
        evidence: the facts of the decision; None if it was never seen.
        seen: digest of what a planned stop rests on; None unless the reason is NEEDS_APPROVAL.
    """

    id: str
    reason: Reason
    detail: str
    name: str | None = None
    vm_state: str | None = None
    task_state: str | None = None
    previous_vm_state: str | None = None
    request_id: str | None = None
    job_id: str | None = None
    evidence: Evidence | None = None
    seen: bytes | None = None

    @property
    def outcome(self) -> Outcome:
        """The outcome that the reason belongs to."""
        return self.reason.outcome


class PlanOffer(NamedTuple):
    """What an approver needs to approve a plan.

    Attributes:
        token: the signed plan.
        expires_at: from when on it cannot be approved (aware).
        approver: who may approve it.
    """

    token: str
    expires_at: datetime
    approver: Approver


class Report(NamedTuple):
    """The result of one event: either it was refused as a whole, or each server has a result.

    Attributes:
        dry_run: nothing was sent because the event or the deployment asked for a dry run.
        api: which cloud API was used, `nova` or `bms`.
        servers: in the order of the request; empty if refused, or if no server matches the selector.
        started_at, finished_at: aware, UTC.
        detail: one plain sentence about the event as a whole, or None.
        plan: what waits for an approval, or None.
    """

    request: StopRequest
    api: str
    dry_run: bool
    refusal: Refusal | None
    servers: tuple[ServerResult, ...]
    started_at: datetime
    finished_at: datetime
    detail: str | None = None
    plan: PlanOffer | None = None

    @property
    def notice_for(self) -> datetime | None:
        """When the stop is to be that this dry run gives notice of (aware); None if it gives none."""
        asked = self.request.notice_for
        return (self.request.time or self.started_at) + asked if isinstance(asked, timedelta) else asked

    @property
    def summary(self) -> dict[str, int]:
        """Return the number of servers of each outcome, by its name; also where it is 0."""
        counts = {outcome.value: 0 for outcome in Outcome}
        for server in self.servers:
            counts[server.outcome] += 1
        return counts

    @property
    def failed(self) -> bool:
        """Whether at least one server failed."""
        return any(server.outcome is Outcome.FAILED for server in self.servers)
