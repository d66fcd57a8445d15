"""Open Telekom Cloud's BMS API v1: servers read, listed, and stopped in batches by jobs.

It is behind a gateway, which checks first: whether there is such an API, then the token, then the rest.
"""

import re
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from handler.simulator import gateway
from handler.simulator.bms import views
from handler.simulator.bms.behavior import BatchPolicy, BmsBehavior
from handler.simulator.bms.jobs import Jobs, SubJob
from handler.simulator.bms.views import BmsError, refuse, reply
from handler.simulator.calls import CallKind
from handler.simulator.compute.api import is_stop
from handler.simulator.compute.servers import ServerState
from handler.simulator.compute.world import Actor, NotFound, World
from handler.simulator.faults import Fault
from handler.simulator.identity.model import Identity, Token
from handler.simulator.messages import Answer, Request, phrase
from handler.simulator.routes import Routes

PREFIX = "/v1"
LARGEST_BATCH = 1000

_DEFAULT_PAGE = 25
_LARGEST_PAGE = 1000
_BUSY = {"powering-off": "BMS.0036", "powering-on": "BMS.0035"}
_OF_SERVERS = "baremetalservers/"


@dataclass(frozen=True, slots=True)
class _Call:
    """A request with a token for its project."""

    request: Request
    request_id: str
    project_id: str
    id: str
    token: Token


_Handler = Callable[[_Call], Answer]


def is_bms(path: str) -> bool:
    """Whether a decoded path is one of this API."""
    return path == PREFIX or path.startswith(PREFIX + "/")


def ids_in(request: Request) -> list[str]:
    """Return the ids in a stop of a batch, also if the rest is not valid."""
    match request.json_or_none():
        case {"os-stop": {"servers": [*servers]}}:
            return [
                server["id"] for server in servers if isinstance(server, dict) and isinstance(server.get("id"), str)
            ]
    return []


