"""Events of other clouds, and types that the settings name: the ids from their place, and no others."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from handler.errors import BadEvent
from handler.inbound.skip import Skip
from handler.settings.env import SettingsError
from tests.inbound.test_extract import asked, found
from tests.support.events import (
    ONE,
    THREE,
    TWO,
    FakeHandler,
    attributes,
    call_endpoint,
    event,
    faults_of,
    settings,
    structured,
)

PUBLISHED = "google.cloud.pubsub.topic.v1.messagePublished"
CLOUD_EYE = "CES:Event:SYS.BMS-serverReboot"


def violations(more: dict[str, str] | None = None, **given: Any) -> dict[str, str]:
    """What is wrong with a bad event."""
    with pytest.raises(BadEvent) as caught:
        asked(more, **given)
    return {violation.at: violation.message for violation in caught.value.violations}


def message(inner: object, **others: object) -> dict[str, object]:
    """The data of a Pub/Sub event around what was published."""
    text = inner if isinstance(inner, str) else base64.b64encode(json.dumps(inner).encode()).decode()
    return {"message": {"data": text, "messageId": "7", **others}, "subscription": f"projects/p/subscriptions/{THREE}"}


def resource(id_: object, name: str = "serverReboot") -> dict[str, object]:
    """The data of an event of Cloud Eye."""
    detail = {"resource_id": id_, "resource_name": "db-1", "event_state": "warning"}
    return {"eventInfo": {"event_name": name, "event_id": THREE, "detail": detail}, "project": TWO}


# --- Pub/Sub ---


def test_what_was_published_is_the_canonical_data() -> None:
    """Ids, dry run and reason; attributes and the subscription are ignored."""
    data = message({"server_ids": [ONE.upper()], "dry_run": True, "reason": "night"}, attributes={"server_id": TWO})
    request = asked(type=PUBLISHED, data=data)
    assert (request.server_ids, request.dry_run, request.reason) == ((ONE,), True, "night")


@pytest.mark.parametrize("inner", ["", None])
def test_a_message_without_data_names_no_server(inner: str | None) -> None:
    """A message may have attributes only; the event is answered with a refusal."""
    data = {"message": {"data": inner, "attributes": {"server_ids": ONE}}}
    assert asked(type=PUBLISHED, data=data).server_ids == ()


@pytest.mark.parametrize(
    ("data", "at"),
    [
        (message({"server_ids": ["all"]}), "data.server_ids[0]"),
        (message({"server_ids": [ONE], "dryrun": True}), "data.dry_run"),
        (message([ONE]), "data"),
        (message("not base64!"), "data.message.data"),
        (message(base64.b64encode(b"\xff\xfe").decode()), "data.message.data"),
        (message(base64.b64encode(b"stop it").decode()), "data"),
        ({"server_ids": [ONE]}, "data.message"),
        ([ONE], "data"),
        (None, "data"),
    ],
)
def test_a_malformed_message_is_refused(data: object, at: str) -> None:
    """Each violation is named; nothing is stopped."""
    assert list(violations(type=PUBLISHED, data=data)) == [at]


# --- Cloud Eye through EventGrid ---


@pytest.mark.parametrize("type_", [CLOUD_EYE, "CES:Event:SYS.ECS-rebootServer"])
def test_an_event_of_cloud_eye_is_about_its_resource(type_: str) -> None:
    """Event, project and subject hold other ids."""
    request = asked(type=type_, subject=f"CES:eu-de:{TWO}:Event:{THREE}", data=resource(ONE.upper()))
    assert (request.server_ids, request.reason) == ((ONE,), "Cloud Eye event serverReboot")


@pytest.mark.parametrize(
    ("type_", "name"),
    [("CES:Event:SYS.BMS-osShutdown", "x"), ("CES:Event:SYS.BMS-OSSHUTDOWN", "x"), (CLOUD_EYE, "osShutdown")],
)
def test_the_echo_of_a_stop_stops_nothing(type_: str, name: str) -> None:
    """It would be a loop."""
    assert found(structured(event(type=type_, data=resource(ONE, name)))) == Skip("echo of a stop")


@pytest.mark.parametrize("data", [resource(None), resource(""), {}, {"server_ids": [TWO]}])
def test_an_event_about_no_resource_names_no_server(data: object) -> None:
    """The subject is not the id of a server, even if it is a UUID."""
    assert asked(type=CLOUD_EYE, subject=ONE, data=data).server_ids == ()


@pytest.mark.parametrize("namespace", ["SYS.RDS", "SYS.EVS", "SYS.BMSX", "RDS", ""])
@pytest.mark.parametrize("id_", [ONE, "3d39c18788b54a919bab633874c159dfin01"])
def test_an_event_about_something_else_is_ignored(namespace: str, id_: str) -> None:
    """Even if its id is a UUID."""
    sent = structured(event(type=f"CES:Event:{namespace}-diskFull", data=resource(id_)))
    assert found(sent) == Skip("the event is not about a server")


@pytest.mark.parametrize(
    ("data", "at"),
    [
        ({"eventInfo": []}, "data.eventInfo"),
        ({"eventInfo": {"detail": ONE}}, "data.eventInfo.detail"),
        ([], "data"),
        (None, "data"),
        ("text", "data"),
    ],
)
def test_data_of_another_shape_is_refused(data: object, at: str) -> None:
    """Nothing could be found in it."""
    assert list(violations(type=CLOUD_EYE, data=data)) == [at]


@pytest.mark.parametrize("id_", ["db-1", 7, [ONE], f"{ONE} {TWO}"])
def test_a_resource_that_is_not_a_server_is_refused(id_: object) -> None:
    """Its id is in the place of a server's."""
    assert violations(type=CLOUD_EYE, data=resource(id_)) == {"data.eventInfo.detail.resource_id": "must be a UUID"}


