"""What a keep needs of a cloud beside reading servers: writing one entry of their metadata, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from handler.stop.ports import Seen


class ServerReader(Protocol):
    """The part of a cloud that shows servers; see `handler.stop.ports.CloudReader`."""

    def read(self, ids: Sequence[str], timeout: float) -> Mapping[str, Seen]:
        """Show each of `ids` as it is now, or say why it cannot be shown."""
        ...


class MetadataCloud(Protocol):
    """The part of a cloud that writes a keep-until; it cannot stop servers.

    Each method is one bounded exchange (`timeout` in seconds) and may run in many threads at once.
    """

    def keep(self, server_id: str, until: str, timeout: float) -> str | None:
        """Set the entry `autostop-keep-until`, once, without any repetition.

        Returns:
            The cloud's id for the request, or None if it gave none.

        Raises:
            CloudError: anything but a success.
        """
        ...

    def release(self, server_id: str, key: str, timeout: float) -> str | None:
        """Remove an entry, once, as `keep` sets one.

        Args:
            key: of an entry that is a keep-until, as the server has it.

        Raises:
            ServerNotFound: there is no such server, or no such entry.
            CloudError: anything else but a success.
        """
        ...


class Clock(Protocol):
    """The time."""

    def now(self) -> datetime:
        """Wall time, aware, UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds that only grow."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait."""
        ...
