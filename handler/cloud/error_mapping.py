"""Mapping of error documents and failed calls to exceptions.

Forms seen on OTC and upstream: `{"conflictingRequest": {"code": 409, "message": ...}}` (Nova), `{"error": {...}}`
(Keystone, BMS v1), `{"error_code": ..., "error_msg": ..., "request_id": ...}` (API gateway),
`{"code": ..., "message": ...}` (SMN, jobs of BMS v1), HTML or nothing at all (load balancers).
"""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import urllib3

from handler.errors import (
    CallDenied,
    CallRejected,
    CloudError,
    CloudFault,
    CloudThrottled,
    CloudUnexpectedAnswer,
    CloudUnreachable,
    EndpointUnusable,
    LoginRefused,
    ServerNotFound,
    StateConflict,
)
from handler.http_client import FAILURES, UnexpectedResponse, call_failure, retry_after

_REQUEST_ID_HEADERS = ("x-compute-request-id", "x-openstack-request-id", "x-request-id")
_SAFE_ID = re.compile(r"[A-Za-z0-9._-]{1,128}", re.ASCII)
# The meaning of OTC's codes with any status (mostly 400). The gateway's `APIG.` and `APIGW.` share numbers.
_CODES: Mapping[str, type[CloudError]] = {
    **dict.fromkeys(("BMS.0035", "BMS.0036", "BMS.0037", "BMS.0039"), StateConflict),
    **dict.fromkeys(("Ecs.0100", "Ecs.0603", "Ecs.0605"), StateConflict),
    **dict.fromkeys(("BMS.0040", "BMS.1006", "Ecs.0114", "Ecs.0614"), ServerNotFound),
    **dict.fromkeys(("BMS.0004", "BMS.0005", "BMS.0033", "BMS.0213", "BMS.0288"), CallDenied),
    **dict.fromkeys(("Common.0018", "Pdp.0001"), CallDenied),
    **dict.fromkeys(("APIG.0302", "APIG.0306", "APIG.0310", "APIG.0402", "APIG.0802"), CallDenied),
    **dict.fromkeys(("BMS.0212", "Common.1503", "APIG.0308", "IAM.0012"), CloudThrottled),
    **dict.fromkeys(("BMS.0006", "BMS.1007", "Common.0001"), CloudFault),
    **dict.fromkeys(("APIG.0202", "APIG.0203", "APIG.0601", "APIG.0613"), CloudUnreachable),
    **dict.fromkeys(("BMS.0002", "APIG.0101"), CloudUnexpectedAnswer),
    **dict.fromkeys(("BMS.0001", "BMS.0018", "BMS.0022"), CallRejected),
}
_NEW_LOGIN = frozenset({"BMS.0032", "BMS.3011", "Common.0013", "APIG.0301", "APIG.0307"})


def request_id(headers: Mapping[str, str]) -> str | None:
    """Return the cloud's id for a request, for its support: `req-<uuid>`, or None."""
    for name in _REQUEST_ID_HEADERS:
        value = headers.get(name, "")
        if is_safe(value):
            return value
    return None


def from_answer(
    what: str, status: int, headers: Mapping[str, str], body: bytes, secrets: Collection[str] = ()
) -> CloudError:
    """Return the exception for an answer that is not a success.

    Args:
        what: the call in a few words, for the message ("reading the server").
        status: HTTP status, anything but 2xx and 401 (which the login handles).
        headers: of the answer.
        body: of the answer.
        secrets: of the request, which the message must not quote: a gateway may repeat what it was sent.
    """
    key, code, message, gateway_id = _error_of(body, secrets)
    text = f"{what}: HTTP {status}"
    if code and code.partition(" ")[0] != str(status):
        text += f" {code}"
    if message:
        text += f" ({message})"
    kind: type[CloudError]
    maybe_acted = False
    match status:
        case _ if code in _CODES:
            kind = _CODES[code]
            maybe_acted = kind is CloudUnreachable and status != 503
        case 403:
            kind = CallDenied
        case 404 if key == "itemNotFound":
            kind = ServerNotFound
        case 409:
            kind = StateConflict
        case 429:
            kind = CloudThrottled
        case 413 if key == "overLimit" or "Retry-After" in headers:
            kind = CloudThrottled
        case 500 | 501:
            kind = CloudFault
        case 408 | 503:
            kind = CloudUnreachable
        case _ if status >= 500:
            kind, maybe_acted = CloudUnreachable, True
        case _ if status < 400 or status in (404, 405, 406, 407, 410):
            # Not about a server: a wrong host, path or version, or a redirect that must not be followed.
            kind = CloudUnexpectedAnswer
        case _:
            kind = CallRejected
    id_ = request_id(headers) or gateway_id
    return kind(
        text,
        request_id=None if id_ in secrets else id_,
        status=status,
        retry_after=retry_after(headers),
        maybe_acted=maybe_acted,
    )


