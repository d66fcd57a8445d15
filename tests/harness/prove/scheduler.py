"""Simulated time, and a cooperative scheduler: one task runs at a time, and only while it is stepped.

Every order can so be repeated. The function, the cloud, the broker and the users of an environment read one clock.

The tasks are threads, since the function is written for threads; each returns control where it pauses.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from datetime import UTC, datetime
from functools import partial
from random import Random
from typing import Any

# Seconds that pass for a task that waits while no other can run.
_IDLE = 0.25

_current = threading.local()
# Far ahead of any real clock, so that code that reads the real one finds no token expired.
_START = datetime(2040, 1, 1, 12, 0, 0, 250_000, tzinfo=UTC).timestamp()


class Clock:
    """Time that passes only when it is advanced.

    Attributes:
        on_advance: called after each advance.
    """

    def __init__(self) -> None:
        self._seconds = 0.0
        self.on_advance: Callable[[], None] = lambda: None

    def monotonic(self) -> float:
        return self._seconds

    def time(self) -> float:
        return _START + self._seconds

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.time(), UTC)

    def advance(self, seconds: float) -> None:
        self._seconds += max(seconds, 0.0)
        self.on_advance()


class Killed(BaseException):
    """The process of this task was killed."""


class Task:
    """Work that pauses at chosen points.

    Args:
        command: what it does it for; kept for the code that is called from within.
        order: 0 takes the first of several choices; any other number is the seed of another order.

    Attributes:
        wake: until when it sleeps or waits, in seconds on the simulated clock; 0 if it does neither.
        awaited: the future that it waits for, or None.
        waited: it has waited for the work of another task, or another one has waited in it.
    """

    def __init__(self, work: Callable[[], Any], command: Any, order: int = 0) -> None:
        self.command = command
        self.order = order
        self.wake = 0.0
        self.awaited: Future[Any] | None = None
        self.waited = False
        self.running = False
        self.done = False
        self.result: Any = None
        self.failure: BaseException | None = None
        self._work = work
        self._random = Random(order) if order else None
        self._killed = False
        self._pauses_left: int | None = 1
        self._resume, self._returned = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def step(self, pauses: int | None = 1) -> None:
        """Run it up to its next pause, or past some pauses; None for its end."""
        self._pauses_left = pauses
        self.running = True
        self._resume.release()
        self._returned.acquire()
        self.running = False
        if self.done:
            self._thread.join()

    def kill(self) -> None:
        self._killed = True
        while not self.done:
            self.step()

    def choose(self, among: int) -> int:
        """Return a number from 0 up to, not including, `among`."""
        return self._random.randrange(among) if self._random and among > 1 else 0

    @property
    def ready_at_once(self) -> bool:
        return self.awaited is not None and self.awaited.done()

    def _run(self) -> None:
        self._resume.acquire()
        _current.task = self
        try:
            if not self._killed:
                self.result = self._work()
        except BaseException as failure:
            self.failure = failure
        finally:
            self.done = True
            self._returned.release()

    def _pause(self) -> None:
        if self._killed:
            # It is unwinding already, and must not be stopped on the way.
            raise Killed
        if self._pauses_left is None:
            return
        self._pauses_left -= 1
        if self._pauses_left:
            return
        self._returned.release()
        self._resume.acquire()
        if self._killed:
            raise Killed


def current() -> Task:
    """Return the task that runs."""
    task = _current.task
    assert isinstance(task, Task)
    return task


def pause() -> None:
    """Hand control back to the code that stepped this task."""
    current()._pause()


def sleep(clock: Clock, seconds: float) -> None:
    """Let time pass for this task; others may use the same time."""
    task = current()
    task.wake = clock.monotonic() + seconds
    pause()
    clock.advance(task.wake - clock.monotonic())
    task.wake = 0.0


class Scheduler:
    """The tasks of one environment, one for each delivery, which may wait for each other's work."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tasks: list[Task] = []
        self._turns = 0

    def start(self, work: Callable[[], Any], command: Any, order: int) -> Task:
        """Make a task of a delivery; it runs when it is stepped."""
        task = Task(work, command, order)
        self._tasks.append(task)
        return task

    def wait(self, future: Future[Any], timeout: float) -> Any:
        """Take the place of `Future.result` in a task: other deliveries go on while this one waits.

        Args:
            timeout: seconds.

        Raises:
            TimeoutError: the future was not done in time.
        """
        task = current()
        task.wake, task.awaited = self._clock.monotonic() + timeout, future
        for chained in self._tasks:
            chained.waited = chained.waited or chained.running
        try:
            while not future.done():
                if self._clock.monotonic() >= task.wake:
                    raise TimeoutError
                self._run_another(task)
                pause()
        finally:
            task.wake, task.awaited = 0.0, None
        return future.result(0)

    def _run_another(self, task: Task) -> None:
        self._tasks = [one for one in self._tasks if not one.done]
        others = [one for one in self._tasks if not one.running]
        if not others:
            self._clock.advance(_IDLE)
            return
        self._turns += 1
        others[(self._turns + task.choose(len(others))) % len(others)].step()


class TaskPool:
    """Takes the place of the thread pools of a service that handle the events and the results of a batch."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __enter__(self) -> TaskPool:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def map(self, work: Callable[..., Any], *items: Iterable[Any]) -> list[Any]:
        """Do the work for all items side by side; the first failure is raised when all have ended."""
        parent = current()
        tasks = [
            Task(partial(work, *each), parent.command.part(each[0]), parent.order) for each in zip(*items, strict=False)
        ]
        try:
            turns = 0
            while running := [task for task in tasks if not task.done]:
                # They sleep at the same time, so the first to wake goes first; in other orders any may.
                first = min(task.wake for task in running)
                ready = [task for task in running if parent.order or task.wake == first or task.ready_at_once]
                ready[(turns + parent.choose(len(ready))) % len(ready)].step()
                turns += 1
                pause()
        finally:
            for task in tasks:
                task.kill()
        for task in tasks:
            if task.failure is not None:
                raise task.failure
        return [task.result for task in tasks]
