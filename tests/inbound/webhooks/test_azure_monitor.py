"""Azure Monitor: the custom property is the server, and none of the ids of Azure's own resources is."""

from __future__ import annotations

from typing import Any

import pytest

from handler.inbound.http.responses import Answer
from tests.inbound.webhooks.scene import NOW, ONE, THREE, TWO, Scene, basic, bearer, fresh_secret, refused

TOKEN = fresh_secret()
SUBSCRIPTION = "/subscriptions/11111111-2222-3333-4444-555555555555"


def alert(properties: Any = None, **essentials: Any) -> dict[str, Any]:
    """A fired alert."""
    return {
        "schemaId": "azureMonitorCommonAlertSchema",
        "data": {
            "essentials": {
                "alertId": f"{SUBSCRIPTION}/providers/Microsoft.AlertsManagement/alerts/{THREE}",
                "alertRule": "bms-idle",
                "severity": "Sev3",
                "signalType": "Metric",
                "monitorCondition": "Fired",
                "alertTargetIDs": [f"{SUBSCRIPTION}/resourcegroups/rg/providers/x/{TWO}"],
                "configurationItems": [TWO],
                "originAlertId": TWO,
                "firedDateTime": "2026-11-20T12:00:00.1234567Z",
                "description": "idle for 6h",
                "essentialsVersion": "1.0",
                **essentials,
            },
            "alertContext": {"condition": {"allOf": [{"dimensions": [{"name": "server_id", "value": TWO}]}]}},
            "customProperties": {"server_id": ONE} if properties is None else properties,
        },
    }


def scene(**environ: Any) -> Scene:
    """Azure Monitor switched on."""
    return Scene(**{"AUTOSTOP_AZURE_TOKEN": TOKEN, **environ})


def send(here: Scene, body: Any) -> Answer:
    """An alert with the right token."""
    return here.post("/azure-monitor", body, bearer(TOKEN))


def test_the_property_is_the_server() -> None:
    """And the event's time is the receipt, not when the alarm began."""
    here = scene()
    assert send(here, alert()).status == 200
    request = here.only()
    assert (request.server_ids, request.time, request.source) == ((ONE,), NOW, "/bms-autostop/azure-monitor")
    assert request.reason == "Azure alert bms-idle: idle for 6h"


def test_a_property_may_list_several_servers() -> None:
    """It is one text, with commas or spaces; its name is a setting."""
    here = scene(AUTOSTOP_ID_LABEL="bms")
    send(here, alert({"bms": f"{ONE}, {TWO.upper()} {ONE}", "server_id": THREE}))
    assert here.only().server_ids == (ONE, TWO)


@pytest.mark.parametrize(
    "body",
    [
        alert(monitorCondition="Resolved"),
        alert(monitorCondition="fired"),
        alert(monitorCondition=None),
        alert({}),
        alert({"other": ONE}),
        alert({"server_id": ""}),
        alert([]),
        {**alert(), "data": None},
    ],
)
def test_nothing_to_act_on_is_204(body: dict[str, Any]) -> None:
    """Resolved, unknown, or about no server."""
    here = scene()
    assert send(here, body).status == 204
    assert here.handed == []


@pytest.mark.parametrize("id_", ["bms-01", [ONE], 5, f"{ONE},", f"{ONE} and"])
def test_a_malformed_id_is_400(id_: object) -> None:
    """Also one beside a good one."""
    here = scene()
    found = refused(send(here, alert({"server_id": id_})), 400)
    assert found["faults"] == [{"at": "data.customProperties.server_id", "fault": "must be a UUID"}]
    assert here.handed == []


@pytest.mark.parametrize("schema", ["Microsoft.Insights/activityLogs", None, 5])
def test_another_schema_is_400(schema: object) -> None:
    """The old ones differ from alert type to alert type; the violation states what to do."""
    here = scene()
    found = refused(send(here, {**alert(), "schemaId": schema}), 400)
    assert found["faults"][0]["at"] == "schemaId"
    refused(send(here, b""), 400)
    assert here.handed == []


def test_a_redelivery_has_the_same_id_and_another_alert_has_not() -> None:
    """Alert and time of firing identify it."""
    here = scene()
    for body in (alert(), alert(), alert(firedDateTime="2026-11-20T13:00:00Z"), alert(alertId="another")):
        send(here, body)
        here.later(minutes=1)
    ids = [request.id for request in here.handed]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 3


@pytest.mark.parametrize(
    ("headers", "query"),
    [(bearer(TOKEN), ""), (basic(TOKEN), ""), ({}, f"token={TOKEN}"), (bearer("wrong"), f"a=b&token={TOKEN}")],
)
def test_the_token_is_taken_from_header_or_url(headers: dict[str, str], query: str) -> None:
    """A plain webhook action can set no header."""
    here = scene()
    assert here.post("/azure-monitor", alert(), headers, query=query).status == 200


def test_the_token_must_be_in_the_parameter_of_its_name() -> None:
    """In any other it does not count."""
    here = scene()
    refused(here.post("/azure-monitor", alert(), query=f"access={TOKEN}"), 401)
    assert here.handed == []
