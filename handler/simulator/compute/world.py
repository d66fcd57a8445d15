"""The servers of the simulated cloud and Nova's rules about them: no HTTP, no threads, no timers.

A change that takes time is recorded with the time of its end, and is made by the first read after that. So a test with
a fake clock controls the cloud.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from handler.simulator.compute.servers import Action, Due, ServerState
from handler.simulator.compute.states import Controller, power_state_of

_OPEN_TO_METADATA = frozenset({"active", "paused", "suspended", "stopped"})


@dataclass(frozen=True, slots=True)
class Actor:
    """The user of an action, and the request id under which it is recorded."""

    user_id: str
    project_id: str
    request_id: str
    admin: bool = False


class Refusal(Exception):
    """The action is not permitted; the text is Nova's message."""


class NotFound(Refusal):
    """The caller has no such server (any more, or not yet)."""


class Conflict(Refusal):
    """The server's state does not permit it."""


class World:
    """All servers of all projects.

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
        """Whether there is or ever was a server of that id, which is compared without regard to case, as in Nova."""
        with self.lock:
            return server_id.lower() in self._servers

    def find(self, server_id: str, project_id: str | None) -> ServerState:
        """Return the present state of a server.

        Args:
            server_id: compared without regard to case.
            project_id: whose servers are seen; None for an administrator, who sees all.

        Raises:
            NotFound: there is none, it was deleted, or it belongs to another project.
        """
        with self.lock:
            if self.known(server_id):
                server = self.get(server_id)
                if not server.deleted and project_id in (None, server.project_id):
                    return server
            raise NotFound(f"Instance {server_id} could not be found.")

    def find_to_act(self, server_id: str, project_id: str | None) -> ServerState:
        """Return the server of an action.

        Raises:
            NotFound: as `find`, and also while the server is being scheduled; the text differs for an unknown id
                (nova/compute/api.py looks it up by cell).
        """
        with self.lock:
            if not self.known(server_id):
                raise NotFound(f"Instance {server_id} has no mapping to a cell.")
            server = self.find(server_id, project_id)
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

    def stop(self, server_id: str, actor: Actor) -> None:
        """Begin to power the server off.

        Raises:
            NotFound: no such server for this actor.
            Conflict: locked, without a host, in another state than active or error, busy, or never launched.
        """
        with self.lock:
            now = self.clock()
            server = self._admitted(server_id, actor, "stop", frozenset({"active", "error"}))
            delay = self.power_off_delay if server.power_off_delay is None else server.power_off_delay
            if Controller(server.controller) is Controller.REFUSES:
                delay = 0.0
            ends_in = server.vm_state if server.power_off_fails else "stopped"
            due = Due(now + delay, ends_in, actor.request_id, failed=server.power_off_fails)
            self._begin(server, "stop", "powering-off", actor, due)

    def start(self, server_id: str, actor: Actor, delay: float = 0.0) -> None:
        """Begin to power the server on, which takes `delay` seconds.

        Raises:
            NotFound: no such server for this actor.
            Conflict: as for a stop; only a stopped server can be started.
        """
        with self.lock:
            server = self._admitted(server_id, actor, "start", frozenset({"stopped"}))
            due = Due(self.clock() + delay, "active", actor.request_id)
            self._begin(server, "start", "powering-on", actor, due)

    def reboot(self, server_id: str, actor: Actor, delay: float = 0.0) -> None:
        """Begin to restart the server, which takes `delay` seconds.

        Raises:
            NotFound: no such server for this actor.
            Conflict: as for a stop; active, stopped, paused, suspended and error are admitted.
        """
        with self.lock:
            admitted = frozenset({"active", "stopped", "paused", "suspended", "error"})
            server = self._admitted(server_id, actor, "reboot", admitted)
            due = Due(self.clock() + delay, "active", actor.request_id)
            self._begin(server, "reboot", "rebooting", actor, due)

    def delete(self, server_id: str, actor: Actor) -> None:
        """Delete the server at once.

        Raises:
            NotFound: no such server for this actor.
            Conflict: locked.
        """
        with self.lock:
            server = self.find(server_id, None if actor.admin else actor.project_id)
            _check_lock(server, actor)
            now = self.clock()
            self._record(server.id, "delete", actor, now)
            self._servers[server.id] = replace(
                server,
                vm_state="deleted",
                task_state=None,
                power_state=0,
                updated=now,
                terminated_at=now,
                due=None,
            )

    def update_metadata(self, server_id: str, actor: Actor, entries: Mapping[str, str]) -> Mapping[str, str]:
        """Set entries of a server's metadata, and return all of it; neither `updated` nor the history shows it.

        Raises:
            NotFound: no such server for this actor.
            Conflict: locked, or in a state in which Nova allows no change of metadata.
        """
        with self.lock:
            server = self._open_to_metadata(server_id, actor, "update metadata")
            changed = replace(server, metadata={**server.metadata, **entries})
            self._servers[server.id] = changed
            return changed.metadata

    def delete_metadata(self, server_id: str, actor: Actor, key: str) -> None:
        """Remove one entry of a server's metadata.

        Raises:
            NotFound: no such server for this actor, or no such entry.
            Conflict: as for an update.
        """
        with self.lock:
            server = self.find(server_id, None if actor.admin else actor.project_id)
            if key not in server.metadata:
                raise NotFound("Metadata item was not found")
            server = self._open_to_metadata(server_id, actor, "delete metadata")
            left = {name: value for name, value in server.metadata.items() if name != key}
            self._servers[server.id] = replace(server, metadata=left)

    def _open_to_metadata(self, server_id: str, actor: Actor, action: str) -> ServerState:
        # nova/compute/api.py: check_instance_lock, then check_instance_state with no regard to a running operation.
        server = self.find(server_id, None if actor.admin else actor.project_id)
        _check_lock(server, actor)
        if server.vm_state not in _OPEN_TO_METADATA:
            raise Conflict(f"Cannot '{action}' instance {server_id} while it is in vm_state {server.vm_state}")
        return server

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
        server = self.find_to_act(server_id, None if actor.admin else actor.project_id)
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

    def _begin(self, server: ServerState, action: str, task_state: str, actor: Actor, due: Due) -> None:
        now = self.clock()
        self._servers[server.id] = replace(server, task_state=task_state, updated=now, due=due)
        self._record(server.id, action, actor, now)

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
        left_on = Controller(server.controller).power_state
        if due.vm_state == "stopped" and left_on is not None:
            power_state = left_on
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
