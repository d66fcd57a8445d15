"""FunctionGraph's SMN trigger: several records, each by itself, gated as over HTTPS."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from handler.functiongraph.triggers.dispatch import requests_of
from tests.functiongraph.triggers.test_timer import SOURCE, asked, violations
from tests.support.capture import logged
from tests.support.functiongraph import NOW, ONE, TWO, alarm, notifications, record


def test_an_alarm_that_fires_asks_for_its_server() -> None:
    """Id and time are SMN's; reason and correlation are those of the alarm."""
    found = asked(notifications(record(alarm())))
    assert (found.server_ids, found.id) == ((ONE,), "bf94b63a5dfb475994d3ac34664e24f2")
    assert (found.source, found.time) == (f"{SOURCE}/smn", datetime(2026, 11, 20, 18, 0, tzinfo=UTC))
    assert (found.reason, found.requested_by) == ("Cloud Eye alarm bms-idle: cpu_usage", "Cloud Eye")
    assert found.correlationid == "al1795190000000Xy9Zk2Qw3"


def test_canonical_data_asks_for_its_servers() -> None:
    """As JSON text in the message."""
    found = asked(notifications(record({"server_ids": [ONE, TWO], "dry_run": True})))
    assert (found.server_ids, found.dry_run, found.requested_by) == ((ONE, TWO), True, "SMN")


@pytest.mark.parametrize(
    "smn",
    [
        record(alarm(alarm_status="ok")),
        record(alarm(alarm_status="unknown")),
        record(alarm(metric_name="osShutdown")),
        record(alarm(template_variable={"ResourceId": ONE, "IsAlarm": False})),
        record({"weather": "fine", "id": ONE}),
        record({"specversion": "1.0", "type": "io.github.bms-autostop.stop.completed.v1", "data": {"id": ONE}}),
        record(alarm(), type="subscriptionconfirmation"),
        record(alarm(), type=None),
        {"event_source": "obs", "obs": {"id": ONE}},
    ],
)
def test_what_does_not_fire_is_left_alone(smn: dict[str, object]) -> None:
    """Recovery, echoes of a stop, own results, other records: nothing is asked, and the log says why."""
    with logged() as lines:
        assert requests_of(notifications(smn), SOURCE, NOW) == []
    (line,) = lines.all
    assert (line["level"], line["trigger"]) == ("INFO", "smn")
    assert ONE not in lines.text


def test_each_record_is_judged_by_itself() -> None:
    """One fires, one has recovered, one is canonical: two requests, in order."""
    found = requests_of(
        notifications(
            record(alarm()),
            record(alarm(TWO, alarm_status="ok"), message_id="b"),
            record({"server_id": TWO}, message_id="c"),
        ),
        SOURCE,
        NOW,
    )
    assert [(request.server_ids, request.id) for request in found] == [
        ((ONE,), "bf94b63a5dfb475994d3ac34664e24f2"),
        ((TWO,), "c"),
    ]


def test_one_malformed_record_spoils_the_event() -> None:
    """Nothing is done then, and each violation has the index of its record."""
    bad = record(alarm(dimension=f"instance_id:{TWO}"), message_id="b")
    found = violations(notifications(record(alarm()), bad, record("plain text", message_id="c")))
    assert found == [
        "record[1].message.dimension: must name the same resource as ResourceId",
        "record[2].message: must be JSON",
    ]


def test_the_same_message_twice_is_one_request() -> None:
    """But two messages under one id are a mistake."""
    assert asked(notifications(record(alarm()), record(alarm()))).server_ids == (ONE,)
    found = violations(notifications(record(alarm()), record(alarm(TWO))))
    assert found == ["record[1].smn.message_id: must be unique within the event"]


@pytest.mark.parametrize(
    ("change", "violation"),
    [
        ({"message": ""}, "record[0].smn.message: must be present"),
        ({"message": None}, "record[0].smn.message: must be present"),
        ({"message_id": ""}, "record[0].smn.message_id: must be present"),
        ({"timestamp": "yesterday"}, "record[0].smn.timestamp: must be an RFC 3339 timestamp with a zone"),
    ],
)
def test_a_record_must_be_whole(change: dict[str, object], violation: str) -> None:
    """Without id or time neither a repeat nor its age could be recognized."""
    assert violations(notifications(record(alarm(), **change))) == [violation]


@pytest.mark.parametrize("records", [[], None, {}, "record", [1], [None]])
def test_an_event_without_records_is_malformed(records: object) -> None:
    """The platform never sends one."""
    assert violations({**notifications(), "record": records}) == ["record: must be an array of at least one record"]
