"""One server on its way through an event: what is known of it, and which call comes next.

::

    READ ──> decide ──STOP──> STOP ──taken──> READ ... until seen stopped, or the watch ends
      ^        │ ASK            │
      │        └──> HISTORY ────┤ refused, failed or lost: never sent again without a READ between
      └─────────────────────────┘

It makes no call itself and reads no clock; the run tells it what came back and when.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple, assert_never

from handler.errors import (
    CallDenied,
    CallRejected,
    CloudConfused,
    CloudError,
    CloudFault,
    CloudThrottled,
    ServerNotFound,
    StateConflict,
)
from handler.stop.decide import decide
from handler.stop.evidence import Action, Evidence, History, Lookup
from handler.stop.model import (
    Decision,
    Move,
    Policy,
    Reason,
    Server,
    ServerResult,
    StopRequest,
)
from handler.stop.ports import Pending, Rehearsed, Seen, StopFailed, Taken

# A stop that the cloud turned down this often, each time after a fresh read, is not going to be taken.
_STOPS_AT_MOST = 4
# So many failed calls in a row for one server, while another can be read, are that server's own trouble.
_PATIENCE = 4
_FIRST_POLL = 0.015
_POLL_GROWTH = 3.0
_LONGEST_POLL = 3.0
# A crowd is watched with a list or a job: the larger it is, the more its servers wait for each other.
_POLL_PER_SERVER = 0.002
_LONGEST_POLL_IN_CROWD = 5.0
_CROWD = 100
_NO_HISTORY = frozenset({Lookup.NOT_KEPT, Lookup.FORBIDDEN, Lookup.UNREADABLE})

_NOT_SEEN_STOPPED = "The cloud took the stop; it was not seen stopped in time."
_AGE_ALONE = " Its history could not be read, so only the event's age counted."


class Step(StrEnum):
    """The call that a server needs next."""

    READ = "read"
    STOP = "stop"
    HISTORY = "history"


class Next(NamedTuple):
    """A call to make at `due` (on the crew's monotonic clock); not before, unless `early` allows it."""

    step: Step
    due: float
    early: bool = False


class Moment(NamedTuple):
    """When something was learnt, and what the rest of the event knew by then.

    Attributes:
        began: when the call began, on the monotonic clock.
        ended: when its answer was here.
        now: wall time at `ended`.
        others_seen: start of the newest call that showed another server, or -inf.
        others_taken: whether the cloud took the stop of another server.
        crowd: how many servers of the event are still open, this one included.
    """

    began: float
    ended: float
    now: datetime
    others_seen: float
    others_taken: bool
    crowd: int = 1


class Case:
    """The state of one server within one event.

    Attributes:
        result: what came of it; None while it is open.
        fault: the last fault that the cloud gave for it, or None.
        troubled_since: start of the first of the failed reads in a row.
        taken: what the cloud said when it took our stop; None as long as it has not.
    """

    def __init__(self, server_id: str, request: StopRequest, policy: Policy, backoff: Callable[[int], float]) -> None:
        self.id = server_id
        self.result: ServerResult | None = None
        self.fault: CloudError | None = None
        self.troubled_since = 0.0
        self.taken: Taken | None = None
        self._request = request
        self._policy = policy
        self._backoff = backoff
        self._server: Server | None = None
        self._before: str | None = None
        self._looked_at: datetime | None = None
        self._decision: Decision | None = None
        self._evidence: Evidence | None = None
        self._unproven = False
        self._troubles = 0
        self._setbacks = 0
        self._failed_stops = 0
        self._stop_fault: CloudError | None = None
        self._job_failed = False
        self._failed_asks = 0
        self._maybe_taken = False
        self._taken_at = 0.0
        self._seen_powering_off = False
        self._history_helps = True
        self._polls = 0

    @property
    def needs_witness(self) -> bool:
        """Whether it matters by now if other servers can still be read."""
        return self.result is None and self.taken is None and self._troubles >= _PATIENCE - 1

    # --- what came back ---

    def on_read(self, answer: Seen, at: Moment) -> Next | None:
        """Take in one read; None if that ends the case."""
        match answer:
            case Server():
                # A history that was read before is not kept: `updated` counts in whole seconds, so a start right after
                # it would not show.
                self._server, self._looked_at = answer, at.now
                self._troubles = 0
                if self.taken is not None or self._maybe_taken:
                    return self._watch(at)
                return self._decide(at)
            case Pending():
                return self._poll(at)
            case StopFailed(CloudFault()):
                # The job names no reason that the server's state would show: it is as with a stop that came to nothing.
                self._seen_powering_off = True
                return Next(Step.READ, at.ended)
            case StopFailed(cause):
                # The job's late word on our stop counts as if the stop had been answered with it.
                self.taken, self._seen_powering_off, self._job_failed = None, False, True
                return self.on_stop(cause, at)
            case ServerNotFound() if self.taken is not None:
                return self._end(Reason.ACCEPTED, "The cloud took the stop; the server is gone since.")
            case CallDenied() | CallRejected() if self.taken is not None:
                return self._end(Reason.ACCEPTED, "The cloud took the stop; it does not show the server any more.")
            case ServerNotFound():
                return self._end(Reason.NOT_FOUND, "The cloud knows no such server in this project.", answer)
            case CallDenied():
                return self._end(Reason.FORBIDDEN, "The login may not read it.", answer)
            case CallRejected():
                return self._end(Reason.REJECTED, "The cloud calls the request to read it wrong.", answer)
            case _:
                return self._troubled(answer, at)

    def on_history(self, answer: History | CloudError, at: Moment) -> Next | None:
        """Take in the server's history; None if that ends the case."""
        if isinstance(answer, CloudError):
            if not _withheld(answer):
                return self._unrecorded(answer, at)
            gap = Lookup.FORBIDDEN if isinstance(answer, CallDenied) else Lookup.UNREADABLE
            answer = History(actions=None, gap=gap)
        assert self._server is not None
        if self.taken is None:
            self._server = replace(self._server, history=answer)
            return self._decide(at)
        self._history_helps = answer.actions is not None
        for act in answer.actions or ():
            if act.failed and act.request_id == self.taken.request_id:
                self._note(Lookup.FOUND, act)
                return self._end(Reason.REVERTED, "The cloud took the stop, then recorded that it failed.")
        return self._poll(at)

    def on_stop(self, answer: Taken | Rehearsed | CloudError, at: Moment) -> Next | None:
        """Take in the answer to our stop; None if that ends the case."""
        match answer:
            case Taken():
                self.taken, self._taken_at = answer, at.ended
                return self._poll(at)
            case Rehearsed():
                assert self._decision is not None
                return self._end(Reason.DRY_RUN, self._decision.detail)
            case CallDenied():
                return self._end(Reason.FORBIDDEN, "The login may not stop it.", answer)
            case CallRejected():
                return self._end(Reason.REJECTED, "The cloud calls the request to stop it wrong.", answer)
            case _:
                return self._unsent(answer, at, counts=not (isinstance(answer, CloudThrottled) or answer.of_many))

    def on_time_up(self) -> bool:
        """The budget has ended: whether something true can still be said of the server."""
        if self.taken is not None:
            self._end(Reason.ACCEPTED, _NOT_SEEN_STOPPED)
        elif self._decision is not None and self._decision.move is Move.WAIT and not self._troubles:
            self._end(Reason.BUSY, f"{self._decision.detail} It was still running when the time was up.")
        return self.result is not None

    # --- what to do next ---

    def _decide(self, at: Moment) -> Next | None:
        assert self._server is not None
        self._decision = decide(self._server, self._request, self._policy, at.now)
        self._evidence = self._judged_by(self._server, self._decision)
        match self._decision.move:
            case Move.STOP:
                given_up = self._given_up(at)
                if given_up is not None:
                    return self._end(*given_up, self._stop_fault)
                self._before = self._server.vm_state
                self._unproven = self._decision.history in _NO_HISTORY
                return Next(Step.STOP, at.ended)
            case Move.ASK:
                return Next(Step.HISTORY, at.ended)
            case Move.WAIT:
                return Next(Step.READ, at.ended + self._pause(at.crowd), early=True)
            case Move.LEAVE:
                detail = self._decision.detail
                if self._stop_fault is not None:
                    detail += f" {self._answered(self._stop_fault)}"
                return self._end(self._decision.reason, detail)
            case unreachable:
                assert_never(unreachable)

    def _answered(self, fault: CloudError) -> str:
        """What became of a stop of ours that was not taken."""
        if self._job_failed:
            return "The job of our stop failed on it."
        return "Our stop had no answer." if fault.status is None else f"Our stop was answered with {fault.status}."

    def _watch(self, at: Moment) -> Next | None:
        """Judge a server for which our stop was taken, or may have been."""
        server = self._server
        assert server is not None
        if server.vm_state == "stopped":
            return self._end(Reason.CONFIRMED, f"Stopped; it was {self._before}.")
        if self.taken is None:
            if server.task_state != "powering-off":
                return self._decide(at)
            self.taken, self._taken_at = Taken(), at.ended
        if server.task_state == "powering-off":
            self._seen_powering_off = True
            return self._poll(at)
        if server.vm_state == "deleted":
            return self._end(Reason.ACCEPTED, "The cloud took the stop; the server has been deleted since.")
        if server.task_state is None and server.vm_state in ("active", "error"):
            if self._seen_powering_off:
                return self._end(
                    Reason.REVERTED, f"The cloud took the stop, but the server is {server.vm_state} after it."
                )
            # Not started yet, or failed already: only the cloud's own record can tell.
            if self._history_helps and self.taken.request_id is not None:
                return Next(Step.HISTORY, at.ended)
        return self._poll(at)

    def _poll(self, at: Moment) -> Next | None:
        end = self._watch_ends()
        if at.ended >= end:
            return self._end(Reason.ACCEPTED, _NOT_SEEN_STOPPED)
        return Next(Step.READ, min(at.ended + self._pause(at.crowd), end), early=True)

    def _watch_ends(self) -> float:
        return self._taken_at + self._policy.wait.total_seconds()

    def _pause(self, crowd: int) -> float:
        self._polls += 1
        first = max(_FIRST_POLL, crowd * _POLL_PER_SERVER)
        longest = _LONGEST_POLL_IN_CROWD if crowd >= _CROWD else _LONGEST_POLL
        return min(first * _POLL_GROWTH ** min(self._polls - 1, 9), longest)

    def _troubled(self, fault: CloudError, at: Moment) -> Next | None:
        """A call brought nothing; read again later, unless it is plainly this server's own trouble."""
        if self._troubles == 0:
            self.troubled_since = at.began
        self._troubles += 1
        self.fault = fault
        due = self._after(fault, self._troubles, at)
        if self.taken is not None:
            # What the cloud took stays taken, whatever it shows of the server since.
            return Next(Step.READ, due) if due <= self._watch_ends() else self._end(Reason.ACCEPTED, _NOT_SEEN_STOPPED)
        throttled = isinstance(fault, CloudThrottled)
        if self._troubles >= _PATIENCE and not throttled and at.others_seen > self.troubled_since:
            return self._end(Reason.CLOUD_ERROR, "The cloud answers for other servers, not for this one.", fault)
        return Next(Step.READ, due)

    def _unrecorded(self, fault: CloudError, at: Moment) -> Next | None:
        """The history could not be had just now; no stop without it, since the cloud does keep one."""
        if self.taken is not None or isinstance(fault, CloudThrottled):
            return self._troubled(fault, at)
        self._failed_asks += 1
        self.fault = fault
        if self._failed_asks >= _PATIENCE:
            self._note(Lookup.UNREADABLE)
            return self._end(Reason.CLOUD_ERROR, "The cloud shows the server, but fails to show its history.", fault)
        return Next(Step.READ, self._after(fault, self._failed_asks, at))

    def _after(self, fault: CloudError, attempt: int, at: Moment) -> float:
        # "Retry after 0 seconds" must not become a run that asks without any pause.
        return at.ended + (fault.retry_after or self._backoff(attempt))

    def _unsent(self, fault: CloudError, at: Moment, *, counts: bool) -> Next:
        """Our stop was turned down, failed or lost: read again before anything else."""
        self._setbacks += 1
        self._failed_stops += counts
        self.fault = self._stop_fault = fault
        self._maybe_taken = self._maybe_taken or fault.maybe_acted
        pause = fault.retry_after
        if not pause:
            # A first refusal mostly means that somebody else was quicker; looking again at once shows it.
            at_once = self._setbacks == 1 and isinstance(fault, StateConflict | ServerNotFound | CloudFault)
            pause = 0.0 if at_once else self._backoff(self._setbacks)
        return Next(Step.READ, at.ended + pause)

    def _given_up(self, at: Moment) -> tuple[Reason, str] | None:
        """Why another stop would be pointless, if it would be."""
        if self._failed_stops < _STOPS_AT_MOST:
            return None
        match self._stop_fault:
            case StateConflict() | ServerNotFound():
                return (
                    Reason.CONFLICT,
                    "The cloud keeps turning the stop down though nothing stands against it.",
                )
            case CloudFault():
                return Reason.CLOUD_ERROR, "The cloud failed each time it was to stop it."
            case _ if at.others_taken:
                return Reason.CLOUD_ERROR, "The cloud takes the stops of other servers, but not of this one."
            case _:
                return None

    def _judged_by(self, server: Server, decision: Decision) -> Evidence:
        assert self._looked_at is not None
        return Evidence(
            looked_at=self._looked_at,
            vm_state=server.vm_state,
            task_state=server.task_state,
            locked=server.locked,
            launched=server.launched,
            flavor=server.flavor or None,
            updated=server.updated,
            tag=decision.tag,
            metadata=decision.metadata,
            event_time=self._request.time,
            clock_tolerance=self._policy.clock_tolerance,
            history=decision.history,
            action=decision.action,
        )

    def _note(self, history: Lookup, action: Action | None = None) -> None:
        """Add what the history said after the decision."""
        assert self._evidence is not None
        self._evidence = self._evidence._replace(history=history, action=action)

    def _end(self, reason: Reason, detail: str, fault: CloudError | None = None) -> Next | None:
        server = self._server
        gone = reason is Reason.NOT_FOUND
        if self._unproven and (self.taken or reason is Reason.CONFIRMED):
            detail += _AGE_ALONE
        ids = fault.request_id if fault is not None else self.taken.request_id if self.taken else None
        self.result = ServerResult(
            id=self.id,
            reason=reason,
            detail=detail,
            name=server.name if server else None,
            vm_state=server.vm_state if server and not gone else None,
            task_state=server.task_state if server and not gone else None,
            previous_vm_state=self._before if self.taken or self._setbacks or reason is Reason.CONFIRMED else None,
            request_id=ids,
            job_id=self.taken.job_id if self.taken else None,
            evidence=self._evidence,
        )
        return None


def _withheld(fault: CloudError) -> bool:
    """Whether a cloud keeps no history, or none for us, rather than failing to show it.

    A page where JSON is due, or a redirect, comes from something in between, and says nothing of what the cloud keeps.
    """
    match fault:
        case CallDenied() | CallRejected() | ServerNotFound():
            return True
        case CloudConfused(status=int(status)):
            return status >= 400
        case _:
            return False
