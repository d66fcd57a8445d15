"""Requests signed with an access key are verified, before every API."""

import hashlib
import hmac
import json
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import pytest

from handler.simulator import AccessKey, CallKind, Fault, Simulator
from handler.simulator.identity.signing import signature
from handler.simulator.messages import Request
from tests.simulator.conftest import Ask, Reply
from tests.support.clock import FakeClock

CLOUD = Simulator.otc
REFUSED = (401, "APIG.0301")
KNOWN_PROJECT = "0123456789abcdef0123456789abcdef"
KNOWN_BODY = b'{"os-stop":{"type":"HARD","servers":[{"id":"11111111-2222-3333-4444-555555555555"}]}}'
KNOWN_SECRET = "not-a-real-secret-for-tests-only"
KNOWN_SIGNATURE = "01e69983b52a95b388e953fe823d3f98a258753c2efd00f2e0611f6090a6a410"
KNOWN_HEADERS = {
    "Content-Type": "application/json",
    "Host": "bms.eu-de.otc.t-systems.com",
    "X-Project-Id": KNOWN_PROJECT,
    "X-Sdk-Date": "20250102T030405Z",
}


def sign(secret: str, method: str, path: str, query: str, headers: Any, date: str, body_hash: str) -> tuple[str, str]:
    """Sign without any help of the simulator: path and query are already as they are to be signed."""
    names = ";".join(sorted(name.lower() for name in headers))
    lines = "".join(f"{name.lower()}:{headers[name]}\n" for name in sorted(headers, key=str.lower))
    canonical = f"{method}\n{path}\n{query}\n{lines}\n{names}\n{body_hash}"
    text = f"SDK-HMAC-SHA256\n{date}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    return names, hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()


@pytest.fixture
def key(cloud: Simulator) -> Any:
    """An access key."""
    return cloud.add_access_key()


@pytest.fixture
def send(ask: Ask, cloud: Simulator, clock: FakeClock, key: AccessKey) -> Ask:
    """Send one request signed with the key, right but for what is given."""

    def ask_signed(
        method: str = "GET",
        path: str = "/v2.1/servers",
        body: bytes = b"",
        *,
        signs: AccessKey = key,
        off: float = 0,
        date: str = "",
        query: str = "",
        signed_path: str = "",
        sent_query: str | None = None,
        sent_body: bytes | None = None,
        malformed: bool = False,
        unsigned: str = "",
        body_hash: str | None = None,
        token: str | None = None,
        **headers: str,
    ) -> Reply:
        date = date or datetime.fromtimestamp(clock.now + off, UTC).strftime("%Y%m%dT%H%M%SZ")
        sent = {"Host": urlsplit(cloud.url).netloc, "X-Sdk-Date": date}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        covered = {name: value for name, value in sent.items() if name != unsigned}
        hashed = body_hash or hashlib.sha256(body).hexdigest()
        names, signed = sign(signs.secret, method, signed_path or f"{path}/", query, covered, date, hashed)
        if malformed:
            signed = signed[:-1] + ("0" if signed[-1] != "0" else "1")
        sent["Authorization"] = f"SDK-HMAC-SHA256 Access={signs.access}, SignedHeaders={names}, Signature={signed}"
        if signs.security_token:
            sent.setdefault("X-Security-Token", signs.security_token)
        query = query if sent_query is None else sent_query
        target = f"{path}?{query}" if query else path
        return ask(method, target, body if sent_body is None else sent_body, token=token, **sent)

    return ask_signed


def test_the_known_signature_is_computed() -> None:
    """As it does for the signer of these tests, which shares nothing with the simulator."""
    path = f"/v1/{KNOWN_PROJECT}/baremetalservers/action"
    request = Request("POST", path, tuple(KNOWN_HEADERS.items()), KNOWN_BODY)
    names = ("x-sdk-date", "host", "content-type", "x-project-id")
    assert signature(request, names, KNOWN_SECRET) == KNOWN_SIGNATURE
    body_hash = hashlib.sha256(KNOWN_BODY).hexdigest()
    assert body_hash == "6db27824547fa0d94bec465558d621d4b76794b94a8e0c099bc416b00d01d6c4"
    assert sign(KNOWN_SECRET, "POST", f"{path}/", "", KNOWN_HEADERS, KNOWN_HEADERS["X-Sdk-Date"], body_hash) == (
        "content-type;host;x-project-id;x-sdk-date",
        KNOWN_SIGNATURE,
    )


