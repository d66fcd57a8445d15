"""FunctionGraph's CTS trigger: which traces may act, and when they say it was."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from handler.functiongraph.triggers.dispatch import requests_of
from tests.functiongraph.triggers.test_timer import SOURCE, asked, violations
from tests.support.capture import logged
from tests.support.functiongraph import NOW, ONE, trace

RECORDED = datetime(2026, 11, 20, 18, 0, 0, 900000, tzinfo=UTC)


@pytest.mark.parametrize("name", ["startBareMetalServers", "rebootBareMetalServers"])
def test_a_server_that_was_started_is_asked_for(name: str) -> None:
    """By its resource id alone; the request that is quoted in the trace names others."""
    found = asked(trace(name))
    assert (found.server_ids, found.time, found.id) == ((ONE,), RECORDED, "69be64a7-0233-11e8-82e4-e5d37911193e")
    assert (found.source, found.reason) == (f"{SOURCE}/cts", f"CTS trace {name}")
    assert found.requested_by == "CTS, trace of ops-user"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"trace_name": "stopBareMetalServers"}, "echo of a stop"),
        ({"trace_name": "STOPBAREMETALSERVERS", "service_type": "ecs"}, "echo of a stop"),
        ({"trace_name": "createBareMetalServers"}, "a trace of something else"),
        ({"trace_name": "deleteBareMetalServers"}, "a trace of something else"),
        ({"trace_name": None}, "a trace of something else"),
        ({"trace_name": "startServer", "service_type": "ECS"}, "a trace of something else"),
        ({"service_type": "ECS"}, "a trace of something else"),
        ({"code": 400}, "a trace of something that did not work"),
        ({"code": "403"}, "a trace of something that did not work"),
        ({"code": True}, "a trace of something that did not work"),
        ({"trace_status": "warning"}, "a trace of something that did not work"),
        ({"trace_status": "incident"}, "a trace of something that did not work"),
        ({"trace_rating": "incident"}, "a trace of something that did not work"),
        ({"trace_status": None}, "a trace of something that did not work"),
        ({"trace_status": 1}, "a trace of something that did not work"),
        ({"resource_id": None}, "the trace names no server"),
        ({"resource_id": ""}, "the trace names no server"),
    ],
)
def test_other_traces_are_left_alone(change: dict[str, object], why: str) -> None:
    """Above all the one of our own stop; and whatever does not say that it worked."""
    event = trace(**change)
    with logged() as lines:
        assert requests_of(event, SOURCE, NOW) == []
    assert [(line["trigger"], line["detail"]) for line in lines.all] == [("cts", why)]


@pytest.mark.parametrize(
    "change",
    [
        {"code": "200"},
        {"code": 202},
        {"code": 0},
        {"code": None},
        {"trace_status": None, "trace_rating": "Normal"},
        {"trace_rating": "normal"},
        {"service_type": "bms"},
        {"user": None},
    ],
)
def test_success_is_written_in_several_ways(change: dict[str, object]) -> None:
    """Numbers, text, either name of the rating; and no code where the call had none."""
    assert asked(trace(**change)).server_ids == (ONE,)


EIGHTEEN = datetime(2026, 11, 20, 18, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1795197600900, RECORDED),
        ("1795197600900", RECORDED),
        (1795197600.9, RECORDED),
        (" 1795197600.9 ", RECORDED),
        ("2026/11/20 19:00:00.9 GMT+01:00", RECORDED),
        ("2026-11-20T18:00:00.900Z", RECORDED),
        ("2026/11/20 19:00:00 GMT+01:00", EIGHTEEN),
        ("2026/11/20 19:00:00 GMT+0100 (CET)", EIGHTEEN),
        ("2026/11/20 18:00:00 GMT", EIGHTEEN),
        (1795197600, EIGHTEEN),
        ("1795197600", EIGHTEEN),
    ],
)
def test_times_come_in_many_forms(value: object, expected: datetime) -> None:
    """Seconds, milliseconds, and text; without a time of recording that of the operation counts."""
    assert asked(trace(record_time=value)).time == expected
    assert asked(trace(record_time=None, time=value)).time == expected


@pytest.mark.parametrize(
    "value", ["", "soon", 5, -1, 1e300, True, [], "2026/13/20 19:00:00 GMT", "2026/11/20 19:00:00"]
)
def test_what_is_no_time_is_malformed(value: object) -> None:
    """A time without a zone is none either."""
    assert violations(trace(record_time=value)) == ["cts.record_time: must be a time"]


def test_every_violation_is_reported() -> None:
    """No time at all, a name where an id should be; and no id of the trace."""
    found = violations(trace(record_time=None, time=None, resource_id="bms-db-01"))
    assert found == ["cts.resource_id: must be a UUID", "cts.time: must be present"]
    assert violations(trace(trace_id="")) == ["cts.trace_id: must be present"]


@pytest.mark.parametrize("event", [{}, {"cts": "text"}, {"trigger_type": "OBS"}, {"key": "value"}])
def test_an_event_of_no_known_trigger_is_malformed(event: dict[str, object]) -> None:
    """It is reported, and not ignored."""
    assert violations(event) == ["event: must be of a trigger that is known here, or a CloudEvent"]
