"""How long to wait before something is tried again."""

from __future__ import annotations

import random
from collections.abc import Callable


def backoff(attempt: int) -> float:
    """Seconds to wait after the `attempt`-th failure in a row: doubling from 0.5 to 8, less up to a half."""
    return min(0.5 * 2.0 ** (attempt - 1), 8.0) * random.uniform(0.5, 1.0)


class Pauses:
    """Pauses with chance in them, the same for all servers of one answer: they are looked at together again.

    A thing of its own, since a case that knew its run would make a ring of all that the run holds, and a ring is freed
    late.
    """

    def __init__(self, backoff: Callable[[int], float]) -> None:
        self._backoff = backoff
        self._drawn: dict[int, float] = {}

    def renew(self) -> None:
        """The next answer begins."""
        self._drawn.clear()

    def after(self, attempt: int) -> float:
        """Seconds to wait after the `attempt`-th failure in a row."""
        return self._drawn.setdefault(attempt, self._backoff(attempt))
