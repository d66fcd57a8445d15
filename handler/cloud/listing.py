"""The servers of a whole list that are wanted. Loaded when an event has a selector.

What is read one by one can be missed on a page and asked for again. Here the list alone says which servers there are,
so that it must be whole, and every server on it must be plain to see; anything else is a fault, and the list is read
again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable

from handler.cloud import servers
from handler.cloud.servers import Shown
from handler.errors import CallRejected, CloudUnexpectedAnswer, CloudUnreachable, ServerNotFound
from handler.stop.model import UUID, Server

_LOG = logging.getLogger(__name__)

_WHAT = "listing servers"
_MOST_PAGES = 100
# A list that an administrator gets may show these; for everybody else they are no longer there.
_GONE = frozenset({"deleted", "soft-delete", "soft_deleted"})


def find(
    pages: Iterable[Shown],
    project_id: str | None,
    wanted: Callable[[Server], bool],
    timeout: float,
    *,
    idle: object = False,
    monotonic: Callable[[], float] = time.monotonic,
) -> list[Server]:
    """Read the list to its end and take what is wanted.

    Args:
        project_id: the login's. Servers of other projects are none of ours, whatever list they are on.
        timeout: seconds for all pages.
        idle: as `servers.parse` has it.

    Raises:
        CloudConfused: the list is not whole, or shows a server only in part.
        CloudError: a page could not be had.
    """
    if not project_id:
        raise CloudUnexpectedAnswer(f"{_WHAT}: the login does not say which project is ours")
    until = monotonic() + timeout
    found: dict[str, Server] = {}
    seen: set[str] = set()
    promised = foreign = 0
    try:
        for number, (rows, at, total) in enumerate(pages, start=1):
            if number > _MOST_PAGES and rows:
                raise CloudUnexpectedAnswer(f"{_WHAT}: it goes on after {_MOST_PAGES} pages")
            before = len(seen)
            for row in rows:
                id_, owner = _identity(row)
                seen.add(id_)
                # One that is listed again may have changed between: the last look counts.
                found.pop(id_, None)
                if not servers.same_project(owner, project_id):
                    foreign += 1
                    continue
                server = servers.parse(row, id_, idle=idle, project_id=project_id, at=at)
                if server.vm_state not in _GONE and wanted(server):
                    found[id_] = server
            if rows and len(seen) == before:
                raise CloudUnexpectedAnswer(f"{_WHAT}: a page shows only servers of pages before it")
            promised = max(promised, total or 0)
            if monotonic() > until:
                raise CloudUnreachable(f"{_WHAT}: out of time between its pages")
    except (CallRejected, ServerNotFound) as fault:
        # It speaks of a page, not of a server: the one that the page was to begin after may be gone.
        raise CloudUnexpectedAnswer(str(fault), request_id=fault.request_id, status=fault.status) from fault
    if len(seen) < promised:
        # Where pages are counted, a server that comes or goes meanwhile pushes another one over their edge.
        raise CloudUnexpectedAnswer(f"{_WHAT}: it changed while its pages were turned")
    if foreign:
        _LOG.warning("servers of other projects are on the list of ours", extra={"left_out": foreign})
    return list(found.values())


def _identity(row: object) -> tuple[str, str]:
    """The id of a server on the list and the project that it belongs to."""
    if isinstance(row, dict):
        id_, owner = row.get("id"), row.get("tenant_id")
        # The id becomes part of a URL.
        if isinstance(id_, str) and UUID.fullmatch(id_) and isinstance(owner, str):
            return id_.lower(), owner
    raise CloudUnexpectedAnswer(f"{_WHAT}: one on it has no id, or no project")
