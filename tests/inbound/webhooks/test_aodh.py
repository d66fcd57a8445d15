"""Aodh: the trait or the parameter that names the server, and what identifies a notification."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from tests.inbound.webhooks.authentication import SECRET, receiver, sample, send, send_body
from tests.inbound.webhooks.receiver import ONE, TWO, Receiver, bearer, refused
from tests.support.capture import logged

PATH = "/aodh"
EVENT, TRAITS = "reason_data.event", "reason_data.event.traits"
THRESHOLD: dict[str, Any] = {"reason_data": {"type": "threshold", "disposition": "outside", "count": 3}}
ECHO = {f"{EVENT}.event_type": "compute.instance.power_off.end"}


@pytest.mark.parametrize(
    ("traits", "type_", "ids"),
    [
        ([["resource_id", 1, ONE]], "compute.instance.update", [(ONE,)]),
        ([["resource_id", 1, TWO]], "volume.update", []),
        ([["resource_id", 1, TWO], ["instance_id", 1, ONE]], "compute.instance.update", [(ONE,)]),
    ],
)
def test_the_other_name_of_the_trait_counts_for_servers_only(here: Receiver, traits: Any, type_: str, ids: Any) -> None:
    """In an event about a volume it is the volume's id; beside the documented name it is ignored."""
    send(here, PATH, **{TRAITS: traits, f"{EVENT}.event_type": type_})
    assert [request.server_ids for request in here.handed] == ids


@pytest.mark.parametrize(
    "changes",
    [
        THRESHOLD,
        *({"current": state} for state in ("ok", "insufficient data", "Alarm", None)),
        {TRAITS: []},
        {TRAITS: {}},
        {TRAITS: [["tenant_id", 1, ONE], ["instance_id", ONE], "instance_id", 5]},
        *({"reason_data": data} for data in (None, {"type": "event", "event": [ONE]})),
        ECHO,
        {f"{EVENT}.event_type": "instance.power_off.start"},
    ],
)
def test_nothing_to_act_on_is_204(here: Receiver, changes: dict[str, Any]) -> None:
    """Another state, no server, or the echo of a stop."""
    assert send(here, PATH, **changes).status == 204
    assert here.handed == []


@pytest.mark.parametrize("id_", ["bms-01", 5, None, "", ONE[:-1]])
def test_a_malformed_id_is_400(here: Receiver, id_: object) -> None:
    """The violation names the place."""
    found = refused(send(here, PATH, **{TRAITS: [["state", 1, "active"], ["instance_id", 1, id_]]}), 400)
    assert found["violations"] == [{"at": f"{TRAITS}[1]", "message": "must be a UUID"}]
    assert here.handed == []


@pytest.mark.parametrize(
    ("changes", "query", "status", "ids"),
    [
        (THRESHOLD, f"&server_id={ONE}", 200, (ONE,)),
        (THRESHOLD, f"&server_id={ONE},{TWO.upper()}", 200, (ONE, TWO)),
        (THRESHOLD, f"&server_id={ONE}&server_id={TWO}", 200, (ONE, TWO)),
        ({"reason_data": {"type": "composite"}}, f"&server_id={ONE}", 200, (ONE,)),
        ({}, f"&server_id={ONE}", 200, (ONE,)),
        ({}, f"&server_id={TWO}", 400, ()),
        (THRESHOLD, "&server_id=bms-07", 400, ()),
        (THRESHOLD, "&server_id=", 400, ()),
        ({**THRESHOLD, "current": "ok"}, f"&server_id={ONE}", 204, ()),
        ({**THRESHOLD, "current": "insufficient data"}, f"&server_id={ONE}", 204, ()),
        (ECHO, f"&server_id={ONE}", 204, ()),
        ({f"{EVENT}.generated": "2026-11-20T12:00:00.123456"}, "", 200, (ONE,)),
        ({f"{EVENT}.generated": "soon"}, "", 400, ()),
        ({f"{EVENT}.generated": "2999-01-01T00:00:00"}, "", 400, ()),
    ],
)
def test_the_url_of_an_action_may_name_the_server(
    here: Receiver, changes: dict[str, Any], query: str, status: int, ids: tuple[str, ...]
) -> None:
    """Under the same token; what fires and what is an echo is decided as before."""
    assert send_body(here, PATH, sample(PATH, **changes), query=query).status == status
    assert [request.server_ids for request in here.handed] == [ids] * (status == 200)


def test_an_alarm_that_names_no_server_warns_what_to_add() -> None:
    """It is not lost silently."""
    with logged() as lines:
        assert send(receiver(PATH), PATH, **THRESHOLD).status == 204
    (line,) = lines.of("delivery ignored")
    assert line["level"] == "WARNING"
    assert "server_id=" in line["detail"]


def test_the_event_behind_the_alarm_identifies_a_notification(here: Receiver) -> None:
    """Where that has no id, the request of the notification does."""
    one, another = ({"x-openstack-request-id": f"req-{number}"} for number in (1, 2))
    nameless = {f"{EVENT}.message_id": None}
    for headers, changes in (
        (one, {}),
        (another, {}),
        (one, {f"{EVENT}.message_id": "another"}),
        (one, nameless),
        (one, nameless),
        (another, nameless),
        (one, {"alarm_id": "another"}),
    ):
        here.post(PATH, sample(PATH, **changes), headers, query=f"token={SECRET}")
    ids = [request.id for request in here.handed]
    assert ids[0] == ids[1]
    assert ids[3] == ids[4]
    assert len(set(ids)) == 5


@pytest.mark.parametrize("query", ["token", f"TOKEN={SECRET}", f"token={SECRET}&token={SECRET}", "token=%ff", SECRET])
def test_a_token_elsewhere_is_401(here: Receiver, query: str) -> None:
    """A token in a header is none, and there must be one only."""
    refused(here.post(PATH, sample(PATH), bearer(SECRET), query=query), 401)
    assert here.handed == []


def test_a_token_may_be_encoded() -> None:
    """As any query may."""
    token = "a+b/c=&d-0123456789"
    here = receiver(PATH, AUTOSTOP_AODH_TOKEN=token)
    query = f"aodh-alarm-ssl-verify=1&token={quote(token, safe='')}"
    assert here.post(PATH, sample(PATH), query=query).status == 200
