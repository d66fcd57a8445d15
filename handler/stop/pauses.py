"""The pauses before calls are repeated."""

from __future__ import annotations

import random
from collections.abc import Callable

_FIRST_POLL = 0.015
_POLL_GROWTH = 3.0
_LONGEST_POLL = 3.0
# Many servers are watched with a list or a job: the more there are, the longer they wait for each other.
_POLL_PER_SERVER = 0.002
_LONGEST_POLL_IN_CROWD = 5.0
_CROWD = 100


def backoff(attempt: int) -> float:
    """Return the seconds to wait after the n-th failure in a row: doubling from 0.5 to 8, less up to a half."""
    return min(0.5 * 2.0 ** (attempt - 1), 8.0) * random.uniform(0.5, 1.0)


class Pauses:
    """Random pauses, the same for all servers of one answer, so that they are read together again.

    A class of its own, since a task with a reference to its run would be a reference cycle, which is freed late.
    """

    def __init__(self, backoff: Callable[[int], float]) -> None:
        self._backoff = backoff
        self._drawn: dict[int, float] = {}

    def renew(self) -> None:
        """Begin the next answer."""
        self._drawn.clear()

    def after(self, attempt: int) -> float:
        """Return the seconds to wait after the n-th failure in a row."""
        return self._drawn.setdefault(attempt, self._backoff(attempt))


class Polls:
    """The growing pauses between the reads of one server."""

    def __init__(self) -> None:
        self._made = 0

    def pause(self, crowd: int) -> float:
        """Return the seconds until the next read, if so many servers of the event have no result yet."""
        self._made += 1
        first = max(_FIRST_POLL, crowd * _POLL_PER_SERVER)
        longest = _LONGEST_POLL_IN_CROWD if crowd >= _CROWD else _LONGEST_POLL
        return min(first * _POLL_GROWTH ** min(self._made - 1, 9), longest)
