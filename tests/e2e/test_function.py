"""The whole function, from an event over HTTP to the cloud and back, with Nova as with BMS v1.

The outcome of a server must not depend on the API. What one API alone does is in `test_nova.py` and `test_bms.py`.
"""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from handler.simulator import Api, CallKind, ConflictKind, Controller, Cut, Fault, Simulator
from tests.conftest import Function, StartFunction
from tests.e2e.outcomes import at, came_out, kinds

COMPLETED = "io.github.bms-autostop.stop.completed.v1"
FAILED = "io.github.bms-autostop.stop.failed.v1"
REFUSED = "io.github.bms-autostop.stop.refused.v1"

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


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        ({}, "stopped/confirmed"),
        ({"vm_state": "error"}, "stopped/confirmed"),
        ({"power_off_delay": 0.1}, "stopped/confirmed"),
        ({"tags": ["autostop-keep-until=2020-01-01T00:00:00Z"]}, "stopped/confirmed"),
        ({"vm_state": "stopped"}, "unchanged/already-stopped"),
        ({"tags": ["autostop=later"], "metadata": {"autostop": "later"}}, "stopped/confirmed"),
        ({"vm_state": "stopped", "locked": True, "tags": ["autostop=never"]}, "unchanged/already-stopped"),
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
        ({"vm_state": "error", "host": False}, "failed/never-launched"),
        ({"vm_state": "building", "task_state": "spawning"}, "failed/wrong-state"),
        ({"vm_state": "building", "task_state": "scheduling", "host": False}, "failed/wrong-state"),
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
def test_each_server_comes_out_as_its_state_and_the_guards_demand(
    cloud: Simulator, function: Function, api: str, server: Mapping[str, Any], expected: str
) -> None:
    """One stop for what could be stopped, and none for anything else; a failed server makes the result a failed one."""
    id_ = cloud.add_server(**server)
    answer = function.stop(id_)
    assert came_out(answer) == {id_: expected}
    assert answer.json()["api"] == api
    assert cloud.stops_sent(id_) == (expected in ("stopped/confirmed", "failed/reverted"))
    assert {call.api for call in cloud.calls} == {Api.KEYSTONE, Api(api)}
    assert answer.headers["ce-type"] == (FAILED if expected.startswith("failed/") else COMPLETED)
    outcome = expected.partition("/")[0]
    assert {name: count for name, count in answer.json()["summary"].items() if count} == {outcome: 1}


def test_the_result_has_the_ids_of_the_cloud(cloud: Simulator, function: Function, api: str) -> None:
    """The id of the request that stopped the server, and with BMS v1 that of the job."""
    server = cloud.add_server("ci-07")
    answer = function.stop(server)
    (row,) = answer.json()["servers"]
    assert answer.headers["ce-subject"] == server
    assert (row["name"], row["previous_vm_state"], row["vm_state"]) == ("ci-07", "active", "stopped")
    assert row["request_id"].startswith("req-")
    if api == "nova":
        assert row["request_id"] == cloud.actions(server)[0].request_id
    jobs = [call.path.rpartition("/")[2] for call in cloud.calls if call.kind is CallKind.JOB]
    assert jobs == ([row["job_id"]] if api == "bms" else [])
    assert (row["job_id"] is not None) == (api == "bms")
    assert cloud.server(server).vm_state == "stopped"
    assert cloud.stops_taken(server) == 1


def test_a_virtual_server_is_left_alone(cloud: Simulator, function: Function, api: str) -> None:
    """Nova shows it with its flavor; BMS v1 does not know it."""
    server = cloud.add_server(flavor="s3.medium.2")
    expected = {"nova": "skipped/not-bare-metal", "bms": "failed/not-found"}[api]
    assert came_out(function.stop(server)) == {server: expected}
    assert cloud.server(server).vm_state == "active"
    assert cloud.count(CallKind.STOP) == 0


