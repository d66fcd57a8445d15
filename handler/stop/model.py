"""The facts and the closed vocabularies of a stop: what was asked, what was seen, what came of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple, Protocol

from handler.stop.evidence import Action, Evidence, History, Lookup

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)
"""The text form of a UUID, which is what the ids of servers are."""


class Outcome(StrEnum):
    """What came of one server."""

    STOPPED = "stopped"
    ACCEPTED = "accepted"
    UNCHANGED = "unchanged"
    SKIPPED = "skipped"
    FAILED = "failed"
    PLANNED = "planned"


class Reason(StrEnum):
    """Why a server came out as it did; each reason belongs to exactly one outcome."""

    CONFIRMED = "confirmed"
    ACCEPTED = "accepted"
    ALREADY_STOPPED = "already-stopped"
    ALREADY_STOPPING = "already-stopping"
    PROTECTED = "protected"
    KEPT_UNTIL = "kept-until"
    LOCKED = "locked"
    NOT_BARE_METAL = "not-bare-metal"
    STARTED_SINCE = "started-since"
    OTHER_PROJECT = "other-project"
    NOT_OPTED_IN = "not-opted-in"
    CHANGED_SINCE_PLAN = "changed-since-plan"
    NOT_FOUND = "not-found"
    WRONG_STATE = "wrong-state"
    POWER_STILL_ON = "power-still-on"
    BUSY = "busy"
    DELETING = "deleting"
    NEVER_LAUNCHED = "never-launched"
    FORBIDDEN = "forbidden"
    CONFLICT = "conflict"
    REJECTED = "rejected"
    REVERTED = "reverted"
    CLOUD_ERROR = "cloud-error"
    DRY_RUN = "dry-run"
    NEEDS_APPROVAL = "needs-approval"

    @property
    def outcome(self) -> Outcome:
        """The outcome that this reason explains."""
        return _OUTCOME_OF[self]


_REASONS_OF: Mapping[Outcome, tuple[Reason, ...]] = {
    Outcome.STOPPED: (Reason.CONFIRMED,),
    Outcome.ACCEPTED: (Reason.ACCEPTED,),
    Outcome.UNCHANGED: (Reason.ALREADY_STOPPED, Reason.ALREADY_STOPPING),
    Outcome.SKIPPED: (
        Reason.PROTECTED,
        Reason.KEPT_UNTIL,
        Reason.LOCKED,
        Reason.NOT_BARE_METAL,
        Reason.STARTED_SINCE,
        Reason.OTHER_PROJECT,
        Reason.NOT_OPTED_IN,
        Reason.CHANGED_SINCE_PLAN,
    ),
    Outcome.FAILED: (
        Reason.NOT_FOUND,
        Reason.WRONG_STATE,
        Reason.POWER_STILL_ON,
        Reason.BUSY,
        Reason.DELETING,
        Reason.NEVER_LAUNCHED,
        Reason.FORBIDDEN,
        Reason.CONFLICT,
        Reason.REJECTED,
        Reason.REVERTED,
        Reason.CLOUD_ERROR,
    ),
    Outcome.PLANNED: (Reason.DRY_RUN, Reason.NEEDS_APPROVAL),
}
_OUTCOME_OF = {reason: outcome for outcome, reasons in _REASONS_OF.items() for reason in reasons}


class Refusal(StrEnum):
    """Why an event as a whole was refused."""

    TOO_OLD = "too-old"
    EXPIRED = "expired"
    TOO_MANY_SERVERS = "too-many-servers"
    NO_SERVER_IDS = "no-server-ids"
    IN_THE_FUTURE = "in-the-future"
    APPROVAL_INVALID = "approval-invalid"
    APPROVAL_EXPIRED = "approval-expired"
    APPROVAL_SELF = "approval-self"


class Approver(StrEnum):
    """Who may approve a plan: any person, also the requester, or only another person."""

    SELF = "self"
    OTHER = "other"


class Selector(NamedTuple):
    """Which servers an event means without naming them: those that all the given parts fit; an empty part is not given.

    No dataclass, since few events have one and every cold start would pay for it.

    Attributes:
        tags: each of them is on the server.
        metadata: key and value; each of them is on the server.
        name: a glob that the server's whole name fits.
    """

    tags: tuple[str, ...] = ()
    metadata: tuple[tuple[str, str], ...] = ()
    name: str = ""


class EventLimits(Protocol):
    """What decides whether an event as a whole is refused, of whichever type it is; see `StopRequest`."""

    @property
    def server_ids(self) -> tuple[str, ...]: ...

    @property
    def selector(self) -> Selector | None: ...

    @property
    def time(self) -> datetime | None: ...

    @property
    def expires(self) -> datetime | None: ...


@dataclass(frozen=True, slots=True)
class StopRequest:
    """What one event asks for.

    Attributes:
        source, id, type: the incoming CloudEvent's identity and type.
        server_ids: lower-case UUIDs, no duplicates, in the order given; may be empty. In a report of an event with a
            selector: the servers that were found, by name.
        time: when the producer says it happened (aware); None if the event does not say.
        expires: the event's `expirytime` (aware), or None.
        dry_run: the event asks only what would happen.
        reason, requested_by, reply_to: carried through to the result.
        correlationid, traceparent, tracestate: passed on to the result event.
        selector: stands in place of ids; None if there are any, or neither.
        since: since when the condition that asks for the stop has held (aware): of all servers, or by id.
        left_out: how many parts of its message the producer says that it left out.
        requester: identity of the requester, `<system>:<id>`, or None.
        approval: the event asks that its stops are approved, and by whom; None if it does not.
        plan: the token of the plan that the event approves, as it came; None if it is not an approval.
        approved_by: identity of the approver, `<system>:<id>`, or None.
        plan_id: id of the `stop.planned.v1` event that was approved; None if there is none.
        review: has the last word on each stop; None without an approval or a plan.
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

    def since_of(self, server_id: str) -> datetime | None:
        """Return since when the condition that asks for the stop of a server has held, or None if nobody says.

        Args:
            server_id: lower-case UUID.

        Returns:
            An aware datetime; a server that was started after it is not to be stopped.
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
    """A stop of ours that the cloud did not answer with success, as far as another stop depends on it.

    Attributes:
        at: when the server was last read before the first stop was sent, by the cloud's clock if it shows one (aware).
        updated: the server's `updated` in the last read before the latest stop.
        lost: for at least one stop it is not known whether the cloud acted.
    """

    at: datetime
    updated: datetime | None
    lost: bool = False


@dataclass(frozen=True, slots=True)
class Server:
    """One server as the cloud showed it in one read.

    Attributes:
        id: lower-case UUID.
        vm_state: Nova's settled state, lower case, `shutoff` already read as `stopped`.
        task_state: the running operation, lower case, or None.
        locked: whether the cloud refuses operations on it.
        launched: whether it ever ran (`OS-SRV-USG:launched_at` is set).
        tags, metadata: as the cloud has them; metadata values are text, so `"false"` is not false.
        flavor: the flavor's id, or its original name from microversion 2.47 on; empty if unknown.
        updated: when the cloud last changed the record (aware), or None if it does not say.
        power_state: Nova's number: 1 running, 4 shut down, 0 not known; -1 for a value that is not a number; None if
            the API shows none.
        history: what was done to it, or None as long as nobody asked.
        other_project: the id of the project that it belongs to, if that is not the login's; else None.
        cloud_time: the cloud's clock when it showed the server (HTTP `Date`, aware), or None.
        attempt: the stops that this run has sent for it, or None.
    """

    id: str
    vm_state: str
    task_state: str | None = None
    name: str | None = None
    locked: bool = False
    launched: bool = True
    tags: frozenset[str] = frozenset()
    metadata: Mapping[str, str] = field(default_factory=dict)
    flavor: str = ""
    updated: datetime | None = None
    history: History | None = None
    power_state: int | None = None
    other_project: str | None = None
    cloud_time: datetime | None = field(default=None, compare=False)
    attempt: StopAttempt | None = None

    @property
    def power(self) -> Power:
        """Whether its power is on; an API that shows no power state counts as off (BMS v1 may leave it out)."""
        if self.power_state is None or self.power_state in _NOT_RUNNING:
            return Power.OFF
        return Power.ON if self.power_state == _RUNNING else Power.UNKNOWN


@dataclass(frozen=True, slots=True)
class Policy:
    """What this deployment allows, and how long it takes its time.

    Attributes:
        protect: tag `key=value`, or metadata of that key and value, that keeps a server running.
        only: tag or metadata, likewise, that a server must have to be stopped; None for any server.
        bare_metal_only: leave servers alone that are no BMS.
        only: tag `key=value`, or metadata of that key and value, without which a server is left running; None if no
            such mark is required.
        dry_run: never send a stop, whatever the event says.
        max_servers: most servers one event may name, or its selector may fit.
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
        """How far the time of an event may be ahead of ours."""
        return max(timedelta(minutes=1), self.clock_tolerance)


