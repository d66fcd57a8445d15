"""Logging in to the simulated cloud is like logging in to a real one."""

import json
from typing import Any

import pytest

from handler.simulator import CallKind, ComputePath, Simulator
from tests.simulator.conftest import Ask, Reply, password_login
from tests.support.clock import FakeClock

TOKENS = "/v3/auth/tokens"
MALFORMED = (
    "The server could not comply with the request since it is either malformed or otherwise incorrect. "
    "The client is assumed to be in error."
)


@pytest.fixture
def log_in(ask: Ask, cloud: Simulator) -> Ask:
    """Log in with a method and its argument, or with the password and what is given otherwise."""

    def send(method: str = "", given: Any = None, *, path: str = TOKENS, **more: Any) -> Reply:
        if not method:
            return ask("POST", path, password_login(cloud, **more), token=None)
        return ask("POST", path, {"auth": {"identity": {"methods": [method], method: given}, **more}}, token=None)

    return send


def test_a_password_login_gives_a_token_for_the_project(cloud: Simulator, ask: Ask, log_in: Ask) -> None:
    """The token is in the header; the body shows user, project, roles, times and catalogue."""
    answer = log_in()
    assert (answer.status, answer.reason) == (201, "CREATED")
    assert answer.names == ["Content-Type", "Content-Length", "X-Subject-Token", "Vary", "x-openstack-request-id"]
    token = answer.json()["token"]
    assert list(token) == [
        "methods", "user", "audit_ids", "expires_at", "issued_at", "project", "is_domain", "roles", "catalog",
    ]  # fmt: skip
    assert (token["methods"], token["user"]["name"]) == (["password"], "operator")
    assert token["project"]["id"] == cloud.project_id
    assert [role["name"] for role in token["roles"]] == ["reader", "member"]
    assert token["issued_at"] == "2025-06-15T15:06:40.000000Z"
    assert token["expires_at"] == "2025-06-15T16:06:40.000000Z"
    assert ask("GET", "/v2.1/servers", token=answer.header("X-Subject-Token")).status == 200
    assert log_in().header("X-Subject-Token") != answer.header("X-Subject-Token")
    assert Simulator().environ()["OS_PASSWORD"] != cloud.environ()["OS_PASSWORD"]


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        (ComputePath.PLAIN, "/v2.1"),
        (ComputePath.PROJECT, "/v2.1/{}"),
        (ComputePath.LEGACY_PROJECT, "/v2/{}"),
        (ComputePath.PREFIXED, "/compute/v2.1"),
    ],
)
def test_the_catalogue_has_compute_among_others(ask: Ask, path: str, shown: str) -> None:
    """Public and internal; with or without the project, as on Open Telekom Cloud in 2019, or on DevStack."""
    with Simulator(compute_path=path, region="eu-de") as cloud:
        catalog = ask("POST", TOKENS, password_login(cloud), token=None, to=cloud).json()["token"]["catalog"]
        assert [service["type"] for service in catalog] == ["compute", "network", "image", "identity"]
        assert catalog[0]["name"] == "nova"
        url = cloud.url + shown.format(cloud.project_id)
        endpoints = catalog[0]["endpoints"]
        assert [(e["interface"], e["region_id"], e["region"], e["url"]) for e in endpoints] == [
            (interface, "eu-de", "eu-de", url) for interface in ("public", "internal")
        ]
        assert cloud.environ()["OS_REGION_NAME"] == "eu-de"
        servers = url.removeprefix(cloud.url) + "/servers"
        assert ask("GET", servers, to=cloud, token=cloud.token()).status == 200


def test_a_catalogue_can_have_more_regions(ask: Ask) -> None:
    """Each with every service and interface, at other URLs."""
    with Simulator(more_regions=["west-2"], bms=True) as cloud:
        catalog = ask("GET", "/v3/auth/catalog", to=cloud, token=cloud.token()).json()["catalog"]
        for service in catalog:
            regions: dict[str, Any] = {"RegionOne": [], "west-2": []}
            for endpoint in service["endpoints"]:
                regions[endpoint["region"]].append(endpoint["url"])
            assert {len(urls) for urls in regions.values()} == {3 if service["type"] == "identity" else 2}
            assert not set(regions["RegionOne"]) & set(regions["west-2"])
        ids = [endpoint["id"] for service in catalog for endpoint in service["endpoints"]]
        assert len(ids) == len(set(ids))


def test_the_catalogue_can_be_left_out_and_requested(cloud: Simulator, ask: Ask, log_in: Ask) -> None:
    """`?nocatalog` leaves it out of the login, and `/v3/auth/catalog` has it."""
    assert "catalog" not in log_in(path=f"{TOKENS}?nocatalog=true").json()["token"]
    assert ask("GET", "/v3/auth/catalog").json()["catalog"][0]["type"] == "compute"
    assert ask("GET", "/v3/auth/catalog", token=cloud.token(scoped=False)).json()["catalog"] == []
    assert ask("GET", "/v3/auth/catalog", token=None).status == 401


