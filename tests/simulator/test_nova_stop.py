"""A stop is answered as Nova answers it, and does what it does there."""

import math
from typing import Any

import pytest

from handler.simulator import CallKind, Conflict, Controller, NotFound, Simulator
from tests.simulator.conftest import NOVA_ANSWER, NOVA_IDS, UNKNOWN_ID, Ask
from tests.support.clock import FakeClock

IN_STATE = "Cannot 'stop' instance {id} while it is in "
LOCKED, NOT_READY = "Instance {id} is locked", "Instance {id} is not ready"


def states(server: Any) -> Any:
    """Return all states of a server."""
    return server.status, server.vm_state, server.task_state, server.power_state


@pytest.mark.parametrize("argument", [None, {}, {"type": "HARD"}, "SOFT", [], False], ids=repr)
@pytest.mark.parametrize("vm_state", ["active", "error"])
def test_a_stop_is_accepted_with_any_argument(cloud: Simulator, stop: Ask, vm_state: str, argument: Any) -> None:
    """202 without a body, and the server is off."""
    server_id = cloud.add_server(vm_state=vm_state)
    answer = stop(server_id, argument)
    assert (answer.status, answer.reason, answer.body) == (202, "Accepted", b"")
    assert (answer.names, answer.header("Content-Length")) == (NOVA_ANSWER, "0")
    assert answer.header("Content-Type") == "application/json"
    assert answer.header("OpenStack-API-Version") == "compute 2.1"
    vary = [value for name, value in answer.headers if name == "Vary"]
    assert vary == ["OpenStack-API-Version", "X-OpenStack-Nova-API-Version"]
    assert answer.header("x-openstack-request-id") == answer.header("x-compute-request-id")
    assert states(cloud.server(server_id)) == ("SHUTOFF", "stopped", None, 4)


def test_a_server_is_powering_off_until_the_clock_of_the_cloud_has_advanced(
    cloud: Simulator, stop: Ask, ask: Ask, clock: FakeClock
) -> None:
    """Whenever it is read."""
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


def test_a_server_can_have_its_own_delay(clock: FakeClock, ask: Ask) -> None:
    """None at all, or one that never ends: the host has failed, and further stops are refused."""
    with Simulator(clock=clock, power_off_delay=30) as cloud:
        usual, quick, never = (
            cloud.add_server(**more) for more in ({}, {"power_off_delay": 0}, {"power_off_delay": math.inf})
        )
        token = cloud.token()

        def status(server_id: str, token: str = token) -> int:
            return ask("POST", f"/v2.1/servers/{server_id}/action", {"os-stop": {}}, to=cloud, token=token).status

        assert [status(server_id) for server_id in (usual, quick, never)] == [202, 202, 202]
        assert [cloud.server(id_).task_state for id_ in (usual, quick, never)] == ["powering-off", None, "powering-off"]
        clock.advance(1e9)
        assert [cloud.server(server_id).vm_state for server_id in (usual, never)] == ["stopped", "active"]
        assert status(never, cloud.token()) == 409


@pytest.mark.parametrize("vm_state", ["active", "error"])
def test_a_host_that_refuses_leaves_the_server_as_it_was(
    cloud: Simulator, stop: Ask, ask: Ask, clock: FakeClock, vm_state: str
) -> None:
    """The stop was accepted; only the record of it shows that it failed."""
    server_id = cloud.add_server(vm_state=vm_state, power_off_fails=True, power_off_delay=2)
    accepted = stop(server_id)
    assert (accepted.status, cloud.server(server_id).task_state) == (202, "powering-off")
    clock.advance(2)
    assert states(cloud.server(server_id))[1:] == (vm_state, None, 1)
    stopped, created = ask("GET", f"/v2.1/servers/{server_id}/os-instance-actions").json()["instanceActions"]
    assert (stopped["action"], stopped["message"]) == ("stop", "Error")
    assert stopped["request_id"] == accepted.header("x-openstack-request-id")
    assert (created["action"], created["message"]) == ("create", None)


