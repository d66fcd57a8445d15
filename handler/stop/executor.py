"""Threads that make the calls of a run, and the real clock."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from concurrent.futures import Executor
from datetime import UTC, datetime
from typing import Generic

from handler.stop.ports import Result


class ThreadExecutor(Generic[Result]):
    """Runs the calls of one run on an executor that several runs may share."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._ended: queue.SimpleQueue[Result] = queue.SimpleQueue()

    def now(self) -> datetime:
        """Return the wall time, aware, UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return the monotonic time in seconds."""
        return time.monotonic()

    def start(self, call: Callable[[], Result]) -> None:
        """Make `call` in a thread, and let it begin before the run continues."""
        self._executor.submit(lambda: self._ended.put(call()))
        # Otherwise Python switches threads after 5 ms only, and a thread that sends needs several switches.
        time.sleep(0)

    def next(self, timeout: float) -> Result | None:
        """Return the result of a call that ended, or None after `timeout` seconds without one."""
        try:
            return self._ended.get(timeout=timeout)
        except queue.Empty:
            return None
