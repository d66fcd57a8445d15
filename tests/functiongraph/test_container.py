"""The container form on FunctionGraph: `POST /invoke` and `/init` over real HTTP, served as in production."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import requests

from handler.errors import BodyIncomplete
from handler.event_types import STOP_APPROVED, STOP_REQUESTED
from handler.functiongraph.container import Container
from handler.inbound.auth import caller
from handler.inbound.cloudevents import strict_json
from handler.inbound.http.request import HttpRequest
from handler.services.stop_servers import SharedResources
from handler.settings.common import Callers
from handler.settings.stop_servers import from_environ
from handler.simulator import AccessKey, CallKind, Fault, Simulator
from tests.conftest import serving
from tests.support.capture import logged
from tests.support.functiongraph import alarm, notifications, passage, record, requested, tick, trace
from tests.test_events_folder import schema_violations

GONE = "00000000-0000-4000-8000-000000000000"
COMPLETED = "io.github.bms-autostop.stop.completed.v1"
STRUCTURED = "application/cloudevents+json"
CANONICAL = {"server_id": GONE}
# What the platform sends to each container; project and region mean nothing.
ALWAYS = {
    "Content-Type": "application/json",
    "X-CFF-Request-Id": "1a6b2d0e-6a35-4a55-8b1c-9d7a3b2c1f00",
    "X-CFF-Func-Name": "bms-stop",
    "X-CFF-Func-Version": "latest",
    "X-CFF-Memory": "512",
    "X-CFF-Timeout": "60",
    "X-CFF-Package": "default",
    "X-CFF-Project-Id": "sn",
    "X-CFF-Region": "cn",
}
_LOGIN = ("X-CFF-Auth-Token", "X-CFF-Security-Access-Key", "X-CFF-Security-Secret-Key", "X-CFF-Security-Token")
NULL = dict.fromkeys(_LOGIN, "null")
BEARER = {"AUTOSTOP_INBOUND_AUTH": "bearer", "AUTOSTOP_BEARER_TOKENS": "marked-bearer-token"}
CREDENTIALS = {"authorization": "Bearer marked-bearer-token"}


Start = Callable[..., str]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch, otc: Simulator) -> Iterator[Start]:
    """Start the container with settings of one's own, and no login unless they have one; gives its URL."""
    with serving(monkeypatch) as serve:

        def started(**environ: str) -> str:
            wanted = {
                "AUTOSTOP_INBOUND_AUTH": "none",
                "AUTOSTOP_COMPUTE_URL": otc.url,
                "AUTOSTOP_SMN_URL": otc.url,
                "AUTOSTOP_MAX_EVENT_AGE": "0",
                "AUTOSTOP_WAIT": "5s",
                "AUTOSTOP_LOG_LEVEL": "DEBUG",
                "RUNTIME_PROJECT_ID": otc.project_id,
                "RUNTIME_FUNC_NAME": "bms-stop",
            }
            return serve("stop_servers", {**wanted, **environ})

        yield started


@pytest.fixture
def url(start: Start) -> str:
    """The container with the settings that most tests want."""
    return start()


def send(url: str, event: object, path: str = "/invoke", **headers: str) -> requests.Response:
    """What the platform sends."""
    return requests.post(f"{url}{path}", data=json.dumps(event), headers={**ALWAYS, **headers}, timeout=60)


def agency(cloud: Simulator) -> dict[str, str]:
    """The headers with a token as the login."""
    return {**NULL, "X-CFF-Auth-Token": cloud.token()}


def keys_of(key: AccessKey) -> dict[str, str]:
    """The headers with temporary keys as the login."""
    return dict(zip(_LOGIN, ("null", key.access, key.secret, key.security_token or ""), strict=True))


def result_of(answer: requests.Response) -> Any:
    """The result event in the body."""
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, STRUCTURED), answer.text
    document = answer.json()
    assert schema_violations("cloudevent-out.json", document) == []
    return document


def test_a_tick_is_handled_with_the_token_of_the_headers(otc: Simulator, url: str) -> None:
    """And the body of the answer is the whole result, as the platform passes on nothing else."""
    server = otc.add_server()
    result = result_of(send(url, tick({"server_id": server}), **agency(otc)))
    assert (result["type"], result["subject"]) == (COMPLETED, server)
    assert result["data"]["request"]["source"] == "/bms-autostop/functiongraph/bms-stop/timer"
    assert otc.count(CallKind.LOGIN) == 0


