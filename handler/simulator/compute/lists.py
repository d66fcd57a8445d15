"""Lists of servers and of recorded actions: filters, order and pages as in Nova.

Source: `nova/api/openstack/compute/servers.py` (_get_servers), its query schemas, and recorded answers.
"""

import re
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, TypeVar
from urllib.parse import urlencode

from handler.simulator.compute import views
from handler.simulator.compute.queries import check_query, truth
from handler.simulator.compute.replies import NovaError
from handler.simulator.compute.servers import Action, ServerState
from handler.simulator.compute.states import states_of
from handler.simulator.compute.world import World

_Query = Sequence[tuple[str, str]]
_Test = Callable[[ServerState], bool]
_Item = TypeVar("_Item")

# Filters that users who are not administrators may use, with the first microversion; others are ignored.
_PLAIN_FILTERS = {
    "name": 1, "status": 1, "image": 1, "flavor": 1, "reservation_id": 1, "ip": 1, "changes-since": 1,
    "tags": 26, "tags-any": 26, "not-tags": 26, "not-tags-any": 26, "changes-before": 66, "locked": 73,
    "power_state": 83, "task_state": 83, "vm_state": 83, "user_id": 83, "hostname": 90,
}  # fmt: skip
_SORTED_BY: dict[str, Callable[[ServerState], Any]] = {
    "created_at": lambda server: server.created,
    "display_name": lambda server: server.name,
    "launched_at": lambda server: server.launched_at or 0.0,
    "power_state": lambda server: server.power_state,
    "task_state": lambda server: server.task_state or "",
    "updated_at": lambda server: server.updated,
    "uuid": lambda server: server.id,
    "vm_state": lambda server: server.vm_state,
}


def list_servers(
    world: World,
    query: _Query,
    view: views.View,
    project_id: str,
    detailed: bool,
    max_limit: int,
    default_limit: int | None = None,
    next_links: bool = True,
) -> dict[str, object]:
    """Return the body of `GET /servers` or `GET /servers/detail`.

    Args:
        world: the servers.
        view: for whom they are shown.
        query: the parameters.
        project_id: the caller's, whose servers are listed unless an administrator asks for all.
        detailed: whether all members of a server are shown.
        max_limit: the longest page.
        default_limit: the length of a page without a `limit`; None for the longest.
        next_links: whether a full page has a link to the next one.

    Raises:
        NovaError: 400 for a parameter that Nova does not accept, 403 for one that only administrators may use.
    """
    check_query(query, view)
    given = dict(query)
    options = {name: value for name, value in given.items() if _permitted(name, view)}
    tests = _tests(query, options, view)
    if _all_projects(given):
        if not view.admin:
            kind = "detail" if detailed else "index"
            raise NovaError(403, f"Policy doesn't allow os_compute_api:servers:{kind}:get_all_tenants to be performed.")
    else:
        tests.insert(0, lambda server: server.project_id == project_id)
    ordered = _ordered(world.all(), query, view)
    # A list without deleted servers does not find a deleted marker either.
    after = _after(ordered, given.get("marker"), lambda s: "" if s.deleted and not _shows_deleted(options) else s.id)
    limit = _limit(given, max_limit, default_limit)
    page = [server for server in after if all(test(server) for test in tests)][:limit]
    show = (lambda server: views.full(server, view, alone=False)) if detailed else None
    body: dict[str, object] = {"servers": [show(s) if show else views.brief(s, view) for s in page]}
    if limit and len(page) == limit and next_links:
        # A full page always has a next link, also when it happens to be the last one.
        path = ("servers", "detail") if detailed else ("servers",)
        body["servers_links"] = [_next(view.link(*path), given, page[-1].id)]
    return body


def page_of_actions(
    entries: list[Action], query: _Query, view: views.View, server_id: str, max_limit: int
) -> dict[str, object]:
    """Return the body of `GET .../os-instance-actions`; it comes in pages from 2.58 on.

    Raises:
        NovaError: 400 for a bad limit, marker or time.
    """
    if not view.at_least(58):
        return {"instanceActions": [views.action(entry, view) for entry in entries]}
    check_query([item for item in query if item[0] in ("limit", "changes-since")], view)
    given = dict(query)
    after = _after(entries, given.get("marker"), lambda entry: entry.request_id)
    if since := given.get("changes-since"):
        after = [e for e in after if int(e.finish_time or e.start_time) >= _moment(since)]
    limit = _limit(given, max_limit)
    page = after[:limit]
    body: dict[str, object] = {"instanceActions": [views.action(entry, view) for entry in page]}
    if limit and len(page) == limit:
        link = view.link("servers", server_id, "os-instance-actions")
        body["links"] = [_next(link, given, page[-1].request_id)]
    return body


