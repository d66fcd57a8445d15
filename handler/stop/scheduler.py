"""The scheduler of one event: it makes calls, handles their answers, and reads each server again when it is due.

No thread waits for a server. A few calls run at a time, each answer is handled when it arrives, and one server that is
slow, busy or throttled delays no other.
"""

from __future__ import annotations

import heapq
import itertools
import logging
from collections import deque
from collections.abc import Callable, Sequence
from functools import cache
from typing import assert_never

from handler.errors import BudgetSpent, CloudError, CloudUnreachable, InternalError
from handler.stop.calls import CompletedCall, Moment, Next, Observations, Step, call
from handler.stop.evidence import History, gap_of
from handler.stop.model import Policy, Server, ServerResult, StopRequest
from handler.stop.ports import (
    CallExecutor,
    Candidate,
    Cloud,
    DryRunStop,
    Hooks,
    Pending,
    ReadSingly,
    StopFailed,
    Taken,
)
from handler.stop.server_task import ServerTask

_LOG = logging.getLogger(__name__)

# Reads that are due within this many seconds for each server without a result are made together, where possible.
_TOGETHER_PER_SERVER = 0.003
# A call that may last to the deadline ends there, except for rounding.
_GRAIN = 0.001
# Where stops are announced, they wait for the first decisions at most this share of the time that is left.
_LONGEST_HOLD = 0.5
# A server that was held back for longer than so many seconds is read again before its stop.
_FRESH = 2.0


