"""The servers of the simulated cloud and Nova's rules about them: no HTTP, no threads, no timers.

A change that takes time is recorded with the time of its end, and is made by the first read after that. So a test with
a fake clock controls the cloud.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from handler.simulator.compute.servers import Action, Controller, Due, ServerState, power_state_of

_OPEN_TO_METADATA = frozenset({"active", "paused", "suspended", "stopped"})
# For each action: the vm_states that admit it, the task_state while it runs, and the vm_state afterwards.
_ACTIONS = {
    "stop": (frozenset({"active", "error"}), "powering-off", "stopped"),
    "start": (frozenset({"stopped"}), "powering-on", "active"),
    "reboot": (frozenset({"active", "stopped", "paused", "suspended", "error"}), "rebooting", "active"),
}


@dataclass(frozen=True, slots=True)
class Actor:
    """The user of an action, and the request id under which it is recorded."""

    user_id: str
    project_id: str
    request_id: str
    admin: bool = False

    @property
    def scope(self) -> str | None:
        """The project whose servers the user sees; None for an administrator, who sees all."""
        return None if self.admin else self.project_id


class Refusal(Exception):
    """The action is not permitted; the text is Nova's message, and `status` the HTTP status that goes with it."""

    status: int


class NotFound(Refusal):
    """The caller has no such server (any more, or not yet)."""

    status = 404


class Conflict(Refusal):
    """The server's state does not permit it."""

    status = 409


