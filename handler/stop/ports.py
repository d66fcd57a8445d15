"""What the heart needs from the outside: a cloud to ask, hands to ask with, and a clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol, TypeVar

from handler.errors import CloudError
from handler.stop.evidence import History
from handler.stop.model import Server

Result = TypeVar("Result")


class Taken(NamedTuple):
    """The cloud took our stop. It says nothing about whether the server will stop.

    Attributes:
        request_id: `req-...`, or None if the cloud gave none.
        job_id: BMS v1's job, or None.
    """

    request_id: str | None = None
    job_id: str | None = None


@dataclass(frozen=True, slots=True)
class DryRunStop:
    """Nothing was sent: this cloud has no way to write."""


@dataclass(frozen=True, slots=True)
class Pending:
    """The stop that the cloud took is still on its way; the server itself was not looked at."""


@dataclass(frozen=True, slots=True)
class ReadSingly:
    """The list did not show the server and will not be asked again: the next read is of this server alone."""


class StopFailed(NamedTuple):
    """The cloud took the stop and reports now that it failed.

    Attributes:
        cause: as if the cloud had answered the stop with it.
        report: the job's error code and reason, sanitised; empty if it gives none.
    """

    cause: CloudError
    report: str = ""


class Candidate(NamedTuple):
    """A server that the event may still stop.

    Attributes:
        id: lower-case UUID.
        name: as the cloud has it; None if the server was not read yet.
    """

    id: str
    name: str | None


Announce = Callable[[Sequence[Candidate]], None]
"""Is called with every server that an event may still stop, once, before its first stop."""

Seen = Server | Pending | ReadSingly | StopFailed | CloudError


class CloudReader(Protocol):
    """The half of a cloud that only looks.

    Each method is one bounded exchange (`timeout` in seconds bounds the whole of it) and may run in many threads at
    once. What concerns one server comes back as a value; a CloudError that `concerns_all` is raised.
    """

    @property
    def api(self) -> str:
        """`nova` or `bms`, as the result event names it."""
        ...

    def read_groups(self, ids: Sequence[str]) -> Sequence[Sequence[str]]:
        """Split `ids` into the sets that one `read` each should take."""
        ...

    def read(self, ids: Sequence[str], timeout: float) -> Mapping[str, Seen]:
        """Show each of `ids` as it is now, or say why it can't be shown. Answers for these ids and no other."""
        ...

    def find(self, wanted: Callable[[Server], bool], timeout: float) -> Sequence[Server]:
        """All servers of the login's project that are wanted, as they are now; it asks the whole list.

        Raises:
            CloudError: the list could not be had whole; part of it is worth nothing.
        """
        ...

    def history(self, server_id: str, timeout: float) -> History | CloudError:
        """What was done to the server, as the cloud recorded it."""
        ...


class Cloud(CloudReader, Protocol):
    """A cloud that can also be asked to stop servers.

    Attributes:
        one_by_one: whether a stop is of one server whatever `stop_groups` is given, so that none has to wait for others
            to go with it.
    """

    one_by_one: bool

    def stop_groups(self, ids: Sequence[str]) -> Sequence[Sequence[str]]:
        """Split `ids` into the sets that one `stop` each should take."""
        ...

    def stop(self, ids: Sequence[str], timeout: float) -> Mapping[str, Taken | DryRunStop | CloudError]:
        """Send the stop for each of `ids`, once, without any repetition of its own."""
        ...


class CallExecutor(Protocol[Result]):
    """Hands that make calls while the run goes on, and the clock that the run goes by."""

    def now(self) -> datetime:
        """Wall time, aware, UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds that only grow."""
        ...

    def start(self, call: Callable[[], Result]) -> None:
        """Have `call` made. It must not raise."""
        ...

    def next(self, timeout: float) -> Result | None:
        """The result of a call that ended, or None after `timeout` seconds without one."""
        ...
