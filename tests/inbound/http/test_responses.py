"""Every situation has its answer, and no answer is one that a broker misreads."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from handler import errors
from handler.errors import (
    AutostopError,
    BadEvent,
    CallFailure,
    CloudError,
    CloudThrottled,
    CloudUnreachable,
    LoginRefused,
    SinkUnreachable,
    Violation,
)
from handler.inbound.http import responses
from tests.test_events_folder import schema_violations


def _family(kind: type[AutostopError]) -> Iterator[type[AutostopError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _family(child)


EXPECTED = {
    errors.BadEvent: (400, "bad-event"),
    errors.Unauthenticated: (401, "unauthenticated"),
    errors.CallerForbidden: (403, "caller-forbidden"),
    errors.WrongMethod: (405, "wrong-method"),
    errors.TooLarge: (413, "too-large"),
    errors.RequestLineTooLong: (414, "request-line-too-long"),
    errors.NotAnEvent: (415, "not-an-event"),
    errors.HeadersTooLarge: (431, "headers-too-large"),
    errors.RetryableError: (503, "internal-error"),
    errors.BudgetSpent: (503, "budget-spent"),
    errors.NotAnnounced: (503, "not-announced"),
    errors.EventInProgress: (503, "event-in-progress"),
    errors.StopLimitReached: (503, "stop-limit-reached"),
    errors.ApprovalNotConfigured: (503, "approval-not-configured"),
    errors.BodyIncomplete: (503, "body-incomplete"),
    errors.ShuttingDown: (503, "shutting-down"),
    errors.ReadinessUnknown: (503, "readiness-unknown"),
    errors.SinkUnreachable: (503, "sink-unreachable"),
    errors.ProducerUnreachable: (503, "producer-unreachable"),
    errors.KeysUnreachable: (503, "keys-unreachable"),
    errors.ChatUnreachable: (503, "chat-unreachable"),
    errors.InternalError: (503, "internal-error"),
    errors.CloudError: (503, "cloud-error"),
    errors.CloudUnreachable: (503, "cloud-unreachable"),
    errors.CloudThrottled: (503, "cloud-throttled"),
    errors.CloudUnexpectedAnswer: (503, "cloud-unexpected-answer"),
    errors.EndpointUnusable: (503, "endpoint-unusable"),
    errors.LoginRefused: (503, "login-refused"),
    errors.LoginMissing: (503, "login-missing"),
    errors.InsecureEndpoint: (503, "insecure-endpoint"),
    errors.CallDenied: (503, "call-denied"),
    errors.ServerNotFound: (503, "server-not-found"),
    errors.StateConflict: (503, "state-conflict"),
    errors.CloudFault: (503, "cloud-fault"),
    errors.CallRejected: (503, "call-rejected"),
    errors.AutostopError: (503, "internal-error"),
}


def test_no_situation_is_left_out() -> None:
    """Each class of the tree has a line in the table of these tests."""
    assert set(_family(AutostopError)) == set(EXPECTED)


@pytest.mark.parametrize("kind", EXPECTED, ids=lambda kind: kind.__name__)
def test_each_situation_has_its_answer(kind: type[AutostopError]) -> None:
    """The status and the problem's name belong to the situation, and the document keeps to its schema.

    Retry-After comes with each 503 and no other, WWW-Authenticate with 401, Allow with 405.
    """
    error = BadEvent(Violation("id", "must be present")) if kind is BadEvent else kind("The situation.")
    answer = responses.problem(error)
    document = json.loads(answer.body)
    status, name = EXPECTED[kind]
    assert (answer.status, document["status"]) == (status, status)
    assert document["type"] == f"urn:bms-autostop:problem:{name}"
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert schema_violations("problem.json", document) == []
    assert ("Retry-After" in answer.headers) is (answer.status == 503)
    assert ("WWW-Authenticate" in answer.headers) is (answer.status == 401)
    assert (answer.headers.get("Allow") == "POST, OPTIONS") is (answer.status == 405)


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (SinkUnreachable("x"), "10"),
        (SinkUnreachable("x", retry_after=0), "1"),
        (SinkUnreachable("x", retry_after=0.2), "1"),
        (CloudThrottled("x", retry_after=7.1), "8"),
        (LoginRefused("x"), "60"),
        (LoginRefused("x", retry_after=5), "5"),
    ],
)
def test_the_wait_is_what_the_other_side_asked_for(error: AutostopError, seconds: str) -> None:
    """A `Retry-After` is passed on, rounded up to whole seconds; otherwise there is a default."""
    assert responses.problem(error).headers["Retry-After"] == seconds


def test_all_violations_are_listed() -> None:
    """The document has one object a violation, with its place and what must be true."""
    document = json.loads(
        responses.problem(BadEvent(Violation("id", "must be present"), Violation("time", "is bad"))).body
    )
    assert document["detail"] == "The event has 2 violations."
    assert document["violations"] == [{"at": "id", "message": "must be present"}, {"at": "time", "message": "is bad"}]


def test_a_503_carries_its_cause() -> None:
    """The call, its host, and status or failure; no word of the cloud."""
    refused = CloudUnreachable("reading: no answer (connection-refused)", failure=CallFailure.CONNECTION_REFUSED)
    refused.host = "ecs.example:8774"
    expected = {"call": "reading", "host": "ecs.example:8774", "status": None, "failure": "connection-refused"}
    for error in (refused, errors.BudgetSpent("1 of 1 servers not handled in time.", last=refused)):
        document = json.loads(responses.problem(error).body)
        assert document["cause"] == expected
        assert schema_violations("problem.json", document) == []
    assert "reading at ecs.example:8774: connection-refused" in str(responses.detail_of(refused))
    assert "cause" not in json.loads(responses.problem(errors.ShuttingDown("x")).body)


def test_the_words_of_the_cloud_stay_inside() -> None:
    """The message of the cloud is for the log; the caller gets the name of the problem."""
    answer = responses.problem(CloudError("reading: HTTP 500 (secret words)", request_id="req-secret"))
    assert b"secret" not in answer.body
    assert b"cloud-error" in answer.body
