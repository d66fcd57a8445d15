"""One run for each event in this process, also if the event is delivered again meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import replace

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
    return replace(request, server_ids=tuple(sorted(ids)), time=time_, traceparent=None, tracestate=None)


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
        self._running: dict[tuple[str, str], list[tuple[StopRequest, Future[Report]]]] = {}

    def report(self, request: StopRequest, deadline: float, run: Callable[[], Report]) -> Report:
        """Run the event, or wait for the run of the same event that has begun, and share its report or its error.

        An event is the same if `source`, `id` and everything that it asks for are; its trace context may differ, and so
        may its `time` where that decides nothing.

        Args:
            request: the event.
            run: returns the report, or raises.
            deadline: of this delivery, in seconds on the monotonic clock.

        Raises:
            EventInProgress: too many deliveries wait already.
            BudgetSpent: the other run did not end in time.
            RetryableError: from the run.
        """
        key, content = (request.source, request.id), _content(request)
        with self._lock:
            same = next((future for other, future in self._running.get(key, ()) if other == content), None)
            if same is None:
                mine: Future[Report] = Future()
                self._running.setdefault(key, []).append((content, mine))
            elif self._waiting >= self._most_waiting:
                raise EventInProgress(
                    "This event is being handled, and too many deliveries of it wait.", retry_after=5.0
                )
            else:
                self._waiting += 1
        if same is not None:
            return self._wait(same, deadline)
        try:
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
