"""What clouds answer that is easily misread, and what comes of it, on the API of Nova and of BMS v1."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import requests

from handler.simulator import (
    Api,
    BmsBehavior,
    CallKind,
    Cut,
    Fault,
    JobChildren,
    Simulator,
)
from tests.conftest import Function, StartFunction
from tests.e2e.outcomes import at, came_out, stops

MakeCloud = Callable[..., Simulator]


@pytest.fixture(params=["nova", "bms"])
def api(request: pytest.FixtureRequest) -> str:
    """The API that is spoken."""
    return str(request.param)


@pytest.fixture
def make_cloud(api: str) -> Iterator[MakeCloud]:
    """Start the cloud that has this API, with options of one's own."""
    running: list[Simulator] = []

    def make(**options: Any) -> Simulator:
        running.append(Simulator.otc(**options) if api == "bms" else Simulator(**options))
        running[-1].start()
        return running[-1]

    yield make
    for cloud in running:
        cloud.stop()


@pytest.fixture
def cloud(make_cloud: MakeCloud) -> Simulator:
    """The cloud that has this API."""
    return make_cloud()


@pytest.fixture
def start(start_function: StartFunction, api: str) -> StartFunction:
    """Start the function so that it speaks this API."""

    def started(cloud: Simulator, **environ: str) -> Function:
        return start_function(cloud, AUTOSTOP_API=api, **environ)

    return started


@pytest.fixture
def function(start: StartFunction, cloud: Simulator) -> Function:
    """The function with the settings that most tests want."""
    return start(cloud)


# --- one server ---


@pytest.mark.parametrize("vm_state", ["active", "stopped"])
def test_an_administrator_stops_no_server_of_another_project(
    cloud: Simulator, start: StartFunction, api: str, vm_state: str
) -> None:
    """Nova shows it to such a login; BMS v1 does not."""
    ours, theirs = cloud.add_server(), cloud.add_server(project_id=cloud.other_project_id, vm_state=vm_state)
    expected = (
        "failed/not-found"
        if api == "bms"
        else {"active": "skipped/other-project", "stopped": "unchanged/already-stopped"}[vm_state]
    )
    outcomes = came_out(start(cloud, **cloud.environ("admin")).stop(ours, theirs))
    assert outcomes == {ours: "stopped/confirmed", theirs: expected}
    assert cloud.stops_sent(theirs) == 0


def test_a_state_that_is_a_reboot_is_waited_for(cloud: Simulator, function: Function) -> None:
    """Open Telekom Cloud's list page documents `reboot` as a vm_state; it is active again a moment later."""
    server = cloud.add_server(vm_state="reboot")
    timer = threading.Timer(0.3, lambda: cloud.change(server, vm_state="active"))
    timer.start()
    assert came_out(function.stop(server)) == {server: "stopped/confirmed"}
    timer.join()
    assert cloud.stops_sent(server) == 1


def test_a_state_that_stays_a_reboot_is_busy(cloud: Simulator, start: StartFunction) -> None:
    """To the end of the budget."""
    server = cloud.add_server(vm_state="reboot")
    answer = start(cloud, AUTOSTOP_DEADLINE="1s", AUTOSTOP_WAIT="0.2s").stop(server)
    assert came_out(answer) == {server: "failed/busy"}
    assert stops(cloud) == []


# --- callers ---


# --- rehearsals and repetitions ---


# --- was it started since? ---


def test_a_start_since_the_event_counts_on_both_apis(cloud: Simulator, function: Function) -> None:
    """BMS v1 keeps no history, but Nova does, of the same servers; the person who started it is named."""
    server = cloud.add_server(vm_state="stopped", updated=time.time() - 86400)
    cloud.start_server(server, user_id="u-7")
    answer = function.stop(server, time=at(120))
    assert came_out(answer) == {server: "skipped/started-since"}
    assert "u-7" in answer.json()["servers"][0]["detail"]
    assert stops(cloud) == []
    assert {call.api for call in cloud.calls if call.kind is CallKind.ACTIONS} == {Api.NOVA}


