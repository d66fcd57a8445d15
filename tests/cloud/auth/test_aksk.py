"""Requests signed with an access key: the known answer, what is signed, and what the cloud makes of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from handler.cloud.auth.aksk import Signer, canonical_path, canonical_query
from handler.errors import CloudFault, CloudUnexpectedAnswer, CloudUnreachable, LoginRefused
from handler.simulator import AccessKey, CallKind, Fault, Simulator
from handler.stop.model import Server
from handler.stop.ports import Taken
from tests.cloud.clients import Client
from tests.cloud.conftest import StartClient

PROJECT = "0123456789abcdef0123456789abcdef"
BODY = b'{"os-stop":{"type":"HARD","servers":[{"id":"11111111-2222-3333-4444-555555555555"}]}}'
URL = f"https://bms.eu-de.otc.t-systems.com/v1/{PROJECT}/baremetalservers/action"
THEN = datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC)


def _signed(
    url: str = URL, method: str = "POST", body: bytes | None = BODY, at: datetime = THEN, **options: Any
) -> dict[str, str]:
    """The headers of a request as it would go out, signed with the keys of the known answer."""
    signer = Signer(
        "AKEXAMPLE0000000TEST",
        "not-a-real-secret-for-tests-only",
        **{"project_id": PROJECT, "now": lambda: at, **options},
    )
    headers = {"Content-Type": "application/json", "Accept": "*/*"} if body else {}
    return signer.sign(method, url, headers, body)


def _client(cloud: Simulator, start: StartClient, key: AccessKey, api: str = "bms", **environ: str) -> Client:
    """A client that has an access key in place of a login."""
    address = "AUTOSTOP_BMS_URL" if api == "bms" else "AUTOSTOP_COMPUTE_URL"
    blank = dict.fromkeys(cloud.environ(), "")
    return start(cloud, **{**blank, **cloud.key_environ(key), "AUTOSTOP_API": api, address: cloud.url, **environ})


@pytest.fixture
def otc() -> Any:
    """A cloud that takes signatures."""
    with Simulator.otc() as cloud:
        yield cloud


def test_the_known_answer_comes_out() -> None:
    """The signature that was computed once by other code, for a permanent key and a sub-project."""
    request = _signed()
    assert request["X-Sdk-Date"] == "20250102T030405Z"
    assert request["Host"] == "bms.eu-de.otc.t-systems.com"
    assert request["X-Project-Id"] == PROJECT
    assert request["Authorization"] == (
        "SDK-HMAC-SHA256 Access=AKEXAMPLE0000000TEST, SignedHeaders=content-type;host;x-project-id;x-sdk-date, "
        "Signature=01e69983b52a95b388e953fe823d3f98a258753c2efd00f2e0611f6090a6a410"
    )


@pytest.mark.parametrize(
    "same",
    [
        {"url": URL.replace(".com", ".com:443")},
        {"url": f"{URL}/"},
        {"method": "post"},
        {"at": THEN.astimezone(timezone(timedelta(hours=5, minutes=30)))},
    ],
    ids=["the usual port", "a slash at the end", "a small method", "another zone"],
)
def test_the_same_request_in_another_guise_has_the_same_signature(same: dict[str, Any]) -> None:
    """Only what the cloud sees of it counts."""
    assert _signed(**same)["Authorization"] == _signed()["Authorization"]


@pytest.mark.parametrize(
    "other",
    [
        {"body": BODY.replace(b"HARD", b"SOFT")},
        {"url": URL.replace("action", "other")},
        {"url": f"{URL}?a=1"},
        {"url": URL.replace(".com", ".com:8443")},
        {"url": URL.replace("https", "http").replace(".com", ".com:443")},
        {"method": "PUT"},
        {"at": THEN + timedelta(seconds=1)},
        {"project_id": "another"},
        {"security_token": "temporary"},
    ],
)
def test_another_request_has_another_signature(other: dict[str, Any]) -> None:
    """Nothing that counts can be changed on the way."""
    assert _signed(**other)["Authorization"] != _signed()["Authorization"]


def test_what_is_not_given_is_neither_sent_nor_signed() -> None:
    """No project, no token, no body."""
    request = _signed(method="GET", body=None, project_id="")
    assert "SignedHeaders=host;x-sdk-date," in request["Authorization"]
    assert "X-Project-Id" not in request
    assert "X-Security-Token" not in request


def test_the_token_of_a_temporary_key_is_sent_and_signed() -> None:
    """As the cloud's own kit does it."""
    request = _signed(security_token="temporary")
    assert request["X-Security-Token"] == "temporary"
    assert "x-sdk-date;x-security-token," in request["Authorization"]


