"""The envelopes of Nova's answers: their headers, in order."""

import json

from handler.simulator.compute.microversions import Microversion
from handler.simulator.messages import Answer, Headers, Request, phrase

_FAULT_NAMES = {
    400: "badRequest",
    401: "unauthorized",
    403: "forbidden",
    404: "itemNotFound",
    405: "badMethod",
    409: "conflictingRequest",
    413: "overLimit",
    415: "badMediaType",
    429: "overLimit",
    501: "notImplemented",
    503: "serviceUnavailable",
}


class NovaError(Exception):
    """Nova refuses a request.

    Args:
        status: the HTTP status.
        message: of the error body.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def request_ids(request_id: str) -> Headers:
    """Return the two headers under which Nova gives its request id."""
    return ("x-openstack-request-id", request_id), ("x-compute-request-id", request_id)


def reply(
    version: Microversion | None, request_id: str, document: object, status: int = 200, acted: bool = False
) -> Answer:
    """Return a successful answer.

    Args:
        version: the microversion of the answer; None where it names none.
        request_id: of the request.
        status: the HTTP status.
        document: the JSON body, before it is encoded; None for no body.
        acted: whether the state of the cloud changed.
    """
    body = b"" if document is None else json.dumps(document).encode()
    headers = (("Content-Length", str(len(body))), ("Content-Type", "application/json"))
    named = version.headers if version else ()
    return Answer(status, headers + named + request_ids(request_id), body, acted)


def fault(version: Microversion | None, request_id: str, status: int, message: str, extra: Headers = ()) -> Answer:
    """Return an error of Nova's own code."""
    details: dict[str, object] = {"code": status, "message": message}
    retry_after = dict(extra).get("Retry-After")
    if status in (413, 429) and retry_after:
        details["retryAfter"] = retry_after
    body = json.dumps({_FAULT_NAMES.get(status, "computeFault"): details}).encode()
    headers = (("Content-Type", "application/json; charset=UTF-8"), ("Content-Length", str(len(body))))
    named = version.headers if version else ()
    return Answer(status, named + headers + request_ids(request_id), body)


def unauthenticated(request: Request, request_id: str) -> Answer:
    """Return the 401 of the middleware that checks tokens, which does not use microversions."""
    error = {
        "code": 401,
        "title": "Unauthorized",
        "message": "The request you have made requires authentication.",
    }
    body = json.dumps({"error": error}).encode()
    headers = (
        ("Content-Type", "application/json"),
        ("Content-Length", str(len(body))),
        ("WWW-Authenticate", f'Keystone uri="{request.base_url}"'),
    )
    return Answer(401, headers + request_ids(request_id), body)


def plain(request_id: str, status: int, text: str) -> Answer:
    """Return an error of the router in front of Nova's code, in plain text."""
    body = f"{status} {phrase(status)}\n\n{text}\n\n   ".encode()
    headers = (("Content-Length", str(len(body))), ("Content-Type", "text/plain; charset=UTF-8"))
    return Answer(status, headers + request_ids(request_id), body)
