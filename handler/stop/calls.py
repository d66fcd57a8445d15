"""One call to the cloud, made by a hand of the crew: what it may take, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, assert_never

from handler.stop.evidence import History
from handler.stop.ports import Cloud, Rehearsed, Seen, Taken
from handler.stop.steps import Step

# No single exchange may eat the whole budget; a live cloud answers in well under a second.
_CALL_TIMEOUT = 10.0
# A list of many servers, or a stop of many, takes a cloud longer.
_TIMEOUT_PER_SERVER = 0.1

Answer = Seen | History | Taken | Rehearsed


class Ended(NamedTuple):
    """A call that came to an end.

    Attributes:
        answers: what it brought for each server that it was about.
        failure: what ended it for all of them: a refused login, or a bug.
        witness: it was made only to learn whether the cloud still answers.
    """

    step: Step
    ids: Sequence[str]
    began: float
    answers: Mapping[str, Answer]
    failure: Exception | None = None
    witness: bool = False


def call(
    step: Step,
    ids: Sequence[str],
    cloud: Cloud,
    monotonic: Callable[[], float],
    deadline: float,
    *,
    witness: bool = False,
) -> Ended:
    """Make one call; it is not made if its time is up. Never raises."""
    began = monotonic()
    timeout = min(deadline - began, _CALL_TIMEOUT + (len(ids) - 1) * _TIMEOUT_PER_SERVER)
    ended = Ended(step, ids, began, {}, witness=witness)
    if timeout <= 0:
        return ended
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
        return ended._replace(answers=answers)
    except Exception as failure:
        return ended._replace(failure=failure)
