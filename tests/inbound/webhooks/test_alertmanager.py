"""Alertmanager: which alerts of a group are acted on, and what a redelivery and a repeat look like."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from tests.inbound.webhooks.scene import (
    NOW,
    ONE,
    THREE,
    TWO,
    Scene,
    basic,
    bearer,
    flip,
    fresh_secret,
    json_of,
    refused,
)
from tests.support.capture import logged

TOKEN = fresh_secret()


def alert(
    server: object = ONE, status: str | None = "firing", label: str = "server_id", **changes: Any
) -> dict[str, Any]:
    """One alert; `server=None` leaves the label out."""
    labels = {"alertname": "BareMetalIdle", "instance": "bms-db-01:9100", "severity": "warning"}
    return {
        "status": status,
        "labels": labels if server is None else {**labels, label: server},
        "annotations": {"summary": "bms-db-01 idle for 6h"},
        "startsAt": "2026-11-20T12:00:00Z",
        "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "http://prometheus.example/graph?g0.expr=idle",
        "fingerprint": f"fp-{server}"[:16],
        **changes,
    }


def group(*alerts: Any, **changes: Any) -> dict[str, Any]:
    """One notification."""
    return {
        "version": "4",
        "groupKey": '{}:{alertname="BareMetalIdle"}',
        "truncatedAlerts": 0,
        "status": "firing",
        "receiver": "bms-stop",
        "groupLabels": {"alertname": "BareMetalIdle"},
        "commonLabels": {"alertname": "BareMetalIdle", "severity": "warning"},
        "commonAnnotations": {},
        "externalURL": "http://alertmanager.example",
        "alerts": list(alerts),
        **changes,
    }


def scene(**environ: Any) -> Scene:
    """Alertmanager switched on."""
    return Scene(**{"AUTOSTOP_ALERTMANAGER_TOKEN": TOKEN, **environ})


def send(here: Scene, *alerts: Any, **changes: Any) -> Any:
    """A notification with the right token."""
    return here.post("/alertmanager", group(*alerts, **changes), bearer(TOKEN))


def test_each_alert_of_a_group_is_gated_by_itself() -> None:
    """Of a group that fires as a whole, only the servers whose own alert fires are to be stopped."""
    here = scene()
    answer = send(here, alert(ONE), alert(TWO, "resolved"), alert(THREE), alert(ONE.upper()))
    request = here.only()
    assert request.server_ids == (ONE, THREE)
    assert (request.source, request.time, request.dry_run) == ("/bms-autostop/alertmanager", NOW, False)
    assert request.reason == "Alertmanager alarm BareMetalIdle: bms-db-01 idle for 6h"
    assert request.correlationid == '{}:{alertname="BareMetalIdle"}'
    assert (answer.status, json_of(answer)) == (200, {"status": "handed-on", "id": request.id})


def test_the_label_is_a_setting() -> None:
    """An id in any other label is not one."""
    here = scene(AUTOSTOP_ID_LABEL="instance_id")
    send(here, alert(ONE, label="instance_id"), alert(TWO, label="server_id"))
    assert here.only().server_ids == (ONE,)


@pytest.mark.parametrize(
    "alerts",
    [
        [],
        [alert(ONE, "resolved")],
        [alert(ONE, "suppressed")],
        [alert(ONE, "Firing")],
        [alert(ONE, None)],
        [alert(None)],
        [alert("")],
        [alert(None), alert("no uuid at all", "resolved")],
    ],
)
def test_nothing_to_act_on_is_204(alerts: list[Any]) -> None:
    """Resolved, of an unknown state, or about something that is not a server: taken, and nothing is done."""
    here = scene()
    answer = send(here, *alerts)
    assert (answer.status, answer.body, here.handed) == (204, b"", [])


@pytest.mark.parametrize("id_", ["bms-db-01", ONE[:-1], ONE + "0", 5, [ONE], {"id": ONE}, f"{ONE};{TWO}", "é" * 36])
def test_a_malformed_alert_does_not_block_its_group(id_: object) -> None:
    """The others are handed on; the log names the one that is not. Alone it is refused, without being quoted."""
    here = scene()
    with logged() as lines:
        assert send(here, alert(TWO), alert(id_, fingerprint="fp-1"), alert(THREE)).status == 200
    assert here.only().server_ids == (TWO, THREE)
    (line,) = lines.of("alert malformed")
    assert (line["level"], line["alertname"], line["fingerprint"]) == ("WARNING", "BareMetalIdle", "fp-1")
    assert line["detail"] == "alerts[1].labels.server_id: must be a UUID"
    found = refused(send(here, alert(id_)), 400)
    assert found["faults"] == [{"at": "alerts[0].labels.server_id", "fault": "must be a UUID"}]
    assert len(here.handed) == 1


def test_every_malformed_id_is_reported() -> None:
    """So that they can be fixed at once."""
    found = refused(send(scene(), alert("a"), alert(ONE, "resolved"), alert("b")), 400)
    assert [fault["at"] for fault in found["faults"]] == [
        "alerts[0].labels.server_id",
        "alerts[2].labels.server_id",
    ]


def test_of_very_many_faults_only_some_are_reported() -> None:
    """The answer has bounds."""
    assert len(refused(send(scene(), *[alert("a")] * 200), 400)["faults"]) == 50
    assert len(refused(send(scene(), *[5] * 200), 400)["faults"]) == 50


@pytest.mark.parametrize(
    ("body", "at"),
    [
        (b"", "body"),
        (b"{", "body"),
        (b"[]", "body"),
        (b"\xff", "body"),
        (b"{}", "alerts"),
        (b'{"alerts": {}}', "alerts"),
        (b'{"alerts": [1]}', "alerts[0]"),
        (b'{"alerts": [{"status": "firing"}]}', "alerts[0].labels"),
        (b'{"alerts": [{"status": "firing", "labels": []}]}', "alerts[0].labels"),
    ],
)
def test_what_is_not_a_notification_is_400(body: bytes, at: str) -> None:
    """And is not handed on."""
    here = scene()
    found = refused(here.post("/alertmanager", body, bearer(TOKEN)), 400)
    assert [fault["at"] for fault in found["faults"]] == [at]
    assert here.handed == []


def test_a_bare_alert_is_enough() -> None:
    """Only the state and the label are needed; what else is missing is not made up."""
    here = scene()
    here.post("/alertmanager", {"alerts": [{"status": "firing", "labels": {"server_id": ONE}}]}, bearer(TOKEN))
    request = here.only()
    assert (request.server_ids, request.reason, request.correlationid) == ((ONE,), "Alertmanager alarm", None)


# --- one event or two?


def ids(*notifications: tuple[list[Any], dict[str, Any]]) -> list[str]:
    """The event ids of these notifications, hours apart."""
    here = scene()
    for alerts, changes in notifications:
        send(here, *alerts, **changes)
        here.later(hours=4)
    return [request.id for request in here.handed]


def test_a_redelivery_has_the_same_id() -> None:
    """Also after a restart, from another replica, and with the alerts in another order."""
    first, again = ids(([alert(ONE), alert(TWO)], {}), ([alert(TWO), alert(ONE)], {"externalURL": "http://replica"}))
    assert first == again
    assert ids(([alert(ONE), alert(TWO)], {})) == [first]


@pytest.mark.parametrize(
    ("alerts", "changes"),
    [
        ([alert(ONE), alert(TWO)], {}),
        ([alert(ONE, startsAt="2026-11-20T12:00:01Z")], {}),
        ([alert(ONE, fingerprint="another")], {}),
        ([alert(ONE)], {"groupKey": "another"}),
        ([alert(ONE)], {"notification_reason": "repeat interval elapsed"}),
    ],
)
def test_another_notification_has_another_id(alerts: list[Any], changes: dict[str, Any]) -> None:
    """Another server, another start, another group; and a repeat, where the producer marks it as one."""
    first, other = ids(([alert(ONE)], {}), (alerts, changes))
    assert first != other


def test_the_labels_stand_in_for_a_missing_fingerprint() -> None:
    """Two alerts without one are still distinguished."""
    one, two = alert(ONE), alert(TWO)
    del one["fingerprint"], two["fingerprint"]
    first, other, again = ids(([one], {}), ([two], {}), ([copy.deepcopy(one)], {}))
    assert first != other
    assert first == again


# --- who is it?


@pytest.mark.parametrize("credentials", [bearer, basic, lambda token: {"Authorization": f"bearer  {token} "}])
def test_the_token_is_taken_as_bearer_or_password(credentials: Callable[[str], dict[str, str]]) -> None:
    """Whichever of the two the receiver is configured with."""
    here = scene()
    assert here.post("/alertmanager", group(alert(ONE)), credentials(TOKEN)).status == 200
    assert here.only().server_ids == (ONE,)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": ""},
        {"authorization": TOKEN},
        {"authorization": "Bearer"},
        {"authorization": f"Token {TOKEN}"},
        {"authorization": f"Basic {TOKEN}"},
        {"authorization": "Basic ====="},
        {"authorization": "Basic é"},
        bearer(flip(TOKEN)),
        bearer(flip(TOKEN, 3)),
        bearer(TOKEN[:-1]),
        bearer(TOKEN + "0"),
        bearer("é"),
        basic(flip(TOKEN)),
        basic("", user=TOKEN),
        bearer(""),
    ],
)
def test_any_other_credentials_are_401(headers: dict[str, str]) -> None:
    """Nothing is handed on, and the body is not read before."""
    here = scene()
    refused(here.post("/alertmanager", group(alert(ONE)), headers), 401)
    refused(here.post("/alertmanager", b"no json", headers), 401)
    assert here.handed == []


def test_a_cut_list_is_reported_in_the_log() -> None:
    """What is in it is acted on; that some are missing is the operator's to know."""
    here = scene()
    with logged() as lines:
        send(here, alert(ONE), truncatedAlerts=3)
    assert here.only().server_ids == (ONE,)
    assert [line["left_out"] for line in lines.of("the producer left alerts out; raise its limit")] == [3]


def test_a_long_reason_is_cut() -> None:
    """Text for people never makes an alarm fail."""
    here = scene()
    send(here, alert(ONE, annotations={"summary": "x\x00\n" * 1000}), groupKey="g" * 5000)
    request = here.only()
    assert request.reason is not None
    assert len(request.reason) == 500
    assert request.reason.endswith("…")
    assert request.correlationid is None
