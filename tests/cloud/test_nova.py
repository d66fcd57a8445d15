"""Nova as it speaks: where it is, what it shows of a server and of its past, and how it takes a stop."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from handler.cloud.nova import LOWEST_MICROVERSION, MICROVERSION
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
from handler.simulator import CallKind, ComputePath, Fault, Simulator
from handler.stop.evidence import Action, History, UnreadEntry
from handler.stop.model import Power, Server
from handler.stop.ports import ReadSingly, Seen, Taken
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


def _read(cloud: Simulator, client: Client, **changes: object) -> Seen:
    """What comes of the documented body with some members changed."""
    body = {key: value for key, value in {**DOCUMENTED, **changes}.items() if value is not ABSENT}
    cloud.inject(Fault(on=CallKind.READ, status=200, body=json.dumps({"server": body})))
    return client.nova.read([ID], 5)[ID]


# --- where it is ---


@pytest.mark.parametrize(
    ("explicit", "expected"),
    [
        ("https://ecs.eu-de.otc.t-systems.com", "https://ecs.eu-de.otc.t-systems.com/v2.1/{project}"),
        ("https://ecs.example/", "https://ecs.example/v2.1/{project}"),
        ("https://ecs.example:8774/v2.1", "https://ecs.example:8774/v2.1/{project}"),
        ("https://ecs.example/v2.1/", "https://ecs.example/v2.1/{project}"),
        ("https://ecs.example/v2", "https://ecs.example/v2.1/{project}"),
        ("https://ecs.example/v2.0", "https://ecs.example/v2.1/{project}"),
        ("https://ecs.example/v2/abc", "https://ecs.example/v2.1/abc"),
        ("https://ecs.example/v2.1/abc/", "https://ecs.example/v2.1/abc"),
        ("https://ecs.example/compute", "https://ecs.example/compute/v2.1/{project}"),
        ("https://ecs.example/compute/v2.1", "https://ecs.example/compute/v2.1/{project}"),
        ("https://ecs.example/v20", "https://ecs.example/v20/v2.1/{project}"),
        ("https://ecs.example/v2.1?x=1#y", "https://ecs.example/v2.1/{project}"),
    ],
)
def test_an_explicit_url_is_brought_to_the_version_and_the_project(
    cloud: Simulator, start_client: StartClient, explicit: str, expected: str
) -> None:
    """Open Telekom Cloud wants the project in it; a project that stands there already stays."""
    client = start_client(cloud, AUTOSTOP_COMPUTE_URL=explicit)
    assert client.endpoint.url(5) == expected.format(project=cloud.project_id)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (ComputePath.PLAIN, "/v2.1"),
        (ComputePath.PREFIXED, "/compute/v2.1"),
        (ComputePath.PROJECT, "/v2.1/{project}"),
        (ComputePath.LEGACY_PROJECT, "/v2.1/{project}"),
        ("/compute", "/compute/v2.1"),
        ("", "/v2.1"),
    ],
)
def test_the_catalogues_url_is_brought_to_the_version(start_client: StartClient, path: str, expected: str) -> None:
    """Whether there is a project in it is the catalogue's choice."""
    with Simulator(compute_path=path) as cloud:
        url = start_client(cloud).endpoint.url(5)
        assert url == cloud.url + expected.format(project=cloud.project_id)


@pytest.mark.parametrize("environ", [{"OS_REGION_NAME": "elsewhere"}, {"OS_INTERFACE": "admin"}])
def test_a_catalogue_without_nova_there_is_confusing(
    cloud: Simulator, start_client: StartClient, environ: dict[str, str]
) -> None:
    """No other region's is taken instead."""
    with pytest.raises(CloudUnexpectedAnswer, match="compute API: the catalogue does not have it"):
        start_client(cloud, **environ).endpoint.url(5)