def test_the_record_that_the_power_is_back_names_the_person_before_it(cloud: Simulator, function: Function) -> None:
    """A person restarts a server just before the event; Ironic records a start when its power is back, after it."""
    now = time.time()
    server = cloud.add_server(updated=now - 86400)
    cloud.record_action(server, "reboot", user_id="u-7", at=now - 130)
    cloud.record_action(server, "start", user_id="ironic", at=now - 110)
    cloud.change(server, updated=now - 110)
    answer = function.stop(server, time=at(120))
    assert came_out(answer) == {server: "skipped/started-since"}
    (row,) = answer.json()["servers"]
    assert "start by user ironic" in row["detail"]
    assert "reboot by user u-7" in row["detail"]


ODD = {"action": "odd", "start_time": None}


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([ODD, {"action": "start", "start_time": "now", "user_id": "u-7"}], "skipped/started-since"),
        (["x", {"action": "start", "start_time": "recent", "user_id": "u-7"}], "skipped/started-since"),
        ([{"action": "stop", "start_time": "?"}, {"action": "start", "start_time": "old"}], "stopped/confirmed"),
        (None, "skipped/started-since"),
    ],
)
def test_an_odd_entry_of_the_history_takes_nothing_away(
    cloud: Simulator, function: Function, entries: Any, expected: str
) -> None:
    """A start beside it counts, and one that may be a start counts too; one that cannot be one does not."""
    stamps = {"recent": at(60).removesuffix("Z"), "old": at(6000).removesuffix("Z")}
    for entry in entries or ():
        if isinstance(entry, dict):
            entry["start_time"] = stamps.get(entry["start_time"], entry["start_time"])
    server = cloud.add_server()
    cloud.inject(Fault(on=CallKind.ACTIONS, status=200, body=json.dumps({"instanceActions": entries}), times=None))
    answer = function.stop(server, time=at(120))
    assert came_out(answer) == {server: expected}
    (row,) = answer.json()["servers"]
    assert ("could not be read" in row["detail"]) == (row["evidence"]["history"] == "unreadable")
    assert cloud.stops_sent(server) == (expected == "stopped/confirmed")


@pytest.mark.parametrize("fault", [{"status": 504, "body": "<html>", "act": True}, {"cut": Cut.AFTER}])
@pytest.mark.usefixtures("quick_retries")
def test_a_server_that_a_user_started_after_our_lost_stop_is_left_running(
    cloud: Simulator, function: Function, fault: Mapping[str, Any]
) -> None:
    """The answer to our stop was lost after it acted; before it is read again, a person starts it. No time is given."""
    server = cloud.add_server(updated=time.time() - 86400)
    cloud.inject(Fault(on=CallKind.STOP, **fault))
    # The read after the lost answer hangs until the person has started the server.
    cloud.inject(Fault(on=CallKind.READ, skip=1, delay=0.5))

    def start() -> None:
        while not cloud.stops_taken(server):
            time.sleep(0.01)
        while cloud.server(server).vm_state != "stopped":
            time.sleep(0.01)
        cloud.start_server(server, user_id="u-7")

    person = threading.Thread(target=start)
    person.start()
    answer = function.stop(server)
    person.join()
    assert came_out(answer) == {server: "skipped/started-since"}
    assert "u-7" in answer.json()["servers"][0]["detail"]
    assert (cloud.server(server).vm_state, cloud.stops_sent(server)) == ("active", 1)


@pytest.mark.parametrize(("changed", "expected"), [(False, "stopped/confirmed"), (True, "skipped/started-since")])
@pytest.mark.usefixtures("quick_retries")
def test_without_a_history_a_lost_stop_is_sent_again_only_if_nothing_has_happened(
    cloud: Simulator, function: Function, changed: bool, expected: str
) -> None:
    """The stop was lost before it acted; if the record has changed, that may have been a start."""
    server = cloud.add_server(updated=time.time() - 86400)
    cloud.inject(Fault(on=CallKind.ACTIONS, status=404, body="{}", times=None))
    cloud.inject(Fault(on=CallKind.STOP, status=504, body="<html>"))
    if changed:
        body = requests.get(**_read(cloud, server)).json()
        body["server"]["updated"] = at(0)
        cloud.inject(Fault(on=CallKind.READ, skip=1, status=200, body=json.dumps(body)))
    answer = function.stop(server)
    assert came_out(answer) == {server: expected}
    assert cloud.stops_sent(server) == (1 if changed else 2)


