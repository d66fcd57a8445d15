"""Several keeps of one server, each in a process of its own: whatever the order of their calls, the latest time wins.

The time is simulated: each call takes effect some while after it was sent, and is answered some while after that. The
processes know nothing of each other, and Nova compares nothing before it writes.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from handler.errors import CloudError
from handler.keep.decide import written
from handler.keep.model import KeepResult, Outcome
from handler.keep.runner import KeepTask
from handler.stop.model import Server
from handler.stop.ports import Seen
from tests.keep.fakes import ID, KEY, NOW, hours


class Schedule:
    """Lets one thread run at a time, each until it waits, in the order of simulated time."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._waiting: list[tuple[float, int, threading.Event]] = []
        self._numbers = itertools.count()
        self._idle = threading.Semaphore(0)

    def wait(self, seconds: float) -> None:
        """Wait in the calling thread."""
        turn = threading.Event()
        heapq.heappush(self._waiting, (self.seconds + seconds, next(self._numbers), turn))
        self._idle.release()
        turn.wait()

    def run(self, threads: Sequence[threading.Thread]) -> None:
        """Run threads to their end; the first thing that each does must be to wait."""
        for thread in threads:
            thread.start()
            self._idle.acquire()
        while self._waiting:
            self.seconds, _, turn = heapq.heappop(self._waiting)
            turn.set()
            self._idle.acquire()
        for thread in threads:
            thread.join()

    def finished(self) -> None:
        """Tell that the calling thread ends."""
        self._idle.release()


class Process:
    """The cloud and the clock as one process has them.

    Args:
        latencies: seconds, used in turn: from sending to effect, from effect to answer.
    """

    def __init__(self, schedule: Schedule, metadata: dict[str, str], latencies: Sequence[float]) -> None:
        self._schedule = schedule
        self._metadata = metadata
        self._latencies = itertools.cycle(latencies)

    def now(self) -> datetime:
        return NOW + timedelta(seconds=self._schedule.seconds)

    def monotonic(self) -> float:
        return self._schedule.seconds

    def sleep(self, seconds: float) -> None:
        self._schedule.wait(seconds)

    def read(self, ids: Sequence[str], timeout: float) -> Mapping[str, Seen]:
        del timeout
        self.sleep(next(self._latencies))
        shown = Server(ID, "active", metadata=dict(self._metadata))
        self.sleep(next(self._latencies))
        return dict.fromkeys(ids, shown)

    def keep(self, server_id: str, until: str, timeout: float) -> str | None:
        del server_id, timeout
        self.sleep(next(self._latencies))
        self._metadata[KEY] = until
        self.sleep(next(self._latencies))
        return None

    def release(self, server_id: str, key: str, timeout: float) -> str | None:
        raise AssertionError((server_id, key, timeout))


# Another process reads and writes within less than the shortest pause.
LATENCIES = st.lists(st.floats(0.0, 0.2), min_size=1, max_size=8)
KEEPS = st.lists(st.tuples(st.integers(1, 20), st.floats(0.0, 2.0), LATENCIES), min_size=2, max_size=4)


@settings(max_examples=150)
@given(KEEPS, st.none() | st.integers(-5, 20))
def test_the_latest_time_wins(keeps: list[tuple[int, float, list[float]]], present: int | None) -> None:
    """And no process says kept of a time that is not reached."""
    schedule = Schedule()
    metadata = {KEY: written(hours(present))} if present is not None else {}
    results: list[KeepResult | CloudError] = []

    def process(wanted: int, start: float, latencies: list[float]) -> None:
        own = Process(schedule, metadata, latencies)
        own.sleep(start)
        try:
            results.append(
                KeepTask(ID, hours(wanted), ("autostop", "never"), own.read, own, own, 1e6, lambda _: 1.0).run()
            )
        finally:
            schedule.finished()

    schedule.run([threading.Thread(target=process, args=keep) for keep in keeps])
    latest = max([wanted for wanted, _, _ in keeps] + ([present] if present is not None else []))
    assert metadata[KEY] == written(hours(latest))
    assert len(results) == len(keeps)
    assert all(isinstance(one, KeepResult) and one.outcome in (Outcome.KEPT, Outcome.UNCHANGED) for one in results)
