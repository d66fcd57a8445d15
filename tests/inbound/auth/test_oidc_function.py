"""The whole function with `AUTOSTOP_INBOUND_AUTH=oidc`: over real HTTP, before a real key server."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from handler.event_types import STOP_APPROVED
from handler.inbound.endpoints.notify_chat import NotifyEndpoint
from handler.inbound.http.request import HttpRequest
from handler.settings import notify_chat as notify_settings
from handler.simulator import CallKind, Simulator
from tests.conftest import StartFunction
from tests.support.capture import logged
from tests.support.events import FakeHandler, binary, call_endpoint
from tests.support.issuer import DISCOVERY, JWKS, SUBJECT, Issuer, bearer, claims, jwk, rsa_key, token
from tests.test_events_folder import schema_violations


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    """An issuer for one test."""
    with Issuer() as running:
        yield running


def credentials(issuer: Issuer, key: str = "first", kid: str = "one", **changes: Any) -> dict[str, str]:
    """The header with a token that is valid now, but for the changes."""
    now = int(time.time())
    content = claims(**{"iss": issuer.url, "iat": now, "nbf": now, "exp": now + 600, **changes})
    return bearer(token(content, rsa_key(key), kid))


def problem(answer: requests.Response) -> str:
    """The name of the problem in an answer that keeps to its schema."""
    document = answer.json()
    assert schema_violations("problem.json", document) == []
    name: str = document["type"].rpartition(":")[2]
    return name


def stops(cloud: Simulator) -> int:
    """How many stops the cloud received."""
    return cloud.count(CallKind.STOP)


def test_a_caller_with_a_token_stops_a_server(cloud: Simulator, start_function: StartFunction, issuer: Issuer) -> None:
    """The keys are fetched once for all events."""
    function = start_function(cloud, **issuer.environ())
    for _ in range(3):
        server = cloud.add_server()
        answer = function.send({"server_ids": [server]}, headers=credentials(issuer))
        assert (answer.status_code, cloud.server(server).vm_state) == (200, "stopped")
    assert (issuer.count(DISCOVERY), issuer.count(JWKS)) == (1, 1)


def test_without_a_good_token_nothing_happens(cloud: Simulator, start_function: StartFunction, issuer: Issuer) -> None:
    """401 and 403, and neither the log nor the answer repeats anything of the token."""
    function = start_function(cloud, **issuer.environ())
    server = cloud.add_server()
    expired = credentials(issuer, exp=int(time.time()) - 60)
    stranger = credentials(issuer, sub="marked-subject", email="marked@p.example", email_verified=True)
    forged = credentials(issuer, key="second", jti="marked-id")
    unknown = credentials(issuer, kid="marked-kid")
    expected = [
        ({}, 401, "unauthenticated"),
        (expired, 401, "unauthenticated"),
        (forged, 401, "unauthenticated"),
        (unknown, 401, "unauthenticated"),
        (unknown, 401, "unauthenticated"),
        (stranger, 403, "caller-forbidden"),
        ({"authorization": "Basic " + stranger["authorization"].split()[1]}, 401, "unauthenticated"),
    ]
    with logged("DEBUG") as lines:
        for headers, status, name in expected:
            answer = function.send({"server_ids": [server]}, headers=headers)
            assert (answer.status_code, problem(answer)) == (status, name)
            assert ("WWW-Authenticate" in answer.headers) is (status == 401)
            shown = answer.text + str(answer.headers) + lines.text
            assert "marked" not in shown
            assert SUBJECT not in shown
            assert not any(part in shown for part in headers.get("authorization", "").split(".")[1:])
    assert stops(cloud) == 0


def test_a_key_server_that_is_down_is_503(cloud: Simulator, start_function: StartFunction, issuer: Issuer) -> None:
    """Neither a pass nor a 401, which a broker takes for final; whatever the token is, nothing is stopped."""
    del issuer.pages[JWKS]
    function = start_function(cloud, **issuer.environ())
    server = cloud.add_server()
    for headers in (credentials(issuer), credentials(issuer, key="second"), credentials(issuer, sub="stranger")):
        answer = function.send({"server_ids": [server]}, headers=headers)
        assert (answer.status_code, problem(answer)) == (503, "keys-unreachable")
        assert 1 <= int(answer.headers["Retry-After"]) <= 10
    ready = requests.get(f"{function.url}/readyz", timeout=30)
    assert (ready.status_code, problem(ready)) == (503, "keys-unreachable")
    assert requests.get(f"{function.url}/healthz", timeout=30).status_code == 200
    assert (issuer.count(DISCOVERY), issuer.count(JWKS), stops(cloud)) == (1, 1, 0)


def test_ready_is_who_has_keys_and_a_login(cloud: Simulator, start_function: StartFunction, issuer: Issuer) -> None:
    """The first event then waits for neither; a second probe makes no call."""
    function = start_function(cloud, **issuer.environ())
    for _ in range(3):
        assert requests.get(f"{function.url}/readyz", timeout=30).status_code == 200
    assert issuer.count(JWKS) == 1
    issuer.pages.clear()
    server = cloud.add_server()
    assert function.send({"server_ids": [server]}, headers=credentials(issuer)).status_code == 200


def test_keys_rotate_under_a_running_function(cloud: Simulator, start_function: StartFunction, issuer: Issuer) -> None:
    """The new key is accepted with its first token, and the old one still is."""
    function = start_function(cloud, **issuer.environ())
    servers = [cloud.add_server() for _ in range(3)]
    assert function.send({"server_ids": servers[:1]}, headers=credentials(issuer)).status_code == 200
    issuer.publish(jwk(rsa_key("first"), "one"), jwk(rsa_key("second"), "two"))
    assert function.send({"server_ids": servers[1:2]}, headers=credentials(issuer, "second", "two")).status_code == 200
    assert function.send({"server_ids": servers[2:]}, headers=credentials(issuer)).status_code == 200
    assert issuer.count(JWKS) == 2


def test_the_handshake_needs_no_token(issuer: Issuer) -> None:
    """A sender asks for consent before it has credentials, and no keys are fetched for that."""
    environ: dict[str, Any] = issuer.environ(AUTOSTOP_WEBHOOK_ORIGINS="eventgrid.azure.net")
    headers = {"webhook-request-origin": "eventgrid.azure.net"}
    answer = call_endpoint(({}, b""), method="OPTIONS", headers=headers, **environ)
    assert (answer.status, answer.headers["WebHook-Allowed-Origin"]) == (200, "eventgrid.azure.net")
    assert issuer.asked == []


def test_an_unauthenticated_caller_learns_nothing_about_its_body(issuer: Issuer) -> None:
    """The caller is authenticated before the body is read."""
    fake = FakeHandler()
    answer = call_endpoint(({"content-type": "text/plain"}, b"hello"), fake, **issuer.environ())
    assert (answer.status, fake.requests) == (401, [])
    answer = call_endpoint(binary(), fake, headers=credentials(issuer), received=time.monotonic(), **issuer.environ())
    assert (answer.status, len(fake.requests)) == (200, 1)


def test_the_issuer_is_not_waited_for_beyond_the_budget(issuer: Issuer) -> None:
    """An event that has used its time up is answered, and no keys are fetched for it."""
    late: dict[str, Any] = {"received": time.monotonic() - 51, "headers": credentials(issuer)}
    answer = call_endpoint(binary(), **late, **issuer.environ())
    assert (answer.status, json.loads(answer.body)["type"].rpartition(":")[2]) == (503, "keys-unreachable")
    settings = notify_settings.from_environ(issuer.environ())
    request = HttpRequest("POST", "/", {**binary()[0], **credentials(issuer)}, b"", time.monotonic() - 51)
    assert NotifyEndpoint(settings, lambda *_: None).answer(request).status == 503
    assert issuer.asked == []


def test_only_the_named_subjects_may_send_approvals(
    cloud: Simulator, start_function: StartFunction, issuer: Issuer
) -> None:
    """Of the callers that may ask, and of those that may approve."""
    function = start_function(
        cloud,
        **issuer.environ(),
        AUTOSTOP_APPROVAL_KEYS="k" * 32,
        AUTOSTOP_APPROVER_SUBJECTS="webhooks",
    )
    data = {"server_ids": [cloud.add_server()], "approval": "self"}
    plan = function.send(data, headers=credentials(issuer)).json()["plan"]["token"]
    approval = {"plan": plan, "approved_by": "slack:T1/U1"}
    refused = function.send(approval, type=STOP_APPROVED, headers=credentials(issuer))
    assert (refused.status_code, problem(refused)) == (403, "caller-forbidden")
    assert stops(cloud) == 0
    answer = function.send(approval, type=STOP_APPROVED, headers=credentials(issuer, sub="webhooks"))
    assert (answer.status_code, stops(cloud)) == (200, 1)
