"""A stop is answered as Nova answers it, and does what it does there."""

import math
from typing import Any

import pytest

from handler.simulator import CallKind, Conflict, NotFound, Simulator
from tests.simulator.conftest import Ask
from tests.support.clock import FakeClock

ACCEPTED = [
    "Content-Length", "Content-Type", "OpenStack-API-Version", "X-OpenStack-Nova-API-Version", "Vary", "Vary",
    "x-openstack-request-id", "x-compute-request-id",
]  # fmt: skip
REFUSED = [
    "OpenStack-API-Version", "X-OpenStack-Nova-API-Version", "Vary", "Vary", "Content-Type", "Content-Length",
    "x-openstack-request-id", "x-compute-request-id",
]  # fmt: skip
NEVER_SEEN = "00000000-0000-4000-8000-000000000000"


def states(server: Any) -> Any:
    """Return all states of a server."""
    return server.status, server.vm_state, server.task_state, server.power_state


@pytest.mark.parametrize("argument", [None, {}, {"type": "HARD"}, "SOFT", [], False], ids=repr)
@pytest.mark.parametrize("vm_state", ["active", "error"])
def test_a_stop_is_taken_whatever_stands_behind_the_word(
    cloud: Simulator, stop: Ask, vm_state: str, argument: Any
) -> None:
    """202 without a body, and the server is off."""
    server_id = cloud.add_server(vm_state=vm_state)
    answer = stop(server_id, argument)
    assert (answer.status, answer.reason, answer.body) == (202, "Accepted", b"")
    assert answer.names == ACCEPTED
    assert answer.header("Content-Length") == "0"
    assert answer.header("Content-Type") == "application/json"
    assert answer.header("OpenStack-API-Version") == "compute 2.1"
    assert [value for name, value in answer.headers if name == "Vary"] == [
        "OpenStack-API-Version",
        "X-OpenStack-Nova-API-Version",
    ]
    assert answer.header("x-openstack-request-id") == answer.header("x-compute-request-id")
    assert states(cloud.server(server_id)) == ("SHUTOFF", "stopped", None, 4)


def test_a_server_is_powering_off_until_its_time_has_come(
    cloud: Simulator, stop: Ask, ask: Ask, clock: FakeClock
) -> None:
    """The moment is that of the cloud's clock, whenever the server is read."""
    server_id = cloud.add_server(power_off_delay=8)
    clock.advance(5)
    assert stop(server_id).status == 202
    clock.advance(7.9)
    shown = ask("GET", f"/v2.1/servers/{server_id}").json()["server"]
    assert (shown["status"], shown["OS-EXT-STS:task_state"]) == ("ACTIVE", "powering-off")
    assert shown["updated"] == "2025-06-15T15:06:45Z"
    clock.advance(100)
    assert states(cloud.server(server_id)) == ("SHUTOFF", "stopped", None, 4)
    assert ask("GET", f"/v2.1/servers/{server_id}").json()["server"]["updated"] == "2025-06-15T15:06:53Z"


def test_the_delay_of_the_cloud_holds_for_servers_without_their_own(clock: FakeClock) -> None:
    """An own delay of nothing counts as one."""
    cloud = Simulator(clock=clock, power_off_delay=30)
    slow, quick = cloud.add_server(), cloud.add_server(power_off_delay=0)
    for server_id in (slow, quick):
        cloud._world.act(server_id, "stop", cloud._actor("me"))
    assert cloud.server(slow).task_state == "powering-off"
    assert cloud.server(quick).vm_state == "stopped"


def test_a_host_that_just_died_never_gets_done(cloud: Simulator, stop: Ask, clock: FakeClock) -> None:
    """The server stays at powering-off, and further stops are refused."""
    server_id = cloud.add_server(power_off_delay=math.inf)
    assert stop(server_id).status == 202
    clock.advance(1e9)
    assert cloud.server(server_id).task_state == "powering-off"
    assert stop(server_id, token=cloud.token()).status == 409


