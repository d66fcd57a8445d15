"""Samples: what each producer sends, and the event that it gives, or none. Signed here, with fresh keys."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cloudevents.conversion import to_dict

from handler.inbound.http.responses import Answer
from handler.inbound.webhooks.registry import SWITCHES
from handler.outbound.stop_request import stop_request_event
from tests.inbound.webhooks.authentication import ENVIRON, GOLDEN, NAMES, SAMPLES, SMN, authenticated
from tests.inbound.webhooks.receiver import Receiver


def result_of(pair: Any) -> tuple[Answer, list[dict[str, Any]]]:
    """Send what the producer sends: the answer, and the events that were handed on."""
    here = Receiver(get=SMN.get, **{**ENVIRON, **pair["settings"]})
    body, headers, query = authenticated(pair["path"], pair["body"])
    answer = here.post(pair["path"], body, {**pair["headers"], **headers}, query=query)
    return answer, [dict(to_dict(stop_request_event(request, {}))) for request in here.handed]


@pytest.mark.parametrize("name", NAMES)
def test_each_sample_gives_its_event(name: str) -> None:
    """The whole event, or none, and the status; and no UUID of anything else is among the servers."""
    pair = json.loads((GOLDEN / f"{name}.json").read_text())
    answer, events = result_of(pair)
    assert answer.status == pair["status"], answer
    expected = [] if pair["event"] is None else [pair["event"]]
    assert events == expected, f"python -m tests.inbound.webhooks {name} writes the event of the sample"
    for event in events:
        assert not set(pair["decoys"]) & set(event["data"].get("server_ids", []))


@pytest.mark.parametrize("path", sorted(SWITCHES))
def test_each_producer_has_a_sample_that_acts_and_one_that_does_not(path: str) -> None:
    """A new producer cannot be forgotten here."""
    found = {pair["event"] is not None for pair in SAMPLES if pair["path"] == path}
    assert found == {True, False}, f"events/samples/webhooks/ must have samples of {path} with an event and with null"


@pytest.mark.parametrize("name", NAMES)
def test_each_sample_has_the_members_of_the_format(name: str) -> None:
    """No more and no fewer, as CONTRIBUTING.md lists them."""
    members = {"path", "settings", "headers", "body", "decoys", "status", "event"}
    assert set(json.loads((GOLDEN / f"{name}.json").read_text())) == members
