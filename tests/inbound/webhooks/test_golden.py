"""Golden pairs: what each producer sends, and the event that comes of it, or none. Signed here, with fresh keys."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from cloudevents.conversion import to_dict

from handler.inbound.webhooks.registry import SWITCHES
from handler.inbound.webhooks.smn import Smn
from handler.outbound.stop_request import stop_request_event
from handler.settings.receive_webhook import from_environ
from tests.inbound.webhooks.scene import NOW, Scene, bearer, form, fresh_secret, mac
from tests.inbound.webhooks.vendor import TOPIC, Vendor
from tests.test_events_folder import EVENTS

GOLDEN = EVENTS / "samples" / "webhooks"
NAMES = sorted(path.stem for path in GOLDEN.glob("*.json"))
SECRET = fresh_secret()
ENVIRON = {
    "AUTOSTOP_EVENT_SINK": "http://sink.example/",
    "AUTOSTOP_ALERTMANAGER_TOKEN": SECRET,
    "AUTOSTOP_GRAFANA_HMAC_SECRET": SECRET,
    "AUTOSTOP_GRAFANA_TIMESTAMP_HEADER": "X-Grafana-Time",
    "AUTOSTOP_AODH_TOKEN": SECRET,
    "AUTOSTOP_AZURE_TOKEN": SECRET,
    "AUTOSTOP_EVENTBRIDGE_TOKEN": SECRET,
    "AUTOSTOP_GITLAB_TOKEN": SECRET,
    "AUTOSTOP_SLACK_SIGNING_SECRET": SECRET,
    "AUTOSTOP_MATTERMOST_TOKENS": SECRET,
    "AUTOSTOP_TEAMS_SECRET": base64.b64encode(SECRET.encode()).decode(),
    "AUTOSTOP_ROCKETCHAT_TOKENS": SECRET,
    "AUTOSTOP_SMN_TOPICS": TOPIC,
}
SENT = str(int(NOW.timestamp()) - 5)


def _as_json(pair: Any) -> bytes:
    return json.dumps(pair["body"]).encode()


def _by_token(pair: Any, _: Vendor) -> tuple[bytes, dict[str, str], str]:
    return _as_json(pair), bearer(SECRET), ""


def _aodh(pair: Any, _: Vendor) -> tuple[bytes, dict[str, str], str]:
    return _as_json(pair), {}, f"token={SECRET}"


def _grafana(pair: Any, _: Vendor) -> tuple[bytes, dict[str, str], str]:
    body = _as_json(pair)
    signed = mac(SECRET, f"{SENT}:".encode() + body).hex()
    return body, {"x-grafana-time": SENT, "x-grafana-alerting-signature": signed}, ""


def _gitlab(pair: Any, _: Vendor) -> tuple[bytes, dict[str, str], str]:
    return _as_json(pair), {"x-gitlab-token": SECRET}, ""


def _slack(pair: Any, _: Vendor) -> tuple[bytes, dict[str, str], str]:
    body = form(pair["body"])
    signed = mac(SECRET, f"v0:{SENT}:".encode() + body).hex()
    return body, {"x-slack-request-timestamp": SENT, "x-slack-signature": f"v0={signed}"}, ""


def _mattermost(pair: Any, _: Vendor) -> tuple[bytes, dict[str, str], str]:
    return form({**pair["body"], "token": SECRET}), {}, ""


def _teams(pair: Any, _: Vendor) -> tuple[bytes, dict[str, str], str]:
    body = _as_json(pair)
    return body, {"authorization": "HMAC " + base64.b64encode(mac(SECRET, body)).decode()}, ""


def _rocketchat(pair: Any, _: Vendor) -> tuple[bytes, dict[str, str], str]:
    return json.dumps({**pair["body"], "token": SECRET}).encode(), {}, ""


def _smn(pair: Any, vendor: Vendor) -> tuple[bytes, dict[str, str], str]:
    return json.dumps(vendor.sign({**pair["body"], "message": _message(pair)})).encode(), {}, ""


def _message(pair: Any) -> str:
    # Kept as JSON in the golden file, so that it can be read; text on the wire.
    message = pair["body"]["message"]
    return message if isinstance(message, str) else json.dumps(message)


SIGN: dict[str, Callable[[Any, Vendor], tuple[bytes, dict[str, str], str]]] = {
    "/alertmanager": _by_token,
    "/grafana": _grafana,
    "/aodh": _aodh,
    "/azure-monitor": _by_token,
    "/eventbridge": _by_token,
    "/gitlab": _gitlab,
    "/slack": _slack,
    "/mattermost": _mattermost,
    "/teams": _teams,
    "/rocketchat": _rocketchat,
    "/smn": _smn,
}


@pytest.fixture(scope="module")
def vendor() -> Vendor:
    """SMN."""
    return Vendor()


def play(pair: Any, vendor: Vendor) -> tuple[int, list[dict[str, Any]]]:
    """Send what the producer sends: the status of the answer, and the events that were handed on."""
    environ = {**ENVIRON, **pair["settings"]}
    here = Scene(**environ)
    settings = from_environ(environ)
    here.producers["/smn"] = Smn(settings, "/bms-autostop/smn", vendor.get)  # type: ignore[index]
    body, headers, query = SIGN[pair["path"]](pair, vendor)
    answer = here.post(pair["path"], body, {**pair["headers"], **headers}, query=query)
    return answer.status, [dict(to_dict(stop_request_event(request, {}))) for request in here.handed]


@pytest.mark.parametrize("name", NAMES)
def test_each_golden_pair_comes_true(name: str, vendor: Vendor) -> None:
    """The whole event, or none, and the status; and no UUID of anything else is among the servers."""
    pair = json.loads((GOLDEN / f"{name}.json").read_text())
    status, events = play(pair, vendor)
    assert status == pair["status"]
    assert events == ([] if pair["event"] is None else [pair["event"]])
    for event in events:
        assert not set(pair["decoys"]) & set(event["data"].get("server_ids", []))


def test_each_producer_has_a_pair_that_acts_and_one_that_does_not() -> None:
    """A new producer cannot be forgotten here."""
    pairs = [json.loads((GOLDEN / f"{name}.json").read_text()) for name in NAMES]
    assert {pair["path"] for pair in pairs if pair["event"]} == set(SWITCHES)
    assert {pair["path"] for pair in pairs if not pair["event"]} == set(SWITCHES)
