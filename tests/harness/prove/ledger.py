"""What the function was shown, what it sent, and what it said: written down as it happens, and held against the law."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from handler.simulator import Action, CallKind
from handler.simulator.compute.servers import ServerState
from handler.simulator.compute.world import World
from tests.harness.prove import law
from tests.harness.prove.clock import Clock
from tests.harness.prove.errand import Errand, Look, Sent
from tests.harness.prove.events import Key
from tests.harness.prove.tally import Tally


class Broken(AssertionError):
    """The function broke the law; the text says how."""


class Ledger:
    """Everything that happened in one world.

    Args:
        shows: whether the API that is spoken shows a server.

    Attributes:
        broken: sentences about laws that were broken.
    """

    def __init__(self, world: World, tally: Tally, clock: Clock, shows: Callable[[ServerState], bool]) -> None:
        self.tally = tally
        self.broken: list[str] = []
        self._world = world
        self._clock = clock
        self._shows = shows
        self._shown: dict[int, dict[str, Look]] = {}
        self._taken: dict[tuple[Key, str], list[Sent]] = {}
        self._result_ids: dict[tuple[Key, str], str] = {}
        self._contents: dict[str, tuple[Key, str]] = {}

    def look(self, errand: Errand, ids: Sequence[str]) -> None:
        """Remember servers as they are while the cloud answers a read of them; no ids for all those of the errand."""
        shown = [(id_, self._world.get(id_)) for id_ in ids or self._about(errand) if self._world.known(id_)]
        self._shown[id(errand)] = {
            id_: Look(self._clock.time(), state, tuple(self._world.actions(id_)))
            for id_, state in shown
            if not state.deleted and self._shows(state)
        }

    def answered(self, errand: Errand, kind: CallKind, ids: Sequence[str], status: int, *, whole: bool) -> None:
        """Note that an answer reached the function; not `whole` if it is of no use to anybody."""
        self.tally.add("calls", kind)
        good = whole and status < 300
        if kind in (CallKind.READ, CallKind.LIST) and good:
            for id_, look in self._shown[id(errand)].items():
                errand.reads.setdefault(id_, []).append(look)
                errand.fresh[id_] = look
        if not good:
            errand.failing |= set(ids or self._about(errand))
        if kind is CallKind.ACTIONS:
            if good:
                errand.blind -= set(ids)
            elif 400 <= status < 500 and status not in (408, 413, 429):
                errand.blind |= set(ids)
        if kind is CallKind.STOP:
            for id_ in ids:
                sent = errand.stops[id_][-1]
                sent.answer = status if whole else None
                if sent.answer == 401:
                    # Refused before anybody looked at it: the same stop goes out again with a new token.
                    errand.fresh[id_] = sent.basis

    def stop_sent(self, errand: Errand, ids: Sequence[str]) -> None:
        """Judge a stop, of one server or of several, on its arrival at the cloud."""
        if not ids:
            self.broken.append("a stop was sent that names no server")
        for server_id in ids:
            sent = Sent(self._clock.time(), errand.fresh.get(server_id))
            fault = law.objection(errand, server_id, sent, self._earlier(errand, server_id))
            if fault:
                self.broken.append(f"a stop was sent to {self._name(server_id)} {fault}")
            errand.stops.setdefault(server_id, []).append(sent)
            errand.fresh[server_id] = None
            errand.failing.add(server_id)
            self.tally.add("stops sent")

    def stop_taken(self, errand: Errand, server_id: str) -> None:
        """Note that the cloud took the stop just sent."""
        sent = errand.stops[server_id][-1]
        self._note_taken(errand, server_id, sent)

    def taken_late(self, errand: Errand, server_id: str) -> None:
        """Note that the cloud took a stop that had lain about."""
        sent = next(sent for sent in errand.stops[server_id] if sent.taken_at is None and sent.answer is None)
        sent.late = True
        self._note_taken(errand, server_id, sent)

    def result_posted(self, errand: Errand, headers: Mapping[str, str], body: bytes) -> None:
        """Note a result that the sink took."""
        errand.posted.append((headers, body))

    def result_id(self, key: Key, found: str, content: str) -> None:
        """Hold the id of a result against the others: the same content has the same id, other content another.

        Args:
            content: what the id stands for: type, refusal, and of each server what was said of it.
        """
        if self._result_ids.setdefault((key, content), found) != found:
            self.broken.append(f"a result of event {key} has another id than the same result had before")
        if self._contents.setdefault(found, (key, content)) != (key, content):
            self.broken.append(f"two different results, one of the event {key}, have the same id")

    def state(self, server_id: str) -> ServerState | None:
        """A server as it is now; None if there never was one."""
        return self._world.get(server_id) if self._world.known(server_id) else None

    def actions(self, server_id: str) -> list[Action]:
        """What was done to a server."""
        return self._world.actions(server_id) if self._world.known(server_id) else []

    def _about(self, errand: Errand) -> Sequence[str]:
        """The servers that an event may be about: those that it names, or all."""
        if errand.asked is None:
            return ()
        return errand.asked.server_ids if errand.asked.tag is None else [state.id for state in self._world.all()]

    def _note_taken(self, errand: Errand, server_id: str, sent: Sent) -> None:
        sent.taken_at = self._clock.time()
        sent.request_id = next(a.request_id for a in self._world.actions(server_id) if a.action == "stop")
        assert errand.asked is not None
        self._taken.setdefault((errand.asked.key, server_id), []).append(sent)
        self.tally.add("stops taken")

    def _earlier(self, errand: Errand, server_id: str) -> list[Sent]:
        """Stops for the same event that really brought the server down."""
        if errand.asked is None:
            return []
        down = {
            action.request_id
            for action in self._world.actions(server_id)
            if action.action == "stop" and action.finish_time is not None and not action.failed
        }
        return [sent for sent in self._taken.get((errand.asked.key, server_id), []) if sent.request_id in down]

    def _name(self, server_id: str) -> str:
        state = self.state(server_id)
        return state.name if state else "an unknown server"