def test_a_signed_request_needs_no_token(cloud: Simulator, send: Ask, key: Any) -> None:
    """Nova, the BMS API and Keystone accept it, on behalf of the user of the key."""
    server_id = cloud.add_server("db-1")
    assert send(path="/v2.1/servers").json()["servers"][0]["id"] == server_id
    path = f"/v1/{cloud.project_id}/baremetalservers/{server_id}"
    assert send(path=path).json()["server"]["name"] == "db-1"
    (project,) = send(path="/v3/projects", query="name=eu-de").json()["projects"]
    assert project["id"] == cloud.project_id
    catalog = send(path="/v3/auth/catalog").json()["catalog"]
    assert "bms" in [service["type"] for service in catalog]
    assert {call.access_key for call in cloud.calls} == {key.access}


def test_a_signed_stop_is_accepted(cloud: Simulator, send: Ask) -> None:
    """With its body under the signature, through either API, and with the permissions of the user of the key."""
    one, two = cloud.add_server(), cloud.add_server()
    body = json.dumps({"os-stop": {"servers": [{"id": one}]}}).encode()
    assert send("POST", f"/v1/{cloud.project_id}/baremetalservers/action", body).status == 200
    json_type = {"Content_Type": "application/json", "X_Project_Id": cloud.project_id}
    assert send("POST", f"/v2.1/{cloud.project_id}/servers/{two}/action", b'{"os-stop": {}}', **json_type).status == 204
    watcher = cloud.add_access_key(user="watcher")
    assert send("POST", f"/v2.1/servers/{two}/action", b'{"os-stop": {}}', signs=watcher).status == 403
    assert [cloud.stops_taken(id) for id in (one, two)] == [1, 1]
    assert cloud.actions(one)[0].user_id == cloud.user().id


def test_no_secret_of_a_key_is_recorded_or_shown(cloud: Simulator, send: Ask) -> None:
    """Neither signature nor security token, nor in the text of the key."""
    key = cloud.add_access_key(temporary=True)
    send(signs=key)
    assert {"authorization", "x-security-token"}.isdisjoint(cloud.calls[-1].headers)
    assert "x-sdk-date" in cloud.calls[-1].headers
    assert repr(key) == f"AccessKey(access={key.access!r})"


def test_the_environment_of_a_key_is_that_of_a_login_without_one(cloud: Simulator) -> None:
    """A permanent key has no security token."""
    permanent, temporary = cloud.add_access_key(), cloud.add_access_key(temporary=True)
    expected = {
        "OS_AUTH_URL": cloud.auth_url,
        "OS_REGION_NAME": "eu-de",
        "OS_PROJECT_NAME": "eu-de",
        "OS_ACCESS_KEY": permanent.access,
        "OS_SECRET_KEY": permanent.secret,
    }
    assert cloud.key_environ(permanent) == expected
    assert cloud.key_environ(temporary)["OS_SECURITY_TOKEN"] == temporary.security_token


