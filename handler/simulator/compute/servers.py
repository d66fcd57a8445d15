"""The state of one server, and its history."""

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from handler.simulator.compute.states import Controller, power_state_of, status_of


@dataclass(frozen=True, slots=True)
class Due:
    """A change of state that has begun and ends in the future.

    Args:
        at: seconds since the epoch on the world's clock; infinite for one that never ends.
        vm_state: the vm_state from then on; task_state is null from then on.
        request_id: the recorded action that this ends.
        failed: whether the host failed, and the action's message becomes "Error".
    """

    at: float
    vm_state: str
    request_id: str
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Action:
    """One entry of a server's `os-instance-actions`; times are seconds since the epoch."""

    action: str
    server_id: str
    request_id: str
    user_id: str
    project_id: str
    start_time: float
    finish_time: float | None = None
    failed: bool = False


@dataclass(frozen=True, slots=True)
class ServerFault:
    """The `fault` of a server in error; `created` is in seconds since the epoch."""

    message: str
    created: float
    code: int = 500


@dataclass(frozen=True, slots=True)
class ServerState:
    """A server at one moment. Times are seconds since the epoch; `host` is None if it never had one.

    `controller` is a `Controller`, or its text. `flavor_name` is shown from microversion 2.47 on, where it differs from
    the id, `flavor`.
    """

    id: str
    name: str
    project_id: str
    user_id: str
    created: float
    updated: float
    launched_at: float | None
    host: str | None
    power_state: int
    vm_state: str = "active"
    task_state: str | None = None
    locked: bool = False
    locked_reason: str | None = None
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    flavor: str = "physical.o2.medium"
    flavor_name: str | None = None
    description: str | None = None
    availability_zone: str = "nova"
    terminated_at: float | None = None
    fault: ServerFault | None = None
    power_off_delay: float | None = None
    power_off_fails: bool = False
    controller: str = Controller.WORKS
    due: Due | None = None

    @property
    def status(self) -> str:
        """The `status` that Nova computes from vm_state and task_state."""
        return status_of(self.vm_state, self.task_state)

    @property
    def deleted(self) -> bool:
        """Whether it is deleted: only a list with `changes-since` still shows it."""
        return self.vm_state == "deleted"

    @property
    def scheduled(self) -> bool:
        """Whether it is in a cell. Until then a GET shows it, and an action does not find it."""
        return not (self.vm_state == "building" and (self.host is None or self.task_state == "scheduling"))


def new_server(
    *,
    now: float,
    project_id: str,
    user_id: str,
    name: str,
    id: str | None = None,
    vm_state: str = "active",
    launched: bool = True,
    host: bool | str = True,
    tags: Iterable[str] = (),
    metadata: Mapping[str, str] | None = None,
    updated: float | None = None,
    **others: Any,
) -> ServerState:
    """Return a server, created at `now`, or at `updated` if earlier.

    `launched` is whether it ever ran; False also means no `launched_at`. `host` is a name, True for a host of the usual
    name, False for none, as after a failed build.
    """
    changed = now if updated is None else updated
    born = min(now, changed)
    host_name = (host if isinstance(host, str) else "host-1") if host else None
    never_placed = vm_state == "error" and host_name is None
    return ServerState(
        id=(id or str(uuid.uuid4())).lower(),
        name=name,
        project_id=project_id,
        user_id=user_id,
        created=born,
        updated=changed,
        launched_at=born if launched and host_name and vm_state != "building" else None,
        host=host_name,
        power_state=others.pop("power_state", power_state_of(vm_state, host_name is not None)),
        vm_state=vm_state,
        tags=tuple(tags),
        metadata=dict(metadata or {}),
        fault=ServerFault("No valid host was found. ", changed) if never_placed else None,
        **others,
    )
