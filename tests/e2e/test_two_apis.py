"""The whole function on either API: Nova as upstream has it, and BMS v1 as Open Telekom Cloud has it.

What a server comes out as must not depend on the API that is spoken; what the API alone decides is said of it alone.
"""

from __future__ import annotations

import json
import math
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests

from handler import rfc3339
from handler.cloud import servers as servers_module
from handler.simulator import (
    Api,
    BatchPolicy,
    BmsBehavior,
    Call,
    CallKind,
    ConflictKind,
    Controller,
    Cut,
    Fault,
    JobChildren,
    Simulator,
)
from tests.conftest import Function, StartFunction

MakeCloud = Callable[..., Simulator]


@pytest.fixture
def _one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers are read singly, however many they are, so that one of them can be the only one that is not shown."""
    monkeypatch.setattr(servers_module, "_FEW", 1000)


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


@pytest.fixture
def otc() -> Iterator[Simulator]:
    """Open Telekom Cloud, for what BMS v1 alone does."""
    with Simulator.otc() as simulator:
        yield simulator


@pytest.fixture
def bms(start_function: StartFunction, otc: Simulator) -> Function:
    """The function speaking BMS v1."""
    return start_function(otc, AUTOSTOP_API="bms")


def came_out(answer: requests.Response) -> dict[str, str]:
    """Outcome and reason of each server, as `outcome/reason`."""
    assert answer.status_code == 200, answer.text
    return {row["id"]: f"{row['outcome']}/{row['reason']}" for row in answer.json()["servers"]}


def at(seconds_ago: float) -> str:
    """A time as an event has it."""
    return rfc3339.render(datetime.now(UTC) - timedelta(seconds=seconds_ago))


def stops(cloud: Simulator) -> list[Call]:
    """The calls that asked for a stop, in order."""
    return [call for call in cloud.calls if call.kind is CallKind.STOP]


# --- one server ---


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        ({}, "stopped/confirmed"),
        ({"vm_state": "error"}, "stopped/confirmed"),
        ({"power_off_delay": 0.1}, "stopped/confirmed"),
        ({"tags": ["autostop-keep-until=2020-01-01T00:00:00Z"]}, "stopped/confirmed"),
        ({"vm_state": "stopped"}, "unchanged/already-stopped"),
        ({"vm_state": "stopped", "locked": True}, "unchanged/already-stopped"),
        ({"task_state": "powering-off"}, "unchanged/already-stopping"),
        ({"locked": True}, "skipped/locked"),
        ({"tags": ["autostop=never"]}, "skipped/protected"),
        ({"metadata": {"autostop": "never"}}, "skipped/protected"),
        ({"tags": ["autostop-keep-until=2999-01-01T00:00:00Z"]}, "skipped/kept-until"),
        ({"metadata": {"autostop-keep-until": "2999-01-01T00:00:00+02:00"}}, "skipped/kept-until"),
        ({"tags": ["autostop-keep-until=tomorrow"]}, "skipped/protected"),
        ({"tags": ["autostop.never"]}, "skipped/protected"),
        ({"metadata": {"autostop.never": ""}}, "skipped/protected"),
        ({"tags": ["autostop-keep-until.2099-12-24"]}, "skipped/protected"),
        ({"tags": ["autostop-keep-until.2099-12-24T07:00:00Z"]}, "skipped/kept-until"),
        ({"tags": ["autostop-keep-until=20991224T070000Z"]}, "skipped/kept-until"),
        ({"metadata": {"autostop-keep-until": "20991224T070000+0100"}}, "skipped/kept-until"),
        ({"tags": ["autostop-keep-until=20011224T070000Z"]}, "stopped/confirmed"),
        ({"flavor": "9d2f8d0e-0d6b-4c59-8b5b-0d9f1e7a6c11", "flavor_name": "physical.h2.large"}, "stopped/confirmed"),
        ({"task_state": "powering-off", "updated": time.time() - 86400}, "failed/busy"),
        ({"vm_state": "stopped", "task_state": "powering-on", "updated": time.time() - 86400}, "failed/busy"),
        ({"vm_state": "stopped", "task_state": "powering-on"}, "skipped/started-since"),
        ({"vm_state": "error", "launched": False}, "failed/never-launched"),
        ({"vm_state": "building", "task_state": "spawning"}, "failed/wrong-state"),
        ({"vm_state": "paused"}, "failed/wrong-state"),
        ({"vm_state": "rescued"}, "failed/wrong-state"),
        ({"task_state": "deleting"}, "failed/deleting"),
        ({"power_off_fails": True}, "failed/reverted"),
        ({"power_off_fails": True, "power_off_delay": 0.2}, "failed/reverted"),
        ({"vm_state": "stopped", "power_state": 1}, "failed/power-still-on"),
        ({"vm_state": "stopped", "power_state": 1, "task_state": "powering-off"}, "failed/power-still-on"),
        ({"vm_state": "stopped", "power_state": 4, "task_state": "powering-off"}, "unchanged/already-stopped"),
        ({"vm_state": "stopped", "power_state": 0}, "unchanged/already-stopped"),
        ({"vm_state": "stopped", "power_state": 1, "tags": ["autostop=never"]}, "skipped/protected"),
    ],
)
def test_a_server_comes_out_alike_on_both_apis(
    cloud: Simulator, function: Function, api: str, server: Mapping[str, Any], expected: str
) -> None:
    """One stop for what could be stopped, through the API of the settings, and none for anything else."""
    id_ = cloud.add_server(**server)
    answer = function.stop(id_)
    assert came_out(answer) == {id_: expected}
    assert answer.json()["api"] == api
    assert cloud.stops_sent(id_) == (expected in ("stopped/confirmed", "failed/reverted"))
    assert {call.api for call in cloud.calls} == {Api.KEYSTONE, Api(api)}


def test_a_stopped_server_is_told_with_the_clouds_ids(cloud: Simulator, function: Function, api: str) -> None:
    """Nova gives an id of the request; BMS v1 gives a job's beside it."""
    server = cloud.add_server("ci-07")
    (row,) = function.stop(server).json()["servers"]
    assert (row["name"], row["previous_vm_state"], row["vm_state"]) == ("ci-07", "active", "stopped")
    assert row["request_id"].startswith("req-")
    jobs = [call.path.rpartition("/")[2] for call in cloud.calls if call.kind is CallKind.JOB]
    assert jobs == ([row["job_id"]] if api == "bms" else [])
    assert (row["job_id"] is not None) == (api == "bms")


