"""A cloud without HTTP that a test can let race with the runner, and a clock that the test holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from handler.errors import CloudError, ServerNotFound
from handler.stop.model import Server
from handler.stop.ports import Seen

ID = "5f0c1a52-3d0e-4b7a-9a55-0d6f3c2b1a10"
KEY = "autostop-keep-until"
NOW = datetime(2026, 11, 20, 19, 0, tzinfo=UTC)


def hours(number: float) -> datetime:
    """A time so many hours after NOW."""
    return NOW + timedelta(hours=number)


class Clock:
    """Time that passes only in sleep."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.slept: list[float] = []

    def now(self) -> datetime:
        return NOW + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.seconds += seconds


Step = Callable[["Cloud"], None]


def _nothing(_: Cloud) -> None:
    """No other client does anything."""


def sets(value: str | None) -> Step:
    """A step of another client, which writes this value or removes the entry."""

    def step(cloud: Cloud) -> None:
        cloud.metadata.pop(KEY, None)
        if value is not None:
            cloud.metadata[KEY] = value

    return step


class Cloud:
    """One server's metadata, a clock, and what other clients do meanwhile.

    Args:
        before_reads, before_writes: called before the n-th read or write, as another client's step.
        faults: of the n-th write; the write acts nevertheless if the fault says that it may have.
        read_faults: of the n-th read.
    """

    def __init__(
        self,
        metadata: Mapping[str, str] | None = None,
        *,
        before_reads: Mapping[int, Step] | None = None,
        before_writes: Mapping[int, Step] | None = None,
        faults: Mapping[int, CloudError] | None = None,
        read_faults: Mapping[int, CloudError] | None = None,
        ignores_writes: bool = False,
        vm_state: str = "active",
        tags: Sequence[str] = (),
    ) -> None:
        self.clock = Clock()
        self.metadata = dict(metadata or {})
        self.reads = 0
        self.writes: list[tuple[str, str]] = []
        self._before_reads, self._before_writes = before_reads or {}, before_writes or {}
        self._faults, self._read_faults = faults or {}, read_faults or {}
        self._ignores_writes = ignores_writes
        self._vm_state, self._tags = vm_state, frozenset(tags)

    def read(self, ids: Sequence[str], timeout: float) -> Mapping[str, Seen]:
        assert timeout > 0
        self.reads += 1
        self._before_reads.get(self.reads, _nothing)(self)
        if fault := self._read_faults.get(self.reads):
            return dict.fromkeys(ids, fault)
        return {id_: Server(id_, self._vm_state, tags=self._tags, metadata=dict(self.metadata)) for id_ in ids}

    def keep(self, server_id: str, until: str, timeout: float) -> str | None:
        del server_id
        assert timeout > 0
        return self._write((KEY, until), lambda: self.metadata.update({KEY: until}))

    def release(self, server_id: str, key: str, timeout: float) -> str | None:
        del server_id, timeout

        def remove() -> None:
            if self.metadata.pop(key, None) is None:
                raise ServerNotFound("removing: HTTP 404")

        return self._write((key, ""), remove)

    def _write(self, what: tuple[str, str], act: Callable[[], None]) -> str:
        self.writes.append(what)
        number = len(self.writes)
        self._before_writes.get(number, _nothing)(self)
        fault = self._faults.get(number)
        if not self._ignores_writes and (fault is None or fault.maybe_acted):
            act()
        if fault is not None:
            raise fault
        return f"req-{number}"
