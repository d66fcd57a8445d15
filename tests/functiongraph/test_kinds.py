"""The kinds of events that reach the function on FunctionGraph."""

from __future__ import annotations

import json

import pytest

from handler.functiongraph.invocation import PlatformDocument, kind_of_event
from handler.functiongraph.triggers.apig import GatewayRequest
from handler.inbound.cloudevents.decode import Delivery
from tests.support.functiongraph import notifications, passage, record, requested, tick, trace


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        (requested(), Delivery),
        ({"message": {"data": "e30=", "messageId": "1"}, "subscription": "projects/p/subscriptions/s"}, Delivery),
        (passage({}), GatewayRequest),
        # Its caller must be authenticated, whatever else is in it.
        ({**requested(), **passage({})}, GatewayRequest),
        (tick(), PlatformDocument),
        (trace(), PlatformDocument),
        (notifications(record({})), PlatformDocument),
        ({}, PlatformDocument),
    ],
)
def test_an_event_is_of_one_kind(event: dict[str, object], kind: type) -> None:
    """Whether the platform has parsed it or not."""
    for given in (event, json.dumps(event), json.dumps(json.dumps(event)).encode()):
        assert type(kind_of_event(given)) is kind
