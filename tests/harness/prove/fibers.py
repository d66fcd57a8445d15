"""Threads that take turns: one runs only while somebody steps it, so every interleaving can be chosen and repeated."""

from __future__ import annotations

import threading
from collections.abc import Callable
from random import Random
from typing import Any

from tests.harness.prove.clock import Clock

_here = threading.local()


class Killed(BaseException):
    """The process that ran this was ended in the middle."""


class Fiber:
    """Work that pauses at chosen points.

    Args:
        work: what it does.
        errand: what it does it for; anything, kept for those who are called from within.
        order: 0 takes what comes first first; any other number is the seed of another order.

    Attributes:
        wake: until when it sleeps, on the clock of whoever made it sleep; 0 if it does not.
    """

    def __init__(self, work: Callable[[], Any], errand: Any, order: int = 0) -> None:
        self.errand = errand
        self.order = order
        self.wake = 0.0
        self.done = False
        self.result: Any = None
        self.failure: BaseException | None = None
        self._work = work
        self._dice = Random(order) if order else None
        self._killed = False
        self._left: int | None = 1
        self._go, self._back = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def step(self, pauses: int | None = 1) -> None:
        """Let it run up to its next pause, or past some of them; None for its end."""
        self._left = pauses
        self._go.release()
        self._back.acquire()
        if self.done:
            self._thread.join()

    def kill(self) -> None:
        """End it where it stands."""
        self._killed = True
        while not self.done:
            self.step()

    def choose(self, among: int) -> int:
        """A number below `among`."""
        return self._dice.randrange(among) if self._dice and among > 1 else 0

    def _run(self) -> None:
        self._go.acquire()
        _here.fiber = self
        try:
            if not self._killed:
                self.result = self._work()
        except BaseException as failure:
            self.failure = failure
        finally:
            self.done = True
            self._back.release()

    def _pause(self) -> None:
        if self._killed:
            # On its way out already; what it still does on the way is not to stop it.
            raise Killed
        if self._left is None:
            return
        self._left -= 1
        if self._left:
            return
        self._back.release()
        self._go.acquire()
        if self._killed:
            raise Killed


def current() -> Fiber:
    """The fiber that runs."""
    fiber = _here.fiber
    assert isinstance(fiber, Fiber)
    return fiber


def pause() -> None:
    """Give the turn back to whoever stepped this fiber."""
    current()._pause()


def sleep(clock: Clock, seconds: float) -> None:
    """Let time pass for this fiber; others may use the same time."""
    fiber = current()
    fiber.wake = clock.monotonic() + seconds
    pause()
    clock.advance(fiber.wake - clock.monotonic())
    fiber.wake = 0.0


class Pool:
    """Stands in for the executors of a service for the events and the results of a batch: fibers, not threads."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def map(self, work: Callable[[Any], Any], items: list[Any]) -> list[Any]:
        """Do the work for all items at the same time, turn by turn; the first failure is raised when all have ended."""
        me = current()
        mine = [Fiber(lambda item=item: work(item), me.errand.part(item), me.order) for item in items]
        try:
            turns = 0
            while running := [fiber for fiber in mine if not fiber.done]:
                # They sleep at the same time, so whoever wakes first goes first; in other orders anybody may.
                first = min(fiber.wake for fiber in running)
                ready = running if me.order else [fiber for fiber in running if fiber.wake == first]
                ready[(turns + me.choose(len(ready))) % len(ready)].step()
                turns += 1
                pause()
        finally:
            for fiber in mine:
                fiber.kill()
        for fiber in mine:
            if fiber.failure is not None:
                raise fiber.failure
        return [fiber.result for fiber in mine]
