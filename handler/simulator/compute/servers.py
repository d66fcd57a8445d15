"""The state of one server, its history, and Nova's table from (vm_state, task_state) to `status`.

Source of the table: `nova/api/openstack/common.py`, `_STATE_MAP`; the same in every release since 2013.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

_REBUILD = dict.fromkeys(("rebuilding", "rebuild_block_device_mapping", "rebuild_spawning"), "REBUILD")
_RESIZE = dict.fromkeys(("resize_prep", "resize_migrating", "resize_migrated", "resize_finish"), "RESIZE")
_REBOOT = dict.fromkeys(("rebooting", "reboot_pending", "reboot_started"), "REBOOT")
_HARD_REBOOT = dict.fromkeys(("rebooting_hard", "reboot_pending_hard", "reboot_started_hard"), "HARD_REBOOT")
_OF_ACTIVE = _REBOOT | _HARD_REBOOT | _REBUILD | _RESIZE | {"updating_password": "PASSWORD", "migrating": "MIGRATING"}

# The status and the power_state of each vm_state, and the status of each task_state with one of its own.
STATES: dict[str, tuple[str, int, dict[str, str]]] = {
    "active": ("ACTIVE", 1, _OF_ACTIVE),
    "building": ("BUILD", 0, {}),
    "stopped": ("SHUTOFF", 4, _RESIZE | _REBUILD),
    "resized": ("VERIFY_RESIZE", 1, {"resize_reverting": "REVERT_RESIZE"}),
    "paused": ("PAUSED", 3, {"migrating": "MIGRATING"}),
    "suspended": ("SUSPENDED", 4, {}),
    "rescued": ("RESCUE", 1, {}),
    "error": ("ERROR", 1, _REBUILD),
    "deleted": ("DELETED", 0, {}),
    "soft-delete": ("SOFT_DELETED", 0, {}),
    "shelved": ("SHELVED", 4, {}),
    "shelved_offloaded": ("SHELVED_OFFLOADED", 0, {}),
}
_UNKNOWN: tuple[str, int, dict[str, str]] = ("UNKNOWN", 0, {})


class Controller(StrEnum):
    """The response of a machine's management controller when Ironic asks it to switch the power off.

    Nova records the stop as done in each case: seen on a real Nova with Ironic.
    """

    WORKS = "works"
    """The power goes off."""
    REFUSES = "refuses"
    """It answers with an error at once, and the power stays on."""
    IGNORES = "ignores"
    """It accepts the request, and the power stays on; Nova waits for as long as a power-off takes."""
    SILENT = "silent"
    """It does not respond, and Nova does not know whether the power is on."""

    @property
    def power_state(self) -> int:
        """The power_state beside `stopped`."""
        return {"works": 4, "refuses": 1, "ignores": 1, "silent": 0}[self.value]


@dataclass(frozen=True, slots=True)
class Due:
    """A change of state that has begun and ends in the future.

    Args:
        at: seconds since the epoch on the cloud's clock; infinite for one that never ends.
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
    """A server at one moment. Times are seconds since the epoch.

    Args:
        vm_state: `OS-EXT-STS:vm_state`.
        task_state: `OS-EXT-STS:task_state`: the running operation; None if there is none.
        power_state: `OS-EXT-STS:power_state`: 0 none, 1 running, 3 paused, 4 off.
        host: None if it never had one.
        locked: whether only an administrator may act on it.
        flavor: the id of the flavor.
        flavor_name: shown from microversion 2.47 on, where it differs from the id.
        power_off_delay: seconds, in place of the simulator's; `math.inf` for a host that has failed.
        power_off_fails: whether an accepted stop has no effect after the delay.
        controller: a `Controller`, or its text.
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
        """The `status` that Nova shows."""
        return status_of(self.vm_state, self.task_state)

    @property
    def deleted(self) -> bool:
        """Whether it is deleted: only a list with `changes-since` still shows it."""
        return self.vm_state == "deleted"

    @property
    def scheduled(self) -> bool:
        """Whether it is in a cell. Until then a GET shows it, and an action does not find it."""
        return not (self.vm_state == "building" and (self.host is None or self.task_state == "scheduling"))


def status_of(vm_state: str, task_state: str | None = None) -> str:
    """Return the `status` that Nova shows; UNKNOWN for an unknown vm_state."""
    usual, _, by_task = STATES.get(vm_state, _UNKNOWN)
    return by_task.get(task_state or "", usual)


def power_state_of(vm_state: str, has_host: bool) -> int:
    """Return the usual power_state of a vm_state without a running operation."""
    return STATES.get(vm_state, _UNKNOWN)[1] if has_host else 0
