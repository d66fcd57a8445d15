"""Access keys: the signature of requests, and the look-up of the project."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
    """The headers of a request that is signed with the keys of the known signature."""
    options = {"project_id": PROJECT, "now": lambda: at, **options}
    signer = Signer("AKEXAMPLE0000000TEST", "not-a-real-secret-for-tests-only", **options)
    return signer.sign(method, url, {"Content-Type": "application/json", "Accept": "*/*"} if body else {}, body)


@pytest.fixture
def otc() -> Iterator[Simulator]:
    """A cloud that accepts signatures."""
    with Simulator.otc() as cloud:
        yield cloud


StartKeyClient = Callable[..., Client]


@pytest.fixture
def start_key_client(otc: Simulator, start_client: StartClient) -> StartKeyClient:
    """Make a client with an access key, a new one if none is given."""

    def start(key: AccessKey | None = None, api: str = "bms", **environ: str) -> Client:
        setting = {"bms": "AUTOSTOP_BMS_URL", "nova": "AUTOSTOP_COMPUTE_URL"}[api]
        login = {**dict.fromkeys(otc.environ(), ""), **otc.key_environ(key or otc.add_access_key())}
        return start_client(otc, **{**login, "AUTOSTOP_API": api, setting: otc.url, **environ})

    return start


def test_the_signature_is_that_of_another_implementation() -> None:
    """For a permanent key and a sub-project."""
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
    ids=["the default port", "a slash at the end", "a method in lower case", "another time zone"],
)
def test_the_same_request_in_another_form_has_the_same_signature(same: dict[str, Any]) -> None:
    """As the cloud receives it."""
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
    """No signed part can be changed on the way."""
    assert _signed(**other)["Authorization"] != _signed()["Authorization"]


def test_project_and_security_token_are_optional() -> None:
    """If there is one, it is sent and signed."""
    request = _signed(method="GET", body=None, project_id="")
    assert "SignedHeaders=host;x-sdk-date," in request["Authorization"]
    assert not {"X-Project-Id", "X-Security-Token"} & request.keys()
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
    """Once, whether it is encoded already or not."""
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
def test_every_signed_call_is_accepted(
    otc: Simulator, start_key_client: StartKeyClient, api: str, temporary: bool
) -> None:
    """The look-up of the project, a read, a list with its query, a stop with its body."""
    key = otc.add_access_key(temporary=temporary)
    ids = [otc.add_server() for _ in range(6)]
    cloud = start_key_client(key, api).clouds.cloud(dry_run=False)
    assert isinstance(cloud.read(ids[:1], 5)[ids[0]], Server)
    assert {type(seen) for seen in cloud.read(ids, 5).values()} == {Server}
    assert isinstance(cloud.stop(ids[:1], 5)[ids[0]], Taken)
    assert {call.access_key for call in otc.calls} == {key.access}
    assert [call.headers.get("x-project-id") for call in otc.calls] == [None] + [otc.project_id] * (len(otc.calls) - 1)
    assert {call.status for call in otc.calls} <= {200, 204}
    assert otc.count(CallKind.LOGIN) == 0
    assert otc.actions(ids[0])[0].user_id == otc.user().id


def test_each_request_has_its_own_date() -> None:
    """The cloud refuses one that is a quarter of an hour old."""
    times = iter((THEN, THEN + timedelta(hours=1)))
    signer = Signer("a", "b", now=lambda: next(times))
    dates = [signer.sign("GET", URL, {}, None)["X-Sdk-Date"] for _ in range(2)]
    assert dates == ["20250102T030405Z", "20250102T040405Z"]


@pytest.mark.parametrize("look_up", [False, True])
def test_a_wrong_secret_is_tried_once_a_minute(otc: Simulator, start_key_client: StartKeyClient, look_up: bool) -> None:
    """Five wrong signatures in a row lock the key; so also for the look-up of the project."""
    project = {} if look_up else {"OS_PROJECT_NAME": "", "OS_PROJECT_ID": otc.project_id}
    client = start_key_client(OS_SECRET_KEY="wrong", **project)
    cloud, server = client.clouds.cloud(dry_run=False), otc.add_server()
    for seconds, calls in ((0, 1), (0, 1), (59, 1), (1, 2)):
        client.clock.now += seconds
        for call in (cloud.read, cloud.stop):
            with pytest.raises(LoginRefused):
                call([server], 5)
        assert len(otc.calls) == calls


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
def test_a_failed_look_up_of_the_project_is_a_failed_login(
    otc: Simulator, start_key_client: StartKeyClient, fault: dict[str, Any], expected: type[Exception]
) -> None:
    """The key needs exactly one project of the name."""
    otc.inject(Fault(on=CallKind.OTHER, **fault))
    with pytest.raises(expected):
        start_key_client().login.access(5)


def test_a_project_with_a_longer_name_is_ignored(otc: Simulator, start_key_client: StartKeyClient) -> None:
    """IAM may filter by a part of the name."""
    projects = '{"projects": [{"name": "eu-de_ops", "id": "wrong"}, {"name": "eu-de", "id": "right"}]}'
    otc.inject(Fault(on=CallKind.OTHER, status=200, body=projects))
    assert start_key_client().login.access(5).project_id == "right"


@pytest.mark.parametrize(
    ("api", "iam", "url"),
    [
        ("bms", "https://iam.eu-de.otc.t-systems.com/v3", "https://bms.eu-de.otc.t-systems.com/v1/abc"),
        ("nova", "https://iam.eu-nl.otc.t-systems.com/v3", "https://ecs.eu-nl.otc.t-systems.com/v2.1/abc"),
        ("bms", "https://iam-pub.eu-ch2.sc.otc.t-systems.com", "https://bms.eu-ch2.sc.otc.t-systems.com/v1/abc"),
        ("bms", "https://iam.example/v3", None),
    ],
)
def test_the_url_of_an_api_is_derived_from_that_of_iam(
    otc: Simulator, start_key_client: StartKeyClient, api: str, iam: str, url: str | None
) -> None:
    """A key has no catalogue; for another cloud than Open Telekom Cloud there is no URL."""
    unset = {"AUTOSTOP_BMS_URL": "", "AUTOSTOP_COMPUTE_URL": ""}
    client = start_key_client(None, api, OS_AUTH_URL=iam, OS_PROJECT_NAME="", OS_PROJECT_ID="abc", **unset)
    if url:
        assert client.endpoint.url(5) == url
    else:
        with pytest.raises(CloudUnexpectedAnswer, match="bms API: this login brings no catalogue"):
            client.endpoint.url(5)
    assert otc.calls == []