def _shows_deleted(options: dict[str, str]) -> bool:
    return not {"changes-since", "changes-before", "deleted"}.isdisjoint(options)


def _permitted(name: str, view: views.View) -> bool:
    return view.admin or (name in _PLAIN_FILTERS and view.at_least(_PLAIN_FILTERS[name]))


def _tests(query: _Query, options: dict[str, str], view: views.View) -> list[_Test]:
    """Return the predicates that a listed server must satisfy."""
    tests: list[_Test] = []
    show_deleted = _shows_deleted(options)
    if "deleted" in options:
        wanted = options["deleted"].lower() in ("1", "t", "true", "on", "y", "yes")
        tests.append(lambda server: server.deleted is wanted)
    if statuses := [value for name, value in query if name == "status"]:
        vm_states, task_states = states_of(statuses)
        if not vm_states and view.at_least(38):
            raise NovaError(400, "Invalid status value")
        if vm_states == {"deleted"}:
            if not view.admin:
                raise NovaError(403, "Only administrators may list deleted instances")
            show_deleted = True
        tests.append(lambda s: s.vm_state in vm_states and (task_states is None or s.task_state in task_states))
    elif "vm_state" in options:
        tests.append(lambda server: server.vm_state == options["vm_state"])
    if not show_deleted:
        tests.append(lambda server: not server.deleted)
    return [*tests, *(test for name, value in options.items() if (test := _test(name, value)))]


def _test(name: str, value: str) -> _Test | None:
    wanted = set(value.split(","))
    match name:
        case "name" | "hostname":
            # MySQL compares without regard to case.
            return lambda server: re.search(value, server.name, re.IGNORECASE) is not None
        case "flavor":
            return lambda server: server.flavor == value
        case "tags":
            return lambda server: wanted <= set(server.tags)
        case "tags-any":
            return lambda server: bool(wanted & set(server.tags))
        case "not-tags":
            return lambda server: not wanted <= set(server.tags)
        case "not-tags-any":
            return lambda server: not wanted & set(server.tags)
        case "changes-since":
            since = _moment(value)
            return lambda server: int(server.updated) >= since
        case "changes-before":
            before = _moment(value)
            return lambda server: int(server.updated) <= before
        case "locked":
            locked = truth(value)
            return lambda server: server.locked is locked
        case "power_state":
            return lambda server: str(server.power_state) == value
        case "task_state":
            return lambda server: (server.task_state or "") == value
        case "user_id":
            return lambda server: server.user_id == value
    return _administrators_test(name, value)


def _administrators_test(name: str, value: str) -> _Test | None:
    match name:
        case "uuid":
            return lambda server: server.id == value.lower()
        case "host":
            return lambda server: server.host == value
        case "project_id":
            return lambda server: server.project_id == value
    return None


def _all_projects(given: dict[str, str]) -> bool:
    # An empty value counts as yes.
    return "all_tenants" in given and (not given["all_tenants"] or truth(given["all_tenants"]))


def _ordered(servers: list[ServerState], query: _Query, view: views.View) -> list[ServerState]:
    keys = [value for name, value in query if name == "sort_key"]
    directions = [value for name, value in query if name == "sort_dir"]
    if not view.admin and (hidden := {"host", "node"} & set(keys)):
        raise NovaError(403, f"Only administrators can sort servers by {min(hidden)}")
    pairs = [(key, directions[i] if i < len(directions) else "desc") for i, key in enumerate(keys)]
    # Sorting is stable, so the least significant key is first.
    for key, direction in reversed([pair for pair in pairs if pair[0] in _SORTED_BY]):
        servers = sorted(servers, key=_SORTED_BY[key], reverse=direction != "asc")
    return servers


def _after(items: list[_Item], marker: str | None, name_of: Callable[[_Item], str]) -> list[_Item]:
    if marker is None:
        return items
    for place, item in enumerate(items):
        if name_of(item) == marker:
            return items[place + 1 :]
    raise NovaError(400, f"marker [{marker}] not found")


def _limit(given: dict[str, str], max_limit: int, default: int | None = None) -> int:
    try:
        return min(int(given.get("limit", default or max_limit)), max_limit)
    except ValueError:
        raise NovaError(400, "limit param must be an integer") from None


def _next(link: str, given: dict[str, str], marker: str) -> dict[str, str]:
    # As in Nova: the caller's parameters sorted by name, of several only the last, then the marker.
    return {"rel": "next", "href": f"{link}?{urlencode(dict(sorted(given.items())) | {'marker': marker})}"}


def _moment(text: str) -> float:
    moment = datetime.fromisoformat(text)
    return moment.timestamp() if moment.tzinfo else datetime.fromisoformat(text + "+00:00").timestamp()
