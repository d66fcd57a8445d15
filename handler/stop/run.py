"""The run of one event: all its servers, in rounds, within one time budget.

No thread waits for a server. The run keeps a few calls in flight, takes in each answer as it comes, and looks at a
server again when that server is due; one that is slow, busy or throttled holds up no other.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, assert_never

from handler.errors import BudgetSpent, CloudUnreachable, InternalFault, LoginRefused
from handler.stop.case import Case, Moment, Next, Step
from handler.stop.decide import refuse
from handler.stop.evidence import History
from handler.stop.model import Policy, Report, Server, ServerResult, StopRequest
from handler.stop.ports import Cloud, Crew, Pending, Rehearsed, Seen, StopFailed, Taken

_LOG = logging.getLogger(__name__)

# No single exchange may eat the whole budget; a live cloud answers in well under a second.
_CALL_TIMEOUT = 10.0
# A list of many servers, or a stop of many, takes a cloud longer.
_TIMEOUT_PER_SERVER = 0.1
# Reads that are due within this many seconds for each open server are made together, where that does no harm.
_TOGETHER_PER_SERVER = 0.003
# A call that may last to the deadline ends there, but for the last digits of the clock.
_GRAIN = 0.001

Answer = Seen | History | Taken | Rehearsed


class Ended(NamedTuple):
    """A call that came to an end.

    Attributes:
        answers: what it brought for each server that it was about.
        failure: what ended it for all of them: a refused login, or a bug.
        witness: it was made only to learn whether the cloud still answers.
    """

    step: Step
    ids: Sequence[str]
    began: float
    answers: Mapping[str, Answer]
    failure: Exception | None = None
    witness: bool = False


def backoff(attempt: int) -> float:
    """Seconds to wait after the `attempt`-th failure in a row: doubling from 0.5 to 8, less up to a half."""
    return min(0.5 * 2.0 ** (attempt - 1), 8.0) * random.uniform(0.5, 1.0)


def run(
    request: StopRequest,
    policy: Policy,
    cloud: Cloud,
    crew: Crew[Ended],
    *,
    deadline: float,
    width: int,
    dry_run: bool,
    backoff: Callable[[int], float] = backoff,
    told: Callable[[ServerResult], None] = lambda _: None,
) -> Report:
    """Handle one event.

    Args:
        cloud: for a dry run, one that cannot write.
        deadline: end of the budget on the crew's monotonic clock.
        width: calls in flight at most.
        dry_run: what the report says about itself.
        backoff: seconds to wait after the n-th failure in a row.
        told: is given each server's result as soon as there is one, also if the event must come again in the end.

    Returns:
        The report: a refusal, or a result for each server.

    Raises:
        BudgetSpent: not every server could be handled; what was done stays done, and a redelivery finds it.
        LoginRefused: the cloud refused the login.
        CallDenied: the login may not list servers, so there is no telling which ones the selector fits.
        InternalFault: a bug.
    """
    started_at = crew.now()
    refusal = refuse(request, policy, started_at)
    servers: tuple[ServerResult, ...] = ()
    detail, look = None, None
    if refusal is None and request.selector is not None:
        from handler.stop.selection import news, select

        found = select(request.selector, cloud, crew, deadline=deadline, backoff=backoff)
        detail = news(len(found.servers), policy)
        chosen = replace(request, server_ids=tuple(found.servers))
        refusal = refuse(chosen, policy, crew.now())
        if refusal is None:
            request, look = chosen, Ended(Step.READ, chosen.server_ids, found.began, found.servers)
    if refusal is None:
        servers = _Rounds(request, policy, cloud, crew, deadline, width, backoff, told).results(look)
    return Report(request, cloud.api, dry_run, refusal, servers, started_at, crew.now(), detail)


class _Pauses:
    """Pauses with chance in them, the same for all servers of one answer: they are looked at together again.

    A thing of its own, since a case that knew its run would make a ring of all that the run holds, and a ring is freed
    late.
    """

    def __init__(self, backoff: Callable[[int], float]) -> None:
        self._backoff = backoff
        self._drawn: dict[int, float] = {}

    def renew(self) -> None:
        """The next answer begins."""
        self._drawn.clear()

    def after(self, attempt: int) -> float:
        """Seconds to wait after the `attempt`-th failure in a row."""
        return self._drawn.setdefault(attempt, self._backoff(attempt))


class _Rounds:
    def __init__(
        self,
        request: StopRequest,
        policy: Policy,
        cloud: Cloud,
        crew: Crew[Ended],
        deadline: float,
        width: int,
        backoff: Callable[[int], float],
        told: Callable[[ServerResult], None],
    ) -> None:
        self._told = told
        self._cloud = cloud
        self._crew = crew
        self._deadline = deadline
        self._width = width
        self._pauses = _Pauses(backoff)
        self._cases = {id_: Case(id_, request, policy, self._pauses.after) for id_ in request.server_ids}
        self._open = len(self._cases)
        self._later: list[tuple[float, int, Next, str]] = []
        self._order = itertools.count()
        self._stops: deque[Sequence[str]] = deque()
        self._asks: deque[tuple[Step, Sequence[str]]] = deque()
        self._in_flight = 0
        self._witness_called = False
        # Start of the newest read that showed a server, and of the newest that showed any other one.
        self._newest_seen: list[tuple[float, str]] = []
        self._taken_ids: set[str] = set()

    def results(self, look: Ended | None) -> tuple[ServerResult, ...]:
        """Go over the servers until each has a result or the budget ends.

        Args:
            look: a read that showed all of them; None if there was none.
        """
        if look is None:
            self._asks.extend((Step.READ, group) for group in self._cloud.read_groups(list(self._cases)))
        else:
            self._note(look)
            self._learn(look)
        while self._open:
            now = self._crew.monotonic()
            if now >= self._deadline:
                break
            self._collect_due(now)
            self._send()
            wake = min(self._later[0][0] if self._later else self._deadline, self._deadline)
            if not self._in_flight and wake >= self._deadline:
                break
            ended = self._crew.next(max(wake - now, 0.0))
            if ended is not None:
                self._take_in(ended)
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

    def _send(self) -> None:
        # Stops go first: the shorter the time between a look and the stop, the less can change in it.
        while self._stops and self._in_flight < self._width:
            self._start(Step.STOP, self._stops.popleft())
        while self._asks and self._in_flight < self._width:
            self._start(*self._asks.popleft())

    def _start(self, step: Step, ids: Sequence[str], *, witness: bool = False) -> None:
        self._in_flight += 1
        self._crew.start(lambda: self._call(step, ids, witness))

    def _call(self, step: Step, ids: Sequence[str], witness: bool) -> Ended:
        """Make one call. Runs in a thread of the crew and touches nothing of the run's state."""
        began = self._crew.monotonic()
        timeout = min(self._deadline - began, _CALL_TIMEOUT + (len(ids) - 1) * _TIMEOUT_PER_SERVER)
        ended = Ended(step, ids, began, {}, witness=witness)
        if timeout <= 0:
            return ended
        try:
            answers: Mapping[str, Answer]
            match step:
                case Step.READ:
                    answers = self._cloud.read(ids, timeout)
                case Step.STOP:
                    answers = self._cloud.stop(ids, timeout)
                case Step.HISTORY:
                    answers = {ids[0]: self._cloud.history(ids[0], timeout)}
                case unreachable:
                    assert_never(unreachable)
            return ended._replace(answers=answers)
        except Exception as failure:
            return ended._replace(failure=failure)

    def _take_in(self, ended: Ended) -> None:
        self._in_flight -= 1
        if isinstance(ended.failure, LoginRefused):
            raise ended.failure
        if ended.failure is not None:
            _LOG.error("a call of the run failed", exc_info=ended.failure)
            raise InternalFault("a call to the cloud failed in an unexpected way") from ended.failure
        self._note(ended)
        self._pauses.renew()
        if ended.witness:
            self._witness_called = False
        else:
            self._learn(ended)

    def _learn(self, ended: Ended) -> None:
        """Tell each server's case what came back, and note what it needs next."""
        time_ended, now = self._crew.monotonic(), self._crew.now()
        for id_ in ended.ids:
            case, answer = self._cases[id_], ended.answers.get(id_)
            if answer is None:
                continue
            if time_ended > self._deadline - _GRAIN and isinstance(answer, CloudUnreachable) and answer.status is None:
                # Our own deadline cut it off. That is no sign of trouble, and what was seen before still holds.
                case.fault = answer
                continue
            at = Moment(ended.began, time_ended, now, self._others_seen(id_), self._others_taken(id_), self._open)
            coming: Next | None
            match answer:
                case Taken() | Rehearsed():
                    coming = case.on_stop(answer, at)
                case Server() | Pending() | StopFailed():
                    coming = case.on_read(answer, at)
                case History():
                    coming = case.on_history(answer, at)
                case _ if ended.step is Step.STOP:
                    coming = case.on_stop(answer, at)
                case _ if ended.step is Step.HISTORY:
                    coming = case.on_history(answer, at)
                case _:
                    coming = case.on_read(answer, at)
            if coming is None:
                self._ended(case)
            elif coming.step is Step.STOP and self._cloud.one_by_one:
                # At once: going through a thousand servers takes as long as the cloud takes to answer a call.
                self._stops.append((id_,))
                self._send()
            else:
                heapq.heappush(self._later, (coming.due, next(self._order), coming, id_))
            if case.needs_witness:
                self._call_witness(case)

    def _ended(self, case: Case) -> None:
        assert case.result is not None
        self._open -= 1
        self._told(case.result)

    def _note(self, ended: Ended) -> None:
        """Remember what this answer proves about the cloud: the two newest sightings tell of "another"."""
        for id_ in ended.ids:
            answer = ended.answers.get(id_)
            if isinstance(answer, Server):
                others = [seen for seen in self._newest_seen if seen[1] != id_]
                self._newest_seen = sorted([*others, (ended.began, id_)], reverse=True)[:2]
            elif isinstance(answer, Taken):
                self._taken_ids.add(id_)

    def _others_seen(self, id_: str) -> float:
        return next((began for began, seen in self._newest_seen if seen != id_), float("-inf"))

    def _others_taken(self, id_: str) -> bool:
        return any(taken != id_ for taken in self._taken_ids)

    def _call_witness(self, case: Case) -> None:
        """Read another server, to learn whether the cloud is down or just this one server can't be shown."""
        if self._witness_called or self._others_seen(case.id) > case.troubled_since:
            return
        other = next((id_ for _, id_ in self._newest_seen if id_ != case.id), None)
        if other is not None:
            self._witness_called = True
            self._start(Step.READ, (other,), witness=True)

    def _conclude(self) -> tuple[ServerResult, ...]:
        undone = []
        for case in self._cases.values():
            if case.result is not None:
                continue
            if case.on_time_up():
                self._ended(case)
            else:
                undone.append(case)
        if undone:
            faults = [case.fault for case in undone if case.fault is not None]
            causes = sorted({fault.name for fault in faults}) or ["the time was too short"]
            told = [fault.retry_after for fault in faults if fault.retry_after is not None]
            raise BudgetSpent(
                f"{len(undone)} of {len(self._cases)} servers not handled in time ({', '.join(causes)}).",
                retry_after=max(told, default=None),
            ) from next(iter(faults), None)
        return tuple(case.result for case in self._cases.values() if case.result is not None)
