"""Nova: servers, microversions, lists, stops and the history of a server."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from handler.cloud.nova import LOWEST_MICROVERSION, MICROVERSION
from handler.cloud.servers import parse
from handler.errors import (
    CallDenied,
    CallRejected,
    CloudError,
    CloudFault,
    CloudThrottled,
    CloudUnexpectedAnswer,
    LoginRefused,
    ServerNotFound,
    StateConflict,
)
from handler.simulator import CallKind, Fault, Simulator
from handler.stop.evidence import Action, History, UnreadEntry
from handler.stop.model import Power, Server
from handler.stop.ports import ReadSingly, Taken
from tests.cloud.clients import Client
from tests.cloud.conftest import StartClient

ID = "5f0c1a52-3d0e-4b7a-9a55-0d6f3c2b1a10"
ABSENT = object()
VM_STATE, TASK_STATE = "OS-EXT-STS:vm_state", "OS-EXT-STS:task_state"

# As Open Telekom Cloud documents it.
DOCUMENTED: dict[str, Any] = {
    "id": ID,
    "name": "db-node-07",
    "status": "ACTIVE",
    VM_STATE: "active",
    TASK_STATE: None,
    "OS-EXT-STS:power_state": 1,
    "OS-SRV-USG:launched_at": "2025-03-04T08:15:30.000000",
    "OS-SRV-USG:terminated_at": None,
    "tenant_id": "0123456789abcdef0123456789abcdef",
    "created": "2025-03-04T08:02:11Z",
    "updated": "2025-06-01T10:00:00Z",
    "flavor": {"id": "physical.o2.medium", "links": []},
    "metadata": {"metering.resourcetype": "__type_baremetal", "protect": "true"},
    "locked": False,
    "tags": ["__type_baremetal", "env=test"],
}


def _parsed(**changes: object) -> Server:
    """The documented body with some members changed, as a server."""
    return parse({key: value for key, value in {**DOCUMENTED, **changes}.items() if value is not ABSENT}, ID)


def test_a_token_without_a_project_has_no_url(client: Client) -> None:
    """It has no catalogue either."""
    token = {"expires_at": "2026-01-01T01:00:00Z", "issued_at": "2026-01-01T00:00:00Z"}
    headers = {"X-Subject-Token": "unscoped"}
    client.cloud.inject(Fault(on=CallKind.LOGIN, status=201, body=json.dumps({"token": token}), headers=headers))
    with pytest.raises(CloudUnexpectedAnswer, match="compute API"):
        client.endpoint.url(5)


# --- servers


def test_a_server_is_parsed_as_documented() -> None:
    """Every member that a decision needs."""
    project_id = "f" * 32
    assert parse(DOCUMENTED, ID, project_id=project_id) == Server(
        id=ID,
        vm_state="active",
        task_state=None,
        name="db-node-07",
        locked=False,
        launched=True,
        tags=frozenset({"__type_baremetal", "env=test"}),
        metadata={"metering.resourcetype": "__type_baremetal", "protect": "true"},
        flavor="physical.o2.medium",
        updated=datetime(2025, 6, 1, 10, tzinfo=UTC),
        power_state=1,
        other_project="0123456789abcdef0123456789abcdef",
    )


@pytest.mark.parametrize(
    ("changes", "attribute", "expected"),
    [
        ({"id": ID.upper()}, "id", ID),
        ({VM_STATE: "SHUTOFF"}, "vm_state", "stopped"),
        ({VM_STATE: "Active"}, "vm_state", "active"),
        ({VM_STATE: "shelved_offloaded"}, "vm_state", "shelved_offloaded"),
        ({TASK_STATE: "Powering-Off"}, "task_state", "powering-off"),
        ({TASK_STATE: ""}, "task_state", None),
        ({"OS-EXT-STS:power_state": 4}, "power", Power.OFF),
        ({"OS-EXT-STS:power_state": 1}, "power", Power.ON),
        ({"OS-EXT-STS:power_state": 0}, "power", Power.UNKNOWN),
        ({"OS-EXT-STS:power_state": 5}, "power", Power.UNKNOWN),
        ({"OS-EXT-STS:power_state": None}, "power", Power.UNKNOWN),
        ({"OS-EXT-STS:power_state": "off"}, "power", Power.UNKNOWN),
        ({"OS-EXT-STS:power_state": True}, "power", Power.UNKNOWN),
        ({"name": None}, "name", None),
        ({"name": 7}, "name", None),
        ({"locked": True}, "locked", True),
        ({"OS-SRV-USG:launched_at": None}, "launched", False),
        ({"OS-SRV-USG:launched_at": ABSENT}, "launched", True),
        ({"tags": []}, "tags", frozenset()),
        ({"metadata": {"a": 1}}, "metadata", {"a": "1"}),
        ({"flavor": "physical.s1"}, "flavor", ""),
        ({"updated": ABSENT}, "updated", None),
    ],
)
def test_members_that_differ_between_clouds_are_parsed(
    changes: dict[str, object], attribute: str, expected: object
) -> None:
    """A member that no safe decision needs may be missing or of another type."""
    assert getattr(_parsed(**changes), attribute) == expected


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({"id": "0b6f6a9e-6a34-4a0e-8d5c-6a3f1f0f7c21"}, "does not show the server that was asked for"),
        ({"id": ABSENT}, "does not show the server that was asked for"),
        ({VM_STATE: ABSENT}, "no vm_state"),
        ({VM_STATE: ""}, "no vm_state"),
        ({VM_STATE: 1}, "no vm_state"),
        ({TASK_STATE: ABSENT}, "no task_state"),
        ({TASK_STATE: 0}, "no task_state"),
        ({TASK_STATE: {}}, "no task_state"),
        ({"locked": ABSENT}, "microversion"),
        ({"locked": "false"}, "microversion"),
        ({"tags": ABSENT}, "microversion"),
        ({"tags": "env=test"}, "microversion"),
        ({"metadata": ABSENT}, "microversion"),
        ({"metadata": None}, "microversion"),
    ],
)
def test_a_body_without_what_a_decision_needs_is_unexpected(changes: dict[str, object], shown: str) -> None:
    """A protected, locked or busy server must never look like any other."""
    with pytest.raises(CloudUnexpectedAnswer, match=shown):
        _parsed(**changes)


@pytest.mark.parametrize("body", ["{}", '{"server": []}', '{"servers": []}', "[]", ""])
def test_an_answer_without_a_server_is_unexpected(client: Client, body: str) -> None:
    """A list is not a server."""
    client.cloud.inject(Fault(on=CallKind.READ, status=200, body=body))
    assert type(client.nova.read([ID], 5)[ID]) is CloudUnexpectedAnswer


# --- microversions


def _versions(cloud: Simulator) -> list[tuple[str, str]]:
    """Kind and microversion of each call to Nova."""
    calls = [call for call in cloud.calls if call.kind is not CallKind.LOGIN]
    for call in calls:
        assert call.headers["openstack-api-version"] == f"compute {call.headers['x-openstack-nova-api-version']}"
    return [(call.kind.value, call.headers["x-openstack-nova-api-version"]) for call in calls]


def test_each_call_requests_one_microversion(client: Client) -> None:
    """It shows the name of a flavor whose id is a UUID."""
    assert MICROVERSION == "2.47"
    flavor = "9d2f8d0e-0d6b-4c59-8b5b-0d9f1e7a6c11"
    ids = [client.cloud.add_server(flavor=flavor, flavor_name="physical.h2.large"), client.cloud.add_server()]
    server = client.nova.read(ids[:1], 5)[ids[0]]
    assert isinstance(server, Server)
    assert server.flavor == "physical.h2.large"
    client.nova.read(ids, 5)
    client.nova.history(ids[0], 5)
    client.nova.stop(ids[:1], 5)
    assert _versions(client.cloud) == [(kind, MICROVERSION) for kind in ("read", "list", "actions", "stop")]


@pytest.mark.parametrize("newest", ["2.26", "2.46"])
def test_without_the_microversion_the_lowest_is_requested(start_client: StartClient, newest: str) -> None:
    """By all events of the process from then on: it costs one call in all."""
    with Simulator(max_microversion=newest) as cloud:
        client, id_ = start_client(cloud), cloud.add_server()
        first = client.clouds.cloud(dry_run=False).read([id_], 5)[id_]
        second = client.clouds.reader().read([id_], 5)[id_]
        assert first == second
        assert isinstance(first, Server)
        assert (first.locked, first.flavor) == (False, "physical.o2.medium")
        expected = [MICROVERSION, LOWEST_MICROVERSION, LOWEST_MICROVERSION]
        assert _versions(cloud) == [("read", version) for version in expected]


def test_a_cloud_without_the_lowest_microversion_is_unexpected(start_client: StartClient) -> None:
    """Each version is requested once."""
    with Simulator(max_microversion="2.25") as cloud:
        id_ = cloud.add_server()
        error = start_client(cloud).nova.read([id_], 5)[id_]
        assert isinstance(error, CloudUnexpectedAnswer)
        assert error.status == 406
        assert _versions(cloud) == [("read", MICROVERSION), ("read", LOWEST_MICROVERSION)]


def test_a_stop_that_fails_for_its_microversion_is_not_repeated(client: Client) -> None:
    """The server is read before another stop is sent, in the lower version."""
    id_ = client.cloud.add_server()
    client.cloud.inject(Fault(on=CallKind.STOP, status=406))
    assert isinstance(client.nova.stop([id_], 5)[id_], CloudUnexpectedAnswer)
    client.nova.read([id_], 5)
    assert _versions(client.cloud) == [("stop", MICROVERSION), ("read", LOWEST_MICROVERSION)]


# --- lists


@pytest.mark.parametrize("next_links", [True, False])
def test_a_list_ends_with_an_empty_page(start_client: StartClient, next_links: bool) -> None:
    """A next link may be missing from a full page, and a page may be shorter than requested."""
    with Simulator(max_limit=3, next_links=next_links) as cloud:
        client, ids = start_client(cloud), [cloud.add_server() for _ in range(10)]
        assert {server.id for server in client.nova.find(lambda _: True, 5)} == set(ids)
        assert cloud.count(CallKind.LIST) == 5
        assert {type(seen) for seen in client.nova.read(ids, 5).values()} == {Server}


def test_after_a_deleted_marker_the_other_servers_are_to_be_read_one_by_one(start_client: StartClient) -> None:
    """The last server of a page was deleted before the next page was requested."""
    with Simulator(max_limit=3) as cloud:
        client, ids = start_client(cloud), [cloud.add_server() for _ in range(12)]
        headers, url = client.nova._microversion.headers(), f"{cloud.url}/v2.1/servers/detail"
        page = client.http.send("x", "GET", url, timeout=5, headers=headers)
        newest = [server["id"] for server in json.loads(page.body)["servers"]]
        cloud.inject(Fault(on=CallKind.LIST, status=200, body=page.body))
        cloud.delete_server(newest[-1])
        seen = client.nova.read(ids, 5)
        assert {id_ for id_, one in seen.items() if isinstance(one, Server)} == set(newest)
        assert [type(one) for id_, one in seen.items() if id_ not in newest] == [ReadSingly] * 9
        assert list(client.nova.read_groups(ids)) == [(id_,) for id_ in ids]


def test_a_server_has_the_clouds_time(start_client: StartClient) -> None:
    """Of the answer, for a page as for a single read."""
    with Simulator(clock=lambda: 1_700_000_000.4) as cloud:
        client, ids = start_client(cloud), [cloud.add_server() for _ in range(5)]
        for seen in (client.nova.read(ids[:1], 5), client.nova.read(ids, 5)):
            times = {server.cloud_time for server in seen.values() if isinstance(server, Server)}
            assert times == {datetime.fromtimestamp(1_700_000_000, UTC)}


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, CallRejected), (403, CallDenied), (404, ServerNotFound), (429, CloudThrottled), (500, CloudFault)],
)
def test_an_error_of_one_server_is_returned(client: Client, status: int, kind: type[CloudError]) -> None:
    """By a read, a stop and the history alike, so that other servers are handled."""
    id_ = client.cloud.add_server()
    for on in (CallKind.READ, CallKind.STOP, CallKind.ACTIONS):
        client.cloud.inject(Fault(on=on, status=status))
    assert type(client.nova.read([id_], 5)[id_]) is kind
    assert type(client.nova.stop([id_], 5)[id_]) is kind
    assert type(client.nova.history(id_, 5)) is kind


def test_a_refused_login_concerns_all_servers_and_is_raised(cloud: Simulator, start_client: StartClient) -> None:
    """By whatever call needs the login."""
    nova = start_client(cloud, OS_PASSWORD="wrong").nova
    for call in (lambda: nova.read([ID], 5), lambda: nova.stop([ID], 5), lambda: nova.history(ID, 5)):
        with pytest.raises(LoginRefused):
            call()
    assert cloud.count(CallKind.LOGIN) == len(cloud.calls) == 1


# --- stops


@pytest.mark.parametrize("status", [202, 204])
def test_a_stop_is_sent_as_documented(start_client: StartClient, status: int) -> None:
    """`{"os-stop": {}}`, once for each server; any 2xx means that it was accepted, with the id of the request."""
    with Simulator(stop_status=status) as cloud:
        id_, nova = cloud.add_server(), start_client(cloud).nova
        assert nova.stop_groups([id_, ID]) == [(id_,), (ID,)]
        assert nova.stop([id_], 5) == {id_: Taken(request_id=cloud.actions(id_)[0].request_id)}
        (call,) = (call for call in cloud.calls if call.kind is CallKind.STOP)
        assert (call.method, call.body) == ("POST", b'{"os-stop": {}}')
        assert call.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("body", "kind", "maybe_acted"),
    [
        ('{"forbidden": {"code": 403, "message": "no"}}', CallDenied, False),
        ('{"conflictingRequest": {"code": 409, "message": "no"}}', StateConflict, False),
        ('{"badRequest": {"code": 400, "message": "no"}}', CallRejected, False),
        ('{"computeFault": {"code": 500, "message": "no"}}', CloudFault, True),
        ('{"error": {"code": "NEW.0001", "message": "no"}}', CloudUnexpectedAnswer, True),
        ('{"error": {"code": 401, "message": "no"}}', CloudUnexpectedAnswer, True),
        ("<html>signed in as guest</html>", CloudUnexpectedAnswer, True),
        *((body, Taken, None) for body in ("", " ", "{}", "null", "[]", '{"status": "accepted"}')),
    ],
)
def test_the_body_of_a_success_may_be_an_error(
    client: Client, body: str, kind: type[CloudError], maybe_acted: bool | None
) -> None:
    """Any other JSON is a success; if it is not certain, the cloud may have stopped the server."""
    id_ = client.cloud.add_server()
    client.cloud.inject(Fault(on=CallKind.STOP, status=202, body=body))
    result = client.nova.stop([id_], 5)[id_]
    assert type(result) is kind
    assert getattr(result, "maybe_acted", None) is maybe_acted
    assert client.cloud.stops_sent(id_) == 1


def test_a_conflict_is_returned(client: Client) -> None:
    """The stop is not repeated."""
    id_ = client.cloud.add_server(vm_state="stopped")
    assert type(client.nova.stop([id_], 5)[id_]) is StateConflict
    assert client.cloud.stops_sent(id_) == 1


# --- history


def test_the_history_has_the_newest_action_first(client: Client) -> None:
    """With the request id by which our own stop is recognized, the user, and whether it failed."""
    cloud = client.cloud
    id_ = cloud.add_server(power_off_fails=True)
    cloud.reboot_server(id_, user_id="another-user")
    stop = client.nova.stop([id_], 5)[id_]
    client.nova.read([id_], 5)
    history = client.nova.history(id_, 5)
    assert isinstance(history, History)
    assert history.actions is not None
    assert [action.name for action in history.actions] == ["stop", "reboot", "create"]
    newest, reboot, _ = history.actions
    assert isinstance(stop, Taken)
    assert (newest.request_id, newest.user_id, newest.failed) == (stop.request_id, cloud.user().id, True)
    assert (reboot.user_id, reboot.failed) == ("another-user", False)
    assert newest.at >= reboot.at


NEW_YEAR = datetime(2025, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("entries", "actions", "unread"),
    [
        # Clouds delete old actions.
        ([], [], []),
        (None, [], [UnreadEntry()]),
        ({}, [], [UnreadEntry()]),
        (["start"], [], [UnreadEntry()]),
        ([{"action": "Start"}], [], [UnreadEntry("start")]),
        ([{"action": "start", "start_time": "today"}], [], [UnreadEntry("start")]),
        ([{"action": None, "start_time": "2025-01-01T00:00:00Z"}], [], [UnreadEntry(at=NEW_YEAR)]),
        ([{"action": "st\u200bart", "start_time": "2025-01-01T00:00:00Z"}], [], [UnreadEntry(at=NEW_YEAR)]),
        (
            [{"action": "start", "start_time": "2025-01-01T00:00:00Z", "user_id": "two words"}, {}, 7],
            [Action("start", NEW_YEAR)],
            [UnreadEntry(), UnreadEntry()],
        ),
        (
            [
                {"action": "create", "start_time": "2025-01-01T00:00:00.000000", "request_id": "", "user_id": 7},
                {"action": "Start", "start_time": "2025-01-02T00:00:00Z", "message": None, "request_id": "req-1"},
            ],
            [Action("start", NEW_YEAR + timedelta(days=1), request_id="req-1"), Action("create", NEW_YEAR)],
            [],
        ),
    ],
)
def test_entries_of_a_history_are_parsed_one_by_one(
    client: Client, entries: object, actions: list[Action], unread: list[UnreadEntry]
) -> None:
    """Times without a zone are UTC. An invalid entry is kept with what is known: it may be the start that matters."""
    client.cloud.inject(Fault(on=CallKind.ACTIONS, status=200, body=json.dumps({"instanceActions": entries})))
    assert client.nova.history(ID, 5) == History(tuple(actions), unread=tuple(unread))
