"""A cloud for dry runs, without any method that writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from handler.errors import CloudError
from handler.stop.evidence import History
from handler.stop.model import Server
from handler.stop.ports import CloudReader, DryRunStop, Seen


class DryRunCloud:
    """Reads with a reader, and only simulates stops.

    It has a reader without methods that write, so no mistake elsewhere can turn a dry run into a real one.
    """

    one_by_one = False

    def __init__(self, reader: CloudReader) -> None:
        self._reader = reader

    @property
    def api(self) -> str:
        """The reader's API."""
        return self._reader.api

    def read_groups(self, ids: Sequence[str]) -> Sequence[Sequence[str]]:
        """Split the ids as the reader does."""
        return self._reader.read_groups(ids)

    def read(self, ids: Sequence[str], timeout: float) -> Mapping[str, Seen]:
        """Read as the reader does."""
        return self._reader.read(ids, timeout)

    def find(self, wanted: Callable[[Server], bool], timeout: float) -> Sequence[Server]:
        """Search as the reader does."""
        return self._reader.find(wanted, timeout)

    def history(self, server_id: str, timeout: float) -> History | CloudError:
        """Read the history as the reader does."""
        return self._reader.history(server_id, timeout)

    def stop_groups(self, ids: Sequence[str]) -> Sequence[Sequence[str]]:
        """Return one group."""
        return [ids]

    def stop(self, ids: Sequence[str], timeout: float) -> Mapping[str, DryRunStop]:
        """Return a simulated result; nothing is sent."""
        del timeout
        return dict.fromkeys(ids, DryRunStop())
