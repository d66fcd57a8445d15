"""Metadata is changed as Nova changes it, in the states in which Nova allows it."""

from typing import Any

import pytest

from handler.simulator import Simulator
from tests.simulator.conftest import Ask, Reply

KEY = "autostop-keep-until"


@pytest.fixture
def write(ask: Ask) -> Ask:
    """Set one entry of a server's metadata."""

    def send(server_id: str, value: str = "x", **more: Any) -> Reply:
        return ask("POST", f"/v2.1/servers/{server_id}/metadata", {"metadata": {KEY: value}}, **more)

    return send


@pytest.mark.parametrize(
    ("vm_state", "task_state"),
    [("active", None), ("stopped", None), ("active", "powering-off"), ("active", "rebuild_spawning"), ("paused", None)],
)
def test_an_entry_is_added_to_those_that_are_there(
    cloud: Simulator, write: Ask, ask: Ask, vm_state: str, task_state: str | None
) -> None:
    """All entries are in the answer, and a running operation does not matter; `updated` stays."""
    server_id = cloud.add_server(vm_state=vm_state, task_state=task_state, metadata={"owner": "ci"})
    before = ask("GET", f"/v2.1/servers/{server_id}").json()["server"]["updated"]
    answer = write(server_id)
    assert (answer.status, answer.json()) == (200, {"metadata": {"owner": "ci", KEY: "x"}})
    shown = ask("GET", f"/v2.1/servers/{server_id}").json()["server"]
    assert (shown["metadata"], shown["updated"]) == ({"owner": "ci", KEY: "x"}, before)
    assert ask("GET", f"/v2.1/servers/{server_id}/metadata").json()["metadata"] == {"owner": "ci", KEY: "x"}


def test_a_server_in_error_is_not_changed(cloud: Simulator, write: Ask) -> None:
    """In Nova's words."""
    server_id = cloud.add_server(vm_state="error")
    answer = write(server_id)
    assert answer.status == 409
    assert answer.message == f"Cannot 'update metadata' instance {server_id} while it is in vm_state error"
    assert cloud.server(server_id).metadata == {}


def test_a_locked_server_is_changed_by_an_administrator_only(cloud: Simulator, write: Ask) -> None:
    """In Nova's words."""
    server_id = cloud.add_server(locked=True)
    answer = write(server_id)
    assert (answer.status, answer.message) == (409, f"Instance {server_id} is locked")
    assert write(server_id, token=cloud.token("admin")).status == 200


def test_an_entry_is_removed_once(cloud: Simulator, ask: Ask) -> None:
    """A second time it is not found."""
    server_id = cloud.add_server(metadata={KEY: "x", "owner": "ci"})
    path = f"/v2.1/servers/{server_id}/metadata/{KEY}"
    assert ask("DELETE", path).status == 204
    assert cloud.server(server_id).metadata == {"owner": "ci"}
    again = ask("DELETE", path)
    assert (again.status, again.message) == (404, "Metadata item was not found")


@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_a_reader_may_not_change_it(cloud: Simulator, ask: Ask, method: str) -> None:
    """403, with the name of the rule."""
    server_id = cloud.add_server(metadata={KEY: "x"})
    item = f"/{KEY}" if method == "DELETE" else ""
    body = {"metadata": {KEY: "y"}} if method == "POST" else None
    answer = ask(method, f"/v2.1/servers/{server_id}/metadata{item}", body, token=cloud.token("watcher"))
    rule = "create" if method == "POST" else "delete"
    assert (answer.status, answer.message) == (
        403,
        f"Policy doesn't allow os_compute_api:server-metadata:{rule} to be performed.",
    )
    assert cloud.server(server_id).metadata == {KEY: "x"}


@pytest.mark.parametrize(
    "body", [b"", {"metadata": []}, {"meta": {}}, {"metadata": {"a": 1}}, {"metadata": {"a/b": ""}}]
)
def test_a_body_that_is_not_metadata_is_refused(cloud: Simulator, ask: Ask, body: Any) -> None:
    """With 400."""
    server_id = cloud.add_server()
    assert ask("POST", f"/v2.1/servers/{server_id}/metadata", body).status == 400


def test_another_projects_server_is_not_found(cloud: Simulator, write: Ask) -> None:
    """As everywhere in Nova."""
    assert write(cloud.add_server(project_id=cloud.other_project_id)).status == 404
