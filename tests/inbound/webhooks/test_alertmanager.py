"""Groups of alerts: which of them are acted on, and the ids of redeliveries and repeats."""

from __future__ import annotations

from typing import Any

import pytest

from handler import rfc3339
from tests.inbound.webhooks.authentication import SECRET, authenticated, receiver
from tests.inbound.webhooks.receiver import ONE, THREE, TWO, Receiver, basic, bearer, json_of, refused
from tests.support.capture import logged


def alert(server: object = ONE, status: str | None = "firing", **changes: Any) -> dict[str, Any]:
    """One alert; `server=None` leaves the label out."""
    labels = {"alertname": "BareMetalIdle", "instance": "bms-db-01:9100", "severity": "warning"}
    return {
        "status": status,
        "labels": labels if server is None else {**labels, "server_id": server},
        "annotations": {"summary": "bms-db-01 idle for 6h"},
        "startsAt": "2026-11-20T12:00:00Z",
        "endsAt": "0001-01-01T00:00:00Z",
        "fingerprint": f"fp-{server}"[:16],
        **changes,
    }


@pytest.fixture
def here() -> Receiver:
    """All producers switched on."""
    return group_receiver()


def labelled(**labels: str) -> dict[str, Any]:
    """An alert with more labels."""
    return alert(labels={**alert()["labels"], **labels})


def group(*alerts: Any, **changes: Any) -> dict[str, Any]:
    """One notification."""
    return {
        "version": "4",
        "groupKey": '{}:{alertname="BareMetalIdle"}',
        "truncatedAlerts": 0,
        "status": "firing",
        "alerts": list(alerts),
        **changes,
    }


def group_receiver() -> Receiver:
    """All producers switched on."""
    return receiver("/alertmanager", AUTOSTOP_ID_LABEL="server_id")


def send(here: Receiver, *alerts: Any, path: str = "/alertmanager", **changes: Any) -> Any:
    """Send a notification."""
    body, headers, _ = authenticated(path, group(*alerts, **changes))
    return here.post(path, body, headers)


def test_only_the_servers_whose_own_alert_fires_are_handed_on(here: Receiver) -> None:
    """Of a group that fires as a whole, whatever a label is called."""
    resolved = {**labelled(status="firing", server_id=TWO), "status": "resolved"}
    answer = send(here, labelled(status="resolved"), resolved, alert(THREE), alert(ONE.upper()))
    assert here.only().server_ids == (ONE, THREE)
    assert (answer.status, json_of(answer)) == (200, {"status": "handed-on", "id": here.only().id})


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
def test_nothing_to_act_on_is_204(here: Receiver, alerts: list[Any]) -> None:
    """Resolved, of an unknown state, or about something that is not a server: taken, and nothing is done."""
    answer = send(here, *alerts)
    assert (answer.status, answer.body, here.handed) == (204, b"", [])


IDS = ["bms-db-01", "{{ $labels.id }}", ONE[:-1], ONE + "0", 5, [ONE], {"id": ONE}, f"{ONE};{TWO}", "é" * 36]


@pytest.mark.parametrize("path", ["/alertmanager", "/grafana"])
@pytest.mark.parametrize("id_", IDS)
def test_a_malformed_alert_does_not_block_its_group(here: Receiver, path: str, id_: object) -> None:
    """The others are handed on; the log names the one that is not. Alone it is refused, without being quoted."""
    with logged() as lines:
        assert send(here, alert(TWO), alert(id_, fingerprint="fp-1"), alert(THREE), path=path).status == 200
    assert here.only().server_ids == (TWO, THREE)
    (line,) = lines.of("alert malformed")
    assert (line["level"], line["alertname"], line["fingerprint"]) == ("WARNING", "BareMetalIdle", "fp-1")
    assert line["detail"] == "alerts[1].labels.server_id: must be a UUID"
    found = refused(send(here, alert(id_), path=path), 400)
    assert found["violations"] == [{"at": "alerts[0].labels.server_id", "message": "must be a UUID"}]
    assert len(here.handed) == 1


@pytest.mark.parametrize("starts_at", ["yesterday", "2999-01-01T00:00:00Z", 5, "2026-11-20T12:00:00"])
def test_an_alert_whose_start_is_not_understood_is_malformed(here: Receiver, starts_at: object) -> None:
    """A server that was started since then could not be recognised."""
    assert send(here, alert(TWO, startsAt=starts_at), alert(ONE)).status == 200
    assert here.only().server_ids == (ONE,)
    assert send(here, alert(TWO, startsAt=starts_at)).status == 400


NO_DATA = [
    labelled(alertname="DatasourceNoData", rulename="bms-idle"),
    labelled(alertname="DatasourceError", rulename="bms-idle"),
    labelled(grafana_state_reason="NoData"),
    alert(annotations={"grafana_state_reason": "NoData", "summary": "idle"}),
    alert(annotations={"grafana_state_reason": "Error"}),
    alert(annotations={"grafana_state_reason": "NoData, KeepLast"}),
]


