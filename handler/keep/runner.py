"""The runner of one server: read, decide, write, read back.

Nova sets metadata without comparing it first, so of two keeps at once the one that is written last wins, whichever is
later. Each keep therefore reads right before it writes, reads back after it, and reads once more after a pause that is
longer than another keep needs between its read and its write; if an earlier time has replaced its own, it writes again.
Within one process the keeps of one server are serialized.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import assert_never
from weakref import WeakValueDictionary

from handler.errors import (
    BudgetSpent,
    CallDenied,
    CloudError,
    CloudUnexpectedAnswer,
    LoginRefused,
    ServerNotFound,
    StateConflict,
)
from handler.keep.decide import Decision, Move, decide, kept_until, written
from handler.keep.model import KeepResult, Reason
from handler.keep.ports import Clock, MetadataCloud
from handler.stop.model import Server
from handler.stop.ports import Seen

_CALL_TIMEOUT = 10.0
# Most failed calls in a row, or writes that were not seen afterwards.
_MOST_FAILURES = 4
_MOST_WRITES = 4
# Seconds between reading back and the last read, and the factor by which it is longer than the own read and write.
_SHORTEST_PAUSE, _LONGEST_PAUSE, _PAUSE_FACTOR = 0.5, 5.0, 3.0


class ServerLocks:
    """One lock for each server in use, so that the keeps of one server are serialized."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        # A lock is forgotten when no thread has it or waits for it.
        self._locks: WeakValueDictionary[str, threading.Lock] = WeakValueDictionary()

    @contextmanager
    def holding(self, server_id: str, timeout: float) -> Iterator[None]:
        """Hold the lock of a server in a `with` block.

        Args:
            server_id: lower-case UUID.
            timeout: seconds to wait for it.

        Raises:
            BudgetSpent: it was not free in time.
        """
        with self._guard:
            lock = self._locks.setdefault(server_id, threading.Lock())
        if not lock.acquire(timeout=max(timeout, 0.0)):
            raise BudgetSpent("Other keeps of the same server did not end in time.")
        try:
            yield
        finally:
            lock.release()


