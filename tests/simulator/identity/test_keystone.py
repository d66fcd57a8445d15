"""Logging in to the simulated cloud is like logging in to a real one."""

import json
from typing import Any

import pytest

from handler.simulator import CallKind, ComputePath, Simulator
from tests.simulator.conftest import Ask
from tests.support.clock import FakeClock

TOKENS = "/v3/auth/tokens"
HEADERS = ["Content-Type", "Content-Length", "X-Subject-Token", "Vary", "x-openstack-request-id"]
MALFORMED = (
    "The server could not comply with the request since it is either malformed or otherwise incorrect. "
    "The client is assumed to be in error."
)


def password_login(
    cloud: Simulator,
    *,
    scope: Any = "project",
    user: Any = None,
    password: Any = None,
    domain: Any = None,
    project: Any = None,
) -> dict[str, Any]:
    """Return the body of a login by name, right but for what is given."""
    login = cloud.environ()
    home = {"name": domain or login["OS_USER_DOMAIN_NAME"]}
    who = {"name": user or login["OS_USERNAME"], "domain": home, "password": password or login["OS_PASSWORD"]}
    auth = {"identity": {"methods": ["password"], "password": {"user": who}}}
    if scope == "project":
        auth["scope"] = {"project": {"name": project or login["OS_PROJECT_NAME"], "domain": home}}
    elif scope is not None:
        auth["scope"] = scope
    return {"auth": auth}


def test_a_password_login_gives_a_token_for_the_project(cloud: Simulator, ask: Ask) -> None:
    """The token is in the header; the body shows user, project, roles, times and catalogue."""
    answer = ask("POST", TOKENS, password_login(cloud), token=None)
    assert (answer.status, answer.reason, answer.names) == (201, "CREATED", HEADERS)
    token = answer.json()["token"]
    assert list(token) == [
        "methods", "user", "audit_ids", "expires_at", "issued_at", "project", "is_domain", "roles", "catalog",
    ]  # fmt: skip
    assert token["methods"] == ["password"]
    assert token["user"]["name"] == "operator"
    assert token["project"]["id"] == cloud.project_id
    assert [role["name"] for role in token["roles"]] == ["reader", "member"]
    assert token["issued_at"] == "2025-06-15T15:06:40.000000Z"
    assert token["expires_at"] == "2025-06-15T16:06:40.000000Z"
    assert ask("GET", "/v2.1/servers", token=answer.header("X-Subject-Token")).status == 200


def test_the_catalogue_has_compute_among_others(cloud: Simulator, ask: Ask) -> None:
    """Compute comes as public and internal, without the project in its URL."""
    catalog = ask("POST", TOKENS, password_login(cloud), token=None).json()["token"]["catalog"]
    assert [service["type"] for service in catalog] == ["compute", "network", "image", "identity"]
    compute = catalog[0]
    assert compute["name"] == "nova"
    assert [(e["interface"], e["region_id"], e["region"], e["url"]) for e in compute["endpoints"]] == [
        ("public", "RegionOne", "RegionOne", f"{cloud.url}/v2.1"),
        ("internal", "RegionOne", "RegionOne", f"{cloud.url}/v2.1"),
    ]


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        (ComputePath.PROJECT, "/v2.1/{}"),
        (ComputePath.LEGACY_PROJECT, "/v2/{}"),
        (ComputePath.PREFIXED, "/compute/v2.1"),
    ],
)
def test_the_compute_url_can_look_otherwise(ask: Ask, path: str, shown: Any) -> None:
    """As on Open Telekom Cloud, today and in 2019, or on DevStack; a region of another name goes with it."""
    with Simulator(compute_path=path, region="eu-de") as cloud:
        token = ask("POST", TOKENS, password_login(cloud), token=None, to=cloud).json()["token"]
        endpoint = token["catalog"][0]["endpoints"][0]
        assert endpoint["url"] == cloud.url + shown.format(cloud.project_id)
        assert endpoint["region_id"] == cloud.environ()["OS_REGION_NAME"] == "eu-de"
        own = cloud.token()
        assert ask("GET", endpoint["url"].removeprefix(cloud.url) + "/servers", to=cloud, token=own).status == 200


def test_the_catalogue_can_be_left_out_and_asked_for(cloud: Simulator, ask: Ask) -> None:
    """`?nocatalog` leaves it out of the login, and `/v3/auth/catalog` has it."""
    brief = ask("POST", f"{TOKENS}?nocatalog=true", password_login(cloud), token=None)
    assert "catalog" not in brief.json()["token"]
    assert ask("GET", "/v3/auth/catalog").json()["catalog"][0]["type"] == "compute"
    assert ask("GET", "/v3/auth/catalog", token=cloud.token(scoped=False)).json()["catalog"] == []
    assert ask("GET", "/v3/auth/catalog", token=None).status == 401


