"""The whole simulated cloud without a socket: a request goes in, and what is to go out comes back.

What carries the requests is a matter of its own (`server.py` does it over HTTP), and so is how time passes.
"""

import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace

from handler.simulator.calls import Call, CallKind, CallLog
from handler.simulator.catalog import Catalog
from handler.simulator.faults import Cut, Fault, FaultBook
from handler.simulator.identity import Identity
from handler.simulator.keystone import Keystone
from handler.simulator.messages import Answer, Request
from handler.simulator.nova import Nova, is_stop
from handler.simulator.routes import Resource, base_of, route
from handler.simulator.world import Actor, Refusal, World

_SECRET_HEADERS = frozenset({"x-auth-token", "x-subject-token", "authorization"})


@dataclass(frozen=True, slots=True)
class Delivery:
    """What is to be sent back, and how.

    Args:
        answer: None to close the connection without one.
        half: send only half of the body and close.
        drip: seconds before each byte of the body; 0 to send everything at once.
    """

    answer: Answer | None
    half: bool = False
    drip: float = 0.0


class Cloud:
    """Keystone and Nova with their state, the faults put into them, and the record of calls.

    Args:
        wait: called with seconds to let pass; returns True if the cloud is shutting down and nothing is to be
            done any more.
        latency: seconds that every call takes.
    """

    def __init__(
        self,
        world: World,
        identity: Identity,
        catalog: Catalog,
        *,
        max_microversion: str,
        stop_status: int,
        max_limit: int,
        latency: float,
        wait: Callable[[float], bool],
    ) -> None:
        self.world = world
        self.identity = identity
        self.catalog = catalog
        self.faults = FaultBook()
        self.calls = CallLog()
        self.latency = latency
        self._wait = wait
        self._keystone = Keystone(identity, catalog)
        self._nova = Nova(
            world, identity, max_microversion=max_microversion, stop_status=stop_status, max_limit=max_limit
        )

    def handle(self, request: Request) -> Delivery:
        """Do what a request asks, or what the first fault that it meets makes of it."""
        kind, server_id = self.classify(request)
        call = Call(
            kind=kind,
            method=request.method,
            path=request.target,
            server_id=server_id,
            status=None,
            at=self.world.clock(),
            headers={k.lower(): v for k, v in request.headers if k.lower() not in _SECRET_HEADERS},
            body=b"" if kind is CallKind.LOGIN else request.body,
        )
        place = self.calls.begin(call)
        fault = self.faults.strike(kind, server_id)
        if self._pause(self.latency + (fault.delay if fault else 0.0)):
            return Delivery(None)
        answer = self._answer(request, server_id, fault)
        call = replace(call, acted=answer.acted if answer else False)
        self.calls.end(place, call)
        if fault and self._pause(fault.hold):
            return Delivery(None)
        if answer is None or (fault and fault.cut is Cut.AFTER):
            return Delivery(None)
        self.calls.end(place, replace(call, status=answer.status))
        return Delivery(answer, bool(fault and fault.cut is Cut.MIDWAY), fault.slow_body if fault else 0.0)

    def classify(self, request: Request) -> tuple[CallKind, str | None]:
        """Return what a request asks for, and the id of the server it is about in the cloud's spelling."""
        if base_of(request.path) is None:
            return _keystone_kind(request), None
        where = route(request.method, request.path)
        if where is None:
            return CallKind.OTHER, None
        server_id = where.server_id.lower() if self.world.known(where.server_id) else where.server_id
        match where.resource:
            case Resource.VERSIONS | Resource.VERSION:
                kind = CallKind.VERSION
            case Resource.SERVERS | Resource.DETAIL:
                kind = CallKind.LIST
            case Resource.SERVER if request.method == "GET":
                kind = CallKind.READ
            case Resource.RECORDS | Resource.RECORD:
                kind = CallKind.ACTIONS
            case _:
                kind = CallKind.STOP if where.resource is Resource.ACTION and is_stop(request) else CallKind.OTHER
        return kind, server_id or None

    def _pause(self, seconds: float) -> bool:
        return seconds > 0 and self._wait(seconds)

    def _answer(self, request: Request, server_id: str | None, fault: Fault | None) -> Answer | None:
        """Return the answer, having acted; None if the connection is cut before that."""
        request_id = f"req-{uuid.uuid4()}"
        if fault is None:
            return self._serve(request, request_id)
        if fault.cut is Cut.BEFORE:
            return None
        if fault.expire_token:
            self.identity.revoke(request.header("X-Auth-Token") or "")
        if fault.rival and server_id:
            self._stop_by_somebody_else(server_id)
        extra = tuple((name, value.replace("{request_id}", request_id)) for name, value in fault.headers.items())
        if fault.status is None:
            answer = self._serve(request, request_id)
            return replace(answer, headers=answer.headers + extra)
        acted = self._serve(request, request_id).acted if fault.act else False
        answer = self._refusal(request, request_id, server_id, fault, fault.status)
        return replace(answer, headers=answer.headers + extra, acted=acted)

    def _serve(self, request: Request, request_id: str) -> Answer:
        if base_of(request.path):
            return self._nova.answer(request, request_id)
        return self._keystone.answer(request)

    def _refusal(self, request: Request, request_id: str, server_id: str | None, fault: Fault, status: int) -> Answer:
        if fault.body is not None or status < 400:
            body = fault.body.encode() if isinstance(fault.body, str) else fault.body or b""
            kind = fault.content_type or ("text/html" if body else "application/json")
            return Answer(status, (("Content-Length", str(len(body))), ("Content-Type", kind)), body)
        message = fault.message.replace("{id}", server_id or "") if fault.message else None
        if base_of(request.path):
            return self._nova.refuse(request, request_id, status, message, fault.headers)
        return self._keystone.refuse(request, status, message)

    def _stop_by_somebody_else(self, server_id: str) -> None:
        rival = Actor("somebody-else", "", f"req-{uuid.uuid4()}", admin=True)
        try:
            self.world.stop(server_id, rival)
        except Refusal:
            return


def _keystone_kind(request: Request) -> CallKind:
    match request.method, request.path.rstrip("/"):
        case "POST", "/v3/auth/tokens":
            return CallKind.LOGIN
        case "DELETE", "/v3/auth/tokens":
            return CallKind.REVOKE
        case "GET", ("" | "/v3"):
            return CallKind.VERSION
    return CallKind.OTHER
