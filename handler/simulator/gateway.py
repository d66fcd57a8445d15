"""The gateway in front of Open Telekom Cloud's APIs: the errors that it answers itself, and what is behind it.

Codes and statuses are those of the error table of OTC's API Gateway; the texts are our own.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from handler.simulator.identity.model import Identity, Token
from handler.simulator.messages import Answer, Headers, Request, phrase
from handler.simulator.routes import Routes

if TYPE_CHECKING:
    from handler.simulator.faults import Fault

NOT_PUBLISHED = "APIG.0101"
NOT_AUTHENTICATED = "APIG.0301"
NOT_AUTHORIZED = "APIG.0302"
TOKEN_TO_RENEW = "APIG.0307"
THROTTLED = "APIG.0308"

_MESSAGES = {
    NOT_PUBLISHED: "No such API, or not published here",
    "APIG.0202": "The service behind the gateway is not available",
    "APIG.0203": "The service behind the gateway did not answer in time",
    NOT_AUTHENTICATED: "Wrong IAM authentication",
    NOT_AUTHORIZED: "This user may not use the API",
    TOKEN_TO_RENEW: "The token must be renewed",
    THROTTLED: "Too many requests",
    "APIG.0613": "The identity service is not available",
}
_CODES = {401: NOT_AUTHENTICATED, 429: THROTTLED, 502: "APIG.0202", 503: "APIG.0613", 504: "APIG.0203"}


def body_of(code: str, message: str | None, request_id: str) -> str:
    """Return the body of an error; the message is the usual one of the code unless given."""
    text = message or _MESSAGES.get(code, f"Error {code}")
    return json.dumps({"error_code": code, "error_msg": text, "request_id": request_id})


def refuse(request_id: str, status: int, code: str, message: str | None = None) -> Answer:
    """Return an error of the gateway's form."""
    return answer(request_id, status, body_of(code, message, request_id).encode())


def refuse_token(identity: Identity, request: Request, request_id: str) -> Answer:
    """Return the 401 for a token that is missing, unknown or expired, or for a revoked one, which has another code."""
    early = identity.was_revoked(request.header("X-Auth-Token"))
    return refuse(request_id, 401, TOKEN_TO_RENEW if early else NOT_AUTHENTICATED)


def answer(request_id: str, status: int, body: bytes, *, acted_on: tuple[str, ...] = (), extra: Headers = ()) -> Answer:
    """Return an answer with a JSON body and the headers of the gateway."""
    headers = (("Content-Type", "application/json"), ("Content-Length", str(len(body))), ("X-Request-Id", request_id))
    return Answer(status, headers + extra, body, bool(acted_on), phrase(status), acted_on)


class ServiceError(Exception):
    """An API behind the gateway refuses a request.

    Args:
        status: the HTTP status.
        code: of the error body.
        flat: code and message are at the top of the body, where the API has them elsewhere.
    """

    def __init__(self, status: int, code: str, *, flat: bool = False) -> None:
        super().__init__(code)
        self.status = status
        self.code = code
        self.flat = flat


@dataclass(frozen=True, slots=True)
class Call:
    """A request with a token for the project in its path; `names` are the segments of the path."""

    request: Request
    request_id: str
    project_id: str
    names: Mapping[str, str]
    token: Token


class Service(ABC):
    """An API behind the gateway, which checks first whether there is such a path, then the token, then the rest.

    Args:
        identity: the users and their tokens.
        routes: the paths.
        other_project: the error for a token of another project than that of the path.
    """

    def __init__(
        self, identity: Identity, routes: Routes[Callable[[Call], Answer]], other_project: ServiceError
    ) -> None:
        self._identity = identity
        self._routes = routes
        self._other_project = other_project

    def answer(self, request: Request, request_id: str) -> Answer:
        """Carry out a request, and return the answer."""
        route = self._routes.find(request.method, request.path)
        if route is None:
            return refuse(request_id, 404, NOT_PUBLISHED)
        token = self._identity.check(request.header("X-Auth-Token"))
        if token is None:
            return refuse_token(self._identity, request, request_id)
        project_id = route.names["project_id"]
        try:
            if token.project is None or token.project.id != project_id:
                raise self._other_project
            return route.handler(Call(request, request_id, project_id, route.names, token))
        except ServiceError as error:
            return self._error(request_id, error)

    def refuse(self, _request: Request, request_id: str, status: int, message: str | None, fault: Fault) -> Answer:
        """Return the error of an injected fault in the form of the gateway or of this API, whichever answers it."""
        if fault.bms_code is not None:
            return self._error(request_id, ServiceError(400, fault.bms_code))
        if code := _CODES.get(status):
            return refuse(request_id, status, code, message)
        return self._error(request_id, ServiceError(status, self._code_for(status)), message or f"{phrase(status)}.")

    @abstractmethod
    def _code_for(self, status: int) -> str:
        """Return the code of this API that goes with a status."""

    @abstractmethod
    def _error(self, request_id: str, error: ServiceError, message: str | None = None) -> Answer:
        """Return an error in the form of this API; the message is the usual one of its code unless given."""