class Scheduler:
    """The servers of one event, from the first read to their results.

    Args:
        request: not refused, with the ids of its servers.
        policy, cloud, executor, deadline, width, backoff, hooks: as of `run`.
    """

    def __init__(
        self,
        request: StopRequest,
        policy: Policy,
        cloud: Cloud,
        executor: CallExecutor[CompletedCall],
        deadline: float,
        width: int,
        backoff: Callable[[int], float],
        hooks: Hooks,
    ) -> None:
        self._hooks = hooks
        self._any_stop = False
        self._cloud = cloud
        self._executor = executor
        self._deadline = deadline
        self._width = width
        # The same for all servers of one answer, so that they are read together again. A task has no reference to its
        # scheduler, which would be a cycle and be freed late.
        self._backoff = cache(backoff)
        self._tasks = {id_: ServerTask(id_, request, policy, self._backoff) for id_ in request.server_ids}
        self._open = len(self._tasks)
        self._later: list[tuple[float, int, Next, str]] = []
        self._order = itertools.count()
        self._stops: deque[Sequence[str]] = deque()
        self._asks: deque[tuple[Step, Sequence[str]]] = deque()
        self._in_flight = 0
        self._probing = False
        self._observations = Observations()
        # Only with `announce`: the servers without a first decision, and those whose stop waits for the others'.
        self._undecided = set(self._tasks)
        self._held: list[tuple[str, float]] = []
        self._hold_ends = deadline

    def results(self, listed: CompletedCall | None) -> tuple[ServerResult, ...]:
        """Handle the servers until each has a result or the budget ends.

        Args:
            listed: a read that showed all of them; None if there was none.
        """
        now = self._executor.monotonic()
        self._hold_ends = now + (self._deadline - now) * _LONGEST_HOLD
        if listed is None:
            self._asks.extend((Step.READ, group) for group in self._cloud.read_groups(list(self._tasks)))
        else:
            self._observations.note(listed)
            self._learn(listed)
        while self._open:
            self._release_held()
            now = self._executor.monotonic()
            if now >= self._deadline:
                break
            self._collect_due(now)
            self._send()
            wake = min(self._later[0][0] if self._later else self._deadline, self._deadline)
            if self._held:
                wake = min(wake, self._hold_ends)
            if not self._in_flight and wake >= self._deadline:
                break
            completed = self._executor.next(max(wake - now, 0.0))
            if completed is not None:
                self._take_in(completed)
        return self._conclude()

    def _collect_due(self, now: float) -> None:
        if not self._later or self._later[0][0] > now:
            return
        together = now + self._open * _TOGETHER_PER_SERVER
        reads: list[str] = []
        stops: list[str] = []
        not_yet = []
        while self._later and self._later[0][0] <= together:
            entry = heapq.heappop(self._later)
            due, _, coming, id_ = entry
            if due > now and not coming.early:
                not_yet.append(entry)
                continue
            match coming.step:
                case Step.READ:
                    reads.append(id_)
                case Step.STOP:
                    stops.append(id_)
                case Step.HISTORY:
                    self._asks.append((coming.step, (id_,)))
                case unreachable:
                    assert_never(unreachable)
        for entry in not_yet:
            heapq.heappush(self._later, entry)
        self._stops.extend(self._cloud.stop_groups(stops) if stops else ())
        self._asks.extend((Step.READ, group) for group in (self._cloud.read_groups(reads) if reads else ()))

    def _release_held(self) -> None:
        """Announce the stops that were held back, once every first decision is there or was waited for; send them."""
        if not self._held or (self._undecided and self._executor.monotonic() < self._hold_ends):
            return
        assert self._hooks.announce is not None
        self._hooks.before_first_stop(self._open)
        self._any_stop = True
        self._hooks.announce([Candidate(task.id, task.name) for task in self._tasks.values() if task.result is None])
        now = self._executor.monotonic()
        fresh = [id_ for id_, decided_at in self._held if now - decided_at <= _FRESH]
        stale = [id_ for id_, decided_at in self._held if now - decided_at > _FRESH]
        self._held.clear()
        if fresh:
            self._stops.extend(self._cloud.stop_groups(fresh))
        for id_ in stale:
            heapq.heappush(self._later, (now, next(self._order), Next(Step.READ, now), id_))

    def _send(self) -> None:
        # Stops are first: the shorter the time between a read and the stop, the less can change in it.
        if self._stops and not self._any_stop:
            self._hooks.before_first_stop(self._open)
            self._any_stop = True
        while self._stops and self._in_flight < self._width:
            self._start(Step.STOP, self._stops.popleft())
        while self._asks and self._in_flight < self._width:
            self._start(*self._asks.popleft())

    def _start(self, step: Step, ids: Sequence[str], *, probe: bool = False) -> None:
        self._in_flight += 1
        self._executor.start(
            lambda: call(step, ids, self._cloud, self._executor.monotonic, self._deadline, probe=probe)
        )

    def _take_in(self, completed: CompletedCall) -> None:
        self._in_flight -= 1
        if isinstance(completed.failure, CloudError) and completed.failure.concerns_all:
            raise completed.failure
        if completed.failure is not None:
            _LOG.error("a call of the run failed", exc_info=completed.failure)
            raise InternalError("a call to the cloud failed in an unexpected way") from completed.failure
        self._observations.note(completed)
        self._backoff.cache_clear()
        if completed.probe:
            self._probing = False
        else:
            self._learn(completed)

    def _learn(self, completed: CompletedCall) -> None:
        """Pass each answer to the task of its server, and record its next call."""
        time_ended, now = self._executor.monotonic(), self._executor.now()
        for id_ in completed.ids:
            task, answer = self._tasks[id_], completed.answers.get(id_)
            if answer is None:
                continue
            if time_ended > self._deadline - _GRAIN and isinstance(answer, CloudUnreachable) and answer.status is None:
                # The deadline ended the call. That is not a failure of the cloud: earlier reads still count, and
                # if they failed, their error says more.
                if not task.failures.failing:
                    task.failures.error = answer
                continue
            if isinstance(answer, CloudError) and (completed.step is not Step.HISTORY or gap_of(answer) is None):
                self._hooks.on_failure(answer)
            others_seen, others_taken = self._observations.newest(id_), self._observations.others_taken(id_)
            at = Moment(completed.began, time_ended, now, others_seen, others_taken, self._open)
            coming: Next | None
            match answer:
                case Taken() | DryRunStop():
                    coming = task.on_stop(answer, at)
                case Server() | Pending() | ReadSingly() | StopFailed():
                    coming = task.on_read(answer, at)
                case History():
                    coming = task.on_history(answer, at)
                case _ if completed.step is Step.STOP:
                    coming = task.on_stop(answer, at)
                case _ if completed.step is Step.HISTORY:
                    coming = task.on_history(answer, at)
                case _:
                    coming = task.on_read(answer, at)
            if not isinstance(answer, ReadSingly) and (coming is None or coming.step is not Step.HISTORY):
                self._undecided.discard(id_)
            if coming is None:
                self._ended(task)
            elif coming.step is Step.STOP and self._hooks.announce is not None and not self._any_stop:
                self._held.append((id_, time_ended))
            elif coming.step is Step.STOP and self._cloud.one_by_one:
                # At once: going through a thousand servers takes as long as the cloud takes to answer a call.
                self._stops.append((id_,))
                self._send()
            else:
                heapq.heappush(self._later, (coming.due, next(self._order), coming, id_))
            if task.needs_probe:
                self._probe(task)

    def _ended(self, task: ServerTask) -> None:
        assert task.result is not None
        self._open -= 1
        self._hooks.on_result(task.result)

    def _probe(self, task: ServerTask) -> None:
        """Read another server, to learn whether the cloud is down or just this one server cannot be read."""
        if self._probing or self._observations.newest(task.id) > task.failures.failing_since:
            return
        other = self._observations.another(task.id)
        if other is not None:
            self._probing = True
            self._start(Step.READ, (other,), probe=True)

    def _conclude(self) -> tuple[ServerResult, ...]:
        undone = []
        for task in self._tasks.values():
            if task.result is not None:
                continue
            if task.on_time_up():
                self._ended(task)
            else:
                undone.append(task)
        if undone:
            errors = [error for task in undone if (error := task.failures.error) is not None]
            names = sorted({error.name for error in errors}) or ["the time was too short"]
            last = next(iter(errors), None)
            asked = [error.retry_after for error in errors if error.retry_after is not None]
            raise BudgetSpent(
                f"{len(undone)} of {len(self._tasks)} servers not handled in time ({', '.join(names)})"
                f"{f'; the last failure: {last.cause}' if last else ''}.",
                last=last,
                retry_after=max(asked, default=None),
            ) from last
        return tuple(task.result for task in self._tasks.values() if task.result is not None)
