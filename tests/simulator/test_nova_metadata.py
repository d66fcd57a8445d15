"""Metadata is changed as Nova changes it, in the states in which Nova allows it."""

from typing import Any

import pytest

from handler.simulator import Simulator
from tests.simulator.conftest import Ask, Reply

KEY = "autostop-keep-until"
POLICY = "Policy doesn't allow os_compute_api:server-metadata:{} to be performed."


@pytest.fixture
def write(ask: Ask) -> Ask:
    """Set one entry of a server's metadata, or remove it."""

    def send(server_id: str, method: str = "POST", **more: Any) -> Reply:
        path = f"/v2.1/servers/{server_id}/metadata"
        if method == "DELETE":
            return ask("DELETE", f"{path}/{KEY}", **more)
        return ask("POST", path, {"metadata": {KEY: "x"}}, **more)

    return send


@pytest.mark.parametrize(
    ("vm_state", "task_state"),
    [("active", None), ("stopped", None), ("active", "powering-off"), ("active", "rebuild_spawning"), ("paused", None)],
)
def test_an_entry_is_added_to_those_that_are_there(
    cloud: Simulator, write: Ask, ask: Ask, vm_state: str, task_state: str | None
) -> None:
    """All entries are in the answer, and a running operation does not matter; `updated` stays."""
    server_id = cloud.add_server(vm_state=vm_state, task_state=task_state, metadata={"owner": "ci"}, updated=0)
    both = {"owner": "ci", KEY: "x"}
    answer = write(server_id)
    assert (answer.status, answer.json()) == (200, {"metadata": both})
    shown = ask("GET", f"/v2.1/servers/{server_id}").json()["server"]
    assert (shown["metadata"], shown["updated"]) == (both, "1970-01-01T00:00:00Z")
    assert ask("GET", f"/v2.1/servers/{server_id}/metadata").json()["metadata"] == both


def test_an_entry_is_removed_once(cloud: Simulator, write: Ask) -> None:
    """A second time it is not found."""
    server_id = cloud.add_server(metadata={KEY: "x", "owner": "ci"})
    assert write(server_id, "DELETE").status == 204
    assert cloud.server(server_id).metadata == {"owner": "ci"}
    assert write(server_id, "DELETE").refusal == (404, "itemNotFound", "Metadata item was not found")


@pytest.mark.parametrize(("method", "rule", "verb"), [("POST", "create", "update"), ("DELETE", "delete", "delete")])
@pytest.mark.parametrize(
    ("fields", "user", "refusal"),
    [
        (
            {"vm_state": "error"},
            "operator",
            (409, "Cannot '{verb} metadata' instance {id} while it is in vm_state error"),
        ),
        ({"locked": True}, "operator", (409, "Instance {id} is locked")),
        ({}, "watcher", (403, POLICY.format("{rule}"))),
    ],
)
def test_a_change_that_is_not_allowed_is_refused(
    cloud: Simulator, write: Ask, method: str, rule: str, verb: str, fields: Any, user: str, refusal: Any
) -> None:
    """With Nova's message."""
    server_id = cloud.add_server(metadata={KEY: "y"}, **fields)
    answer, (status, message) = write(server_id, method, token=cloud.token(user)), refusal
    assert (answer.status, answer.message) == (status, message.format(verb=verb, rule=rule, id=server_id))
    assert cloud.server(server_id).metadata == {KEY: "y"}


def test_an_administrator_may_change_a_locked_server(cloud: Simulator, write: Ask) -> None:
    """As with a stop; and no other user sees a server of another project."""
    assert write(cloud.add_server(locked=True), token=cloud.token("admin")).status == 200
    assert write(cloud.add_server(project_id=cloud.other_project_id)).status == 404


@pytest.mark.parametrize(
    "body", [b"", {"metadata": []}, {"meta": {}}, {"metadata": {"a": 1}}, {"metadata": {"a/b": ""}}]
)
def test_a_body_that_is_not_metadata_is_refused(cloud: Simulator, ask: Ask, body: Any) -> None:
    """With 400."""
    assert ask("POST", f"/v2.1/servers/{cloud.add_server()}/metadata", body).status == 400
