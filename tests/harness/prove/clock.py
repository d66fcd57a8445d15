"""The simulated clock: the function, the cloud, the broker and the users of an environment all read this one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

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
        """Seconds since the environment began."""
        return self._seconds

    def time(self) -> float:
        """Seconds since the epoch."""
        return _START + self._seconds

    def now(self) -> datetime:
        """Wall time, aware, UTC."""
        return datetime.fromtimestamp(self.time(), UTC)

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._seconds += max(seconds, 0.0)
        self.on_advance()
