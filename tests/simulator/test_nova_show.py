"""What Nova shows of a server depends on the microversion."""

from typing import Any

import pytest

from handler.simulator import Simulator
from tests.simulator.conftest import NOVA_IDS, Ask
from tests.support.clock import FakeClock

IN_2_1 = [
    "accessIPv4", "accessIPv6", "addresses", "created", "flavor", "hostId", "id", "image", "links",
    "metadata", "name", "status", "tenant_id", "user_id", "updated", "OS-DCF:diskConfig", "progress",
    "OS-EXT-AZ:availability_zone", "config_drive", "key_name", "OS-SRV-USG:launched_at",
    "OS-SRV-USG:terminated_at", "OS-EXT-STS:task_state", "OS-EXT-STS:vm_state", "OS-EXT-STS:power_state",
    "os-extended-volumes:volumes_attached",
]  # fmt: skip
LATER = {
    9: "locked", 19: "description", 26: "tags", 63: "trusted_image_certificates", 71: "server_groups",
    73: "locked_reason", 90: "OS-EXT-SRV-ATTR:hostname", 96: "pinned_availability_zone", 100: "scheduler_hints",
}  # fmt: skip


def show(ask: Ask, server_id: str, version: str = "2.1", **more: Any) -> Any:
    """Return a server as Nova shows it."""
    answer = ask("GET", f"/v2.1/servers/{server_id}", X_OpenStack_Nova_API_Version=version, **more)
    assert answer.status == 200
    return answer.json()["server"]


@pytest.mark.parametrize(
    "minor", [1, 8, 9, 18, 19, 25, 26, 46, 47, 62, 63, 70, 71, 72, 73, 89, 90, 95, 96, 98, 100, 104]
)
def test_the_body_grows_with_the_microversion(cloud: Simulator, ask: Ask, minor: int) -> None:
    """New members are at the end and in Nova's order; from 2.47 on the flavor has a name in place of its id."""
    server_id = cloud.add_server(tags=["env=test"], flavor="9d2f8d0e", flavor_name="physical.h2.large")
    shown = show(ask, server_id, f"2.{minor}")
    assert list(shown) == IN_2_1 + [key for since, key in LATER.items() if since <= minor]
    flavor = shown["flavor"]
    if minor < 47:
        assert (list(flavor), flavor["id"]) == (["id", "links"], "9d2f8d0e")
    else:
        assert list(flavor) == ["vcpus", "ram", "disk", "ephemeral", "swap", "original_name", "extra_specs"]
        assert flavor["original_name"] == "physical.h2.large"
    assert ("properties" in shown["image"]) is (minor >= 98)
    assert shown.get("tags", ["env=test"]) == ["env=test"]


def test_the_members_of_a_server(cloud: Simulator, ask: Ask) -> None:
    """Times end in Z, but for those of use, which have six digits and no zone."""
    given: Any = {"locked": True, "locked_reason": "no", "metadata": {"protect": "true"}, "description": "a database"}
    server_id = cloud.add_server("db-1", **given)
    shown = show(ask, server_id, "2.73")
    expected = given | {
        "name": "db-1",
        "tenant_id": cloud.project_id,
        "user_id": cloud.user().id,
        "created": "2025-06-15T15:06:40Z",
        "updated": "2025-06-15T15:06:40Z",
        "OS-SRV-USG:launched_at": "2025-06-15T15:06:40.000000",
        "OS-SRV-USG:terminated_at": None,
        "OS-EXT-STS:power_state": 1,
    }
    assert {name: shown[name] for name in expected} == expected
    assert len(shown["hostId"]) == 56


@pytest.mark.parametrize(
    ("path", "links"),
    [
        ("/v2.1/servers/{id}", ("/v2.1/servers/{id}", "/servers/{id}")),
        ("/v2.1/{project}/servers/{id}", ("/v2.1/{project}/servers/{id}", "/{project}/servers/{id}")),
        ("/v2/{project}/servers/{id}", ("/v2/{project}/servers/{id}", "/{project}/servers/{id}")),
        ("/compute/v2.1/servers/{id}", ("/compute/v2.1/servers/{id}", "/compute/servers/{id}")),
    ],
)
def test_links_begin_as_the_request_did(cloud: Simulator, ask: Ask, path: str, links: Any) -> None:
    """With the root that the caller used, and with the project if it was in the path."""
    names = {"id": cloud.add_server(), "project": cloud.project_id}
    shown = ask("GET", path.format(**names)).json()["server"]["links"]
    own, bookmark = (cloud.url + link.format(**names) for link in links)
    assert shown == [{"rel": "self", "href": own}, {"rel": "bookmark", "href": bookmark}]


