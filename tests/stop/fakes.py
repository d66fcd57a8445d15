"""A cloud that answers from scripts, and an executor whose clock moves only while something is waited for."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from handler.cloud.dry_run import DryRunCloud
from handler.errors import CloudError, CloudUnreachable
from handler.stop.evidence import Action, History
from handler.stop.model import Policy, Report, Server, ServerResult, StopRequest
from handler.stop.ports import Hooks, Taken
from handler.stop.prepare import prepare
from handler.stop.run import run

NOW = datetime(2026, 11, 20, 19, 0, tzinfo=UTC)
# The monotonic clock starts somewhere, and not where the wall clock does.
START = 1000.0


def seconds(number: float) -> timedelta:
    """So many seconds."""
    return timedelta(seconds=number)


def id_of(number: int) -> str:
    """The id of the n-th server of a test."""
    return f"00000000-0000-4000-8000-{number:012d}"


ID = id_of(1)


def seen(state: str, server_id: str = ID, **facts: Any) -> Server:
    """A bare metal server in a state written as `vm_state` or `vm_state/task_state`."""
    vm_state, _, task_state = state.partition("/")
    return Server(server_id, vm_state, task_state or None, **{"flavor": "physical.s3.large", **facts})


def asked(*ids: str, **facts: Any) -> StopRequest:
    """A request to stop these servers."""
    return StopRequest("/tests", "event-1", "io.github.bms-autostop.stop.requested.v1", ids, **facts)


def acts(*actions: Action) -> History:
    """A history of these actions."""
    return History(actions)


class FakeExecutor:
    """An executor that makes each call at once and returns its result when its time has come.

    A call says with `takes` how long it lasts; `next` moves the clock on to the end of the earliest call, or by the
    whole time-out if none ends before.
    """

    def __init__(self, *, handover: float = 0.0) -> None:
        self._clock = START
        self._handover = handover
        self._lasts = 0.0
        self._running: list[tuple[float, int, Any]] = []
        self._order = itertools.count()
        self.most_at_once = 0
        self.turns = 0

    def now(self) -> datetime:
        return NOW + seconds(self._clock - START)

    def monotonic(self) -> float:
        return self._clock

    def takes(self, duration: float) -> None:
        """The call being made lasts so long."""
        self._lasts += duration

    def passes(self, duration: float) -> None:
        """The run itself spends so long on something other than a call."""
        self._clock += duration

    def start(self, call: Callable[[], Any]) -> None:
        self._clock += self._handover
        self._lasts = 0.0
        result = call()
        heapq.heappush(self._running, (self._clock + self._lasts, next(self._order), result))
        self.most_at_once = max(self.most_at_once, len(self._running))

    def next(self, timeout: float) -> Any:
        self.turns += 1
        assert self.turns < 3_000, "the run goes round without getting anywhere"
        assert timeout >= 0
        if self._running and self._running[0][0] <= self._clock + timeout:
            ends, _, result = heapq.heappop(self._running)
            self._clock = max(self._clock, ends)
            return result
        self._clock += timeout
        return None


# What a script may hold: an answer, an exception to raise, or a function of the seconds since the start.
Line = Any


class Script:
    """What the cloud answers about one server, call by call; the last line of each part is repeated for ever.

    Args:
        reads: states as `seen` reads them, or anything a `Line` may be.
        stops, histories: likewise.
        lasts: seconds that each call about this server takes.
        ignores_timeout: its calls do not even end when their time is up.
    """

    def __init__(
        self,
        *reads: Line,
        stops: Sequence[Line] = (Taken("req-stop"),),
        histories: Sequence[Line] = (acts(),),
        lasts: float = 0.0,
        ignores_timeout: bool = False,
    ) -> None:
        self.lasts = lasts
        self.ignores_timeout = ignores_timeout
        self._parts = {"read": tuple(reads), "stop": tuple(stops), "history": tuple(histories)}

    def repeat(self, kind: str, line: Line) -> None:
        """From now on answer calls of this kind with one line, at once."""
        self._parts[kind] = (line,)
        self.lasts = 0.0

    def answer(self, kind: str, number: int, server_id: str, elapsed: float) -> Any:
        """The n-th line of one part, from 0."""
        lines = self._parts[kind]
        line = lines[min(number, len(lines) - 1)]
        if callable(line):
            line = line(elapsed)
        if isinstance(line, str):
            return seen(line, server_id)
        return line._replace(id=server_id) if isinstance(line, Server) else line


@dataclass(frozen=True)
class Call:
    """One call that reached the cloud; `at` in seconds since the start."""

    kind: str
    id: str
    at: float
    timeout: float


@dataclass
class ScriptedCloud:
    """A cloud of scripts that watches over what must never happen to a server.

    Attributes:
        unrequested: answers about servers that were not requested, added to every read and every stop.
        together: how many servers one read shows.
        one_by_one: as a cloud has it.
        violations: stops that no fresh read allowed.
    """

    scripts: Mapping[str, Script]
    executor: FakeExecutor
    unrequested: Mapping[str, Any] = field(default_factory=dict)
    together: int = 1
    one_by_one: bool = True
    api: str = "nova"
    calls: list[Call] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    _last_read: dict[str, Any] = field(default_factory=dict)
    _made: Counter[tuple[str, str]] = field(default_factory=Counter)

    def read_groups(self, ids: Sequence[str]) -> Sequence[Sequence[str]]:
        assert ids, "nothing to read"
        return [tuple(ids[at : at + self.together]) for at in range(0, len(ids), self.together)]

    def read(self, ids: Sequence[str], timeout: float) -> Mapping[str, Server | CloudError]:
        answers = {id_: self._answer("read", id_, timeout) for id_ in ids}
        self._last_read.update(answers)
        return self._answered(answers)

    def find(self, wanted: Callable[[Server], bool], timeout: float) -> Sequence[Server]:
        raise AssertionError(f"scripts have no list: {wanted}, {timeout}")

    def history(self, server_id: str, timeout: float) -> History | CloudError:
        answer: History | CloudError = self._answer("history", server_id, timeout)
        return answer

    def stop_groups(self, ids: Sequence[str]) -> Sequence[Sequence[str]]:
        assert ids, "nothing to stop"
        return [(id_,) for id_ in ids]

    def stop(self, ids: Sequence[str], timeout: float) -> Mapping[str, Taken | CloudError]:
        for id_ in ids:
            read = self._last_read.pop(id_, None)
            if not isinstance(read, Server):
                self.violations.append(f"{id_} was not read before its stop, but {read!r}")
            elif read.vm_state not in ("active", "error") or read.task_state is not None:
                self.violations.append(f"{id_} was stopped while {read.vm_state}/{read.task_state}")
        return self._answered({id_: self._answer("stop", id_, timeout) for id_ in ids})

    def _answered(self, answers: Mapping[str, Any]) -> Mapping[str, Any]:
        # `...` stands for a cloud that forgets to answer.
        return {**self.unrequested, **{id_: answer for id_, answer in answers.items() if answer is not ...}}

    def _answer(self, kind: str, server_id: str, timeout: float) -> Any:
        elapsed = self.executor.monotonic() - START
        self.calls.append(Call(kind, server_id, elapsed, timeout))
        script = self.scripts[server_id]
        self.executor.takes(script.lasts if script.ignores_timeout else min(script.lasts, timeout))
        answer = script.answer(kind, self._made[kind, server_id], server_id, elapsed)
        self._made[kind, server_id] += 1
        if script.lasts > timeout:
            return CloudUnreachable("no answer", maybe_acted=True)
        if isinstance(answer, Exception) and not isinstance(answer, CloudError):
            raise answer
        if isinstance(answer, Raised):
            raise answer.failure
        return answer

    def of(self, kind: str, server_id: str = ID) -> list[Call]:
        """The calls of one kind about one server."""
        return [call for call in self.calls if (call.kind, call.id) == (kind, server_id)]

    def sequence(self, server_id: str = ID) -> list[str]:
        """The kinds of the calls about one server, in order."""
        return [call.kind for call in self.calls if call.id == server_id]


@dataclass(frozen=True)
class Raised:
    """A line of a script: the cloud raises this instead of answering."""

    failure: Exception


def fixed_backoff(attempt: int) -> float:
    """Half a second, one, two, four, and no chance in it."""
    return min(0.5 * 2.0 ** (attempt - 1), 8.0)


class Scenario:
    """One run over scripted servers, with ids 1, 2, 3 ... in the order given."""

    def __init__(
        self,
        *scripts: Script,
        budget: float = 50.0,
        wait: float = 20.0,
        width: int = 16,
        executor: FakeExecutor | None = None,
        policy: Policy | None = None,
        unrequested: Mapping[str, Any] | None = None,
        together: int = 1,
        one_by_one: bool = True,
        dry_run: bool = False,
        **facts: Any,
    ) -> None:
        self.ids = tuple(id_of(number) for number in range(1, len(scripts) + 1))
        self.executor = executor or FakeExecutor()
        self.cloud = ScriptedCloud(
            dict(zip(self.ids, scripts, strict=True)), self.executor, unrequested or {}, together, one_by_one
        )
        self._request = asked(*self.ids, **facts)
        self._policy = (policy or Policy())._replace(wait=seconds(wait))
        self.budget = budget
        self._width = width
        self._dry_run = dry_run

    def report(self, backoff: Callable[[int], float] = fixed_backoff, **hooks: Any) -> Report:
        """Run it to its end; whatever that is, each stop must follow a read that allows it."""
        executor: Any = self.executor
        try:
            prepared = prepare(self._request, self._policy, self.cloud, executor, deadline=START + self.budget)
            return run(
                prepared,
                self._policy,
                DryRunCloud(self.cloud) if self._dry_run else self.cloud,
                executor,
                deadline=START + self.budget,
                width=self._width,
                dry_run=self._dry_run,
                backoff=backoff,
                hooks=Hooks(**hooks),
            )
        finally:
            assert not self.cloud.violations
            assert self.executor.most_at_once <= self._width
            assert {call.id for call in self.cloud.calls} <= set(self.ids)

    def results(self) -> tuple[ServerResult, ...]:
        """The result of each server."""
        return self.report().servers

    def result(self) -> ServerResult:
        """The result of the only server."""
        (result,) = self.results()
        return result

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return self.executor.monotonic() - START
