"""Messages that ask for no stop."""

from __future__ import annotations

from typing import NamedTuple

from handler.inbound.http.responses import Answer


class Skip(NamedTuple):
    """A well-formed message that asks for no stop.

    Attributes:
        reason: for the log, in a few words.
        response: to its sender.
        warn: whether the operator has to change something, so that the log line is a WARNING.
    """

    reason: str
    response: Answer = Answer(204)
    warn: bool = False
