"""The part of Nova v2.1 that stopping servers needs.

The order of the checks is Nova's, since it decides which of several errors is reported: token, route, microversion,
content type, body, project in the URL, servers.
"""

import json
import re
from collections.abc import Callable, Mapping

from handler.simulator.compute import views
from handler.simulator.compute.lists import list_servers, page_of_actions
from handler.simulator.compute.microversions import MINIMUM, BadMicroversion, Microversion, requested
from handler.simulator.compute.replies import NovaError, fault, plain, reply, unauthenticated
from handler.simulator.compute.routes import Base, Resource, Route, base_of, route
from handler.simulator.compute.servers import ServerState
from handler.simulator.compute.world import Actor, Conflict, NotFound, World
from handler.simulator.identity.model import Identity, Token
from handler.simulator.messages import Answer, Request, phrase

_NO_RESOURCE = "The resource could not be found."
_VERBS = {"os-stop": "stop", "os-start": "start"}
_KEY = re.compile(r"[a-zA-Z0-9-_:. ]{1,255}")


class Nova:
    """Answers requests to `/v2.1` and `/v2`, also below `/compute`.

    Args:
        max_microversion: the highest that is supported; a request for a higher one is refused.
        stop_status: the status for an accepted stop.
        max_limit: the longest page of a list.
        default_limit: the length of a page of servers without a `limit`; None for the longest.
        next_links: whether a full page of servers has a link to the next one.
        refuse_token: returns the answer to a call without a valid token, which does not come from Nova itself.
    """

    def __init__(
        self,
        world: World,
        identity: Identity,
        *,
        max_microversion: str,
        stop_status: int,
        max_limit: int,
        default_limit: int | None = None,
        next_links: bool = True,
        refuse_token: Callable[[Request, str], Answer] = unauthenticated,
    ) -> None:
        self._world = world
        self._identity = identity
        self._maximum = Microversion.parse(max_microversion)
        self._stop_status = stop_status
        self._max_limit = max_limit
        self._default_limit = default_limit
        self._next_links = next_links
        self._refuse_token = refuse_token

    def answer(self, request: Request, request_id: str) -> Answer:
        """Carry out a request, and return Nova's answer."""
        where = route(request.method, request.path)
        if where and where.resource is Resource.VERSIONS:
            return self._list_versions(request, where.base)
        if where and where.resource is Resource.VERSION:
            return self._describe(request, where.base, request_id)
        token = self._identity.check(request.header("X-Auth-Token"))
        if token is None:
            return self._refuse_token(request, request_id)
        if not token.admits(request.method, request.path):
            return unauthenticated(request, request_id)
        if where is None:
            return plain(request_id, 404, _NO_RESOURCE)
        try:
            version = self._supported(request, where.base)
        except BadMicroversion as bad:
            return fault(None, request_id, 400, str(bad))
        named = None if where.base.legacy else version
        if version > self._maximum:
            message = (
                f"Version {version} is not supported by the API. Minimum is {MINIMUM} and maximum is {self._maximum}."
            )
            return fault(named, request_id, 406, message)
        try:
            return self._dispatch(request, request_id, where, token, version)
        except NovaError as error:
            return fault(named, request_id, error.status, str(error))
        except NotFound as absent:
            return fault(named, request_id, 404, str(absent))
        except Conflict as conflict:
            return fault(named, request_id, 409, str(conflict))

    def refuse(
        self, request: Request, request_id: str, status: int, message: str | None, headers: Mapping[str, str]
    ) -> Answer:
        """Return an error in Nova's form, in the microversion of the request; a 401 as the layer before it.

        Args:
            request: the request.
            request_id: of the request.
            status: the HTTP status.
            message: the text; the status's reason phrase if None.
            headers: of the answer, some of which are in the body, too.
        """
        if status == 401:
            return unauthenticated(request, request_id)
        base = base_of(request.path)
        try:
            version = self._supported(request, base)
        except BadMicroversion:
            version = MINIMUM
        named = None if base and base.legacy else version
        return fault(named, request_id, status, message or phrase(status), tuple(headers.items()))

    def _supported(self, request: Request, base: Base | None) -> Microversion:
        # The old API's wrapper throws both headers away before Nova looks.
        return MINIMUM if base and base.legacy else requested(request, self._maximum)

    def _list_versions(self, request: Request, base: Base) -> Answer:
        versions = []
        for root in ("/v2", "/v2.1"):
            about = self._version(Base(base.prefix, root))
            link = {"rel": "self", "href": f"{request.base_url}{base.prefix}{root}/"}
            versions.append(about | {"links": [link]})
        document = json.dumps({"versions": versions}).encode()
        headers = (("Content-Length", str(len(document))), ("Content-Type", "application/json"))
        return Answer(200, headers, document)

    def _describe(self, request: Request, base: Base, request_id: str) -> Answer:
        document = self._version(base)
        described = {"rel": "describedby", "type": "text/html", "href": "http://docs.openstack.org/"}
        itself = {"rel": "self", "href": f"{request.base_url}{base.prefix}{base.root}/"}
        document["links"] = [itself, described]
        kind = "2" if base.legacy else "2.1"
        media_type = f"application/vnd.openstack.compute+json;version={kind}"
        document["media-types"] = [{"base": "application/json", "type": media_type}]
        return reply(None if base.legacy else MINIMUM, request_id, {"version": document})

    def _version(self, base: Base) -> dict[str, object]:
        if base.legacy:
            about = ("v2.0", "DEPRECATED", "", "", "2025-07-04T12:00:00Z")
        else:
            about = ("v2.1", "CURRENT", str(self._maximum), str(MINIMUM), "2013-07-23T11:33:21Z")
        return dict(zip(("id", "status", "version", "min_version", "updated"), about, strict=True))

    def _dispatch(self, request: Request, request_id: str, where: Route, token: Token, version: Microversion) -> Answer:
        _check_content_type(request)
        verb = _verb(request) if where.resource is Resource.ACTION else ""
        own_id = token.project.id if token.project else None
        if where.project_id and where.project_id != own_id:
            raise NovaError(
                400,
                f"Malformed request URL: URL's project_id '{where.project_id}' "
                f"doesn't match Context's project_id '{own_id}'",
            )
        if own_id is None:
            raise NovaError(403, "Forbidden")
        view = views.View(version, request.base_url, where.base, where.project_id, token.admin)
        named = None if where.base.legacy else version
        seen_by = None if token.admin else own_id
        match where.resource:
            case Resource.ACTION:
                self._act(where.server_id, verb, Actor(token.user.id, own_id, request_id, token.admin), token)
                status = self._stop_status if verb == "stop" else 202
                return reply(named, request_id, None, status, acted=True)
            case Resource.SERVER if request.method == "DELETE":
                self._delete(where.server_id, Actor(token.user.id, own_id, request_id, token.admin), token)
                return reply(named, request_id, None, 204, acted=True)
            case Resource.SERVER:
                server = self._world.find(where.server_id, seen_by)
                return reply(named, request_id, {"server": views.full(server, view, alone=True)})
            case Resource.METADATA | Resource.METADATA_ITEM:
                return self._metadata(request, request_id, where, named, token)
            case Resource.RECORDS | Resource.RECORD:
                return reply(named, request_id, self._records(request, where, view, seen_by))
        detailed = where.resource is Resource.DETAIL
        limits = self._max_limit, self._default_limit, self._next_links
        page = list_servers(self._world, request.query, view, own_id, detailed, *limits)
        return reply(named, request_id, page)

    def _act(self, server_id: str, verb: str, actor: Actor, token: Token) -> None:
        with self._world.lock:
            self._world.find_to_act(server_id, None if actor.admin else actor.project_id)
            if not token.may_write:
                raise NovaError(403, f"Policy doesn't allow os_compute_api:servers:{verb} to be performed.")
            if verb == "stop":
                self._world.stop(server_id, actor)
            else:
                self._world.start(server_id, actor, self._world.power_off_delay)

    def _delete(self, server_id: str, actor: Actor, token: Token) -> None:
        self._world.find(server_id, None if actor.admin else actor.project_id)
        if not token.may_write:
            raise NovaError(403, "Policy doesn't allow os_compute_api:servers:delete to be performed.")
        self._world.delete(server_id, actor)

    def _metadata(
        self, request: Request, request_id: str, where: Route, named: Microversion | None, token: Token
    ) -> Answer:
        assert token.project is not None
        actor = Actor(token.user.id, token.project.id, request_id, token.admin)
        server = self._world.find(where.server_id, None if actor.admin else actor.project_id)
        if request.method == "GET":
            return reply(named, request_id, {"metadata": dict(server.metadata)})
        word = "create" if request.method == "POST" else "delete"
        entries = _entries(request) if word == "create" else {}
        if not token.may_write:
            raise NovaError(403, f"Policy doesn't allow os_compute_api:server-metadata:{word} to be performed.")
        if word == "create":
            changed = self._world.update_metadata(where.server_id, actor, entries)
            return reply(named, request_id, {"metadata": dict(changed)}, acted=True)
        self._world.delete_metadata(where.server_id, actor, where.key)
        return reply(named, request_id, None, 204, acted=True)

    def _records(self, request: Request, where: Route, view: views.View, seen_by: str | None) -> dict[str, object]:
        server = self._remembered(where.server_id, view, seen_by)
        entries = self._world.actions(server.id)
        if where.resource is Resource.RECORDS:
            return page_of_actions(entries, request.query, view, where.server_id, self._max_limit)
        for entry in entries:
            if entry.request_id == where.request_id:
                return {"instanceAction": views.action_in_detail(entry, server, view)}
        raise NovaError(404, f"Action {where.request_id} not found")

    def _remembered(self, server_id: str, view: views.View, seen_by: str | None) -> ServerState:
        # From 2.21 on, the record of a deleted server can still be read.
        if view.at_least(21) and self._world.known(server_id):
            server = self._world.get(server_id)
            if server.deleted and seen_by in (None, server.project_id):
                return server
        return self._world.find(server_id, seen_by)