def test_a_build_that_got_no_host_shows_the_fault(cloud: Simulator, ask: Ask) -> None:
    """And has neither a host nor a zone nor a launch."""
    shown = show(ask, cloud.add_server(vm_state="error", host=False))
    assert shown["status"] == "ERROR"
    assert shown["fault"] == {"code": 500, "created": "2025-06-15T15:06:40Z", "message": "No valid host was found. "}
    assert (shown["hostId"], shown["OS-EXT-AZ:availability_zone"], shown["OS-EXT-STS:power_state"]) == ("", "", 0)
    assert shown["OS-SRV-USG:launched_at"] is None
    assert "progress" not in shown


def test_an_administrator_sees_the_host(cloud: Simulator, ask: Ask) -> None:
    """More of it from 2.3 on, and its state from 2.16 on."""
    server_id, admin = cloud.add_server(host="rack-7"), cloud.token("admin")
    first = show(ask, server_id, token=admin)
    assert first["OS-EXT-SRV-ATTR:host"] == "rack-7"
    assert "OS-EXT-SRV-ATTR:hostname" not in first
    later = show(ask, server_id, "2.90", token=admin)
    assert (later["OS-EXT-SRV-ATTR:hostname"], later["host_status"]) == ("server-1", "UP")


@pytest.mark.parametrize(
    ("vm_state", "task_state", "status"),
    [
        ("active", None, "ACTIVE"),
        ("active", "powering-off", "ACTIVE"),
        ("active", "rebooting", "REBOOT"),
        ("active", "reboot_started_hard", "HARD_REBOOT"),
        ("active", "rebuilding", "REBUILD"),
        ("active", "resize_finish", "RESIZE"),
        ("building", "spawning", "BUILD"),
        ("stopped", None, "SHUTOFF"),
        ("stopped", "powering-on", "SHUTOFF"),
        ("error", None, "ERROR"),
        ("error", "rebuild_spawning", "REBUILD"),
        ("paused", None, "PAUSED"),
        ("suspended", None, "SUSPENDED"),
        ("rescued", None, "RESCUE"),
        ("resized", None, "VERIFY_RESIZE"),
        ("soft-delete", None, "SOFT_DELETED"),
        ("shelved", None, "SHELVED"),
        ("shelved_offloaded", None, "SHELVED_OFFLOADED"),
        ("something-new", None, "UNKNOWN"),
    ],
)
def test_the_status_is_computed_from_both_states(
    cloud: Simulator, ask: Ask, vm_state: str, task_state: str | None, status: str
) -> None:
    """As in Nova's own table."""
    shown = show(ask, cloud.add_server(vm_state=vm_state, task_state=task_state))
    assert shown["status"] == status
    assert ("progress" in shown) is (status in {"ACTIVE", "BUILD", "REBUILD", "RESIZE", "VERIFY_RESIZE"})


@pytest.mark.parametrize(
    ("headers", "version"),
    [
        ({}, "2.1"),
        ({"X_OpenStack_Nova_API_Version": "2.26"}, "2.26"),
        ({"OpenStack_API_Version": "compute 2.90"}, "2.90"),
        ({"OpenStack_API_Version": "compute latest"}, "2.104"),
        ({"X_OpenStack_Nova_API_Version": "latest"}, "2.104"),
        ({"OpenStack_API_Version": "volume 3.0"}, "2.1"),
        ({"OpenStack_API_Version": "volume 3.0, compute 2.60"}, "2.60"),
        ({"OpenStack_API_Version": "compute 2.9", "X_OpenStack_Nova_API_Version": "2.26"}, "2.9"),
    ],
    ids=str,
)
def test_the_microversion_is_taken_from_either_header(cloud: Simulator, ask: Ask, headers: Any, version: str) -> None:
    """The newer header goes before the older, and the answer names the version in both."""
    answer = ask("GET", f"/v2.1/servers/{cloud.add_server()}", **headers)
    assert answer.header("OpenStack-API-Version") == f"compute {version}"
    assert answer.header("X-OpenStack-Nova-API-Version") == version


