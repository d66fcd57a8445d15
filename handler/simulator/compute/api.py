"""The part of Nova v2.1 that stopping servers needs.

The order of the checks is Nova's, since it decides which of several errors is reported: token, route, microversion,
content type, body, project in the URL, servers.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from handler.simulator.calls import CallKind
from handler.simulator.compute import views
from handler.simulator.compute.lists import PageLimits, list_servers
from handler.simulator.compute.replies import MINIMUM, Microversion, NovaError, error, plain, reply, unauthenticated
from handler.simulator.compute.servers import ServerState
from handler.simulator.compute.store import Actor, Refusal, ServerStore
from handler.simulator.compute.views import Base, base_of
from handler.simulator.faults import Fault
from handler.simulator.identity.model import Identity, Token
from handler.simulator.messages import Answer, Request, phrase
from handler.simulator.routes import Route, Routes

_NO_RESOURCE = "The resource could not be found."
_VERBS = {"os-stop": "stop", "os-start": "start"}
_KEY = re.compile(r"[a-zA-Z0-9-_:. ]{1,255}")
# Several slashes after the version count as one; any other extra slash, also at the end, is not found.
_PREFIX = r"/*(?:(?P<project_id>[0-9a-f-]+)/)?"


@dataclass(frozen=True, slots=True)
class _Call:
    """A request with a token, a route and a valid body.

    Args:
        names: the segments of the path.
        verb: the action, in the request of one.
        version: the microversion that the answer names; None for the old API.
    """

    request: Request
    request_id: str
    names: Mapping[str, str]
    verb: str
    actor: Actor
    token: Token
    view: views.View
    version: Microversion | None

    @property
    def server_id(self) -> str:
        return self.names["server_id"]

    def reply(self, document: object, status: int = 200, *, acted: bool = False) -> Answer:
        return reply(self.version, self.request_id, document, status, acted)

    def check_policy(self, rule: str) -> None:
        if not self.token.may_write:
            raise NovaError(403, f"Policy doesn't allow os_compute_api:{rule} to be performed.")


_Handler = Callable[[_Call], Answer]


class Nova:
    """Answers requests to `/v2.1` and `/v2`, also below `/compute`.

    Args:
        max_microversion: the highest that is supported; a request for a higher one is refused.
        stop_status: the status for an accepted stop.
        limits: the length of a page of servers.
        refuse_token: returns the answer to a call without a valid token, which does not come from Nova itself.
    """

    def __init__(
        self,
        store: ServerStore,
        identity: Identity,
        *,
        max_microversion: str,
        stop_status: int,
        limits: PageLimits,
        refuse_token: Callable[[Request, str], Answer],
    ) -> None:
        self._store = store
        self._identity = identity
        self._maximum = Microversion.parse(max_microversion)
        self._stop_status = stop_status
        self._limits = limits
        self._refuse_token = refuse_token
        server, history = "servers/{server_id}", "servers/{server_id}/os-instance-actions"
        table: dict[str, tuple[CallKind, _Handler]] = {
            "GET servers": (CallKind.LIST, partial(self._list, detailed=False)),
            "GET servers/detail": (CallKind.LIST, partial(self._list, detailed=True)),
            f"GET {server}": (CallKind.READ, self._show),
            f"DELETE {server}": (CallKind.OTHER, self._delete),
            f"POST {server}/action": (CallKind.STOP, self._act),
            f"GET {server}/metadata": (CallKind.METADATA, self._metadata),
            f"POST {server}/metadata": (CallKind.METADATA, self._update_metadata),
            f"DELETE {server}/metadata/{{key}}": (CallKind.METADATA, self._delete_metadata),
            f"GET {history}": (CallKind.ACTIONS, self._history),
            f"GET {history}/{{request_id}}": (CallKind.ACTIONS, self._action),
        }
        self._routes = Routes(_PREFIX, table)

    def identify(self, request: Request) -> tuple[CallKind, list[str]] | None:
        """Return the operation that a request asks for, and the id of the server in its path, if any."""
        base = base_of(request.path)
        if base is None:
            return None
        if _is_version(request, base):
            return CallKind.VERSION, []
        route = self._route(request, base)
        if route is None:
            return CallKind.OTHER, []
        kind = CallKind.OTHER if route.kind is CallKind.STOP and not is_stop(request) else route.kind
        return kind, [route.names["server_id"]] if "server_id" in route.names else []

    def answer(self, request: Request, request_id: str) -> Answer:
        """Carry out a request, and return Nova's answer."""
        base = base_of(request.path)
        if base and _is_version(request, base):
            return self._describe(request, base, request_id) if base.root else self._list_versions(request, base)
        token = self._identity.check(request.header("X-Auth-Token"))
        if token is None:
            return self._refuse_token(request, request_id)
        if not token.admits(request.method, request.path):
            return unauthenticated(request, request_id)
        route = self._route(request, base)
        if base is None or route is None:
            return plain(request_id, 404, _NO_RESOURCE)
        try:
            version = self._requested(request, base)
        except NovaError as bad:
            return error(None, request_id, bad.status, str(bad))
        named = None if base.legacy else version
        if version > self._maximum:
            supported = f"Minimum is {MINIMUM} and maximum is {self._maximum}."
            return error(named, request_id, 406, f"Version {version} is not supported by the API. {supported}")
        try:
            return self._dispatch(request, request_id, base, route, token, version)
        except Refusal as refusal:
            return error(named, request_id, refusal.status, str(refusal))

    def refuse(self, request: Request, request_id: str, status: int, message: str | None, fault: Fault) -> Answer:
        """Return the error of an injected fault, in the microversion of the request; a 401 as the layer before Nova."""
        if status == 401:
            return self._refuse_token(request, request_id)
        base = base_of(request.path)
        try:
            version = self._requested(request, base)
        except NovaError:
            version = MINIMUM
        named = None if base and base.legacy else version
        return error(named, request_id, status, message or phrase(status), tuple(fault.headers.items()))

    def _route(self, request: Request, base: Base | None) -> Route[_Handler] | None:
        if base is None or not base.root:
            return None
        return self._routes.find(request.method, request.path.removeprefix(base.prefix + base.root))

    def _requested(self, request: Request, base: Base | None) -> Microversion:
        # The old API's wrapper removes both headers before Nova reads them.
        return MINIMUM if base and base.legacy else Microversion.requested(request, self._maximum)

    def _list_versions(self, request: Request, base: Base) -> Answer:
        versions = [self._version(request, Base(base.prefix, root)) for root in ("/v2", "/v2.1")]
        document = json.dumps({"versions": versions}).encode()
        headers = (("Content-Length", str(len(document))), ("Content-Type", "application/json"))
        return Answer(200, headers, document)

    def _describe(self, request: Request, base: Base, request_id: str) -> Answer:
        described = {"rel": "describedby", "type": "text/html", "href": "http://docs.openstack.org/"}
        media_type = f"application/vnd.openstack.compute+json;version={'2' if base.legacy else '2.1'}"
        document = self._version(request, base, described)
        document["media-types"] = [{"base": "application/json", "type": media_type}]
        return reply(None if base.legacy else MINIMUM, request_id, {"version": document})

    def _version(self, request: Request, base: Base, *links: dict[str, str]) -> dict[str, object]:
        if base.legacy:
            about = ("v2.0", "DEPRECATED", "", "", "2025-07-04T12:00:00Z")
        else:
            about = ("v2.1", "CURRENT", str(self._maximum), str(MINIMUM), "2013-07-23T11:33:21Z")
        itself = {"rel": "self", "href": f"{request.base_url}{base.prefix}{base.root}/"}
        names = ("id", "status", "version", "min_version", "updated")
        return dict(zip(names, about, strict=True)) | {"links": [itself, *links]}

    def _dispatch(
        self, request: Request, request_id: str, base: Base, route: Route[_Handler], token: Token, version: Microversion
    ) -> Answer:
        content_type = (request.header("Content-Type") or "").partition(";")[0].strip()
        if content_type not in ("", "text/plain", "application/json"):
            raise NovaError(415, "Unsupported Content-Type")
        verb = _verb(request) if route.kind is CallKind.STOP else ""
        project_id, own_id = route.names["project_id"], token.project.id if token.project else None
        if project_id and project_id != own_id:
            raise NovaError(
                400,
                f"Malformed request URL: URL's project_id '{project_id}' doesn't match Context's project_id '{own_id}'",
            )
        if own_id is None:
            raise NovaError(403, "Forbidden")
        actor = Actor(token.user.id, own_id, request_id, token.admin)
        view = views.View(version, request.base_url, base, project_id, token.admin)
        named = None if base.legacy else version
        return route.handler(_Call(request, request_id, route.names, verb, actor, token, view, named))

    def _list(self, call: _Call, *, detailed: bool) -> Answer:
        own_id = call.actor.project_id
        return call.reply(list_servers(self._store, call.request.query, call.view, own_id, detailed, self._limits))

    def _show(self, call: _Call) -> Answer:
        server = self._store.find(call.server_id, call.actor.scope)
        return call.reply({"server": views.full(server, call.view, alone=True)})

    def _act(self, call: _Call) -> Answer:
        with self._store.lock:
            self._store.find_to_act(call.server_id, call.actor)
            call.check_policy(f"servers:{call.verb}")
            self._store.act(call.server_id, call.verb, call.actor)
        return call.reply(None, self._stop_status if call.verb == "stop" else 202, acted=True)

    def _delete(self, call: _Call) -> Answer:
        self._store.find(call.server_id, call.actor.scope)
        call.check_policy("servers:delete")
        self._store.delete(call.server_id, call.actor)
        return call.reply(None, 204, acted=True)

    def _metadata(self, call: _Call) -> Answer:
        return call.reply({"metadata": dict(self._store.find(call.server_id, call.actor.scope).metadata)})

    def _update_metadata(self, call: _Call) -> Answer:
        self._store.find(call.server_id, call.actor.scope)
        entries = _entries(call.request)
        call.check_policy("server-metadata:create")
        changed = self._store.update_metadata(call.server_id, call.actor, entries)
        return call.reply({"metadata": dict(changed)}, acted=True)

    def _delete_metadata(self, call: _Call) -> Answer:
        self._store.find(call.server_id, call.actor.scope)
        call.check_policy("server-metadata:delete")
        self._store.delete_metadata(call.server_id, call.actor, call.names["key"])
        return call.reply(None, 204, acted=True)

    def _history(self, call: _Call) -> Answer:
        server = self._remembered(call)
        return call.reply({"instanceActions": [views.action(a, call.view) for a in self._store.actions(server.id)]})

    def _action(self, call: _Call) -> Answer:
        server, request_id = self._remembered(call), call.names["request_id"]
        for entry in self._store.actions(server.id):
            if entry.request_id == request_id:
                return call.reply({"instanceAction": views.action_in_detail(entry, server, call.view)})
        raise NovaError(404, f"Action {request_id} not found")

    def _remembered(self, call: _Call) -> ServerState:
        # From 2.21 on, the record of a deleted server can still be read.
        if call.view.at_least(21) and self._store.known(call.server_id):
            server = self._store.get(call.server_id)
            if server.deleted and call.actor.scope in (None, server.project_id):
                return server
        return self._store.find(call.server_id, call.actor.scope)


def _is_version(request: Request, base: Base) -> bool:
    return request.path.removeprefix(base.prefix + base.root) in ("", "/")


def _verb(request: Request) -> str:
    body = _body(request)
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
    body = _body(request)
    entries = body.get("metadata") if isinstance(body, dict) and len(body) == 1 else None
    if not isinstance(entries, dict) or not all(
        _KEY.fullmatch(key) and isinstance(value, str) and len(value) <= 255 for key, value in entries.items()
    ):
        raise NovaError(400, "Invalid input for field/attribute metadata.")
    return entries


def _body(request: Request) -> object:
    try:
        return request.json()
    except ValueError:
        raise NovaError(400, "Malformed request body") from None


def is_stop(request: Request) -> bool:
    """Whether the body of an action has an `os-stop`, also if the rest is not valid."""
    body = request.json_or_none()
    return isinstance(body, dict) and "os-stop" in body