@pytest.mark.parametrize("vm_state", ["active", "error"])
def test_a_host_that_refuses_leaves_the_server_as_it_was(
    cloud: Simulator, stop: Ask, ask: Ask, clock: FakeClock, vm_state: str
) -> None:
    """The stop was taken all the same; only the record of it says that it failed."""
    server_id = cloud.add_server(vm_state=vm_state, power_off_fails=True, power_off_delay=2)
    taken = stop(server_id)
    assert taken.status == 202
    assert cloud.server(server_id).task_state == "powering-off"
    clock.advance(2)
    server = cloud.server(server_id)
    assert (server.vm_state, server.task_state, server.power_state) == (vm_state, None, 1)
    stopped, created = ask("GET", f"/v2.1/servers/{server_id}/os-instance-actions").json()["instanceActions"]
    assert (stopped["action"], stopped["message"]) == ("stop", "Error")
    assert stopped["request_id"] == taken.header("x-openstack-request-id")
    assert (created["action"], created["message"]) == ("create", None)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"vm_state": "stopped"}, "Cannot 'stop' instance {id} while it is in vm_state stopped"),
        ({"vm_state": "paused"}, "Cannot 'stop' instance {id} while it is in vm_state paused"),
        ({"vm_state": "suspended"}, "Cannot 'stop' instance {id} while it is in vm_state suspended"),
        ({"vm_state": "building"}, "Cannot 'stop' instance {id} while it is in vm_state building"),
        (
            {"task_state": "powering-off"},
            "Cannot 'stop' instance {id} while it is in task_state powering-off",
        ),
        ({"task_state": "rebooting"}, "Cannot 'stop' instance {id} while it is in task_state rebooting"),
        ({"locked": True}, "Instance {id} is locked"),
        ({"vm_state": "error", "host": False}, "Instance {id} is not ready"),
        ({"vm_state": "error", "launched": False}, "Instance {id} is in an invalid state for 'stop'"),
        # Of several reasons the first is reported: lock, host, vm_state, task_state, never launched.
        ({"locked": True, "vm_state": "stopped"}, "Instance {id} is locked"),
        ({"locked": True, "host": False}, "Instance {id} is locked"),
        ({"host": False, "vm_state": "stopped"}, "Instance {id} is not ready"),
        (
            {"vm_state": "stopped", "task_state": "powering-on"},
            "Cannot 'stop' instance {id} while it is in vm_state stopped",
        ),
        (
            {"task_state": "deleting", "launched": False},
            "Cannot 'stop' instance {id} while it is in task_state deleting",
        ),
    ],
    ids=str,
)
def test_a_state_that_stands_against_a_stop_is_named(cloud: Simulator, stop: Ask, fields: Any, message: Any) -> None:
    """409 in Nova's words, and nothing happens."""
    server_id = cloud.add_server(**fields)
    before = cloud.server(server_id)
    answer = stop(server_id)
    assert (answer.status, answer.reason, answer.names) == (409, "Conflict", REFUSED)
    assert answer.header("Content-Type") == "application/json; charset=UTF-8"
    assert answer.json() == {"conflictingRequest": {"code": 409, "message": message.format(id=server_id)}}
    assert cloud.server(server_id) == before
    assert (cloud.stops_sent(server_id), cloud.stops_taken(server_id)) == (1, 0)


def test_an_administrator_may_stop_a_locked_server(cloud: Simulator, stop: Ask) -> None:
    """Also from a project of his own."""
    server_id = cloud.add_server(locked=True)
    assert stop(server_id, token=cloud.token("admin")).status == 202


@pytest.mark.parametrize(
    ("path_id", "shown", "words"),
    [
        (NEVER_SEEN, NEVER_SEEN, "has no mapping to a cell."),
        ("not-a-uuid", "not-a-uuid", "has no mapping to a cell."),
        ("z" * 36, "z" * 36, "has no mapping to a cell."),
        ("a%20b", "a b", "has no mapping to a cell."),
    ],
)
def test_an_id_never_seen_is_not_found(stop: Ask, path_id: Any, shown: Any, words: Any) -> None:
    """A malformed id is no other fault than an unknown one; it is shown decoded."""
    answer = stop(path_id)
    assert (answer.status, answer.reason, answer.names) == (404, "Not Found", REFUSED)
    assert answer.json() == {"itemNotFound": {"code": 404, "message": f"Instance {shown} {words}"}}


