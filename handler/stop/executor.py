"""The hands of a run: threads that make its calls, and the real clock."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from concurrent.futures import Executor
from datetime import UTC, datetime
from typing import Generic

from handler.stop.ports import Result


class ThreadExecutor(Generic[Result]):
    """A crew on an executor that several runs may share; each run has a queue of its own."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._ended: queue.SimpleQueue[Result] = queue.SimpleQueue()

    def now(self) -> datetime:
        """Wall time, aware, UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds that only grow."""
        return time.monotonic()

    def start(self, call: Callable[[], Result]) -> None:
        """Have a thread make `call`, and let it begin before the run goes on."""
        self._executor.submit(lambda: self._ended.put(call()))
        # Python lets whoever computes go on for 5 ms otherwise, and a thread that sends needs it several times.
        time.sleep(0)

    def next(self, timeout: float) -> Result | None:
        """The result of a call that ended, or None after `timeout` seconds without one."""
        try:
            return self._ended.get(timeout=timeout)
        except queue.Empty:
            return None
