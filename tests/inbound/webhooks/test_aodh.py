"""Aodh: the trait of the event is the server, and no other UUID of the notification is."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from handler.inbound.http.responses import Answer
from tests.inbound.webhooks.scene import NOW, ONE, TWO, Scene, bearer, flip, fresh_secret, refused

TOKEN = fresh_secret()
ALARM, MESSAGE = "47bd1e76-8a3d-4f2c-9f0b-2f1a3b4c5d6e", "9f6d2c0a-5f3e-4a36-b0dd-67b6f3a1a001"
REQUEST = {"x-openstack-request-id": "req-0a1b2c3d-0001-4000-8000-000000000001"}


def notification(traits: Any = None, *, event: Any = None, **changes: Any) -> dict[str, Any]:
    """An event alarm; alarm, message and tenant have ids of their own."""
    found = {
        "message_id": MESSAGE,
        "event_type": "compute.instance.update",
        "generated": "2026-11-20T18:00:00",
        "traits": [["instance_id", 1, ONE], ["state", 1, "active"], ["tenant_id", 1, ALARM]]
        if traits is None
        else traits,
        **(event or {}),
    }
    return {
        "alarm_name": "bms-idle",
        "alarm_id": ALARM,
        "severity": "low",
        "previous": "insufficient data",
        "current": "alarm",
        "reason": "Event hits the query.",
        "reason_data": {"type": "event", "event": found},
        **changes,
    }


def threshold(**changes: Any) -> dict[str, Any]:
    """An alarm on a threshold."""
    data = {"type": "threshold", "disposition": "outside", "count": 3, "most_recent": 1.2}
    return notification(reason_data=data, **changes)


def scene(**environ: Any) -> Scene:
    """Aodh switched on."""
    return Scene(**{"AUTOSTOP_AODH_TOKEN": TOKEN, **environ})


def send(here: Scene, body: Any, headers: dict[str, str] | None = None) -> Answer:
    """A notification with the right token."""
    return here.post("/aodh", body, headers or REQUEST, query=f"token={TOKEN}")


def test_the_instance_of_the_event_is_stopped() -> None:
    """Of all the UUIDs only the trait's."""
    here = scene()
    assert send(here, notification()).status == 200
    request = here.only()
    assert (request.server_ids, request.time, request.source) == ((ONE,), NOW, "/bms-autostop/aodh")
    assert request.reason == "Aodh alarm bms-idle: compute.instance.update"


def test_the_other_name_of_the_trait_counts_for_servers_only() -> None:
    """In an event about a volume it is the volume's id; beside the documented name it is ignored."""
    here = scene()
    send(here, notification([["resource_id", 1, ONE]]))
    assert here.only().server_ids == (ONE,)
    assert send(here, notification([["resource_id", 1, TWO]], event={"event_type": "volume.update"})).status == 204
    send(here, notification([["resource_id", 1, TWO], ["instance_id", 1, ONE]]))
    assert [request.server_ids for request in here.handed] == [(ONE,), (ONE,)]


@pytest.mark.parametrize(
    "body",
    [
        threshold(),
        notification(current="ok"),
        notification(current="insufficient data"),
        notification(current="Alarm"),
        notification(current=None),
        notification([]),
        notification({}),
        notification([["tenant_id", 1, ONE], ["instance_id", ONE], "instance_id", 5]),
        notification(reason_data=None),
        notification(reason_data={"type": "event", "event": [ONE]}),
        notification(event={"event_type": "compute.instance.power_off.end"}),
        notification(event={"event_type": "instance.power_off.start"}),
        {},
    ],
)
def test_nothing_to_act_on_is_204(body: dict[str, Any]) -> None:
    """Another state, no server, or the echo of a stop."""
    here = scene()
    assert send(here, body).status == 204
    assert here.handed == []


@pytest.mark.parametrize("id_", ["bms-01", 5, None, "", ONE[:-1]])
def test_a_malformed_id_is_400(id_: object) -> None:
    """The violation names the place."""
    here = scene()
    found = refused(send(here, notification([["state", 1, "active"], ["instance_id", 1, id_]])), 400)
    assert found["faults"] == [{"at": "reason_data.event.traits[1]", "fault": "must be a UUID"}]
    refused(send(here, b"[1"), 400)
    assert here.handed == []


def test_a_redelivery_has_the_same_id_and_another_event_has_not() -> None:
    """The event behind the alarm identifies it; where that has no id, the request of the notification does."""
    here = scene()
    another = {**REQUEST, "x-openstack-request-id": "req-another"}
    send(here, notification())
    send(here, notification(), another)
    send(here, notification(event={"message_id": "another"}))
    send(here, notification(event={"message_id": None}))
    send(here, notification(event={"message_id": None}))
    send(here, notification(event={"message_id": None}), another)
    send(here, notification(alarm_id="another"))
    ids = [request.id for request in here.handed]
    assert ids[0] == ids[1]
    assert ids[3] == ids[4]
    assert len(set(ids)) == 5


@pytest.mark.parametrize(
    "query",
    [
        "",
        "token=",
        "token",
        f"token={flip(TOKEN)}",
        f"TOKEN={TOKEN}",
        f"token={TOKEN}&token={TOKEN}",
        "token=%ff",
        TOKEN,
    ],
)
def test_any_other_token_is_401(query: str) -> None:
    """And one in a header is none; nothing is handed on."""
    here = scene()
    refused(here.post("/aodh", notification(), {**REQUEST, **bearer(TOKEN)}, query=query), 401)
    assert here.handed == []


def test_a_token_may_be_encoded() -> None:
    """As any query may."""
    here = scene(AUTOSTOP_AODH_TOKEN="a+b/c=&d-0123456789")
    answer = here.post(
        "/aodh", notification(), query=f"aodh-alarm-ssl-verify=1&token={quote('a+b/c=&d-0123456789', safe='')}"
    )
    assert answer.status == 200