def test_a_server_that_is_not_there_is_not_found(cloud: Simulator, function: Function) -> None:
    """It was never there, is deleted, or belongs to another project."""
    gone, foreign, never = cloud.add_server(), cloud.add_server(project_id=cloud.other_project_id), str(uuid.uuid4())
    cloud.delete_server(gone)
    assert came_out(function.stop(never, gone, foreign)) == dict.fromkeys((never, gone, foreign), "failed/not-found")
    assert cloud.count(CallKind.STOP) == 0


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
    assert cloud.count(CallKind.STOP) == 0


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
def test_a_power_off_that_outlasts_the_waiting_time_is_accepted(
    cloud: Simulator, start: StartFunction, wait: str
) -> None:
    """The result says no more than that the cloud took it; with no waiting time nothing is read again."""
    server = cloud.add_server(power_off_delay=math.inf)
    answer = start(cloud, AUTOSTOP_WAIT=wait).stop(server)
    assert came_out(answer) == {server: "accepted/accepted"}
    assert answer.headers["ce-type"] == COMPLETED
    assert cloud.stops_sent(server) == cloud.stops_taken(server) == 1
    assert (kinds(cloud) == [CallKind.LOGIN, CallKind.READ, CallKind.STOP]) == (wait == "0")


# --- callers ---


def test_a_login_that_may_only_read_is_forbidden(cloud: Simulator, start: StartFunction) -> None:
    """The refusal is final: each server is asked for once alone at most, and stays running."""
    ids = [cloud.add_server(), cloud.add_server()]
    answer = start(cloud, **cloud.environ("watcher")).stop(*ids)
    assert came_out(answer) == dict.fromkeys(ids, "failed/forbidden")
    assert {cloud.server(id_).vm_state for id_ in ids} == {"active"}
    assert cloud.count(CallKind.STOP) <= 3


@pytest.mark.parametrize(
    ("count", "attributes", "why"),
    [
        (1, {"time": "2026-01-09T19:30:00Z"}, "too-old"),
        (1, {"expirytime": "2026-01-09T19:30:00Z"}, "expired"),
        (51, {}, "too-many-servers"),
    ],
)
def test_a_refused_event_sends_nothing_to_the_cloud(
    cloud: Simulator, function: Function, count: int, attributes: Mapping[str, str], why: str
) -> None:
    """Not even a login."""
    answer = function.stop(*(cloud.add_server() for _ in range(count)), **attributes)
    assert (answer.status_code, answer.headers["ce-type"]) == (200, REFUSED)
    assert (answer.json()["refusal"], answer.json()["servers"]) == (why, [])
    assert cloud.calls == []


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


# --- dry runs and repetitions ---


@pytest.mark.parametrize(
    ("deployment", "event", "dry"),
    [
        ("false", {"dry_run": True}, True),
        ("true", {}, True),
        ("true", {"dry_run": False}, True),
        ("false", {"dry_run": False}, False),
    ],
)
def test_a_dry_run_only_reads(
    cloud: Simulator, start: StartFunction, deployment: str, event: Mapping[str, bool], dry: bool
) -> None:
    """Asked for by the event or by the deployment: every call but the login is a GET, and an event cannot undo it."""
    runs, rests = cloud.add_server(), cloud.add_server(vm_state="stopped")
    function = start(cloud, AUTOSTOP_DRY_RUN=deployment)
    answer = function.send({"server_ids": [runs, rests], **event}, time=at(10))
    assert answer.json()["dry_run"] is dry
    assert came_out(answer) == {
        runs: "planned/dry-run" if dry else "stopped/confirmed",
        rests: "unchanged/already-stopped",
    }
    methods = {call.method for call in cloud.calls if call.kind is not CallKind.LOGIN}
    assert methods == ({"GET"} if dry else {"GET", "POST"})
    assert cloud.server(runs).vm_state == ("active" if dry else "stopped")


def test_a_repeated_event_stops_once_and_equal_results_have_one_id(cloud: Simulator, function: Function) -> None:
    """Five deliveries one after the other: five good answers, and one stop sent for each server."""
    servers = [cloud.add_server() for _ in range(3)]
    answers = [function.stop(*servers, id="again", time=at(10)) for _ in range(5)]
    assert came_out(answers[0]) == dict.fromkeys(servers, "stopped/confirmed")
    for answer in answers[1:]:
        assert came_out(answer) == dict.fromkeys(servers, "unchanged/already-stopped")
    assert len({answer.headers["ce-id"] for answer in answers}) == 2
    assert len({answer.headers["ce-id"] for answer in answers[1:]}) == 1
    assert [cloud.stops_sent(server) for server in servers] == [1, 1, 1]


