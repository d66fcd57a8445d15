"""The simulated cloud as a function from a request to what is to be sent back.

`server.py` serves it over HTTP; the clock is an argument.
"""

import contextlib
import re
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from email.utils import formatdate
from typing import Protocol

from handler.simulator import gateway
from handler.simulator.calls import Api, Call, CallKind, CallLog
from handler.simulator.compute.store import Actor, Refusal, ServerStore
from handler.simulator.faults import Cut, Fault, InjectedFaults
from handler.simulator.identity.model import Denied, Identity, Project, User
from handler.simulator.identity.signing import AccessKeys, Authorization, BadSignature, is_signed
from handler.simulator.messages import Answer, Request

_SECRET_HEADERS = frozenset({"x-auth-token", "x-subject-token", "x-security-token", "authorization"})
_PROJECT_IN_PATH = re.compile(r"(?:/compute)?/v[12](?:\.1)?/(?P<project_id>[0-9a-f]{32})(?:/|$)")


@dataclass(frozen=True, slots=True)
class Delivery:
    """An answer and how it is sent.

    Args:
        answer: None to close the connection without one.
        half: send only half of the body and close.
        drip: seconds before each byte of the body; 0 to send everything at once.
    """

    answer: Answer | None
    half: bool = False
    drip: float = 0.0


class Service(Protocol):
    """One of the cloud's APIs."""

    def identify(self, request: Request, /) -> tuple[CallKind, list[str]] | None:
        """Return the operation that a request asks for, and the ids of the servers in it, in the caller's spelling.

        None if the path is not one of this API.
        """

    def answer(self, request: Request, request_id: str, /) -> Answer:
        """Carry out a request, and return the answer."""

    def refuse(self, request: Request, request_id: str, status: int, message: str | None, fault: Fault, /) -> Answer:
        """Return the error of an injected fault in the form of the API; the message is the usual one if None."""