@pytest.mark.parametrize(
    ("path", "canonical"),
    [
        ("", "/"),
        ("/", "/"),
        ("/v1/a", "/v1/a/"),
        ("/v1/a/", "/v1/a/"),
        ("/a b/~c._-", "/a%20b/~c._-/"),
        ("/a%20b", "/a%20b/"),
        ("/a:b+c", "/a%3Ab%2Bc/"),
    ],
)
def test_a_path_is_encoded_by_segments_and_ends_in_a_slash(path: str, canonical: str) -> None:
    """Once, whether it comes encoded or not."""
    assert canonical_path(path) == canonical


@pytest.mark.parametrize(
    ("query", "canonical"),
    [
        ("", ""),
        ("offset=1&limit=1000", "limit=1000&offset=1"),
        ("b=2&a=2&a=1", "a=1&a=2&b=2"),
        ("a", "a="),
        ("a=", "a="),
        ("name=eu-de%20x/y", "name=eu-de%20x%2Fy"),
        ("name=a+b", "name=a%20b"),
    ],
)
def test_a_query_is_sorted_and_encoded(query: str, canonical: str) -> None:
    """By name, then by value."""
    assert canonical_query(query) == canonical


@pytest.mark.parametrize("temporary", [False, True])
@pytest.mark.parametrize("api", ["nova", "bms"])
def test_the_cloud_takes_every_call_that_is_signed(
    otc: Simulator, start_client: StartClient, api: str, temporary: bool
) -> None:
    """Look-up of the project by name, a read, a list with its query, a stop with its body."""
    key = otc.add_access_key(temporary=temporary)
    ids = [otc.add_server() for _ in range(6)]
    cloud = _client(otc, start_client, key, api).clouds.cloud(dry_run=False)
    assert isinstance(cloud.read(ids[:1], 5)[ids[0]], Server)
    assert {type(seen) for seen in cloud.read(ids, 5).values()} == {Server}
    assert isinstance(cloud.stop(ids[:1], 5)[ids[0]], Taken)
    assert {call.access_key for call in otc.calls} == {key.access}
    assert {call.status for call in otc.calls} <= {200, 204}
    assert otc.count(CallKind.LOGIN) == 0
    assert otc.actions(ids[0])[0].user_id == otc.user().id


def test_each_request_has_a_date_of_its_own(otc: Simulator) -> None:
    """One that is repeated a quarter of an hour later is not refused as old."""
    times = iter((THEN, THEN + timedelta(hours=1)))
    signer = Signer("a", "b", now=lambda: next(times))
    dates = [signer.sign("GET", otc.url, {}, None)["X-Sdk-Date"] for _ in range(2)]
    assert dates == ["20250102T030405Z", "20250102T040405Z"]


def test_a_wrong_secret_is_tried_once_a_minute(otc: Simulator, start_client: StartClient) -> None:
    """Five in a row lock the key for everybody."""
    key = otc.add_access_key()
    client = _client(otc, start_client, key, OS_SECRET_KEY="wrong", OS_PROJECT_NAME="", OS_PROJECT_ID=otc.project_id)
    cloud, server = client.clouds.cloud(dry_run=False), otc.add_server()
    for _ in range(4):
        with pytest.raises(LoginRefused):
            cloud.read([server], 5)
        with pytest.raises(LoginRefused):
            cloud.stop([server], 5)
    assert len(otc.calls) == 1
    client.clock.now += 59
    with pytest.raises(LoginRefused):
        cloud.read([server], 5)
    assert len(otc.calls) == 1
    client.clock.now += 1
    with pytest.raises(LoginRefused):
        cloud.read([server], 5)
    assert len(otc.calls) == 2


