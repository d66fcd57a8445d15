"""One delivery, and the check of its answer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from handler.inbound.http.responses import Answer
from tests.harness.prove import approvals, invariants
from tests.harness.prove.approvals import Announce
from tests.harness.prove.command import Command
from tests.harness.prove.environment import Environment
from tests.harness.prove.events import Copy, Event, Key, Mode
from tests.harness.prove.function import Function
from tests.harness.prove.recorder import Recorder
from tests.harness.prove.scheduler import Clock, Scheduler

_STOP_TAKEN = frozenset({"confirmed", "accepted", "reverted", "power-still-on"})
_PREFIX = "io.github.bms-autostop.stop."
# A call may end a little after its time-out: what it takes to get there and back.
_SLACK = 2.5

Result = tuple[Mapping[str, str], Mapping[str, Any]]


class Delivery:
    """A copy of a message that the function handles.

    Args:
        order: in which order calls are made and answered; see `Task`.
        calm: nothing is to go wrong in it, so that its results can be predicted.

    Attributes:
        undisturbed: nothing else happened while it was handled.
        stepped: its task has run.
        retry_after: of a 503, in seconds; None for another answer.
        problem: the last part of the type of the problem document; empty if there was none.
    """

    def __init__(
        self,
        function: Function,
        copy: Copy,
        clock: Clock,
        recorder: Recorder,
        environment: Environment,
        scheduler: Scheduler,
        *,
        order: int = 0,
        calm: bool = False,
    ) -> None:
        self.copy = copy
        self.function = function
        self.undisturbed = True
        self.stepped = False
        self.retry_after: float | None = None
        self.problem = ""
        self._clock = clock
        self._recorder = recorder
        self._environment = environment
        self._began = clock.monotonic()
        acting, now = copy.message.acting, clock.time()
        rules = environment.deployment.approval
        self._selected = {event.key: set(self._ids(event)) for event in acting} if calm else {}
        certain = invariants.named(acting, now, rules)
        if len(acting) == 1 and not certain:
            certain = set().union(*self._selected.values())
        self._command = Command(
            acting,
            now,
            environment.deployment,
            function.process,
            over_limit=invariants.over_limit(acting, now, rules),
            fewest=len(certain),
            most=len(certain.union(*(event.server_ids for event in acting)))
            if all(event.tag is None for event in acting)
            else len(environment.ids),
        )
        if environment.denied == "history":
            for event in acting:
                self._command.of(event).without_history |= set(environment.ids)
        self._expected = self._predicted() if calm else {}
        headers, body = copy.message.wire()
        recorder.counters.write(now, "delivery", headers, body)
        self._task = scheduler.start(lambda: function.answer(headers, body), self._command, order)

    @property
    def done(self) -> bool:
        return self._task.done

    def step(self, pauses: int | None) -> None:
        """Let it go on past so many pauses; None for its end."""
        self.stepped = True
        self._task.step(pauses)

    def kill(self) -> None:
        self._task.kill()

    def check(self) -> int:
        """Check the answer against the invariants.

        Returns:
            The HTTP status.
        """
        if self._task.failure is not None:
            raise self._task.failure
        answer: Answer = self._task.result
        self._recorder.counters.write(self._clock.time(), "answer", answer.status, answer.body)
        self._recorder.counters.add("answers", str(answer.status))
        self._recorder.violations.extend(self._violations(answer))
        return answer.status

    def _violations(self, answer: Answer) -> list[str]:
        message = self.copy.message
        late = self._clock.monotonic() - self._began - invariants.DEADLINE
        found = []
        # In the function a login goes on in a thread of its own, beyond the deadline of the event that needed it.
        login = max(part.last_login for part in self._all_commands()) > self._command.began + invariants.DEADLINE
        if self.undisturbed and not self._task.waited and not login and late > _SLACK:
            found.append(f"an answer came {late:.1f} s after the deadline")
        if message.impossible or not message.acting:
            right = 400 if message.impossible else 204
            if answer.status != right or self._command.stops or self._command.posted:
                found.append(f"an event with nothing to do was answered {answer.status} instead of {right}")
            return found
        if answer.status == 503:
            return found + self._problem_violations(answer)
        if answer.status not in (200, 204):
            found.append(f"a good event was answered {answer.status}: {answer.body.decode()}")
            return found
        results = self._results(answer)
        answered = [data["request"]["id"] for _, data in results]
        if len(results) != len(message.acting):
            found.append(f"{len(message.acting)} events were answered 2xx with {len(results)} results ({answered})")
            return found
        for event in message.acting:
            mine = [r for r in results if (r[1]["request"]["source"], r[1]["request"]["id"]) == event.key]
            if len(mine) == 1:
                found += self._result_violations(event, mine[0])
            else:
                found.append(f"the event {event.key} has {len(mine)} results in one answer")
        return found

    def _problem_violations(self, answer: Answer) -> list[str]:
        document = json.loads(answer.body)
        self.problem = document["type"].rpartition("/")[2].rpartition("#")[2].rpartition(":")[2]
        self._recorder.counters.add("problems", self.problem)
        found = []
        if self._command.posted and self.problem != "sink-unreachable":
            found.append(f"results were posted for what was answered 503 ({self.problem})")
        announce = self._environment.deployment.announce
        if self.problem == "not-announced" and announce is not Announce.REQUIRED:
            found.append(f"an announcement that was not delivered kept a stop from being sent ({announce})")
        if self.problem == "internal-error":
            found.append("the function has a bug (internal-error)")
        stops = [stop for part in self._all_commands() for stops in part.stops.values() for stop in stops]
        if self.problem in ("stop-limit-reached", "not-announced") and stops and not self._command.parts:
            found.append(f"stops were sent for an event that was answered {self.problem}")
        retry_after = next((value for name, value in answer.headers.items() if name.lower() == "retry-after"), None)
        if retry_after is None:
            found.append("503 without Retry-After")
        else:
            self.retry_after = float(retry_after)
        return found

    def _all_commands(self) -> list[Command]:
        return [self._command, *self._command.parts.values()]

    def _results(self, answer: Answer) -> list[Result]:
        """The results in the answer or at the sink; each once, since one may be sent to a sink again."""
        if answer.status == 204:
            once = {headers["ce-id"]: (headers, json.loads(body)) for headers, body in self._command.posted}
            return list(once.values())
        if self.copy.message.mode is Mode.BATCH:
            members: Sequence[dict[str, Any]] = json.loads(answer.body)
            return [({f"ce-{name}": str(value) for name, value in m.items()}, m["data"]) for m in members]
        return [({name.lower(): value for name, value in answer.headers.items()}, json.loads(answer.body))]

    def _result_violations(self, event: Event, result: Result) -> list[str]:
        headers, data = result
        rows, refusal = data["servers"], data["refusal"]
        command = self._command.of(event).run_by
        counters = self._recorder.counters
        reported = [[row[n] for n in ("id", "outcome", "reason", "vm_state", "task_state", "job_id")] for row in rows]
        taken = [row["request_id"] for row in rows if row["reason"] in _STOP_TAKEN]
        plan = data.get("plan")
        content = json.dumps([headers["ce-type"], refusal, reported, taken, plan and plan["expires_at"]])
        self._recorder.result_id(event.key, headers["ce-id"], content)
        word = "refused" if refusal else "failed" if data["summary"]["failed"] else "completed"
        if any(row["reason"] == "needs-approval" for row in rows):
            word = "planned"
        counters.add("results", word)
        found = []
        if headers["ce-type"] != f"{_PREFIX}{word}.v1" or headers["ce-causationid"] != event.id:
            found.append(f"a result is of type {headers['ce-type']}, caused by {headers['ce-causationid']}")
        if refusal:
            return found + self._refusal_violations(event, command, refusal, rows)
        if plan is not None:
            expires_at = datetime.fromisoformat(plan["expires_at"]).timestamp()
            offered = approvals.plan_of(command, headers["ce-id"], data, expires_at)
            found += approvals.plan_violations(command, offered, plan["approver"], self._clock.time())
            self._recorder.plans.append(offered)
        if event.approves is not None:
            people = [data["request"].get(name) for name in ("plan_id", "requester", "approved_by")]
            right = [event.approves.plan.plan_id, event.approves.plan.requester, event.approves.approved_by]
            if people != right:
                found.append(f"the result of an approval says {people}, and it should be {right}")
        if due := invariants.refusals(event, command.began, command.deployment.approval):
            found.append(f"an event was not refused though it is {due[0]}")
        if command.over_limit:
            found.append("an event was not refused though its batch is about too many servers")
        ids = [row["id"] for row in rows]
        if event.tag is None and ids != list(event.server_ids):
            found.append("a result is about other servers than were asked for")
        if event.tag is not None and not all(invariants.selected(command, id_) for id_ in ids):
            found.append("a result is about a server that no read showed with the tag")
        if event.tag is not None and event.key in self._selected and set(ids) != self._selected[event.key]:
            found.append(f"a result is about {len(ids)} servers, and {len(self._selected[event.key])} carry the tag")
        for row in rows:
            found += self._row_violations(event, command, row)
        return found

    def _refusal_violations(
        self, event: Event, command: Command, refusal: str, rows: Sequence[Mapping[str, Any]]
    ) -> list[str]:
        self._recorder.counters.add("refusals", refusal)
        now = self._clock.time()
        rules = command.deployment.approval
        right = any(refusal in invariants.refusals(event, moment, rules) for moment in (command.began, now))
        right |= refusal == "too-many-servers" and (
            len(invariants.selected_ids(self._command)) > invariants.MAX_SERVERS
            or len(invariants.selected_ids(command)) > invariants.MAX_SERVERS
        )
        if not right or command.stops or rows:
            return [f"an event was refused ({refusal}) that should not have been, or not wholly"]
        return []

    def _row_violations(self, event: Event, command: Command, row: Mapping[str, Any]) -> list[str]:
        counters = self._recorder.counters
        counters.add("rows", row["outcome"])
        counters.add("reasons", row["reason"])
        state, actions = self._recorder.state(row["id"]), self._recorder.actions(row["id"])
        name = self._environment.name_of(row["id"])
        found = []
        if violation := invariants.row_violation(command, row, state, actions):
            found.append(f"a result calls {name} {violation}")
        if reasons := self._expected.get((event.key, row["id"])):
            counters.add("rows predicted")
            if row["reason"] not in reasons:
                found.append(f"a result calls {name} {row['reason']}, and it should be {' or '.join(sorted(reasons))}")
        return found

    def _ids(self, event: Event) -> Sequence[str]:
        if event.tag is None:
            return event.server_ids
        states = self._environment.store.all()
        own = self._environment.deployment.project_id
        return [
            state.id
            for state in states
            if event.tag in state.tags
            and not state.deleted
            and state.project_id == own
            and self._environment.shows(state)
        ]

    def _predicted(self) -> dict[tuple[Key, str], set[str]]:
        environment, now = self._environment, self._clock.time()
        # Two events of a batch may be about one server, and then it matters which one is first.
        everything = [server_id for event in self.copy.message.acting for server_id in self._ids(event)]
        predicted = {}
        for event in self.copy.message.acting:
            command = self._command.of(event)
            rules = command.deployment.approval
            planned = rules.needed(event, command.fewest) is not None
            if planned != (rules.needed(event, command.most) is not None):
                continue
            for id_ in self._ids(event):
                state, actions = self._recorder.state(id_), self._recorder.actions(id_)
                if state and not environment.shows(state):
                    state = None
                bms = environment.bms
                reasons = invariants.expected(
                    command,
                    state,
                    actions,
                    now,
                    history=environment.denied != "history",
                    shared_job=len(everything) > 1
                    and bms is not None
                    and not (bms.job_server_ids and bms.job_children == "listed"),
                    planned=planned,
                )
                if reasons:
                    skipped = {reason for reason, outcome in invariants.OUTCOMES.items() if outcome == "skipped"}
                    reasons = approvals.predicted(command, id_, state, actions, reasons, skipped)
                if reasons and everything.count(id_) == 1:
                    predicted[(event.key, id_)] = reasons
        return predicted