def test_user_and_project_can_be_named_by_id(cloud: Simulator, ask: Ask) -> None:
    """Ids need no domain."""
    user = cloud.user()
    identity = {"methods": ["password"], "password": {"user": {"id": user.id, "password": user.password}}}
    body = {"auth": {"identity": identity, "scope": {"project": {"id": cloud.project_id}}}}
    assert ask("POST", TOKENS, body, token=None).status == 201


def test_a_login_without_scope_is_for_the_default_project(cloud: Simulator, ask: Ask) -> None:
    """Every seeded user has one."""
    token = ask("POST", TOKENS, password_login(cloud, scope=None), token=None).json()["token"]
    assert token["project"]["id"] == cloud.project_id


def test_an_unscoped_token_has_neither_project_nor_catalogue(cloud: Simulator, ask: Ask) -> None:
    """It can be exchanged for a scoped one."""
    answer = ask("POST", TOKENS, password_login(cloud, scope="unscoped"), token=None)
    assert answer.status == 201
    assert {"project", "roles", "catalog"}.isdisjoint(answer.json()["token"])
    identity = {"methods": ["token"], "token": {"id": answer.header("X-Subject-Token")}}
    body = {"auth": {"identity": identity, "scope": {"project": {"id": cloud.project_id}}}}
    scoped = ask("POST", TOKENS, body, token=None).json()["token"]
    assert scoped["methods"] == ["token", "password"]
    assert scoped["project"]["id"] == cloud.project_id
    assert len(scoped["audit_ids"]) == 2


def test_a_token_that_is_not_good_is_exchanged_for_nothing(ask: Ask) -> None:
    """Neither an unknown one nor what is none at all."""
    for token in ("gone", None, ["x"]):
        identity = {"methods": ["token"], "token": {"id": token}}
        assert ask("POST", TOKENS, {"auth": {"identity": identity}}, token=None).status == 401


def test_a_token_got_for_a_token_lives_no_longer_than_that(cloud: Simulator, ask: Ask, clock: FakeClock) -> None:
    """Otherwise one could renew for ever."""
    first = ask("POST", TOKENS, password_login(cloud), token=None)
    clock.advance(600)
    identity = {"methods": ["token"], "token": {"id": first.header("X-Subject-Token")}}
    second = ask("POST", TOKENS, {"auth": {"identity": identity}}, token=None)
    assert second.json()["token"]["expires_at"] == first.json()["token"]["expires_at"]


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
    ],
    ids=str,
)
def test_a_wrong_login_is_refused_without_saying_why(cloud: Simulator, ask: Ask, wrong: Any) -> None:
    """A wrong password, an unknown name and a missing role all look alike."""
    answer = ask("POST", TOKENS, password_login(cloud, **wrong), token=None)
    assert (answer.status, answer.reason) == (401, "UNAUTHORIZED")
    assert answer.names == [
        "Content-Type",
        "Content-Length",
        "WWW-Authenticate",
        "Vary",
        "x-openstack-request-id",
    ]
    assert answer.header("WWW-Authenticate") == f'Keystone uri="{cloud.auth_url}"'
    assert answer.body == (
        b'{"error":{"code":401,"message":"The request you have made requires authentication.",'
        b'"title":"Unauthorized"}}\n'
    )


@pytest.mark.parametrize(
    "methods", [["totp"], ["password", "totp"], ["token", "password"], ["application_credential"]], ids=str
)
def test_a_method_that_is_not_there_is_refused(cloud: Simulator, ask: Ask, methods: Any) -> None:
    """Also an application credential together with a scope, for it brings its own."""
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
def test_an_empty_login_is_a_bad_request(ask: Ask, body: Any, expected: Any) -> None:
    """The message names what was expected where."""
    answer = ask("POST", TOKENS, body, token=None, Content_Type="application/json")
    assert (answer.status, answer.reason) == (400, "BAD REQUEST")
    assert answer.names == ["Content-Type", "Content-Length", "Vary", "x-openstack-request-id"]
    error = {"code": 400, "message": f"Expecting to find {expected}. {MALFORMED}", "title": "Bad Request"}
    assert answer.body == json.dumps({"error": error}, separators=(",", ":")).encode() + b"\n"


def test_an_application_credential_logs_in_with_roles_of_its_own(cloud: Simulator, ask: Ask, stop: Ask) -> None:
    """By id, or by name and user; with fewer roles than its user has."""
    credential, secret = cloud.add_application_credential("reader-only", roles=["reader"])
    user = {"id": cloud.user().id}
    for named in ({"id": credential}, {"name": "reader-only", "user": user}):
        identity: dict[str, Any] = {
            "methods": ["application_credential"],
            "application_credential": {**named, "secret": secret},
        }
        answer = ask("POST", TOKENS, {"auth": {"identity": identity}}, token=None)
        assert answer.status == 201
        token = answer.json()["token"]
        assert token["methods"] == ["application_credential"]
        assert token["application_credential"] == {
            "id": credential,
            "name": "reader-only",
            "restricted": True,
        }
        assert [role["name"] for role in token["roles"]] == ["reader"]
        assert stop(cloud.add_server(), token=answer.header("X-Subject-Token")).status == 403
    identity["application_credential"]["secret"] = "not-it"
    assert ask("POST", TOKENS, {"auth": {"identity": identity}}, token=None).status == 401


