"""The pauses before calls are repeated."""

from __future__ import annotations

import random

_FIRST_POLL = 0.015
_POLL_GROWTH = 3.0
_LONGEST_POLL = 3.0
# Many servers are watched with a list or a job: the more there are, the longer they wait for each other.
_POLL_PER_SERVER = 0.002
_LONGEST_POLL_OF_MANY = 5.0
_MANY = 100


def backoff(attempt: int) -> float:
    """Return the seconds to wait after the n-th failure in a row: doubling from 0.5 to 8, less up to a half."""
    return min(0.5 * 2.0 ** (attempt - 1), 8.0) * random.uniform(0.5, 1.0)


def poll_pause(made: int, unfinished: int) -> float:
    """Return the seconds until the next read of a server.

    Args:
        made: the reads of it that were waited for before.
        unfinished: the servers of the event without a result.
    """
    first = max(_FIRST_POLL, unfinished * _POLL_PER_SERVER)
    longest = _LONGEST_POLL_OF_MANY if unfinished >= _MANY else _LONGEST_POLL
    return min(first * _POLL_GROWTH ** min(made, 9), longest)