def test_a_wrong_secret_is_tried_once_for_the_look_up_too(otc: Simulator, start_client: StartClient) -> None:
    """The project's name has to be looked up first: the refusal is the same."""
    client = _client(otc, start_client, otc.add_access_key(), OS_SECRET_KEY="wrong")
    for _ in range(3):
        with pytest.raises(LoginRefused):
            client.login.access(5)
    assert len(otc.calls) == 1


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ({"status": 200, "body": '{"projects": []}'}, CloudUnexpectedAnswer),
        ({"status": 200, "body": '{"projects": [{"name": "eu-de", "id": 7}]}'}, CloudUnexpectedAnswer),
        (
            {"status": 200, "body": '{"projects": [{"name": "eu-de", "id": "a"}, {"name": "eu-de", "id": "b"}]}'},
            CloudUnexpectedAnswer,
        ),
        ({"status": 200, "body": "<html>"}, CloudUnexpectedAnswer),
        ({"status": 200, "body": "[]"}, CloudUnexpectedAnswer),
        ({"status": 500}, CloudFault),
        ({"status": 503}, CloudUnreachable),
        ({"status": 403}, LoginRefused),
    ],
)
def test_a_project_that_cannot_be_looked_up_is_reported(
    otc: Simulator, start_client: StartClient, fault: dict[str, Any], expected: type[Exception]
) -> None:
    """None, two, no name, no answer: a key without its project can do nothing."""
    client = _client(otc, start_client, otc.add_access_key())
    otc.inject(Fault(on=CallKind.OTHER, **fault))
    with pytest.raises(expected):
        client.login.access(5)


def test_a_project_of_a_longer_name_is_not_taken(otc: Simulator, start_client: StartClient) -> None:
    """IAM may filter by a part of the name."""
    projects = '{"projects": [{"name": "eu-de_ops", "id": "wrong"}, {"name": "eu-de", "id": "right"}]}'
    otc.inject(Fault(on=CallKind.OTHER, status=200, body=projects))
    assert _client(otc, start_client, otc.add_access_key()).login.access(5).project_id == "right"


def test_without_a_catalogue_the_hosts_of_open_telekom_cloud_follow_from_its_iam(
    otc: Simulator, start_client: StartClient
) -> None:
    """Which a key needs, as no token with a catalogue comes along; of another cloud nothing is guessed."""
    key = otc.add_access_key()
    named = {"OS_PROJECT_NAME": "", "OS_PROJECT_ID": "abc"}
    expected = {
        ("bms", "https://iam.eu-de.otc.t-systems.com/v3"): "https://bms.eu-de.otc.t-systems.com/v1/abc",
        ("nova", "https://iam.eu-nl.otc.t-systems.com/v3"): "https://ecs.eu-nl.otc.t-systems.com/v2.1/abc",
        ("bms", "https://iam-pub.eu-ch2.sc.otc.t-systems.com"): "https://bms.eu-ch2.sc.otc.t-systems.com/v1/abc",
    }
    for (api, iam), url in expected.items():
        address = {"bms": "AUTOSTOP_BMS_URL", "nova": "AUTOSTOP_COMPUTE_URL"}[api]
        client = _client(otc, start_client, key, api, OS_AUTH_URL=iam, **named, **{address: ""})
        assert client.endpoint.url(5) == url
    elsewhere = _client(otc, start_client, key, OS_AUTH_URL="https://iam.example/v3", **named, AUTOSTOP_BMS_URL="")
    with pytest.raises(CloudUnexpectedAnswer, match="bms API: this login brings no catalogue"):
        elsewhere.endpoint.url(5)
    assert otc.calls == []
