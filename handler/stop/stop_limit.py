"""A limit of the servers that one process sends stops for within a sliding window, over all events."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from handler.errors import CloudError, CloudThrottled, StopLimitReached
from handler.stop.ports import Cloud, DryRunStop, Taken

_LEAST_PAUSE = 1.0


class StopLimit:
    """Counts the servers of all stop attempts of this process.

    Args:
        most: servers within the window, at least those of one event.
        window: seconds.
        monotonic: the clock, in seconds.
    """

    def __init__(self, most: int, window: float, monotonic: Callable[[], float]) -> None:
        self.most = most
        self.window = window
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._attempts: deque[tuple[float, int]] = deque()
        self._used = 0

    def take(self, servers: int) -> float | None:
        """Reserve room for so many servers.

        Returns:
            None if there was room; else the seconds after which there may be.
        """
        with self._lock:
            now = self._monotonic()
            while self._attempts and self._attempts[0][0] + self.window <= now:
                self._used -= self._attempts.popleft()[1]
            if self._used + servers <= self.most:
                self._used += servers
                return None
            # Reservations of events in progress may be released at any time, so they are not waited for.
            missing = sum(count for _, count in self._attempts) + servers - self.most
            free_at = now
            for at, count in self._attempts:
                if missing <= 0:
                    break
                missing -= count
                free_at = at + self.window
            return max(free_at - now, _LEAST_PAUSE)

    def attempted(self, servers: int) -> None:
        """Keep the room of so many servers until their attempt, which has ended now, is older than the window."""
        with self._lock:
            self._attempts.append((self._monotonic(), servers))

    def give_back(self, servers: int) -> None:
        """Give back room that no attempt used."""
        with self._lock:
            self._used -= servers


class Reservation:
    """The share of one event in the stop limit.

    An event reserves room for all servers that it may still stop before its first stop, so that it is never left half
    done by the limit, and gives back what it did not use.
    """

    def __init__(self, limit: StopLimit) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._held = 0

    def reserve(self, servers: int) -> None:
        """Reserve room for so many servers.

        Raises:
            StopLimitReached: there is too little; the event must be sent again.
        """
        pause = self._limit.take(servers)
        if pause is not None:
            raise StopLimitReached(
                f"At most {self._limit.most} servers are stopped within {self._limit.window:g} seconds.",
                retry_after=pause,
            )
        self._held = servers

    def attempt(self, servers: int) -> float | None:
        """Begin an attempt to stop so many servers; one beyond the reserved room needs room of its own.

        Returns:
            None if the attempt may be made, and is ended by `attempted`; else the seconds after which it may be.
        """
        with self._lock:
            reserved = min(self._held, servers)
            if servers > reserved and (pause := self._limit.take(servers - reserved)) is not None:
                return pause
            self._held -= reserved
            return None

    def attempted(self, servers: int) -> None:
        """End an attempt: its window begins, since the cloud may receive a stop as late as that."""
        self._limit.attempted(servers)

    def release(self) -> None:
        """Give back what no attempt used."""
        with self._lock:
            self._limit.give_back(self._held)
            self._held = 0


class LimitedCloud:
    """A cloud whose stops count against a reservation; everything else goes to the cloud as it is."""

    def __init__(self, cloud: Cloud, reservation: Reservation) -> None:
        self._cloud = cloud
        self._reservation = reservation
        self.api = cloud.api
        self.one_by_one = cloud.one_by_one
        self.read_groups = cloud.read_groups
        self.read = cloud.read
        self.find = cloud.find
        self.history = cloud.history
        self.stop_groups = cloud.stop_groups

    def stop(self, ids: Sequence[str], timeout: float) -> Mapping[str, Taken | DryRunStop | CloudError]:
        """Send the stop for each of `ids`, unless the stop limit leaves no room for another attempt."""
        pause = self._reservation.attempt(len(ids))
        if pause is not None:
            error = CloudThrottled("stopping the server: the stop limit of this process is reached", retry_after=pause)
            return dict.fromkeys(ids, error)
        try:
            return self._cloud.stop(ids, timeout)
        finally:
            self._reservation.attempted(len(ids))