@pytest.mark.parametrize("delay", [0.0, 0.1])
def test_deliveries_at_the_same_moment_take_one_stop(make_cloud: MakeCloud, start: StartFunction, delay: float) -> None:
    """Five at once: one run stops each server once, and those that waited for it get its result."""
    cloud = make_cloud(power_off_delay=delay)
    function, servers = start(cloud), [cloud.add_server() for _ in range(3)]
    with ThreadPoolExecutor(5) as threads:
        answers = list(threads.map(lambda _: function.stop(*servers, id="at-once"), range(5)))
    assert {answer.status_code for answer in answers} <= {200, 503}
    results = [(answer.headers["ce-id"], came_out(answer)) for answer in answers if answer.status_code == 200]
    for server in servers:
        outcomes = {outcomes[server].partition("/")[0] for _, outcomes in results}
        assert "stopped" in outcomes <= {"stopped", "unchanged"}
        assert cloud.stops_taken(server) == 1
    by_id: dict[str, set[str]] = {}
    for id_, found in results:
        by_id.setdefault(id_, set()).add(str(found))
    assert all(len(found) == 1 for found in by_id.values())


def test_two_events_have_results_of_two_ids(cloud: Simulator, function: Function) -> None:
    """Id and source of an event both count."""
    server = cloud.add_server(vm_state="stopped")
    events = [{"id": "1", "source": "/a"}, {"id": "2", "source": "/a"}, {"id": "1", "source": "/b"}]
    assert len({function.stop(server, **event).headers["ce-id"] for event in events}) == 3


# --- one bad server ---


@pytest.mark.parametrize(
    ("bad", "fault", "expected"),
    [
        pytest.param({"project_id": "elsewhere"}, None, "failed/not-found", id="404"),
        pytest.param({"locked": True}, None, "skipped/locked", id="locked"),
        pytest.param({}, {"on": CallKind.READ, "status": 500}, "failed/cloud-error", id="500-on-read"),
        pytest.param({}, {"on": CallKind.READ, "status": 502, "body": "<html>"}, "failed/cloud-error", id="502"),
        pytest.param({}, {"on": CallKind.READ, "cut": Cut.BEFORE}, "failed/cloud-error", id="cut-on-read"),
        pytest.param({}, {"on": CallKind.READ, "cut": Cut.MIDWAY}, "failed/cloud-error", id="truncated-read"),
        pytest.param({}, {"on": CallKind.READ, "status": 200, "body": "<html>"}, "failed/cloud-error", id="html-200"),
    ],
)
@pytest.mark.usefixtures("quick_retries", "one_by_one")
def test_one_bad_server_among_twenty_touches_no_other(
    cloud: Simulator,
    start: StartFunction,
    bad: Mapping[str, Any],
    fault: Mapping[str, Any] | None,
    expected: str,
) -> None:
    """Whatever is wrong with it for as long as the event lasts, nineteen come out as if it were not there."""
    good = {
        **{cloud.add_server(): "stopped/confirmed" for _ in range(14)},
        **{cloud.add_server(vm_state="stopped"): "unchanged/already-stopped" for _ in range(3)},
        **{cloud.add_server(tags=["autostop=never"]): "skipped/protected" for _ in range(2)},
    }
    bad_one = cloud.add_server(**bad)
    if fault:
        cloud.inject(Fault(**fault, server_id=bad_one, times=None))
    ids = [*good]
    ids.insert(7, bad_one)
    answer = start(cloud).stop(*ids)
    assert came_out(answer) == {**good, bad_one: expected}
    assert list(came_out(answer)) == ids
    assert cloud.stops_taken(bad_one) == 0
    assert {cloud.stops_sent(id_) for id_, what in good.items() if what == "stopped/confirmed"} == {1}


@pytest.mark.parametrize("kind", [ConflictKind.NOT_READY, ConflictKind.TASK_STATE])
@pytest.mark.usefixtures("quick_retries")
def test_a_server_whose_stop_is_always_refused_is_a_conflict_and_the_others_stop(
    cloud: Simulator, start: StartFunction, kind: ConflictKind
) -> None:
    """A batch that is refused because of it is divided until it stands alone."""
    ids = [cloud.add_server() for _ in range(20)]
    refused = ids[7]
    cloud.inject(Fault.conflict(kind, server_id=refused, times=None))
    outcomes = came_out(start(cloud).stop(*ids))
    assert outcomes == {**dict.fromkeys(ids, "stopped/confirmed"), refused: "failed/conflict"}
    assert {cloud.stops_taken(id_) for id_ in ids if id_ != refused} == {1}
    assert cloud.stops_taken(refused) == 0
    assert cloud.count(CallKind.STOP) <= 24