# --- types of the settings ---


def test_a_type_of_the_settings_carries_the_canonical_data() -> None:
    """Without a path it is read as a request."""
    assert asked({"com.example.night": ""}, type="com.example.night", data={"server_id": ONE}).server_ids == (ONE,)


@pytest.mark.parametrize(
    ("path", "ids"),
    [
        ("node.id", (ONE,)),
        ("nodes[].id", (ONE, TWO)),
        ("nodes[?on].id", (TWO,)),
        ("[node.id, nodes[1].id, node.id]", (ONE, TWO)),
        ("absent", ()),
        ("nodes[?off].id", ()),
    ],
)
def test_a_path_finds_the_ids(path: str, ids: tuple[str, ...]) -> None:
    """One or a list; an id elsewhere does not count, nor does the subject."""
    data = {"node": {"id": ONE.upper()}, "nodes": [{"id": ONE}, {"id": TWO, "on": True}], "server_ids": [THREE]}
    request = asked({"com.example.night": path}, type="com.example.night", subject=THREE, data=data)
    assert request.server_ids == ids


@pytest.mark.parametrize("path", ["node", "nodes", "count", "abs(text)"])
def test_a_path_that_finds_something_else_refuses_the_event(path: str) -> None:
    """Not even those are stopped that are ids."""
    data = {"node": {"id": ONE}, "nodes": [ONE, "db-1"], "count": 1, "text": "a"}
    assert list(violations({"com.example.night": path}, type="com.example.night", data=data)) == ["data"]


def test_the_endpoint_takes_the_types_of_the_settings() -> None:
    """And still no server that is not named."""
    fake = FakeHandler()
    named = structured({**attributes(type="com.example.night"), "data": {"ids": [ONE]}})
    other = structured({**attributes(type="com.example.day"), "data": {"ids": [ONE]}})
    types = "com.example.evening; com.example.night=ids;"
    assert call_endpoint(named, fake, AUTOSTOP_EVENT_TYPES=types).status == 200
    assert [request.server_ids for request in fake.requests] == [(ONE,)]
    assert faults_of(call_endpoint(other, fake, AUTOSTOP_EVENT_TYPES=types)) == {
        "type": "must be a type that is accepted here"
    }


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a=", "must be of the form"),
        ("=b", "must be of the form"),
        ("a b=c", "must be of the form"),
        ("a=b; a", "must name each type once"),
        ("a=b[", "must have only paths that are JMESPath"),
    ],
)
def test_types_that_cannot_work_refuse_the_start(text: str, shown: str) -> None:
    """Rather than fail at the first event."""
    with pytest.raises(SettingsError, match=f"AUTOSTOP_EVENT_TYPES {shown}"):
        settings(AUTOSTOP_EVENT_TYPES=text)
