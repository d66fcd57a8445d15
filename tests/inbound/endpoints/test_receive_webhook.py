"""The endpoint of `receive_webhook`: paths, methods, when the body is read, and what is loaded."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from handler.errors import BodyIncomplete
from handler.inbound.webhooks import registry
from tests.inbound.webhooks.scene import NOW, ONE, Scene, basic, bearer, fresh_secret, refused, says

TOKEN = fresh_secret()
BODY = {"alerts": [{"status": "firing", "labels": {"server_id": ONE}}]}


def scene(down: bool = False, **environ: Any) -> Scene:
    """One producer switched on."""
    return Scene(down=down, **{"AUTOSTOP_ALERTMANAGER_TOKEN": TOKEN, **environ})


@pytest.mark.parametrize("path", ["", "/", "/nobody", "/alertmanager//", "/Alertmanager", "//alertmanager", "/door"])
def test_an_unknown_path_is_403(path: str) -> None:
    """Whatever proof is shown."""
    here = scene()
    refused(here.post(path, BODY, bearer(TOKEN)), 403)
    assert here.handed == []


@pytest.mark.parametrize("path", sorted(registry.SWITCHES))
def test_a_producer_without_its_secret_is_switched_off(path: str) -> None:
    """It answers 403, as if it did not exist, and is not loaded."""
    here = Scene()
    refused(here.post(path, BODY, bearer("")), 403)
    assert here.producers == {}


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "OPTIONS", "DELETE", "BREW"])
def test_only_post_is_served(method: str) -> None:
    """There is no handshake here either."""
    answer = scene().post("/alertmanager", BODY, bearer(TOKEN), method=method)
    refused(answer, 405)
    assert answer.headers["Allow"] == "POST"


@pytest.mark.parametrize(("path", "status"), [("/healthz", "alive"), ("/readyz", "ready")])
def test_health_is_answered(path: str, status: str) -> None:
    """By GET; a POST there is no webhook."""
    here = scene()
    answer = here.post(path, method="GET")
    assert (answer.status, says(answer)) == (200, {"status": status})
    refused(here.post(path, BODY, bearer(TOKEN)), 403)


KEY = base64.b64encode(TOKEN.encode()).decode()
STAMP = str(int(NOW.timestamp()))
IN_HEADERS = [
    ("/alertmanager", {"AUTOSTOP_ALERTMANAGER_TOKEN": TOKEN}, bearer(TOKEN), ""),
    ("/grafana", {"AUTOSTOP_GRAFANA_TOKEN": TOKEN}, bearer(TOKEN), ""),
    ("/aodh", {"AUTOSTOP_AODH_TOKEN": TOKEN}, {}, f"token={TOKEN}"),
    ("/azure-monitor", {"AUTOSTOP_AZURE_TOKEN": TOKEN}, {}, f"token={TOKEN}"),
    ("/eventbridge", {"AUTOSTOP_EVENTBRIDGE_TOKEN": TOKEN}, basic(TOKEN), ""),
    ("/gitlab", {"AUTOSTOP_GITLAB_TOKEN": TOKEN}, {"x-gitlab-token": TOKEN}, ""),
]
IN_THE_BODY = [
    ("/grafana", {"AUTOSTOP_GRAFANA_HMAC_SECRET": TOKEN}, {"x-grafana-alerting-signature": "00"}),
    (
        "/gitlab",
        {"AUTOSTOP_GITLAB_SIGNING_TOKEN": f"whsec_{KEY}"},
        {"webhook-id": "1", "webhook-timestamp": STAMP, "webhook-signature": "v1,00"},
    ),
    ("/smn", {"AUTOSTOP_SMN_TOPICS": "urn:smn:eu-de:0123456789abcdef0123456789abcdef:stop"}, {}),
    (
        "/slack",
        {"AUTOSTOP_SLACK_SIGNING_SECRET": TOKEN},
        {"x-slack-request-timestamp": STAMP, "x-slack-signature": "v0=00"},
    ),
    ("/mattermost", {"AUTOSTOP_MATTERMOST_TOKENS": TOKEN}, {}),
    ("/mattermost", {"AUTOSTOP_MATTERMOST_TOKENS": TOKEN}, {"content-type": "application/json"}),
    ("/teams", {"AUTOSTOP_TEAMS_SECRET": KEY}, {"authorization": "HMAC 00"}),
    ("/rocketchat", {"AUTOSTOP_ROCKETCHAT_TOKENS": TOKEN}, {}),
]


class Reading:
    """A body that does not arrive; it writes down how long it was waited for."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def __call__(self, within: float) -> bytes:
        self.seconds.append(within)
        raise BodyIncomplete("The body did not arrive in time.")


@pytest.mark.parametrize(("path", "environ", "headers", "query"), IN_HEADERS)
def test_proof_in_the_headers_comes_before_the_body(
    path: str, environ: dict[str, Any], headers: dict[str, str], query: str
) -> None:
    """Without it the body is not read; with it, it may take 20 seconds."""
    here = Scene(**environ)
    body = Reading()
    refused(here.post(path, body, bearer("wrong"), query="token=wrong"), 401)
    assert body.seconds == []
    refused(here.post(path, body, headers, query=query), 503)
    assert body.seconds == [20.0]


@pytest.mark.parametrize(("path", "environ", "headers"), IN_THE_BODY)
def test_a_body_that_is_the_proof_has_five_seconds(path: str, environ: dict[str, Any], headers: dict[str, str]) -> None:
    """A thread waits for it, and nobody knows yet for whom."""
    body = Reading()
    refused(Scene(**environ).post(path, body, headers), 503)
    assert body.seconds == [5.0]


def test_each_producer_has_its_place_above() -> None:
    """The next one too."""
    assert {row[0] for row in (*IN_HEADERS, *IN_THE_BODY)} == set(registry.SWITCHES)
