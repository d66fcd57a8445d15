"""`keep_servers` as a container on FunctionGraph: CloudEvents, and the gateway's calls, with the login of the call."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from handler.simulator import Simulator
from handler.simulator.calls import CallKind
from tests.conftest import KEEP, serving
from tests.functiongraph.test_container import ALWAYS
from tests.support.functiongraph import alarm, passage, tick

KEY = "autostop-keep-until"
TOKEN = "token-of-this-test"
STRUCTURED = "application/cloudevents+json"


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch, otc: Simulator) -> Iterator[str]:
    """The container without a login of its own."""
    with serving(monkeypatch) as serve:
        yield serve(
            "keep_servers",
            {
                "AUTOSTOP_INBOUND_AUTH": "bearer",
                "AUTOSTOP_BEARER_TOKENS": TOKEN,
                "AUTOSTOP_COMPUTE_URL": otc.url,
                "RUNTIME_PROJECT_ID": otc.project_id,
                "OS_REGION_NAME": "eu-de",
            },
        )


def event(server: str) -> dict[str, Any]:
    """A keep of one server in the JSON format."""
    data = {"server_ids": [server], "for": "1h"}
    return {"specversion": "1.0", "id": "k", "source": "/tests", "type": KEEP, "data": data}


def through_gateway(server: str, token: str = TOKEN) -> dict[str, Any]:
    """What the platform sends for a request to the gateway."""
    headers = {"Content-Type": STRUCTURED, "Authorization": f"Bearer {token}"}
    return passage(json.dumps(event(server)), headers)


def send(url: str, document: object, path: str = "/invoke", **headers: str) -> requests.Response:
    """Send what the platform does."""
    return requests.post(f"{url}{path}", json=document, headers={**ALWAYS, **headers}, timeout=60)


def test_a_gateways_request_is_kept_with_the_login_of_the_call(otc: Simulator, url: str) -> None:
    """The answer is in the gateway's form."""
    server = otc.add_server()
    answer = send(url, through_gateway(server), **{"X-CFF-Auth-Token": otc.token()})
    assert (answer.status_code, answer.json()["statusCode"]) == (200, 200), answer.text
    assert json.loads(answer.json()["body"])["summary"]["kept"] == 1
    assert KEY in otc.server(server).metadata
    assert otc.count(CallKind.LOGIN) == 0


def test_the_caller_inside_is_authenticated(otc: Simulator, url: str) -> None:
    """The platform's own call does not authenticate the caller."""
    server = otc.add_server()
    answer = send(url, through_gateway(server, "another-token-of-it"), **{"X-CFF-Auth-Token": otc.token()})
    assert answer.json()["statusCode"] == 401
    assert otc.server(server).metadata == {}


def test_an_event_is_taken_on_any_path(otc: Simulator, url: str) -> None:
    """As everywhere; with the login of its headers."""
    server = otc.add_server()
    headers = {"Content-Type": STRUCTURED, "Authorization": f"Bearer {TOKEN}", "X-CFF-Auth-Token": otc.token()}
    answer = requests.post(f"{url}/invoke", json=event(server), headers={**ALWAYS, **headers}, timeout=60)
    assert answer.json()["summary"]["kept"] == 1


def test_a_call_without_a_login_is_reported(otc: Simulator, url: str) -> None:
    """503: the function has no agency."""
    inside = send(url, through_gateway(otc.add_server())).json()
    assert inside["statusCode"] == 503
    assert "login-missing" in inside["body"]


@pytest.mark.parametrize("document", [tick(), alarm()])
def test_other_triggers_bring_nothing(url: str, document: object) -> None:
    """They are refused rather than taken for something else."""
    assert send(url, document).status_code == 415


def test_the_platforms_own_questions_are_answered(otc: Simulator, url: str) -> None:
    """An init, and probes."""
    headers = {"X-CFF-Auth-Token": otc.token()}
    assert send(url, {}, path="/init").status_code == 200
    assert requests.get(f"{url}/healthz", timeout=30).status_code == 200
    assert requests.get(f"{url}/readyz", headers=headers, timeout=30).status_code == 200