@pytest.mark.parametrize("kind", ["scheduling", "foreign", "deleted"])
def test_a_server_that_is_not_there_for_the_caller_is_not_found(
    cloud: Simulator, stop: Ask, ask: Ask, kind: Any
) -> None:
    """Other words than for an id never seen; and GET does show the one that is still being scheduled."""
    fields: Any = {
        "scheduling": {"vm_state": "building", "task_state": "scheduling", "host": False},
        "foreign": {"project_id": cloud.other_project_id},
    }.get(kind, {})
    server_id = cloud.add_server(**fields)
    if kind == "deleted":
        cloud.delete_server(server_id)
    answer = stop(server_id)
    assert (answer.status, answer.message) == (404, f"Instance {server_id} could not be found.")
    shown = ask("GET", f"/v2.1/servers/{server_id}")
    assert shown.status == (200 if kind == "scheduling" else 404)
    if shown.status == 404:
        assert shown.message == f"Instance {server_id} could not be found."


def test_reading_an_id_never_seen_has_the_words_of_a_server_that_is_gone(ask: Ask) -> None:
    """GET looks in another place than an action does."""
    assert ask("GET", f"/v2.1/servers/{NEVER_SEEN}").message == f"Instance {NEVER_SEEN} could not be found."


def test_an_id_in_capitals_is_the_same_server(cloud: Simulator, stop: Ask) -> None:
    """And counts as the same in the record of calls."""
    server_id = cloud.add_server()
    assert stop(server_id.upper()).status == 202
    assert cloud.stops_taken(server_id) == 1


def test_the_project_may_stand_in_the_path_if_it_is_the_tokens(cloud: Simulator, ask: Ask) -> None:
    """Another one is a bad request that shows both."""
    server_id = cloud.add_server()
    foreign = "f" * 32
    answer = ask("POST", f"/v2.1/{foreign}/servers/{server_id}/action", {"os-stop": None})
    assert answer.status == 400
    assert answer.json()["badRequest"]["message"] == (
        f"Malformed request URL: URL's project_id '{foreign}' doesn't match Context's project_id '{cloud.project_id}'"
    )
    path = f"/v2.1/{cloud.project_id}/servers/{server_id}/action"
    assert ask("POST", path, {"os-stop": None}).status == 202


def test_a_doubled_slash_behind_the_version_does_no_harm(cloud: Simulator, ask: Ask) -> None:
    """As sloppy clients send it."""
    assert ask("POST", f"/v2.1//servers/{cloud.add_server()}/action", {"os-stop": None}).status == 202


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v2.1/servers/{id}/action/"),
        ("GET", "/v2.1/servers/{id}/action"),
        ("PUT", "/v2.1/servers/{id}"),
        ("GET", "/v2.1/no-such-thing"),
        ("GET", "/v2.1/not-hexadecimal/servers/{id}"),
    ],
)
def test_a_path_that_leads_nowhere_is_answered_in_plain_text(
    cloud: Simulator, ask: Ask, method: str, path: str
) -> None:
    """By the router, which does not use microversions."""
    answer = ask(method, path.format(id=cloud.add_server()), {"os-stop": None} if method == "POST" else None)
    assert (answer.status, answer.reason) == (404, "Not Found")
    assert answer.names == [
        "Content-Length",
        "Content-Type",
        "x-openstack-request-id",
        "x-compute-request-id",
    ]
    assert answer.header("Content-Type") == "text/plain; charset=UTF-8"
    assert answer.body == b"404 Not Found\n\nThe resource could not be found.\n\n   "


@pytest.mark.parametrize(
    ("body", "status", "key", "message"),
    [
        (b"", 400, "badRequest", "Malformed request body"),
        (b"{}", 400, "badRequest", "Malformed request body"),
        (b'{"os-stop": null, "os-start": null}', 400, "badRequest", "Malformed request body"),
        (b"os-stop", 400, "badRequest", "Malformed request body"),
        (b'["os-stop", "x"]', 400, "badRequest", "Malformed request body"),
        (b"\xff", 400, "badRequest", "Malformed request body"),
        (b'{"os-shutdown": null}', 400, "badRequest", "There is no such action: os-shutdown"),
        (b'["os-stop"]', 404, "itemNotFound", "The resource could not be found."),
        (b"null", 404, "itemNotFound", "The resource could not be found."),
        (b"7", 404, "itemNotFound", "The resource could not be found."),
    ],
)
def test_a_body_that_is_not_one_action_stops_nothing(
    cloud: Simulator, ask: Ask, body: Any, status: int, key: Any, message: Any
) -> None:
    """400 or 404, depending on how far Nova's reading of it gets."""
    server_id = cloud.add_server()
    answer = ask("POST", f"/v2.1/servers/{server_id}/action", body, Content_Type="application/json")
    assert (answer.status, answer.names) == (status, REFUSED)
    assert answer.json() == {key: {"code": status, "message": message}}
    assert cloud.server(server_id).vm_state == "active"