def test_without_a_region_the_only_one_is_taken(cloud: Simulator, start_client: StartClient) -> None:
    """And the interface may be named in the old way."""
    client = start_client(cloud, OS_REGION_NAME="", OS_INTERFACE="", OS_ENDPOINT_TYPE="internalURL")
    assert client.endpoint.url(5) == f"{cloud.url}/v2.1"


def test_a_token_without_a_catalogue_is_confusing(cloud: Simulator, client: Client) -> None:
    """As one that has no project."""
    token = {"expires_at": "2026-01-01T01:00:00Z", "issued_at": "2026-01-01T00:00:00Z"}
    cloud.inject(
        Fault(on=CallKind.LOGIN, status=201, body=json.dumps({"token": token}), headers={"X-Subject-Token": "unscoped"})
    )
    with pytest.raises(CloudUnexpectedAnswer, match="compute API"):
        client.endpoint.url(5)


# --- what it shows of a server ---


def test_a_server_is_read_as_documented(cloud: Simulator, client: Client) -> None:
    """Every member that the decision needs, and none else."""
    assert _read(cloud, client) == Server(
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
        ({"flavor": {"original_name": "physical.s1"}}, "flavor", "physical.s1"),
        ({"flavor": {}}, "flavor", ""),
        ({"flavor": "physical.s1"}, "flavor", ""),
        ({"updated": "2025-06-01T10:00:00"}, "updated", datetime(2025, 6, 1, 10, tzinfo=UTC)),
        ({"updated": "2025-06-01T10:00:00.5z"}, "updated", datetime(2025, 6, 1, 10, 0, 0, 500_000, tzinfo=UTC)),
        ({"updated": "yesterday"}, "updated", None),
        ({"updated": ""}, "updated", None),
        ({"updated": ABSENT}, "updated", None),
        ({"updated": 1748772000}, "updated", None),
    ],
)
def test_the_ways_in_which_clouds_differ_are_understood(
    cloud: Simulator, client: Client, changes: dict[str, object], attribute: str, expected: object
) -> None:
    """What is not needed to decide safely may be missing or strange."""
    assert getattr(_read(cloud, client, **changes), attribute) == expected


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
def test_an_answer_that_a_decision_cannot_rest_on_is_not_a_server(
    cloud: Simulator, client: Client, changes: dict[str, object], shown: str
) -> None:
    """A protected, locked or busy server must never look like any other."""
    fault = _read(cloud, client, **changes)
    assert type(fault) is CloudUnexpectedAnswer
    assert shown in str(fault)


@pytest.mark.parametrize("body", ["{}", '{"server": []}', '{"servers": []}', "[]", ""])
def test_an_answer_without_a_server_is_not_a_server(cloud: Simulator, client: Client, body: str) -> None:
    """Neither is a list."""
    cloud.inject(Fault(on=CallKind.READ, status=200, body=body))
    assert type(client.nova.read([ID], 5)[ID]) is CloudUnexpectedAnswer


def test_a_few_servers_are_read_one_by_one(cloud: Simulator, client: Client) -> None:
    """So many calls weigh less than a page of everything."""
    ids = [cloud.add_server() for _ in range(4)]
    assert client.nova.read_groups(ids) == [(id_,) for id_ in ids]
    assert client.nova.stop_groups(ids) == [(id_,) for id_ in ids]


def _versions(cloud: Simulator) -> list[tuple[str, str]]:
    """Kind and microversion of each call to Nova."""
    calls = [call for call in cloud.calls if call.kind is not CallKind.LOGIN]
    for call in calls:
        assert call.headers["openstack-api-version"] == f"compute {call.headers['x-openstack-nova-api-version']}"
    return [(call.kind.value, call.headers["x-openstack-nova-api-version"]) for call in calls]


def test_each_call_is_of_one_microversion(cloud: Simulator, client: Client) -> None:
    """The versions before and after show less, or otherwise."""
    ids = [cloud.add_server() for _ in range(2)]
    client.nova.read(ids[:1], 5)
    client.nova.read(ids, 5)
    client.nova.history(ids[0], 5)
    client.nova.stop(ids[:1], 5)
    assert _versions(cloud) == [(kind, MICROVERSION) for kind in ("read", "list", "actions", "stop")]
    assert MICROVERSION == "2.47"


