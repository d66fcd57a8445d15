"""Golden pairs: what each trigger of FunctionGraph sends, and the events that it stands for, or none."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Sequence
from typing import Any
from unittest.mock import patch

import pytest
from cloudevents.conversion import to_dict
from cloudevents.http import CloudEvent

from handler.functiongraph.context import Call
from handler.functiongraph.invocation import NeverPossible, invoke
from handler.outbound.stop_request import stop_request_event
from handler.services.stop_servers import Service, SharedResources
from handler.settings.stop_servers import from_environ
from handler.stop.model import StopRequest
from tests.test_events_folder import EVENTS, schema_violations

GOLDEN = EVENTS / "samples" / "functiongraph"
NAMES = sorted(path.stem for path in GOLDEN.glob("*.json"))
TRIGGERS = {"timer", "smn", "cts", "apig"}
ENVIRON = {
    "AUTOSTOP_INBOUND_AUTH": "none",
    "RUNTIME_PROJECT_ID": "0a1b2c3d4e5f40718293a4b5c6d7e8f9",
    "OS_REGION_NAME": "eu-de",
}


def invoked(pair: Any) -> tuple[int | None, list[dict[str, Any]], list[str]]:
    """Send what the trigger sends; return the status for the gateway, the requests made of it, and the violations."""
    asked: list[StopRequest] = []

    def results(_: Service, requests: Sequence[StopRequest], received: float) -> Sequence[CloudEvent]:
        """Handle nothing; return a result for each request, with nothing in it."""
        del received
        asked.extend(requests)
        return [CloudEvent({"source": "/x", "type": "x", "id": request.id}, {}) for request in requests]

    event = copy.deepcopy(pair["event"])
    for record in event.get("record", []):
        # It is JSON in the golden file, so that it can be read; the trigger sends it as text.
        record["smn"]["message"] = json.dumps(record["smn"]["message"])
    shared = SharedResources(from_environ({**ENVIRON, **pair["settings"]}))
    try:
        with patch.object(Service, "results", results):
            reply: Any = invoke(shared, event, Call("bms-stop"), time.monotonic())
    except NeverPossible as never:
        return None, [], str(never).split("; ")
    events = [dict(to_dict(stop_request_event(request, {}))) for request in asked]
    if isinstance(reply, dict) and "statusCode" in reply:
        if "ce-id" in reply["headers"] and event["headers"]["content-type"] == "application/json":
            # Plain data has no time but that of its receipt.
            del events[0]["time"]
        return reply["statusCode"], events, []
    return None, events, []


@pytest.mark.parametrize("name", NAMES)
def test_each_golden_pair_is_met(name: str) -> None:
    """All requests, or none with the faults; and no UUID of anything else is among the servers."""
    pair = json.loads((GOLDEN / f"{name}.json").read_text())
    status, events, violations = invoked(pair)
    assert events == pair["requests"]
    assert (status, violations) == (pair.get("status"), pair.get("violations", []))
    for event in events:
        assert not set(pair["decoys"]) & set(event["data"].get("server_ids", []))
        assert schema_violations("cloudevent-in.json", event) == []


def test_each_trigger_has_a_pair_that_acts_and_one_that_does_not() -> None:
    """A new trigger cannot be forgotten here."""
    pairs = {name: json.loads((GOLDEN / f"{name}.json").read_text()) for name in NAMES}
    assert {name.partition("-")[0] for name, pair in pairs.items() if pair["requests"]} == TRIGGERS
    assert {name.partition("-")[0] for name, pair in pairs.items() if not pair["requests"]} == TRIGGERS
