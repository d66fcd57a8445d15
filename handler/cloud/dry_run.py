"""A cloud for dry runs: it has nothing to write with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from handler.errors import CloudError
from handler.stop.evidence import History
from handler.stop.model import Server
from handler.stop.ports import CloudReader, DryRunStop, Seen


class DryRunCloud:
    """Looks through a reader and answers every stop with `Rehearsed`.

    It holds a reader, which has no method that writes, so no mistake elsewhere can turn a dry run into a real one.
    """

    one_by_one = False

    def __init__(self, reader: CloudReader) -> None:
        self._reader = reader

    @property
    def api(self) -> str:
        """The reader's API."""
        return self._reader.api

    def read_groups(self, ids: Sequence[str]) -> Sequence[Sequence[str]]:
        """As the reader splits them."""
        return self._reader.read_groups(ids)

    def read(self, ids: Sequence[str], timeout: float) -> Mapping[str, Seen]:
        """As the reader shows them."""
        return self._reader.read(ids, timeout)

    def find(self, wanted: Callable[[Server], bool], timeout: float) -> Sequence[Server]:
        """As the reader finds them."""
        return self._reader.find(wanted, timeout)

    def history(self, server_id: str, timeout: float) -> History | CloudError:
        """As the reader tells it."""
        return self._reader.history(server_id, timeout)

    def stop_groups(self, ids: Sequence[str]) -> Sequence[Sequence[str]]:
        """All at once: it costs nothing."""
        return [ids]

    def stop(self, ids: Sequence[str], timeout: float) -> Mapping[str, DryRunStop]:
        """Nothing is sent."""
        del timeout
        return dict.fromkeys(ids, DryRunStop())