@pytest.mark.parametrize(
    ("controller", "after", "power_state"),
    [
        (Controller.WORKS, 8.0, 4),
        (Controller.REFUSES, 0.0, 1),
        (Controller.IGNORES, 8.0, 1),
        (Controller.SILENT, 8.0, 0),
        ("refuses", 0.0, 1),
    ],
)
def test_a_stop_is_recorded_as_done_whatever_the_management_controller_does(
    cloud: Simulator, stop: Ask, clock: FakeClock, controller: str, after: float, power_state: int
) -> None:
    """As by a real Nova with Ironic: only the power_state shows it, and another stop is a 409."""
    server_id = cloud.add_server(controller=controller, power_off_delay=8.0)
    assert stop(server_id).status == 202
    if after:
        clock.advance(after - 0.1)
        assert cloud.server(server_id).task_state == "powering-off"
        clock.advance(0.1)
    assert states(cloud.server(server_id)) == ("SHUTOFF", "stopped", None, power_state)
    entry = cloud.actions(server_id)[0]
    assert (entry.action, entry.failed, entry.finish_time is None) == ("stop", False, False)
    assert stop(server_id).status == 409


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"vm_state": "stopped"}, IN_STATE + "vm_state stopped"),
        ({"vm_state": "paused"}, IN_STATE + "vm_state paused"),
        ({"vm_state": "suspended"}, IN_STATE + "vm_state suspended"),
        ({"vm_state": "building"}, IN_STATE + "vm_state building"),
        ({"task_state": "powering-off"}, IN_STATE + "task_state powering-off"),
        ({"task_state": "rebooting"}, IN_STATE + "task_state rebooting"),
        ({"locked": True}, LOCKED),
        ({"vm_state": "error", "host": False}, NOT_READY),
        ({"vm_state": "error", "launched": False}, "Instance {id} is in an invalid state for 'stop'"),
        # Of several reasons the first is reported: lock, host, vm_state, task_state, never launched.
        ({"locked": True, "vm_state": "stopped"}, LOCKED),
        ({"locked": True, "host": False}, LOCKED),
        ({"host": False, "vm_state": "stopped"}, NOT_READY),
        ({"vm_state": "stopped", "task_state": "powering-on"}, IN_STATE + "vm_state stopped"),
        ({"task_state": "deleting", "launched": False}, IN_STATE + "task_state deleting"),
    ],
    ids=str,
)
def test_a_state_that_does_not_admit_a_stop_is_named(cloud: Simulator, stop: Ask, fields: Any, message: str) -> None:
    """409 with Nova's message, and nothing changes."""
    server_id = cloud.add_server(**fields)
    before = cloud.server(server_id)
    answer = stop(server_id)
    assert answer.refusal == (409, "conflictingRequest", message.format(id=server_id))
    assert (answer.reason, answer.header("Content-Type")) == ("Conflict", "application/json; charset=UTF-8")
    assert cloud.server(server_id) == before
    assert (cloud.stops_sent(server_id), cloud.stops_taken(server_id)) == (1, 0)


@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_only_an_administrator_may_act_on_a_locked_server(cloud: Simulator, ask: Ask, method: str) -> None:
    """Also from a project of his own."""
    server_id = cloud.add_server(locked=True)
    path, body = f"/v2.1/servers/{server_id}", None
    if method == "POST":
        path, body = f"{path}/action", {"os-stop": None}
    assert ask(method, path, body).message == f"Instance {server_id} is locked"
    assert ask(method, path, body, token=cloud.token("admin")).status in (202, 204)


@pytest.mark.parametrize("path_id", [UNKNOWN_ID, "not-a-uuid", "z" * 36, "a%20b"])
def test_an_unknown_id_is_not_found(stop: Ask, ask: Ask, path_id: str) -> None:
    """A malformed id gives the same error as an unknown one; it is shown decoded. A GET has another message."""
    shown = path_id.replace("%20", " ")
    assert stop(path_id).refusal == (404, "itemNotFound", f"Instance {shown} has no mapping to a cell.")
    assert ask("GET", f"/v2.1/servers/{path_id}").message == f"Instance {shown} could not be found."


