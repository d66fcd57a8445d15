"""The matching servers of a complete list. Imported when an event has a selector.

The list alone shows which servers there are, so that it must be complete, and every server on it valid; otherwise the
list is read again.
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
# A list for an administrator may have these; for other users they do not exist any more.
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
    """Read the list to its end and return the matching servers.

    Args:
        pages: of the list.
        project_id: the login's. Servers of other projects are ignored.
        wanted: the predicate.
        timeout: seconds for all pages.
        idle: as of `servers.parse`.
        monotonic: seconds.

    Raises:
        CloudUnexpectedAnswer: the list is not complete, or has a server only in part.
        CloudError: a page could not be read.
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
                # One that is listed twice may have changed between: the last read counts.
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
        # The error is about a page, not a server: the marker of the page may be deleted.
        raise CloudUnexpectedAnswer(str(fault), request_id=fault.request_id, status=fault.status) from fault
    if len(seen) < promised:
        # With numbered pages, a server that is created or deleted meanwhile moves another one to another page.
        raise CloudUnexpectedAnswer(f"{_WHAT}: it changed while its pages were turned")
    if foreign:
        _LOG.warning("servers of other projects are on the list of ours", extra={"left_out": foreign})
    return list(found.values())


def _identity(row: object) -> tuple[str, str]:
    """Return the id of a server on the list and its project."""
    if isinstance(row, dict):
        id_, owner = row.get("id"), row.get("tenant_id")
        # The id becomes part of a URL.
        if isinstance(id_, str) and UUID.fullmatch(id_) and isinstance(owner, str):
            return id_.lower(), owner
    raise CloudUnexpectedAnswer(f"{_WHAT}: one on it has no id, or no project")
