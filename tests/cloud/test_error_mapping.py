"""Mapping of answers and failed calls to exceptions."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
import urllib3

from handler.cloud import error_mapping
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
from handler.http_client import retry_after

ITEM_NOT_FOUND = {"itemNotFound": {"code": 404, "message": "Instance x could not be found."}}
OVER_LIMIT = {"overLimit": {"code": 413, "message": "Slow down.", "retryAfter": "5"}}


@pytest.mark.parametrize(
    ("status", "body", "kind", "maybe_acted"),
    [
        (300, None, CloudUnexpectedAnswer, False),
        (302, None, CloudUnexpectedAnswer, False),
        (304, None, CloudUnexpectedAnswer, False),
        (400, {"badRequest": {"code": 400, "message": "no"}}, CallRejected, False),
        (400, {"error": {"code": "BMS.0018", "message": "no"}}, CallRejected, False),
        (402, None, CallRejected, False),
        (403, {"forbidden": {"code": 403, "message": "Policy"}}, CallDenied, False),
        (403, None, CallDenied, False),
        (404, ITEM_NOT_FOUND, ServerNotFound, False),
        (404, {"error_code": "APIG.0101", "error_msg": "The API does not exist."}, CloudUnexpectedAnswer, False),
        (404, {"error": {"code": 404, "message": "no such path"}}, CloudUnexpectedAnswer, False),
        (404, None, CloudUnexpectedAnswer, False),
        (405, None, CloudUnexpectedAnswer, False),
        (406, None, CloudUnexpectedAnswer, False),
        (407, None, CloudUnexpectedAnswer, False),
        (408, None, CloudUnreachable, False),
        (409, {"conflictingRequest": {"code": 409, "message": "locked"}}, StateConflict, False),
        (410, None, CloudUnexpectedAnswer, False),
        (413, OVER_LIMIT, CloudThrottled, False),
        (413, None, CallRejected, False),
        (415, None, CallRejected, False),
        (429, OVER_LIMIT, CloudThrottled, False),
        (429, None, CloudThrottled, False),
        (500, {"computeFault": {"code": 500, "message": "Unexpected"}}, CloudFault, False),
        (501, None, CloudFault, False),
        (502, None, CloudUnreachable, True),
        (503, {"serviceUnavailable": {"code": 503, "message": "later"}}, CloudUnreachable, False),
        (504, None, CloudUnreachable, True),
        (599, None, CloudUnreachable, True),
        # Of the codes of BMS v1, most come with status 400.
        (400, {"error": {"code": "BMS.0040"}}, ServerNotFound, False),
        (400, {"error": {"code": "BMS.1006"}}, ServerNotFound, False),
        (403, {"error": {"code": "BMS.0288"}}, CallDenied, False),
        (400, {"error": {"code": "BMS.0212"}}, CloudThrottled, False),
        (400, {"error": {"code": "BMS.1007"}}, CloudFault, False),
        (404, {"error": {"code": "BMS.0002"}}, CloudUnexpectedAnswer, False),
        (400, {"error": {"code": "BMS.9999"}}, CallRejected, False),
        (500, {"error": {"code": "BMS.9999"}}, CloudFault, False),
    ],
)
def test_an_answer_is_mapped_by_its_status_and_body(
    status: int, body: object, kind: type[CloudError], maybe_acted: bool
) -> None:
    """A 404 without `itemNotFound` is not about a server; a gateway with 502 or 504 may have forwarded the call."""
    error = error_mapping.from_answer("stopping it", status, {}, json.dumps(body).encode() if body else b"")
    assert type(error) is kind
    assert (error.status, error.maybe_acted, error.retry_after) == (status, maybe_acted, None)
    assert str(error).startswith(f"stopping it: HTTP {status}")


def test_a_413_with_retry_after_is_throttling() -> None:
    """Older clouds answer 413 in place of 429; without a time and without `overLimit` it is about the size."""
    assert type(error_mapping.from_answer("x", 413, {"Retry-After": "5"}, b"")) is CloudThrottled


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        ({"conflictingRequest": {"code": 409, "message": "It is locked"}}, "x: HTTP 409 (It is locked)"),
        # The token middleware in front of Nova, for instance while Keystone's database is down.
        ({"code": "409 Conflict", "title": "Conflict", "message": "Try again."}, "x: HTTP 409 (Try again.)"),
        ({"error": {"code": "BMS.0039", "message": "Wrong state"}}, "x: HTTP 409 BMS.0039 (Wrong state)"),
        (
            {"error": {"code": "Common.0018", "message": "No", "details": [{"code": "a", "message": "b"}]}},
            "x: HTTP 409 Common.0018 (No)",
        ),
        ({"error_code": "APIG.0308", "error_msg": "Full", "request_id": "1"}, "x: HTTP 409 APIG.0308 (Full)"),
        ({"error_msg": "Full", "error_code": "AS.0001"}, "x: HTTP 409 AS.0001 (Full)"),
        ({"error": {"code": 401, "title": "Unauthorized", "message": "No"}}, "x: HTTP 409 401 (No)"),
        ({"error": {"code": None, "message": ["a"]}}, "x: HTTP 409"),
        ({"error": {"message": "two\r\nlines"}}, "x: HTTP 409 (two lines)"),
        ({"error": {"message": "a" * 300}}, f"x: HTTP 409 ({'a' * 200})"),
        ({"unheard": "of"}, "x: HTTP 409"),
        (["a list"], "x: HTTP 409"),
        ("text", "x: HTTP 409"),
        *((raw, "x: HTTP 409") for raw in (b"", b"<html>", b"\xff\xfe", b"[" * 100_000)),
    ],
)
def test_code_and_message_of_an_error_body_are_quoted(body: object, shown: str) -> None:
    """On one line and of limited length; nothing else is quoted."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    assert str(error_mapping.from_answer("x", 409, {}, raw)) == shown


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"x-compute-request-id": "req-1", "x-openstack-request-id": "req-2"}, "req-1"),
        ({"x-openstack-request-id": "req-2", "x-request-id": "abc"}, "req-2"),
        ({"x-request-id": "0a1b.c_d-e"}, "0a1b.c_d-e"),
        ({"x-compute-request-id": "", "x-request-id": "b"}, "b"),
        ({"x-request-id": "with space"}, None),
        ({"x-request-id": "a" * 129}, None),
        ({"x-request-id": "ä"}, None),
        ({}, None),
    ],
)
def test_the_request_id_is_a_header(headers: Mapping[str, str], expected: str | None) -> None:
    """Nova's own first, then the gateway's; a value of another form is not an id."""
    assert error_mapping.request_id(headers) == expected
    assert error_mapping.from_answer("x", 500, headers, b"").request_id == expected


