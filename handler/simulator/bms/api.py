"""Open Telekom Cloud's BMS API v1: servers read, listed, and stopped in batches by jobs.

It is behind a gateway, which checks first: whether there is such an API, then the token, then the rest.
"""

import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from handler.simulator import gateway
from handler.simulator.bms import views
from handler.simulator.bms.behavior import BatchPolicy, BmsBehavior
from handler.simulator.bms.jobs import Jobs, SubJob
from handler.simulator.bms.replies import BmsError, refuse, refuse_with_status, reply
from handler.simulator.compute.servers import ServerState
from handler.simulator.compute.world import Actor, NotFound, World
from handler.simulator.identity.model import Identity, Token
from handler.simulator.messages import Answer, Request

PREFIX = "/v1"
LARGEST_BATCH = 1000

_DEFAULT_PAGE = 25
_LARGEST_PAGE = 1000
_PATH = re.compile(
    PREFIX + r"/(?P<project_id>[^/]+)/"
    r"(?:baremetalservers/(?:(?P<detail>detail)|(?P<action>action)|(?P<server_id>[^/]+))|jobs/(?P<job_id>[^/]+))"
)
_BUSY = {"powering-off": "BMS.0036", "powering-on": "BMS.0035"}


class BmsResource(StrEnum):
    """What a request can be addressed to."""

    SERVER = "server"
    DETAIL = "detail"
    ACTION = "action"
    JOB = "job"


@dataclass(frozen=True, slots=True)
class BmsRoute:
    """A parsed path; `id` is that of the server or job in it, empty if it has none."""

    resource: BmsResource
    project_id: str
    id: str = ""


def is_bms(path: str) -> bool:
    """Whether a decoded path is one of this API."""
    return path == PREFIX or path.startswith(PREFIX + "/")


def bms_route(method: str, path: str) -> BmsRoute | None:
    """Return what a decoded path names if the method can be used on it."""
    found = _PATH.fullmatch(path)
    if found is None or method != ("POST" if found["action"] else "GET"):
        return None
    project_id = found["project_id"]
    if found["action"]:
        return BmsRoute(BmsResource.ACTION, project_id)
    if found["detail"]:
        return BmsRoute(BmsResource.DETAIL, project_id)
    if found["job_id"]:
        return BmsRoute(BmsResource.JOB, project_id, found["job_id"])
    return BmsRoute(BmsResource.SERVER, project_id, found["server_id"])


def ids_in(request: Request) -> list[str]:
    """Return the ids in a stop of a batch, also if the rest is not valid."""
    try:
        body = request.json()
    except ValueError:
        return []
    match body:
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

    def answer(self, request: Request, request_id: str) -> Answer:
        """Carry out a request, and return the answer."""
        where = bms_route(request.method, request.path)
        if where is None:
            return gateway.refuse(request_id, 404, gateway.NOT_PUBLISHED)
        token = self._identity.check(request.header("X-Auth-Token"))
        if token is None:
            return gateway.refuse_token(self._identity, request, request_id)
        try:
            if token.project is None or token.project.id != where.project_id:
                raise BmsError(400, "Common.0018")
            return self._dispatch(request, request_id, where, token)
        except BmsError as error:
            return refuse(request_id, error)

    def refuse(self, request_id: str, status: int, message: str | None, code: str | None) -> Answer:
        """Return an error in this API's form.

        Args:
            request_id: of the request.
            status: the HTTP status.
            message: the text; the usual one if None.
            code: answer 400 with this code and its text instead.
        """
        if code is not None:
            return refuse(request_id, BmsError(400, code))
        return refuse_with_status(request_id, status, message)

    def _dispatch(self, request: Request, request_id: str, where: BmsRoute, token: Token) -> Answer:
        match where.resource:
            case BmsResource.ACTION:
                return self._stop(request, request_id, where.project_id, token)
            case BmsResource.DETAIL:
                return reply(request_id, self._list(request, where.project_id))
            case BmsResource.SERVER:
                server = self._find(where.id, where.project_id)
                if server is None:
                    raise BmsError(self._behavior.missing_status, "BMS.0040")
                return reply(request_id, {"server": self._show(server)})
        job = self._jobs.show(where.id, where.project_id)
        if job is None:
            raise BmsError(400, "Common.0011", flat=not self._behavior.job_error_wrapped)
        return reply(request_id, job)

    def _show(self, server: ServerState) -> dict[str, object]:
        return views.show(server, idle_task_state=self._behavior.idle_task_state)

    def _find(self, server_id: str, project_id: str) -> ServerState | None:
        try:
            server = self._world.find(server_id, project_id)
        except NotFound:
            return None
        return server if views.is_bare_metal(server) else None

    def _list(self, request: Request, project_id: str) -> dict[str, object]:
        given = dict(request.query)
        page = _number(given, "offset", 1)
        limit = min(_number(given, "limit", _LARGEST_PAGE if "offset" in given else _DEFAULT_PAGE), _LARGEST_PAGE)
        found = [
            server
            for server in self._world.all()
            if server.project_id == project_id
            and not server.deleted
            and views.is_bare_metal(server)
            and _passes(server, given)
        ]
        start = (page - 1) * limit
        return {"count": len(found), "servers": [self._show(server) for server in found[start : start + limit]]}

    def _stop(self, request: Request, request_id: str, project_id: str, token: Token) -> Answer:
        ids = _batch(request)
        if not token.may_write:
            raise BmsError(403, "BMS.0288")
        with self._world.lock:
            parts = self._parts(ids, project_id, token)
            refused = [part.error_code for part in parts if part.error_code]
            if refused and BatchPolicy(self._behavior.batch_policy) is BatchPolicy.REJECT_WHOLE:
                raise BmsError(400, refused[0])
            taken = [part for part in parts if part.error_code is None]
            for part in taken:
                self._world.stop(part.server_id, Actor(token.user.id, project_id, part.request_id, token.admin))
            job_id = self._jobs.begin(project_id, parts)
        document = {"job_id": job_id} if self._behavior.job_id else {}
        return reply(request_id, document, tuple(part.server_id for part in taken))

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
            return self._behavior.locked_code
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
