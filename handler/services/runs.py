"""One run for each event in this process, also if the event is delivered again meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout

from handler.errors import BudgetSpent, EventInProgress, ShuttingDown
from handler.stop.model import Report, StopRequest


def _content(request: StopRequest) -> StopRequest:
    """Return what deliveries of one event have in common; the order of its servers does not count.

    An event that says for each server since when its condition has held is decided by that, if it is not later than its
    `time`. Alarms of Alertmanager are such: `receive_webhook` gives each delivery a `time` of its own.
    """
    time_, ids = request.time, request.server_ids
    moments = [request.since_of(server_id) for server_id in ids]
    settled = bool(ids) and time_ is not None and all(moment is not None and moment <= time_ for moment in moments)
    time_ = None if settled else time_
    return request._replace(server_ids=tuple(sorted(ids)), time=time_, traceparent=None, tracestate=None)


class Runs:
    """The runs of events in this process.

    Args:
        most_waiting: deliveries that may wait for the run of another one at a time; each of them holds a thread.
        monotonic: the clock, in seconds.
        wait: returns the report of a run within so many seconds, as `Future.result` does.
    """

    def __init__(
        self,
        most_waiting: int,
        monotonic: Callable[[], float] = time.monotonic,
        wait: Callable[[Future[Report], float], Report] = Future.result,
    ) -> None:
        self._most_waiting = most_waiting
        self._monotonic = monotonic
        self._wait_for = wait
        self._lock = threading.Lock()
        self._waiting = 0
        # By `source` and `id` of an event, or by the token of the plan that it approves.
        self._running: dict[tuple[str, str] | str, list[tuple[StopRequest, Future[Report]]]] = {}

    def report(self, request: StopRequest, deadline: float, run: Callable[[], Report]) -> Report:
        """Run the event, or wait for the run of the same event that has begun, and share its report or its error.

        An event is the same if `source`, `id` and everything that it asks for are; its trace context may differ, and so
        may its `time` where that decides nothing. Approvals of one plan run one after the other, so that a later one
        reads what an earlier one has changed: Nova takes several stops of one server at once.

        Args:
            request: the event.
            run: returns the report, or raises.
            deadline: of this delivery, in seconds on the monotonic clock.

        Raises:
            EventInProgress: too many deliveries wait already.
            BudgetSpent: the other run did not end in time.
            RetryableError: from the run.
        """
        key = request.plan or (request.source, request.id)
        content = _content(request)
        mine: Future[Report] = Future()
        with self._lock:
            running = self._running.get(key, [])
            same = next((future for other, future in running if other == content), None)
            earlier = [future for _, future in running] if request.plan else []
            waits = same is not None or bool(earlier)
            if waits and self._waiting >= self._most_waiting:
                raise EventInProgress(
                    "This event or plan is being handled, and too many deliveries of it wait.", retry_after=5.0
                )
            self._waiting += waits
            if same is None:
                self._running.setdefault(key, []).append((content, mine))
        if same is not None:
            return self._wait(same, deadline)
        try:
            if earlier:
                self._wait_for_all(earlier, deadline)
            report = run()
        except BaseException as failure:
            # An exception that ends this thread alone is not a result for the deliveries that wait.
            shared = failure if isinstance(failure, Exception) else ShuttingDown("The run of this event was ended.")
            mine.set_exception(shared)
            raise
        else:
            mine.set_result(report)
            return report
        finally:
            with self._lock:
                left = [entry for entry in self._running[key] if entry[1] is not mine]
                if left:
                    self._running[key] = left
                else:
                    del self._running[key]

    def _wait(self, run: Future[Report], deadline: float) -> Report:
        try:
            return self._wait_for(run, max(deadline - self._monotonic(), 0.0))
        except FutureTimeout:
            raise BudgetSpent("The run of another delivery of this event did not end in time.") from None
        finally:
            with self._lock:
                self._waiting -= 1

    def _wait_for_all(self, runs: Sequence[Future[Report]], deadline: float) -> None:
        """Wait until runs have ended, however they end."""
        try:
            for run in runs:
                try:
                    self._wait_for(run, max(deadline - self._monotonic(), 0.0))
                except FutureTimeout:
                    if not run.done():
                        raise BudgetSpent("The run of another approval of this plan did not end in time.") from None
                except Exception:
                    # What it ended with is for its own deliveries.
                    continue
        finally:
            with self._lock:
                self._waiting -= 1
