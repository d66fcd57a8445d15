"""The executor of a run: threads, and the real clock."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from handler.stop.executor import ThreadExecutor

# Far longer than anything here takes: it only ends a test that would hang otherwise.
_LONG = 30.0


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    """Two threads."""
    with ThreadPoolExecutor(2) as executor:
        yield executor


def test_a_call_is_made_in_another_thread_and_its_result_handed_over(threads: ThreadPoolExecutor) -> None:
    """The run gets what the call returned, and was not the one to make it."""
    executor: ThreadExecutor[int] = ThreadExecutor(threads)
    executor.start(threading.get_ident)
    assert executor.next(_LONG) not in (None, threading.get_ident())


def test_the_run_gives_way_to_a_call_and_does_not_wait_for_it(
    threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No time passes between a call that is started and the next."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    executor: ThreadExecutor[int] = ThreadExecutor(threads)
    executor.start(threading.get_ident)
    assert slept == [0]
    assert executor.next(_LONG) is not None


def test_results_come_in_the_order_in_which_calls_end(threads: ThreadPoolExecutor) -> None:
    """A slow call holds up no other."""
    executor: ThreadExecutor[str] = ThreadExecutor(threads)
    gate = threading.Event()
    executor.start(lambda: "slow" if gate.wait(_LONG) else "never")
    executor.start(lambda: "quick")
    assert executor.next(_LONG) == "quick"
    gate.set()
    assert executor.next(_LONG) == "slow"


def test_waiting_ends_without_a_result_when_the_time_is_up(threads: ThreadPoolExecutor) -> None:
    """None says that nothing has ended; the call's result still comes later."""
    executor: ThreadExecutor[str] = ThreadExecutor(threads)
    gate = threading.Event()
    executor.start(lambda: "late" if gate.wait(_LONG) else "never")
    assert executor.next(0.0) is None
    gate.set()
    assert executor.next(_LONG) == "late"


def test_two_runs_share_the_threads_and_not_the_results(threads: ThreadPoolExecutor) -> None:
    """What one run started, no other gets."""
    one: ThreadExecutor[str] = ThreadExecutor(threads)
    two: ThreadExecutor[str] = ThreadExecutor(threads)
    one.start(lambda: "for one")
    assert one.next(_LONG) == "for one"
    two.start(lambda: "for two")
    assert two.next(_LONG) == "for two"
    assert one.next(0.0) is None


def test_the_clocks_are_the_real_ones(threads: ThreadPoolExecutor) -> None:
    """Wall time is aware and in UTC; the other clock only grows."""
    executor: ThreadExecutor[None] = ThreadExecutor(threads)
    assert executor.now().utcoffset() == timedelta(0)
    assert abs(executor.now() - datetime.now(UTC)) < timedelta(minutes=1)
    assert time.monotonic() <= executor.monotonic() <= executor.monotonic()