@dataclass(slots=True)
class KeepTask:
    """One server of an event.

    Args:
        until: the time until which it is to be kept (aware); None for a release.
        protect: tag, or metadata key and value, that protects a server permanently.
        read: as of `handler.stop.ports.CloudReader`.
        writer: None for a dry run, which then cannot write.
        deadline: end of the event's budget, in seconds on the clock's monotonic time.
        backoff: seconds to wait after the n-th failure in a row.
        on_failure: called with each failed call to the cloud.
    """

    server_id: str
    until: datetime | None
    protect: tuple[str, str]
    read: Callable[[Sequence[str], float], Mapping[str, Seen]]
    writer: MetadataCloud | None
    clock: Clock
    deadline: float
    backoff: Callable[[int], float]
    on_failure: Callable[[CloudError], None] = lambda _: None
    _first: Server | None = None
    _last: Server | None = None
    _request_id: str | None = None
    _writes: int = 0
    _failed_reads: int = 0
    _failed_writes: int = 0

    def run(self) -> KeepResult | CloudError:
        """Handle the server.

        Returns:
            Its result, or the last error of the cloud after the last attempt.

        Raises:
            BudgetSpent: the time is up and nothing was written.
            LoginRefused: the cloud refused the login.
        """
        settled = False
        pause = _SHORTEST_PAUSE
        while True:
            began = self.clock.monotonic()
            server = self._read()
            if not isinstance(server, Server):
                final = self._failed(server)
                if final is not None:
                    return final
                continue
            self._failed_reads = 0
            self._first, self._last = self._first or server, server
            decision = decide(server, self.until, self.protect)
            match decision.move:
                case Move.LEAVE if self._writes and decision.reason in (Reason.ALREADY_KEPT, Reason.NOT_KEPT):
                    if settled or not self._sleep(pause):
                        return self._done(server)
                    settled = True
                case Move.LEAVE:
                    return self._result(decision.reason, decision.detail)
                case Move.REMOVE if self._writes and kept_until(server) != kept_until(self._first):
                    return self._result(Reason.ALREADY_KEPT, "Its keep was removed, and it has been kept again since.")
                case Move.WRITE | Move.REMOVE:
                    if self.writer is None:
                        return self._result(decision.reason, decision.detail)
                    if self._writes >= _MOST_WRITES:
                        return self._not_seen()
                    settled = False
                    error = self._write(self.writer, decision)
                    pause = self._pause(self.clock.monotonic() - began)
                    final = self._refused(error) if error is not None else None
                    if final is not None:
                        return final
                case unreachable:
                    assert_never(unreachable)

    def _left(self) -> float:
        return min(self.deadline - self.clock.monotonic(), _CALL_TIMEOUT)

    def _sleep(self, seconds: float) -> bool:
        """Wait; return False at once if there is not enough time left for another read after that."""
        if self.clock.monotonic() + seconds >= self.deadline:
            return False
        self.clock.sleep(seconds)
        return True

    @staticmethod
    def _pause(took: float) -> float:
        return min(max(_SHORTEST_PAUSE, _PAUSE_FACTOR * took), _LONGEST_PAUSE)

    def _read(self) -> object:
        left = self._left()
        if left <= 0:
            return BudgetSpent("The time ended before the server was handled.")
        return self.read((self.server_id,), left).get(
            self.server_id, CloudUnexpectedAnswer("reading the server: the answer does not show it")
        )

    def _write(self, writer: MetadataCloud, decision: Decision) -> CloudError | None:
        left = self._left()
        if left <= 0:
            # The next read has the same result, and ends the task.
            return None
        try:
            if self.until is not None:
                self._request_id = writer.keep(self.server_id, written(self.until), left)
            else:
                for key in decision.keys:
                    self._request_id = writer.release(self.server_id, key, max(self._left(), 0.001))
        except LoginRefused:
            raise
        except CloudError as error:
            # After a lost answer only a read shows whether it was written.
            self._writes += error.maybe_acted
            self.on_failure(error)
            return error
        self._writes += 1
        return None

    def _failed(self, failure: object) -> KeepResult | CloudError | None:
        """Return the end of the task after a failed read; None to read again."""
        match failure:
            case BudgetSpent():
                if self._writes:
                    return self._not_seen()
                raise failure
            case ServerNotFound():
                return self._result(
                    Reason.NOT_FOUND,
                    "The cloud knows no such server in this project; check the id, and the project of the login.",
                    failure,
                )
            case CallDenied() if not self._writes:
                return self._result(Reason.FORBIDDEN, f"The login may not read it: {failure}.", failure)
            case CloudError():
                error = failure
                self.on_failure(error)
            case _:
                error = CloudUnexpectedAnswer("reading the server: the answer does not show it")
        self._failed_reads += 1
        if self._again(error, self._failed_reads):
            return None
        return self._not_seen() if self._writes else error

    def _refused(self, error: CloudError) -> KeepResult | CloudError | None:
        """Return the end of the task after a write that failed; None to read again."""
        match error:
            case StateConflict():
                return self._result(Reason.CONFLICT, f"The cloud refused the change: {error}.", error)
            case CallDenied():
                return self._result(Reason.FORBIDDEN, f"The login may not change its metadata: {error}.", error)
            case _:
                # Not found may mean the entry or the server: the next read shows which.
                self._failed_writes += 1
                return None if self._again(error, self._failed_writes) else error

    def _again(self, error: CloudError, attempt: int) -> bool:
        """Wait after the n-th failure; return False if it is not worth another attempt."""
        helps = error.waiting_helps or isinstance(error, ServerNotFound)
        return helps and attempt < _MOST_FAILURES and self._sleep(error.retry_after or self.backoff(attempt))

    def _done(self, server: Server) -> KeepResult:
        present = kept_until(server)
        if self.until is not None:
            assert present is not None
            return self._result(Reason.KEPT, f"It is kept until {written(present)}.{_not_running(server)}")
        if present is not None:
            return self._result(Reason.RELEASED, f"Its keep was removed; a tag keeps it until {written(present)}.")
        return self._result(Reason.RELEASED, "Its keep was removed.")

    def _not_seen(self) -> KeepResult:
        wanted = f"until {written(self.until)}" if self.until is not None else "to be removed"
        return self._result(
            Reason.NOT_SEEN, f"The keep ({wanted}) was sent, but was not seen on the server afterwards."
        )

    def _result(self, reason: Reason, detail: str, error: CloudError | None = None) -> KeepResult:
        first, last = self._first, self._last
        result = KeepResult(
            self.server_id, reason, detail, request_id=error.request_id if error is not None else self._request_id
        )
        if first is None or last is None:
            return result
        return result._replace(
            name=last.name,
            keep_until=kept_until(last),
            previous_keep_until=kept_until(first),
            vm_state=last.vm_state,
            task_state=last.task_state,
        )


def _not_running(server: Server) -> str:
    """Return what is added to the sentence on a server that does not run, or not for long; else nothing."""
    if server.vm_state == "active" and server.task_state is None:
        return ""
    task = f", task_state {server.task_state}" if server.task_state is not None else ""
    return f" Its vm_state is {server.vm_state}{task}: a keep neither starts a server nor ends a stop that was sent."
