"""The words that a run and its servers' cases speak: which call is needed next and when, and what moment it is."""

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
    """A call to make at `due` (on the crew's monotonic clock); not before, unless `early` allows it."""

    step: Step
    due: float
    early: bool = False


class Moment(NamedTuple):
    """When something was learnt, and what the rest of the event knew by then.

    Attributes:
        began: when the call began, on the monotonic clock.
        ended: when its answer was here.
        now: wall time at `ended`.
        others_seen: start of the newest call that showed another server, or -inf.
        others_taken: whether the cloud took the stop of another server.
        crowd: how many servers of the event are still open, this one included.
    """

    began: float
    completed: float
    now: datetime
    others_seen: float
    others_taken: bool
    crowd: int = 1
