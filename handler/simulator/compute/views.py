"""Servers and recorded actions as Nova shows them, by microversion.

Source: `nova/api/openstack/compute/views/servers.py` and `instance_actions.py`.
"""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

from handler.simulator.compute.replies import Microversion
from handler.simulator.compute.servers import Action, ServerState

IMAGE = "9c8b7a66-5d4e-4c3b-8a29-180706f5e4d3"

_BASE = re.compile(r"(?P<prefix>/compute)?(?P<root>/v2(?:\.1)?)?(?=/|$)")
_WITH_PROGRESS = frozenset({"ACTIVE", "BUILD", "REBUILD", "RESIZE", "VERIFY_RESIZE", "MIGRATING"})
_WITH_FAULT = frozenset({"ERROR", "DELETED"})
_EVENTS = {"create": "compute__do_build_and_run_instance", "delete": "compute_terminate_instance"}
# The members that microversions after 2.1 added at the end, in Nova's order.
_LATER: tuple[tuple[int, str, Callable[[ServerState], object]], ...] = (
    (9, "locked", lambda server: server.locked),
    (16, "host_status", lambda server: "UP" if server.host else ""),
    (19, "description", lambda server: server.description),
    (26, "tags", lambda server: list(server.tags)),
    (63, "trusted_image_certificates", lambda _: None),
    (71, "server_groups", lambda _: []),
    (73, "locked_reason", lambda server: server.locked_reason),
    (90, "OS-EXT-SRV-ATTR:hostname", lambda server: server.name),
    (96, "pinned_availability_zone", lambda _: None),
    (100, "scheduler_hints", lambda _: {}),
)


@dataclass(frozen=True, slots=True)
class Base:
    """The beginning of a path that is Nova's.

    Args:
        prefix: `/compute` where Nova shares a port by a path of its own, else empty.
        root: `/v2.1`, the old `/v2`, or empty above both.
    """

    prefix: str
    root: str

    @property
    def legacy(self) -> bool:
        """Whether it is the old API, which has no microversions."""
        return self.root == "/v2"


def base_of(path: str) -> Base | None:
    """Return where a decoded path begins if it is one of Nova's, else None."""
    found = _BASE.match(path)
    return Base(found["prefix"] or "", found["root"] or "") if found and found[0] else None


@dataclass(frozen=True, slots=True)
class View:
    """The request that something is shown for.

    Args:
        version: the microversion asked for.
        base_url: scheme, host and port that the caller used.
        base: beginning of the path, and so of links.
        project_id: of the URL, and so of links; empty if it has none.
        admin: whether the caller is an administrator, who sees the host of a server.
    """

    version: Microversion
    base_url: str
    base: Base
    project_id: str
    admin: bool

    def at_least(self, minor: int) -> bool:
        """Whether the version asked for is 2.`minor` or a later one."""
        return self.version >= (2, minor)

    def link(self, *parts: str) -> str:
        """Return the URL of a resource within the API."""
        return self._below(self.base_url + self.base.prefix + self.base.root, parts)

    def bookmark(self, *parts: str) -> dict[str, str]:
        """Return the link of a resource without the API's version."""
        return {"rel": "bookmark", "href": self._below(self.base_url + self.base.prefix, parts)}

    def _below(self, start: str, parts: tuple[str, ...]) -> str:
        return "/".join((start, self.project_id, *parts) if self.project_id else (start, *parts))


def brief(server: ServerState, view: View) -> dict[str, object]:
    """Return a server as `GET /servers` lists it."""
    return {"id": server.id, "name": server.name, "links": _links(server, view)}