@pytest.mark.parametrize(("maximum", "beyond"), [("2.104", "2.999"), ("2.60", "2.61")])
def test_a_microversion_beyond_the_maximum_is_not_acceptable(ask: Ask, maximum: str, beyond: str) -> None:
    """406 has the maximum, which is 2.60 on Open Telekom Cloud, and names the version asked for."""
    with Simulator(max_microversion=maximum) as cloud:
        path, more = f"/v2.1/servers/{cloud.add_server()}", {"to": cloud, "token": cloud.token()}
        answer = ask("GET", path, OpenStack_API_Version=f"compute {beyond}", **more)
        message = f"Version {beyond} is not supported by the API. Minimum is 2.1 and maximum is {maximum}."
        assert answer.refusal == (406, "computeFault", message)
        assert (answer.reason, answer.header("OpenStack-API-Version")) == ("Not Acceptable", f"compute {beyond}")
        latest = ask("GET", path, OpenStack_API_Version="compute latest", **more)
        assert latest.header("X-OpenStack-Nova-API-Version") == maximum
        assert ask("GET", "/v2.1/", to=cloud, token=None).json()["version"]["version"] == maximum


@pytest.mark.parametrize("text", ["banana", "2", "2.01", "2.x"])
def test_a_malformed_microversion_is_a_bad_request(cloud: Simulator, ask: Ask, text: str) -> None:
    """And the answer names no version."""
    answer = ask("GET", f"/v2.1/servers/{cloud.add_server()}", OpenStack_API_Version=f"compute {text}")
    assert (answer.status, answer.names) == (400, ["Content-Type", "Content-Length", *NOVA_IDS])
    assert answer.message == f"API Version String {text} is of invalid format. Must be of format MajorNum.MinorNum."


def test_the_old_root_has_no_microversions(cloud: Simulator, ask: Ask) -> None:
    """/v2 ignores the headers, and names no version."""
    answer = ask("GET", f"/v2/servers/{cloud.add_server()}", OpenStack_API_Version="compute 2.90")
    assert (answer.status, answer.names) == (200, ["Content-Length", "Content-Type", *NOVA_IDS])
    assert "tags" not in answer.json()["server"]
    version = ask("GET", "/v2/", token=None).json()["version"]
    assert (version["id"], version["status"], version["version"]) == ("v2.0", "DEPRECATED", "")


@pytest.mark.parametrize("path", ["/v2.1", "/v2.1/"])
def test_nova_shows_its_version_without_a_token(cloud: Simulator, ask: Ask, path: str) -> None:
    """With the range of microversions."""
    answer = ask("GET", path, token=None)
    assert (answer.status, answer.header("OpenStack-API-Version")) == (200, "compute 2.1")
    assert answer.json()["version"] == {
        "id": "v2.1",
        "status": "CURRENT",
        "version": "2.104",
        "min_version": "2.1",
        "updated": "2013-07-23T11:33:21Z",
        "links": [
            {"rel": "self", "href": f"{cloud.url}/v2.1/"},
            {"rel": "describedby", "type": "text/html", "href": "http://docs.openstack.org/"},
        ],
        "media-types": [{"base": "application/json", "type": "application/vnd.openstack.compute+json;version=2.1"}],
    }


@pytest.mark.parametrize("path", ["/compute", "/compute/"])
def test_nova_lists_its_versions_below_a_prefix(cloud: Simulator, ask: Ask, path: str) -> None:
    """Without a token, a request id or a microversion; the root of the port is Keystone's."""
    answer = ask("GET", path, token=None)
    assert (answer.status, answer.names) == (200, ["Content-Length", "Content-Type"])
    old, new = answer.json()["versions"]
    assert (old["id"], old["status"], old["version"], old["min_version"]) == ("v2.0", "DEPRECATED", "", "")
    assert old["links"] == [{"rel": "self", "href": f"{cloud.url}/compute/v2/"}]
    assert (new["id"], new["version"], new["min_version"]) == ("v2.1", "2.104", "2.1")
    assert new["links"][0]["href"] == f"{cloud.url}/compute/v2.1/"


