"""Parsing of servers, and reads of servers one by one, by pages, or by a selector."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from time import monotonic
from typing import NamedTuple

from handler import rfc3339
from handler.cloud import error_mapping
from handler.cloud.api_client import Http
from handler.cloud.endpoint import Endpoint
from handler.errors import (
    CallRejected,
    CloudError,
    CloudThrottled,
    CloudUnexpectedAnswer,
    CloudUnreachable,
    ServerNotFound,
)
from handler.stop.model import UUID, Server
from handler.stop.ports import ReadSingly, Seen

_LOG = logging.getLogger(__name__)

PAGE = 1000
# So many single reads are as fast as a page, and less work for the cloud.
_FEW = 4
# A limit, in case a cloud returns pages without end.
_MOST_PAGES = 100
# A list for an administrator may have these; for other users they do not exist any more.
_DELETED = frozenset({"deleted", "soft-delete", "soft_deleted"})
LISTING = "listing servers"
# The used members of a server body.
_READ = (
    "id",
    "tenant_id",
    "name",
    "locked",
    "tags",
    "metadata",
    "flavor",
    "updated",
    "OS-EXT-STS:vm_state",
    "OS-EXT-STS:task_state",
    "OS-EXT-STS:power_state",
    "OS-SRV-USG:launched_at",
)


def slim(document: dict[str, object]) -> dict[str, object]:
    """Return only the used members of a server body, and any other object as it is; for `json.loads`.

    This saves memory with a list of 1000 servers. Metadata that is an object distinguishes a server body from anything
    that a user of the cloud may have written, which is text.
    """
    if isinstance(document.get("metadata"), dict) and isinstance(document.get("tags"), list):
        return {name: document[name] for name in _READ if name in document}
    return document


class Shown(NamedTuple):
    """The servers in one answer.

    Attributes:
        bodies: of servers, unparsed; of one server, or of one page of the list.
        at: the cloud's time of the answer (aware), or None.
        total: the number of servers of the whole list, if it is in the answer.
    """

    bodies: Sequence[object]
    at: datetime | None = None
    total: int | None = None


def parse(
    body: object, asked: str, *, idle: object = False, project_id: str | None = None, at: datetime | None = None
) -> Server:
    """Parse one server body of Nova (from microversion 2.26 on) or of BMS v1, whose used members are the same.

    Args:
        body: the server.
        asked: the requested id.
        idle: the value of a missing `task_state`: None for BMS v1. Nova always has it, and a missing one is not the
            same as null, which is what permits a stop.
        project_id: the login's; None if it is not known. An administrator gets the servers of other projects, too.
        at: the cloud's time of the answer (aware), or None.

    Raises:
        CloudUnexpectedAnswer: it is another server than `asked`, or lacks what the guards need.
    """
    if not isinstance(body, dict) or str(body.get("id", "")).lower() != asked:
        raise CloudUnexpectedAnswer("reading the server: the answer does not show the server that was asked for")
    vm_state, locked, tags = body.get("OS-EXT-STS:vm_state"), body.get("locked"), body.get("tags")
    metadata, flavor = body.get("metadata"), body.get("flavor")
    if not isinstance(vm_state, str) or not vm_state:
        raise CloudUnexpectedAnswer("reading the server: the answer has no vm_state")
    if not isinstance(locked, bool) or not isinstance(tags, list) or not isinstance(metadata, dict):
        # Without them a protected server cannot be recognized.
        raise CloudUnexpectedAnswer("reading the server: no locked, tags or metadata; is the microversion honoured?")
    task_state, name = body.get("OS-EXT-STS:task_state", idle), body.get("name")
    if task_state is not None and not isinstance(task_state, str):
        raise CloudUnexpectedAnswer("reading the server: the answer has no task_state")
    state = vm_state.lower()
    return Server(
        id=asked,
        name=name if isinstance(name, str) else None,
        vm_state="stopped" if state == "shutoff" else state,
        task_state=task_state.lower() if task_state else None,
        locked=locked,
        launched=bool(body.get("OS-SRV-USG:launched_at", True)),
        tags=frozenset(str(tag) for tag in tags),
        metadata={str(key): str(value) for key, value in metadata.items()},
        flavor=_flavor(flavor if isinstance(flavor, dict) else {}),
        updated=stamp(body.get("updated")),
        power_state=_power_state(body),
        other_project=_other_project(body.get("tenant_id"), project_id),
        cloud_time=at,
    )


def _flavor(flavor: Mapping[str, object]) -> str:
    """Return the flavor's name, or its id where only that is shown: Nova until microversion 2.46, and BMS v1."""
    names = [name for key in ("original_name", "name", "id") if isinstance(name := flavor.get(key), str) and name]
    return next((name for name in names if name.startswith("physical.")), names[0] if names else "")


