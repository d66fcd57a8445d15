"""OpenStack Compute (Nova) v2.1, as on OTC's ECS host and every upstream cloud: one call stops one server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from handler.cloud import error_mapping, servers
from handler.cloud.api_client import Http, Reply
from handler.cloud.endpoint import Endpoint
from handler.cloud.servers import Shown
from handler.errors import CloudError, CloudUnexpectedAnswer
from handler.stop.evidence import Action, History, UnreadEntry
from handler.stop.ports import DryRunStop, Taken

# From 2.47 on the flavor is shown with its name (`original_name`), before with its id alone. OTC ends at 2.60.
MICROVERSION = "2.47"
# The lowest that shows `locked` (2.9) and `tags` (2.26).
LOWEST_MICROVERSION = "2.26"


class Microversion:
    """The microversion that is requested; shared by all calls to a cloud, from many threads.

    Attributes:
        current: the one to request from now on.
    """

    def __init__(self) -> None:
        self.current = MICROVERSION

    def headers(self) -> dict[str, str]:
        """Return the headers of a request, in the new and in the old form."""
        version = self.current
        return {
            "Accept": "application/json",
            "OpenStack-API-Version": f"compute {version}",
            "X-OpenStack-Nova-API-Version": version,
        }

    def lowered(self, error: CloudError, sent: Mapping[str, str]) -> bool:
        """Request the lowest from now on if a call failed because the cloud does not have the requested one.

        Args:
            error: of the call.
            sent: the headers of the call.

        Returns:
            Whether the call may be repeated.
        """
        if error.status != 406 or sent["X-OpenStack-Nova-API-Version"] == LOWEST_MICROVERSION:
            return False
        self.current = LOWEST_MICROVERSION
        return True


class NovaReader(servers.Reader):
    """Reads servers and their history; has no method that writes."""

    api = "nova"

    def __init__(self, http: Http, endpoint: Endpoint, microversion: Microversion | None = None) -> None:
        super().__init__(http, endpoint)
        self._microversion = microversion or Microversion()

    def history(self, server_id: str, timeout: float) -> History | CloudError:
        """Call `GET /servers/{id}/os-instance-actions`, the newest action first."""
        what = "reading the server's history"
        try:
            return _history(self._get(what, f"/servers/{server_id}/os-instance-actions", timeout)[0])
        except CloudError as error:
            if error.concerns_all:
                raise
            return error

    def _one(self, server_id: str, timeout: float) -> Shown:
        document, reply = self._get("reading the server", f"/servers/{server_id}", timeout)
        return Shown([document.get("server")], reply.date)

    def _pages(self, timeout: float) -> Iterator[Shown]:
        """Read the list page by page.

        The cloud may limit the requested size, and a next link may be missing: only an empty page ends the list.
        """
        marker = ""
        while True:
            path = f"/servers/detail?limit={servers.PAGE}{marker}"
            document, reply = self._get(servers.LISTING, path, timeout, optional=True)
            page = servers.listed(document)
            yield Shown(page, reply.date)
            last = page[-1] if page else None
            if not isinstance(last, dict):
                return
            # The host of the link need not be the one by which the cloud is reached.
            marker = f"&marker={last.get('id', '')}"

    def _get(self, what: str, path: str, timeout: float, *, optional: bool = False) -> tuple[dict[str, object], Reply]:
        url = self._endpoint.url(timeout) + path
        while True:
            headers = self._microversion.headers()
            try:
                reply = self._http.send(what, "GET", url, timeout=timeout, headers=headers, optional=optional)
            except CloudUnexpectedAnswer as error:
                if self._microversion.lowered(error, headers):
                    continue
                raise
            return reply.json(what, servers.slim), reply


class NovaCloud(NovaReader):
    """Reads servers and stops them."""

    one_by_one = True

    def stop_groups(self, ids: Sequence[str]) -> Sequence[Sequence[str]]:
        """Return one group for each id."""
        return [(id_,) for id_ in ids]

    def stop(self, ids: Sequence[str], timeout: float) -> Mapping[str, Taken | DryRunStop | CloudError]:
        """Call `POST /servers/{id}/action` with `{"os-stop": {}}`: upstream answers 202, OTC documents 204."""
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
        except CloudError as error:
            if error.concerns_all:
                raise
            # The server is read again before another stop is sent.
            self._microversion.lowered(error, headers)
            return error
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
