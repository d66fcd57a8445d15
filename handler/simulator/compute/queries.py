"""Nova's schemas for the query parameters of a list, and their messages."""

import re
from collections.abc import Sequence
from datetime import datetime

from handler.simulator.compute.replies import NovaError
from handler.simulator.compute.views import View

# fmt: off
SORT_KEYS = (
    "access_ip_v4", "access_ip_v6", "auto_disk_config", "availability_zone", "config_drive", "created_at",
    "display_description", "display_name", "host", "hostname", "image_ref", "instance_type_id", "kernel_id",
    "key_name", "launch_index", "launched_at", "locked_by", "node", "power_state", "progress", "project_id",
    "ramdisk_id", "root_device_name", "task_state", "terminated_at", "updated_at", "user_id", "uuid",
    "vm_state",
)
# Once accepted by mistake: no error up to 2.74, and no effect.
IGNORED_SORT_KEYS = (
    "architecture", "cell_name", "cleaned", "default_ephemeral_device", "default_swap_device", "deleted",
    "deleted_at", "disable_terminate", "ephemeral_gb", "ephemeral_key_uuid", "id", "key_data", "launched_on",
    "locked", "memory_mb", "os_type", "reservation_id", "root_gb", "shutdown_terminate", "user_data", "vcpus",
    "vm_mode",
)
_PARAMETERS = {
    "user_id", "project_id", "tenant_id", "launch_index", "image_ref", "image", "kernel_id", "ramdisk_id",
    "hostname", "key_name", "power_state", "vm_state", "task_state", "host", "node", "flavor",
    "reservation_id",
    "launched_at", "terminated_at", "availability_zone", "name", "display_name", "description",
    "display_description", "locked_by", "uuid", "root_device_name", "config_drive", "access_ip_v4",
    "access_ip_v6", "auto_disk_config", "progress", "sort_key", "sort_dir", "all_tenants", "soft_deleted",
    "deleted", "status", "changes-since", "ip", "ip6", "created_at", "block_device_mapping", "services",
    "metadata", "system_metadata", "info_cache", "security_groups", "pci_devices", "limit", "marker", "tags",
    "tags-any", "not-tags", "not-tags-any", "changes-before", "locked",
}
_PATTERNS = {"name", "display_name", "hostname", "flavor", "key_name", "description", "tags", "not-tags"}
_YES = ("1", "on", "t", "true", "y", "yes")
_NO = ("0", "f", "false", "n", "no", "off")
# fmt: on


def check_query(query: Sequence[tuple[str, str]], view: View) -> None:
    """Check the parameters of a list as Nova's schema for the microversion does.

    Raises:
        NovaError: 400 with the schema's message.
    """
    for name, value in query:
        if violation := _violation(name, value, view):
            raise NovaError(400, f"Invalid input for query parameters {name}. Value: {value}. {violation}")
    unknown = sorted({name for name, _ in query if name not in _PARAMETERS and not name.startswith("_")})
    if view.at_least(75) and unknown:
        verb = "does" if len(unknown) == 1 else "do"
        names = ", ".join(repr(name) for name in unknown)
        raise NovaError(400, f"{names} {verb} not match any of the regexes: '^_'")


def truth(value: str) -> bool:
    """Parse a boolean parameter.

    Raises:
        NovaError: 400, it is not a boolean.
    """
    if value.strip().lower() in (*_YES, *_NO):
        return value.strip().lower() in _YES
    acceptable = ", ".join(repr(word) for word in sorted(_YES + _NO))
    raise NovaError(400, f"Unrecognized value '{value}', acceptable values are: {acceptable}")


def _violation(name: str, value: str, view: View) -> str | None:
    if name == "limit" and not re.fullmatch(r"[0-9]*", value):
        return f"'{value}' does not match '^[0-9]*$'"
    if name in ("changes-since", "changes-before") and not _is_moment(value):
        return f"'{value}' is not a 'date-time'"
    if name in _PATTERNS and not _is_pattern(value):
        return f"'{value}' is not a 'regex'"
    if name == "sort_key":
        keys = SORT_KEYS if view.at_least(75) else SORT_KEYS + IGNORED_SORT_KEYS
        if value not in keys:
            return f"'{value}' is not one of {list(keys)}"
    return None


def _is_pattern(text: str) -> bool:
    try:
        re.compile(text)
    except re.error:
        return False
    return True


def _is_moment(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return "T" in text
