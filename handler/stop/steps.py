"""The messages between a scheduler and its tasks: the next call, and the time of an answer."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import NamedTuple


class Step(StrEnum):
    """The call that a server needs next."""

    READ = "read"
    STOP = "stop"
    HISTORY = "history"


class Next(NamedTuple):
    """A call to make at `due` (on the executor's monotonic clock); not before, unless `early` allows it."""

    step: Step
    due: float
    early: bool = False


class Moment(NamedTuple):
    """The time of an answer, and what was known from other servers by then.

    Attributes:
        began: when the call began, on the monotonic clock.
        ended: when its answer was received.
        now: wall time at `ended`.
        others_seen: start of the newest call that showed another server, or -inf.
        others_taken: whether the cloud accepted the stop of another server.
        crowd: the number of servers of the event without a result, this one included.
    """

    began: float
    completed: float
    now: datetime
    others_seen: float
    others_taken: bool
    crowd: int = 1