class Cloud:
    """The APIs of the cloud with their state, injected faults, and the record of calls.

    Args:
        store: the servers.
        identity: the users and their tokens.
        keys: the access keys with which requests can be signed.
        services: the APIs that the cloud has; the first that identifies a request answers it.
        wait: sleeps for the given seconds; returns True if the cloud shuts down and the request must be dropped.
        latency: seconds of real time that every call takes, including the work of the simulation.
    """

    def __init__(
        self,
        store: ServerStore,
        identity: Identity,
        keys: AccessKeys,
        services: Mapping[Api, Service],
        *,
        latency: float,
        wait: Callable[[float], bool],
    ) -> None:
        self.store = store
        self.identity = identity
        self.faults = InjectedFaults()
        self.calls = CallLog()
        self.latency = latency
        self._wait = wait
        self._keys = keys
        self._services = services

    def handle(self, request: Request, arrived: float | None = None) -> Delivery:
        """Carry out a request, or apply the first fault that matches it.

        The latency counts from `arrived`, on `time.monotonic`: when the first line was received; None for now.
        """
        arrived = time.monotonic() if arrived is None else arrived
        api, kind, server_ids = self.classify(request)
        signed = Authorization.of(request)
        call = Call(
            kind=kind,
            method=request.method,
            path=request.target,
            status=None,
            at=self.store.clock(),
            headers={k.lower(): v for k, v in request.headers if k.lower() not in _SECRET_HEADERS},
            body=b"" if kind is CallKind.LOGIN else request.body,
            api=api,
            server_ids=server_ids,
            access_key=signed.access if signed else None,
        )
        place = self.calls.begin(call)
        fault = self.faults.take(kind, api, server_ids)
        if fault and fault.delay:
            if self._pause(fault.delay):
                return Delivery(None)
            arrived += fault.delay
        answer = self._answer(request, call, fault)
        if answer and answer.acted:
            call = replace(call, acted=True, acted_on=server_ids if api is Api.NOVA else answer.acted_on)
        self.calls.end(place, call)
        left = max(arrived + self.latency - time.monotonic(), 0.0)
        if self._pause(left + (fault.hold if fault else 0.0)):
            return Delivery(None)
        if answer is None or (fault and fault.cut is Cut.AFTER):
            return Delivery(None)
        self.calls.end(place, replace(call, status=answer.status))
        if not any(name.lower() == "date" for name, _ in answer.headers):
            answer = replace(answer, headers=(*answer.headers, ("Date", formatdate(self.store.clock(), usegmt=True))))
        return Delivery(answer, bool(fault and fault.cut is Cut.MIDWAY), fault.slow_body if fault else 0.0)

    def classify(self, request: Request) -> tuple[Api, CallKind, tuple[str, ...]]:
        """Return the API and the kind of a request, and the ids of all servers that it is about.

        They are in the cloud's spelling and the caller's order.
        """
        identified = ((api, service.identify(request)) for api, service in self._services.items())
        api, (kind, asked) = next((api, found) for api, found in identified if found)
        return api, kind, tuple(id_.lower() if self.store.known(id_) else id_ for id_ in asked)

    def _pause(self, seconds: float) -> bool:
        return seconds > 0 and self._wait(seconds)

    def _answer(self, request: Request, call: Call, fault: Fault | None) -> Answer | None:
        """Carry out a request and return the answer; None if the connection is closed before that."""
        request_id = f"req-{uuid.uuid4()}"
        if fault is None:
            return self._admit(request, call.api, request_id)
        if fault.cut is Cut.BEFORE:
            return None
        if fault.expire_token:
            self.identity.revoke(request.header("X-Auth-Token") or "")
        if fault.rival:
            for server_id in call.server_ids:
                self._stop_by_another_user(server_id)
        extra = tuple((name, value.replace("{request_id}", request_id)) for name, value in fault.headers.items())
        if fault.status is None:
            answer = self._admit(request, call.api, request_id)
            return replace(answer, headers=answer.headers + extra)
        done = self._admit(request, call.api, request_id) if fault.act else Answer(fault.status)
        if fault.body is not None or fault.status < 400:
            answer = _with_body(fault, fault.status, request_id)
        else:
            message = fault.message.replace("{id}", ", ".join(call.server_ids)) if fault.message else None
            answer = self._services[call.api].refuse(request, request_id, fault.status, message, fault)
        return replace(answer, headers=answer.headers + extra, acted=done.acted, acted_on=done.acted_on)

    def _admit(self, request: Request, api: Api, request_id: str) -> Answer:
        """Answer a request; a signed one gets a token for itself only."""
        if not is_signed(request):
            return self._services[api].answer(request, request_id)
        try:
            user = self._keys.verify(request)
        except BadSignature as bad:
            return gateway.refuse(request_id, 401, gateway.NOT_AUTHENTICATED, f"Wrong IAM authentication: {bad}")
        try:
            token = self.identity.issue(user, self._project_of(request, user), ("hmac",))
        except Denied:
            return gateway.refuse(request_id, 403, gateway.NOT_AUTHORIZED)
        try:
            headers = (*request.headers, ("X-Auth-Token", token.id))
            return self._services[api].answer(replace(request, headers=headers), request_id)
        finally:
            self.identity.drop(token)

    def _project_of(self, request: Request, user: User) -> Project | None:
        found = _PROJECT_IN_PATH.match(request.path)
        project_id = request.header("X-Project-Id") or (found["project_id"] if found else None)
        if project_id is None:
            return user.default_project
        for project in self.identity.projects:
            if project.id == project_id:
                return project
        raise Denied

    def _stop_by_another_user(self, server_id: str) -> None:
        with contextlib.suppress(Refusal):
            self.store.act(server_id, "stop", Actor("another-user", "", f"req-{uuid.uuid4()}", admin=True))


def _with_body(fault: Fault, status: int, request_id: str) -> Answer:
    text = fault.body or b""
    body = text.replace("{request_id}", request_id).encode() if isinstance(text, str) else text
    kind = fault.content_type or ("text/html" if body else "application/json")
    return Answer(status, (("Content-Length", str(len(body))), ("Content-Type", kind)), body)
