"""EventBridge: CloudWatch's alarms in the envelope, and a rule's constant input."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from handler.inbound.http.responses import Answer
from tests.inbound.webhooks.scene import NOW, ONE, THREE, TWO, Scene, bearer, fresh_secret, refused

TOKEN = fresh_secret()
ID = "c4c1c1c9-6542-e61b-6ef0-8c4d36933a92"
TIME = datetime(2026, 11, 20, 17, 59, 58, tzinfo=UTC)


def metric(dimensions: Any) -> dict[str, Any]:
    """One metric of an alarm; its id is a UUID of its own."""
    found = {"namespace": "BMS", "name": "CPUUtilization", "dimensions": dimensions}
    return {"id": THREE, "metricStat": {"metric": found, "period": 300, "stat": "Average"}, "returnData": True}


def alarm(*dimensions: Any, value: Any = "ALARM", **changes: Any) -> dict[str, Any]:
    """A change of an alarm's state."""
    return {
        "version": "0",
        "id": ID,
        "detail-type": "CloudWatch Alarm State Change",
        "source": "aws.cloudwatch",
        "account": "123456789012",
        "time": "2026-11-20T17:59:58Z",
        "region": "eu-central-1",
        "resources": ["arn:aws:cloudwatch:eu-central-1:123456789012:alarm:bms-idle"],
        "detail": {
            "alarmName": "bms-idle",
            "state": {"value": value, "reason": "Threshold Crossed", "timestamp": "2026-11-20T12:00:00.000+0000"},
            "previousState": {"value": "OK"},
            "configuration": {"metrics": [metric(each) for each in dimensions]},
        },
        **changes,
    }


def scene(**environ: Any) -> Scene:
    """EventBridge switched on."""
    return Scene(**{"AUTOSTOP_EVENTBRIDGE_TOKEN": TOKEN, **environ})


def send(here: Scene, body: Any) -> Answer:
    """An event with the right token."""
    return here.post("/eventbridge", body, bearer(TOKEN))


def test_the_dimension_is_the_server() -> None:
    """Id and time are the envelope's."""
    here = scene()
    assert send(here, alarm({"InstanceId": ONE.upper()}, {"InstanceId": ONE}, {"Host": THREE})).status == 200
    request = here.only()
    assert (request.server_ids, request.id, request.time) == ((ONE,), ID, TIME)
    assert request.source == "/bms-autostop/eventbridge"
    assert request.reason == "CloudWatch alarm bms-idle: Threshold Crossed"


def test_the_dimensions_name_is_a_setting_too() -> None:
    """It goes before the usual one."""
    here = scene(AUTOSTOP_ID_LABEL="bms")
    send(here, alarm({"InstanceId": TWO, "bms": ONE}))
    assert here.only().server_ids == (ONE,)


@pytest.mark.parametrize(
    "body",
    [
        alarm({"InstanceId": ONE}, value="OK"),
        alarm({"InstanceId": ONE}, value="INSUFFICIENT_DATA"),
        alarm({"InstanceId": ONE}, value="alarm"),
        alarm({"InstanceId": ONE}, value=None),
        alarm({"Host": ONE}),
        alarm({"InstanceId": ""}),
        alarm([]),
        alarm(),
        alarm(detail=None),
        alarm(detail={"state": {"value": "ALARM"}, "configuration": {"metrics": [ONE]}}),
        {**alarm({"InstanceId": ONE}), "detail-type": "Scheduled Event", "detail": {}},
        {**alarm({"InstanceId": ONE}), "detail-type": None},
        {"detail-type": "Scheduled Event", "server_ids": [ONE]},
        {},
        {"hello": ONE},
    ],
)
def test_nothing_to_act_on_is_204(body: dict[str, Any]) -> None:
    """Another state, another event, or no server."""
    here = scene()
    assert send(here, body).status == 204
    assert here.handed == []


def test_a_constant_input_is_a_stop_request() -> None:
    """With all its members, and the id and time that an input transformer puts in."""
    here = scene()
    sent = {"id": ID, "time": "2026-11-20T17:59:58Z", "server_ids": [ONE, TWO.upper()], "reason": "night"}
    assert send(here, {**sent, "dry_run": True}).status == 200
    request = here.only()
    assert (request.server_ids, request.id, request.time) == ((ONE, TWO), ID, TIME)
    assert (request.reason, request.dry_run, request.requested_by) == ("night", True, "EventBridge")


def test_without_an_id_the_same_words_in_the_same_hour_are_one_event() -> None:
    """A redelivery follows at once, a schedule runs at another hour."""
    here = scene()
    for minutes in (50, 30, 0):
        send(here, {"server_id": ONE})
        here.later(minutes=minutes)
    assert here.handed[0].time == NOW
    send(here, {"server_id": ONE, "reason": "other"})
    ids = [request.id for request in here.handed]
    assert ids[0] == ids[1] != ids[2]
    assert ids[3] not in ids[:3]


def test_a_redelivery_has_the_same_id() -> None:
    """The envelope's; and where there is none, the body's."""
    here = scene()
    for body in (alarm({"InstanceId": ONE}), alarm({"InstanceId": ONE}), alarm({"InstanceId": ONE}, id="another")):
        send(here, body)
        here.later(hours=3)
    for body in (alarm({"InstanceId": ONE}, id=None), alarm({"InstanceId": ONE}, id=None)):
        send(here, body)
        here.later(hours=3)
    ids = [request.id for request in here.handed]
    assert ids[0] == ids[1] == ID
    assert ids[2] == "another"
    assert ids[3] == ids[4] != ID


@pytest.mark.parametrize(
    ("body", "faults"),
    [
        (
            alarm({"InstanceId": "i-0abc"}, {"InstanceId": 5}),
            {
                "detail.configuration.metrics[0].metricStat.metric.dimensions.InstanceId": "must be a UUID",
                "detail.configuration.metrics[1].metricStat.metric.dimensions.InstanceId": "must be a UUID",
            },
        ),
        (
            alarm({"InstanceId": "x"}, time="yesterday"),
            {
                "detail.configuration.metrics[0].metricStat.metric.dimensions.InstanceId": "must be a UUID",
                "time": "must be an RFC 3339 timestamp with a zone",
            },
        ),
        (alarm({"InstanceId": ONE}, time=5), {"time": "must be an RFC 3339 timestamp with a zone"}),
        ({"server_ids": None}, {"data.server_ids": "must be present"}),
        ({"server_ids": []}, {"data.server_ids": "must be an array of at least one id"}),
        (
            {"server_ids": [ONE, "x"], "dryrun": True, "time": ""},
            {
                "data.server_ids[1]": "must be a UUID",
                "data.dry_run": "must be spelled dry_run",
                "time": "must be an RFC 3339 timestamp with a zone",
            },
        ),
    ],
)
def test_what_is_malformed_is_400_with_all_violations(body: dict[str, Any], faults: dict[str, str]) -> None:
    """Nothing of it is handed on."""
    here = scene()
    found = refused(send(here, body), 400)
    assert {fault["at"]: fault["fault"] for fault in found["faults"]} == faults
    assert here.handed == []