@pytest.mark.parametrize(
    ("options", "status"),
    [
        # The path is encoded anew, however it was written, and ends in a slash.
        ({"path": "/v2.1/servers/a%20b%2Bc~d", "signed_path": "/v2.1/servers/a%20b%2Bc~d/"}, 404),
        ({"path": "/v2.1/servers/a:b(c)", "signed_path": "/v2.1/servers/a%3Ab%28c%29/"}, 404),
        ({"path": "/v2.1/", "signed_path": "/v2.1/"}, 200),
        ({"path": "/v2.1/", "signed_path": "/v2.1"}, 401),
        # The query is sorted and encoded, and an empty value keeps its equals sign.
        ({"query": "limit=5&name=a%2Fb&status=", "sent_query": "status=&name=a/b&limit=5"}, 200),
        ({"query": "limit=5&name=a%2Fb&status=", "sent_query": "status=&name=a/b&limit=6"}, 401),
        # 15 minutes before and after its date.
        ({"off": -901}, 401),
        ({"off": -900}, 200),
        ({"off": 900}, 200),
        ({"off": 901}, 401),
        ({"date": "yesterday"}, 401),
        ({"body_hash": "UNSIGNED-PAYLOAD", "X_Sdk_Content_Sha256": "UNSIGNED-PAYLOAD", "sent_body": b"{}"}, 200),
        ({"sent_body": b"{}"}, 401),
        ({"malformed": True}, 401),
        ({"signs": AccessKey("NO-SUCH-KEY", "secret")}, 401),
        ({"unsigned": "Host"}, 401),
        ({"unsigned": "X-Sdk-Date"}, 401),
        ({"X_Security_Token": "not-required"}, 401),
    ],
    ids=str,
)
def test_a_signature_is_verified(send: Ask, options: Any, status: int) -> None:
    """The gateway answers the 401, whatever is wrong, and the API does not get the request."""
    answer = send(**options)
    assert answer.status == status
    if status == 401:
        assert answer.code == REFUSED
        assert answer.json()["error_msg"].startswith("Wrong IAM authentication: ")


@pytest.mark.parametrize(
    "text",
    ["", " Credential=x", " Access=x, SignedHeaders=host, Signature=y"],
)
@pytest.mark.parametrize("make", [Simulator, Simulator.otc])
def test_an_authorization_that_cannot_be_parsed_is_refused(ask: Ask, make: Any, text: str) -> None:
    """It names no key; the cloud of plain OpenStack has the same errors."""
    with make() as cloud:
        answer = ask("GET", "/v2.1/servers", to=cloud, token=None, Authorization="SDK-HMAC-SHA256" + text)
        assert (answer.code, cloud.calls[-1].access_key) == (REFUSED, None)


def test_a_temporary_key_needs_its_security_token_until_it_expires(
    cloud: Simulator, send: Ask, clock: FakeClock
) -> None:
    """The token may be signed."""
    key = cloud.add_access_key(temporary=True, lifetime=600)
    assert send(signs=key).status == send(signs=key, X_Security_Token=key.security_token).status == 200
    assert send(signs=key, X_Security_Token="another").code == REFUSED
    assert send(signs=AccessKey(key.access, key.secret)).code == REFUSED
    clock.advance(599)
    assert send(signs=key).status == 200
    clock.advance(1)
    assert send(signs=key).code == REFUSED


def test_more_than_five_failures_in_a_row_lock_a_key(cloud: Simulator, send: Ask, clock: FakeClock) -> None:
    """For five minutes of the clock, for valid signatures too, and no other key."""
    other = cloud.add_access_key()
    for _ in range(2):
        assert {send(malformed=True).code for _ in range(5)} == {REFUSED}
        assert send().status == 200
    for _ in range(6):
        assert send(malformed=True).code == REFUSED
    assert send().json()["error_msg"].endswith("locked")
    assert send(signs=other).status == 200
    clock.advance(299)
    assert send().code == REFUSED
    clock.advance(1)
    assert send().status == 200


def test_the_project_can_be_named_in_a_header(cloud: Simulator, send: Ask) -> None:
    """It must then be that of the URL, and one of the user's."""
    path = f"/v1/{cloud.project_id}/baremetalservers/detail"
    assert send(path=path, X_Project_Id=cloud.project_id).status == 200
    for project_id in (cloud.other_project_id, "0" * 32):
        assert send(path=path, X_Project_Id=project_id).code == (403, "APIG.0302")
    admin, project = cloud.add_access_key(user="admin"), cloud.user("admin").default_project
    assert send(path=path, signs=admin, X_Project_Id=project.id).code == (400, "Common.0018")
    assert send(path=path, signs=admin).status == 200


def test_a_token_goes_before_a_signature(cloud: Simulator, send: Ask, ask: Ask) -> None:
    """And a signed request leaves no token behind, and has none that could expire."""
    assert send(malformed=True, token=cloud.token()).status == 200
    cloud.inject(Fault.token_expired(CallKind.LIST))
    assert send().status == 200
    assert cloud.faults == []
    assert ask("GET", "/v2.1/servers", token=None).status == 401
