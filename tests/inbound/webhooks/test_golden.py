"""Golden pairs: what each producer sends, and the event that comes of it, or none. Signed here, with fresh keys."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cloudevents.conversion import to_dict

from handler.inbound.http.responses import Answer
from handler.inbound.webhooks.registry import SWITCHES
from handler.inbound.webhooks.smn import Smn
from handler.outbound.stop_request import stop_request_event
from handler.settings.receive_webhook import from_environ
from tests.inbound.webhooks.authentication import ENVIRON, GOLDEN, NAMES, SAMPLES, authenticated
from tests.inbound.webhooks.scene import Scene
from tests.inbound.webhooks.vendor import Vendor


@pytest.fixture(scope="module")
def vendor() -> Vendor:
    """SMN."""
    return Vendor()


def play(pair: Any, vendor: Vendor) -> tuple[Answer, list[dict[str, Any]]]:
    """Send what the producer sends: the answer, and the events that were handed on."""
    environ = {**ENVIRON, **pair["settings"]}
    here = Scene(**environ)
    settings = from_environ(environ)
    here.producers["/smn"] = Smn(settings, "/bms-autostop/smn", vendor.get)  # type: ignore[index]
    body, headers, query = authenticated(pair["path"], pair["body"], vendor)
    answer = here.post(pair["path"], body, {**pair["headers"], **headers}, query=query)
    return answer, [dict(to_dict(stop_request_event(request, {}))) for request in here.handed]


@pytest.mark.parametrize("name", NAMES)
def test_each_golden_pair_comes_true(name: str, vendor: Vendor) -> None:
    """The whole event, or none, and the status; and no UUID of anything else is among the servers."""
    pair = json.loads((GOLDEN / f"{name}.json").read_text())
    answer, events = play(pair, vendor)
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
