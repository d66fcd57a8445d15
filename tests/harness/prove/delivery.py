"""One delivery under way, and the judgement of its answer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from handler.inbound.http.responses import Answer
from tests.harness.prove import law
from tests.harness.prove.broker import Copy
from tests.harness.prove.clock import Clock
from tests.harness.prove.errand import Errand
from tests.harness.prove.events import Asked, Key, Mode
from tests.harness.prove.fibers import Fiber
from tests.harness.prove.function import Function
from tests.harness.prove.ledger import Ledger
from tests.harness.prove.town import Town

_STOP_TAKEN = frozenset({"confirmed", "accepted", "reverted", "power-still-on"})
_PREFIX = "io.github.bms-autostop.stop."
# A call may end a little after its time-out: what it takes to get there and back.
_SLACK = 2.5

Result = tuple[Mapping[str, str], Mapping[str, Any]]


class Delivery:
    """A copy of a message in the hands of the function.

    Args:
        town: the cloud that it is about.
        order: in which order calls are made and seen; see `Fiber`.
        calm: nothing is to go wrong in it, so the model can foretell what comes out.
    """

    def __init__(
        self,
        function: Function,
        copy: Copy,
        clock: Clock,
        ledger: Ledger,
        town: Town,
        *,
        order: int = 0,
        calm: bool = False,
    ) -> None:
        self.copy = copy
        self.undisturbed = True
        self.stepped = False
        self._clock = clock
        self._ledger = ledger
        self._town = town
        self._began = clock.monotonic()
        self._errand = Errand(copy.message.acting, clock.time())
        self._calm = {event.key: set(self._ids(event)) for event in copy.message.acting} if calm else {}
        self._foretold = self._foretell() if calm else {}
        headers, body = copy.message.wire()
        self.fiber = Fiber(lambda: function.answer(headers, body), self._errand, order)

    @property
    def done(self) -> bool:
        """Whether the function has answered, or was killed."""
        return self.fiber.done

    def go_on(self, pauses: int | None) -> None:
        """Let it go on past so many points at which something may happen to it; None for its end."""
        self.stepped = True
        self.fiber.step(pauses)

    def kill(self) -> None:
        """End the function that handles it."""
        self.fiber.kill()

    def judge(self) -> int:
        """Hold the answer against the law.

        Returns:
            The HTTP status.
        """
        if self.fiber.failure is not None:
            raise self.fiber.failure
        answer: Answer = self.fiber.result
        self._ledger.tally.add("answers", str(answer.status))
        for fault in self._faults(answer):
            self._ledger.broken.append(fault)
        return answer.status

    def _faults(self, answer: Answer) -> list[str]:
        message = self.copy.message
        faults: list[str] = []
        late = self._clock.monotonic() - self._began - law.DEADLINE
        if self.undisturbed and late > _SLACK:
            faults.append(f"an answer came {late:.1f} s after the deadline")
        if message.impossible or not message.acting:
            wanted = 400 if message.impossible else 204
            if answer.status != wanted or self._errand.stops or self._errand.posted:
                faults.append(f"an event with nothing to do was answered {answer.status} instead of {wanted}")
            return faults
        if answer.status == 503:
            document = json.loads(answer.body)
            if self._errand.posted and not document["type"].endswith("sink-unreachable"):
                faults.append(f"results went out for what was answered 503 ({document['type']})")
            if document["type"].endswith("internal-fault"):
                faults.append("a bug showed itself (internal-fault)")
            if "Retry-After" not in answer.headers:
                faults.append("503 without Retry-After")
            return faults
        if answer.status not in (200, 204):
            faults.append(f"a good event was answered {answer.status}: {answer.body.decode()}")
            return faults
        results = self._results(answer)
        told = [data["request"]["id"] for _, data in results]
        if len(results) != len(message.acting):
            faults.append(f"{len(message.acting)} events were answered 2xx with {len(results)} results ({told})")
            return faults
        for event in message.acting:
            mine = [r for r in results if (r[1]["request"]["source"], r[1]["request"]["id"]) == event.key]
            if len(mine) == 1:
                faults += self._misresult(event, mine[0])
            else:
                faults.append(f"the event {event.key} has {len(mine)} results in one answer")
        return faults

    def _results(self, answer: Answer) -> list[Result]:
        """The results that went out, in the answer or to the sink; each once, for a sink may be sent one again."""
        if answer.status == 204:
            once = {headers["ce-id"]: (headers, json.loads(body)) for headers, body in self._errand.posted}
            return list(once.values())
        if self.copy.message.mode is Mode.BATCH:
            members: Sequence[dict[str, Any]] = json.loads(answer.body)
            return [({f"ce-{name}": str(value) for name, value in m.items()}, m["data"]) for m in members]
        return [({name.lower(): value for name, value in answer.headers.items()}, json.loads(answer.body))]

    def _misresult(self, event: Asked, result: Result) -> list[str]:
        headers, data = result
        rows, refusal = data["servers"], data["refusal"]
        errand = self._errand.of(event)
        tally = self._ledger.tally
        said = [[row[n] for n in ("id", "outcome", "reason", "vm_state", "task_state", "job_id")] for row in rows]
        taken = [row["request_id"] for row in rows if row["reason"] in _STOP_TAKEN]
        content = json.dumps([headers["ce-type"], refusal, said, taken])
        self._ledger.result_id(event.key, headers["ce-id"], content)
        word = "refused" if refusal else "failed" if data["summary"]["failed"] else "completed"
        tally.add("results", word)
        faults = []
        if headers["ce-type"] != f"{_PREFIX}{word}.v1" or headers["ce-causationid"] != event.id:
            faults.append(f"a result is of type {headers['ce-type']}, caused by {headers['ce-causationid']}")
        due = law.refusals(event, errand.began)
        if refusal:
            tally.add("rows", f"refused {refusal}")
            just = refusal in law.refusals(event, self._clock.time())
            just |= refusal == "too-many-servers" and law.too_many(errand)
            if not just or errand.stops or rows:
                faults.append(f"an event was refused ({refusal}) that should not have been, or not wholly")
            return faults
        if due:
            faults.append(f"an event was not refused though it is {due[0]}")
        told = [row["id"] for row in rows]
        if event.tag is None and told != list(event.server_ids):
            faults.append("a result tells of other servers than were asked for")
        if event.tag is not None and not all(law.meant(errand, id_) for id_ in told):
            faults.append("a result tells of a server that nobody saw with the tag")
        if event.tag is not None and event.key in self._calm and set(told) != self._calm[event.key]:
            faults.append(f"a result tells of {len(told)} servers, and {len(self._calm[event.key])} carry the tag")
        for row in rows:
            tally.add("rows", f"{row['outcome']} {row['reason']}")
            state, actions = self._ledger.state(row["id"]), self._ledger.actions(row["id"])
            name = state.name if state else "an unknown server"
            if fault := law.misstatement(errand, row, state, actions):
                faults.append(f"a result calls {name} {fault}")
            foretold = self._foretold.get((event.key, row["id"]))
            if foretold:
                tally.add("results foretold")
                if row["reason"] not in foretold:
                    faults.append(f"a result calls {name} {row['reason']}, and it should be {' or '.join(foretold)}")
        return faults

    def _ids(self, event: Asked) -> Sequence[str]:
        """The servers that an event is about, as things are now."""
        if event.tag is None:
            return event.server_ids
        states = self._town.world.all()
        return [s.id for s in states if event.tag in s.tags and not s.deleted and self._town.shows(s)]

    def _foretell(self) -> dict[tuple[Key, str], set[str]]:
        now = self._clock.time()
        # Two events of a batch may be about one server, and then it matters who is first.
        everything = [server_id for event in self.copy.message.acting for server_id in self._ids(event)]
        foretold = {}
        for event in self.copy.message.acting:
            for id_ in self._ids(event):
                state, actions = self._ledger.state(id_), self._ledger.actions(id_)
                if state and not self._town.shows(state):
                    state = None
                bms = self._town.bms
                veiled = bms is not None and not bms.job_server_ids
                reasons = law.expected(event, state, actions, now, veiled=veiled)
                if reasons and everything.count(id_) == 1:
                    foretold[(event.key, id_)] = reasons
        return foretold
