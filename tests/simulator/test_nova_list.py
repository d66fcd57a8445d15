"""Lists of servers are paged and filtered as Nova does it."""

from typing import Any

import pytest

from handler.simulator import Simulator
from tests.simulator.conftest import UNKNOWN_ID, Ask, Lookup
from tests.support.clock import FakeClock

TRUTHS = "'0', '1', 'f', 'false', 'n', 'no', 'off', 'on', 't', 'true', 'y', 'yes'"
ALL_TENANTS = "Policy doesn't allow os_compute_api:servers:{}:get_all_tenants to be performed."


@pytest.fixture
def listed(ask: Ask) -> Lookup:
    """Send a request for a brief list, and return the names in it, or status and message of the refusal."""

    def send(query: str = "", version: str = "2.1", **more: Any) -> Any:
        answer = ask("GET", f"/v2.1/servers{query}", OpenStack_API_Version=f"compute {version}", **more)
        if answer.status != 200:
            return answer.status, answer.message
        return [server["name"] for server in answer.json()["servers"]]

    return send


@pytest.fixture
def five(cloud: Simulator, clock: FakeClock) -> list[str]:
    """Five servers, each a second younger than the one before, and one of another project."""
    ids = []
    for number in range(1, 6):
        clock.advance(1)
        ids.append(cloud.add_server(f"vm-{number}"))
    cloud.add_server("foreign", project_id=cloud.other_project_id)
    return ids


def test_a_brief_list_has_id_name_and_links(cloud: Simulator, five: list[str], ask: Ask) -> None:
    """The youngest first, none of other projects, and no link to a next page that there is not."""
    body = ask("GET", "/v2.1/servers").json()
    assert list(body) == ["servers"]
    assert [server["id"] for server in body["servers"]] == five[::-1]
    assert list(body["servers"][0]) == ["id", "name", "links"]
    assert body["servers"][0]["links"][0]["href"] == f"{cloud.url}/v2.1/servers/{five[-1]}"


def test_a_detailed_list_shows_what_a_get_shows(five: list[str], ask: Ask) -> None:
    """But for the groups of a server, which only a GET of one has; and it has a policy of its own."""
    headers = {"OpenStack_API_Version": "compute 2.90"}
    listed = ask("GET", "/v2.1/servers/detail", **headers).json()["servers"][0]
    alone = ask("GET", f"/v2.1/servers/{five[-1]}", **headers).json()["server"]
    del alone["server_groups"]
    assert listed == alone
    answer = ask("GET", "/v2.1/servers/detail?all_tenants=1")
    assert answer.refusal == (403, "forbidden", ALL_TENANTS.format("detail"))


def test_following_the_next_links_visits_every_server_once(cloud: Simulator, five: list[str], ask: Ask) -> None:
    """A page that is not full has none."""
    path, pages = "/v2.1/servers/detail?limit=2", []
    while path:
        body = ask("GET", path).json()
        pages.append([server["id"] for server in body["servers"]])
        path = body.get("servers_links", [{"href": ""}])[0]["href"].removeprefix(cloud.url)
    assert pages == [five[:2:-1], five[2:0:-1], five[:1]]


def test_a_full_last_page_has_a_next_link_too(cloud: Simulator, five: list[str], ask: Ask) -> None:
    """It leads to an empty page, and keeps the other parameters in the order of their names; the marker is last."""
    path = f"/v2.1/{cloud.project_id}/servers"
    body = ask("GET", f"{path}?name=vm&limit=5").json()
    href = f"{cloud.url}{path}?limit=5&name=vm&marker={five[0]}"
    assert body["servers_links"] == [{"rel": "next", "href": href}]
    assert ask("GET", href.removeprefix(cloud.url)).json() == {"servers": []}


@pytest.mark.parametrize("next_links", [True, False])
@pytest.mark.parametrize("query", ["", "?limit=100"])
def test_no_page_is_longer_than_the_limit_of_the_cloud(ask: Ask, query: str, next_links: bool) -> None:
    """It may lack its next link; the marker works all the same."""
    with Simulator(max_limit=3, next_links=next_links) as cloud:
        ids = [cloud.add_server(f"vm-{number}") for number in range(5)]
        token = cloud.token()
        body = ask("GET", f"/v2.1/servers{query}", to=cloud, token=token).json()
        assert [server["id"] for server in body["servers"]] == ids[:1:-1]
        assert ("servers_links" in body) is next_links
        rest = ask("GET", f"/v2.1/servers?marker={ids[2]}", to=cloud, token=token).json()
        assert [server["id"] for server in rest["servers"]] == ids[1::-1]


