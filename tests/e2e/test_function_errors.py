"""The whole function with a cloud that refuses, throttles, breaks off, or is not there.

How single answers of a cloud are read is tested in tests/cloud/.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import requests

from handler.simulator import CallKind, ConflictKind, Fault, Simulator
from tests.cloud.https import https_login
from tests.conftest import Function, StartFunction
from tests.e2e.outcomes import came_out, shown

SHORT = {"AUTOSTOP_DEADLINE": "2s", "AUTOSTOP_WAIT": "0.5s"}


def assert_must_come_again(answer: requests.Response, name: str) -> None:
    """A 503 with a problem document, a time to wait, and no result event."""
    assert answer.status_code == 503
    assert answer.json()["type"] == f"urn:bms-autostop:problem:{name}"
    assert int(answer.headers["Retry-After"]) >= 1
    assert not [header for header in answer.headers if header.lower().startswith("ce-")]


@pytest.mark.usefixtures("quick_retries")
def test_no_token_is_sent_over_http_after_a_login_over_https(
    cloud: Simulator, start_function: StartFunction, tmp_path: Path
) -> None:
    """Unless the URL is configured: the catalogue is not enough. Nothing is tried a second time."""
    server = cloud.add_server("db-1")
    with https_login(cloud, tmp_path) as login:
        function = start_function(cloud, **login)
        for answer in (function.send({"server_ids": [server]}), requests.get(f"{function.url}/readyz", timeout=10)):
            assert_must_come_again(answer, "insecure-endpoint")
            assert "the catalogue names an http URL (host 127.0.0.1)" in answer.json()["detail"]
            assert "AUTOSTOP_COMPUTE_URL" in answer.json()["detail"]
        assert [call.kind for call in cloud.calls] == [CallKind.LOGIN]
        allowed = start_function(cloud, **login, AUTOSTOP_COMPUTE_URL=cloud.url)
        assert came_out(allowed.send({"server_ids": [server]})) == {server: "stopped/confirmed"}


@pytest.mark.parametrize(
    ("fault", "expected", "sent", "taken"),
    [
        pytest.param(Fault.two_stops_at_once(), "unchanged/already-stopped", 1, 0, id="two at once"),
        pytest.param(Fault.conflict(ConflictKind.TASK_STATE), "stopped/confirmed", 2, 1, id="409"),
        pytest.param(Fault.conflict(ConflictKind.LOCKED, times=2), "stopped/confirmed", 3, 1, id="409 twice"),
        pytest.param(Fault(on=CallKind.STOP, status=404), "stopped/confirmed", 2, 1, id="404"),
        pytest.param(Fault.keystone_down(CallKind.STOP), "stopped/confirmed", 2, 1, id="keystone down"),
        pytest.param(Fault.token_expired(CallKind.STOP), "stopped/confirmed", 2, 1, id="401"),
        pytest.param(Fault.cut_after(CallKind.STOP), "stopped/confirmed", 1, 1, id="cut after"),
        pytest.param(Fault.gateway(CallKind.STOP, 504, act=True), "stopped/confirmed", 1, 1, id="504, acted"),
        pytest.param(Fault(on=CallKind.STOP, status=200, act=True), "stopped/confirmed", 1, 1, id="200, empty"),
        pytest.param(Fault(on=CallKind.STOP, status=500, act=True), "unchanged/already-stopped", 1, 1, id="500, acted"),
    ],
)
@pytest.mark.usefixtures("quick_retries")
def test_after_a_stop_that_failed_the_server_is_read_before_another_is_sent(
    cloud: Simulator, function: Function, fault: Fault, expected: str, sent: int, taken: int
) -> None:
    """The cloud never takes two; more kinds of failures are in test_fault_matrix.py."""
    server = cloud.add_server()
    cloud.inject(fault)
    assert came_out(function.stop(server)) == {server: expected}
    assert (cloud.stops_sent(server), cloud.stops_taken(server)) == (sent, taken)
    calls = [call for call in cloud.calls if call.kind in (CallKind.READ, CallKind.STOP) and call.status != 401]
    for before, call in zip([None, *calls], calls, strict=False):
        assert call.kind is not CallKind.STOP or (before is not None and before.kind is CallKind.READ)
    assert cloud.server(server).vm_state == "stopped"


def test_a_server_locked_between_read_and_stop_comes_out_locked(cloud: Simulator, function: Function) -> None:
    """The first read shows it unlocked. The cloud's 409 is then no failure: what the second read shows decides."""
    server = cloud.add_server(locked=True)
    unlocked = json.dumps(shown(cloud, "nova", server)).replace('"locked": true', '"locked": false')
    cloud.inject(Fault(on=CallKind.READ, status=200, body=unlocked))
    assert came_out(function.stop(server)) == {server: "skipped/locked"}
    assert (cloud.stops_sent(server), cloud.stops_taken(server)) == (1, 0)


