"""What the cloud answers, or fails to answer, as our exceptions: the one place that knows the shapes of its faults.

Shapes seen on OTC and upstream: `{"conflictingRequest": {"code": 409, "message": ...}}` (Nova), `{"error": {...}}`
(Keystone, BMS v1), `{"error_code": ..., "error_msg": ..., "request_id": ...}` (API gateway), HTML or nothing at all
(load balancers).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

import requests
import urllib3
from keystoneauth1 import exceptions as ksa

from handler.errors import (
    CallDenied,
    CallRejected,
    CloudConfused,
    CloudError,
    CloudFault,
    CloudThrottled,
    CloudUnreachable,
    LoginRefused,
    ServerNotFound,
    StateConflict,
)

_REQUEST_ID_HEADERS = ("x-compute-request-id", "x-openstack-request-id", "x-request-id")
_SAFE_ID = re.compile(r"[A-Za-z0-9._-]{1,128}", re.ASCII)
_RETRY = urllib3.Retry()
_LONGEST_TOLD_WAIT = 3600.0


def request_id(headers: Mapping[str, str]) -> str | None:
    """The cloud's id for a request, for its support: `req-<uuid>`, or None."""
    for name in _REQUEST_ID_HEADERS:
        value = headers.get(name, "")
        if _SAFE_ID.fullmatch(value):
            return value
    return None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait as `Retry-After` says them, in seconds or as an HTTP date; None if it says nothing readable."""
    value = headers.get("Retry-After")
    if value is None:
        return None
    try:
        return min(_RETRY.parse_retry_after(value), _LONGEST_TOLD_WAIT)
    except (urllib3.exceptions.InvalidHeader, OverflowError, ValueError):
        return None


def from_answer(what: str, status: int, headers: Mapping[str, str], body: bytes) -> CloudError:
    """Turn an answer that is not a success into the exception that fits it.

    Args:
        what: the call in a few words, for the message ("reading the server").
        status: HTTP status, anything but 2xx and 401 (which the login deals with).
    """
    key, code, message = _fault_of(body)
    said = f"{what}: HTTP {status}"
    if code:
        said += f" {code}"
    if message:
        said += f" ({message})"
    kind: type[CloudError]
    maybe_acted = False
    match status:
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
            # Not a word about a server: a wrong host, path or version, or a redirect that must not be followed.
            kind = CloudConfused
        case _:
            kind = CallRejected
    return kind(
        said,
        request_id=request_id(headers),
        status=status,
        retry_after=retry_after(headers),
        maybe_acted=maybe_acted,
    )


def from_failure(what: str, failure: Exception) -> CloudError:
    """Turn a failed exchange into the exception that fits it.

    keystoneauth calls each time-out a connect time-out; what really happened stands in the exception behind it.
    """
    behind = failure.__context__ if isinstance(failure, ksa.ConnectionError) else failure
    never_sent = isinstance(behind, requests.exceptions.ConnectTimeout | requests.exceptions.SSLError) or (
        isinstance(behind, requests.exceptions.ConnectionError)
        and isinstance(_reason(behind), urllib3.exceptions.NewConnectionError)
    )
    kind = type(_reason(behind) if isinstance(behind, Exception) else failure).__name__
    return CloudUnreachable(f"{what}: no answer ({kind})", maybe_acted=not never_sent)


def from_login(failure: Exception) -> CloudError:
    """Turn a login that brought no token into the exception that fits it."""
    what = "logging in"
    if isinstance(failure, ksa.HttpError):
        response = failure.response
        status = failure.http_status
        headers: Mapping[str, str] = response.headers if response is not None else {}
        if status in (400, 401, 403):
            return LoginRefused(f"{what}: HTTP {status}", status=status, request_id=request_id(headers))
        fault = from_answer(what, status, headers, response.content if response is not None else b"")
        return fault if fault.waiting_helps else CloudConfused(str(fault), status=status)
    if isinstance(failure, ksa.ConnectionError):
        return from_failure(what, failure)
    return CloudConfused(f"{what}: no usable answer ({type(failure).__name__})")


def _reason(failure: Exception) -> BaseException:
    """The urllib3 reason inside a requests exception, or the exception itself."""
    inner = failure.args[0] if failure.args else None
    reason = getattr(inner, "reason", None)
    return reason if isinstance(reason, BaseException) else failure


def _fault_of(body: bytes) -> tuple[str, str, str]:
    """Key, code and message of a fault body; empty text for what it does not have."""
    try:
        fault = json.loads(body)
    except (ValueError, RecursionError):
        return "", "", ""
    if not isinstance(fault, dict):
        return "", "", ""
    key, inner = "", fault
    if "error_code" not in fault:
        key, inner = next(((k, v) for k, v in fault.items() if isinstance(v, dict)), ("", {}))
    code = inner.get("error_code", inner.get("code", ""))
    message = inner.get("error_msg", inner.get("message", ""))
    return key, _short(code), _short(message)


def _short(value: object) -> str:
    text = str(value) if isinstance(value, str | int) else ""
    return " ".join(text.split())[:200]