def test_user_and_project_can_be_named_by_id(cloud: Simulator, log_in: Ask) -> None:
    """Ids need no domain; without a scope the token is for the user's default project."""
    given = {"user": {"id": cloud.user().id, "password": cloud.user().password}}
    for more in ({"scope": {"project": {"id": cloud.project_id}}}, {}):
        assert log_in("password", given, **more).json()["token"]["project"]["id"] == cloud.project_id


def test_an_unscoped_token_has_neither_project_nor_catalogue(cloud: Simulator, log_in: Ask, clock: FakeClock) -> None:
    """It can be exchanged for a scoped one, which expires at the same time."""
    answer = log_in(scope="unscoped")
    assert answer.status == 201
    unscoped = answer.json()["token"]
    assert {"project", "roles", "catalog"}.isdisjoint(unscoped)
    clock.advance(600)
    given = {"id": answer.header("X-Subject-Token")}
    scoped = log_in("token", given, scope={"project": {"id": cloud.project_id}}).json()["token"]
    assert (scoped["methods"], scoped["project"]["id"]) == (["token", "password"], cloud.project_id)
    assert (len(scoped["audit_ids"]), scoped["expires_at"]) == (2, unscoped["expires_at"])


@pytest.mark.parametrize(
    "wrong",
    [
        {"password": "not-it"},
        {"user": "nobody"},
        {"project": "no-such-project"},
        {"domain": "no-such-domain"},
        {"project": "other-project"},
        {"scope": {"project": {"id": "0" * 32}}},
        {"scope": {"system": {"all": True}}},
        {"scope": {"domain": {"name": "Default"}}},
        *({"method": "token", "given": {"id": token}} for token in ("gone", None, ["x"])),
    ],
    ids=str,
)
def test_a_wrong_login_is_refused_without_a_reason(cloud: Simulator, log_in: Ask, wrong: Any) -> None:
    """A wrong password or token, an unknown name and a missing role all have the same answer."""
    answer = log_in(**wrong)
    assert (answer.status, answer.reason) == (401, "UNAUTHORIZED")
    assert answer.names == ["Content-Type", "Content-Length", "WWW-Authenticate", "Vary", "x-openstack-request-id"]
    assert answer.header("WWW-Authenticate") == f'Keystone uri="{cloud.auth_url}"'
    assert answer.body == (
        b'{"error":{"code":401,"message":"The request you have made requires authentication.",'
        b'"title":"Unauthorized"}}\n'
    )


@pytest.mark.parametrize(
    "methods", [["totp"], ["password", "totp"], ["token", "password"], ["application_credential"]], ids=str
)
def test_another_method_is_refused(cloud: Simulator, ask: Ask, methods: Any) -> None:
    """Also an application credential together with a scope, for it has its own."""
    body = password_login(cloud)
    body["auth"]["identity"]["methods"] = methods
    assert ask("POST", TOKENS, body, token=None).status == 401


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"{", "valid JSON in request body"),
        (b"", "valid JSON in request body"),
        (b"{}", "auth in request body"),
        (b"[]", "auth in request body"),
        (b'{"auth": {}}', "identity in auth"),
        (b'{"auth": {"identity": {}}}', "methods in identity"),
        (b'{"auth": {"identity": {"methods": ["password"]}}}', "password in identity"),
        (b'{"auth": {"identity": {"methods": ["password"], "password": {}}}}', "user in password"),
    ],
)
def test_an_incomplete_login_is_a_bad_request(ask: Ask, body: bytes, expected: str) -> None:
    """The message names what was expected where."""
    answer = ask("POST", TOKENS, body, token=None, Content_Type="application/json")
    assert (answer.status, answer.reason) == (400, "BAD REQUEST")
    assert answer.names == ["Content-Type", "Content-Length", "Vary", "x-openstack-request-id"]
    error = {"code": 400, "message": f"Expecting to find {expected}. {MALFORMED}", "title": "Bad Request"}
    assert answer.body == json.dumps({"error": error}, separators=(",", ":")).encode() + b"\n"


@pytest.mark.parametrize(("roles", "status"), [(None, 202), (["reader"], 403)])
@pytest.mark.parametrize("by_name", [False, True])
def test_an_application_credential_can_have_fewer_roles_than_its_user(
    cloud: Simulator, stop: Ask, log_in: Ask, roles: Any, status: int, by_name: bool
) -> None:
    """By id, or by name and user; with all roles of the user by default, and its token cannot be exchanged."""
    credential, secret = cloud.add_application_credential("program", roles=roles)
    named = {"name": "program", "user": {"id": cloud.user().id}} if by_name else {"id": credential}
    answer = log_in("application_credential", {**named, "secret": secret})
    assert answer.status == 201
    token = answer.json()["token"]
    assert token["methods"] == ["application_credential"]
    assert token["application_credential"] == {"id": credential, "name": "program", "restricted": True}
    assert [role["name"] for role in token["roles"]] == (roles or ["reader", "member"])
    assert stop(cloud.add_server(), token=answer.header("X-Subject-Token")).status == status
    assert log_in("application_credential", {**named, "secret": "not-it"}).status == 401
    assert log_in("token", {"id": answer.header("X-Subject-Token")}).status == 401


