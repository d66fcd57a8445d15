"""A cloud for dry runs, without any method that writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from handler.stop.ports import CloudReader, DryRunStop


class DryRunCloud:
    """Reads with a reader, and only simulates stops.

    The reader has no method that writes, so no mistake elsewhere can turn a dry run into a real one.
    """

    one_by_one = False

    def __init__(self, reader: CloudReader) -> None:
        self.api = reader.api
        self.read_groups, self.read = reader.read_groups, reader.read
        self.find, self.history = reader.find, reader.history

    def stop_groups(self, ids: Sequence[str]) -> Sequence[Sequence[str]]:
        """Return one group."""
        return [ids]

    def stop(self, ids: Sequence[str], timeout: float) -> Mapping[str, DryRunStop]:
        """Return a simulated result; nothing is sent."""
        del timeout
        return dict.fromkeys(ids, DryRunStop())
