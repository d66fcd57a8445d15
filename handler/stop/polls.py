"""How often a server is looked at while it is waited for."""

from __future__ import annotations

_FIRST_POLL = 0.015
_POLL_GROWTH = 3.0
_LONGEST_POLL = 3.0
# A crowd is watched with a list or a job: the larger it is, the more its servers wait for each other.
_POLL_PER_SERVER = 0.002
_LONGEST_POLL_IN_CROWD = 5.0
_CROWD = 100


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