@pytest.mark.parametrize(("given", "expected"), [("e42ba6c2", "e42ba6c2"), ("with space", None), (7, None), ("", None)])
def test_the_request_id_of_the_gateway_is_in_its_body(given: object, expected: str | None) -> None:
    """It is used if no header has one."""
    body = json.dumps({"error_code": "APIG.0308", "error_msg": "Full", "request_id": given}).encode()
    assert error_mapping.from_answer("x", 429, {}, body).request_id == expected
    assert error_mapping.from_answer("x", 429, {"x-request-id": "header"}, body).request_id == "header"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0", 0.0),
        ("17", 17.0),
        (" 17 ", 17.0),
        ("3600", 3600.0),
        ("86400", 3600.0),
        ("9" * 30, 3600.0),
        ("9" * 5000, None),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
        ("Fri, 99 Foo 2026 99:99:99 GMT", None),
        ("Thu, 01 Jan 2015 00:00:00 GMT", 0.0),
    ],
)
def test_retry_after_is_in_seconds_or_a_date(value: str, expected: float | None) -> None:
    """Any other value is ignored, a time in the past is 0, and the wait is an hour at most."""
    assert retry_after({"Retry-After": value}) == expected
    assert error_mapping.from_answer("x", 429, {"Retry-After": value}, b"").retry_after == expected
    later = retry_after({"Retry-After": format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)})
    assert later is not None
    assert 70 < later <= 100


# --- failed calls


_CONNECTION = urllib3.connection.HTTPConnection("nova.example")
_POOL = urllib3.HTTPConnectionPool("nova.example")


@pytest.mark.parametrize(
    ("failure", "named", "maybe_acted"),
    [
        (urllib3.exceptions.ConnectTimeoutError("t"), "timeout", False),
        (urllib3.exceptions.NewConnectionError(_CONNECTION, "no"), "no-connection", False),
        (
            urllib3.exceptions.NameResolutionError("nova.example", _CONNECTION, socket.gaierror()),
            "no-such-host",
            False,
        ),
        (urllib3.exceptions.SSLError(ssl.SSLCertVerificationError("self-signed")), "certificate-not-trusted", False),
        (urllib3.exceptions.SSLError(ssl.SSLError("cut in a record")), "tls-error", True),
        (urllib3.exceptions.SSLError(), "tls-error", True),
        (urllib3.exceptions.ReadTimeoutError(_POOL, "/", "slow"), "timeout", True),
        (urllib3.exceptions.ProtocolError("cut"), "connection-lost", True),
        (urllib3.exceptions.ProxyError("gone", OSError()), "proxy-error", True),
        (ConnectionResetError(), "connection-lost", True),
    ],
)
def test_a_failed_call_is_mapped_with_whether_the_cloud_may_have_acted(
    failure: Exception, named: str, maybe_acted: bool
) -> None:
    """It did not if the request was certainly not sent."""
    error = error_mapping.from_failure("stopping it", failure)
    assert type(error) is CloudUnreachable
    assert str(error) == f"stopping it: no answer ({named})"
    assert error.maybe_acted is maybe_acted
    assert (error.call, error.failure, error.status) == ("stopping it", named, None)


