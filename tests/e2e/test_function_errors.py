"""The whole function with a cloud that refuses, throttles, breaks off, answers falsely, or is not there."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests

from handler.simulator import CallKind, ComputePath, ConflictKind, Cut, Fault, Simulator
from tests.cloud.https import https_login
from tests.conftest import Function, StartFunction
from tests.e2e.outcomes import came_out

SHORT = {"AUTOSTOP_DEADLINE": "1s", "AUTOSTOP_WAIT": "0.5s"}
PAGE = "<html><body>Welcome to the proxy</body></html>"
_ABSENT = object()


def body(id_: str, **changes: Any) -> str:
    """The body of a good answer about a server, changed; `_ABSENT` takes a member away."""
    server = {
        "id": id_,
        "name": "db-1",
        "OS-EXT-STS:vm_state": "active",
        "OS-EXT-STS:task_state": None,
        "OS-SRV-USG:launched_at": "2025-03-04T08:15:30.000000",
        "locked": False,
        "tags": [],
        "metadata": {},
        "flavor": {"id": "physical.o2.medium"},
        "updated": "2025-06-01T10:00:00Z",
        **changes,
    }
    return json.dumps({"server": {key: value for key, value in server.items() if value is not _ABSENT}})


def assert_must_come_again(answer: requests.Response, name: str) -> None:
    """A 503 with a problem document, a time to wait, and no result event."""
    assert answer.status_code == 503
    assert answer.json()["type"] == f"urn:bms-autostop:problem:{name}"
    assert int(answer.headers["Retry-After"]) >= 1
    assert not [header for header in answer.headers if header.lower().startswith("ce-")]


@contextmanager
def _clouds(names: Iterable[str]) -> Iterator[dict[str, Simulator]]:
    """A cloud for each name: what takes its time can then be shown of all of them at once."""
    with ExitStack() as running:
        yield {name: running.enter_context(Simulator()) for name in names}


def _at_once(sends: Mapping[str, Callable[[], requests.Response]]) -> dict[str, requests.Response]:
    with ThreadPoolExecutor(len(sends)) as threads:
        coming = {name: threads.submit(send) for name, send in sends.items()}
        return {name: future.result() for name, future in coming.items()}


# --- the login ---


def test_tokens_revoked_between_events_cost_one_login(cloud: Simulator, function: Function) -> None:
    """The cached token answers 401 to all twenty, which share the new one."""
    servers = [cloud.add_server() for _ in range(21)]
    function.stop(servers[20])
    cloud.revoke_tokens()
    answer = function.stop(*servers[:20])
    assert set(came_out(answer).values()) == {"stopped/confirmed"}
    assert cloud.count(CallKind.LOGIN) == 2
    assert {cloud.stops_taken(server) for server in servers} == {1}


def test_a_token_of_a_few_seconds_does_not_cost_a_login_per_call(start_function: StartFunction) -> None:
    """It is renewed by its own measure, not two minutes before an end that is always nearer."""
    with Simulator(token_ttl=5) as cloud:
        function = start_function(cloud)
        servers = [cloud.add_server() for _ in range(5)]
        for server in servers:
            assert came_out(function.stop(server)) == {server: "stopped/confirmed"}
        assert cloud.count(CallKind.LOGIN) == 1


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


def test_without_a_login_the_event_must_come_again(start_function: StartFunction) -> None:
    """Nothing is asked of Nova, no redirect takes the password along, and twenty servers share the few tries."""
    errors: dict[str, tuple[dict[str, Any], str]] = {
        "cut": ({"cut": Cut.BEFORE}, "10"),
        "500": ({"status": 500}, "10"),
        "503": ({"status": 503}, "10"),
        "502 page": ({"status": 502, "body": PAGE}, "10"),
        "429": ({"status": 429}, "10"),
        "429 with a time": ({"status": 429, "headers": {"Retry-After": "17"}}, "17"),
        "404": ({"status": 404}, "10"),
        "redirect": ({"status": 307, "headers": {"Location": "/v3/elsewhere"}}, "10"),
        "no document": ({"status": 201, "body": PAGE}, "10"),
        "no token in it": ({"status": 201, "body": '{"token": {}}', "headers": {"X-Subject-Token": "t"}}, "10"),
    }
    with _clouds(errors) as clouds:
        functions = {name: start_function(cloud, **SHORT) for name, cloud in clouds.items()}
        ids = [str(uuid.uuid4()) for _ in range(20)]
        for name, (fault, _) in errors.items():
            clouds[name].inject(Fault(**fault, on=CallKind.LOGIN, times=None))
        for name, answer in _at_once({name: partial(f.stop, *ids) for name, f in functions.items()}).items():
            assert_must_come_again(answer, "budget-spent")
            assert (name, answer.headers["Retry-After"]) == (name, errors[name][1])
        for name, cloud in clouds.items():
            assert (name, {call.path for call in cloud.calls}) == (name, {"/v3/auth/tokens"})
            assert cloud.count(CallKind.LOGIN) <= 3, name


# --- what comes of a stop ---


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
    cloud.inject(Fault(on=CallKind.READ, status=200, body=body(server)))
    assert came_out(function.stop(server)) == {server: "skipped/locked"}
    assert (cloud.stops_sent(server), cloud.stops_taken(server)) == (1, 0)


def test_a_stop_answered_too_late_is_found_by_the_redelivery(cloud: Simulator, start_function: StartFunction) -> None:
    """The cloud took it and is silent until the time is up: 503, and the same event again finds the work done."""
    server = cloud.add_server()
    function = start_function(cloud, **SHORT)
    cloud.inject(Fault(on=CallKind.STOP, hold=1.3))
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


# --- throttling and silence ---


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
    """First nothing listens, then a server does."""
    server = cloud.add_server()
    function = start_function(cloud, **SHORT)
    cloud.stop()
    assert_must_come_again(function.stop(server, id="patient"), "budget-spent")
    cloud.start()
    assert came_out(function.stop(server, id="patient")) == {server: "stopped/confirmed"}
    assert cloud.stops_taken(server) == 1


# --- answers that are not true ---


def test_the_body_that_is_changed_below_is_itself_accepted(cloud: Simulator, function: Function) -> None:
    """So each answer below is refused for what was changed in it alone."""
    server = cloud.add_server(vm_state="stopped")
    cloud.inject(Fault(on=CallKind.READ, status=200, body=body(server)))
    function.stop(server)
    assert cloud.stops_sent(server) == 1


@pytest.mark.parametrize(
    "shown",
    [
        pytest.param(lambda _, other: body(other), id="another server"),
        pytest.param(lambda id_, _: body(id_, id=_ABSENT), id="no id"),
        pytest.param(lambda id_, _: body(id_, locked=_ABSENT), id="no locked"),
        pytest.param(lambda id_, _: body(id_, locked="false"), id="locked as text"),
        pytest.param(lambda id_, _: body(id_, tags=_ABSENT), id="no tags"),
        pytest.param(lambda id_, _: body(id_, tags={}), id="tags as an object"),
        pytest.param(lambda id_, _: body(id_, metadata=_ABSENT), id="no metadata"),
        pytest.param(lambda id_, _: body(id_, metadata=[]), id="metadata as a list"),
        pytest.param(lambda id_, _: body(id_, **{"OS-EXT-STS:vm_state": _ABSENT}), id="no vm_state"),
        pytest.param(lambda id_, _: body(id_, **{"OS-EXT-STS:vm_state": ""}), id="empty vm_state"),
        pytest.param(lambda id_, _: body(id_, **{"OS-EXT-STS:task_state": _ABSENT}), id="no task_state"),
        pytest.param(lambda id_, _: body(id_, **{"OS-EXT-STS:task_state": False}), id="task_state as a boolean"),
        pytest.param(lambda id_, _: f"[{body(id_)}]", id="in a list"),
        pytest.param(lambda id_, _: json.dumps({"servers": [json.loads(body(id_))["server"]]}), id="as a list"),
        pytest.param(lambda _, __: '{"server": null}', id="no server"),
    ],
)
@pytest.mark.usefixtures("quick_retries")
def test_an_answer_that_hides_what_the_guards_need_stops_nothing(
    cloud: Simulator, function: Function, shown: Callable[[str, str], str]
) -> None:
    """Neither the server asked for nor the one that is shown in its place; a server beside it is handled."""
    asked, other, beside = cloud.add_server(), cloud.add_server(), cloud.add_server()
    cloud.inject(Fault(on=CallKind.READ, server_id=asked, status=200, body=shown(asked, other), times=None))
    answer = function.stop(asked, beside)
    assert came_out(answer) == {asked: "failed/cloud-error", beside: "stopped/confirmed"}
    assert (cloud.stops_sent(asked), cloud.stops_sent(other)) == (0, 0)


@pytest.mark.parametrize("status", [301, 307])
@pytest.mark.parametrize("on", [CallKind.READ, CallKind.STOP])
@pytest.mark.usefixtures("quick_retries")
def test_no_redirect_is_ever_followed(cloud: Simulator, function: Function, on: CallKind, status: int) -> None:
    """The token would go along, and what answers there is not what was asked."""
    asked, other, beside = cloud.add_server(), cloud.add_server(), cloud.add_server()
    location = f"{cloud.url}/v2.1/servers/{other}{'/action' if on is CallKind.STOP else ''}"
    cloud.inject(Fault(on=on, server_id=asked, status=status, headers={"Location": location}, times=None))
    answer = function.stop(asked, beside)
    assert came_out(answer) == {asked: "failed/cloud-error", beside: "stopped/confirmed"}
    assert [call for call in cloud.calls if call.server_id == other] == []
    assert cloud.stops_taken(asked) == 0


# --- where the cloud is ---


@pytest.mark.parametrize(
    "base",
    [*("", "/", "/v2.1", "/v2.1/", "/v2", "/compute", "/compute/v2.1"), *("/v2.1/{project}", "/v2/{project}/")],
)
def test_an_explicit_address_of_nova_wins_over_the_catalogue(start_function: StartFunction, base: str) -> None:
    """However much of it is given: what is missing is added, and the old version is never used."""
    with Simulator(compute_path="/nowhere") as cloud:
        server = cloud.add_server()
        url = cloud.url + base.format(project=cloud.project_id)
        answer = start_function(cloud, AUTOSTOP_COMPUTE_URL=url).stop(server)
        assert came_out(answer) == {server: "stopped/confirmed"}
        prefix = "/compute" if base.startswith("/compute") else ""
        (path,) = {call.path for call in cloud.calls if call.kind is CallKind.READ}
        assert path == f"{prefix}/v2.1/{cloud.project_id}/servers/{server}"


@pytest.mark.parametrize("path", ComputePath)
@pytest.mark.parametrize("status", [202, 204])
def test_every_form_of_catalogue_and_of_success_is_understood(
    start_function: StartFunction, path: ComputePath, status: int
) -> None:
    """Open Telekom Cloud has had `/v2/{project}` there, ends at microversion 2.60, and documents 204 for a stop."""
    with Simulator(compute_path=path, stop_status=status, max_microversion="2.60") as cloud:
        server, locked = cloud.add_server(), cloud.add_server(locked=True)
        answer = start_function(cloud).stop(server, locked)
        assert came_out(answer) == {server: "stopped/confirmed", locked: "skipped/locked"}
        assert not [call for call in cloud.calls if call.path.startswith("/v2/")]


def test_a_catalogue_without_nova_there_stops_nothing(start_function: StartFunction) -> None:
    """A region or an interface that does not exist is reported by `/readyz`, and no other one is taken instead."""
    places = {"region": {"OS_REGION_NAME": "eu-nl"}, "interface": {"OS_INTERFACE": "admin"}}
    with _clouds(places) as clouds:
        functions = {name: start_function(cloud, **{**SHORT, **places[name]}) for name, cloud in clouds.items()}
        ids = {name: cloud.add_server() for name, cloud in clouds.items()}
        for answer in _at_once({name: partial(functions[name].stop, ids[name]) for name in places}).values():
            assert_must_come_again(answer, "endpoint-unusable")
        for function in functions.values():
            ready = requests.get(f"{function.url}/readyz", timeout=10)
            assert (ready.status_code, ready.json()["type"]) == (503, "urn:bms-autostop:problem:endpoint-unusable")
        for cloud in clouds.values():
            assert {call.kind for call in cloud.calls} == {CallKind.LOGIN}
