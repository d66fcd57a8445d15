"""OpenStack Compute (Nova) v2.1: one stop a server, as OTC's ECS host and every upstream cloud speak it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from handler.cloud import servers
from handler.cloud.api_client import Http
from handler.cloud.endpoint import Endpoint
from handler.errors import CloudError, LoginRefused
from handler.stop.evidence import Action, History, Lookup
from handler.stop.model import Server
from handler.stop.ports import DryRunStop, Taken

# The lowest version that shows `locked` (2.9) and `tags` (2.26); from 2.47 on `flavor.id` is gone. OTC ends at 2.60.
MICROVERSION = "2.26"
_VERSION_HEADERS = {
    "Accept": "application/json",
    "OpenStack-API-Version": f"compute {MICROVERSION}",
    "X-OpenStack-Nova-API-Version": MICROVERSION,
}


_NOT_UNDERSTOOD = History(actions=None, gap=Lookup.UNREADABLE)


class NovaReader:
    """Reads servers and their history; has no method that changes anything."""

    api = "nova"

    def __init__(self, http: Http, endpoint: Endpoint) -> None:
        self._http = http
        self._endpoint = endpoint
        self._reading = servers.Reading(self._one, self._pages)

    def read_groups(self, ids: Sequence[str]) -> Sequence[Sequence[str]]:
        """One by one, or all by pages of the list."""
        return self._reading.groups(ids)

    def read(self, ids: Sequence[str], timeout: float) -> Mapping[str, Server | CloudError]:
        """`GET /servers/{id}`, or pages of `GET /servers/detail`."""
        return self._reading.read(ids, timeout)

    def find(self, wanted: Callable[[Server], bool], timeout: float) -> Sequence[Server]:
        """All pages of `GET /servers/detail`, with no filter: Nova passes over those that it does not know."""
        from handler.cloud.listing import find

        pages = ((page, None) for page in self._pages(timeout))
        return find(pages, self._endpoint.project(timeout), wanted, timeout)

    def history(self, server_id: str, timeout: float) -> History | CloudError:
        """`GET /servers/{id}/os-instance-actions`, newest first; none if one entry of it is not understood."""
        try:
            return _history(
                self._get("reading the server's history", f"/servers/{server_id}/os-instance-actions", timeout)
            )
        except LoginRefused:
            raise
        except CloudError as fault:
            return fault

    def peek(self, timeout: float) -> list[Server | CloudError]:
        """The first page of the project's servers."""
        return self._reading.peek(timeout)

    def _one(self, server_id: str, timeout: float) -> object:
        return self._get("reading the server", f"/servers/{server_id}", timeout).get("server")

    def _pages(self, timeout: float) -> Iterator[Sequence[object]]:
        """The list, page by page. The cloud may cap the size asked for; only an absent next link ends the list."""
        what, marker = "listing servers", ""
        while True:
            document = self._get(what, f"/servers/detail?limit={servers.PAGE}{marker}", timeout)
            page = servers.listed(document, what)
            yield page
            last = page[-1] if page else None
            if not isinstance(last, dict) or not document.get("servers_links"):
                return
            # The link itself names the host as the cloud sees itself, which need not be how we reach it.
            marker = f"&marker={last.get('id', '')}"

    def _get(self, what: str, path: str, timeout: float) -> dict[str, object]:
        url = self._endpoint.url(timeout) + path
        return self._http.send(what, "GET", url, timeout=timeout, headers=_VERSION_HEADERS).json(what, servers.slim)


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
        try:
            reply = self._http.send(
                "stopping the server",
                "POST",
                f"{self._endpoint.url(timeout)}/servers/{server_id}/action",
                timeout=timeout,
                headers=_VERSION_HEADERS,
                body={"os-stop": {}},
            )
        except LoginRefused:
            raise
        except CloudError as fault:
            return fault
        return Taken(request_id=reply.request_id)


def _history(document: Mapping[str, object]) -> History:
    entries = document.get("instanceActions")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        return _NOT_UNDERSTOOD
    actions = []
    for entry in entries:
        at, name = servers.stamp(entry.get("start_time")), entry.get("action")
        if at is None or not isinstance(name, str):
            # It may be the start that matters.
            return _NOT_UNDERSTOOD
        actions.append(
            Action(
                name=name.lower(),
                at=at,
                request_id=_text(entry.get("request_id")),
                user_id=_text(entry.get("user_id")),
                failed=entry.get("message") == "Error",
            )
        )
    return History(tuple(sorted(actions, key=lambda action: action.at, reverse=True)))


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