def test_a_virtual_server_is_left_alone(cloud: Simulator, function: Function, api: str) -> None:
    """Nova shows it and its flavour tells; BMS v1 does not know it."""
    server = cloud.add_server(flavor="s3.medium.2")
    expected = {"nova": "skipped/not-bare-metal", "bms": "failed/not-found"}[api]
    assert came_out(function.stop(server)) == {server: expected}
    assert cloud.server(server).vm_state == "active"
    assert stops(cloud) == []


def test_a_server_that_is_not_there_is_not_found(cloud: Simulator, function: Function) -> None:
    """It was never there, is deleted, or belongs to another project."""
    gone, foreign, never = cloud.add_server(), cloud.add_server(project_id=cloud.other_project_id), str(uuid.uuid4())
    cloud.delete_server(gone)
    assert came_out(function.stop(never, gone, foreign)) == dict.fromkeys((never, gone, foreign), "failed/not-found")
    assert stops(cloud) == []


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


def test_a_missing_server_told_with_404_is_not_found(otc: Simulator, bms: Function) -> None:
    """The documents leave open whether BMS v1 says it with 400 or 404."""
    otc.bms.missing_status = 404
    never = str(uuid.uuid4())
    assert came_out(bms.stop(never)) == {never: "failed/not-found"}