@pytest.mark.parametrize("kind", ["scheduling", "foreign", "deleted"])
def test_a_server_that_the_caller_does_not_have_is_not_found(cloud: Simulator, stop: Ask, ask: Ask, kind: str) -> None:
    """With another message than for an unknown id; a GET does show the one that is still being scheduled."""
    scheduling = {"vm_state": "building", "task_state": "scheduling", "host": False}
    fields: dict[str, Any] = {"scheduling": scheduling, "foreign": {"project_id": cloud.other_project_id}}
    server_id = cloud.add_server(**fields.get(kind, {}))
    if kind == "deleted":
        cloud.delete_server(server_id)
    absent = (404, "itemNotFound", f"Instance {server_id} could not be found.")
    assert stop(server_id).refusal == absent
    shown = ask("GET", f"/v2.1/servers/{server_id}")
    assert shown.status == 200 if kind == "scheduling" else shown.refusal == absent


@pytest.mark.parametrize(
    "path", ["/v2.1/servers/{ID}/action", "/v2.1/{project}/servers/{id}/action", "/v2.1//servers/{id}/action"]
)
def test_a_path_can_be_written_in_several_ways(cloud: Simulator, ask: Ask, path: str) -> None:
    """With the id in upper case, with the token's project, and with a doubled slash after the version."""
    server_id = cloud.add_server()
    path = path.format(id=server_id, ID=server_id.upper(), project=cloud.project_id)
    assert ask("POST", path, {"os-stop": None}).status == 202
    assert cloud.stops_taken(server_id) == 1


def test_another_project_in_the_path_is_a_bad_request(cloud: Simulator, ask: Ask, stop: Ask) -> None:
    """The message has both; without a project of the token, it is 403 without a reason."""
    assert stop(cloud.add_server(), token=cloud.token(scoped=False)).refusal == (403, "forbidden", "Forbidden")
    other = "f" * 32
    answer = ask("POST", f"/v2.1/{other}/servers/{cloud.add_server()}/action", {"os-stop": None})
    assert answer.refusal == (
        400,
        "badRequest",
        f"Malformed request URL: URL's project_id '{other}' doesn't match Context's project_id '{cloud.project_id}'",
    )


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v2.1/servers/{id}/action/"),
        ("GET", "/v2.1/servers/{id}/action"),
        ("PUT", "/v2.1/servers/{id}"),
        ("GET", "/v2.1/no-such-thing"),
        ("GET", "/v2.1/not-hexadecimal/servers/{id}"),
        ("GET", "/compute/servers/{id}"),
    ],
)
def test_an_unknown_path_is_answered_in_plain_text(cloud: Simulator, ask: Ask, method: str, path: str) -> None:
    """By the router, which does not use microversions."""
    answer = ask(method, path.format(id=cloud.add_server()), {"os-stop": None} if method == "POST" else None)
    assert (answer.status, answer.reason) == (404, "Not Found")
    assert answer.names == ["Content-Length", "Content-Type", *NOVA_IDS]
    assert answer.header("Content-Type") == "text/plain; charset=UTF-8"
    assert answer.body == b"404 Not Found\n\nThe resource could not be found.\n\n   "


@pytest.mark.parametrize(
    ("body", "refusal"),
    [
        *(
            (body, (400, "badRequest", "Malformed request body"))
            for body in (b"", b"{}", b'{"os-stop": null, "os-start": null}', b"os-stop", b'["os-stop", "x"]', b"\xff")
        ),
        (b'{"os-shutdown": null}', (400, "badRequest", "There is no such action: os-shutdown")),
        *(
            (body, (404, "itemNotFound", "The resource could not be found."))
            for body in (b'["os-stop"]', b"null", b"7")
        ),
    ],
)
def test_a_body_that_is_not_one_action_stops_nothing(cloud: Simulator, ask: Ask, body: bytes, refusal: Any) -> None:
    """400 or 404, depending on how far Nova parses it."""
    server_id = cloud.add_server()
    answer = ask("POST", f"/v2.1/servers/{server_id}/action", body, Content_Type="application/json")
    assert answer.refusal == refusal
    assert cloud.server(server_id).vm_state == "active"


@pytest.mark.parametrize("content_type", ["text/plain", "", "application/json; charset=utf-8"])
@pytest.mark.parametrize("body", [b'{"os-stop": null}', b'{"os-stop": null, "os-stop": null}'])
def test_the_content_type_may_be_missing_and_the_key_repeated(
    cloud: Simulator, ask: Ask, content_type: str, body: bytes
) -> None:
    """JSON parsers keep the last value of a key; the type of a form, a default of some clients, is refused."""
    path = f"/v2.1/servers/{cloud.add_server()}/action"
    form = ask("POST", path, body, Content_Type="application/x-www-form-urlencoded")
    assert form.reason == "Unsupported Media Type"
    assert form.refusal == (415, "badMediaType", "Unsupported Content-Type")
    assert ask("POST", path, body, Content_Type=content_type).status == 202