def _read(cloud: Simulator, server: str) -> dict[str, Any]:
    """The arguments of a GET of a server, of the API that the cloud is for."""
    headers = {"X-Auth-Token": cloud.token(), "OpenStack-API-Version": "compute 2.47"}
    path = f"/v2.1/servers/{server}"
    return {"url": cloud.url + path, "headers": headers, "timeout": 10}


# --- a login that may not do everything ---

READ, LIST = ("GET", "/v2.1/servers/{id}"), ("GET", "/v2.1/servers/detail")
HISTORY, STOP = ("GET", "/v2.1/servers/{id}/os-instance-actions"), ("POST", "/v2.1/servers/{id}/action")


@pytest.fixture
def with_rules(start_function: StartFunction, nova: Simulator) -> Callable[..., Function]:
    """Start the function with an application credential that has access rules."""

    def started(*rules: tuple[str, str]) -> Function:
        id_, secret = nova.add_application_credential(access_rules=rules)
        environ = {**dict.fromkeys(nova.environ(), ""), "OS_AUTH_URL": nova.auth_url}
        environ |= {"OS_AUTH_TYPE": "v3applicationcredential", "OS_APPLICATION_CREDENTIAL_ID": id_}
        return start_function(nova, **environ, OS_APPLICATION_CREDENTIAL_SECRET=secret)

    return started


@pytest.fixture
def nova() -> Iterator[Simulator]:
    """A cloud with Keystone and Nova."""
    with Simulator() as simulator:
        yield simulator


def test_a_history_that_access_rules_forbid_leaves_the_age_alone(
    nova: Simulator, with_rules: Callable[..., Function]
) -> None:
    """Keystone's middleware answers 401; one new token is tried, and nothing is held back."""
    function, ids = with_rules(READ, LIST, STOP), [nova.add_server() for _ in range(3)]
    for id_ in ids:
        answer = function.stop(id_, time=at(1))
        assert came_out(answer) == {id_: "stopped/confirmed"}
        (row,) = answer.json()["servers"]
        assert (row["evidence"]["history"], "history could not be read" in row["detail"]) == ("forbidden", True)
    assert nova.count(CallKind.LOGIN) == 2
    assert requests.get(f"{function.url}/readyz", timeout=10).status_code == 200


def test_a_list_that_access_rules_forbid_is_made_up_for_by_single_reads(
    nova: Simulator, with_rules: Callable[..., Function]
) -> None:
    """Also if it is the first call of the process."""
    ids = [nova.add_server() for _ in range(12)]
    # In a rule a name in braces stands for `detail` as well.
    function = with_rules(*(("GET", f"/v2.1/servers/{id_}") for id_ in ids), HISTORY, STOP)
    assert came_out(function.stop(*ids)) == dict.fromkeys(ids, "stopped/confirmed")
    assert nova.count(CallKind.LOGIN) == 2


def test_a_stop_that_access_rules_forbid_is_forbidden(nova: Simulator, with_rules: Callable[..., Function]) -> None:
    """Once for each server, and the login is not refused for others."""
    function, ids = with_rules(READ, LIST, HISTORY), [nova.add_server() for _ in range(3)]
    for _ in range(2):
        assert came_out(function.stop(*ids)) == dict.fromkeys(ids, "failed/forbidden")
    assert {nova.stops_taken(id_) for id_ in ids} == {0}
    assert requests.get(f"{function.url}/readyz", timeout=10).status_code == 200


def test_a_read_that_access_rules_forbid_is_a_refused_login(
    nova: Simulator, with_rules: Callable[..., Function]
) -> None:
    """Nothing shows then that the token is good for anything."""
    answer = with_rules(LIST, HISTORY, STOP).stop(nova.add_server())
    assert answer.status_code == 503
    assert answer.json()["type"].endswith(":login-refused")


# --- an address that is not known ---