def test_a_reboot_is_waited_for(cloud: Simulator, function: Function) -> None:
    """And then the stop is sent, once."""
    server = cloud.add_server()
    cloud.reboot_server(server, delay=0.1)
    assert came_out(function.stop(server)) == {server: "stopped/confirmed"}
    assert cloud.stops_sent(server) == cloud.stops_taken(server) == 1


def test_a_reboot_that_outlasts_the_budget_is_busy(cloud: Simulator, start: StartFunction) -> None:
    """Nothing was sent."""
    server = cloud.add_server()
    cloud.reboot_server(server, delay=math.inf)
    answer = start(cloud, AUTOSTOP_DEADLINE="1s", AUTOSTOP_WAIT="0.2s").stop(server)
    assert came_out(answer) == {server: "failed/busy"}
    assert stops(cloud) == []


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


@pytest.mark.parametrize(
    ("controller", "leaves", "expected"),
    [
        (Controller.REFUSES, 1, "failed/power-still-on"),
        (Controller.IGNORES, 1, "failed/power-still-on"),
        (Controller.SILENT, 0, "accepted/accepted"),
    ],
)
def test_a_server_whose_power_is_not_seen_off_is_never_reported_as_stopped(
    cloud: Simulator, start: StartFunction, controller: Controller, leaves: int, expected: str
) -> None:
    """Nova with Ironic records `stopped` though the management controller refused the power-off, or is dead."""
    function = start(cloud, AUTOSTOP_WAIT="0.3s")
    server = cloud.add_server(controller=controller, power_off_delay=0.1)
    answer = function.stop(server)
    assert came_out(answer) == {server: expected}
    row = answer.json()["servers"][0]
    assert (row["vm_state"], row["evidence"]["vm_state"], row["evidence"]["power_state"]) == (
        "stopped",
        "stopped",
        leaves,
    )
    assert cloud.stops_sent(server) == 1


@pytest.mark.parametrize("wait", ["0", "0.2s"])
def test_a_power_off_that_outlasts_the_watch_is_accepted(cloud: Simulator, start: StartFunction, wait: str) -> None:
    """The cloud took it, and that is what is told."""
    server = cloud.add_server(power_off_delay=math.inf)
    answer = start(cloud, AUTOSTOP_WAIT=wait).stop(server)
    assert came_out(answer) == {server: "accepted/accepted"}
    assert cloud.stops_sent(server) == cloud.stops_taken(server) == 1


# --- who asks ---


def test_a_login_that_may_only_read_is_forbidden(cloud: Simulator, start: StartFunction) -> None:
    """The refusal is final: each server is asked for once alone at most, and stays running."""
    ids = [cloud.add_server(), cloud.add_server()]
    answer = start(cloud, **cloud.environ("watcher")).stop(*ids)
    assert came_out(answer) == dict.fromkeys(ids, "failed/forbidden")
    assert {cloud.server(id_).vm_state for id_ in ids} == {"active"}
    assert len(stops(cloud)) <= 3


def test_a_wrong_password_is_tried_once(cloud: Simulator, start: StartFunction) -> None:
    """Two events, one login: more would lock the account."""
    function = start(cloud, OS_PASSWORD="not-the-password")
    for _ in range(2):
        answer = function.stop(*(cloud.add_server() for _ in range(3)))
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "60")
        assert answer.json()["type"].endswith(":login-refused")
    assert [call.kind for call in cloud.calls] == [CallKind.LOGIN]


@pytest.mark.parametrize("on", [CallKind.LIST, CallKind.STOP])
def test_tokens_revoked_in_the_middle_cost_one_login(cloud: Simulator, function: Function, on: CallKind) -> None:
    """And every server is stopped, once."""
    ids = [cloud.add_server() for _ in range(8)]
    cloud.inject(Fault(on=on, expire_token=True))
    assert came_out(function.stop(*ids)) == dict.fromkeys(ids, "stopped/confirmed")
    assert cloud.count(CallKind.LOGIN) == 2
    assert {cloud.stops_taken(id_) for id_ in ids} == {1}


