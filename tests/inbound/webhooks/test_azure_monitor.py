"""Azure Monitor: the custom property is the server, and none of the ids of Azure's own resources is."""

from __future__ import annotations

from typing import Any

import pytest

from tests.inbound.webhooks.authentication import SECRET, receiver, sample, send
from tests.inbound.webhooks.receiver import ONE, THREE, TWO, Receiver, bearer, refused

PATH = "/azure-monitor"
ESSENTIALS = "data.essentials"
FINE = {"server_id": ONE}


def named(custom: object = None, context: object = None, **essentials: object) -> dict[str, Any]:
    """Changes that put properties into either place."""
    changes = {f"{ESSENTIALS}.{name}": value for name, value in essentials.items()}
    return {"data.customProperties": custom, "data.alertContext.properties": context, **changes}


@pytest.mark.parametrize(
    ("changes", "status", "ids"),
    [
        (named(None, FINE), 200, (ONE,)),
        (named(FINE, {"server_id": ONE.upper()}), 200, (ONE,)),
        (named({"server_id": f"{ONE}, {TWO.upper()} {ONE}"}), 200, (ONE, TWO)),
        (named({"server_id": f"{ONE} {TWO}"}, {"server_id": f"{TWO},{ONE}"}), 200, (ONE, TWO)),
        (named({"server_id": ""}, FINE), 200, (ONE,)),
        (named(FINE, {"server_id": TWO}), 400, ()),
        (named(FINE, {"server_id": f"{ONE},{TWO}"}), 400, ()),
        (named(FINE, {"server_id": "bms-07"}), 400, ()),
        *((named({"server_id": id_}), 400, ()) for id_ in ("bms-01", [ONE], 5, f"{ONE},", f"{ONE} and")),
        *((named(FINE, firedDateTime=time), 400, ()) for time in ("soon", "2999-01-01T00:00:00Z")),
        *((named(FINE, monitorCondition=word), 204, ()) for word in ("Resolved", "fired", None)),
        (named(None, {}), 204, ()),
        (named([]), 204, ()),
        (named({"other": ONE}), 204, ()),
        (named({"server_id": ""}), 204, ()),
        ({"data": None}, 204, ()),
    ],
)
def test_the_properties_of_the_rule_name_the_server(
    here: Receiver, changes: dict[str, Any], status: int, ids: tuple[str, ...]
) -> None:
    """In either place; two that disagree are refused, and without any there is nothing to act on."""
    assert send(here, PATH, **changes).status == status
    assert [request.server_ids for request in here.handed] == [ids] * (status == 200)


def test_the_name_of_the_property_is_a_setting() -> None:
    """And the place of a malformed id is in the violation."""
    here = receiver(PATH, AUTOSTOP_ID_LABEL="bms")
    send(here, PATH, **named({"bms": ONE, "server_id": THREE}))
    assert here.only().server_ids == (ONE,)
    found = refused(send(here, PATH, **named({"bms": "x"})), 400)
    assert found["violations"] == [{"at": "data.customProperties.bms", "message": "must be a UUID"}]


@pytest.mark.parametrize("schema", ["Microsoft.Insights/activityLogs", "AzureMonitorMetricAlert", None, 5])
def test_another_schema_is_400_that_names_what_to_switch_on(here: Receiver, schema: object) -> None:
    """The old ones differ from alert type to alert type."""
    (violation,) = refused(send(here, PATH, schemaId=schema), 400)["violations"]
    assert violation["at"] == "schemaId"
    assert "common alert schema" in violation["message"]
    assert here.handed == []


def test_alert_and_time_of_firing_identify_an_event(here: Receiver) -> None:
    """An alert that fires again is another event."""
    for changes in ({}, {f"{ESSENTIALS}.firedDateTime": "2026-11-20T13:00:00Z"}, {f"{ESSENTIALS}.alertId": "another"}):
        send(here, PATH, **changes)
    assert len({request.id for request in here.handed}) == 3


def test_the_token_must_be_in_the_parameter_of_its_name(here: Receiver) -> None:
    """There it counts also beside a wrong one in the header."""
    refused(here.post(PATH, sample(PATH), query=f"access={SECRET}"), 401)
    assert here.handed == []
    assert here.post(PATH, sample(PATH), bearer("wrong"), query=f"a=b&token={SECRET}").status == 200