@pytest.mark.parametrize("newest", ["2.26", "2.46"])
def test_a_cloud_without_the_microversion_is_asked_for_the_lowest_from_then_on(
    start_client: StartClient, newest: str
) -> None:
    """By all events of the process: the refusal costs one call in all."""
    with Simulator(max_microversion=newest) as cloud:
        client, id_ = start_client(cloud), cloud.add_server()
        first = client.clouds.cloud(dry_run=False).read([id_], 5)[id_]
        second = client.clouds.reader().read([id_], 5)[id_]
        assert first == second
        assert isinstance(first, Server)
        assert (first.locked, first.flavor) == (False, "physical.o2.medium")
        expected = [MICROVERSION, LOWEST_MICROVERSION, LOWEST_MICROVERSION]
        assert _versions(cloud) == [("read", version) for version in expected]


def test_a_cloud_that_refuses_the_lowest_microversion_too_is_confusing(start_client: StartClient) -> None:
    """It is asked once for each."""
    with Simulator(max_microversion="2.25") as cloud:
        id_ = cloud.add_server()
        fault = start_client(cloud).nova.read([id_], 5)[id_]
        assert isinstance(fault, CloudUnexpectedAnswer)
        assert fault.status == 406
        assert _versions(cloud) == [("read", MICROVERSION), ("read", LOWEST_MICROVERSION)]


def test_a_stop_that_is_refused_for_its_microversion_is_not_repeated_by_itself(
    cloud: Simulator, client: Client
) -> None:
    """The server is read before another one is sent, in the lower version."""
    id_ = cloud.add_server()
    cloud.inject(Fault(on=CallKind.STOP, status=406))
    fault = client.nova.stop([id_], 5)[id_]
    assert isinstance(fault, CloudUnexpectedAnswer)
    client.nova.read([id_], 5)
    assert _versions(cloud) == [("stop", MICROVERSION), ("read", LOWEST_MICROVERSION)]


def test_a_flavor_whose_id_is_a_uuid_is_known_by_its_name(cloud: Simulator, client: Client) -> None:
    """Which only the newer microversion shows."""
    id_ = cloud.add_server(flavor="9d2f8d0e-0d6b-4c59-8b5b-0d9f1e7a6c11", flavor_name="physical.h2.large")
    server = client.nova.read([id_], 5)[id_]
    assert isinstance(server, Server)
    assert server.flavor == "physical.h2.large"


# --- the list ---


@pytest.mark.parametrize("next_links", [True, False])
def test_a_list_is_whole_only_after_an_empty_page(start_client: StartClient, next_links: bool) -> None:
    """A next link may be missing from a full page, and a page may be shorter than it was asked for."""
    with Simulator(max_limit=3, next_links=next_links) as cloud:
        client, ids = start_client(cloud), [cloud.add_server() for _ in range(10)]
        assert {server.id for server in client.nova.find(lambda _: True, 5)} == set(ids)
        assert cloud.count(CallKind.LIST) == 5
        assert {type(seen) for seen in client.nova.read(ids, 5).values()} == {Server}


def test_a_marker_that_is_gone_leaves_the_rest_to_be_read_singly(start_client: StartClient) -> None:
    """The last server of a page was deleted before the next page was asked for."""
    with Simulator(max_limit=3) as cloud:
        client, ids = start_client(cloud), [cloud.add_server() for _ in range(12)]
        page = client.http.send(
            "x", "GET", f"{cloud.url}/v2.1/servers/detail", timeout=5, headers=client.nova._microversion.headers()
        )
        newest = [server["id"] for server in json.loads(page.body)["servers"]]
        cloud.inject(Fault(on=CallKind.LIST, status=200, body=page.body))
        cloud.delete_server(newest[-1])
        seen = client.nova.read(ids, 5)
        assert {id_ for id_, one in seen.items() if isinstance(one, Server)} == set(newest)
        assert [one for id_, one in seen.items() if id_ not in newest] == [ReadSingly()] * 9
        assert list(client.nova.read_groups(ids)) == [(id_,) for id_ in ids]


