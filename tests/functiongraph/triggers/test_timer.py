"""A tick of FunctionGraph's timer: its text is canonical data, its name and time are its identity."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from handler.errors import BadEvent
from handler.functiongraph.triggers.dispatch import requests_of
from handler.stop.model import StopRequest
from tests.support.functiongraph import NOW, ONE, TWO, tick

SOURCE = "/bms-autostop/functiongraph/bms-stop"


def asked(event: dict[str, object]) -> StopRequest:
    """The one request that comes of it."""
    (request,) = requests_of(event, SOURCE, NOW)
    return request


def violations(event: dict[str, object]) -> list[str]:
    """What is wrong with it."""
    with pytest.raises(BadEvent) as raised:
        requests_of(event, SOURCE, NOW)
    return [f"{violation.at}: {violation.message}" for violation in raised.value.violations]


def test_the_text_of_the_trigger_is_canonical_data() -> None:
    """Ids in order, and whatever else the data may have; the time is the tick's."""
    found = asked(tick({"server_ids": [TWO.upper(), ONE, TWO], "reason": "curfew", "dry_run": True}))
    assert found.server_ids == (TWO, ONE)
    assert (found.reason, found.dry_run, found.requested_by) == ("curfew", True, "timer nightly")
    assert found.time == datetime(2026, 11, 20, 18, 0, tzinfo=UTC)
    assert (found.source, found.type) == (f"{SOURCE}/timer", "io.github.bms-autostop.stop.requested.v1")


def test_who_asks_may_stand_in_the_data() -> None:
    """It goes before the trigger's name."""
    assert asked(tick({"server_id": ONE, "requested_by": "ops"})).requested_by == "ops"


@pytest.mark.parametrize("text", [None, "", " \n", "{}", '{"reason": "none"}'])
def test_a_text_without_ids_asks_for_nothing(text: str | None) -> None:
    """As a schedule without ids does elsewhere: the result says that there were none. The member may be left out."""
    assert asked(tick(text)).server_ids == ()
    without = tick(text)
    del without["user_event"]
    assert asked(without).server_ids == ()


@pytest.mark.parametrize(
    ("text", "violation"),
    [
        ("stop", "user_event: must be JSON"),
        ("[]", "user_event: must be a JSON object"),
        ('{"server_ids": ["ci-07"]}', "user_event.server_ids[0]: must be a UUID"),
        ('{"server_ids": []}', "user_event.server_ids: must be an array of at least one id"),
        ('{"dryRun": true}', "user_event.dry_run: must be spelled dry_run"),
        ("5", "user_event: must be a JSON object"),
    ],
)
def test_a_text_that_means_something_else_is_malformed(text: str, violation: str) -> None:
    """It was written by hand, and its author expects a result."""
    assert violations(tick(text)) == [violation]


def test_every_violation_is_reported() -> None:
    """Those of the tick and those of its text."""
    found = violations(tick("stop", trigger_name="", time="20:00"))
    assert found == ["trigger_name: must be present", "user_event: must be JSON"]
    assert violations(tick(time="2026-11-20T19:00:00")) == ["time: must be an RFC 3339 timestamp with a zone"]
    assert violations(tick(time=None)) == ["time: must be an RFC 3339 timestamp with a zone"]


def test_a_tick_that_is_sent_again_is_the_same_event() -> None:
    """Name and time make the id; another time, or another timer, is another event."""
    one = tick({"server_id": ONE})
    assert asked(one).id == asked(dict(one)).id == asked({**one, "time": "2026-11-20T18:00:00Z"}).id
    others = [asked({**one, "time": "2026-11-21T19:00:00+01:00"}).id, asked({**one, "trigger_name": "other"}).id]
    assert len({asked(one).id, *others}) == 3


@pytest.mark.parametrize("version", ["v1.0", "v2.0"])
def test_any_version_of_the_event_is_read(version: str) -> None:
    """Both are in the vendor's samples."""
    assert asked(tick({"server_id": ONE}, version=version, trigger_type="Timer")).server_ids == (ONE,)


def test_the_text_may_hold_a_selector() -> None:
    """As canonical data may everywhere."""
    found = asked(tick({"selector": {"tags": ["env=dev"]}}))
    assert found.server_ids == ()
    assert found.selector is not None
