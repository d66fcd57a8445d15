"""The whole function on either API: Nova as upstream has it, and BMS v1 as Open Telekom Cloud has it.

What a server comes out as must not depend on the API that is spoken; what the API alone decides is said of it alone.
"""

from __future__ import annotations

import math
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
from handler.simulator import Api, BatchPolicy, BmsBehavior, Call, CallKind, ConflictKind, Cut, Fault, Simulator
from handler.stop import run as run_module
from tests.conftest import Function, StartFunction

MakeCloud = Callable[..., Simulator]


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tried again is tried again soon."""
    monkeypatch.setitem(run_module.run.__kwdefaults__, "backoff", lambda attempt: 0.002 * 2 ** min(attempt, 7))


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
    (asked,) = [call.path.rpartition("/")[2] for call in cloud.calls if call.kind is CallKind.JOB] or [None]
    assert row["job_id"] == asked
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


@pytest.mark.parametrize(("leaves", "expected"), [(1, "failed/power-still-on"), (0, "accepted/accepted")])
def test_a_server_whose_power_is_not_seen_off_is_never_reported_as_stopped(
    cloud: Simulator, start: StartFunction, leaves: int, expected: str
) -> None:
    """Nova with Ironic records `stopped` though the management controller refused the power-off, or is dead."""
    function = start(cloud, AUTOSTOP_WAIT="0.3s")
    server = cloud.add_server(power_off_leaves=leaves)
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
    """Five good answers, results of one id, and one stop for each server."""
    ids = [cloud.add_server() for _ in range(6)]
    answers = [function.stop(*ids, id="again", time=at(10)) for _ in range(5)]
    assert came_out(answers[0]) == dict.fromkeys(ids, "stopped/confirmed")
    assert all(came_out(answer) == dict.fromkeys(ids, "unchanged/already-stopped") for answer in answers[1:])
    assert len({answer.headers["ce-id"] for answer in answers}) == 1
    assert {cloud.stops_sent(id_) for id_ in ids} == {1}


@pytest.mark.parametrize("delay", [0.0, 0.1])
def test_five_deliveries_at_the_same_moment_take_one_stop(
    make_cloud: MakeCloud, start: StartFunction, delay: float
) -> None:
    """Exactly one result calls it its own, also where the cloud refuses a whole batch."""
    cloud = make_cloud(power_off_delay=delay)
    function, ids = start(cloud), [cloud.add_server() for _ in range(3)]
    with ThreadPoolExecutor(5) as threads:
        answers = list(threads.map(lambda _: function.stop(*ids, id="at-once"), range(5)))
    for id_ in ids:
        outcomes = sorted(came_out(answer)[id_].partition("/")[0] for answer in answers)
        assert outcomes == ["stopped", *["unchanged"] * 4]
        assert cloud.stops_taken(id_) == 1


# --- was it started since? ---


def test_without_a_history_the_age_alone_counts_and_the_row_says_so(start_function: StartFunction) -> None:
    """BMS v1 keeps none: a server started after the event is stopped."""
    with Simulator.otc(clock=lambda: time.time() - 60) as cloud:
        server = cloud.add_server(vm_state="stopped", updated=time.time() - 86400)
        cloud.start_server(server)
        function = start_function(cloud, AUTOSTOP_API="bms")
        rehearsed = function.send({"server_id": server, "dry_run": True}, time=at(120))
        done = function.stop(server, time=at(120))
        assert came_out(rehearsed) == {server: "planned/dry-run"}
        assert came_out(done) == {server: "stopped/confirmed"}
        for answer in (rehearsed, done):
            assert "history could not be read" in answer.json()["servers"][0]["detail"]
        assert cloud.count(CallKind.ACTIONS) == 0


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
@pytest.mark.usefixtures("_impatient", "_one_by_one")
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
@pytest.mark.usefixtures("_impatient")
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
@pytest.mark.usefixtures("_impatient")
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


@pytest.mark.usefixtures("_impatient")
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
@pytest.mark.usefixtures("_impatient")
def test_a_job_of_other_manners_is_understood(start_function: StartFunction, manners: Mapping[str, Any]) -> None:
    """It is waited for as long as it runs, and the servers are then asked themselves."""
    with Simulator.otc(bms=BmsBehavior(**manners), power_off_delay=0.1) as cloud:
        ids = [cloud.add_server() for _ in range(6)]
        answer = start_function(cloud, AUTOSTOP_API="bms").stop(*ids)
        assert came_out(answer) == dict.fromkeys(ids, "stopped/confirmed")
        assert {cloud.stops_sent(id_) for id_ in ids} == {1}


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
@pytest.mark.usefixtures("_impatient")
def test_a_batch_that_went_wrong_once_is_seen_through(otc: Simulator, bms: Function, fault: Fault) -> None:
    """Each server is stopped by exactly one stop that the cloud took."""
    ids = [otc.add_server(power_off_delay=0.1) for _ in range(6)]
    otc.inject(fault)
    assert came_out(bms.stop(*ids)) == dict.fromkeys(ids, "stopped/confirmed")
    assert {otc.stops_taken(id_) for id_ in ids} == {1}


# --- what it costs the cloud ---


def test_an_event_costs_bms_no_more_than_it_must(otc: Simulator, bms: Function) -> None:
    """One login, one look, one stop, one look at its job, one look; whatever the event says of its time."""
    first, second, stopped = otc.add_server(), otc.add_server(), otc.add_server(vm_state="stopped")
    bms.stop(first)
    found = [call.kind for call in otc.calls]
    assert found == [CallKind.LOGIN, CallKind.READ, CallKind.STOP, CallKind.JOB, CallKind.READ]
    bms.stop(second, time=at(1))
    assert [call.kind for call in otc.calls[5:]] == found[1:]
    bms.stop(stopped, time=at(1))
    assert [call.kind for call in otc.calls[9:]] == [CallKind.READ]


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
