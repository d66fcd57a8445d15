"""OpenStack Compute (Nova) v2.1: one server a call, as OTC's ECS host and every upstream cloud speak it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from urllib.parse import urlsplit, urlunsplit

from keystoneauth1 import access as ksa_access
from keystoneauth1 import exceptions as ksa

from handler import rfc3339
from handler.cloud.http import Http
from handler.cloud.login import Login
from handler.errors import CloudConfused, CloudError, LoginRefused
from handler.stop.model import Action, History, Server
from handler.stop.ports import Rehearsed, Taken

# The lowest version that shows `locked` (2.9) and `tags` (2.26); from 2.47 on `flavor.id` is gone. OTC ends at 2.60.
MICROVERSION = "2.26"
_VERSION_HEADERS = {
    "Accept": "application/json",
    "OpenStack-API-Version": f"compute {MICROVERSION}",
    "X-OpenStack-Nova-API-Version": MICROVERSION,
}
_VERSION_SEGMENT = re.compile(r"/v2(?:\.\d+)?(?=/|$)")


class Endpoint:
    """Where Nova is: an explicit URL, or the catalogue that came with the token."""

    def __init__(self, login: Login, *, explicit: str | None, region: str | None, interface: str) -> None:
        self._login = login
        self._explicit = explicit
        self._region = region
        self._interface = interface

    def url(self, timeout: float) -> str:
        """The base URL up to and without `/servers`.

        Raises:
            CloudConfused: the catalogue has no compute endpoint there.
            CloudError: no token could be had.
        """
        access = self._login.access(timeout)
        if self._explicit is not None:
            return _versioned(self._explicit, access.project_id)
        return _versioned(self._from_catalogue(access), None)

    def _from_catalogue(self, access: ksa_access.AccessInfoV3) -> str:
        try:
            found = access.service_catalog.url_for(
                service_type="compute", interface=self._interface, region_name=self._region
            )
        except ksa.CatalogException:
            found = None
        if found is None:
            raise CloudConfused("finding Nova: the catalogue has no compute endpoint for this region and interface")
        return str(found)


def _versioned(base: str, project_id: str | None) -> str:
    """Bring a base URL to `.../v2.1` or `.../v2.1/{project_id}`.

    Catalogues also hold `/v2/{project}` (OTC did) or no version at all. An explicit URL that ends with the version
    gets the project, which OTC wants there and upstream accepts.
    """
    parts = urlsplit(base)
    path = parts.path.rstrip("/")
    if _VERSION_SEGMENT.search(path):
        path = _VERSION_SEGMENT.sub("/v2.1", path, count=1)
    else:
        path += "/v2.1"
    if project_id and path.endswith("/v2.1"):
        path += f"/{project_id}"
    return urlunsplit((parts.scheme, parts.netloc, path, "", ""))


class NovaReader:
    """Reads servers and their history; has no method that changes anything."""

    api = "nova"

    def __init__(self, http: Http, endpoint: Endpoint) -> None:
        self._http = http
        self._endpoint = endpoint

    def read_groups(self, ids: Sequence[str]) -> Sequence[Sequence[str]]:
        """One by one: Nova has no filter by id, and silently ignores one that looks like it."""
        return [(id_,) for id_ in ids]

    def read(self, ids: Sequence[str], timeout: float) -> Mapping[str, Server | CloudError]:
        """`GET /servers/{id}` for each."""
        return {id_: self._one(id_, timeout) for id_ in ids}

    def history(self, server_id: str, timeout: float) -> History | CloudError:
        """`GET /servers/{id}/os-instance-actions`, newest first."""
        what = "reading the server's history"
        try:
            document = self._get(what, f"/servers/{server_id}/os-instance-actions", timeout)
            return _history(document)
        except LoginRefused:
            raise
        except CloudError as fault:
            return fault

    def _one(self, server_id: str, timeout: float) -> Server | CloudError:
        try:
            return _server(self._get("reading the server", f"/servers/{server_id}", timeout), server_id)
        except LoginRefused:
            raise
        except CloudError as fault:
            return fault

    def _get(self, what: str, path: str, timeout: float) -> dict[str, object]:
        url = self._endpoint.url(timeout) + path
        return self._http.send(what, "GET", url, timeout=timeout, headers=_VERSION_HEADERS).json(what)


class NovaCloud(NovaReader):
    """Reads servers and stops them."""

    def stop_groups(self, ids: Sequence[str]) -> Sequence[Sequence[str]]:
        """One by one."""
        return [(id_,) for id_ in ids]

    def stop(self, ids: Sequence[str], timeout: float) -> Mapping[str, Taken | Rehearsed | CloudError]:
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


def _server(document: Mapping[str, object], asked: str) -> Server:
    """Read the answer to `GET /servers/{id}`.

    Raises:
        CloudConfused: it shows another server, or lacks what the guards need.
    """
    body = document.get("server")
    if not isinstance(body, dict) or str(body.get("id", "")).lower() != asked:
        raise CloudConfused("reading the server: the answer does not show the server that was asked for")
    vm_state, locked, tags = body.get("OS-EXT-STS:vm_state"), body.get("locked"), body.get("tags")
    metadata, flavor = body.get("metadata"), body.get("flavor")
    if not isinstance(vm_state, str) or not vm_state:
        raise CloudConfused("reading the server: the answer has no vm_state")
    if not isinstance(locked, bool) or not isinstance(tags, list) or not isinstance(metadata, dict):
        # Without them a protected server looks like any other.
        raise CloudConfused(
            f"reading the server: no locked, tags or metadata; is microversion {MICROVERSION} honoured?"
        )
    task_state, name = body.get("OS-EXT-STS:task_state"), body.get("name")
    flavor = flavor if isinstance(flavor, dict) else {}
    state = vm_state.lower()
    return Server(
        id=asked,
        name=name if isinstance(name, str) else None,
        vm_state="stopped" if state == "shutoff" else state,
        task_state=task_state.lower() if isinstance(task_state, str) and task_state else None,
        locked=locked,
        launched=bool(body.get("OS-SRV-USG:launched_at", True)),
        tags=frozenset(str(tag) for tag in tags),
        metadata={str(key): str(value) for key, value in metadata.items()},
        flavor=str(flavor.get("id") or flavor.get("original_name") or ""),
        updated=_stamp(body.get("updated")),
    )


def _history(document: Mapping[str, object]) -> History:
    entries = document.get("instanceActions")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise CloudConfused("reading the server's history: the answer has no list of actions")
    actions = []
    for entry in entries:
        at, name = _stamp(entry.get("start_time")), entry.get("action")
        if at is None or not isinstance(name, str):
            raise CloudConfused("reading the server's history: an action has no name or no time")
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


def _stamp(value: object) -> datetime | None:
    """Nova's times are UTC; some end in `Z`, others name no zone."""
    if not isinstance(value, str):
        return None
    try:
        return rfc3339.parse(value if value[-1:] in "zZ" else f"{value}Z").astimezone(UTC)
    except ValueError:
        return None