@pytest.mark.parametrize("environ", [{"OS_REGION_NAME": ""}, {"OS_REGION_NAME": "nowhere"}, {"OS_INTERFACE": "admin"}])
def test_an_address_that_cannot_be_known_is_reported_at_once(
    make_cloud: MakeCloud, start: StartFunction, environ: Mapping[str, str]
) -> None:
    """Not after the budget; both regions are named, and nothing is sent to either."""
    cloud = make_cloud(more_regions=["west-2"])
    function = start(cloud, **environ)
    began = time.monotonic()
    ids = [cloud.add_server() for _ in range(6)]
    answers = [function.stop(*ids), function.stop(ids[0]), requests.get(f"{function.url}/readyz", timeout=10)]
    answers.append(function.send({"selector": {"name": "server-*"}}))
    assert time.monotonic() - began < 30
    for answer in answers:
        assert answer.status_code == 503
        assert answer.json()["type"].endswith(":endpoint-unusable")
        assert int(answer.headers["Retry-After"]) >= 1
        if "OS_REGION_NAME" in environ and not environ["OS_REGION_NAME"]:
            assert "west-2" in answer.json()["detail"]
            assert cloud.environ()["OS_REGION_NAME"] in answer.json()["detail"]
    assert {call.kind for call in cloud.calls} == {CallKind.LOGIN}


# --- one bad server ---


# --- batches and jobs ---


@pytest.mark.parametrize("children", list(JobChildren))
@pytest.mark.usefixtures("quick_retries")
def test_a_job_that_failed_is_never_accepted_whatever_its_children(
    start_function: StartFunction, children: JobChildren
) -> None:
    """Each server is read once more: the one that is off is confirmed, and the other has the job's words in its row."""
    with Simulator.otc(bms=BmsBehavior(job_children=children)) as cloud:
        good, bad = cloud.add_server(), cloud.add_server(power_off_fails=True)
        answer = start_function(cloud, AUTOSTOP_API="bms").stop(good, bad)
        assert came_out(answer) == {good: "stopped/confirmed", bad: "failed/reverted"}
        row = next(row for row in answer.json()["servers"] if row["id"] == bad)
        assert "BMS.1007: An internal call failed." in row["detail"]
        assert row["job_id"]
        assert {cloud.stops_sent(id_) for id_ in (good, bad)} == {1}


@pytest.mark.parametrize(("code", "expected"), [("BMS.0288", "failed/forbidden"), ("BMS.0018", "failed/rejected")])
def test_a_stop_that_is_refused_in_a_success_is_sent_once(
    otc: Simulator, bms: Function, code: str, expected: str
) -> None:
    """Status 200, and an error in the body."""
    server = otc.add_server()
    otc.inject(Fault.bms(CallKind.STOP, code, 200, times=None))
    assert came_out(bms.stop(server)) == {server: expected}
    assert otc.stops_sent(server) == 1


@pytest.mark.usefixtures("quick_retries")
def test_a_success_with_an_error_that_is_not_known_is_looked_into(otc: Simulator, bms: Function) -> None:
    """It acted all the same: the server is seen powering off, and no second stop is sent."""
    server = otc.add_server(power_off_delay=0.2)
    otc.inject(Fault.bms(CallKind.STOP, "BMS.9999", 200, act=True))
    assert came_out(bms.stop(server)) == {server: "stopped/confirmed"}
    assert otc.stops_sent(server) == 1


def test_a_server_that_bms_cannot_read_is_not_found(otc: Simulator, bms: Function) -> None:
    """400 BMS.1006 is what it says of one that it does not know."""
    never = str(uuid.uuid4())
    otc.inject(Fault.bms(CallKind.READ, "BMS.1006", server_id=never))
    assert came_out(bms.stop(never)) == {never: "failed/not-found"}


@pytest.mark.parametrize("status", [400, 403, 404, 500])
def test_a_list_that_fails_leaves_named_servers_to_be_read_singly(
    cloud: Simulator, function: Function, status: int
) -> None:
    """None is lost, and the list is not asked for again."""
    ids = [cloud.add_server() for _ in range(12)]
    cloud.inject(Fault(on=CallKind.LIST, status=status, times=None))
    assert came_out(function.stop(*ids)) == dict.fromkeys(ids, "stopped/confirmed")
    assert cloud.count(CallKind.LIST) == 1


def test_a_page_whose_marker_is_gone_loses_no_server(start_function: StartFunction) -> None:
    """Twelve ids, pages of three; the last server of the first page is deleted before the second is asked for."""
    with Simulator(max_limit=3) as cloud:
        ids = [cloud.add_server() for _ in range(12)]
        cloud.inject(Fault(on=CallKind.LIST, skip=1, status=400, message="marker [x] not found"))
        assert came_out(start_function(cloud).stop(*ids)) == dict.fromkeys(ids, "stopped/confirmed")


# --- what it costs the cloud ---


# --- many ---
