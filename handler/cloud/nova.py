"""OpenStack Compute (Nova) v2.1: one stop a server, as OTC's ECS host and every upstream cloud speak it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from handler.cloud import error_mapping, servers
from handler.cloud.api_client import Http, Reply
from handler.cloud.endpoint import Endpoint
from handler.cloud.servers import Shown
from handler.errors import CloudError, CloudUnexpectedAnswer
from handler.stop.evidence import Action, History, UnreadEntry
from handler.stop.model import Server
from handler.stop.ports import DryRunStop, ReadSingly, Taken

# From 2.47 on the flavor is shown with its name (`original_name`), before with its id alone. OTC ends at 2.60.
MICROVERSION = "2.47"
# The lowest that shows `locked` (2.9) and `tags` (2.26).
LOWEST_MICROVERSION = "2.26"


class Microversion:
    """The microversion that a cloud is asked for; shared by all that speak to it, from many threads.

    Attributes:
        current: what to ask for from now on.
    """

    def __init__(self) -> None:
        self.current = MICROVERSION

    def headers(self) -> dict[str, str]:
        """The headers of a request, in the new and in the old form."""
        version = self.current
        return {
            "Accept": "application/json",
            "OpenStack-API-Version": f"compute {version}",
            "X-OpenStack-Nova-API-Version": version,
        }

    def lowered(self, fault: CloudError, sent: Mapping[str, str]) -> bool:
        """Ask for the lowest from now on if a call failed because the cloud does not have what it asked for.

        Args:
            sent: the headers of the call.

        Returns:
            Whether the call may be made again.
        """
        if fault.status != 406 or sent["X-OpenStack-Nova-API-Version"] == LOWEST_MICROVERSION:
            return False
        self.current = LOWEST_MICROVERSION
        return True


class NovaReader:
    """Reads servers and their history; has no method that changes anything."""

    api = "nova"

    def __init__(self, http: Http, endpoint: Endpoint, microversion: Microversion | None = None) -> None:
        self._http = http
        self._endpoint = endpoint
        self._microversion = microversion or Microversion()
        self._reading = servers.Reading(self._one, self._pages, endpoint.project)

    def read_groups(self, ids: Sequence[str]) -> Sequence[Sequence[str]]:
        """One by one, or all by pages of the list."""
        return self._reading.groups(ids)

    def read(self, ids: Sequence[str], timeout: float) -> Mapping[str, Server | ReadSingly | CloudError]:
        """`GET /servers/{id}`, or pages of `GET /servers/detail`."""
        return self._reading.read(ids, timeout)

    def find(self, wanted: Callable[[Server], bool], timeout: float) -> Sequence[Server]:
        """All pages of `GET /servers/detail`, with no filter: Nova passes over those that it does not know."""
        from handler.cloud.listing import find

        return find(self._pages(timeout), self._endpoint.project(timeout), wanted, timeout)

    def history(self, server_id: str, timeout: float) -> History | CloudError:
        """`GET /servers/{id}/os-instance-actions`, newest first."""
        what = "reading the server's history"
        try:
            return _history(self._get(what, f"/servers/{server_id}/os-instance-actions", timeout)[0])
        except CloudError as fault:
            if fault.concerns_all:
                raise
            return fault

    def peek(self, timeout: float) -> list[Server | CloudError]:
        """The first page of the project's servers."""
        return self._reading.peek(timeout)

    def _one(self, server_id: str, timeout: float) -> Shown:
        document, reply = self._get("reading the server", f"/servers/{server_id}", timeout)
        return Shown([document.get("server")], reply.date)

    def _pages(self, timeout: float) -> Iterator[Shown]:
        """The list, page by page.

        The cloud may cap the size asked for, and a next link may be missing: only an empty page ends the list.
        """
        what, marker = "listing servers", ""
        while True:
            path = f"/servers/detail?limit={servers.PAGE}{marker}"
            document, reply = self._get(what, path, timeout, optional=True)
            page = servers.listed(document, what)
            yield Shown(page, reply.date)
            last = page[-1] if page else None
            if not isinstance(last, dict):
                return
            # The link itself names the host as the cloud sees itself, which need not be how we reach it.
            marker = f"&marker={last.get('id', '')}"

    def _get(self, what: str, path: str, timeout: float, *, optional: bool = False) -> tuple[dict[str, object], Reply]:
        url = self._endpoint.url(timeout) + path
        while True:
            headers = self._microversion.headers()
            try:
                reply = self._http.send(what, "GET", url, timeout=timeout, headers=headers, optional=optional)
            except CloudUnexpectedAnswer as fault:
                if self._microversion.lowered(fault, headers):
                    continue
                raise
            return reply.json(what, servers.slim), reply


class NovaCloud(NovaReader):
    """Reads servers and stops them."""

    one_by_one = True

    def stop_groups(self, ids: Sequence[str]) -> Sequence[Sequence[str]]:
        """One by one."""
        return [(id_,) for id_ in ids]

    def stop(self, ids: Sequence[str], timeout: float) -> Mapping[str, Taken | DryRunStop | CloudError]:
        """`POST /servers/{id}/action` with `{"os-stop": {}}`: upstream answers 202, OTC documents 204."""
        return {id_: self._stop(id_, timeout) for id_ in ids}

    def _stop(self, server_id: str, timeout: float) -> Taken | CloudError:
        what, headers = "stopping the server", self._microversion.headers()
        try:
            reply = self._http.send(
                what,
                "POST",
                f"{self._endpoint.url(timeout)}/servers/{server_id}/action",
                timeout=timeout,
                headers=headers,
                body={"os-stop": {}},
            )
        except CloudError as fault:
            if fault.concerns_all:
                raise
            # Whatever it was: the server is read again before another stop is sent.
            self._microversion.lowered(fault, headers)
            return fault
        return reply.error(what) or Taken(request_id=reply.request_id)


def _history(document: Mapping[str, object]) -> History:
    entries = document.get("instanceActions")
    if not isinstance(entries, list):
        # It may hold anything.
        return History((), unread=(UnreadEntry(),))
    actions, unread = [], []
    for entry in entries:
        action = _action(entry)
        if isinstance(action, Action):
            actions.append(action)
        else:
            unread.append(action)
    return History(tuple(sorted(actions, key=lambda action: action.at, reverse=True)), unread=tuple(unread))


def _action(entry: object) -> Action | UnreadEntry:
    if not isinstance(entry, dict):
        return UnreadEntry()
    at, name = servers.stamp(entry.get("start_time")), _word(entry.get("action"))
    if at is None or name is None:
        return UnreadEntry(name and name.lower(), at)
    return Action(
        name=name.lower(),
        at=at,
        request_id=_word(entry.get("request_id")),
        user_id=_word(entry.get("user_id")),
        failed=entry.get("message") == "Error",
    )


def _word(value: object) -> str | None:
    return value if isinstance(value, str) and error_mapping.is_safe(value) else None