def test_a_token_revoked_while_the_job_runs_costs_one_login(otc: Simulator, bms: Function) -> None:
    """The job is asked again with the new one."""
    server = otc.add_server(power_off_delay=0.1)
    otc.inject(Fault.token_expired(CallKind.JOB))
    assert came_out(bms.stop(server)) == {server: "stopped/confirmed"}
    assert otc.count(CallKind.LOGIN) == 2


@pytest.mark.parametrize("temporary", [False, True])
def test_an_access_key_works_for_either_api(start_function: StartFunction, temporary: bool) -> None:
    """No login is made; the explicit URL takes the place of the catalogue."""
    with Simulator.otc() as cloud:
        key = cloud.key_environ(cloud.add_access_key(temporary=temporary))
        for api, url in (("nova", "AUTOSTOP_COMPUTE_URL"), ("bms", "AUTOSTOP_BMS_URL")):
            ids = [cloud.add_server(power_off_delay=0.05) for _ in range(6)]
            # `environ` of a login would stand beside the key; empty settings count as none.
            blank = dict.fromkeys(cloud.environ(), "")
            function = start_function(cloud, **blank | key | {"AUTOSTOP_API": api, url: cloud.url})
            assert came_out(function.stop(*ids)) == dict.fromkeys(ids, "stopped/confirmed")
        assert cloud.count(CallKind.LOGIN) == 0


# --- rehearsals and repetitions ---


def test_a_dry_run_only_looks(cloud: Simulator, function: Function) -> None:
    """Every call but the login is a GET."""
    runs, rests = cloud.add_server(), cloud.add_server(vm_state="stopped")
    answer = function.send({"server_ids": [runs, rests], "dry_run": True})
    assert came_out(answer) == {runs: "planned/dry-run", rests: "unchanged/already-stopped"}
    assert {call.method for call in cloud.calls if call.kind is not CallKind.LOGIN} == {"GET"}


def test_five_deliveries_stop_once(cloud: Simulator, function: Function) -> None:
    """Five good answers, equal results with one id, and one stop for each server."""
    ids = [cloud.add_server() for _ in range(6)]
    answers = [function.stop(*ids, id="again", time=at(10)) for _ in range(5)]
    assert came_out(answers[0]) == dict.fromkeys(ids, "stopped/confirmed")
    assert all(came_out(answer) == dict.fromkeys(ids, "unchanged/already-stopped") for answer in answers[1:])
    assert len({answer.headers["ce-id"] for answer in answers}) == 2
    assert {cloud.stops_sent(id_) for id_ in ids} == {1}


