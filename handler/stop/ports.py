"""The ports: a cloud, an executor of its calls, and a clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple, Protocol, TypeVar

from handler.errors import CloudError
from handler.stop.evidence import History
from handler.stop.model import Server, ServerResult

Result = TypeVar("Result")


class Taken(NamedTuple):
    """The cloud accepted a stop. This does not show whether the server will stop.

    Attributes:
        request_id: `req-...`, or None if the cloud gave none.
        job_id: BMS v1's job, or None.
    """

    request_id: str | None = None
    job_id: str | None = None


class DryRunStop:
    """Nothing was sent: this cloud cannot write."""


class Pending:
    """The accepted stop has not ended; the server itself was not read."""


class ReadSingly:
    """The list did not show the server and is not read again: the next read is of this server alone."""


class StopFailed(NamedTuple):
    """The cloud accepted the stop and reports now that it failed.

    Attributes:
        cause: as if the cloud had answered the stop with it.
        report: the job's error code and reason, sanitized; empty without both.
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


class Hooks(NamedTuple):
    """What a run calls as it proceeds.

    Attributes:
        on_result: each server's result, as soon as there is one, also if the event must be sent again.
        before_first_stop: called once before the first stop is sent, with the number of servers that may still be
            stopped; an exception ends the run before any stop.
        on_failure: each failed call to the cloud, once for each server that it was about; not if only the history
            cannot be read, which the server's result shows.
        announce: called once before the first stop is sent, and after `before_first_stop`, with the servers that may
            still be stopped; what it raises ends the run with nothing sent. With it, no stop is sent before every
            server has a first decision or is waited for.
    """

    on_result: Callable[[ServerResult], None] = lambda _: None
    before_first_stop: Callable[[int], None] = lambda _: None
    on_failure: Callable[[CloudError], None] = lambda _: None
    announce: Callable[[Sequence[Candidate]], None] | None = None


Seen = Server | Pending | ReadSingly | StopFailed | CloudError


class CloudReader(Protocol):
    """The part of a cloud that only reads.

    Each method is one bounded exchange (`timeout` in seconds bounds the whole of it) and may run in many threads at
    once. An error of one server is returned as a value; a CloudError that `concerns_all` is raised.
    """

    @property
    def api(self) -> str:
        """`nova` or `bms`, as the result event names it."""

    def read_groups(self, ids: Sequence[str]) -> Sequence[Sequence[str]]:
        """Split `ids` into the sets that one `read` each should take."""

    def read(self, ids: Sequence[str], timeout: float) -> Mapping[str, Seen]:
        """Return the present state of each of `ids`, or the error for it; only for these ids."""

    def find(self, wanted: Callable[[Server], bool], timeout: float) -> Sequence[Server]:
        """Return the matching servers of the login's project, from a read of the whole list.

        Raises:
            CloudError: the list could not be read completely.
        """

    def history(self, server_id: str, timeout: float) -> History | CloudError:
        """Return the cloud's history of the server."""


class Cloud(CloudReader, Protocol):
    """A cloud that can also stop servers.

    Attributes:
        one_by_one: whether each call stops one server only, so that none has to wait for others.
    """

    one_by_one: bool

    def stop_groups(self, ids: Sequence[str]) -> Sequence[Sequence[str]]:
        """Split `ids` into the sets that one `stop` each should take."""

    def stop(self, ids: Sequence[str], timeout: float) -> Mapping[str, Taken | DryRunStop | CloudError]:
        """Send the stop for each of `ids` once, without a repetition."""


class CallExecutor(Protocol[Result]):
    """An executor that makes calls in the background, and the clock of a run."""

    def now(self) -> datetime:
        """Return the wall time, aware, UTC."""

    def monotonic(self) -> float:
        """Return the monotonic time in seconds."""

    def start(self, call: Callable[[], Result]) -> None:
        """Start a call, which must not raise."""

    def next(self, timeout: float) -> Result | None:
        """Return the result of a call that ended, or None after `timeout` seconds without one."""