def test_temporary_keys_of_the_headers_serve_too(otc: Simulator, url: str) -> None:
    """Where the token is the text `null`."""
    server, key = otc.add_server(), otc.add_access_key(temporary=True)
    result = result_of(send(url, trace(resource_id=server), **keys_of(key)))
    assert result["data"]["servers"][0]["outcome"] == "stopped"
    assert {call.access_key for call in otc.calls} == {key.access}


@pytest.mark.parametrize("headers", [{}, NULL, {**NULL, "X-CFF-Security-Access-Key": "half"}])
def test_without_a_login_the_event_comes_again(otc: Simulator, url: str, headers: dict[str, str]) -> None:
    """The answer says what is missing. Headers inside of a gateway's request come from outside, and are no login."""
    inside = send(url, passage(CANONICAL, {"X-CFF-Auth-Token": otc.token()}), **headers)
    assert inside.json()["statusCode"] == 503
    answer = send(url, tick({"server_id": GONE}), **headers)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "60")
    assert answer.json()["type"] == "urn:bms-autostop:problem:login-missing"
    assert "agency" in answer.json()["detail"]
    assert otc.calls == []


def test_a_login_of_the_settings_goes_first(otc: Simulator, start: Start) -> None:
    """The headers are not looked at then."""
    server = otc.add_server()
    url = start(**otc.environ())
    result_of(send(url, tick({"server_id": server}), **{"X-CFF-Auth-Token": "wrong"}))
    assert otc.count(CallKind.LOGIN) == 1


def test_a_call_keeps_no_login_for_the_next(otc: Simulator, url: str) -> None:
    """Each has its own, or none."""
    event = tick({"server_id": otc.add_server()})
    result_of(send(url, event, **agency(otc)))
    assert send(url, event, **NULL).status_code == 503
    otc.revoke_tokens()
    result_of(send(url, event, **agency(otc)))


def test_calls_share_the_stop_limit(otc: Simulator, start: Start) -> None:
    """Each with a login of its own, and all in one process."""
    url = start(AUTOSTOP_MAX_SERVERS="1", AUTOSTOP_STOP_LIMIT="1/10m")
    first, second = otc.add_server(), otc.add_server()
    result_of(send(url, tick({"server_id": first}), **agency(otc)))
    answer = send(url, tick({"server_id": second}), **agency(otc))
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:bms-autostop:problem:stop-limit-reached")
    assert otc.stops_sent(second) == 0


def test_records_come_back_as_a_batch(otc: Simulator, url: str) -> None:
    """One alone as an event, several as a batch, none as nothing."""
    first, second = otc.add_server(), otc.add_server()
    one, two = record({"server_id": first}), record(alarm(second), message_id="b")
    over = record(alarm(alarm_status="ok"))
    answer = send(url, notifications(one, over, two), **agency(otc))
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/cloudevents-batch+json")
    assert [event["subject"] for event in answer.json()] == [first, second]
    assert result_of(send(url, notifications(one), **agency(otc)))["subject"] == first
    ignored = send(url, notifications(over), **agency(otc))
    assert (ignored.status_code, ignored.content) == (204, b"")


def test_with_a_topic_as_sink_the_answer_is_empty(otc: Simulator, start: Start) -> None:
    """The result is published with the login of the headers."""
    url = start(AUTOSTOP_RESULT_SINK=f"smn:{otc.add_topic()}")
    answer = send(url, tick({"server_id": otc.add_server()}), **agency(otc))
    assert (answer.status_code, answer.content) == (204, b"")
    (message,) = otc.published
    assert json.loads(message.message)["type"] == COMPLETED


@pytest.mark.parametrize("event", [{}, [], "text", tick("stop"), tick(time=None), {"cts": 1}])
def test_what_can_never_succeed_is_400(otc: Simulator, url: str, event: object) -> None:
    """With every fault."""
    answer = send(url, event, **agency(otc))
    assert answer.status_code == 400
    assert answer.json()["violations"]


def test_a_transient_error_is_503(otc: Simulator, start: Start) -> None:
    """And the time that the platform gives is the budget, if it is shorter."""
    otc.inject(Fault(on=CallKind.READ, status=503, times=None))
    headers = {**agency(otc), "X-CFF-Timeout": "1"}
    answer = send(start(), tick({"server_id": GONE}), **headers)
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:bms-autostop:problem:budget-spent")


# --- the caller


def test_init_is_answered(url: str) -> None:
    """There is nothing to do: the settings were right, or the process would not have started."""
    answer = requests.post(f"{url}/init", headers=ALWAYS, timeout=10)
    assert (answer.status_code, answer.content) == (200, b"")


