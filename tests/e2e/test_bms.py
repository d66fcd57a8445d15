"""What BMS v1 alone does: batches, jobs, and no history."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping
from typing import Any

import pytest

from handler.simulator import BatchPolicy, BmsBehavior, CallKind, Cut, Fault, JobChildren, Simulator
from tests.conftest import Function, StartFunction
from tests.e2e.outcomes import at, came_out, kinds, shown


@pytest.mark.parametrize(("status", "code"), [(404, None), (400, None), (400, "BMS.1006")])
def test_a_missing_server_is_not_found(otc: Simulator, bms: Function, status: int, code: str | None) -> None:
    """The documents leave open whether BMS v1 says it with 400 or 404, and with which code."""
    otc.bms.missing_status = status
    never = str(uuid.uuid4())
    if code:
        otc.inject(Fault.bms(CallKind.READ, code, server_id=never))
    assert came_out(bms.stop(never)) == {never: "failed/not-found"}


def test_a_token_revoked_while_the_job_runs_costs_one_login(otc: Simulator, bms: Function) -> None:
    """The job is asked again with the new one."""
    server = otc.add_server(power_off_delay=0.1)
    otc.inject(Fault.token_expired(CallKind.JOB))
    assert came_out(bms.stop(server)) == {server: "stopped/confirmed"}
    assert otc.count(CallKind.LOGIN) == 2


def test_without_a_history_the_age_alone_counts_and_the_row_says_so(start_function: StartFunction) -> None:
    """Neither API shows one: a server started after the event is stopped."""
    with Simulator.otc(clock=lambda: time.time() - 60) as cloud:
        server = cloud.add_server(vm_state="stopped", updated=time.time() - 86400)
        cloud.start_server(server)
        cloud.inject(Fault(on=CallKind.ACTIONS, status=404, times=None))
        function = start_function(cloud, AUTOSTOP_API="bms")
        planned = function.send({"server_id": server, "dry_run": True}, time=at(120))
        done = function.stop(server, time=at(120))
        assert came_out(planned) == {server: "planned/dry-run"}
        assert came_out(done) == {server: "stopped/confirmed"}
        for answer in (planned, done):
            assert "history could not be read" in answer.json()["servers"][0]["detail"]
        assert cloud.count(CallKind.ACTIONS) == 2


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
    page = json.dumps(shown(otc, "bms")).replace('"locked": true', '"locked": false')
    otc.inject(Fault(on=CallKind.LIST, status=200, body=page))
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
    """The cloud took something: reads of the servers show what."""
    otc.bms.job_id = False
    ids = [otc.add_server(power_off_delay=0.1) for _ in range(6)]
    assert came_out(bms.stop(*ids)) == dict.fromkeys(ids, "stopped/confirmed")
    assert {otc.stops_sent(id_) for id_ in ids} == {1}
    assert otc.count(CallKind.JOB) == 0


@pytest.mark.parametrize(
    "behavior",
    [{"job_server_ids": False}, {"job_word": "PENDING_IN_QUEUE"}, {"job_error_wrapped": True}],
    ids=["no server ids", "an unknown word", "wrapped errors"],
)
@pytest.mark.usefixtures("quick_retries")
def test_a_job_with_other_behavior_is_understood(start_function: StartFunction, behavior: Mapping[str, Any]) -> None:
    """It is waited for as long as it runs, and the servers are then asked themselves."""
    with Simulator.otc(bms=BmsBehavior(**behavior), power_off_delay=0.1) as cloud:
        ids = [cloud.add_server() for _ in range(6)]
        answer = start_function(cloud, AUTOSTOP_API="bms").stop(*ids)
        assert came_out(answer) == dict.fromkeys(ids, "stopped/confirmed")
        assert {cloud.stops_sent(id_) for id_ in ids} == {1}


def test_a_job_that_never_ends_is_reported_as_accepted(otc: Simulator, start_function: StartFunction) -> None:
    """The watch ends; the stop was sent once."""
    otc.bms.job_ends = False
    ids = [otc.add_server(), otc.add_server()]
    answer = start_function(otc, AUTOSTOP_API="bms", AUTOSTOP_WAIT="0.3s").stop(*ids)
    assert came_out(answer) == dict.fromkeys(ids, "accepted/accepted")
    assert {otc.stops_sent(id_) for id_ in ids} == {1}


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
def test_a_batch_whose_stop_failed_once_is_stopped(otc: Simulator, bms: Function, fault: Fault) -> None:
    """Each server is stopped by exactly one stop that the cloud took."""
    ids = [otc.add_server(power_off_delay=0.1) for _ in range(6)]
    otc.inject(fault)
    assert came_out(bms.stop(*ids)) == dict.fromkeys(ids, "stopped/confirmed")
    assert {otc.stops_taken(id_) for id_ in ids} == {1}


def test_an_event_costs_bms_no_more_than_it_must(otc: Simulator, bms: Function) -> None:
    """One login, one read, one stop, one read of its job, one read; and the history, if the event has a time."""
    first, second, stopped = otc.add_server(), otc.add_server(), otc.add_server(vm_state="stopped")
    bms.stop(first)
    found = kinds(otc)
    assert found == [CallKind.LOGIN, CallKind.READ, CallKind.STOP, CallKind.JOB, CallKind.READ]
    bms.stop(second, time=at(1))
    assert kinds(otc)[5:] == [CallKind.READ, CallKind.ACTIONS, *found[2:]]
    bms.stop(stopped, time=at(1))
    assert kinds(otc)[10:] == [CallKind.READ]


def test_a_thousand_servers_cost_bms_at_most_ten_calls(start_function: StartFunction) -> None:
    """One list, one batch, a few reads of its job, one list."""
    with Simulator.otc(power_off_delay=0.5) as cloud:
        ids = [cloud.add_server() for _ in range(1000)]
        answer = start_function(cloud, AUTOSTOP_API="bms", AUTOSTOP_MAX_SERVERS="1000", AUTOSTOP_WAIT="20s").stop(*ids)
        assert came_out(answer) == dict.fromkeys(ids, "stopped/confirmed")
        assert len(cloud.calls) <= 10
        assert cloud.count(CallKind.STOP) == 1


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


@pytest.mark.usefixtures("quick_retries")
def test_after_a_success_with_an_unknown_error_the_server_is_read(otc: Simulator, bms: Function) -> None:
    """It acted all the same: the server is seen powering off, and no second stop is sent."""
    server = otc.add_server(power_off_delay=0.2)
    otc.inject(Fault.bms(CallKind.STOP, "BMS.9999", 200, act=True))
    assert came_out(bms.stop(server)) == {server: "stopped/confirmed"}
    assert otc.stops_sent(server) == 1


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