# --- access rules ---


def test_a_server_carries_the_clouds_time(start_client: StartClient) -> None:
    """Of the answer that showed it, on a page as in a single read."""
    with Simulator(clock=lambda: 1_700_000_000.4) as cloud:
        client, ids = start_client(cloud), [cloud.add_server() for _ in range(5)]
        for seen in (client.nova.read(ids[:1], 5), client.nova.read(ids, 5)):
            times = {server.cloud_time for server in seen.values() if isinstance(server, Server)}
            assert times == {datetime.fromtimestamp(1_700_000_000, UTC)}


@pytest.mark.parametrize(
    "date", ["", "yesterday", "Mon, 99 Nov 2026 19:00:00 GMT", "Fri, 20 Nov 2026 19:00:00 +99999999"]
)
def test_a_date_that_is_none_is_not_known(cloud: Simulator, client: Client, date: str) -> None:
    """The server is shown all the same."""
    id_ = cloud.add_server()
    cloud.inject(Fault(on=CallKind.READ, headers={"Date": date}))
    server = client.nova.read([id_], 5)[id_]
    assert isinstance(server, Server)
    assert server.cloud_time is None


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, CallRejected), (403, CallDenied), (404, ServerNotFound), (429, CloudThrottled), (500, CloudFault)],
)
def test_what_goes_wrong_with_one_server_is_a_value(
    cloud: Simulator, client: Client, status: int, kind: type[CloudError]
) -> None:
    """Of a read, of a stop and of the history alike: the others go on."""
    id_ = cloud.add_server()
    for on in (CallKind.READ, CallKind.STOP, CallKind.ACTIONS):
        cloud.inject(Fault(on=on, status=status))
    assert type(client.nova.read([id_], 5)[id_]) is kind
    assert type(client.nova.stop([id_], 5)[id_]) is kind
    assert type(client.nova.history(id_, 5)) is kind


def test_a_refused_login_concerns_all_and_is_raised(cloud: Simulator, start_client: StartClient) -> None:
    """Whatever call it was that needed one."""
    nova = start_client(cloud, OS_PASSWORD="wrong").nova
    for call in (lambda: nova.read([ID], 5), lambda: nova.stop([ID], 5), lambda: nova.history(ID, 5)):
        with pytest.raises(LoginRefused):
            call()
    assert cloud.count(CallKind.LOGIN) == len(cloud.calls) == 1


# --- the stop ---


@pytest.mark.parametrize("status", [202, 204])
def test_a_stop_is_sent_as_documented(start_client: StartClient, status: int) -> None:
    """`{"os-stop": {}}`, once; any 2xx means that it was taken, under the request's id."""
    with Simulator(stop_status=status) as cloud:
        id_ = cloud.add_server()
        taken = start_client(cloud).nova.stop([id_], 5)
        assert taken == {id_: Taken(request_id=cloud.actions(id_)[0].request_id)}
        (call,) = (call for call in cloud.calls if call.kind is CallKind.STOP)
        assert (call.method, call.body) == ("POST", b'{"os-stop": {}}')
        assert call.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ('{"forbidden": {"code": 403, "message": "no"}}', CallDenied),
        ('{"conflictingRequest": {"code": 409, "message": "no"}}', StateConflict),
        ('{"badRequest": {"code": 400, "message": "no"}}', CallRejected),
        ('{"computeFault": {"code": 500, "message": "no"}}', CloudFault),
        ('{"error": {"code": "NEW.0001", "message": "no"}}', CloudUnexpectedAnswer),
        ('{"error": {"code": 401, "message": "no"}}', CloudUnexpectedAnswer),
        ("<html>signed in as guest</html>", CloudUnexpectedAnswer),
    ],
)
def test_a_success_with_an_error_in_its_body_is_what_the_error_says(
    cloud: Simulator, client: Client, body: str, kind: type[CloudError]
) -> None:
    """Sent once; what is not known for certain may have stopped the server."""
    id_ = cloud.add_server()
    cloud.inject(Fault(on=CallKind.STOP, status=202, body=body))
    fault = client.nova.stop([id_], 5)[id_]
    assert type(fault) is kind
    assert fault.maybe_acted is (kind in (CloudFault, CloudUnexpectedAnswer))
    assert cloud.stops_sent(id_) == 1


