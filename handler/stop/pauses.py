"""How long to wait before something is tried again, or looked at again."""

from __future__ import annotations

import random
from collections.abc import Callable

_FIRST_POLL = 0.015
_POLL_GROWTH = 3.0
_LONGEST_POLL = 3.0
# A crowd is watched with a list or a job: the larger it is, the more its servers wait for each other.
_POLL_PER_SERVER = 0.002
_LONGEST_POLL_IN_CROWD = 5.0
_CROWD = 100


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


class Polls:
    """The growing pauses between the looks at one server."""

    def __init__(self) -> None:
        self._made = 0

    def pause(self, crowd: int) -> float:
        """Seconds until the next look, when so many servers of the event are still open."""
        self._made += 1
        first = max(_FIRST_POLL, crowd * _POLL_PER_SERVER)
        longest = _LONGEST_POLL_IN_CROWD if crowd >= _CROWD else _LONGEST_POLL
        return min(first * _POLL_GROWTH ** min(self._made - 1, 9), longest)