def from_success(
    what: str, status: int, headers: Mapping[str, str], body: bytes, secrets: Collection[str] = ()
) -> CloudError | None:
    """Return the exception for an error document with a 2xx status.

    Returns:
        None if the body is empty, or JSON that is not an error document. If the code is not known, or the body is not
        JSON, the cloud may have acted.
    """
    _, code, message, _ = _error_of(body, secrets)
    if not code and not message:
        return None if _is_json(body) else CloudUnexpectedAnswer(f"{what}: the answer is not JSON", maybe_acted=True)
    number = int(code) if code.isascii() and code.isdigit() and len(code) == 3 else 0
    error = from_answer(what, number if 400 <= number < 600 and number != 401 else status, headers, body, secrets)
    error.maybe_acted = error.maybe_acted or isinstance(error, CloudUnexpectedAnswer | CloudFault)
    error.contradicts_status = True
    return error


def denied(what: str, headers: Mapping[str, str]) -> CallDenied:
    """Return the exception for a 401 of this call alone.

    Keystone's middleware answers so if the access rules of an application credential do not include the call.
    """
    text = f"{what}: HTTP 401, though the token works for other calls; do access rules forbid this one?"
    return CallDenied(text, status=401, request_id=request_id(headers))


def date(headers: Mapping[str, str]) -> datetime | None:
    """Return the cloud's time of an answer (HTTP `Date`, aware), or None."""
    try:
        stamp = parsedate_to_datetime(headers["Date"])
        # Python parses the zone `-0000` as an unknown one.
        return stamp.replace(tzinfo=UTC) if stamp.tzinfo is None else stamp.astimezone(UTC)
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def carried(headers: Mapping[str, str]) -> list[str]:
    """Return the secrets in the headers of a request to the cloud, for `from_answer`."""
    found = [headers[name] for name in ("X-Auth-Token", "X-Security-Token") if name in headers]
    return [*found, *headers.get("Authorization", "").partition("Signature=")[2:]]


def wants_new_login(status: int, body: bytes) -> bool:
    """Whether an answer rejects the token or the signature."""
    return status == 401 or (400 <= status < 500 and _error_of(body)[1] in _NEW_LOGIN)


def from_job(code: object, report: str = "") -> CloudError:
    """Return the exception for a job that could not stop a server, as for an answer to the stop.

    Args:
        code: of the job's error.
        report: from `job_report`.
    """
    text = "stopping the server: the job failed"
    return _CODES.get(_code(code), CloudFault)(f"{text} ({report})" if report else text)


def job_report(code: object, reason: object, secrets: Collection[str] = ()) -> str:
    """Return a job's error code and reason on one line, without control characters; empty without both."""
    return ": ".join(filter(None, (_short(_without(secrets, part)) for part in (code, reason))))


def from_failure(what: str, failure: BaseException) -> CloudError:
    """Return the exception for a failed exchange."""
    if isinstance(failure, UnexpectedResponse):
        return CloudUnexpectedAnswer(f"{what}: {failure}", maybe_acted=True, failure=call_failure(failure))
    if _speaks_no_tls(failure):
        return EndpointUnusable(f"{what}: the address begins with https, but what answers there does not speak TLS")
    name = call_failure(failure)
    return CloudUnreachable(f"{what}: no answer ({name})", maybe_acted=not _never_sent(failure), failure=name)