def test_an_application_credential_has_the_roles_of_its_user_by_default(cloud: Simulator, ask: Ask, stop: Ask) -> None:
    """So a program can do what its owner can."""
    credential, secret = cloud.add_application_credential()
    given = {"id": credential, "secret": secret}
    identity = {"methods": ["application_credential"], "application_credential": given}
    token = ask("POST", TOKENS, {"auth": {"identity": identity}}, token=None).header("X-Subject-Token")
    assert stop(cloud.add_server(), token=token).status == 202


def test_a_token_can_be_inspected_by_its_owner(cloud: Simulator, ask: Ask) -> None:
    """The answer is that of the login once more."""
    own = cloud.token()
    answer = ask("GET", TOKENS, token=own, X_Subject_Token=own)
    assert answer.status == 200
    assert answer.header("X-Subject-Token") == own
    assert answer.json()["token"]["project"]["id"] == cloud.project_id


def test_another_ones_token_is_shown_to_administrators_only(cloud: Simulator, ask: Ask) -> None:
    """A plain user gets the name of the policy."""
    theirs = cloud.token("watcher")
    assert ask("GET", TOKENS, token=cloud.token("admin"), X_Subject_Token=theirs).status == 200
    refused = ask("GET", TOKENS, X_Subject_Token=theirs)
    assert (refused.status, refused.reason) == (403, "FORBIDDEN")
    assert refused.message.endswith("identity:validate_token.")


def test_a_token_that_is_not_good_cannot_be_inspected(cloud: Simulator, ask: Ask) -> None:
    """Neither as subject nor as caller."""
    gone = ask("GET", TOKENS, X_Subject_Token="gone")
    assert (gone.status, gone.reason) == (404, "NOT FOUND")
    assert gone.body == (b'{"error":{"code":404,"message":"Failed to validate token","title":"Not Found"}}\n')
    assert ask("GET", TOKENS, token="gone", X_Subject_Token=cloud.token()).status == 401


def test_a_revoked_token_is_good_no_more(cloud: Simulator, ask: Ask) -> None:
    """Its owner revokes it, and Nova answers 401 from then on."""
    own = cloud.token()
    answer = ask("DELETE", TOKENS, token=own, X_Subject_Token=own)
    assert (answer.status, answer.reason, answer.body) == (204, "NO CONTENT", b"")
    assert answer.names == ["Vary", "x-openstack-request-id"]
    assert ask("GET", "/v2.1/servers", token=own).status == 401
    assert cloud.count(CallKind.REVOKE) == 1


def test_a_token_expires_by_the_clouds_own_clock(cloud: Simulator, ask: Ask, clock: FakeClock) -> None:
    """Good to the last second before its time."""
    own = cloud.token()
    clock.advance(3599)
    assert ask("GET", "/v2.1/servers", token=own).status == 200
    clock.advance(1)
    assert ask("GET", "/v2.1/servers", token=own).status == 401


def test_all_tokens_can_be_revoked_at_once(cloud: Simulator, ask: Ask) -> None:
    """New ones are good again."""
    cloud.revoke_tokens()
    assert ask("GET", "/v2.1/servers").status == 401
    assert ask("GET", "/v2.1/servers", token=cloud.token()).status == 200


def test_every_login_gives_another_token_and_every_cloud_another_password(cloud: Simulator, ask: Ask) -> None:
    """Nothing about a login can be guessed or carried over."""
    logins = [ask("POST", TOKENS, password_login(cloud), token=None).header("X-Subject-Token") for _ in "ab"]
    assert logins[0] != logins[1]
    assert Simulator().environ()["OS_PASSWORD"] != cloud.environ()["OS_PASSWORD"]


def test_keystone_shows_its_version(cloud: Simulator, ask: Ask) -> None:
    """Without a token: all versions at the root, as 300, and the one at /v3."""
    root = ask("GET", "/", token=None)
    assert (root.status, root.reason) == (300, "MULTIPLE CHOICES")
    assert root.header("Location") == f"{cloud.url}/v3/"
    (version,) = root.json()["versions"]["values"]
    assert (version["id"], version["status"]) == ("v3.14", "stable")
    for path in ("/v3", "/v3/"):
        assert ask("GET", path, token=None).json() == {"version": version}


def test_a_path_that_keystone_does_not_have_is_a_page(ask: Ask) -> None:
    """HTML, as of any Flask application."""
    answer = ask("GET", "/v3/no-such-path")
    assert (answer.status, answer.reason) == (404, "NOT FOUND")
    assert answer.header("Content-Type") == "text/html; charset=utf-8"
    assert len(answer.body) == 207