@pytest.mark.parametrize("query", ["?limit=0", "?marker={first}", "?changes-since=2099-01-01T00:00:00Z"])
def test_a_list_can_be_empty(five: list[str], ask: Ask, query: str) -> None:
    """200, and nothing else in it."""
    answer = ask("GET", "/v2.1/servers" + query.format(first=five[0]))
    assert (answer.status, answer.body) == (200, b'{"servers": []}')


@pytest.mark.parametrize(
    ("query", "version", "message"),
    [
        (f"marker={UNKNOWN_ID}", "2.1", f"marker [{UNKNOWN_ID}] not found"),
        ("marker=xyz", "2.1", "marker [xyz] not found"),
        ("limit=-1", "2.1", "Invalid input for query parameters limit. Value: -1. '-1' does not match '^[0-9]*$'"),
        ("limit=abc", "2.1", "Invalid input for query parameters limit. Value: abc. 'abc' does not match '^[0-9]*$'"),
        ("limit=", "2.1", "limit param must be an integer"),
        ("name=%5B", "2.1", "Invalid input for query parameters name. Value: [. '[' is not a 'regex'"),
        (
            "changes-since=yesterday",
            "2.1",
            "Invalid input for query parameters changes-since. Value: yesterday. 'yesterday' is not a 'date-time'",
        ),
        ("all_tenants=banana", "2.1", f"Unrecognized value 'banana', acceptable values are: {TRUTHS}"),
        ("status=BANANA", "2.38", "Invalid status value"),
        ("banana=1", "2.75", "'banana' does not match any of the regexes: '^_'"),
        ("id=1", "2.90", "'id' does not match any of the regexes: '^_'"),
        ("b=1&a=1", "2.75", "'a', 'b' do not match any of the regexes: '^_'"),
    ],
)
@pytest.mark.usefixtures("five")
def test_a_parameter_that_nova_does_not_accept_is_a_bad_request(
    listed: Lookup, query: str, version: str, message: str
) -> None:
    """With the message of its schema."""
    assert listed(f"?{query}", version) == (400, message)


@pytest.mark.parametrize("name", ["sort_key", "sort_dir", "changes-before", "hostname"])
def test_a_parameter_that_the_simulator_does_not_have_is_not_ignored(listed: Lookup, name: str) -> None:
    """As Nova uses it, an answer without it would be wrong."""
    assert listed(f"?{name}=x", "2.90") == (501, f"The simulator does not have the query parameter {name}.")


OFF, PAUSED, BUSY, PLAIN, GONE, FOREIGN = "off", "paused", "busy", "plain", "gone", "foreign"
EVERY = [FOREIGN, PLAIN, BUSY, PAUSED, OFF]
OWN = EVERY[1:]


