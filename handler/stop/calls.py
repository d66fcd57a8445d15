"""Calls to the cloud: which a server needs next, their timeouts, their results, and what all of them show."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple, assert_never

from handler.stop.evidence import History
from handler.stop.model import Server
from handler.stop.ports import Cloud, DryRunStop, Seen, Taken

# No single exchange may use the whole budget; a working cloud answers in well under a second.
_CALL_TIMEOUT = 10.0
# A list of many servers, or a stop of many, takes longer.
_TIMEOUT_PER_SERVER = 0.1

Answer = Seen | History | Taken | DryRunStop


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
        completed: when its answer was received.
        now: wall time at `completed`.
        others_seen: start of the newest call that showed another server, or -inf.
        others_taken: whether the cloud accepted the stop of another server.
        unfinished: the number of servers of the event without a result, this one included.
    """

    began: float
    completed: float
    now: datetime
    others_seen: float
    others_taken: bool
    unfinished: int = 1


class CompletedCall(NamedTuple):
    """A call that has ended.

    Attributes:
        answers: the result for each server that it was about.
        failure: the error for all of them: a refused login, or a bug.
        probe: whether it was made only to learn whether the cloud still answers.
    """

    step: Step
    ids: Sequence[str]
    began: float
    answers: Mapping[str, Answer]
    failure: Exception | None = None
    probe: bool = False


class Observations:
    """What the answers to all calls of one event show about the cloud."""

    def __init__(self) -> None:
        # Start of the newest read that showed a server, and of the newest that showed any other one: one of the two
        # is about "another" one for any server.
        self._newest: list[tuple[float, str]] = []
        self._taken: set[str] = set()

    def note(self, completed: CompletedCall) -> None:
        """Record what the answers of one call show; those about servers that were not requested are ignored."""
        for id_ in completed.ids:
            answer = completed.answers.get(id_)
            if isinstance(answer, Server):
                others = [seen for seen in self._newest if seen[1] != id_]
                self._newest = sorted([*others, (completed.began, id_)], reverse=True)[:2]
            elif isinstance(answer, Taken):
                self._taken.add(id_)

    def newest(self, id_: str) -> float:
        """Return the start of the newest call that showed another server than this one, or -inf."""
        return next((began for began, seen in self._newest if seen != id_), float("-inf"))

    def another(self, id_: str) -> str | None:
        """Return a server other than this one that was seen, or None."""
        return next((seen for _, seen in self._newest if seen != id_), None)

    def others_taken(self, id_: str) -> bool:
        """Whether the cloud accepted the stop of another server than this one."""
        return any(taken != id_ for taken in self._taken)


def call(
    step: Step,
    ids: Sequence[str],
    cloud: Cloud,
    monotonic: Callable[[], float],
    deadline: float,
    *,
    probe: bool,
) -> CompletedCall:
    """Make one call; it is not made if its time is up. Never raises."""
    began = monotonic()
    timeout = min(deadline - began, _CALL_TIMEOUT + (len(ids) - 1) * _TIMEOUT_PER_SERVER)
    completed = CompletedCall(step, ids, began, {}, probe=probe)
    if timeout <= 0:
        return completed
    try:
        answers: Mapping[str, Answer]
        match step:
            case Step.READ:
                answers = cloud.read(ids, timeout)
            case Step.STOP:
                answers = cloud.stop(ids, timeout)
            case Step.HISTORY:
                answers = {ids[0]: cloud.history(ids[0], timeout)}
            case unreachable:
                assert_never(unreachable)
        return completed._replace(answers=answers)
    except Exception as failure:
        return completed._replace(failure=failure)
