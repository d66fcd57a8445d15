"""The state machine with keeps: servers are kept while they are stopped.

What a keep may write is restated from the contract.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest import mock

from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from handler.errors import BudgetSpent
from handler.inbound.http.request import HttpRequest
from handler.inbound.http.responses import Answer
from handler.services import events, keep_servers
from handler.settings import keep_servers as keep_settings
from handler.simulator import CallKind, Fault
from tests.harness.prove import invariants, scheduler
from tests.harness.prove.command import Command
from tests.harness.prove.events import timestamp
from tests.harness.prove.function import CooperativeExecutor
from tests.harness.prove.machine import BEGINNINGS, COUNTERS, Beginning, Machine
from tests.harness.prove.network import CLOUD, CloudClient
from tests.harness.prove.recorder import InvariantViolation
from tests.harness.prove.scheduler import Clock, Task

# Seconds: the default of `AUTOSTOP_MAX_KEEP`.
MAX_KEEP = 86_400.0
_TYPE = "io.github.bms-autostop.keep.requested.v1"
_PAUSE = 0.25
_MILLISECONDS = 0.002


class _Threads:
    """Takes the place of the threads of the service: each call is made at once, in the task of its event."""

    def submit(self, work: Callable[..., Any], *arguments: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(work(*arguments))
        except Exception as failure:
            future.set_exception(failure)
        return future


class _Locks:
    """The locks of servers, between tasks."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._held: set[str] = set()

    @contextmanager
    def holding(self, server_id: str, timeout: float) -> Iterator[None]:
        end = self._clock.monotonic() + timeout
        while server_id in self._held:
            if self._clock.monotonic() >= end:
                raise BudgetSpent("Other keeps of the same server did not end in time.")
            scheduler.sleep(self._clock, _PAUSE)
        self._held.add(server_id)
        try:
            yield
        finally:
            self._held.discard(server_id)


class KeepFunction:
    """One process of `keep_servers`."""

    def __init__(self, environ: Mapping[str, str], clock: Clock, cloud_client: CloudClient) -> None:
        self._clock = clock
        service: Any = keep_servers.KeepService(keep_settings.from_environ(environ), clock.monotonic)
        connection = service._clouds._reader.__self__
        for part in (connection.login, connection.http):
            part._monotonic = clock.monotonic
            part._client = cloud_client
        service._clock = SimpleNamespace(
            now=clock.now, monotonic=clock.monotonic, sleep=partial(scheduler.sleep, clock)
        )
        service._locks = _Locks(clock)
        service.__dict__["_threads"] = _Threads()
        self._endpoint = service.endpoint()
        self._endpoint._now = clock.now

    def answer(self, headers: Mapping[str, str], body: bytes) -> Answer:
        """Answer one POST. To be called in a task."""
        answer: Answer = self._endpoint.answer(HttpRequest("POST", "/", headers, body, self._clock.monotonic()))
        return answer


@contextmanager
def simulated_keeps(clock: Clock) -> Iterator[None]:
    """Within this block the services of `keep_servers` run in tasks and read this clock."""
    with ExitStack() as patches:
        for patch in (
            mock.patch.object(keep_servers, "ThreadExecutor", partial(CooperativeExecutor, clock)),
            mock.patch.object(keep_servers, "ThreadPoolExecutor", scheduler.TaskPool),
            mock.patch.object(events, "ThreadPoolExecutor", scheduler.TaskPool),
        ):
            patches.enter_context(patch)
        yield


def keep_event(number: int, ids: list[str], seconds: float, now: float) -> tuple[dict[str, str], bytes]:
    """Return headers and body of an event that asks to keep servers for so many seconds."""
    headers = {
        "ce-specversion": "1.0",
        "ce-type": _TYPE,
        "ce-source": "/keeps",
        "ce-id": str(number),
        "ce-time": timestamp(now),
        "content-type": "application/json",
    }
    return headers, json.dumps({"server_ids": ids, "for": f"{seconds:.0f}s"}).encode()


def write_violation(command: Command, server_id: str, body: bytes, now: float) -> str | None:
    """Return what is wrong with a keep that is written, as the end of a sentence; None if nothing is."""
    until = invariants.time_of(json.loads(body)["metadata"]["autostop-keep-until"])
    if until is None:
        return "with a time that cannot be read"
    if until > now + MAX_KEEP:
        return "for longer than is allowed"
    seen = command.observations.get(server_id)
    if not seen:
        return "without a read before it"
    present = invariants.keeps(seen[-1].state)
    if None in present:
        return "in the place of an entry that cannot be read"
    return "that is shorter than the one it has" if any(until < one for one in present if one) else None


