"""FunctionGraph's gateway trigger: the request inside of the event, and the answer in the gateway's form."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from handler.errors import AutostopError, BadEvent, NotAnEvent, TooLarge
from handler.functiongraph.triggers.apig import GatewayRequest, reply
from handler.inbound.cloudevents.decode import Delivery
from handler.inbound.http.request import HttpRequest
from handler.inbound.http.responses import Answer
from handler.stop.model import StopRequest
from tests.support.events import STOP
from tests.support.functiongraph import ONE, TWO, passage, requested

NOW = datetime(2026, 11, 20, 18, 0, 5, tzinfo=UTC)
EVENT = requested()


def through(event: dict[str, object]) -> GatewayRequest:
    """The event as a gateway's."""
    request = GatewayRequest.of(event)
    assert request is not None
    return request


def http(event: dict[str, object]) -> HttpRequest:
    """The request inside of a gateway's event."""
    return through(event).http(1024, 100.0)


def read(event: dict[str, object]) -> Delivery | StopRequest:
    """What a gateway's event brings."""
    return through(event).read(http(event), "/bms-autostop/functiongraph/apig", NOW)


def test_the_request_inside_is_unpacked() -> None:
    """Method, path, headers in lower case and as WSGI has them, query and body."""
    event = passage(
        b"\x00body",
        {"X-Name": "Zoë", "X-Several": ["a", "b"]},
        httpMethod="post",
        queryStringParameters={"a": "1 2", "b": ["3", "4"]},
    )
    request = http(event)
    assert (request.method, request.path, request.body, request.received) == ("POST", "/bms/stop", b"\x00body", 100.0)
    assert (request.headers["x-name"].encode("latin-1").decode(), request.headers["x-several"]) == ("Zoë", "a,b")
    assert request.query == "a=1+2&b=3&b=4"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"body": ""}, b""),
        ({"body": None}, b""),
        ({"body": "e30="}, b"{}"),
        ({"body": "{}", "isBase64Encoded": False}, b"{}"),
        ({"body": "e30=", "isBase64Encoded": None}, b"{}"),
        ({"body": "{}"}, "must be base64"),
        ({"body": "ö"}, "must be base64"),
        ({"body": [1]}, "must be text"),
        ({"body": {}}, "must be text"),
    ],
)
def test_the_body_is_base64_by_default(change: dict[str, object], expected: bytes | str) -> None:
    """Any other body is malformed."""
    request = http(passage(**change))
    if isinstance(expected, bytes):
        assert request.body == expected
    else:
        with pytest.raises(BadEvent, match=rf"^body: {expected}$"):
            _ = request.body


def test_a_body_has_the_same_limit_as_elsewhere() -> None:
    """Counted in bytes, after decoding."""
    assert http(passage(b"x" * 1024)).body
    request = http(passage(b"x" * 1025))
    with pytest.raises(TooLarge):
        _ = request.body


def test_plain_canonical_data_becomes_an_event() -> None:
    """With the gateway's id of the request, and the time when it was here."""
    asked = read(passage({"server_ids": [ONE, TWO], "reason": "r"}))
    assert isinstance(asked, StopRequest)
    assert (asked.server_ids, asked.time, asked.reason, asked.requested_by) == ((ONE, TWO), NOW, "r", "APIG")
    assert (asked.source, asked.id) == ("/bms-autostop/functiongraph/apig", "11cdcdcf33949dc6d722640a13091c77")


@pytest.mark.parametrize(
    "event",
    [
        passage(EVENT, {"content-type": "application/cloudevents+json"}),
        passage([EVENT], {"content-type": "application/cloudevents-batch+json"}),
        passage(EVENT),
        passage({"server_id": ONE}, {"ce-id": "1", "ce-specversion": "1.0", "ce-source": "/ops", "ce-type": STOP}),
    ],
)
def test_a_cloudevent_in_any_mode_is_decoded(event: dict[str, object]) -> None:
    """With its own attributes."""
    delivery = read(event)
    assert isinstance(delivery, Delivery)
    (found,) = delivery.events
    assert (found.id, found.source, found.violations) == ("1", "/ops", ())


@pytest.mark.parametrize(
    ("event", "error"),
    [
        (passage("not json", {"content-type": "application/cloudevents+json"}), BadEvent),
        (passage({"server_id": ONE}, {"content-type": "text/plain"}), NotAnEvent),
        (passage(EVENT, {"content-type": "text/plain"}), NotAnEvent),
        (passage({"server_id": ONE}, {"content-type": ""}), NotAnEvent),
    ],
)
def test_what_is_neither_an_event_nor_plain_json_is_refused(
    event: dict[str, object], error: type[AutostopError]
) -> None:
    """As it is over HTTP."""
    with pytest.raises(error):
        read(event)


@pytest.mark.parametrize(
    ("body", "change", "violation"),
    [
        ("nothing", {}, "body: must be JSON"),
        ({}, {}, "data.server_ids: must be present"),
        ({"server_id": "x"}, {}, "data.server_id: must be a UUID"),
        ({"server_id": ONE}, {"requestContext": {}}, "requestContext.requestId: is missing"),
    ],
)
def test_malformed_plain_data_is_reported(body: object, change: dict[str, object], violation: str) -> None:
    """Without ids it asks for nothing, which is not sent on purpose."""
    with pytest.raises(BadEvent) as raised:
        read(passage(body, **change))
    assert [f"{violation.at}: {violation.message}" for violation in raised.value.violations] == [violation]


def test_an_answer_has_the_four_members_that_the_gateway_wants() -> None:
    """And is JSON all through."""
    document = reply(Answer(503, {"Retry-After": "10"}, '{"detail": "nö"}'.encode()))
    assert document == {
        "statusCode": 503,
        "headers": {"Retry-After": "10"},
        "body": '{"detail": "nö"}',
        "isBase64Encoded": False,
    }
    assert json.loads(json.dumps(document)) == document


@pytest.mark.parametrize("event", [{}, {"httpMethod": "POST"}, {"requestContext": {}}, {"httpMethod": 1}])
def test_other_events_are_no_gateways(event: dict[str, object]) -> None:
    """Method and context are what they all have."""
    assert GatewayRequest.of(event) is None
