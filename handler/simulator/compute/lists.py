"""Lists of servers: filters, order and pages as in Nova.

Source: `nova/api/openstack/compute/servers.py` (_get_servers), its query schemas, and recorded answers.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlencode

from handler.simulator.compute import views
from handler.simulator.compute.replies import NovaError
from handler.simulator.compute.servers import STATES, ServerState, status_of
from handler.simulator.compute.store import ServerStore

_Query = Sequence[tuple[str, str]]

_YES = frozenset(("1", "on", "t", "true", "y", "yes"))
_NO = frozenset(("0", "f", "false", "n", "no", "off"))
_STATUSES = frozenset(status for usual, _, by_task in STATES.values() for status in (usual, *by_task.values()))
# Each filter, with the first microversion in which it is not for administrators only; before that it has no effect.
_ADMIN = 10**6
_FILTERS: dict[str, tuple[int, Callable[[ServerState, str], bool]]] = {
    # MySQL compares without regard to case.
    "name": (1, lambda server, value: re.search(value, server.name, re.IGNORECASE) is not None),
    "flavor": (1, lambda server, value: server.flavor == value),
    "changes-since": (1, lambda server, value: int(server.updated) >= _moment(value)),
    "tags": (26, lambda server, value: set(value.split(",")) <= set(server.tags)),
    "tags-any": (26, lambda server, value: not set(value.split(",")).isdisjoint(server.tags)),
    "not-tags": (26, lambda server, value: not set(value.split(",")) <= set(server.tags)),
    "not-tags-any": (26, lambda server, value: set(value.split(",")).isdisjoint(server.tags)),
    "locked": (73, lambda server, value: server.locked is _truth(value)),
    "power_state": (83, lambda server, value: str(server.power_state) == value),
    "task_state": (83, lambda server, value: (server.task_state or "") == value),
    "vm_state": (83, lambda server, value: server.vm_state == value),
    "user_id": (83, lambda server, value: server.user_id == value),
    "uuid": (_ADMIN, lambda server, value: server.id == value.lower()),
    "host": (_ADMIN, lambda server, value: server.host == value),
    "project_id": (_ADMIN, lambda server, value: server.project_id == value),
    "deleted": (_ADMIN, lambda server, value: server.deleted is (value.lower() in _YES)),
}
# Parameters that Nova accepts and the simulator does not have.
_NOT_SIMULATED = frozenset({"sort_key", "sort_dir", "changes-before", "hostname", "image", "ip", "reservation_id"})
# From 2.75 on Nova refuses every other parameter, unless it begins with "_".
_KNOWN = frozenset(_FILTERS) | _NOT_SIMULATED | {
    "access_ip_v4", "access_ip_v6", "all_tenants", "auto_disk_config", "availability_zone", "block_device_mapping",
    "config_drive", "created_at", "description", "display_description", "display_name", "image_ref", "info_cache",
    "ip6", "kernel_id", "key_name", "launch_index", "launched_at", "limit", "locked_by", "marker", "metadata", "node",
    "pci_devices", "progress", "ramdisk_id", "root_device_name", "security_groups", "services", "soft_deleted",
    "status", "system_metadata", "tenant_id", "terminated_at",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class PageLimits:
    """The pages of a list.

    Args:
        longest: how many servers at most.
        default: how many without a `limit`; None for the longest.
        next_links: whether a full page has a link to the next one.
    """

    longest: int
    default: int | None = None
    next_links: bool = True


def list_servers(
    store: ServerStore, query: _Query, view: views.View, project_id: str, detailed: bool, limits: PageLimits
) -> dict[str, object]:
    """Return the body of `GET /servers`, or of `GET /servers/detail` with all members of each server.

    The servers are those of the caller's project unless an administrator asks for all.

    Raises:
        NovaError: 400 for a parameter that Nova does not accept, 403 for one that only administrators may use, 501 for
            one that the simulator does not have.
    """
    _check_query(query, view)
    given = dict(query)
    filters = {
        name: value for name, value in query if name in _FILTERS and (view.admin or view.at_least(_FILTERS[name][0]))
    }
    show_deleted = not {"changes-since", "deleted"}.isdisjoint(filters)
    if statuses := {value.upper() for name, value in query if name == "status"}:
        filters.pop("vm_state", None)
        if view.at_least(38) and statuses.isdisjoint(_STATUSES):
            raise NovaError(400, "Invalid status value")
        if statuses == {"DELETED"} and not view.admin:
            raise NovaError(403, "Only administrators may list deleted instances")
        show_deleted |= statuses == {"DELETED"}
    # An empty value counts as yes.
    all_projects = "all_tenants" in given and (not given["all_tenants"] or _truth(given["all_tenants"]))
    if all_projects and not view.admin:
        kind = "detail" if detailed else "index"
        raise NovaError(403, f"Policy doesn't allow os_compute_api:servers:{kind}:get_all_tenants to be performed.")

    # A list without deleted servers does not find a deleted marker either.
    servers = [server for server in store.all() if show_deleted or not server.deleted]

    def fits(server: ServerState) -> bool:
        return (
            (all_projects or server.project_id == project_id)
            # Nova searches by vm_state, and so finds servers whose running operation has a status of its own.
            and (not statuses or not statuses.isdisjoint((server.status, status_of(server.vm_state))))
            and all(_FILTERS[name][1](server, value) for name, value in filters.items())
        )

    limit = _limit(given, limits)
    page = [server for server in _after(servers, given.get("marker")) if fits(server)][:limit]
    shown = [views.full(s, view, alone=False) if detailed else views.brief(s, view) for s in page]
    body: dict[str, object] = {"servers": shown}
    if limit and len(page) == limit and limits.next_links:
        # A full page always has a next link, also when it happens to be the last one. It has the caller's parameters
        # sorted by name, of several only the last, then the marker.
        following = urlencode(dict(sorted(given.items())) | {"marker": page[-1].id})
        link = view.link("servers", "detail") if detailed else view.link("servers")
        body["servers_links"] = [{"rel": "next", "href": f"{link}?{following}"}]
    return body


def _check_query(query: _Query, view: views.View) -> None:
    """Check the parameters as Nova's schema for the microversion does, with its messages."""
    for name, value in query:
        violation = None
        if name == "limit" and not re.fullmatch(r"[0-9]*", value):
            violation = "does not match '^[0-9]*$'"
        elif name == "changes-since" and not _valid(_moment, value):
            violation = "is not a 'date-time'"
        elif name == "name" and not _valid(re.compile, value):
            violation = "is not a 'regex'"
        if violation:
            raise NovaError(400, f"Invalid input for query parameters {name}. Value: {value}. '{value}' {violation}")
        if name in _NOT_SIMULATED:
            raise NovaError(501, f"The simulator does not have the query parameter {name}.")
    unknown = sorted({name for name, _ in query if name not in _KNOWN and not name.startswith("_")})
    if view.at_least(75) and unknown:
        verb = "does" if len(unknown) == 1 else "do"
        names = ", ".join(repr(name) for name in unknown)
        raise NovaError(400, f"{names} {verb} not match any of the regexes: '^_'")


def _valid(parse: Callable[[str], object], text: str) -> bool:
    try:
        parse(text)
    except (ValueError, re.error):
        return False
    return True


def _truth(value: str) -> bool:
    if value.strip().lower() in _YES | _NO:
        return value.strip().lower() in _YES
    acceptable = ", ".join(repr(word) for word in sorted(_YES | _NO))
    raise NovaError(400, f"Unrecognized value '{value}', acceptable values are: {acceptable}")


def _after(servers: list[ServerState], marker: str | None) -> list[ServerState]:
    if marker is None:
        return servers
    for place, server in enumerate(servers, 1):
        if server.id == marker:
            return servers[place:]
    raise NovaError(400, f"marker [{marker}] not found")


def _limit(given: Mapping[str, str], limits: PageLimits) -> int:
    try:
        return min(int(given.get("limit", limits.default or limits.longest)), limits.longest)
    except ValueError:
        raise NovaError(400, "limit param must be an integer") from None


def _moment(text: str) -> float:
    if "T" not in text:
        raise ValueError(text)
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
