"""The gateway in front of Open Telekom Cloud's APIs: the errors that it answers itself.

Codes and statuses are those of the error table of OTC's API Gateway; the texts are our own.
"""

import json

from handler.simulator.identity.model import Identity
from handler.simulator.messages import Answer, Headers, Request, phrase

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


def code_for(status: int) -> str | None:
    """Return the gateway's own code for a status; None for a status of the APIs behind it."""
    return _CODES.get(status)


def body_of(code: str, message: str | None, request_id: str) -> str:
    """Return the body of an error; the message is the usual one of the code unless given."""
    words = message or _MESSAGES.get(code, f"Error {code}")
    return json.dumps({"error_code": code, "error_msg": words, "request_id": request_id})


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
