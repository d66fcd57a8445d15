"""What the answers of one event prove about the cloud, whichever server they are about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from handler.stop.model import Server
from handler.stop.ports import Taken


class Sightings:
    """When which server was seen last, and whose stop was taken; asked for the sake of some other server."""

    def __init__(self) -> None:
        # Start of the newest read that showed a server, and of the newest that showed any other one: one of the two
        # tells of "another", whichever server asks.
        self._newest: list[tuple[float, str]] = []
        self._taken: set[str] = set()

    def note(self, ids: Sequence[str], began: float, answers: Mapping[str, object]) -> None:
        """Remember what the answers of one call show.

        Args:
            ids: the servers that it was about; others count for nothing.
            began: when it was made, on the monotonic clock.
        """
        for id_ in ids:
            answer = answers.get(id_)
            if isinstance(answer, Server):
                others = [seen for seen in self._newest if seen[1] != id_]
                self._newest = sorted([*others, (began, id_)], reverse=True)[:2]
            elif isinstance(answer, Taken):
                self._taken.add(id_)

    def newest(self, id_: str) -> float:
        """Start of the newest call that showed another server than this one, or -inf."""
        return next((began for began, seen in self._newest if seen != id_), float("-inf"))

    def another(self, id_: str) -> str | None:
        """A server other than this one that was seen, or None."""
        return next((seen for _, seen in self._newest if seen != id_), None)

    def others_taken(self, id_: str) -> bool:
        """Whether the cloud took the stop of another server than this one."""
        return any(taken != id_ for taken in self._taken)