@pytest.mark.parametrize("body", ["", " ", "{}", "null", "[]", '{"status": "accepted"}'])
def test_any_other_success_is_one(cloud: Simulator, client: Client, body: str) -> None:
    """Whatever JSON a cloud sends along."""
    id_ = cloud.add_server()
    cloud.inject(Fault(on=CallKind.STOP, status=202, body=body))
    assert isinstance(client.nova.stop([id_], 5)[id_], Taken)


def test_a_stop_that_the_state_forbids_is_a_conflict(cloud: Simulator, client: Client) -> None:
    """It is sent once, without any repetition of its own."""
    id_ = cloud.add_server(vm_state="stopped")
    assert type(client.nova.stop([id_], 5)[id_]) is StateConflict
    assert cloud.stops_sent(id_) == 1


# --- the past ---


def test_the_history_shows_who_did_what_newest_first(cloud: Simulator, client: Client) -> None:
    """With the request ids by which our own stop is known, and whether it failed."""
    id_ = cloud.add_server(power_off_fails=True)
    cloud.reboot_server(id_, user_id="another-user")
    stop = client.nova.stop([id_], 5)[id_]
    client.nova.read([id_], 5)
    history = client.nova.history(id_, 5)
    assert isinstance(history, History)
    assert history.actions is not None
    assert [action.name for action in history.actions] == ["stop", "reboot", "create"]
    newest, reboot, _ = history.actions
    assert newest.failed is True
    assert isinstance(stop, Taken)
    assert (newest.request_id, newest.user_id) == (stop.request_id, cloud.user().id)
    assert (reboot.user_id, reboot.failed) == ("another-user", False)
    assert newest.at >= reboot.at


def _history(cloud: Simulator, client: Client, entries: object) -> History | CloudError:
    cloud.inject(Fault(on=CallKind.ACTIONS, status=200, body=json.dumps({"instanceActions": entries})))
    return client.nova.history(ID, 5)


def test_the_history_is_put_in_order_and_read_in_small_letters(cloud: Simulator, client: Client) -> None:
    """Times without a zone are UTC, as Nova means them; ids that are missing are none."""
    entries = [
        {"action": "create", "start_time": "2025-01-01T00:00:00.000000", "request_id": "", "user_id": 7},
        {"action": "Start", "start_time": "2025-01-02T00:00:00Z", "message": None, "request_id": "req-1"},
    ]
    assert _history(cloud, client, entries) == History(
        (
            Action("start", datetime(2025, 1, 2, tzinfo=UTC), request_id="req-1"),
            Action("create", datetime(2025, 1, 1, tzinfo=UTC)),
        )
    )


NEW_YEAR = datetime(2025, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("entries", "actions", "unread"),
    [
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
    ],
)
def test_what_can_be_read_of_a_history_is_read(
    cloud: Simulator, client: Client, entries: object, actions: list[Action], unread: list[UnreadEntry]
) -> None:
    """An entry that cannot is kept with what is known of it, as it may be the start that matters."""
    assert _history(cloud, client, entries) == History(tuple(actions), unread=tuple(unread))


def test_an_empty_history_is_a_history(cloud: Simulator, client: Client) -> None:
    """Clouds forget old actions."""
    assert _history(cloud, client, []) == History(())