def test_a_stop_answered_too_late_is_found_by_the_redelivery(cloud: Simulator, start_function: StartFunction) -> None:
    """The cloud took it and is silent until the time is up: 503, and the same event again finds the work done."""
    server = cloud.add_server()
    function = start_function(cloud, **SHORT)
    cloud.inject(Fault(on=CallKind.STOP, hold=2.5))
    assert_must_come_again(function.stop(server, id="late"), "budget-spent")
    assert came_out(function.stop(server, id="late")) == {server: "unchanged/already-stopped"}
    assert cloud.stops_sent(server) == cloud.stops_taken(server) == 1


@pytest.mark.parametrize("fault", [Fault.cut_after(CallKind.STOP), Fault.gateway(CallKind.STOP, 504, act=True)])
@pytest.mark.usefixtures("quick_retries")
def test_a_stop_whose_answer_was_lost_is_watched_to_its_end(start_function: StartFunction, fault: Fault) -> None:
    """The next read shows it powering off: it is ours, and watched until it has stopped."""
    with Simulator(power_off_delay=0.15) as cloud:
        server = cloud.add_server()
        cloud.inject(fault)
        assert came_out(start_function(cloud).stop(server)) == {server: "stopped/confirmed"}
        assert cloud.stops_sent(server) == cloud.stops_taken(server) == 1


def test_a_given_wait_is_kept_within_the_budget(cloud: Simulator, function: Function) -> None:
    """`Retry-After: 1` on a read and on a stop: neither is tried sooner, and other servers do not wait along."""
    read, stopped, free = cloud.add_server(), cloud.add_server(), cloud.add_server()
    throttled: Any = {"status": 429, "headers": {"Retry-After": "1"}}
    cloud.inject(Fault(**throttled, on=CallKind.READ, server_id=read))
    cloud.inject(Fault(**throttled, on=CallKind.STOP, server_id=stopped))
    answer = function.stop(read, stopped, free)
    assert came_out(answer) == dict.fromkeys((read, stopped, free), "stopped/confirmed")
    calls = {id_: [call for call in cloud.calls if call.server_id == id_] for id_ in (read, stopped, free)}
    assert calls[read][1].at - calls[read][0].at >= 1
    refused = next(call for call in calls[stopped] if call.status == 429)
    assert calls[stopped][calls[stopped].index(refused) + 1].at - refused.at >= 1
    assert calls[free][-1].at - calls[free][0].at < 1


@pytest.mark.parametrize("on", [CallKind.READ, CallKind.STOP])
def test_a_given_wait_beyond_the_budget_is_passed_on_at_once(
    cloud: Simulator, start_function: StartFunction, on: CallKind
) -> None:
    """The others are finished, nothing is tried a second time, and the redelivery does the rest."""
    throttled, *others = (cloud.add_server() for _ in range(4))
    cloud.inject(Fault(on=on, server_id=throttled, status=429, headers={"Retry-After": "120"}))
    function = start_function(cloud, AUTOSTOP_DEADLINE="30s")
    answer = function.stop(throttled, *others, id="throttled")
    assert_must_come_again(answer, "budget-spent")
    assert answer.headers["Retry-After"] == "120"
    assert answer.elapsed.total_seconds() < 5
    assert cloud.count(on, throttled) == 1
    assert {cloud.server(server).vm_state for server in others} == {"stopped"}
    again = came_out(function.stop(throttled, *others, id="throttled"))
    assert again == {throttled: "stopped/confirmed", **dict.fromkeys(others, "unchanged/already-stopped")}
    assert {cloud.stops_taken(server) for server in (throttled, *others)} == {1}


@pytest.mark.usefixtures("quick_retries")
def test_an_event_that_meets_no_cloud_is_finished_when_it_comes_again(
    cloud: Simulator, start_function: StartFunction
) -> None:
    """First nothing listens, then a server does; a failed login counts for half a second."""
    server = cloud.add_server()
    function = start_function(cloud, **SHORT)
    cloud.stop()
    assert_must_come_again(function.stop(server, id="patient"), "budget-spent")
    cloud.start()
    deliveries = (function.stop(server, id="patient") for _ in range(20))
    assert came_out(next(one for one in deliveries if one.status_code == 200)) == {server: "stopped/confirmed"}
    assert cloud.stops_taken(server) == 1