def test_callers_are_authenticated_here_too(otc: Simulator, start: Start) -> None:
    """The platform has none, so that `none` has to be set explicitly for its own triggers."""
    url = start(**BEARER)
    for path, event in (("/invoke", tick("")), ("/invoke", "x"), ("/init", {})):
        assert send(url, event, path, **agency(otc)).status_code == 401
    assert result_of(send(url, tick(""), **agency(otc), **CREDENTIALS))
    assert send(url, {}, "/init", **CREDENTIALS).status_code == 200


def test_a_caller_at_the_gateway_authenticates_inside(otc: Simulator, start: Start) -> None:
    """The HTTP status is the platform's; the gateway's answer is in the body.

    The credentials of the call do not authenticate the client, and the body is decoded after it is authenticated.
    """
    url = start(**BEARER)
    data = {"server_id": otc.add_server()}
    for event, headers, status in (
        (passage(data), {}, 401),
        (passage(data), CREDENTIALS, 401),
        (passage(body="no base64"), {}, 401),
        (passage({}, CREDENTIALS, body="no base64"), {}, 400),
    ):
        answer = send(url, event, **agency(otc), **headers)
        assert (answer.status_code, answer.json()["statusCode"]) == (200, status)
    assert otc.calls == []
    answer = send(url, passage(data, CREDENTIALS), **agency(otc))
    assert (answer.status_code, answer.json()["statusCode"]) == (200, 200)
    assert set(answer.json()) == {"statusCode", "headers", "body", "isBase64Encoded"}


def test_only_the_named_callers_approve(otc: Simulator, start: Start) -> None:
    """On the container's own paths, and inside of the gateway's requests, where the credentials of the client count."""
    asks, approves = "token-that-asks-only", "token-that-approves"
    url = start(
        AUTOSTOP_INBOUND_AUTH="bearer",
        AUTOSTOP_BEARER_TOKENS=asks,
        AUTOSTOP_APPROVER_TOKENS=approves,
        AUTOSTOP_APPROVAL_KEYS="k" * 32,
    )
    id_ = otc.add_server()

    def cloud_event(type_: str) -> dict[str, str]:
        return {"ce-specversion": "1.0", "ce-id": type_, "ce-source": "/tests", "ce-type": type_}

    asked = {"server_ids": [id_], "approval": "self"}
    credentials = {bearer: {"Authorization": f"Bearer {bearer}"} for bearer in (asks, approves)}
    plan = send(url, asked, "/", **agency(otc), **credentials[asks], **cloud_event(STOP_REQUESTED))
    approval = {"plan": plan.json()["plan"]["token"], "approved_by": "slack:T1/U2"}
    for path in ("/", "/invoke"):
        answer = send(url, approval, path, **agency(otc), **credentials[asks], **cloud_event(STOP_APPROVED))
        assert answer.status_code == 403, answer.text
    inside = {name.lower(): value for name, value in cloud_event(STOP_APPROVED).items()}
    for bearer, status in ((asks, 403), (approves, 200)):
        event = passage(approval, {"authorization": f"Bearer {bearer}", **inside})
        assert send(url, event, **agency(otc)).json()["statusCode"] == status
    assert otc.stops_taken(id_) == 1


def test_a_caller_of_the_platforms_paths_is_authenticated_before_its_body(otc: Simulator) -> None:
    """Only what may be a request of the gateway is read, for five seconds: its caller's credentials are inside."""
    container = Container(SharedResources(from_environ({**BEARER, **otc.environ()})))
    waited: list[float] = []

    def content(within: float) -> bytes:
        waited.append(within)
        raise BodyIncomplete("The body did not arrive in time.")

    def status(path: str, **headers: str) -> int:
        return container.answer(HttpRequest("POST", path, headers, content, time.monotonic())).status

    assert (status("/init"), status("/"), waited) == (401, 401, [])
    assert (status("/invoke"), waited) == (503, [5.0])
    assert (status("/invoke", **CREDENTIALS), waited[1]) == (503, 20.0)


