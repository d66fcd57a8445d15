"""One switch makes a cloud with the habits of Open Telekom Cloud."""

from collections.abc import Iterator
from typing import Any

import pytest

from handler.simulator import CallKind, ComputePath, Fault, Simulator
from tests.simulator.conftest import Ask
from tests.support.clock import FakeClock

TOKENS = "/v3/auth/tokens"


@pytest.fixture
def cloud(clock: FakeClock) -> Iterator[Simulator]:
    """Open Telekom Cloud."""
    with Simulator.otc(clock=clock) as running:
        yield running


def login(cloud: Simulator, *, user: Any = "operator", scope: Any = None) -> dict[str, Any]:
    """Return the body of a login as its manual has it: the domain of the user only."""
    given = cloud.environ(user)
    domain = {"name": given["OS_USER_DOMAIN_NAME"]}
    who = {"name": given["OS_USERNAME"], "password": given["OS_PASSWORD"], "domain": domain}
    identity = {"methods": ["password"], "password": {"user": who}}
    return {"auth": {"identity": identity, "scope": scope or {"project": {"name": given["OS_PROJECT_NAME"]}}}}


def test_what_belongs_together_is_set_together(cloud: Simulator, ask: Ask) -> None:
    """Microversions, catalogue, status of a stop, length of a page, names and times."""
    token = ask("POST", TOKENS, login(cloud), token=None).json()["token"]
    assert token["expires_at"] == "2025-06-16T15:06:40.000000Z"
    urls = {service["type"]: service["endpoints"][0]["url"] for service in token["catalog"]}
    assert urls["compute"] == f"{cloud.url}/v2.1/{cloud.project_id}"
    assert urls["bms"] == f"{cloud.bms_url}/{cloud.project_id}"
    assert token["catalog"][0]["endpoints"][0]["region"] == "eu-de"
    assert token["user"]["domain"]["name"] == "OTC00000000001000000123"
    assert ask("GET", "/v2.1/").json()["version"]["version"] == "2.60"
    server_id = cloud.add_server()
    answer = ask("POST", f"/v2.1/{cloud.project_id}/servers/{server_id}/action", {"os-stop": {}})
    assert (answer.status, answer.body) == (204, b"")


@pytest.mark.parametrize(("query", "length"), [("", 25), ("?limit=10", 10), ("?limit=1000", 30), ("?limit=2000", 30)])
@pytest.mark.parametrize("path", ["servers", "servers/detail"])
def test_a_page_of_nova_has_25_servers_by_default(
    cloud: Simulator, ask: Ask, path: str, query: str, length: int
) -> None:
    """And a link to the next one if it is full."""
    for _ in range(30):
        cloud.add_server()
    body = ask("GET", f"/v2.1/{cloud.project_id}/{path}{query}").json()
    assert len(body["servers"]) == length
    assert ("servers_links" in body) == (length < 30)
    if length == 25:
        following = body["servers_links"][0]["href"].removeprefix(cloud.url)
        assert len(ask("GET", following).json()["servers"]) == 5


def test_each_part_can_be_configured(ask: Ask) -> None:
    """By the options of the constructor."""
    with Simulator.otc(stop_status=202, compute_path=ComputePath.PLAIN, bms=False, long_tokens=False) as cloud:
        own = cloud.token()
        catalog = ask("GET", "/v3/auth/catalog", to=cloud, token=own).json()["catalog"]
        assert catalog[0]["endpoints"][0]["url"] == f"{cloud.url}/v2.1"
        assert "bms" not in [service["type"] for service in catalog]
        assert len(own) < 250


def test_a_project_needs_no_domain_beside_the_users(cloud: Simulator, ask: Ask) -> None:
    """With one it is found as well, with a wrong one or a wrong name it is not."""
    assert "OS_PROJECT_DOMAIN_NAME" not in cloud.environ()
    token = ask("POST", TOKENS, login(cloud), token=None).json()["token"]
    assert token["project"]["id"] == cloud.project_id
    right, wrong = {"name": "OTC00000000001000000123"}, {"name": "Default"}
    for project, status in (
        ({"name": "eu-de", "domain": right}, 201),
        ({"name": "eu-de", "domain": wrong}, 401),
        ({"name": "eu-nl"}, 401),
        ({"name": "other-project"}, 401),
    ):
        assert ask("POST", TOKENS, login(cloud, scope={"project": project}), token=None).status == status


def test_elsewhere_it_needs_one(ask: Ask) -> None:
    """Keystone says what is missing."""
    with Simulator() as plain:
        answer = ask("POST", TOKENS, login(plain), to=plain, token=None)
        assert answer.status == 400
        assert answer.message.startswith("Expecting to find domain in user.")


def test_a_token_is_of_some_kilobytes(cloud: Simulator, ask: Ask) -> None:
    """From a login or from elsewhere, and is taken."""
    token = ask("POST", TOKENS, login(cloud), token=None).header("X-Subject-Token")
    assert 4000 < len(token) < 5000
    assert token.startswith("MII")
    assert len(cloud.token()) == len(token)
    assert ask("GET", f"/v2.1/{cloud.project_id}/servers", token=token).status == 200


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
def test_projects_can_be_asked_for_by_name(cloud: Simulator, ask: Ask, query: str, user: Any, expected: Any) -> None:
    """Those that the caller has a role in."""
    body = ask("GET", f"/v3/projects{query}", token=cloud.token(user)).json()
    assert [project["name"] for project in body["projects"]] == expected
    assert body["links"] == {"next": None, "self": f"{cloud.url}/v3/projects{query}", "previous": None}
    if expected:
        project = body["projects"][0]
        assert (project["id"], project["enabled"]) == (cloud.project_id, True)
        assert project["links"]["self"] == f"{cloud.url}/v3/projects/{cloud.project_id}"


def test_projects_are_for_those_who_are_logged_in(ask: Ask) -> None:
    """And elsewhere there is no such path."""
    assert ask("GET", "/v3/projects", token=None).status == 401
    with Simulator() as plain:
        assert ask("GET", "/v3/projects", to=plain, token=plain.token()).status == 404


def test_nova_is_behind_the_gateway_too(cloud: Simulator, ask: Ask) -> None:
    """Which refuses a token in its own form, also if a fault says so."""
    path = f"/v2.1/{cloud.project_id}/servers"
    own = cloud.token()
    cloud.inject(Fault(on=CallKind.LIST, status=401, skip=1))
    assert ask("GET", path, token="gone").json()["error_code"] == "APIG.0301"
    answer = ask("GET", path, token=own)
    assert (answer.status, answer.json()["error_code"]) == (401, "APIG.0301")
    cloud.revoke_tokens()
    assert ask("GET", path, token=own).json()["error_code"] == "APIG.0307"


def test_a_login_can_be_throttled(cloud: Simulator, ask: Ask) -> None:
    """With the time to wait."""
    cloud.inject(Fault.throttled(CallKind.LOGIN, retry_after=7))
    answer = ask("POST", TOKENS, login(cloud), token=None)
    assert (answer.status, answer.header("Retry-After")) == (429, "7")
    assert ask("POST", TOKENS, login(cloud), token=None).status == 201