def test_the_same_key_twice_is_one_action(cloud: Simulator, ask: Ask) -> None:
    """JSON readers keep the last."""
    path = f"/v2.1/servers/{cloud.add_server()}/action"
    assert ask("POST", path, b'{"os-stop": null, "os-stop": null}').status == 202


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("text/plain", 202),
        ("", 202),
        ("application/json; charset=utf-8", 202),
        ("application/x-www-form-urlencoded", 415),
    ],
)
def test_the_content_type_must_be_json_or_nothing_in_particular(
    cloud: Simulator, ask: Ask, content_type: Any, status: int
) -> None:
    """What clients send by default for a form is refused."""
    path = f"/v2.1/servers/{cloud.add_server()}/action"
    answer = ask("POST", path, b'{"os-stop": null}', Content_Type=content_type)
    assert answer.status == status
    if status == 415:
        assert (answer.reason, answer.names) == ("Unsupported Media Type", REFUSED)
        assert answer.json() == {"badMediaType": {"code": 415, "message": "Unsupported Content-Type"}}


@pytest.mark.parametrize("token", [None, "garbage", ""])
def test_without_a_good_token_nothing_is_observed_at(cloud: Simulator, stop: Ask, token: Any) -> None:
    """401 in Keystone's form and without microversions, for a layer in front of Nova answers it."""
    answer = stop(cloud.add_server(), token=token)
    assert (answer.status, answer.reason) == (401, "Unauthorized")
    assert answer.names == [
        "Content-Type", "Content-Length", "WWW-Authenticate", "x-openstack-request-id", "x-compute-request-id",
    ]  # fmt: skip
    assert answer.header("WWW-Authenticate") == f'Keystone uri="{cloud.url}"'
    assert answer.body == (
        b'{"error": {"code": 401, "title": "Unauthorized", '
        b'"message": "The request you have made requires authentication."}}'
    )


def test_a_reader_may_look_and_not_stop(cloud: Simulator, stop: Ask, ask: Ask) -> None:
    """The message names the policy; whether the server exists is checked before."""
    server_id = cloud.add_server()
    watcher = cloud.token("watcher")
    answer = stop(server_id, token=watcher)
    assert (answer.status, answer.reason, answer.names) == (403, "Forbidden", REFUSED)
    assert answer.json() == {
        "forbidden": {
            "code": 403,
            "message": "Policy doesn't allow os_compute_api:servers:stop to be performed.",
        }
    }
    assert ask("GET", f"/v2.1/servers/{server_id}", token=watcher).status == 200
    assert stop(NEVER_SEEN, token=watcher).status == 404


def test_a_token_without_a_project_opens_nothing_of_nova(cloud: Simulator, stop: Ask) -> None:
    """403 without a reason."""
    answer = stop(cloud.add_server(), token=cloud.token(scoped=False))
    assert answer.json() == {"forbidden": {"code": 403, "message": "Forbidden"}}


def test_a_cloud_may_answer_a_stop_with_204(ask: Ask) -> None:
    """As the pages of Open Telekom Cloud say it does."""
    with Simulator(stop_status=204) as cloud:
        path = f"/v2.1/servers/{cloud.add_server()}/action"
        assert ask("POST", path, {"os-stop": {}}, to=cloud, token=cloud.token()).status == 204


