"""Grafana: token and signature, with and without a signed time; the alerts are read as Alertmanager's are."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from handler.inbound.http.responses import Answer
from tests.inbound.webhooks.scene import (
    JSON,
    NOW,
    ONE,
    THREE,
    TWO,
    Scene,
    basic,
    bearer,
    fresh_secret,
    mac,
    refused,
)

TOKEN, SECRET = fresh_secret(), fresh_secret()
SENT = int(NOW.timestamp()) - 5
BY_TOKEN: dict[str, Any] = {"AUTOSTOP_GRAFANA_TOKEN": TOKEN}
BY_MAC: dict[str, Any] = {"AUTOSTOP_GRAFANA_HMAC_SECRET": SECRET}
BY_TIMED_MAC: dict[str, Any] = {**BY_MAC, "AUTOSTOP_GRAFANA_TIMESTAMP_HEADER": "X-Grafana-Time"}


def alert(server: str, status: str = "firing", starts_at: str = "2026-11-20T12:00:00Z") -> dict[str, Any]:
    """One alert."""
    return {
        "status": status,
        "labels": {"alertname": "Idle", "server_id": server, "grafana_folder": "bms"},
        "annotations": {"summary": "idle for 6h"},
        "startsAt": starts_at,
        "endsAt": "0001-01-01T00:00:00Z",
        "fingerprint": server[:16],
        "values": {"A": 1.2},
        "valueString": "[ var='A' value=1.2 ]",
        "ruleUID": "0b9ee6a1-7ba3-4f8e-bd0e-5a8f4bd0a001",
        "orgId": 1,
    }


def group(*alerts: Any, **changes: Any) -> bytes:
    """One notification; its title and rules hold UUIDs of other things."""
    document = {
        "receiver": "bms-stop",
        "status": "firing",
        "orgId": 1,
        "groupKey": '{}:{alertname="Idle"}',
        "groupLabels": {"alertname": "Idle"},
        "commonLabels": {},
        "commonAnnotations": {},
        "externalURL": "http://grafana.example/",
        "version": "1",
        "truncatedAlerts": 0,
        "title": f"[FIRING:1] {THREE}",
        "state": "alerting",
        "message": f"about {THREE}",
        "alerts": list(alerts),
        **changes,
    }
    return json.dumps(document).encode()


def signed(body: bytes, at: int | None = None, secret: str = SECRET) -> dict[str, str]:
    """The headers that authenticate a body, with or without a time."""
    if at is None:
        return {**JSON, "X-Grafana-Alerting-Signature": mac(secret, body).hex()}
    timed = f"{at}:".encode() + body
    return {**JSON, "X-Grafana-Alerting-Signature": mac(secret, timed).hex(), "X-Grafana-Time": str(at)}


def timed(here: Scene, *alerts: Any, at: int = SENT) -> Answer:
    """A notification with a signed time."""
    body = group(*alerts)
    return here.post("/grafana", body, signed(body, at))


@pytest.mark.parametrize("credentials", [bearer, basic])
def test_a_token_is_enough_where_only_it_is_set(credentials: Any) -> None:
    """Each alert is gated by itself; without a signed time the receipt counts."""
    here = Scene(**BY_TOKEN)
    body = group(alert(ONE), alert(TWO, "resolved"))
    assert here.post("/grafana", body, credentials(TOKEN)).status == 200
    request = here.only()
    assert (request.server_ids, request.time, request.source) == ((ONE,), NOW, "/bms-autostop/grafana")
    assert request.reason == "Grafana alarm Idle: idle for 6h"


def test_a_signature_is_enough_where_only_it_is_set() -> None:
    """Over the body alone."""
    here = Scene(**BY_MAC)
    body = group(alert(ONE))
    assert here.post("/grafana", body, signed(body)).status == 200
    assert here.only().time == NOW


def test_the_signed_time_is_the_events() -> None:
    """It is when Grafana sent it, never when the alarm began."""
    here = Scene(**BY_TIMED_MAC)
    assert timed(here, alert(ONE)).status == 200
    assert here.only().time == datetime.fromtimestamp(SENT, UTC)


def test_with_both_set_both_are_needed() -> None:
    """With a signature set, a token is not enough."""
    here = Scene(**BY_TOKEN, **BY_MAC)
    body = group(alert(ONE))
    refused(here.post("/grafana", body, bearer(TOKEN)), 401)
    refused(here.post("/grafana", body, signed(body)), 401)
    assert here.post("/grafana", body, {**bearer(TOKEN), **signed(body)}).status == 200
    assert len(here.handed) == 1


@pytest.mark.parametrize("alerts", [[], [alert(ONE, "resolved")], [alert(ONE, "pending")], [alert("")]])
def test_nothing_to_act_on_is_204(alerts: list[Any]) -> None:
    """Resolved, unknown, or about no server."""
    here = Scene(**BY_TIMED_MAC)
    assert timed(here, *alerts).status == 204
    assert here.handed == []


def test_a_malformed_id_is_400() -> None:
    """And nothing of the group is handed on."""
    here = Scene(**BY_TIMED_MAC)
    found = refused(timed(here, alert(ONE, "resolved"), alert("bms-01")), 400)
    assert found["faults"] == [{"at": "alerts[1].labels.server_id", "fault": "must be a UUID"}]
    refused(here.post("/grafana", b"{", signed(b"{", SENT)), 400)
    assert here.handed == []


def test_with_a_signed_time_a_repeat_is_another_event_and_a_redelivery_is_not() -> None:
    """The time distinguishes them."""
    here = Scene(**BY_TIMED_MAC)
    for at in (SENT, SENT, SENT + 60):
        timed(here, alert(ONE), at=at)
    first, again, repeat = (request.id for request in here.handed)
    assert first == again != repeat


def test_without_one_a_repeat_has_the_id_of_the_first() -> None:
    """They cannot be distinguished; another start of the alarm can."""
    here = Scene(**BY_TOKEN)
    for starts_at in ("2026-11-20T12:00:00Z", "2026-11-20T12:00:00Z", "2026-11-20T17:00:00Z"):
        here.post("/grafana", group(alert(ONE, starts_at=starts_at)), bearer(TOKEN))
        here.later(hours=1)
    first, again, other = (request.id for request in here.handed)
    assert first == again != other


# --- forgery


def test_a_signature_without_the_time_does_not_pass_for_one_with_it() -> None:
    """Nor the other way round."""
    body = group(alert(ONE))
    here = Scene(**BY_TIMED_MAC)
    refused(here.post("/grafana", body, {**signed(body), "X-Grafana-Time": str(SENT)}), 401)
    untimed = Scene(**BY_MAC)
    refused(untimed.post("/grafana", body, signed(body, SENT)), 401)
    assert here.handed == untimed.handed == []