@pytest.mark.parametrize("token", [None, "garbage", ""])
def test_without_a_valid_token_the_server_is_not_read(cloud: Simulator, stop: Ask, token: Any) -> None:
    """401 in Keystone's form and without microversions, for a layer in front of Nova answers it."""
    answer = stop(cloud.add_server(), token=token)
    assert (answer.status, answer.reason) == (401, "Unauthorized")
    assert answer.names == ["Content-Type", "Content-Length", "WWW-Authenticate", *NOVA_IDS]
    assert answer.header("WWW-Authenticate") == f'Keystone uri="{cloud.url}"'
    assert answer.body == (
        b'{"error": {"code": 401, "title": "Unauthorized", '
        b'"message": "The request you have made requires authentication."}}'
    )


def test_a_reader_may_read_and_not_stop(cloud: Simulator, stop: Ask, ask: Ask) -> None:
    """The message names the policy; whether the server exists is checked before."""
    server_id, watcher = cloud.add_server(), cloud.token("watcher")
    policy = "Policy doesn't allow os_compute_api:servers:{} to be performed."
    assert stop(server_id, token=watcher).refusal == (403, "forbidden", policy.format("stop"))
    start = ask("POST", f"/v2.1/servers/{server_id}/action", {"os-start": None}, token=watcher)
    assert start.message == policy.format("start")
    assert ask("DELETE", f"/v2.1/servers/{server_id}", token=watcher).message == policy.format("delete")
    assert ask("GET", f"/v2.1/servers/{server_id}", token=watcher).status == 200
    assert stop(UNKNOWN_ID, token=watcher).status == 404


def test_a_server_can_be_started_and_deleted_over_the_api(cloud: Simulator, ask: Ask, stop: Ask) -> None:
    """The rules of a start are those of a stop, for stopped servers; after a deletion there is none."""
    server_id = cloud.add_server(vm_state="stopped")
    path = f"/v2.1/servers/{server_id}/action"
    assert ask("POST", path, {"os-start": None}).status == 202
    assert states(cloud.server(server_id)) == ("ACTIVE", "active", None, 1)
    refused = ask("POST", path, {"os-start": None})
    assert refused.message == f"Cannot 'start' instance {server_id} while it is in vm_state active"
    assert stop(server_id).status == 202
    deleted = ask("DELETE", f"/v2.1/servers/{server_id}")
    assert (deleted.status, deleted.reason, deleted.names) == (204, "No Content", NOVA_ANSWER)
    assert (deleted.header("Content-Length"), cloud.server(server_id).deleted) == ("0", True)
    kinds = [call.kind for call in cloud.calls]
    assert kinds == [CallKind.OTHER, CallKind.OTHER, CallKind.STOP, CallKind.OTHER]


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
    entries = [(entry.action, entry.user_id) for entry in cloud.actions(server_id)]
    assert entries[:2] == [("reboot", "another-user"), ("start", "night-shift")]
    with pytest.raises(Conflict, match="Cannot 'start' instance"):
        cloud.start_server(server_id)


def test_a_change_by_a_person_ends_the_running_operation(cloud: Simulator, stop: Ask, clock: FakeClock) -> None:
    """A new vm_state changes the power_state and `updated`."""
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


def test_the_id_of_a_server_is_unique(cloud: Simulator) -> None:
    """An unknown one is an error of the test."""
    server_id = cloud.add_server("db-1", id="5F0C1A52-3D0E-4B7A-9A55-0D6F3C2B1A10")
    assert server_id == "5f0c1a52-3d0e-4b7a-9a55-0d6f3c2b1a10"
    assert cloud.server(server_id).name == "db-1"
    with pytest.raises(ValueError, match="already"):
        cloud.add_server(id=server_id)
    with pytest.raises(KeyError):
        cloud.server(UNKNOWN_ID)
    with pytest.raises(NotFound):
        cloud.delete_server(UNKNOWN_ID)
