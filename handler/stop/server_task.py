"""The state machine of one server within an event: what is known of it, and which call is next.

::

    READ ──> decide ──STOP──> STOP ──taken──> READ ... until seen stopped, or the wait ends
      ^        │ ASK            │
      │        └──> HISTORY ────┤ refused, failed or lost: never sent again without a READ between
      └─────────────────────────┘

It makes no call itself and reads no clock; the scheduler passes answers and times.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import assert_never

from handler.errors import (
    CallDenied,
    CallRejected,
    CloudError,
    CloudFault,
    CloudThrottled,
    ServerNotFound,
)
from handler.stop.calls import Moment, Next, Step
from handler.stop.decide import decide, judged_by, settled_as_stopped
from handler.stop.evidence import Action, Evidence, History, Lookup, gap_of
from handler.stop.failures import FailureTracker
from handler.stop.model import (
    Decision,
    Move,
    Policy,
    Power,
    Reason,
    Server,
    ServerResult,
    StopAttempt,
    StopRequest,
)
from handler.stop.pauses import poll_pause
from handler.stop.ports import DryRunStop, Pending, ReadSingly, Seen, StopFailed, Taken

_NO_HISTORY = frozenset({Lookup.NOT_KEPT, Lookup.FORBIDDEN, Lookup.UNREADABLE})

_NOT_SEEN_STOPPED = "The cloud took the stop; it was not seen stopped in time."
_POWER_STILL_ON = (
    "The cloud took the stop and shows the server as SHUTOFF, but its power is on (power_state 1). "
    "Check its management controller."
)
_POWER_UNKNOWN = "The cloud took the stop and shows the server as SHUTOFF, but its power state is unknown."
_AGE_ALONE = " Its history could not be read, so only the event's age counted."


class ServerTask:
    """The state of one server within one event.

    Attributes:
        result: None until there is one.
        failures: of its calls so far.
        taken: the cloud's answer to the accepted stop; None if none was accepted.
    """

    def __init__(self, server_id: str, request: StopRequest, policy: Policy, backoff: Callable[[int], float]) -> None:
        self.id = server_id
        self.result: ServerResult | None = None
        self.failures = FailureTracker(backoff)
        self.taken: Taken | None = None
        self._request = request
        self._policy = policy
        self._server: Server | None = None
        self._before: str | None = None
        self._observed_at: datetime | None = None
        self._decision: Decision | None = None
        self._evidence: Evidence | None = None
        self._attempt: StopAttempt | None = None
        self._unproven = False
        self._taken_at = 0.0
        self._seen_powering_off = False
        self._history_helps = True
        self._polls = 0

    @property
    def name(self) -> str | None:
        """The server's name; None if it was not read yet."""
        return self._server.name if self._server else None

    @property
    def needs_probe(self) -> bool:
        """Whether it must be known if other servers can still be read."""
        return self.result is None and self.taken is None and self.failures.probe_matters

    # --- answers ---

    def on_read(self, answer: Seen, at: Moment) -> Next | None:
        """Handle one read; None if that ends the task."""
        match answer:
            case Server():
                # An earlier history is not kept: `updated` has whole seconds, so a start right after it would not show.
                self._server = answer._replace(attempt=self._attempt) if self._attempt else answer
                self._observed_at = at.now
                self.failures.seen()
                if self.taken is not None or self.failures.maybe_taken:
                    return self._watch(at)
                return self._decide(at)
            case Pending():
                return self._poll(at)
            case ReadSingly():
                return Next(Step.READ, at.completed)
            case StopFailed(CloudFault(), report):
                # The job has no reason that the server's state would show, as with a stop without effect.
                self.failures.job_failed, self.failures.job_report = True, report
                self._seen_powering_off = True
                return Next(Step.READ, at.completed)
            case StopFailed(cause, report):
                # The job's late error counts as if it had been the answer to the stop.
                self.failures.job_failed, self.failures.job_report = True, report
                self.taken, self._seen_powering_off = None, False
                return self.on_stop(cause, at)
            case ServerNotFound() if self.taken is not None and self.failures.job_failed:
                return self._end(Reason.NOT_FOUND, f"The server is gone.{self.failures.stop_outcome()}", answer)
            case ServerNotFound() if self.taken is not None:
                return self._end(Reason.ACCEPTED, "The cloud took the stop; the server is gone since.")
            case CallDenied() | CallRejected() if self.taken is not None:
                return self._not_seen_off("The cloud took the stop; it does not show the server any more.")
            case ServerNotFound():
                return self._end(
                    Reason.NOT_FOUND,
                    "The cloud knows no such server in this project; check the id, and the project of the login.",
                    answer,
                )
            case CallDenied():
                return self._end(Reason.FORBIDDEN, "The login may not read it.", answer)
            case CallRejected():
                return self._end(Reason.REJECTED, "The cloud calls the request to read it wrong.", answer)
            case _:
                return self._read_failed(answer, at)

    def on_history(self, answer: History | CloudError, at: Moment) -> Next | None:
        """Handle the server's history; None if that ends the task."""
        if isinstance(answer, CloudError):
            gap = gap_of(answer)
            if gap is None:
                return self._unrecorded(answer, at)
            answer = History(actions=None, gap=gap)
        assert self._server is not None
        if self.taken is None:
            self._server = self._server._replace(history=answer)
            return self._decide(at)
        self._history_helps = answer.actions is not None
        for act in answer.actions or ():
            if act.failed and act.request_id == self.taken.request_id:
                self._note(Lookup.FOUND, act)
                return self._end(Reason.REVERTED, "The cloud took the stop, then recorded that it failed.")
        return self._poll(at)

    def on_stop(self, answer: Taken | DryRunStop | CloudError, at: Moment) -> Next | None:
        """Handle the answer to a stop; None if that ends the task."""
        match answer:
            case Taken():
                self.taken, self._taken_at = answer, at.completed
                self.failures.job_failed = False
                return self._poll(at)
            case DryRunStop():
                assert self._decision is not None
                return self._end(Reason.DRY_RUN, self._decision.detail)
            case CallDenied():
                return self._end(Reason.FORBIDDEN, f"The login may not stop it.{self._job_report()}", answer)
            case CallRejected():
                return self._end(
                    Reason.REJECTED, f"The cloud calls the request to stop it wrong.{self._job_report()}", answer
                )
            case _:
                return self._unsent(answer, at, counts=not (isinstance(answer, CloudThrottled) or answer.of_many))

    def on_time_up(self) -> bool:
        """Handle the end of the budget; return whether the server still has a result."""
        if self.taken is not None:
            self._end_of_watch()
        elif self._decision is not None and self._decision.move is Move.WAIT and not self.failures.failing:
            self._end(Reason.BUSY, f"{self._decision.detail} It was still running when the time was up.")
        return self.result is not None

    # --- next calls ---

    def _decide(self, at: Moment) -> Next | None:
        assert self._server is not None
        assert self._observed_at is not None
        self._decision = decide(self._server, self._request, self._policy, at.now)
        self._evidence = judged_by(self._server, self._request, self._policy, self._decision, self._observed_at)
        match self._decision.move:
            case Move.STOP:
                given_up = self.failures.given_up(at)
                if given_up is not None:
                    return self._end(*given_up, self.failures.stop_error)
                self._before = self._server.vm_state
                self._unproven = self._decision.history in _NO_HISTORY
                self._attempt = self._attempted(self._server, self._observed_at)
                return Next(Step.STOP, at.completed)
            case Move.ASK:
                return Next(Step.HISTORY, at.completed)
            case Move.WAIT:
                return Next(Step.READ, self._next_poll(at), early=True)
            case Move.LEAVE:
                return self._end(self._decision.reason, self._decision.detail + self.failures.stop_outcome())
            case unreachable:
                assert_never(unreachable)

    def _watch(self, at: Moment) -> Next | None:
        """Decide on a server whose stop was accepted, or may have been."""
        server = self._server
        assert server is not None
        if server.vm_state == "stopped" and server.power is Power.OFF:
            return self._end(Reason.CONFIRMED, f"Stopped; it was {self._before}.")
        if self.taken is None:
            if server.task_state != "powering-off" and not settled_as_stopped(server):
                return self._decide(at)
            self.taken, self._taken_at = Taken(), at.completed
        if server.task_state == "powering-off":
            self._seen_powering_off = True
            return self._poll(at)
        if server.vm_state == "deleted":
            return self._not_seen_off("The cloud took the stop; the server has been deleted since.")
        if server.task_state is None and server.vm_state in ("active", "error"):
            if self._seen_powering_off:
                return self._end(
                    Reason.REVERTED,
                    f"The cloud took the stop, but the server is {server.vm_state} after it.{self._job_report()}",
                )
            # Not begun yet, or failed already: only the cloud's history shows which, or the job if there is one.
            if self._history_helps and self.taken.request_id is not None and self.taken.job_id is None:
                return Next(Step.HISTORY, at.completed)
        return self._poll(at)

    def _poll(self, at: Moment) -> Next | None:
        end = self._watch_ends()
        if at.completed >= end:
            return self._end_of_watch()
        return Next(Step.READ, min(self._next_poll(at), end), early=True)

    def _next_poll(self, at: Moment) -> float:
        self._polls += 1
        return at.completed + poll_pause(self._polls - 1, at.unfinished)

    def _end_of_watch(self) -> Next | None:
        """Return the result of an accepted stop whose server was not seen off in time."""
        server = self._server
        assert server is not None
        assert self._evidence is not None
        if not settled_as_stopped(server):
            return self._not_seen_off(_NOT_SEEN_STOPPED)
        self._evidence = self._evidence._replace(
            observed_at=self._observed_at or self._evidence.observed_at,
            vm_state=server.vm_state,
            task_state=server.task_state,
            power_state=server.power_state,
            updated=server.updated,
        )
        if server.power is Power.ON:
            return self._end(Reason.POWER_STILL_ON, _POWER_STILL_ON + self._job_report())
        return self._not_seen_off(_POWER_UNKNOWN)

    def _not_seen_off(self, detail: str) -> Next | None:
        """End the task of a server that was not seen off: accepted, unless the job of the stop failed."""
        if self.failures.job_failed:
            return self._end(Reason.REVERTED, detail + self._job_report())
        return self._end(Reason.ACCEPTED, detail)

    def _job_report(self) -> str:
        """Return a sentence about the failed job of the stop; empty if none failed."""
        return self.failures.stop_outcome() if self.failures.job_failed else ""

    def _watch_ends(self) -> float:
        return self._taken_at + self._policy.wait.total_seconds()

    def _read_failed(self, error: CloudError, at: Moment) -> Next | None:
        """Handle a failed read: read again later, unless the failures concern this server alone."""
        due = self.failures.unread(error, at)
        if self.taken is not None:
            # An accepted stop stays accepted, whatever later reads show.
            return Next(Step.READ, due) if due <= self._watch_ends() else self._end_of_watch()
        if self.failures.concerns_server(error, at):
            detail = f"The cloud answers for other servers, not for this one.{self.failures.stop_outcome()}"
            return self._end(Reason.CLOUD_ERROR, detail, error)
        return Next(Step.READ, due)

    def _unrecorded(self, error: CloudError, at: Moment) -> Next | None:
        """The history could not be had just now; no stop without it, since the cloud does keep one."""
        if self.taken is not None or isinstance(error, CloudThrottled):
            return self._read_failed(error, at)
        due = self.failures.unrecorded(error, at)
        if due is None:
            self._note(Lookup.UNREADABLE)
            return self._end(Reason.CLOUD_ERROR, "The cloud shows the server, but fails to show its history.", error)
        return Next(Step.READ, due)

    def _unsent(self, error: CloudError, at: Moment, *, counts: bool) -> Next:
        """Our stop was turned down, failed or lost: read again before anything else."""
        uncertain = error.maybe_acted or error.contradicts_status or isinstance(error, CloudFault)
        if self._attempt is not None and uncertain:
            self._attempt = self._attempt._replace(lost=True)
        return Next(Step.READ, self.failures.unsent(error, at, counts=counts))

    def _attempted(self, server: Server, observed_at: datetime) -> StopAttempt:
        """What is to be remembered of the stop that comes next."""
        before = self._attempt
        at, lost = (before.at, before.lost) if before else (server.cloud_time or observed_at, False)
        return StopAttempt(at, server.updated, lost)

    def _note(self, history: Lookup, action: Action | None = None) -> None:
        """Add the history, which was read after the decision."""
        assert self._evidence is not None
        self._evidence = self._evidence._replace(history=history, action=action)

    def _end(self, reason: Reason, detail: str, error: CloudError | None = None) -> Next | None:
        server = self._server
        gone = reason is Reason.NOT_FOUND
        sent = self.taken is not None or self.failures.any_stop
        if self._unproven and (self.taken or reason is Reason.CONFIRMED):
            detail += _AGE_ALONE
        ids = error.request_id if error is not None else self.taken.request_id if self.taken else None
        self.result = ServerResult(
            id=self.id,
            reason=reason,
            detail=detail,
            name=server.name if server else None,
            vm_state=server.vm_state if server and not gone else None,
            task_state=server.task_state if server and not gone else None,
            previous_vm_state=self._before if sent or reason is Reason.CONFIRMED else None,
            request_id=ids,
            job_id=self.taken.job_id if self.taken else None,
            evidence=self._evidence,
            seen=self._decision.seen if self._decision else None,
        )
        return None