@pytest.mark.parametrize(
    ("user", "version", "query", "found"),
    [
        ("operator", "2.1", "status=ACTIVE", [PLAIN, BUSY]),
        ("operator", "2.1", "status=active", [PLAIN, BUSY]),
        ("operator", "2.1", "status=SHUTOFF&status=PAUSED", [PAUSED, OFF]),
        ("operator", "2.1", "status=REBOOT", [BUSY]),
        ("operator", "2.1", "status=BANANA", []),
        ("operator", "2.1", "name=a", [PLAIN, PAUSED]),
        ("operator", "2.1", "name=%5Eoff%24", [OFF]),
        ("operator", "2.1", "name=PLAIN", [PLAIN]),
        ("operator", "2.1", "flavor=physical.h2.large", [OFF]),
        # The filters of administrators, and of later microversions, have no effect.
        *(("operator", "2.1", query, OWN) for query in ("uuid=x", "id=x", "vm_state=paused", "host=rack-7")),
        *(("operator", "2.1", query, OWN) for query in ("deleted=true", "banana=1", "locked=true", "power_state=4")),
        *(("operator", "2.25", query, OWN) for query in ("tags=red", "tags-any=red", "not-tags=red")),
        ("operator", "2.90", "uuid=x&_x=1", OWN),
        ("operator", "2.26", "tags=red", [PAUSED, OFF]),
        ("operator", "2.26", "tags=red,blue", [PAUSED]),
        ("operator", "2.26", "tags-any=red,blue", [BUSY, PAUSED, OFF]),
        ("operator", "2.26", "not-tags=red,blue", [PLAIN, BUSY, OFF]),
        ("operator", "2.26", "not-tags-any=red", [PLAIN, BUSY]),
        ("operator", "2.73", "locked=true", [OFF]),
        ("operator", "2.83", "power_state=4", [OFF]),
        ("operator", "2.83", "vm_state=stopped", [OFF]),
        ("operator", "2.83", "task_state=rebooting", [BUSY]),
        ("operator", "2.83", "user_id={user}", OWN),
        ("operator", "2.1", "all_tenants=0", OWN),
        *(("admin", "2.1", f"all_tenants={value}", EVERY) for value in ("1", "True", "")),
        ("admin", "2.1", "uuid={paused}&uuid={off}&all_tenants=1", [OFF]),
        ("admin", "2.1", "host=rack-7", [PAUSED]),
        ("admin", "2.1", "vm_state=paused", [PAUSED]),
        # A status goes before a vm_state.
        ("admin", "2.1", "status=SHUTOFF&vm_state=paused", [OFF]),
        ("admin", "2.1", "deleted=true", [GONE]),
        ("admin", "2.1", "status=DELETED", [GONE]),
        ("admin", "2.1", "all_tenants=1&project_id={other}", [FOREIGN]),
        # Not allowed.
        *(
            ("operator", "2.1", f"all_tenants={value}", (403, ALL_TENANTS.format("index")))
            for value in ("1", "True", "")
        ),
        ("operator", "2.1", "status=DELETED", (403, "Only administrators may list deleted instances")),
    ],
)
def test_a_list_is_filtered_as_nova_does_it(
    cloud: Simulator, listed: Lookup, user: str, version: str, query: str, found: Any
) -> None:
    """By status, which is translated to states, by a part of the name, by tags, ..."""
    off = cloud.add_server(OFF, vm_state="stopped", flavor="physical.h2.large", tags=["red"], locked=True)
    paused = cloud.add_server(PAUSED, vm_state="paused", host="rack-7", tags=["red", "blue"])
    cloud.add_server(BUSY, task_state="rebooting", tags=["blue"])
    cloud.delete_server(cloud.add_server(GONE))
    cloud.add_server(PLAIN)
    cloud.add_server(FOREIGN, project_id=cloud.other_project_id)
    query = query.format(user=cloud.user().id, off=off, paused=paused, other=cloud.other_project_id)
    assert listed(f"?{query}", version, token=cloud.token(user)) == found


def test_what_changed_since_a_time_is_listed_with_deleted_servers(
    cloud: Simulator, five: list[str], ask: Ask, clock: FakeClock
) -> None:
    """They are shown as DELETED, with their end; elsewhere such a server is not a marker."""
    clock.advance(60)
    cloud.change(five[1], locked=True)
    cloud.delete_server(five[3])
    path = "/v2.1/servers/detail?changes-since=2025-06-15T15:07:00"
    shown = ask("GET", path).json()["servers"]
    assert ask("GET", path + "Z").json()["servers"] == shown
    assert [(server["name"], server["status"]) for server in shown] == [("vm-4", "DELETED"), ("vm-2", "ACTIVE")]
    assert shown[0]["OS-SRV-USG:terminated_at"] == "2025-06-15T15:07:45.000000"
    assert (shown[0]["OS-EXT-STS:vm_state"], shown[0]["OS-EXT-STS:power_state"]) == ("deleted", 0)
    assert ask("GET", f"{path}&marker={five[3]}").json()["servers"] == shown[1:]
    assert ask("GET", f"/v2.1/servers?marker={five[3]}").message == f"marker [{five[3]}] not found"
