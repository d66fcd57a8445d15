"""`Simulator.otc` behaves as Open Telekom Cloud."""

from typing import Any

import pytest

from handler.simulator import CallKind, ComputePath, Fault, Simulator
from tests.simulator.conftest import Ask, password_login

CLOUD = Simulator.otc
TOKENS = "/v3/auth/tokens"
PROJECT = {"project": {"name": "eu-de"}}


def test_microversions_catalogue_status_names_and_times(cloud: Simulator, ask: Ask) -> None:
    """All are those of Open Telekom Cloud."""
    answer = ask("POST", TOKENS, password_login(cloud, scope=PROJECT), token=None)
    token, header = answer.json()["token"], answer.header("X-Subject-Token")
    assert token["expires_at"] == "2025-06-16T15:06:40.000000Z"
    urls = {service["type"]: service["endpoints"][0]["url"] for service in token["catalog"]}
    assert urls["compute"] == f"{cloud.url}/v2.1/{cloud.project_id}"
    assert urls["bms"] == f"{cloud.bms_url}/{cloud.project_id}" == f"{cloud.url}/v1/{cloud.project_id}"
    assert list(urls) == ["compute", "bms", "network", "image", "identity", "smn"]
    assert token["catalog"][0]["endpoints"][0]["region"] == "eu-de"
    assert token["user"]["domain"]["name"] == "OTC00000000001000000123"
    assert ask("GET", "/v2.1/").json()["version"]["version"] == "2.60"
    server_id = cloud.add_server()
    answer = ask("POST", f"/v2.1/{cloud.project_id}/servers/{server_id}/action", {"os-stop": {}}, token=header)
    assert (answer.status, answer.body) == (204, b"")
    # Some kilobytes, from a login or from elsewhere.
    assert (header[:3], 4000 < len(header) < 5000, len(cloud.token())) == ("MII", True, len(header))


def test_a_page_of_nova_has_25_servers_by_default(cloud: Simulator, ask: Ask) -> None:
    """And a link to the next one if it is full."""
    path = f"/v2.1/{cloud.project_id}/servers/detail"
    for _ in range(30):
        cloud.add_server()
    for query, length in (("", 25), ("?limit=10", 10), ("?limit=1000", 30), ("?limit=2000", 30)):
        body = ask("GET", path + query).json()
        assert (len(body["servers"]), "servers_links" in body) == (length, length < 30)
    following = ask("GET", path).json()["servers_links"][0]["href"]
    assert len(ask("GET", following.removeprefix(cloud.url)).json()["servers"]) == 5


def test_each_part_can_be_configured(ask: Ask) -> None:
    """By the options of the constructor."""
    with Simulator.otc(stop_status=202, compute_path=ComputePath.PLAIN, bms=False, long_tokens=False) as cloud:
        own = cloud.token()
        catalog = ask("GET", "/v3/auth/catalog", to=cloud, token=own).json()["catalog"]
        assert catalog[0]["endpoints"][0]["url"] == f"{cloud.url}/v2.1"
        assert "bms" not in [service["type"] for service in catalog]
        assert len(own) < 250


@pytest.mark.parametrize(
    ("project", "status"),
    [
        ({"name": "eu-de"}, 201),
        ({"name": "eu-de", "domain": {"name": "OTC00000000001000000123"}}, 201),
        ({"name": "eu-de", "domain": {"name": "Default"}}, 401),
        ({"name": "eu-nl"}, 401),
        ({"name": "other-project"}, 401),
    ],
)
def test_a_project_needs_no_domain_beside_the_users(cloud: Simulator, ask: Ask, project: Any, status: int) -> None:
    """Elsewhere it needs one, and Keystone's message names it."""
    assert "OS_PROJECT_DOMAIN_NAME" not in cloud.environ()
    answer = ask("POST", TOKENS, password_login(cloud, scope={"project": project}), token=None)
    assert answer.status == status
    with Simulator() as plain:
        answer = ask("POST", TOKENS, password_login(plain, scope={"project": {"name": "x"}}), to=plain, token=None)
        assert (answer.status, answer.message[:40]) == (400, "Expecting to find domain in user. The se")


@pytest.mark.parametrize(
    ("query", "user", "expected"),
    [
        ("", "operator", ["eu-de"]),
        ("?name=eu-de", "operator", ["eu-de"]),
        ("?name=eu", "operator", []),
        ("?name=other-project", "operator", []),
        ("", "admin", ["eu-de", "admin"]),
    ],
)
def test_projects_can_be_listed_by_name(cloud: Simulator, ask: Ask, query: str, user: Any, expected: Any) -> None:
    """Those that the caller has a role in; a token is required, and elsewhere there is no such path."""
    assert ask("GET", "/v3/projects", token=None).status == 401
    with Simulator() as plain:
        assert ask("GET", "/v3/projects", to=plain, token=plain.token()).status == 404
    body = ask("GET", f"/v3/projects{query}", token=cloud.token(user)).json()
    assert [project["name"] for project in body["projects"]] == expected
    assert body["links"] == {"next": None, "self": f"{cloud.url}/v3/projects{query}", "previous": None}
    if expected:
        project = body["projects"][0]
        assert (project["id"], project["enabled"]) == (cloud.project_id, True)
        assert project["links"]["self"] == f"{cloud.url}/v3/projects/{cloud.project_id}"


def test_nova_is_behind_the_gateway_too(cloud: Simulator, ask: Ask) -> None:
    """Which refuses a token in its own form, also if a fault says so."""
    path = f"/v2.1/{cloud.project_id}/servers"
    own = cloud.token()
    cloud.inject(Fault(on=CallKind.LIST, status=401, skip=1))
    assert ask("GET", path, token="gone").code == (401, "APIG.0301")
    assert ask("GET", path, token=own).code == (401, "APIG.0301")
    cloud.revoke_tokens()
    assert ask("GET", path, token=own).code == (401, "APIG.0307")