@pytest.mark.parametrize("delay", [0.0, 0.1])
def test_five_deliveries_at_the_same_moment_take_one_stop(
    make_cloud: MakeCloud, start: StartFunction, delay: float
) -> None:
    """One run stops each server once, also where the cloud refuses a whole batch; those that waited get its result."""
    cloud = make_cloud(power_off_delay=delay)
    function, ids = start(cloud), [cloud.add_server() for _ in range(3)]
    with ThreadPoolExecutor(5) as threads:
        answers = list(threads.map(lambda _: function.stop(*ids, id="at-once"), range(5)))
    assert {answer.status_code for answer in answers} <= {200, 503}
    handled = [came_out(answer) for answer in answers if answer.status_code == 200]
    for id_ in ids:
        assert (
            "stopped/confirmed"
            in {row[id_] for row in handled}
            <= {
                "stopped/confirmed",
                "unchanged/already-stopped",
                "unchanged/already-stopping",
            }
        )
        assert cloud.stops_taken(id_) == 1


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
@pytest.mark.usefixtures("_impatient")
def test_a_server_that_somebody_started_after_our_lost_stop_is_left_running(
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
@pytest.mark.usefixtures("_impatient")
def test_without_a_history_a_lost_stop_is_sent_again_only_if_nothing_has_happened(
    cloud: Simulator, function: Function, changed: bool, expected: str
) -> None:
    """The stop was lost before it acted; if the record has changed, that may have been somebody who started it."""
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


def test_without_a_history_the_age_alone_counts_and_the_row_says_so(start_function: StartFunction) -> None:
    """Neither API shows one: a server started after the event is stopped."""
    with Simulator.otc(clock=lambda: time.time() - 60) as cloud:
        server = cloud.add_server(vm_state="stopped", updated=time.time() - 86400)
        cloud.start_server(server)
        cloud.inject(Fault(on=CallKind.ACTIONS, status=404, times=None))
        function = start_function(cloud, AUTOSTOP_API="bms")
        rehearsed = function.send({"server_id": server, "dry_run": True}, time=at(120))
        done = function.stop(server, time=at(120))
        assert came_out(rehearsed) == {server: "planned/dry-run"}
        assert came_out(done) == {server: "stopped/confirmed"}
        for answer in (rehearsed, done):
            assert "history could not be read" in answer.json()["servers"][0]["detail"]
        assert cloud.count(CallKind.ACTIONS) == 2


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
def test_an_address_that_cannot_be_known_is_said_at_once(
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


@pytest.mark.parametrize(
    ("bad", "fault", "expected"),
    [
        pytest.param({"project_id": "elsewhere"}, None, "failed/not-found", id="gone"),
        pytest.param({"locked": True}, None, "skipped/locked", id="locked"),
        pytest.param({}, {"on": CallKind.READ, "status": 500}, "failed/cloud-error", id="500 on read"),
        pytest.param({}, {"on": CallKind.READ, "status": 502, "body": "<html>"}, "failed/cloud-error", id="502"),
        pytest.param({}, {"on": CallKind.READ, "status": 200, "body": "<html>"}, "failed/cloud-error", id="page"),
        pytest.param({}, {"on": CallKind.READ, "cut": Cut.BEFORE}, "failed/cloud-error", id="cut on read"),
        pytest.param({}, {"on": CallKind.READ, "cut": Cut.MIDWAY}, "failed/cloud-error", id="cut in the body"),
    ],
)
@pytest.mark.usefixtures("quick_retries", "_one_by_one")
def test_one_bad_server_among_twenty_touches_no_other(
    cloud: Simulator, start: StartFunction, bad: Mapping[str, Any], fault: Mapping[str, Any] | None, expected: str
) -> None:
    """Nineteen come out as if it were not there."""
    good = {
        **{cloud.add_server(): "stopped/confirmed" for _ in range(16)},
        **{cloud.add_server(vm_state="stopped"): "unchanged/already-stopped" for _ in range(3)},
    }
    sick = cloud.add_server(**bad)
    if fault:
        cloud.inject(Fault(**fault, server_id=sick, times=None))
    ids = [*list(good)[:7], sick, *list(good)[7:]]
    assert came_out(start(cloud).stop(*ids)) == {**good, sick: expected}
    assert cloud.stops_taken(sick) == 0
    assert {cloud.stops_taken(id_) for id_, what in good.items() if what == "stopped/confirmed"} == {1}


@pytest.mark.parametrize("kind", [ConflictKind.NOT_READY, ConflictKind.TASK_STATE])
@pytest.mark.usefixtures("quick_retries")
def test_a_server_whose_stop_is_always_refused_is_a_conflict_and_the_others_stop(
    cloud: Simulator, start: StartFunction, kind: ConflictKind
) -> None:
    """A batch that is refused because of it is divided until it stands alone."""
    ids = [cloud.add_server() for _ in range(20)]
    sick = ids[7]
    cloud.inject(Fault.conflict(kind, server_id=sick, times=None))
    outcomes = came_out(start(cloud).stop(*ids))
    assert outcomes == {**dict.fromkeys(ids, "stopped/confirmed"), sick: "failed/conflict"}
    assert {cloud.stops_taken(id_) for id_ in ids if id_ != sick} == {1}
    assert cloud.stops_taken(sick) == 0
    assert len(stops(cloud)) <= 24


# --- batches and jobs ---


@pytest.mark.parametrize("mixed", ["FAIL", "SUCCESS"])
@pytest.mark.parametrize("policy", BatchPolicy)
@pytest.mark.usefixtures("quick_retries")
def test_a_batch_with_servers_that_changed_meanwhile_does_not_hurt_the_others(
    otc: Simulator, bms: Function, policy: BatchPolicy, mixed: str
) -> None:
    """One was locked and one reverts; the parent's status is not what counts."""
    otc.bms.batch_policy, otc.bms.mixed_status = policy, mixed
    ids = [otc.add_server(power_off_delay=0.05) for _ in range(6)]
    reverts = otc.add_server(power_off_fails=True, power_off_delay=0.1)
    locked = otc.add_server(locked=True)
    shown = requests.get(
        f"{otc.bms_url}/{otc.project_id}/baremetalservers/detail", headers={"X-Auth-Token": otc.token()}, timeout=10
    ).text.replace('"locked": true', '"locked": false')
    otc.inject(Fault(on=CallKind.LIST, status=200, body=shown))
    answer = bms.stop(*ids, reverts, locked)
    assert came_out(answer) == {
        **dict.fromkeys(ids, "stopped/confirmed"),
        reverts: "failed/reverted",
        locked: "skipped/locked",
    }
    assert {otc.stops_taken(id_) for id_ in (*ids, reverts)} == {1}
    assert otc.stops_taken(locked) == 0


@pytest.mark.usefixtures("quick_retries")
def test_an_answer_without_a_job_sends_no_second_stop(otc: Simulator, bms: Function) -> None:
    """The cloud took something: the servers themselves tell what."""
    otc.bms.job_id = False
    ids = [otc.add_server(power_off_delay=0.1) for _ in range(6)]
    assert came_out(bms.stop(*ids)) == dict.fromkeys(ids, "stopped/confirmed")
    assert {otc.stops_sent(id_) for id_ in ids} == {1}
    assert otc.count(CallKind.JOB) == 0


@pytest.mark.parametrize(
    "manners",
    [{"job_server_ids": False}, {"job_word": "PENDING_IN_QUEUE"}, {"job_error_wrapped": True}],
    ids=["no server ids", "an unknown word", "wrapped errors"],
)
@pytest.mark.usefixtures("quick_retries")
def test_a_job_of_other_manners_is_understood(start_function: StartFunction, manners: Mapping[str, Any]) -> None:
    """It is waited for as long as it runs, and the servers are then asked themselves."""
    with Simulator.otc(bms=BmsBehavior(**manners), power_off_delay=0.1) as cloud:
        ids = [cloud.add_server() for _ in range(6)]
        answer = start_function(cloud, AUTOSTOP_API="bms").stop(*ids)
        assert came_out(answer) == dict.fromkeys(ids, "stopped/confirmed")
        assert {cloud.stops_sent(id_) for id_ in ids} == {1}


@pytest.mark.parametrize("children", list(JobChildren))
@pytest.mark.usefixtures("_impatient")
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


@pytest.mark.usefixtures("_impatient")
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


def test_a_job_that_never_ends_is_told_as_accepted(otc: Simulator, start_function: StartFunction) -> None:
    """The watch ends; the stop was sent once."""
    otc.bms.job_ends = False
    ids = [otc.add_server(), otc.add_server()]
    answer = start_function(otc, AUTOSTOP_API="bms", AUTOSTOP_WAIT="0.3s").stop(*ids)
    assert came_out(answer) == dict.fromkeys(ids, "accepted/accepted")
    assert {otc.stops_sent(id_) for id_ in ids} == {1}


@pytest.mark.parametrize("code", ["Common.0011", "Common.0018", "BMS.0288"])
def test_a_job_that_may_not_be_asked_leaves_the_servers_to_be_observed_at(
    otc: Simulator, bms: Function, code: str
) -> None:
    """The permission for jobs is one that an administrator easily forgets."""
    ids = [otc.add_server(), otc.add_server()]
    otc.inject(Fault.bms(CallKind.JOB, code, times=None, flat=True))
    assert came_out(bms.stop(*ids)) == dict.fromkeys(ids, "stopped/confirmed")


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(Fault.bms(CallKind.STOP, "BMS.0212"), id="overloaded"),
        pytest.param(Fault.gateway_code(CallKind.STOP, "APIG.0308", 429, retry_after=1), id="throttled"),
        pytest.param(Fault.gateway_code(CallKind.STOP, "APIG.0202", 504, act=True), id="backend slow, acted"),
        pytest.param(Fault.gateway_code(CallKind.STOP, "APIG.0301", 401), id="token"),
        pytest.param(Fault.bms(CallKind.STOP, "BMS.0039"), id="already off"),
        pytest.param(Fault.bms(CallKind.STOP, "BMS.1007"), id="internal"),
        pytest.param(Fault(on=CallKind.STOP, cut=Cut.AFTER), id="cut after"),
    ],
)
@pytest.mark.usefixtures("quick_retries")
def test_a_batch_that_went_wrong_once_is_seen_through(otc: Simulator, bms: Function, fault: Fault) -> None:
    """Each server is stopped by exactly one stop that the cloud took."""
    ids = [otc.add_server(power_off_delay=0.1) for _ in range(6)]
    otc.inject(fault)
    assert came_out(bms.stop(*ids)) == dict.fromkeys(ids, "stopped/confirmed")
    assert {otc.stops_taken(id_) for id_ in ids} == {1}