class Move(StrEnum):
    """What to do next with a server."""

    STOP = "stop"
    ASK = "ask"
    WAIT = "wait"
    LEAVE = "leave"


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do with one server, and why.

    Attributes:
        move: STOP sends the stop, ASK wants the server's history first, WAIT reads again later, LEAVE ends.
        reason: for LEAVE the final one; for WAIT the one if time runs out; for STOP and ASK what a dry run reports.
        detail: one plain sentence for a person.
        tag, metadata: the one entry that keeps the server running, as `Evidence` has it.
        history, action: what its history had to say, as `Evidence` has it.
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
        ...


@dataclass(frozen=True, slots=True)
class ServerResult:
    """What came of one server, with the states it was judged on.

    Attributes:
        vm_state, task_state: as last seen; None if it was never seen.
        previous_vm_state: as seen before our stop was sent; None if none was sent.
        request_id, job_id: the cloud's ids for the stop, or for the call that failed.
        evidence: what it was judged by; None if it was never seen.
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


@dataclass(frozen=True, slots=True)
class Report:
    """What came of one event: either it was refused as a whole, or each server has a result.

    Attributes:
        dry_run: nothing was sent because the event or the deployment wanted a rehearsal.
        api: which cloud API was used, `nova` or `bms`.
        servers: in the order of the request; empty if refused, or if no server fits the selector.
        started_at, finished_at: aware, UTC.
        detail: one plain sentence of the event as a whole, where the rows do not say it all; or None.
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
    def summary(self) -> dict[str, int]:
        """How many servers came out as each outcome, by its name; also of those that none did."""
        counts = {outcome.value: 0 for outcome in Outcome}
        for server in self.servers:
            counts[server.outcome] += 1
        return counts

    @property
    def failed(self) -> bool:
        """Whether at least one server failed."""
        return any(server.outcome is Outcome.FAILED for server in self.servers)