def test_a_stopped_server_can_be_started_over_the_api(cloud: Simulator, ask: Ask, stop: Ask) -> None:
    """So that a demo can go round; the rules are those of a stop, for stopped servers."""
    server_id = cloud.add_server(vm_state="stopped")
    path = f"/v2.1/servers/{server_id}/action"
    assert ask("POST", path, {"os-start": None}, token=cloud.token("watcher")).message == (
        "Policy doesn't allow os_compute_api:servers:start to be performed."
    )
    assert ask("POST", path, {"os-start": None}).status == 202
    assert states(cloud.server(server_id)) == ("ACTIVE", "active", None, 1)
    refused = ask("POST", path, {"os-start": None})
    assert refused.message == f"Cannot 'start' instance {server_id} while it is in vm_state active"
    assert [call.kind for call in cloud.calls] == [CallKind.OTHER] * 3
    assert stop(server_id).status == 202


def test_a_server_can_be_deleted_over_the_api(cloud: Simulator, ask: Ask) -> None:
    """204 with an empty body that is announced as such."""
    server_id = cloud.add_server()
    path = f"/v2.1/servers/{server_id}"
    assert ask("DELETE", path, token=cloud.token("watcher")).status == 403
    answer = ask("DELETE", path)
    assert (answer.status, answer.reason, answer.names) == (204, "No Content", ACCEPTED)
    assert answer.header("Content-Length") == "0"
    assert ask("GET", path).status == 404
    assert cloud.server(server_id).deleted


def test_another_user_can_start_and_restart_a_server(cloud: Simulator, clock: FakeClock) -> None:
    """With a record of it, as of anything that goes through Nova."""
    server_id = cloud.add_server(vm_state="stopped")
    cloud.start_server(server_id, user_id="night-shift", delay=10)
    assert cloud.server(server_id).task_state == "powering-on"
    clock.advance(10)
    cloud.reboot_server(server_id, delay=10)
    assert states(cloud.server(server_id))[:3] == ("REBOOT", "active", "rebooting")
    clock.advance(10)
    assert states(cloud.server(server_id))[:3] == ("ACTIVE", "active", None)
    restart, start, _ = cloud.actions(server_id)
    assert (restart.action, restart.user_id) == ("reboot", "another-user")
    assert (start.action, start.user_id) == ("start", "night-shift")
    with pytest.raises(Conflict, match="Cannot 'start' instance"):
        cloud.start_server(server_id)


def test_what_a_person_changes_holds_at_once_and_ends_what_was_going_on(
    cloud: Simulator, stop: Ask, clock: FakeClock
) -> None:
    """A new vm_state brings its power_state along, and `updated` moves."""
    server_id = cloud.add_server(power_off_delay=10)
    stop(server_id)
    clock.advance(5)
    cloud.change(server_id, vm_state="error", tags=["keep"], metadata={"a": "b"})
    clock.advance(100)
    server = cloud.server(server_id)
    assert (server.vm_state, server.task_state, server.power_state) == ("error", None, 1)
    assert (server.tags, server.metadata, server.updated) == (("keep",), {"a": "b"}, clock.now - 100)
    cloud.change(server_id, locked=True)
    assert cloud.server(server_id).locked
    with pytest.raises(TypeError, match="a server has no color"):
        cloud.change(server_id, color="blue")


def test_a_server_is_known_by_its_id_only(cloud: Simulator) -> None:
    """Two cannot have the same, and one that never was is an error of the test."""
    server_id = cloud.add_server("db-1", id="5F0C1A52-3D0E-4B7A-9A55-0D6F3C2B1A10")
    assert server_id == "5f0c1a52-3d0e-4b7a-9a55-0d6f3c2b1a10"
    assert cloud.server(server_id).name == "db-1"
    with pytest.raises(ValueError, match="already"):
        cloud.add_server(id=server_id)
    with pytest.raises(KeyError):
        cloud.server(NEVER_SEEN)
    with pytest.raises(NotFound):
        cloud.delete_server(NEVER_SEEN)


def test_a_locked_server_is_not_deleted_by_its_owner(cloud: Simulator, ask: Ask) -> None:
    """But by an administrator."""
    server_id = cloud.add_server(locked=True)
    assert ask("DELETE", f"/v2.1/servers/{server_id}").message == f"Instance {server_id} is locked"
    assert ask("DELETE", f"/v2.1/servers/{server_id}", token=cloud.token("admin")).status == 204
