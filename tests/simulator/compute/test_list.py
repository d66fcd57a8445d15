"""Lists of servers are paged and filtered as Nova does it, quirks included."""

from typing import Any

import pytest

from handler.simulator import Simulator
from tests.simulator.conftest import Ask, Lookup
from tests.support.clock import FakeClock

UNKNOWN = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def names(ask: Ask) -> Lookup:
    """Ask for a brief list and return the names in it."""

    def listed(query: str = "", version: str = "2.1", **more: Any) -> list[str]:
        answer = ask("GET", f"/v2.1/servers{query}", OpenStack_API_Version=f"compute {version}", **more)
        assert answer.status == 200, answer.body
        return [server["name"] for server in answer.json()["servers"]]

    return listed


@pytest.fixture
def refusal(ask: Ask) -> Lookup:
    """Ask for a brief list and return the status and the message of the refusal."""

    def refused(query: str, version: str = "2.1", **more: Any) -> Any:
        answer = ask("GET", f"/v2.1/servers{query}", OpenStack_API_Version=f"compute {version}", **more)
        return answer.status, answer.message

    return refused


@pytest.fixture
def five(cloud: Simulator, clock: FakeClock) -> list[str]:
    """Five servers, each a second younger than the one before, and one of another project."""
    ids = []
    for number in range(1, 6):
        clock.advance(1)
        ids.append(cloud.add_server(f"vm-{number}"))
    cloud.add_server("foreign", project_id=cloud.other_project_id)
    return ids


@pytest.mark.usefixtures("five")
def test_the_youngest_comes_first(names: Lookup) -> None:
    """And servers of other projects not at all."""
    assert names() == ["vm-5", "vm-4", "vm-3", "vm-2", "vm-1"]


def test_a_brief_list_has_id_name_and_links(cloud: Simulator, five: list[str], ask: Ask) -> None:
    """Nothing else, and no link to a next page that there is not."""
    body = ask("GET", "/v2.1/servers").json()
    assert list(body) == ["servers"]
    assert list(body["servers"][0]) == ["id", "name", "links"]
    assert body["servers"][0]["links"][0]["href"] == f"{cloud.url}/v2.1/servers/{five[-1]}"


def test_a_detailed_list_shows_what_a_get_shows(five: list[str], ask: Ask) -> None:
    """But for the groups of a server, which only a GET of one has."""
    headers = {"OpenStack_API_Version": "compute 2.90"}
    listed = ask("GET", "/v2.1/servers/detail", **headers).json()["servers"][0]
    alone = ask("GET", f"/v2.1/servers/{five[-1]}", **headers).json()["server"]
    del alone["server_groups"]
    assert listed == alone


@pytest.mark.usefixtures("five")
def test_following_the_next_links_visits_every_server_once(cloud: Simulator, ask: Ask) -> None:
    """Each full page has one, also when nothing follows."""
    path, seen, pages = "/v2.1/servers/detail?limit=2", [], 0
    while path:
        body = ask("GET", path).json()
        seen += [server["name"] for server in body["servers"]]
        pages += 1
        path = body.get("servers_links", [{"href": ""}])[0]["href"].removeprefix(cloud.url)
    assert seen == ["vm-5", "vm-4", "vm-3", "vm-2", "vm-1"]
    assert pages == 3


def test_a_full_last_page_has_a_next_link_all_the_same(cloud: Simulator, five: list[str], ask: Ask) -> None:
    """Behind which is an empty page."""
    body = ask("GET", "/v2.1/servers?limit=5").json()
    href = f"{cloud.url}/v2.1/servers?limit=5&marker={five[0]}"
    assert body["servers_links"] == [{"rel": "next", "href": href}]
    assert ask("GET", href.removeprefix(cloud.url)).json() == {"servers": []}


def test_a_next_link_keeps_the_other_parameters_in_order_of_name(cloud: Simulator, five: list[str], ask: Ask) -> None:
    """The marker comes last unless there was one."""
    path = f"/v2.1/{cloud.project_id}/servers"
    (link,) = ask("GET", f"{path}?name=vm&limit=2").json()["servers_links"]
    assert link["href"] == f"{cloud.url}{path}?limit=2&name=vm&marker={five[3]}"