# --- what it costs the cloud ---


def test_an_event_costs_bms_no_more_than_it_must(otc: Simulator, bms: Function) -> None:
    """One login, one look, one stop, one look at its job, one look; and the history, if the event has a time."""
    first, second, stopped = otc.add_server(), otc.add_server(), otc.add_server(vm_state="stopped")
    bms.stop(first)
    found = [call.kind for call in otc.calls]
    assert found == [CallKind.LOGIN, CallKind.READ, CallKind.STOP, CallKind.JOB, CallKind.READ]
    bms.stop(second, time=at(1))
    assert [call.kind for call in otc.calls[5:]] == [
        CallKind.READ,
        CallKind.ACTIONS,
        CallKind.STOP,
        CallKind.JOB,
        CallKind.READ,
    ]
    bms.stop(stopped, time=at(1))
    assert [call.kind for call in otc.calls[10:]] == [CallKind.READ]


# --- many ---


def test_a_thousand_servers_cost_bms_at_most_ten_calls(start_function: StartFunction) -> None:
    """One list, one batch, a few looks at its job, one list."""
    with Simulator.otc(power_off_delay=0.5) as cloud:
        ids = [cloud.add_server() for _ in range(1000)]
        answer = start_function(cloud, AUTOSTOP_API="bms", AUTOSTOP_MAX_SERVERS="1000", AUTOSTOP_WAIT="20s").stop(*ids)
        assert came_out(answer) == dict.fromkeys(ids, "stopped/confirmed")
        assert len(cloud.calls) <= 10
        assert len(stops(cloud)) == 1


def test_two_hundred_servers_cost_nova_few_lists_and_one_stop_each(start_function: StartFunction) -> None:
    """No server is read singly, but for the last few that are still on their way."""
    with Simulator(power_off_delay=0.05) as cloud:
        ids = [cloud.add_server() for _ in range(200)]
        answer = start_function(cloud, AUTOSTOP_MAX_SERVERS="200").stop(*ids)
        assert came_out(answer) == dict.fromkeys(ids, "stopped/confirmed")
        assert {cloud.stops_sent(id_) for id_ in ids} == {1}
        assert 2 <= cloud.count(CallKind.LIST) <= 6
        assert cloud.count(CallKind.READ) <= 20
