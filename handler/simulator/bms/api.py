"""Open Telekom Cloud's BMS API v1: servers read, listed, and stopped in batches by jobs."""

import re
import uuid
from collections.abc import Callable, Sequence

from handler.simulator import gateway
from handler.simulator.bms import views
from handler.simulator.bms.behavior import BatchPolicy, BmsBehavior
from handler.simulator.bms.jobs import Jobs, SubJob
from handler.simulator.bms.views import error_body, reply
from handler.simulator.calls import CallKind
from handler.simulator.compute.api import is_stop
from handler.simulator.compute.servers import ServerState
from handler.simulator.compute.store import Actor, NotFound, ServerStore
from handler.simulator.gateway import Call, ServiceError
from handler.simulator.identity.model import Identity, Token
from handler.simulator.messages import Answer, Request
from handler.simulator.routes import Routes

PREFIX = "/v1"
LARGEST_BATCH = 1000

_DEFAULT_PAGE = 25
_LARGEST_PAGE = 1000
_BUSY = {"powering-off": "BMS.0036", "powering-on": "BMS.0035"}


def ids_in(request: Request) -> list[str]:
    """Return the ids in a stop of a batch, also if the rest is not valid."""
    match request.json_or_none():
        case {"os-stop": {"servers": [*servers]}}:
            return [
                server["id"] for server in servers if isinstance(server, dict) and isinstance(server.get("id"), str)
            ]
    return []


class Bms(gateway.Service):
    """Answers requests to `/v1`; `behavior` is used by every request, so that it can be changed."""

    def __init__(self, store: ServerStore, identity: Identity, behavior: BmsBehavior) -> None:
        table: dict[str, tuple[CallKind, Callable[[Call], Answer]]] = {
            "GET baremetalservers/detail": (CallKind.LIST, self._list),
            "POST baremetalservers/action": (CallKind.STOP, self._stop),
            "GET baremetalservers/(?!action$){id}": (CallKind.READ, self._read),
            "GET jobs/{id}": (CallKind.JOB, self._job),
        }
        routes = Routes(PREFIX + "/(?P<project_id>[^/]+)/", table)
        super().__init__(identity, routes, ServiceError(400, "Common.0018"))
        self._store = store
        self._behavior = behavior
        self._jobs = Jobs(store, behavior)

    def identify(self, request: Request) -> tuple[CallKind, list[str]] | None:
        """Return the operation that a request asks for, and the ids of the servers in it."""
        if not f"{request.path}/".startswith(PREFIX + "/"):
            return None
        route = self._routes.find(request.method, request.path)
        match route and route.kind:
            case CallKind.READ if route:
                return CallKind.READ, [route.names["id"]]
            case CallKind.STOP:
                return CallKind.STOP if is_stop(request) else CallKind.OTHER, ids_in(request)
        return route.kind if route else CallKind.OTHER, []

    def _read(self, call: Call) -> Answer:
        server = self._find(call.names["id"], call.project_id)
        if server is None:
            raise ServiceError(self._behavior.missing_status, "BMS.0040")
        return reply(call.request_id, {"server": self._show(server)})

    def _job(self, call: Call) -> Answer:
        job = self._jobs.show(call.names["id"], call.project_id)
        if job is None:
            raise ServiceError(400, "Common.0011", flat=not self._behavior.job_error_wrapped)
        return reply(call.request_id, job)

    def _show(self, server: ServerState) -> dict[str, object]:
        return views.show(server, idle_task_state=self._behavior.idle_task_state)

    def _find(self, server_id: str, project_id: str) -> ServerState | None:
        try:
            server = self._store.find(server_id, project_id)
        except NotFound:
            return None
        return server if views.is_bare_metal(server) else None

    def _list(self, call: Call) -> Answer:
        given = dict(call.request.query)
        page = _number(given, "offset", 1)
        limit = min(_number(given, "limit", _LARGEST_PAGE if "offset" in given else _DEFAULT_PAGE), _LARGEST_PAGE)
        found = [
            server
            for server in self._store.all()
            if server.project_id == call.project_id
            and not server.deleted
            and views.is_bare_metal(server)
            and _passes(server, given)
        ]
        shown = [self._show(server) for server in found[(page - 1) * limit : page * limit]]
        return reply(call.request_id, {"count": len(found), "servers": shown})

    def _stop(self, call: Call) -> Answer:
        ids = _batch(call.request)
        if not call.token.may_write:
            raise ServiceError(403, "BMS.0288")
        with self._store.lock:
            parts = self._parts(ids, call.project_id, call.token)
            refused = [part.error_code for part in parts if part.error_code]
            if refused and BatchPolicy(self._behavior.batch_policy) is BatchPolicy.REJECT_WHOLE:
                raise ServiceError(400, refused[0])
            accepted = [part for part in parts if part.error_code is None]
            for part in accepted:
                actor = Actor(call.token.user.id, call.project_id, part.request_id, call.token.admin)
                self._store.act(part.server_id, "stop", actor)
            job_id = self._jobs.begin(call.project_id, parts)
        document = {"job_id": job_id} if self._behavior.job_id else {}
        return reply(call.request_id, document, tuple(part.server_id for part in accepted))

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

    def _code_for(self, status: int) -> str:
        return {400: "BMS.0018", 403: "BMS.0288", 404: "BMS.0040"}.get(status, "BMS.1007")

    def _error(self, request_id: str, error: ServiceError, message: str | None = None) -> Answer:
        return gateway.answer(request_id, error.status, error_body(error.code, message, flat=error.flat).encode())


def _batch(request: Request) -> list[str]:
    try:
        body = request.json()
    except ValueError:
        raise ServiceError(400, "BMS.0001") from None
    ids = ids_in(request)
    match body:
        case {"os-stop": {"servers": [_, *_] as servers, **rest}} if len(servers) == len(ids) <= LARGEST_BATCH:
            if rest.get("type", "HARD") == "HARD":
                return ids
    raise ServiceError(400, "BMS.0018")


def _number(given: dict[str, str], name: str, default: int) -> int:
    text = given.get(name)
    if text is None:
        return default
    if not re.fullmatch(r"0*[1-9][0-9]{0,8}", text):
        raise ServiceError(400, "BMS.0018")
    return int(text)


def _passes(server: ServerState, given: dict[str, str]) -> bool:
    return (
        given.get("name", "").lower() in server.name.lower()
        and given.get("status", server.status).upper() == server.status
        and given.get("flavor", server.flavor) == server.flavor
        and set(filter(None, given.get("tags", "").split(","))) <= set(server.tags)
    )
