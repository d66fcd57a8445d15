"""Nova's table from (vm_state, task_state) to `status`, and the power_state of each vm_state.

Source: `nova/api/openstack/common.py`, `_STATE_MAP`; the same in every release since 2013.
"""

from collections.abc import Iterable
from enum import StrEnum

_REBUILD = {
    "rebuilding": "REBUILD",
    "rebuild_block_device_mapping": "REBUILD",
    "rebuild_spawning": "REBUILD",
}
_RESIZE = {
    "resize_prep": "RESIZE",
    "resize_migrating": "RESIZE",
    "resize_migrated": "RESIZE",
    "resize_finish": "RESIZE",
}
_REBOOT = {
    "rebooting": "REBOOT",
    "reboot_pending": "REBOOT",
    "reboot_started": "REBOOT",
    "rebooting_hard": "HARD_REBOOT",
    "reboot_pending_hard": "HARD_REBOOT",
    "reboot_started_hard": "HARD_REBOOT",
}

_STATUS: dict[str, tuple[str, dict[str, str]]] = {
    "active": (
        "ACTIVE",
        {**_REBOOT, "updating_password": "PASSWORD", **_REBUILD, "migrating": "MIGRATING", **_RESIZE},
    ),
    "building": ("BUILD", {}),
    "stopped": ("SHUTOFF", {**_RESIZE, **_REBUILD}),
    "resized": ("VERIFY_RESIZE", {"resize_reverting": "REVERT_RESIZE"}),
    "paused": ("PAUSED", {"migrating": "MIGRATING"}),
    "suspended": ("SUSPENDED", {}),
    "rescued": ("RESCUE", {}),
    "error": ("ERROR", _REBUILD),
    "deleted": ("DELETED", {}),
    "soft-delete": ("SOFT_DELETED", {}),
    "shelved": ("SHELVED", {}),
    "shelved_offloaded": ("SHELVED_OFFLOADED", {}),
}

_POWER = {
    "active": 1,
    "rescued": 1,
    "resized": 1,
    "error": 1,
    "paused": 3,
    "stopped": 4,
    "suspended": 4,
    "shelved": 4,
}


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
    def power_state(self) -> int | None:
        """The power_state beside `stopped`; None for the usual one."""
        return {"works": None, "refuses": 1, "ignores": 1, "silent": 0}[self.value]


PROGRESS_STATUSES = frozenset({"ACTIVE", "BUILD", "REBUILD", "RESIZE", "VERIFY_RESIZE", "MIGRATING"})
FAULT_STATUSES = frozenset({"ERROR", "DELETED"})


def status_of(vm_state: str, task_state: str | None) -> str:
    """Return the `status` that Nova shows; UNKNOWN for an unknown vm_state."""
    default, by_task = _STATUS.get(vm_state, ("UNKNOWN", {}))
    return by_task.get(task_state or "", default)


def power_state_of(vm_state: str, has_host: bool) -> int:
    """Return the power_state of a settled vm_state: 0 none, 1 running, 3 paused, 4 off."""
    return _POWER.get(vm_state, 0) if has_host else 0


def states_of(statuses: Iterable[str]) -> tuple[frozenset[str], frozenset[str] | None]:
    """Return the filter that Nova makes of `status=` values, compared without regard to case.

    Returns:
        The vm_states that can show one of the statuses, and the task_states that must hold as well; None for
        the latter if one of the statuses is the usual one of its vm_state, for then Nova filters by vm_state
        alone (and so finds servers whose `status` differs).
    """
    wanted = {status.upper() for status in statuses}
    vm_states, task_states, settled = set(), set(), False
    for vm_state, (default, by_task) in _STATUS.items():
        tasks = {task for task, status in by_task.items() if status in wanted}
        if default in wanted:
            settled = True
        if tasks or default in wanted:
            vm_states.add(vm_state)
            task_states |= tasks
    return frozenset(vm_states), None if settled else frozenset(task_states)