@pytest.mark.parametrize(
    ("rules", "read", "listed", "history", "acted"),
    [
        (None, 200, 200, 200, 202),
        ([], 401, 401, 401, 401),
        ([("GET", "/v2.1/servers/**")], 200, 200, 200, 401),
        ([("GET", "/v2.1/servers/{server_id}")], 200, 200, 401, 401),
        ([("GET", "/v2.1/servers/*/os-instance-actions")], 401, 401, 200, 401),
        ([("GET", "/v2.1/servers/detail"), ("POST", "/v2.1/servers/*/action")], 401, 200, 401, 202),
        ([("POST", "/v2.1/servers/detail")], 401, 401, 401, 401),
    ],
)
def test_a_call_that_access_rules_do_not_include_is_a_401(
    cloud: Simulator, ask: Ask, stop: Ask, log_in: Ask, rules: Any, read: int, listed: int, history: int, acted: int
) -> None:
    """Of Keystone's middleware, in front of Nova, though the token is valid."""
    credential, secret = cloud.add_application_credential(access_rules=rules)
    login = log_in("application_credential", {"id": credential, "secret": secret})
    id_, token = cloud.add_server(), login.header("X-Subject-Token")
    paths = (f"/v2.1/servers/{id_}", "/v2.1/servers/detail", f"/v2.1/servers/{id_}/os-instance-actions")
    answers = [*(ask("GET", path, token=token) for path in paths), stop(id_, token=token)]
    assert [answer.status for answer in answers] == [read, listed, history, acted]
    for answer in answers:
        assert (answer.status == 401) is (answer.header("WWW-Authenticate") == f'Keystone uri="{cloud.url}"')


def test_a_token_can_be_inspected_by_its_owner(cloud: Simulator, ask: Ask) -> None:
    """The answer is that of the login once more; another user's is shown to administrators only."""
    own, other = cloud.token(), cloud.token("watcher")
    answer = ask("GET", TOKENS, token=own, X_Subject_Token=own)
    assert (answer.status, answer.header("X-Subject-Token")) == (200, own)
    assert answer.json()["token"]["project"]["id"] == cloud.project_id
    assert ask("GET", TOKENS, token=cloud.token("admin"), X_Subject_Token=other).status == 200
    refused = ask("GET", TOKENS, X_Subject_Token=other)
    assert (refused.status, refused.reason) == (403, "FORBIDDEN")
    assert refused.message.endswith("identity:validate_token.")
    absent = ask("GET", TOKENS, X_Subject_Token="gone")
    assert (absent.status, absent.reason) == (404, "NOT FOUND")
    assert absent.body == b'{"error":{"code":404,"message":"Failed to validate token","title":"Not Found"}}\n'
    assert ask("GET", TOKENS, token="gone", X_Subject_Token=own).status == 401


def test_a_revoked_token_is_invalid(cloud: Simulator, ask: Ask) -> None:
    """Its owner revokes it, or all are revoked at once, and Nova answers 401 from then on."""
    own = cloud.token()
    answer = ask("DELETE", TOKENS, token=own, X_Subject_Token=own)
    assert (answer.status, answer.reason, answer.body) == (204, "NO CONTENT", b"")
    assert answer.names == ["Vary", "x-openstack-request-id"]
    assert ask("GET", "/v2.1/servers", token=own).status == 401
    assert cloud.count(CallKind.REVOKE) == 1
    cloud.revoke_tokens()
    assert ask("GET", "/v2.1/servers").status == 401
    assert ask("GET", "/v2.1/servers", token=cloud.token()).status == 200


def test_a_token_expires_by_the_clock_of_the_cloud(cloud: Simulator, ask: Ask, clock: FakeClock) -> None:
    """It is valid to the last second before its time."""
    own = cloud.token()
    clock.advance(3599)
    assert ask("GET", "/v2.1/servers", token=own).status == 200
    clock.advance(1)
    assert ask("GET", "/v2.1/servers", token=own).status == 401


def test_keystone_shows_its_version(cloud: Simulator, ask: Ask) -> None:
    """Without a token: all versions at the root, as 300, and the one at /v3."""
    root = ask("GET", "/", token=None)
    assert (root.status, root.reason) == (300, "MULTIPLE CHOICES")
    assert root.header("Location") == f"{cloud.url}/v3/"
    (version,) = root.json()["versions"]["values"]
    assert (version["id"], version["status"]) == ("v3.14", "stable")
    for path in ("/v3", "/v3/"):
        assert ask("GET", path, token=None).json() == {"version": version}


def test_an_unknown_path_of_keystone_is_a_page(ask: Ask) -> None:
    """HTML, as of any Flask application."""
    answer = ask("GET", "/v3/no-such-path")
    assert (answer.status, answer.reason, len(answer.body)) == (404, "NOT FOUND", 207)
    assert answer.header("Content-Type") == "text/html; charset=utf-8"