def from_login(failure: BaseException) -> CloudError:
    """Return the exception for a failed login; it never acted on a server."""
    if not isinstance(failure, FAILURES):
        return CloudUnexpectedAnswer(f"logging in: no usable answer ({type(failure).__name__})")
    error = from_failure("logging in", failure)
    error.maybe_acted = False
    return error


def from_login_answer(
    status: int, headers: Mapping[str, str], body: bytes, secrets: Collection[str] = ()
) -> CloudError:
    """Return the exception for an answer to a login that is not a success, as `from_answer`."""
    text = f"logging in: HTTP {status}"
    if status in (400, 401, 403) or wants_new_login(status, body):
        return LoginRefused(text, status=status, request_id=request_id(headers))
    error = from_answer("logging in", status, headers, body, secrets)
    error.maybe_acted = False
    if error.waiting_helps and not isinstance(error, StateConflict):
        return error
    return CloudUnexpectedAnswer(str(error), status=status, request_id=error.request_id)


def _speaks_no_tls(failure: BaseException) -> bool:
    return any(
        isinstance(cause, ssl.SSLError) and getattr(cause, "reason", None) == "WRONG_VERSION_NUMBER"
        for cause in _causes(failure)
    )


def _causes(failure: BaseException) -> Iterator[BaseException]:
    """Yield an exception and those that it was made from, as its cause or as its argument."""
    seen: list[BaseException] = []
    todo = [failure]
    while todo:
        found = todo.pop()
        if found in seen:
            continue
        seen.append(found)
        yield found
        more = (found.__cause__, found.__context__, getattr(found, "reason", None), *found.args)
        todo.extend(cause for cause in more if isinstance(cause, BaseException))


def _never_sent(failure: BaseException) -> bool:
    """Whether it failed before the request was sent: no address, no connection, a certificate not trusted.

    Any other TLS error can also happen while the answer is read.
    """
    match failure:
        case urllib3.exceptions.NewConnectionError() | urllib3.exceptions.ConnectTimeoutError():
            return True
        case urllib3.exceptions.SSLError():
            return bool(failure.args) and isinstance(failure.args[0], ssl.SSLCertVerificationError)
        case _:
            return False


def _error_of(body: bytes, secrets: Collection[str] = ()) -> tuple[str, str, str, str | None]:
    """Return key, code and message of an error body, empty if it has none; and the gateway's request id."""
    try:
        error = json.loads(body)
    except (ValueError, RecursionError):
        error = None
    if not isinstance(error, dict):
        return "", "", "", None
    key, inner = "", error
    if not {"error_code", "code"} & error.keys():
        key, inner = next(((k, v) for k, v in error.items() if isinstance(v, dict)), ("", {}))
    code = inner.get("error_code", inner.get("code", ""))
    message = inner.get("error_msg", inner.get("message", ""))
    # The API gateway has its id here, and not in a header.
    id_ = error.get("request_id")
    code, message = _without(secrets, code), _without(secrets, message)
    return key, _code(code), _short(message), id_ if isinstance(id_, str) and is_safe(id_) else None


def _is_json(body: bytes) -> bool:
    try:
        return not body.strip() or json.loads(body) is not ...
    except (ValueError, RecursionError):
        return False


def _code(value: object) -> str:
    return _short(value).replace("APIGW.", "APIG.")


def is_safe(id_: str) -> bool:
    """Whether an id of the cloud can be in a URL or a header as it is."""
    return _SAFE_ID.fullmatch(id_) is not None


def _short(value: object) -> str:
    text = str(value) if isinstance(value, str | int) else ""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())[:200]


def _without(secrets: Collection[str], value: object) -> object:
    if isinstance(value, str):
        for secret in filter(None, secrets):
            value = value.replace(secret, "***")
    return value
