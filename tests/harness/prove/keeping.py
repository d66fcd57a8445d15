"""The state machine with keeps: servers are kept while they are stopped."""

from __future__ import annotations

import json
from collections.abc import Sequence

from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from handler.simulator import CallKind, Fault
from tests.harness.prove import keeps
from tests.harness.prove.command import Command
from tests.harness.prove.machine import BEGINNINGS, COUNTERS, Beginning, Machine
from tests.harness.prove.network import CLOUD
from tests.harness.prove.recorder import InvariantViolation
from tests.harness.prove.scheduler import Task

_SMALL = st.integers(0, 7)
# A keep of more than a day is too long.
_SECONDS = st.sampled_from([60.0, 600.0, 600.0, 3600.0, 86_400.0, 90_000.0])


class KeepMachine(Machine):
    """An environment in which servers are kept, by `keep_servers` and its own login."""

    def __init__(self) -> None:
        super().__init__()
        self._stack.enter_context(keeps.simulated_keeps(self.clock))
        self._keeps = 0

    @initialize(beginning=BEGINNINGS)
    def begin(self, beginning: Beginning) -> None:
        """Set up an environment, with two processes of `keep_servers`."""
        super().begin(beginning)
        environ = {
            **self.environment.login("operator"),
            "OS_AUTH_URL": f"{CLOUD}/v3",
            "AUTOSTOP_INBOUND_AUTH": "none",
            "AUTOSTOP_LOG_LEVEL": "ERROR",
        }
        self.cloud_client.on_keep = self._written
        self.keepers = [keeps.KeepFunction(environ, self.clock, self.cloud_client) for _ in range(2)]

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
        """Keep a server while it is being stopped."""
        which = self._target(CallKind.STOP, which, ask=True) or 0
        self.ask([which], pause, 0, "now", dry_run=False, since=None)
        task, command = self._keep(which, None, seconds)
        self._end(task, command, seconds)
        if self.under_way:
            self._go_on(self.under_way[-1], None, acknowledged=True)

    def _written(self, command: Command, ids: Sequence[str], body: bytes) -> None:
        COUNTERS.add("keeps written")
        for server_id in ids:
            if violation := keeps.write_violation(command, server_id, body, self.clock.time()):
                self.recorder.violations.append(
                    f"a keep was written to {self.environment.name_of(server_id)} {violation}"
                )

    def _keep(self, which: int, more: int | None, seconds: float) -> tuple[Task, Command]:
        known = self.environment.ids
        ids = list(dict.fromkeys(known[n % len(known)] for n in (which, more) if n is not None))
        self._keeps += 1
        keeper = self.keepers[self._keeps % len(self.keepers)]
        headers, body = keeps.keep_event(self._keeps, ids, seconds, self.clock.time())
        command = Command([], self.clock.time(), self.environment.deployment)
        self._disturb()
        return self.tasks.start(lambda: keeper.answer(headers, body), command, 0), command

    def _end(self, task: Task, command: Command, seconds: float) -> None:
        task.step(None)
        if task.failure is not None:
            raise task.failure
        answer = task.result
        COUNTERS.add("answers to keeps", str(answer.status))
        if (answer.status == 400) != (seconds > keeps.MAX_KEEP) or answer.status not in (200, 400, 503):
            raise InvariantViolation(f"a keep for {seconds:.0f} s was answered {answer.status}")
        if answer.status == 503 and b"internal-fault" in answer.body:
            raise InvariantViolation("the function has a bug (internal-fault)")
        if answer.status == 200:
            for row in json.loads(answer.body)["servers"]:
                COUNTERS.add("keeps", row["reason"])
                if violation := keeps.row_violation(command, row):
                    raise InvariantViolation(f"a keep calls {self.environment.name_of(row['id'])} {violation}")
        self._check()
