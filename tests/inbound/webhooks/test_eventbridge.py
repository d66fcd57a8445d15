"""EventBridge: which metrics of an alarm name the server, and the constant input of a rule."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from tests.inbound.webhooks.authentication import receiver, sample, send, send_body
from tests.inbound.webhooks.receiver import NOW, ONE, TWO, Receiver, refused

PATH = "/eventbridge"
METRICS, STATE = "detail.configuration.metrics", "detail.state"
AT = "detail.configuration.metrics[0].metricStat.metric.dimensions.InstanceId"
ID = sample(PATH)["id"]
MATH = {"id": "e1", "expression": "m1-m2", "returnData": True}


def metric(dimensions: object, watched: bool | None = True, namespace: str = "BMS") -> dict[str, Any]:
    """One metric of an alarm."""
    found: dict[str, Any] = {"metricStat": {"metric": {"namespace": namespace, "dimensions": dimensions}}}
    return found if watched is None else {**found, "returnData": watched}


def of(id_: object, *more: Any) -> dict[str, Any]:
    """A metric of a server."""
    return metric({"InstanceId": id_}, *more)


@pytest.mark.parametrize(
    ("metrics", "status", "ids"),
    [
        ([of(ONE.upper()), of(ONE), metric({"Host": TWO})], 200, (ONE,)),
        ([of(ONE, None)], 200, (ONE,)),
        ([of(ONE), of(TWO, False)], 200, (ONE,)),
        ([MATH, of(ONE, False), of(ONE, False)], 200, (ONE,)),
        ([MATH, of(ONE, False), metric({"Host": "x"}, False)], 200, (ONE,)),
        ([MATH, of(ONE, False), of(TWO, False)], 400, ()),
        ([of(ONE), of(TWO)], 400, ()),
        ([of(ONE, False), of(TWO, False)], 400, ()),
        ([of("bms-07")], 400, ()),
        ([metric({"Host": "x"}), of(TWO, False)], 204, ()),
        ([MATH], 204, ()),
        ([of(ONE, True, "AWS/EC2")], 204, ()),
        ([of("i-0abc", True, "AWS/EC2")], 204, ()),
        ([metric({"InstanceId": ""})], 204, ()),
        ([metric([])], 204, ()),
        ([], 204, ()),
        ([ONE], 204, ()),
    ],
)
def test_the_watched_metrics_must_be_about_one_server(
    here: Receiver, metrics: Any, status: int, ids: tuple[str, ...]
) -> None:
    """Of several in a calculation none is meant; metrics of AWS's own services are about no server."""
    assert send(here, PATH, **{METRICS: metrics}).status == status
    assert [request.server_ids for request in here.handed] == [ids] * (status == 200)


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        *(({f"{STATE}.value": value}, 204) for value in ("OK", "INSUFFICIENT_DATA", "alarm", None)),
        ({f"{STATE}.reason": "Threshold Crossed: no datapoints were received for 1 period"}, 204),
        ({f"{STATE}.reasonData": '{"version": "1.0", "recentDatapoints": []}'}, 204),
        ({f"{STATE}.reasonData": '{"version": "1.0", "recentDatapoints": [1.0]}'}, 200),
        ({f"{STATE}.timestamp": "2026-11-20T12:00:00.000+0000"}, 200),
        ({f"{STATE}.timestamp": "soon"}, 400),
        ({"detail": None}, 204),
        ({"detail-type": "Scheduled Event", "detail": {}}, 204),
        ({"detail-type": "Scheduled Event", "server_ids": [ONE]}, 204),
        ({"detail-type": None}, 204),
    ],
)
def test_only_an_alarm_with_data_fires(here: Receiver, changes: dict[str, Any], status: int) -> None:
    """Another state, missing data, or another event."""
    assert send(here, PATH, **changes).status == status
    assert len(here.handed) == (status == 200)


