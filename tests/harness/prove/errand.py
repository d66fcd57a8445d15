"""What the function was shown and what it sent for one event in one delivery."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from handler.simulator import Action
from handler.simulator.compute.servers import ServerState
from handler.stop.model import StopRequest
from handler.stop.run import PreparedRequest
from tests.harness.prove.events import Asked


@dataclass(frozen=True, slots=True)
class Look:
    """A server as the cloud showed it: `at` is in seconds since the epoch."""

    at: float
    state: ServerState
    actions: tuple[Action, ...]


@dataclass(slots=True)
class Sent:
    """A stop that reached the wire.

    Attributes:
        at: when.
        basis: the read that it rests on, or None.
        taken_at: when the cloud took it, or None.
        request_id: of the recorded stop, if taken.
        answer: the status that came back; None if none did.
        late: it lay about on the way, and the cloud took it only after the function had given up on it.
    """

    at: float
    basis: Look | None
    taken_at: float | None = None
    request_id: str | None = None
    answer: int | None = None
    late: bool = False

    @property
    def ours(self) -> bool:
        """Whether the function has reason to hold that the cloud took it: told so, or left without a clear answer."""
        return self.answer is None or 200 <= self.answer < 300 or self.answer in (502, 504)


class Errand:
    """One event in one delivery; or the delivery of several, which has the others as its parts.

    Attributes:
        asked: the event; None if there are several, or none to act on.
        began: when the delivery was begun.
        reads: for each server the reads that were answered.
        fresh: for each server the last of them, unless a stop was sent since.
        stops: for each server the stops that were sent.
        blind: servers whose history the cloud does not show.
        troubled: servers of which a call failed.
        posted: results that the sink took, as headers and body.
    """

    def __init__(self, events: Sequence[Asked], began: float) -> None:
        self.asked = events[0] if len(events) == 1 else None
        self.began = began
        self.parts = {event.key: Errand([event], began) for event in events} if len(events) > 1 else {}
        self.reads: dict[str, list[Look]] = {}
        self.fresh: dict[str, Look | None] = {}
        self.stops: dict[str, list[Sent]] = {}
        self.blind: set[str] = set()
        self.failing: set[str] = set()
        self.posted: list[tuple[Mapping[str, str], bytes]] = []

    def part(self, item: Any) -> Errand:
        """The errand of one of several requests; of anything else, such as a result, it is the whole."""
        if isinstance(item, PreparedRequest):
            item = item.asked
        return self.parts[(item.source, item.id)] if isinstance(item, StopRequest) else self

    def of(self, event: Asked) -> Errand:
        """The errand of one of its events."""
        return self.parts.get(event.key, self)