def test_no_page_is_longer_than_the_clouds_limit(ask: Ask) -> None:
    """However much is asked for; the link shows how to go on."""
    with Simulator(max_limit=3) as cloud:
        for number in range(5):
            cloud.add_server(f"vm-{number}")
        token = cloud.token()
        for query in ("", "?limit=100"):
            body = ask("GET", f"/v2.1/servers{query}", to=cloud, token=token).json()
            assert len(body["servers"]) == 3
            assert "servers_links" in body


@pytest.mark.parametrize("query", ["?limit=0", "?marker={first}", "?changes-since=2099-01-01T00:00:00Z"])
def test_an_empty_list_is_an_answer(five: list[str], ask: Ask, query: str) -> None:
    """200, and nothing else in it."""
    answer = ask("GET", "/v2.1/servers" + query.format(first=five[0]))
    assert (answer.status, answer.body) == (200, b'{"servers": []}')


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (f"marker={UNKNOWN}", f"marker [{UNKNOWN}] not found"),
        ("marker=xyz", "marker [xyz] not found"),
        ("limit=-1", "Invalid input for query parameters limit. Value: -1. '-1' does not match '^[0-9]*$'"),
        (
            "limit=abc",
            "Invalid input for query parameters limit. Value: abc. 'abc' does not match '^[0-9]*$'",
        ),
        ("limit=", "limit param must be an integer"),
        ("name=%5B", "Invalid input for query parameters name. Value: [. '[' is not a 'regex'"),
        (
            "changes-since=yesterday",
            "Invalid input for query parameters changes-since. Value: yesterday. 'yesterday' is not a 'date-time'",
        ),
        (
            "all_tenants=banana",
            "Unrecognized value 'banana', acceptable values are: "
            "'0', '1', 'f', 'false', 'n', 'no', 'off', 'on', 't', 'true', 'y', 'yes'",
        ),
    ],
)
@pytest.mark.usefixtures("five")
def test_a_parameter_that_nova_does_not_take_is_a_bad_request(refusal: Lookup, query: str, message: Any) -> None:
    """In the words of its schema."""
    assert refusal(f"?{query}") == (400, message)


@pytest.mark.parametrize("name", ["sort_key", "sort_dir", "changes-before", "hostname"])
def test_a_parameter_that_the_simulator_does_not_have_is_not_ignored(refusal: Lookup, name: str) -> None:
    """As Nova uses it, an answer without it would be wrong."""
    assert refusal(f"?{name}=x", "2.90") == (501, f"The simulator does not have the query parameter {name}.")


@pytest.mark.parametrize(
    "query",
    [
        "?uuid={id}",
        "?id={id}",
        "?vm_state=paused",
        "?host=host-2",
        "?deleted=true",
        "?banana=1",
        "?locked=true",
    ],
)
def test_a_filter_that_a_plain_user_does_not_have_is_ignored(five: list[str], names: Lookup, query: str) -> None:
    """All servers come, which a client must be ready for."""
    assert len(names(query.format(id=five[0]))) == 5


def test_from_2_75_on_an_unknown_parameter_is_a_bad_request(five: list[str], refusal: Lookup, names: Lookup) -> None:
    """Known ones are still ignored where they have no effect."""
    assert refusal("?banana=1", "2.75") == (400, "'banana' does not match any of the regexes: '^_'")
    assert refusal("?b=1&a=1", "2.75") == (400, "'a', 'b' do not match any of the regexes: '^_'")
    assert len(names(f"?uuid={five[0]}&_x=1", "2.90")) == 5


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("status=ACTIVE", ["plain", "busy"]),
        ("status=active", ["plain", "busy"]),
        ("status=SHUTOFF", ["off"]),
        ("status=SHUTOFF&status=PAUSED", ["paused", "off"]),
        ("status=REBOOT", ["busy"]),
        ("status=BANANA", []),
        ("name=a", ["plain", "paused"]),
        ("name=%5Eoff%24", ["off"]),
        ("name=PLAIN", ["plain"]),
        ("flavor=physical.h2.large", ["off"]),
    ],
)
def test_the_filters_of_a_plain_user(cloud: Simulator, names: Lookup, query: str, found: Any) -> None:
    """By status, which is translated to states, by a part of the name, and by flavor."""
    cloud.add_server("off", vm_state="stopped", flavor="physical.h2.large")
    cloud.add_server("paused", vm_state="paused")
    cloud.add_server("busy", task_state="rebooting")
    cloud.add_server("plain")
    assert names(f"?{query}") == found