class ServerStore:
    """All servers of all projects; ids are compared without regard to case, as in Nova.

    Args:
        clock: seconds since the epoch; called at every read.
        power_off_delay: seconds from an accepted stop to `stopped`, unless a server has its own.
    """

    def __init__(self, clock: Callable[[], float], power_off_delay: float = 0.0) -> None:
        self.clock = clock
        self.power_off_delay = power_off_delay
        self.lock = threading.RLock()
        self._servers: dict[str, ServerState] = {}
        self._actions: dict[str, list[Action]] = {}

    def add(self, server: ServerState, request_id: str) -> None:
        """Add a server, with the record of its creation."""
        with self.lock:
            if server.id in self._servers:
                raise ValueError(f"there is a server {server.id} already")
            self._servers[server.id] = server
            self._record(server.id, "create", Actor(server.user_id, server.project_id, request_id), server.created)

    def get(self, server_id: str) -> ServerState:
        """Return the present state of a server of any project, also of a deleted one.

        Raises:
            KeyError: there never was one.
        """
        with self.lock:
            return self._settled(server_id.lower())

    def known(self, server_id: str) -> bool:
        """Whether there is or ever was a server of that id."""
        with self.lock:
            return server_id.lower() in self._servers

    def find(self, server_id: str, project_id: str | None) -> ServerState:
        """Return the present state of a server of a project, or of any one if None.

        Raises:
            NotFound: there is none, it was deleted, or it belongs to another project.
        """
        with self.lock:
            if self.known(server_id):
                server = self.get(server_id)
                if not server.deleted and project_id in (None, server.project_id):
                    return server
            raise NotFound(f"Instance {server_id} could not be found.")

    def find_to_act(self, server_id: str, actor: Actor) -> ServerState:
        """Return the server of an action.

        Raises:
            NotFound: as `find`, and also while the server is being scheduled; the text differs for an unknown id
                (nova/compute/api.py looks it up by cell).
        """
        with self.lock:
            if not self.known(server_id):
                raise NotFound(f"Instance {server_id} has no mapping to a cell.")
            server = self.find(server_id, actor.scope)
            if not server.scheduled:
                raise NotFound(f"Instance {server.id} could not be found.")
            return server

    def all(self) -> list[ServerState]:
        """Return the present state of every server, also of deleted ones, the last created first."""
        with self.lock:
            newest_first = [self._settled(server_id) for server_id in reversed(self._servers)]
            return sorted(newest_first, key=lambda server: -server.created)

    def actions(self, server_id: str) -> list[Action]:
        """Return the history of the server, the latest action first."""
        with self.lock:
            self._settled(server_id.lower())
            return list(reversed(self._actions[server_id.lower()]))

    def act(self, server_id: str, action: str, actor: Actor, delay: float | None = None) -> None:
        """Begin to "stop", "start" or "reboot" a server, which takes `delay` seconds; None for the usual time.

        Raises:
            NotFound: no such server for this actor.
            Conflict: locked, without a host, in a state that does not admit it, busy, or never launched.
        """
        vm_states, task_state, vm_state = _ACTIONS[action]
        with self.lock:
            now, server, failed = self.clock(), self._admitted(server_id, actor, action, vm_states), False
            if delay is None:
                delay = self.power_off_delay
            if action == "stop":
                failed = server.power_off_fails
                vm_state = server.vm_state if failed else vm_state
                delay = delay if server.power_off_delay is None else server.power_off_delay
                delay = 0.0 if Controller(server.controller) is Controller.REFUSES else delay
            due = Due(now + delay, vm_state, actor.request_id, failed)
            self._servers[server.id] = replace(server, task_state=task_state, updated=now, due=due)
            self._record(server.id, action, actor, now)

    def delete(self, server_id: str, actor: Actor) -> None:
        """Delete the server at once.

        Raises:
            NotFound: no such server for this actor.
            Conflict: locked.
        """
        with self.lock:
            server = self.find(server_id, actor.scope)
            _check_lock(server, actor)
            now = self.clock()
            self._record(server.id, "delete", actor, now)
            self.change(server.id, vm_state="deleted", power_state=0, updated=now, terminated_at=now)

    def update_metadata(self, server_id: str, actor: Actor, entries: Mapping[str, str]) -> Mapping[str, str]:
        """Set entries of a server's metadata, and return all of it; neither `updated` nor the history shows it.

        Raises:
            NotFound: no such server for this actor.
            Conflict: locked, or in a state in which Nova allows no change of metadata.
        """
        with self.lock:
            metadata = {**self.find(server_id, actor.scope).metadata, **entries}
            self._set_metadata(server_id, actor, "update metadata", metadata)
            return metadata

    def delete_metadata(self, server_id: str, actor: Actor, key: str) -> None:
        """Remove one entry of a server's metadata.

        Raises:
            NotFound: no such server for this actor, or no such entry.
            Conflict: as for an update.
        """
        with self.lock:
            metadata = dict(self.find(server_id, actor.scope).metadata)
            if metadata.pop(key, None) is None:
                raise NotFound("Metadata item was not found")
            self._set_metadata(server_id, actor, "delete metadata", metadata)

    def _set_metadata(self, server_id: str, actor: Actor, action: str, metadata: Mapping[str, str]) -> None:
        # nova/compute/api.py: check_instance_lock, then check_instance_state with no regard to a running operation.
        server = self.find(server_id, actor.scope)
        _check_lock(server, actor)
        if server.vm_state not in _OPEN_TO_METADATA:
            raise Conflict(f"Cannot '{action}' instance {server_id} while it is in vm_state {server.vm_state}")
        self._servers[server.id] = replace(server, metadata=metadata)

    def change(self, server_id: str, **changes: Any) -> None:
        """Set fields of `ServerState` without an action.

        A new vm_state or task_state ends the running operation. A new vm_state without a task_state means that there
        is no operation, and sets the usual power_state.

        Raises:
            KeyError: there never was such a server.
            TypeError: there is no such field.
        """
        with self.lock:
            server = self.get(server_id)
            if unknown := set(changes) - {field.name for field in fields(ServerState)}:
                raise TypeError(f"a server has no {', '.join(sorted(unknown))}")
            if "tags" in changes:
                changes["tags"] = tuple(changes["tags"])
            if "vm_state" in changes or "task_state" in changes:
                changes.setdefault("due", None)
            if "vm_state" in changes:
                changes.setdefault("task_state", None)
                changes.setdefault("power_state", power_state_of(changes["vm_state"], server.host is not None))
            changes.setdefault("updated", self.clock())
            self._servers[server.id] = replace(server, **changes)

    def record(self, server_id: str, action: str, actor: Actor, at: float) -> None:
        """Add an entry to a server's history without an action, as Ironic's notifications do.

        Raises:
            KeyError: there never was such a server.
        """
        with self.lock:
            self._record(self.get(server_id).id, action, actor, at)
            self._actions[server_id.lower()].sort(key=lambda entry: entry.start_time)

    def _admitted(self, server_id: str, actor: Actor, action: str, vm_states: frozenset[str]) -> ServerState:
        # The order is upstream's (the decorators in nova/compute/api.py), and decides on the message.
        server = self.find_to_act(server_id, actor)
        _check_lock(server, actor)
        if server.host is None:
            raise Conflict(f"Instance {server.id} is not ready")
        if server.vm_state not in vm_states:
            raise Conflict(f"Cannot '{action}' instance {server_id} while it is in vm_state {server.vm_state}")
        if server.task_state is not None:
            raise Conflict(f"Cannot '{action}' instance {server_id} while it is in task_state {server.task_state}")
        if server.launched_at is None:
            raise Conflict(f"Instance {server_id} is in an invalid state for '{action}'")
        return server

    def _record(self, server_id: str, action: str, actor: Actor, now: float) -> None:
        ended = now if action in ("create", "delete") else None
        entry = Action(action, server_id, actor.request_id, actor.user_id, actor.project_id, now, ended)
        self._actions.setdefault(server_id, []).append(entry)

    def _settled(self, server_id: str) -> ServerState:
        server = self._servers[server_id]
        due = server.due
        if due is None or self.clock() < due.at:
            return server
        power_state = power_state_of(due.vm_state, server.host is not None)
        if due.vm_state == "stopped":
            power_state = Controller(server.controller).power_state
        settled = replace(
            server, vm_state=due.vm_state, task_state=None, power_state=power_state, updated=due.at, due=None
        )
        self._servers[server_id] = settled
        self._actions[server_id] = [
            replace(entry, finish_time=due.at, failed=due.failed) if entry.request_id == due.request_id else entry
            for entry in self._actions[server_id]
        ]
        return settled


def _check_lock(server: ServerState, actor: Actor) -> None:
    if server.locked and not actor.admin:
        raise Conflict(f"Instance {server.id} is locked")