# --- the login


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (302, b"", CloudUnexpectedAnswer),
        (400, b"", LoginRefused),
        (401, b"", LoginRefused),
        (403, b"", LoginRefused),
        (404, b"", CloudUnexpectedAnswer),
        (404, json.dumps(ITEM_NOT_FOUND).encode(), CloudUnexpectedAnswer),
        (405, b"", CloudUnexpectedAnswer),
        (409, b"", CloudUnexpectedAnswer),
        (418, b"", CloudUnexpectedAnswer),
        (429, b"", CloudThrottled),
        (500, b"", CloudFault),
        (502, b"", CloudUnreachable),
        (503, b"", CloudUnreachable),
    ],
)
def test_an_answer_to_a_login_is_mapped_by_its_status(status: int, body: bytes, kind: type[CloudError]) -> None:
    """A login never acted on a server."""
    error = error_mapping.from_login_answer(status, {}, body)
    assert type(error) is kind
    assert error.maybe_acted is False


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (urllib3.exceptions.ReadTimeoutError(_POOL, "/", "slow"), CloudUnreachable),
        (ConnectionResetError(), CloudUnreachable),
        (KeyError("X-Subject-Token"), CloudUnexpectedAnswer),
        (ValueError("no JSON"), CloudUnexpectedAnswer),
    ],
)
def test_a_login_without_a_usable_answer_is_mapped(failure: Exception, kind: type[CloudError]) -> None:
    """It did not act on a server."""
    error = error_mapping.from_login(failure)
    assert type(error) is kind
    assert error.maybe_acted is False


def test_a_failed_login_has_the_request_id_and_the_time_to_wait() -> None:
    """For the cloud's support, and for the caller."""
    headers = {"x-openstack-request-id": "req-1", "Retry-After": "7"}
    throttled, refused = (error_mapping.from_login_answer(status, headers, b"") for status in (429, 401))
    assert (throttled.request_id, throttled.retry_after) == ("req-1", 7.0)
    assert (refused.request_id, refused.status) == ("req-1", 401)
    assert error_mapping.from_login_answer(409, headers, b"").request_id == "req-1"


@pytest.mark.parametrize("status", [401, 403])
def test_an_error_repeats_no_secret(status: int) -> None:
    """Neither in its message nor as a request id."""
    body = json.dumps({"error": {"code": "x-tok-1", "message": "your token tok-1 is bad"}}).encode()
    error = error_mapping.from_answer("x", status, {"x-request-id": "tok-1"}, body, ["tok-1"])
    assert "tok-1" not in f"{error}{error.request_id}"


def _wrong_version() -> ssl.SSLError:
    failure = ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1000)")
    failure.reason = "WRONG_VERSION_NUMBER"
    return failure


def test_an_https_url_without_tls_is_not_usable() -> None:
    """Waiting does not help; the exception may be wrapped in any way."""
    bare = _wrong_version()
    wrapped = urllib3.exceptions.SSLError(bare)
    pool = urllib3.connection_from_url("https://nova.test")
    retried = urllib3.exceptions.MaxRetryError(pool, "/", wrapped)
    chained = OSError("x")
    chained.__cause__ = bare
    for failure in (bare, wrapped, retried, chained):
        for error in (error_mapping.from_failure("x", failure), error_mapping.from_login(failure)):
            assert type(error) is EndpointUnusable
            assert (error.waiting_helps, error.maybe_acted) == (False, False)
    assert type(error_mapping.from_failure("x", ssl.SSLError(1, "other"))) is CloudUnreachable
    circle = OSError("x")
    circle.__context__ = circle.__cause__ = OSError("y")
    circle.__cause__.__context__ = circle
    assert type(error_mapping.from_failure("x", circle)) is CloudUnreachable


def test_the_clouds_time_is_parsed_from_date() -> None:
    """As an aware datetime in UTC; None if it is not valid."""
    expected = datetime(2026, 11, 20, 19, tzinfo=UTC)
    for text in ("Fri, 20 Nov 2026 19:00:00 GMT", "Fri, 20 Nov 2026 20:00:00 +0100", "Fri, 20 Nov 2026 19:00:00 -0000"):
        assert error_mapping.date({"Date": text}) == expected
    for text in ("", "yesterday", "Fri, 31 Feb 2026 19:00:00 GMT", "Fri, 20 Nov 2026 19:00:00 +99999999999999"):
        assert error_mapping.date({"Date": text}) is None
    assert error_mapping.date({"Date": "Fri, 31 Dec 9999 23:59:59 -2300"}) is None
    assert error_mapping.date({}) is None
