"""Counts what happened, records what the function received and sent, and checks the invariants."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from handler.simulator import Action, CallKind
from handler.simulator.compute.servers import ServerState
from handler.simulator.compute.store import ServerStore
from tests.harness.prove import approvals, invariants
from tests.harness.prove.approvals import IssuedPlan
from tests.harness.prove.command import Command, Observation, StopSent
from tests.harness.prove.events import Event, Key
from tests.harness.prove.scheduler import Clock

_RUN_CALLS = frozenset({CallKind.READ, CallKind.ACTIONS, CallKind.STOP, CallKind.JOB})
# A refusal that says nothing of a server that is named singly.
_LIST_REFUSED = frozenset({400, 403, 404})


class Counters:
    """Counters in groups, and the transcript of the run."""

    def __init__(self) -> None:
        self._groups: dict[str, Counter[str]] = {}
        self._transcript = hashlib.sha256()

    def add(self, group: str, name: str = "", times: int = 1) -> None:
        self._groups.setdefault(group, Counter())[str(name)] += times

    def write(self, *parts: object) -> None:
        self._transcript.update(repr(parts).encode() + b"\n")

    @property
    def transcript(self) -> str:
        """The hash of all lines of the transcript so far (SHA-256, hexadecimal)."""
        return self._transcript.hexdigest()

    def total(self, group: str) -> int:
        return sum(self._groups.get(group, Counter()).values())

    def unreached(self, required: Mapping[str, Iterable[str]]) -> list[str]:
        """Return what was never counted, as `group name`.

        Args:
            required: the names that must have been counted, by group.
        """
        return [f"{group} {name}" for group, names in required.items() for name in names if not self[group, str(name)]]

    def lines(self) -> list[str]:
        lines = []
        for group, counter in sorted(self._groups.items()):
            parts = sorted(((name, times) for name, times in counter.items() if name), key=lambda part: -part[1])
            lines.append(f"{group:22}{sum(counter.values()):>9}")
            lines += [f"    {name:34}{times:>9}" for name, times in parts]
        return lines

    def __getitem__(self, place: tuple[str, Any]) -> int:
        group, name = place
        return self._groups.get(group, Counter())[str(name)]


class InvariantViolation(AssertionError):
    """The function did something that the invariants do not allow; the text says what."""


class Recorder:
    """Everything that happened in one environment.

    Args:
        name_of: the name of a server.

    Attributes:
        violations: sentences about what is not allowed.
        plans: that results have offered.
    """

    def __init__(self, store: ServerStore, counters: Counters, clock: Clock, name_of: Callable[[str], str]) -> None:
        self.counters = counters
        self.violations: list[str] = []
        self.plans: list[IssuedPlan] = []
        self._store = store
        self._clock = clock
        self._name = name_of
        self._shown: dict[int, dict[str, Observation]] = {}
        self._taken: dict[tuple[Key, str], list[StopSent]] = {}
        self._result_ids: dict[tuple[Key, str], str] = {}
        self._contents: dict[str, tuple[Key, str]] = {}
        self._running: dict[tuple[int, Event], list[int]] = {}
        self._attempts: dict[int, list[float]] = {}

    def shown(self, command: Command, ids: Sequence[str]) -> None:
        """Remember servers as they are while the cloud shows them in the answer to a read."""
        self._shown[command.number] = {
            id_: Observation(self._clock.time(), self._store.get(id_), tuple(self._store.actions(id_)))
            for id_ in ids
            if self._store.known(id_)
        }

    def called(self, command: Command, kind: CallKind) -> None:
        """Note that a call is made; there must be one run of an event at a time in a process."""
        event = command.event
        if event is None or not (kind in _RUN_CALLS or (kind is CallKind.LIST and event.tag is None)):
            return
        runs = self._running.setdefault((command.process, event), [])
        if command.number in runs[:-1]:
            self.violations.append(f"two runs of the event {event.key} were going on at once in one process")
        elif command.number not in runs:
            runs.append(command.number)

    def stop_attempted(self, command: Command, ids: Sequence[str]) -> None:
        """Note that a stop is attempted, whether or not it will reach the cloud."""
        for server_id in ids:
            command.attempted.setdefault(server_id, self._clock.time())

    def answered(
        self, command: Command, kind: CallKind, ids: Sequence[str], status: int, body: bytes, *, whole: bool
    ) -> None:
        """Note that an answer reached the function; not `whole` if nothing can be read from it."""
        self.counters.add("calls", kind)
        good = whole and status < 300
        if kind in (CallKind.READ, CallKind.LIST) and good:
            for id_, observation in self._shown[command.number].items():
                command.observations.setdefault(id_, []).append(observation)
                command.latest[id_] = observation
        if not good:
            self.failed(command, kind, ids, status if whole else None)
        if kind is CallKind.ACTIONS:
            if good:
                command.without_history -= set(ids)
                command.newest_shown |= dict.fromkeys(ids, _newest_shown(body))
            elif 400 <= status < 500 and status not in (408, 413, 429):
                command.without_history |= set(ids)
        if kind is CallKind.STOP:
            for id_ in ids:
                stop = command.stops[id_][-1]
                stop.status = status if whole else None
                stop.error_document = whole and status < 300 and b'"error"' in body
                if stop.status == 401:
                    # Refused before the cloud read it: the same stop is sent again with a new token.
                    command.latest[id_] = stop.basis
                    command.renewing.add(id_)

    def failed(self, command: Command, kind: CallKind, ids: Sequence[str], status: int | None) -> None:
        """Record a failed call; a refused list does not count where servers are named."""
        named = command.event is not None and command.event.tag is None
        if not (kind is CallKind.LIST and named and status in _LIST_REFUSED):
            command.failing |= set(ids or self._about(command))

    def stop_sent(self, command: Command, ids: Sequence[str]) -> None:
        """Check a stop, of one server or of several, on its arrival at the cloud."""
        if not ids:
            self.violations.append("a stop was sent that names no server")
        for server_id in ids:
            stop = StopSent(self._clock.time(), command.latest.get(server_id))
            violation = invariants.stop_violation(command, server_id, stop, self._earlier(command, server_id))
            if violation:
                self.violations.append(f"a stop was sent to {self._name(server_id)} {violation}")
            command.stops.setdefault(server_id, []).append(stop)
            command.latest[server_id] = None
            command.failing.add(server_id)
            self.counters.add("stops sent")
            if server_id in command.renewing:
                command.renewing.remove(server_id)
            else:
                self._count_attempt(command)

    def stop_taken(self, command: Command, server_id: str, *, late: bool = False) -> None:
        """Note that the cloud took the stop just sent, or one that was delayed on the way."""
        stops = command.stops[server_id]
        stop = next(stop for stop in stops if stop.taken_at is None and stop.status is None) if late else stops[-1]
        stop.late = late
        stop.taken_at = self._clock.time()
        stop.request_id = next(a.request_id for a in self._store.actions(server_id) if a.action == "stop")
        assert command.event is not None
        self._taken.setdefault((command.event.key, server_id), []).append(stop)
        self.counters.add("stops taken")
        state = self._store.get(server_id)
        if state.controller != "works":
            self.counters.add("faults", f"controller {state.controller}")

    def announced(self, command: Command, headers: Mapping[str, str], body: bytes, *, taken: bool) -> None:
        self.counters.add("announcements", "taken" if taken else "not taken")
        self.violations += approvals.note_announcement(command, headers, body, taken=taken)

    def result_id(self, key: Key, found: str, content: str) -> None:
        """Compare the id of a result with the others: the same content has the same id, other content another.

        Args:
            content: what the id stands for: type, refusal, and for each server what the result says of it.
        """
        if self._result_ids.setdefault((key, content), found) != found:
            self.violations.append(f"a result of event {key} has another id than the same result had before")
        if self._contents.setdefault(found, (key, content)) != (key, content):
            self.violations.append(f"two different results, one of the event {key}, have the same id")

    def state(self, server_id: str) -> ServerState | None:
        return self._store.get(server_id) if self._store.known(server_id) else None

    def actions(self, server_id: str) -> list[Action]:
        return self._store.actions(server_id) if self._store.known(server_id) else []

    def _count_attempt(self, command: Command) -> None:
        attempts = self._attempts.setdefault(command.process, [])
        attempts.append(self._clock.time())
        if command.deployment.stop_limit is None:
            return
        most, window = command.deployment.stop_limit
        if sum(at > self._clock.time() - window for at in attempts) > most:
            self.violations.append(f"more than {most} servers were sent stops within {window:g} seconds")

    def _about(self, command: Command) -> Sequence[str]:
        """The servers that an event may be about: those that it names, or all."""
        event = command.event
        if event is None:
            return ()
        return event.server_ids if event.tag is None else [state.id for state in self._store.all()]

    def _earlier(self, command: Command, server_id: str) -> list[StopSent]:
        """Stops for the same event that really brought the server down."""
        if command.event is None:
            return []
        down = {
            action.request_id
            for action in self._store.actions(server_id)
            if action.action == "stop" and action.finish_time is not None and not action.failed
        }
        return [stop for stop in self._taken.get((command.event.key, server_id), []) if stop.request_id in down]


def _newest_shown(body: bytes) -> str:
    """Return the request id of the first entry of a history; empty if it has none."""
    entries = json.loads(body)["instanceActions"]
    return str(entries[0]["request_id"]) if entries and isinstance(entries[0], dict) else ""


def ids_shown(body: bytes) -> list[str]:
    """Return the ids of the servers that the body of an answer to a read shows."""
    try:
        document = json.loads(body)
    except ValueError:
        return []
    if not isinstance(document, dict):
        return []
    servers = document.get("servers", [document.get("server")])
    return [server["id"] for server in servers if isinstance(server, dict) and "id" in server]