def _other_project(owner: object, project_id: str | None) -> str | None:
    if owner is None or not project_id or (isinstance(owner, str) and same_project(owner, project_id)):
        return None
    return owner if isinstance(owner, str) and error_mapping.is_safe(owner) else "unknown"


def same_project(one: str, other: str) -> bool:
    """Whether two project ids are the same one, with or without dashes and without regard to case."""
    return one.replace("-", "").lower() == other.replace("-", "").lower()


def _power_state(body: Mapping[str, object]) -> int | None:
    if "OS-EXT-STS:power_state" not in body:
        return None
    value = body["OS-EXT-STS:power_state"]
    return value if isinstance(value, int) and not isinstance(value, bool) else -1


def stamp(value: object) -> datetime | None:
    """Parse a time of Nova or BMS v1: always UTC, with `Z` or without a zone."""
    if not isinstance(value, str):
        return None
    try:
        return rfc3339.parse(value if value[-1:] in "zZ" else f"{value}Z")
    except ValueError:
        return None


class Reader(ABC):
    """Reads servers one by one or by pages, whichever takes fewer calls; has no method that writes.

    Neither API has a filter by id: the whole list is read, and only the requested servers are returned.

    Attributes:
        api: `nova` or `bms`.
        idle: as of `parse`.
    """

    api: str
    idle: object = False

    def __init__(self, http: Http, endpoint: Endpoint) -> None:
        self._http = http
        self._endpoint = endpoint
        # Pages of the project's list when it was last read; an estimate before that.
        self._known_pages = 1
        self._list_failures = 0
        self._list_fails = False

    @abstractmethod
    def _one(self, server_id: str, timeout: float) -> Shown:
        """Read one server."""

    @abstractmethod
    def _pages(self, timeout: float) -> Iterator[Shown]:
        """Read each page of the whole list, within a timeout for each page."""

    def read_groups(self, ids: Sequence[str]) -> Sequence[Sequence[str]]:
        """Return one group that is read by pages, or one for each id."""
        by_pages = len(ids) > max(_FEW, self._known_pages) and not self._list_fails
        return [ids] if by_pages else [(id_,) for id_ in ids]

    def read(self, ids: Sequence[str], timeout: float) -> Mapping[str, Seen]:
        """Return each server of `ids`, or the error for it.

        If the list fails, in part or whole, the servers that were not on it are read one by one from then on.

        Raises:
            CloudError: one that `concerns_all`.
        """
        if len(ids) == 1:
            return {ids[0]: self._single(ids[0], timeout)}
        missing = set(ids)
        found: dict[str, Seen] = {}
        try:
            for number, page in enumerate(self._pages(timeout), start=1):
                self._known_pages = number
                for body in page.bodies:
                    id_ = _id_of(body)
                    if id_ in missing:
                        missing.discard(id_)
                        found[id_] = self._parsed(body, id_, page.at, timeout)
                if len(missing) <= 1 or number >= _MOST_PAGES:
                    break
        except CloudError as error:
            if error.concerns_all:
                raise
            return found | dict.fromkeys(missing, self._without_list(error))
        # A server that is not on the list may exist: pages can shift between two reads.
        for id_ in filter(missing.__contains__, ids):
            found[id_] = self._single(id_, timeout)
        return found

    def find(self, wanted: Callable[[Server], bool], timeout: float) -> Sequence[Server]:
        """Read the whole list, without a filter (Nova ignores unknown ones), and return the matching servers.

        The list alone shows which servers there are, so that it must be complete, and every server on it valid. Servers
        of other projects are left out.

        Raises:
            CloudUnexpectedAnswer: the list is not complete, or has a server only in part.
            CloudError: a page could not be read.
        """
        project_id = self._endpoint.project(timeout)
        if not project_id:
            raise CloudUnexpectedAnswer(f"{LISTING}: the login does not say which project is ours")
        until = monotonic() + timeout
        found: dict[str, Server] = {}
        seen: set[str] = set()
        promised = foreign = 0
        try:
            for number, (rows, at, total) in enumerate(self._pages(timeout), start=1):
                if number > _MOST_PAGES and rows:
                    raise CloudUnexpectedAnswer(f"{LISTING}: it goes on after {_MOST_PAGES} pages")
                before = len(seen)
                for row in rows:
                    id_, owner = _identity(row)
                    seen.add(id_)
                    # One that is listed twice may have changed between: the last read counts.
                    found.pop(id_, None)
                    if not same_project(owner, project_id):
                        foreign += 1
                        continue
                    server = parse(row, id_, idle=self.idle, project_id=project_id, at=at)
                    if server.vm_state not in _DELETED and wanted(server):
                        found[id_] = server
                if rows and len(seen) == before:
                    raise CloudUnexpectedAnswer(f"{LISTING}: a page shows only servers of pages before it")
                promised = max(promised, total or 0)
                if monotonic() > until:
                    raise CloudUnreachable(f"{LISTING}: out of time between its pages")
        except (CallRejected, ServerNotFound) as error:
            # The error is about a page, not a server: the marker of the page may be deleted.
            raise CloudUnexpectedAnswer(str(error), request_id=error.request_id, status=error.status) from error
        if len(seen) < promised:
            # With numbered pages, a server that is created or deleted meanwhile moves another one to another page.
            raise CloudUnexpectedAnswer(f"{LISTING}: it changed while its pages were turned")
        if foreign:
            _LOG.warning("servers of other projects are on the list of ours", extra={"left_out": foreign})
        return list(found.values())

    def peek(self, timeout: float) -> list[Server | CloudError]:
        """Return the first page of the list.

        Raises:
            CloudError: the list cannot be read.
        """
        page = next(self._pages(timeout), Shown([]))
        return [self._parsed(body, _id_of(body), page.at, timeout) for body in page.bodies]

    def _without_list(self, error: CloudError) -> ReadSingly | CloudError:
        """Return the result for the servers that were not on a list that failed."""
        self._list_failures += 1
        if isinstance(error, CloudThrottled) or (isinstance(error, CloudUnreachable) and self._list_failures == 1):
            # The cloud is overloaded or does not respond: many calls in place of one would not help.
            return error
        self._list_fails = True
        return ReadSingly()

    def _single(self, id_: str, timeout: float) -> Server | CloudError:
        try:
            shown = self._one(id_, timeout)
            return self._parsed(shown.bodies[0], id_, shown.at, timeout)
        except CloudError as error:
            if error.concerns_all:
                raise
            return error

    def _parsed(self, body: object, id_: str, at: datetime | None, timeout: float) -> Server | CloudError:
        project_id = self._endpoint.project(timeout)
        try:
            return parse(body, id_, idle=self.idle, project_id=project_id, at=at)
        except CloudError as error:
            return error


def _id_of(body: object) -> str:
    return str(body.get("id", "")).lower() if isinstance(body, dict) else ""


def listed(document: Mapping[str, object]) -> list[object]:
    """Return the `servers` of a list.

    Raises:
        CloudUnexpectedAnswer: there is none.
    """
    servers = document.get("servers")
    if not isinstance(servers, list):
        raise CloudUnexpectedAnswer(f"{LISTING}: the answer has no list of servers")
    return servers


def _identity(row: object) -> tuple[str, str]:
    """Return the id of a server on the list and its project."""
    if isinstance(row, dict):
        id_, owner = row.get("id"), row.get("tenant_id")
        # The id becomes part of a URL.
        if isinstance(id_, str) and UUID.fullmatch(id_) and isinstance(owner, str):
            return id_.lower(), owner
    raise CloudUnexpectedAnswer(f"{LISTING}: one on it has no id, or no project")
