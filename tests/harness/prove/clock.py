"""The one clock of a held world: the function, the cloud, the broker and the people all live by it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

# Far ahead of any real clock, so that nothing that peeks at the real one finds a token expired.
_START = datetime(2040, 1, 1, 12, 0, 0, 250_000, tzinfo=UTC).timestamp()


class Clock:
    """Time that passes only when somebody lets it.

    Attributes:
        passed: called with the new time after each advance.
    """

    def __init__(self) -> None:
        self._seconds = 0.0
        self.passed: Callable[[], None] = lambda: None

    def monotonic(self) -> float:
        """Seconds since the world began."""
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
        self.passed()