@pytest.mark.parametrize("path", ["/grafana", "/alertmanager"])
@pytest.mark.parametrize("without_data", NO_DATA)
def test_missing_data_is_not_firing(here: Receiver, path: str, without_data: dict[str, Any]) -> None:
    """Nothing is known about the server; alerts beside it that have data count."""
    with logged() as lines:
        assert send(here, without_data, path=path).status == 204
    assert here.handed == []
    assert [line["detail"] for line in lines.all] == ["the alarm has no data"] * 2
    assert send(here, without_data, alert(TWO), path=path).status == 200
    assert here.only().server_ids == (TWO,)


def test_each_server_has_the_start_of_its_own_alert(here: Receiver) -> None:
    """Of several about one server the last, since that one is enough to ask for the stop; none if one has none."""
    early, late = "2026-11-20T12:00:00Z", "2026-11-20T13:00:00Z"
    starts = ((ONE, early), (ONE, late), (TWO, early), (THREE, "0001-01-01T00:00:00Z"), (THREE, early))
    send(here, *(alert(id_, startsAt=start) for id_, start in starts))
    assert {id_: rfc3339.parse(start) for id_, start in ((ONE, late), (TWO, early))} == here.only().since


def test_every_malformed_id_is_reported() -> None:
    """So that they can be fixed at once."""
    found = refused(send(group_receiver(), alert("a"), alert(ONE, "resolved"), alert("b")), 400)
    assert [violation["at"] for violation in found["violations"]] == [
        "alerts[0].labels.server_id",
        "alerts[2].labels.server_id",
    ]


def test_of_very_many_faults_only_some_are_reported() -> None:
    """The answer has bounds."""
    assert len(refused(send(group_receiver(), *[alert("a")] * 200), 400)["violations"]) == 50
    assert len(refused(send(group_receiver(), *[5] * 200), 400)["violations"]) == 50


@pytest.mark.parametrize(
    ("body", "at"),
    [
        ({}, "alerts"),
        ({"alerts": {}}, "alerts"),
        ({"alerts": [1]}, "alerts[0]"),
        ({"alerts": [{"status": "firing"}]}, "alerts[0].labels"),
        ({"alerts": [{"status": "firing", "labels": []}]}, "alerts[0].labels"),
    ],
)
def test_what_is_not_a_notification_is_400(here: Receiver, body: dict[str, Any], at: str) -> None:
    """And is not handed on."""
    found = refused(here.post("/alertmanager", body, bearer(SECRET)), 400)
    assert [violation["at"] for violation in found["violations"]] == [at]
    assert here.handed == []


def test_a_bare_alert_is_enough(here: Receiver) -> None:
    """Only the state and the label are needed; what else is missing is not made up."""
    here.post("/alertmanager", {"alerts": [{"status": "firing", "labels": {"server_id": ONE}}]}, bearer(SECRET))
    request = here.only()
    assert (request.server_ids, request.reason, request.correlationid) == ((ONE,), "Alertmanager alarm", None)


# --- one event or two?


def ids(*notifications: tuple[list[Any], dict[str, Any]]) -> list[str]:
    """The event ids of these notifications, hours apart."""
    here = group_receiver()
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
    first, other, again = ids(*(([alert(id_, fingerprint=None)], {}) for id_ in (ONE, TWO, ONE)))
    assert first != other
    assert first == again


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": SECRET},
        {"authorization": "Bearer"},
        {"authorization": f"Token {SECRET}"},
        {"authorization": f"Basic {SECRET}"},
        {"authorization": "Basic ====="},
        {"authorization": "Basic é"},
        basic("", user=SECRET),
    ],
)
def test_any_other_credentials_are_401(here: Receiver, headers: dict[str, str]) -> None:
    """Nothing is handed on."""
    refused(here.post("/alertmanager", group(alert(ONE)), headers), 401)
    assert here.handed == []


def test_case_and_spaces_of_the_scheme_do_not_count() -> None:
    """As HTTP has it."""
    credentials = {"Authorization": f"bearer  {SECRET} "}
    assert group_receiver().post("/alertmanager", group(alert(ONE)), credentials).status == 200


def test_alerts_that_were_left_out_are_counted(here: Receiver) -> None:
    """In the log, the answer and the request; the others are handed on."""
    with logged() as lines:
        answer = send(here, alert(ONE), truncatedAlerts=3)
    assert [line["left_out"] for line in lines.of("the producer left alerts out; raise its limit")] == [3]
    assert (json_of(answer)["left_out"], here.only().left_out, here.only().server_ids) == (3, 3, (ONE,))


@pytest.mark.parametrize("count", [True, -1, "3", 1.5, None])
def test_a_count_that_is_no_number_is_ignored(here: Receiver, count: object) -> None:
    """The alerts are handed on."""
    assert send(here, alert(ONE), truncatedAlerts=count).status == 200
    assert here.only().left_out == 0


def test_a_long_reason_is_cut(here: Receiver) -> None:
    """Text for people never makes an alarm fail."""
    send(here, alert(ONE, annotations={"summary": "x\x00\n" * 1000}), groupKey="g" * 5000)
    request = here.only()
    assert request.reason is not None
    assert len(request.reason) == 500
    assert request.reason.endswith("…")
    assert request.correlationid is None