def test_the_name_of_the_dimension_is_a_setting() -> None:
    """It goes before the usual one."""
    here = receiver(PATH, AUTOSTOP_ID_LABEL="bms")
    send(here, PATH, **{METRICS: [metric({"InstanceId": TWO, "bms": ONE})]})
    assert here.only().server_ids == (ONE,)


def test_a_constant_input_is_a_stop_request(here: Receiver) -> None:
    """With all its members, and the id and time that an input transformer puts in."""
    sent = {"id": ID, "time": "2026-11-20T17:59:58Z", "server_ids": [ONE, TWO.upper()], "reason": "night"}
    assert send_body(here, PATH, {**sent, "dry_run": True}).status == 200
    request = here.only()
    assert (request.server_ids, request.id) == ((ONE, TWO), ID)
    assert request.time == datetime(2026, 11, 20, 17, 59, 58, tzinfo=UTC)
    assert (request.reason, request.dry_run, request.requested_by) == ("night", True, "EventBridge")


def ids_of(here: Receiver, *bodies: tuple[Any, float]) -> list[str]:
    """The ids of the events of these bodies, each with the minutes that pass after it."""
    for body, minutes in bodies:
        send_body(here, PATH, body)
        here.later(minutes=minutes)
    return [request.id for request in here.handed]


def test_without_an_id_the_same_input_in_the_same_hour_is_one_event(here: Receiver) -> None:
    """A redelivery follows at once, a schedule runs at another hour."""
    sent = {"server_id": ONE}
    ids = ids_of(here, (sent, 50), (sent, 30), (sent, 0), ({**sent, "reason": "other"}, 0))
    assert here.handed[0].time == NOW
    assert ids[0] == ids[1] != ids[2]
    assert ids[3] not in ids[:3]


def test_an_alarm_has_the_id_of_its_envelope() -> None:
    """Where there is none, one of its body."""
    nameless = sample(PATH, id=None)
    ids = ids_of(receiver(PATH), (sample(PATH), 180), (sample(PATH, id="another"), 180), (nameless, 180), (nameless, 0))
    assert ids[:2] == [ID, "another"]
    assert ids[2] == ids[3] != ID


NOT_A_TIME = "must be an RFC 3339 timestamp with a zone"
MISSPELT = {"serverIds": "server_ids", "server-id": "server_ids", "selectors": "selector", "sever_ids": "server_ids"}


@pytest.mark.parametrize(
    ("body", "violations"),
    [
        (
            sample(PATH, **{METRICS: [of("i-0abc"), of(5)]}),
            {AT: "must be a UUID", AT.replace("[0]", "[1]"): "must be a UUID"},
        ),
        (sample(PATH, time="yesterday", **{METRICS: [of("x")]}), {AT: "must be a UUID", "time": NOT_A_TIME}),
        (sample(PATH, time=5), {"time": NOT_A_TIME}),
        ({"server_ids": None}, {"data.server_ids": "must be present"}),
        ({"server_ids": []}, {"data.server_ids": "must be an array of at least one id"}),
        (
            {"server_ids": [ONE, "x"], "dryrun": True, "time": ""},
            {"data.server_ids[1]": "must be a UUID", "data.dry_run": "must be spelled dry_run", "time": NOT_A_TIME},
        ),
        *(({name: [ONE]}, {f"data.{known}": f"must be spelled {known}"}) for name, known in MISSPELT.items()),
    ],
)
def test_what_is_malformed_is_400_with_all_violations(
    here: Receiver, body: dict[str, Any], violations: dict[str, str]
) -> None:
    """Nothing of it is handed on."""
    found = refused(send_body(here, PATH, body), 400)
    assert {violation["at"]: violation["message"] for violation in found["violations"]} == violations
    assert here.handed == []


@pytest.mark.parametrize("body", [{}, {"hello": ONE}])
def test_what_is_neither_an_envelope_nor_a_request_is_204(here: Receiver, body: dict[str, Any]) -> None:
    """Nothing in it is close to a member of canonical data."""
    assert (send_body(here, PATH, body).status, here.handed) == (204, [])