@pytest.mark.usefixtures("five")
def test_an_unknown_status_is_a_bad_request_from_2_38_on(refusal: Lookup) -> None:
    """Before, it found nothing."""
    assert refusal("?status=BANANA", "2.38") == (400, "Invalid status value")


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("tags=red", ["both", "red"]),
        ("tags=red,blue", ["both"]),
        ("tags-any=red,blue", ["both", "blue", "red"]),
        ("not-tags=red,blue", ["none", "blue", "red"]),
        ("not-tags-any=red", ["none", "blue"]),
    ],
)
def test_tags_are_filtered_by_from_2_26_on(cloud: Simulator, names: Lookup, query: str, found: Any) -> None:
    """All, any, not all, not any; before that version the filter has no effect."""
    for name, tags in {"red": ["red"], "blue": ["blue"], "both": ["red", "blue"], "none": []}.items():
        cloud.add_server(name, tags=tags)
    assert names(f"?{query}", "2.26") == found
    assert len(names(f"?{query}", "2.25")) == 4


def test_later_versions_have_more_filters(cloud: Simulator, names: Lookup) -> None:
    """`locked` from 2.73 on, and states from 2.83 on."""
    cloud.add_server("off", vm_state="stopped", locked=True, updated=1_700_000_000.0)
    cloud.add_server("busy", task_state="rebooting")
    assert names("?locked=true", "2.73") == ["off"]
    assert names("?power_state=4", "2.83") == names("?vm_state=stopped", "2.83") == ["off"]
    assert names("?task_state=rebooting", "2.83") == ["busy"]
    assert names(f"?user_id={cloud.user().id}", "2.83") == ["busy", "off"]


def test_what_changed_since_a_moment_is_listed_with_what_was_deleted(
    cloud: Simulator, five: list[str], ask: Ask, clock: FakeClock
) -> None:
    """A server that is gone shows as DELETED, with its end."""
    clock.advance(60)
    cloud.change(five[1], locked=True)
    cloud.delete_server(five[3])
    path = "/v2.1/servers/detail?changes-since=2025-06-15T15:07:00"
    shown = ask("GET", path).json()["servers"]
    assert ask("GET", path + "Z").json()["servers"] == shown
    assert [(server["name"], server["status"]) for server in shown] == [
        ("vm-4", "DELETED"),
        ("vm-2", "ACTIVE"),
    ]
    assert shown[0]["OS-SRV-USG:terminated_at"] == "2025-06-15T15:07:45.000000"
    assert (shown[0]["OS-EXT-STS:vm_state"], shown[0]["OS-EXT-STS:power_state"]) == ("deleted", 0)


@pytest.mark.parametrize("value", ["1", "True", ""])
@pytest.mark.usefixtures("five")
def test_servers_of_all_projects_are_for_administrators(cloud: Simulator, ask: Ask, names: Lookup, value: Any) -> None:
    """The policy that forbids it depends on the list."""
    for path, kind in (("servers", "index"), ("servers/detail", "detail")):
        answer = ask("GET", f"/v2.1/{path}?all_tenants={value}")
        assert answer.status == 403
        assert answer.message == f"Policy doesn't allow os_compute_api:servers:{kind}:get_all_tenants to be performed."
    admin = cloud.token("admin")
    assert len(names(f"?all_tenants={value}", token=admin)) == 6
    assert len(names("?all_tenants=0")) == 5


def test_an_administrator_has_all_filters(cloud: Simulator, five: list[str], names: Lookup) -> None:
    """By id (the last one counts), host, state, project, and whether it is gone."""
    cloud.change(five[0], host="host-2")
    cloud.delete_server(five[1])
    admin = {"token": cloud.token("admin")}
    assert names(f"?uuid={five[0]}&uuid={five[2]}&all_tenants=1", **admin) == ["vm-3"]
    assert names("?host=host-2", **admin) == ["vm-1"]
    assert names("?deleted=true", **admin) == ["vm-2"]
    assert names("?status=DELETED", **admin) == ["vm-2"]
    assert names(f"?all_tenants=1&project_id={cloud.other_project_id}", **admin) == ["foreign"]


@pytest.mark.usefixtures("five")
def test_a_plain_user_may_not_list_what_is_deleted(refusal: Lookup) -> None:
    """By status; the parameter `deleted` is ignored."""
    assert refusal("?status=DELETED") == (403, "Only administrators may list deleted instances")
