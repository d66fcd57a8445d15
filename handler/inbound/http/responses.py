"""HTTP responses: the one place where exceptions become statuses. None repeats what the caller sent."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from handler import errors
from handler.errors import AutostopError, CloudError, InternalError, RetryableError

_LOG = logging.getLogger(__name__)

_DEFAULT_RETRY_AFTER = 10.0
_REFUSED_RETRY_AFTER = 60.0


class Answer(NamedTuple):
    """An HTTP response, independent of any framework."""

    status: int
    headers: Mapping[str, str] = MappingProxyType({})
    body: bytes = b""


def problem(error: AutostopError) -> Answer:
    """Return the response for an exception, a problem document (RFC 9457).

    Returns:
        `application/problem+json` with type, title, status, detail; for a malformed event `violations`: objects of
        `at` and `message`; for a retryable error `cause`, if a call failed: `call`, `host`, `status`, `failure`.
    """
    headers: dict[str, str] = {}
    members: dict[str, object] = {"detail": str(error)}
    match error:
        case errors.BadEvent():
            status, title = 400, "The event can never succeed"
            count = len(error.violations)
            members = {
                "detail": f"The event has {count} violation{'s' if count != 1 else ''}.",
                "violations": [{"at": violation.at, "message": violation.message} for violation in error.violations],
            }
        case errors.Unauthenticated():
            status, title = 401, "The caller is not authenticated"
            headers["WWW-Authenticate"] = 'Bearer realm="bms-autostop"'
        case errors.CallerForbidden():
            status, title = 403, "The caller may not do this"
        case errors.WrongMethod():
            status, title = 405, "Events are POSTed"
            headers["Allow"] = error.allow
        case errors.TooLarge():
            status, title = 413, "The body is too large"
        case errors.RequestLineTooLong():
            status, title = 414, "The request line is too long"
        case errors.NotAnEvent():
            status, title = 415, "Not an event"
        case errors.HeadersTooLarge():
            status, title = 431, "The headers are too large"
        case RetryableError():
            status, title = 503, "Not handled; send it again"
            members = {"detail": detail_of(error), **({"cause": error.cause._asdict()} if error.cause else {})}
            default = _REFUSED_RETRY_AFTER if isinstance(error, errors.LoginRefused) else _DEFAULT_RETRY_AFTER
            wait = default if error.retry_after is None else error.retry_after
            headers["Retry-After"] = str(max(1, math.ceil(wait)))
        case _:
            return problem(InternalError("Something unexpected happened; the log has the details."))
    document = {"type": f"urn:bms-autostop:problem:{error.name}", "title": title, "status": status, **members}
    return json_answer(status, document, {**headers, "Content-Type": "application/problem+json"})


def detail_of(error: RetryableError) -> str:
    """Return what may be shown of an error outside of the log."""
    if isinstance(error, CloudError) and not isinstance(
        error, errors.LoginMissing | errors.InsecureEndpoint | errors.EndpointUnusable
    ):
        # Its message quotes the cloud: for the log only.
        return f"The cloud did not do what was asked ({error.name}): {error.cause}."
    return str(error)


def always(make: Callable[[], Answer]) -> Answer:
    """Return the response that `make` makes; what it raises becomes a response and a log line."""
    try:
        return make()
    except AutostopError as error:
        return refused(error)
    except Exception:
        _LOG.exception("a bug kept the request from being handled")
        return problem(InternalError("Something unexpected happened; the log has the details."))


def refused(error: AutostopError) -> Answer:
    """Log an exception, and return the response for it."""
    answer = problem(error)
    _LOG.warning("request not handled", extra={"status": answer.status, **error.log_fields()})
    return answer


def served(method: str, path: str, ready: Callable[[], None], make: Callable[[], Answer]) -> Answer:
    """Answer a probe for liveness or readiness, or return the response that `make` makes; as `always`.

    `ready` raises if events could not be handled now.
    """

    def answer() -> Answer:
        if method not in ("GET", "HEAD") or path not in ("/healthz", "/readyz"):
            return make()
        _LOG.debug("probe received", extra={"path": path})
        if path == "/healthz":
            return json_answer(200, {"status": "alive"})
        ready()
        return json_answer(200, {"status": "ready"})

    return always(answer)


def json_answer(status: int, document: object, headers: Mapping[str, str] | None = None) -> Answer:
    """Return a response with a JSON body."""
    return Answer(status, {"Content-Type": "application/json", **(headers or {})}, json.dumps(document).encode())