def full(server: ServerState, view: View, *, alone: bool) -> dict[str, object]:
    """Return a server with all its members; `alone` in the answer to a GET of it, which shows more than a list."""
    image: dict[str, object] = {"id": IMAGE, "links": [view.bookmark("images", IMAGE)]}
    if view.at_least(98):
        image["properties"] = {}
    shown: dict[str, object] = {
        "accessIPv4": "",
        "accessIPv6": "",
        "addresses": {},
        "created": _time(server.created),
        "flavor": _flavor(server, view),
        "hostId": _host_id(server),
        "id": server.id,
        "image": image,
        "links": _links(server, view),
        "metadata": dict(server.metadata),
        "name": server.name,
        "status": server.status,
        "tenant_id": server.project_id,
        "user_id": server.user_id,
        "updated": _time(server.updated),
        "OS-DCF:diskConfig": "MANUAL",
    }
    if server.status in _WITH_FAULT and server.fault:
        created = _time(server.fault.created)
        shown["fault"] = {"code": server.fault.code, "created": created, "message": server.fault.message}
    if server.status in _WITH_PROGRESS:
        shown["progress"] = 0
    shown |= {
        "OS-EXT-AZ:availability_zone": server.availability_zone if server.host else "",
        "config_drive": "",
        "key_name": None,
        "OS-SRV-USG:launched_at": _precise(server.launched_at),
        "OS-SRV-USG:terminated_at": _precise(server.terminated_at),
    }
    if view.admin:
        shown |= _placement(server, view)
    shown |= {
        "OS-EXT-STS:task_state": server.task_state,
        "OS-EXT-STS:vm_state": server.vm_state,
        "OS-EXT-STS:power_state": server.power_state,
        "os-extended-volumes:volumes_attached": [],
    }
    # An administrator has the hostname since 2.3, in another place.
    hidden = {"server_groups": not alone, "host_status": not view.admin, "OS-EXT-SRV-ATTR:hostname": view.admin}
    for minor, name, value_of in _LATER:
        if view.at_least(minor) and not hidden.get(name):
            shown[name] = value_of(server)
    return shown


def action(entry: Action, view: View) -> dict[str, object]:
    """Return a recorded action as the list of them has it."""
    shown: dict[str, object] = {
        "action": entry.action,
        "instance_uuid": entry.server_id,
        "request_id": entry.request_id,
        "user_id": entry.user_id,
        "project_id": entry.project_id,
        "start_time": _precise(entry.start_time),
        "message": "Error" if entry.failed else None,
    }
    if view.at_least(58):
        shown["updated_at"] = _precise(entry.finish_time or entry.start_time)
    return shown


def action_in_detail(entry: Action, server: ServerState, view: View) -> dict[str, object]:
    """Return a recorded action with its events, which users who are not administrators see from 2.51 on."""
    result = ("Error" if entry.failed else "Success") if entry.finish_time is not None else None
    event: dict[str, object] = {
        "event": _EVENTS.get(entry.action, f"compute_{entry.action}_instance"),
        "start_time": _precise(entry.start_time),
        "finish_time": _precise(entry.finish_time),
        "result": result,
    }
    if view.admin:
        event["traceback"] = None
    if view.at_least(62):
        event |= ({"host": server.host} if view.admin else {}) | {"hostId": _host_id(server)}
    if view.admin and view.at_least(84):
        event["details"] = None
    return action(entry, view) | ({"events": [event]} if view.admin or view.at_least(51) else {})


def _placement(server: ServerState, view: View) -> dict[str, object]:
    prefix = "OS-EXT-SRV-ATTR:"
    shown: dict[str, object] = {
        f"{prefix}host": server.host,
        f"{prefix}instance_name": f"instance-{server.id[:8]}",
        f"{prefix}hypervisor_hostname": server.host,
    }
    if view.at_least(3):
        shown |= {
            f"{prefix}hostname": server.name,
            f"{prefix}kernel_id": "",
            f"{prefix}launch_index": 0,
            f"{prefix}ramdisk_id": "",
            f"{prefix}reservation_id": f"r-{server.id[:8]}",
            f"{prefix}root_device_name": "/dev/sda",
            f"{prefix}user_data": None,
        }
    return shown


def _flavor(server: ServerState, view: View) -> dict[str, object]:
    if not view.at_least(47):
        return {"id": server.flavor, "links": [view.bookmark("flavors", server.flavor)]}
    return {
        "vcpus": 16,
        "ram": 262144,
        "disk": 100,
        "ephemeral": 0,
        "swap": 0,
        "original_name": server.flavor_name or server.flavor,
        "extra_specs": {},
    }


def _links(server: ServerState, view: View) -> list[dict[str, str]]:
    return [{"rel": "self", "href": view.link("servers", server.id)}, view.bookmark("servers", server.id)]


def _host_id(server: ServerState) -> str:
    return _hashed(server.project_id + server.host) if server.host else ""


# Lists show the same few hosts and seconds a thousand times.
@lru_cache(maxsize=1024)
def _hashed(place: str) -> str:
    return hashlib.sha224(place.encode()).hexdigest()


@lru_cache(maxsize=1024)
def _whole(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _time(seconds: float) -> str:
    return f"{_whole(int(seconds))}Z"


def _precise(seconds: float | None) -> str | None:
    # Six digits and no zone, but whole seconds: the database has no fraction.
    return None if seconds is None else f"{_whole(int(seconds))}.000000"
