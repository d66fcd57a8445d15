"""Nova's microversions, and the envelopes of its answers: their headers, in order.

Source: `nova/api/openstack/wsgi.py` (Request.set_api_version_request) and the `microversion_parse` library.
"""

import json
import re
from typing import NamedTuple, Self

from handler.simulator.compute.store import Refusal
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


class NovaError(Refusal):
    """Nova's API refuses a request, with an HTTP status and a message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Microversion(NamedTuple):
    """A version of Nova's API; compared as a pair of numbers."""

    major: int
    minor: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a version.

        Raises:
            NovaError: 400, it is not of the form MAJOR.MINOR.
        """
        if not re.fullmatch(r"[1-9]\d*\.([1-9]\d*|0)", text):
            message = f"API Version String {text} is of invalid format. Must be of format MajorNum.MinorNum."
            raise NovaError(400, message)
        major, minor = text.split(".")
        return cls(int(major), int(minor))

    @classmethod
    def requested(cls, request: Request, maximum: Self) -> Self:
        """Return the version that a request asks for, which may be higher than what is supported.

        Without a header that is 2.1, and `latest` is the maximum. The newer header goes before the older one.

        Raises:
            NovaError: 400, the header is not a version.
        """
        text = (request.header("X-OpenStack-Nova-API-Version") or "2.1").split(",")[-1].strip()
        for item in (request.header("OpenStack-API-Version") or "").split(","):
            service, _, version = item.strip().partition(" ")
            if service.lower() == "compute" and version.strip():
                text = version.strip()
        return maximum if text == "latest" else cls.parse(text)

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


MINIMUM = Microversion(2, 1)


def reply(
    version: Microversion | None, request_id: str, document: object, status: int = 200, acted: bool = False
) -> Answer:
    """Return a successful answer with a JSON body, or without one if None; without a version it names none."""
    body = b"" if document is None else json.dumps(document).encode()
    headers = (("Content-Length", str(len(body))), ("Content-Type", "application/json"))
    return Answer(status, headers + _named(version) + _request_ids(request_id), body, acted)


def error(version: Microversion | None, request_id: str, status: int, message: str, extra: Headers = ()) -> Answer:
    """Return an error of Nova's own code."""
    details: dict[str, object] = {"code": status, "message": message}
    retry_after = dict(extra).get("Retry-After")
    if status in (413, 429) and retry_after:
        details["retryAfter"] = retry_after
    body = json.dumps({_FAULT_NAMES.get(status, "computeFault"): details}).encode()
    headers = (("Content-Type", "application/json; charset=UTF-8"), ("Content-Length", str(len(body))))
    return Answer(status, _named(version) + headers + _request_ids(request_id), body)


def unauthenticated(request: Request, request_id: str) -> Answer:
    """Return the 401 of the middleware that checks tokens, which does not use microversions."""
    message = "The request you have made requires authentication."
    body = json.dumps({"error": {"code": 401, "title": "Unauthorized", "message": message}}).encode()
    headers = (
        ("Content-Type", "application/json"),
        ("Content-Length", str(len(body))),
        ("WWW-Authenticate", f'Keystone uri="{request.base_url}"'),
    )
    return Answer(401, headers + _request_ids(request_id), body)


def plain(request_id: str, status: int, text: str) -> Answer:
    """Return an error of the router in front of Nova's code, in plain text."""
    body = f"{status} {phrase(status)}\n\n{text}\n\n   ".encode()
    headers = (("Content-Length", str(len(body))), ("Content-Type", "text/plain; charset=UTF-8"))
    return Answer(status, headers + _request_ids(request_id), body)


def _named(version: Microversion | None) -> Headers:
    if version is None:
        return ()
    return (
        ("OpenStack-API-Version", f"compute {version}"),
        ("X-OpenStack-Nova-API-Version", str(version)),
        ("Vary", "OpenStack-API-Version"),
        ("Vary", "X-OpenStack-Nova-API-Version"),
    )


def _request_ids(request_id: str) -> Headers:
    return ("x-openstack-request-id", request_id), ("x-compute-request-id", request_id)