def records(ask: Ask, server_id: str, version: str = "2.1", path: str = "", **more: Any) -> Any:
    """Return the instance actions of a server."""
    path = f"/v2.1/servers/{server_id}/os-instance-actions{path}"
    return ask("GET", path, OpenStack_API_Version=f"compute {version}", **more)


def test_a_stop_is_recorded_under_its_request_id(cloud: Simulator, ask: Ask, stop: Ask, clock: FakeClock) -> None:
    """The latest is first, each with the seven members of 2.1."""
    server_id = cloud.add_server()
    clock.advance(60)
    request_id = stop(server_id).header("x-openstack-request-id")
    first = {
        "action": "stop",
        "instance_uuid": server_id,
        "request_id": request_id,
        "user_id": cloud.user().id,
        "project_id": cloud.project_id,
        "start_time": "2025-06-15T15:07:40.000000",
        "message": None,
    }
    stopped, created = records(ask, server_id).json()["instanceActions"]
    assert (list(stopped.items()), created["action"]) == (list(first.items()), "create")
    assert records(ask, server_id, path=f"/{request_id}").json() == {"instanceAction": first}


def test_a_record_in_detail_has_events_from_2_51_on(cloud: Simulator, ask: Ask, stop: Ask, clock: FakeClock) -> None:
    """Without an end while the host is busy; with `updated_at` from 2.58 on and the host from 2.62 on."""
    server_id = cloud.add_server(power_off_delay=5)
    path = "/" + stop(server_id).header("x-openstack-request-id")
    began = {"event": "compute_stop_instance", "start_time": "2025-06-15T15:06:40.000000"}
    busy = records(ask, server_id, "2.51", path).json()["instanceAction"]["events"]
    assert busy == [began | {"finish_time": None, "result": None}]
    clock.advance(5)
    done = records(ask, server_id, "2.60", path).json()["instanceAction"]
    assert done["updated_at"] == done["events"][0]["finish_time"] == "2025-06-15T15:06:45.000000"
    assert done["events"][0]["result"] == "Success"
    assert "hostId" in records(ask, server_id, "2.62", path).json()["instanceAction"]["events"][0]
    admin = records(ask, server_id, "2.84", path, token=cloud.token("admin")).json()["instanceAction"]
    assert {"traceback", "host", "details"} < set(admin["events"][0])


def test_an_entry_can_be_added_to_the_history_without_an_action(cloud: Simulator, ask: Ask, clock: FakeClock) -> None:
    """As by Ironic's notifications; at any time, and in order."""
    server_id = cloud.add_server()
    clock.advance(100)
    before = cloud.server(server_id)
    cloud.record_action(server_id, "start", user_id="ironic")
    cloud.record_action(server_id, "reboot", user_id="u-7", at=clock.now - 10)
    shown = [(entry["action"], entry["user_id"]) for entry in records(ask, server_id).json()["instanceActions"]]
    assert shown == [("start", "ironic"), ("reboot", "u-7"), ("create", cloud.user().id)]
    assert cloud.server(server_id) == before
    with pytest.raises(KeyError):
        cloud.record_action("no-such-server", "start")


def test_records_of_a_deleted_server_can_be_read_from_2_21_on(cloud: Simulator, ask: Ask) -> None:
    """By those who could see the server; an unknown record or server is not found."""
    server_id, foreign = cloud.add_server(), cloud.add_server(project_id=cloud.other_project_id)
    for id_ in (server_id, foreign):
        cloud.delete_server(id_)
    assert records(ask, server_id, "2.20").status == 404
    assert records(ask, server_id, "2.21").json()["instanceActions"][0]["action"] == "delete"
    assert records(ask, server_id, "2.21", "/req-none").message == "Action req-none not found"
    assert records(ask, foreign, "2.21").status == records(ask, "no-such-server", "2.21").status == 404
