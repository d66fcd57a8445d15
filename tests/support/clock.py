"""A clock that a test sets."""

from __future__ import annotations


class FakeClock:
    """Time in seconds that passes only when a test says so, or sleeps.

    Attributes:
        slept: for how long each call of `sleep` slept.
    """

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds

    def sleep(self, seconds: float) -> None:
        """Stand in for `time.sleep`."""
        self.slept.append(seconds)
        self.now += seconds