class Bms:
    """Answers requests to `/v1`.

    Args:
        behavior: used by every request, so that it can be changed.
    """

    def __init__(self, world: World, identity: Identity, behavior: BmsBehavior) -> None:
        self._world = world
        self._identity = identity
        self._behavior = behavior
        self._jobs = Jobs(world, behavior)
        table: dict[str, tuple[CallKind, _Handler]] = {
            f"GET {_OF_SERVERS}detail": (CallKind.LIST, self._list),
            f"POST {_OF_SERVERS}action": (CallKind.STOP, self._stop),
            f"GET {_OF_SERVERS}(?!action$){{id}}": (CallKind.READ, self._read),
            "GET jobs/{id}": (CallKind.JOB, self._job),
        }
        self._routes = Routes(PREFIX + "/(?P<project_id>[^/]+)/", table)

    def identify(self, request: Request) -> tuple[CallKind, list[str]]:
        """Return the operation that a request asks for, and the ids of the servers in it."""
        route = self._routes.find(request.method, request.path)
        match route and route.kind:
            case CallKind.READ if route:
                return CallKind.READ, [route.names["id"]]
            case CallKind.STOP:
                return CallKind.STOP if is_stop(request) else CallKind.OTHER, ids_in(request)
        return route.kind if route else CallKind.OTHER, []

    def answer(self, request: Request, request_id: str) -> Answer:
        """Carry out a request, and return the answer."""
        route = self._routes.find(request.method, request.path)
        if route is None:
            return gateway.refuse(request_id, 404, gateway.NOT_PUBLISHED)
        token = self._identity.check(request.header("X-Auth-Token"))
        if token is None:
            return gateway.refuse_token(self._identity, request, request_id)
        project_id = route.names["project_id"]
        try:
            if token.project is None or token.project.id != project_id:
                raise BmsError(400, "Common.0018")
            return route.handler(_Call(request, request_id, project_id, route.names.get("id", ""), token))
        except BmsError as error:
            return refuse(request_id, error)

    def refuse(self, _request: Request, request_id: str, status: int, message: str | None, fault: Fault) -> Answer:
        """Return the error of an injected fault in the form of the gateway or of this API, whichever answers it."""
        if fault.bms_code is not None:
            return refuse(request_id, BmsError(400, fault.bms_code))
        if code := gateway.code_for(status):
            return gateway.refuse(request_id, status, code, message)
        usual = {400: "BMS.0018", 403: "BMS.0288", 404: "BMS.0040"}.get(status, "BMS.1007")
        return refuse(request_id, BmsError(status, usual), message or f"{phrase(status)}.")

    def _read(self, call: _Call) -> Answer:
        server = self._find(call.id, call.project_id)
        if server is None:
            raise BmsError(self._behavior.missing_status, "BMS.0040")
        return reply(call.request_id, {"server": self._show(server)})

    def _job(self, call: _Call) -> Answer:
        job = self._jobs.show(call.id, call.project_id)
        if job is None:
            raise BmsError(400, "Common.0011", flat=not self._behavior.job_error_wrapped)
        return reply(call.request_id, job)

    def _show(self, server: ServerState) -> dict[str, object]:
        return views.show(server, idle_task_state=self._behavior.idle_task_state)

    def _find(self, server_id: str, project_id: str) -> ServerState | None:
        try:
            server = self._world.find(server_id, project_id)
        except NotFound:
            return None
        return server if views.is_bare_metal(server) else None

    def _list(self, call: _Call) -> Answer:
        given = dict(call.request.query)
        page = _number(given, "offset", 1)
        limit = min(_number(given, "limit", _LARGEST_PAGE if "offset" in given else _DEFAULT_PAGE), _LARGEST_PAGE)
        found = [
            server
            for server in self._world.all()
            if server.project_id == call.project_id
            and not server.deleted
            and views.is_bare_metal(server)
            and _passes(server, given)
        ]
        shown = [self._show(server) for server in found[(page - 1) * limit : page * limit]]
        return reply(call.request_id, {"count": len(found), "servers": shown})

    def _stop(self, call: _Call) -> Answer:
        ids = _batch(call.request)
        if not call.token.may_write:
            raise BmsError(403, "BMS.0288")
        with self._world.lock:
            parts = self._parts(ids, call.project_id, call.token)
            refused = [part.error_code for part in parts if part.error_code]
            if refused and BatchPolicy(self._behavior.batch_policy) is BatchPolicy.REJECT_WHOLE:
                raise BmsError(400, refused[0])
            taken = [part for part in parts if part.error_code is None]
            for part in taken:
                actor = Actor(call.token.user.id, call.project_id, part.request_id, call.token.admin)
                self._world.act(part.server_id, "stop", actor)
            job_id = self._jobs.begin(call.project_id, parts)
        document = {"job_id": job_id} if self._behavior.job_id else {}
        return reply(call.request_id, document, tuple(part.server_id for part in taken))

    def _parts(self, ids: Sequence[str], project_id: str, token: Token) -> list[SubJob]:
        parts: list[SubJob] = []
        seen: set[str] = set()
        for asked in ids:
            server = self._find(asked, project_id)
            server_id = server.id if server else asked
            if server is None:
                code: str | None = "BMS.0040"
            elif server_id in seen:
                # Listed twice: it is being powered off already.
                code = "BMS.0036"
            else:
                code = self._violation(server, token)
            seen.add(server_id)
            parts.append(SubJob(server_id, f"req-{uuid.uuid4()}", code))
        return parts

    def _violation(self, server: ServerState, token: Token) -> str | None:
        """Return the code with which a stop of this server is refused; None if it is accepted."""
        if server.locked and not token.admin:
            # The code of the ECS API: that of BMS is not documented.
            return "Ecs.0605"
        if server.task_state is not None:
            return "BMS.0037" if server.task_state.startswith("reboot") else _BUSY.get(server.task_state, "Ecs.0100")
        if server.vm_state == "stopped":
            return "BMS.0039"
        if server.vm_state not in ("active", "error") or server.host is None or server.launched_at is None:
            return "Ecs.0100"
        return None


def _batch(request: Request) -> list[str]:
    try:
        body = request.json()
    except ValueError:
        raise BmsError(400, "BMS.0001") from None
    ids = ids_in(request)
    match body:
        case {"os-stop": {"servers": [_, *_] as servers, **rest}} if len(servers) == len(ids) <= LARGEST_BATCH:
            if rest.get("type", "HARD") == "HARD":
                return ids
    raise BmsError(400, "BMS.0018")


def _number(given: dict[str, str], name: str, default: int) -> int:
    text = given.get(name)
    if text is None:
        return default
    if not re.fullmatch(r"0*[1-9][0-9]{0,8}", text):
        raise BmsError(400, "BMS.0018")
    return int(text)


def _passes(server: ServerState, given: dict[str, str]) -> bool:
    return (
        given.get("name", "").lower() in server.name.lower()
        and given.get("status", server.status).upper() == server.status
        and given.get("flavor", server.flavor) == server.flavor
        and set(filter(None, given.get("tags", "").split(","))) <= set(server.tags)
    )