def row_violation(command: Command, row: Mapping[str, Any]) -> str | None:
    """Return what is wrong with what a result says of one server."""
    seen = command.observations.get(row["id"], [])
    if row["reason"] not in ("kept", "already-kept"):
        return None
    until = invariants.time_of(row["keep_until"] or "")
    last = [one for one in invariants.keeps(seen[-1].state) if one is not None] if seen else []
    # A result has whole seconds or milliseconds, and a tag may have more.
    shown = until is not None and last and abs(max(last) - until) < 1.0
    return None if shown else f"{row['reason']} until {row['keep_until']}, which no read showed"


_SMALL = st.integers(0, 7)
# A keep of more than a day is too long.
_SECONDS = st.sampled_from([60.0, 600.0, 600.0, 3600.0, 86_400.0, 90_000.0])


class KeepMachine(Machine):
    """An environment in which servers are kept, by `keep_servers` and its own login."""

    def __init__(self) -> None:
        super().__init__()
        self._stack.enter_context(simulated_keeps(self.clock))
        self._keeps = 0

    @initialize(beginning=BEGINNINGS)
    def begin(self, beginning: Beginning) -> None:
        super().begin(beginning)
        environ = {
            **self.environment.login("operator"),
            "OS_AUTH_URL": f"{CLOUD}/v3",
            "AUTOSTOP_INBOUND_AUTH": "none",
            "AUTOSTOP_LOG_LEVEL": "ERROR",
        }
        self.cloud_client.on_keep = self._written
        self.keepers = [KeepFunction(environ, self.clock, self.cloud_client) for _ in range(2)]

    @rule(which=_SMALL, more=st.none() | _SMALL, seconds=_SECONDS, lost=st.sampled_from([None, None, 500, 504]))
    def keep(self, which: int, more: int | None, seconds: float, lost: int | None) -> None:
        """Keep servers; the answer to a write may get lost."""
        if lost and "lost answer" in self.faults:
            self.environment.inject("lost answer", Fault(on=CallKind.METADATA, status=lost, act=True))
        task, command = self._keep(which, more, seconds)
        self._end(task, command, seconds)

    @rule(which=_SMALL, seconds=st.lists(_SECONDS, min_size=2, max_size=2), pause=st.integers(1, 8))
    def keep_twice_at_once(self, which: int, seconds: list[float], pause: int) -> None:
        """Keep a server twice at once, in two processes."""
        first, first_command = self._keep(which, None, seconds[0])
        first.step(pause)
        second, second_command = self._keep(which, None, seconds[1])
        self._end(second, second_command, seconds[1])
        if not first.done:
            self._end(first, first_command, seconds[0])

    @rule(which=_SMALL, pause=st.integers(1, 8), seconds=_SECONDS)
    def keep_in_a_race(self, which: int, pause: int, seconds: float) -> None:
        which = self._target(CallKind.STOP, which, ask=True) or 0
        self.ask([which], pause, 0, "now", dry_run=False, since=None)
        task, command = self._keep(which, None, seconds)
        self._end(task, command, seconds)
        self._finish_last()

    def _written(self, command: Command, ids: Sequence[str], body: bytes) -> None:
        COUNTERS.add("keeps written")
        for server_id in ids:
            if violation := write_violation(command, server_id, body, self.clock.time()):
                self.recorder.violations.append(
                    f"a keep was written to {self.environment.name_of(server_id)} {violation}"
                )

    def _keep(self, which: int, more: int | None, seconds: float) -> tuple[Task, Command]:
        known = self.environment.ids
        ids = list(dict.fromkeys(known[n % len(known)] for n in (which, more) if n is not None))
        self._keeps += 1
        keeper = self.keepers[self._keeps % len(self.keepers)]
        headers, body = keep_event(self._keeps, ids, seconds, self.clock.time())
        command = Command([], self.clock.time(), self.environment.deployment)
        self._disturb()
        return self.tasks.start(lambda: keeper.answer(headers, body), command, 0), command

    def _end(self, task: Task, command: Command, seconds: float) -> None:
        task.step(None)
        if task.failure is not None:
            raise task.failure
        answer = task.result
        COUNTERS.add("answers to keeps", str(answer.status))
        if (answer.status == 400) != (seconds > MAX_KEEP) or answer.status not in (200, 400, 503):
            raise InvariantViolation(f"a keep for {seconds:.0f} s was answered {answer.status}")
        if answer.status == 503 and b"internal-error" in answer.body:
            raise InvariantViolation("the function has a bug (internal-error)")
        if answer.status == 200:
            for row in json.loads(answer.body)["servers"]:
                COUNTERS.add("keeps", row["reason"])
                if violation := row_violation(command, row):
                    raise InvariantViolation(f"a keep calls {self.environment.name_of(row['id'])} {violation}")
        self._check()