def _check_content_type(request: Request) -> None:
    given = (request.header("Content-Type") or "").partition(";")[0].strip()
    if given not in ("", "text/plain", "application/json"):
        raise NovaError(415, "Unsupported Content-Type")


def _verb(request: Request) -> str:
    try:
        body = request.json()
    except ValueError:
        raise NovaError(400, "Malformed request body") from None
    # Nova counts the members first: a list or a string of one element is "not found", a longer one malformed.
    if isinstance(body, dict | list | str) and len(body) != 1:
        raise NovaError(400, "Malformed request body")
    if not isinstance(body, dict):
        raise NovaError(404, _NO_RESOURCE)
    name = next(iter(body))
    if name not in _VERBS:
        raise NovaError(400, f"There is no such action: {name}")
    return _VERBS[name]


def _entries(request: Request) -> dict[str, str]:
    """Return the entries of metadata in a body; the rules are those of nova/api/openstack/compute/schemas."""
    try:
        body = request.json()
    except ValueError:
        raise NovaError(400, "Malformed request body") from None
    entries = body.get("metadata") if isinstance(body, dict) and len(body) == 1 else None
    if not isinstance(entries, dict) or not all(
        _KEY.fullmatch(key) and isinstance(value, str) and len(value) <= 255 for key, value in entries.items()
    ):
        raise NovaError(400, "Invalid input for field/attribute metadata.")
    return entries


def is_stop(request: Request) -> bool:
    """Whether the body of an action has an `os-stop`, also if the rest is not valid."""
    try:
        body = json.loads(request.body)
    except ValueError:
        return False
    return isinstance(body, dict) and "os-stop" in body
