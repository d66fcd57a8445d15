"""The ports of a keep: writing one entry of a server's metadata, and the time."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol


class MetadataCloud(Protocol):
    """The part of a cloud that writes a keep-until; it cannot stop servers.

    Each method is one bounded exchange (`timeout` in seconds) and may run in many threads at once.
    """

    def keep(self, server_id: str, until: str, timeout: float) -> str | None:
        """Set the entry `autostop-keep-until` once, without a repetition.

        Returns:
            The cloud's id for the request, or None.

        Raises:
            CloudError: it failed, or the answer was lost.
        """

    def release(self, server_id: str, key: str, timeout: float) -> str | None:
        """Remove an entry once, as `keep` sets one.

        Args:
            server_id: lower-case UUID.
            key: of an entry that is a keep-until, as the server has it.
            timeout: seconds.

        Raises:
            ServerNotFound: there is no such server, or no such entry.
            CloudError: it failed in another way, or the answer was lost.
        """


class Clock(Protocol):
    """The time."""

    def now(self) -> datetime:
        """Return the wall time, aware, UTC."""

    def monotonic(self) -> float:
        """Return the monotonic time in seconds."""

    def sleep(self, seconds: float) -> None:
        """Wait for so many seconds."""