@pytest.mark.parametrize(
    ("body", "headers", "documents", "checks"),
    [
        (requested(GONE), {"content-type": STRUCTURED, **CREDENTIALS}, 1, 1),
        (requested(GONE), CREDENTIALS, 1, 1),
        (tick({"server_id": GONE}), CREDENTIALS, 1, 1),
        # The outer headers and those inside belong to two callers, and the document inside is another one.
        (passage(CANONICAL, CREDENTIALS), {}, 2, 2),
        (passage(requested(GONE), CREDENTIALS), {}, 2, 2),
        (passage(requested(GONE), {"content-type": STRUCTURED, **CREDENTIALS}), {}, 2, 2),
    ],
)
def test_nothing_is_authenticated_or_decoded_twice(
    otc: Simulator, monkeypatch: pytest.MonkeyPatch, body: object, headers: dict[str, str], documents: int, checks: int
) -> None:
    """Whatever kind of request it is."""
    decoded: list[object] = []
    checked: list[object] = []
    loads, authenticate = strict_json.loads, caller.authenticate

    def counting_loads(raw: bytes | str) -> object:
        decoded.append(bytes(raw) if isinstance(raw, bytes) else raw)
        return loads(raw)

    def counting_authenticate(given: Mapping[str, str], callers: Callers, until: float = float("inf")) -> None:
        checked.append(given)
        authenticate(given, callers, until)

    monkeypatch.setattr(strict_json, "loads", counting_loads)
    monkeypatch.setattr(caller, "authenticate", counting_authenticate)
    environ = {**BEARER, "AUTOSTOP_MAX_EVENT_AGE": "0", **otc.environ()}
    container = Container(SharedResources(from_environ(environ)))
    raw = json.dumps(body).encode()
    given = {"content-type": "application/json", **headers}
    answer = container.answer(HttpRequest("POST", "/invoke", given, raw, time.monotonic()))
    assert answer.status == 200, answer.body
    assert json.loads(answer.body).get("statusCode", 200) == 200
    # Text inside of a document, such as a timer's, is another document.
    assert len([text for text in decoded if isinstance(text, bytes)]) == documents
    assert len(set(decoded)) == len(decoded)
    assert len(checked) == checks


# --- CloudEvents


@pytest.mark.parametrize("path", ["/invoke", "/init", "/", "/anything"])
def test_a_cloudevent_is_accepted_on_any_path(otc: Simulator, url: str, path: str) -> None:
    """In any mode, with the login of the headers; the answer is as everywhere, in binary mode.

    On the platform's paths no header has to mark it as an event.
    """
    event = requested(otc.add_server())
    if path == "/init":
        assert send(url, event, path, **agency(otc)).headers["ce-type"] == COMPLETED
    answer = send(url, event, path, **{**agency(otc), "Content-Type": STRUCTURED})
    assert (answer.status_code, answer.headers["ce-type"]) == (200, COMPLETED)
    binary = {f"ce-{name}": str(value) for name, value in event.items() if name != "data"}
    again = send(url, event["data"], path, **agency(otc), **binary)
    assert (again.status_code, again.json()["servers"][0]["outcome"]) == (200, "unchanged")


def test_a_malformed_cloudevent_is_reported_as_everywhere(otc: Simulator, url: str) -> None:
    """Whichever path it comes to."""
    for body in ("{", '{"specversion": "1.0"}'):
        headers = {**ALWAYS, **agency(otc), "Content-Type": STRUCTURED}
        answer = requests.post(f"{url}/invoke", data=body, headers=headers, timeout=10)
        assert (answer.status_code, answer.json()["title"]) == (400, "The event can never succeed")


def test_the_container_is_alive_and_not_ready_by_itself(otc: Simulator, url: str) -> None:
    """A login comes with calls alone; with one it is ready. An event of a trigger is accepted at `/invoke` alone."""
    assert requests.get(f"{url}/healthz", timeout=10).status_code == 200
    assert requests.get(f"{url}/readyz", timeout=10).json()["type"] == "urn:bms-autostop:problem:login-missing"
    assert requests.get(f"{url}/readyz", headers=agency(otc), timeout=10).status_code == 200
    assert send(url, tick(""), "/", **agency(otc)).status_code == 415


# --- secrets


def test_no_secret_of_the_headers_is_logged_or_answered(otc: Simulator, start: Start) -> None:
    """Right or wrong, in success and in errors."""
    url = start()
    key = otc.add_access_key(temporary=True)
    secrets = [key.access, key.secret, key.security_token or "", otc.token(), "marked-bearer-token", "marked-key"]
    wrong = {"X-CFF-Auth-Token": "marked-bearer-token", "X-CFF-Security-Secret-Key": "marked-key"}
    malformed = {"X-CFF-Auth-Token": "marked-bearer-token with a space"}
    event = tick({"server_id": otc.add_server()})
    texts = []
    with logged("DEBUG") as lines:
        for headers in (keys_of(key), {"X-CFF-Auth-Token": secrets[3]}, wrong, malformed):
            for sent in (event, {}, tick("marked"), passage({"server_id": GONE})):
                answer = send(url, sent, **headers)
                texts.append(f"{answer.headers}{answer.text}")
    everything = lines.text + "".join(texts)
    assert lines.of("server handled")
    assert not [secret for secret in secrets if secret in everything]
