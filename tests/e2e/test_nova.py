"""What Nova alone does: every pair of states, the history, and what an event costs."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from typing import Any

import pytest
import requests

from handler.simulator import CallKind, Cut, Fault, Simulator
from tests.conftest import Function, StartFunction
from tests.e2e.outcomes import at, came_out, kinds


@pytest.mark.parametrize(
    ("sent_ago", "expected"),
    [(120, "skipped/started-since"), (62, "skipped/started-since"), (30, "stopped/confirmed")],
)
def test_a_server_started_after_the_event_is_left_running(
    start_function: StartFunction, sent_ago: float, expected: str
) -> None:
    """It was started a minute ago: no event that is older, or too close to it, stops it; a newer one does."""
    with Simulator(clock=lambda: time.time() - 60) as cloud:
        server = cloud.add_server(vm_state="stopped", updated=time.time() - 86400)
        cloud.start_server(server, user_id="night-shift")
        answer = start_function(cloud).stop(server, time=at(sent_ago))
        assert came_out(answer) == {server: expected}
        assert cloud.stops_sent(server) == (expected == "stopped/confirmed")
        assert ("night-shift" in answer.text) == (expected == "skipped/started-since")


def test_without_a_time_an_event_is_not_older_than_any_start(cloud: Simulator, function: Function) -> None:
    """And the history is not even asked for."""
    server = cloud.add_server(vm_state="stopped")
    cloud.start_server(server)
    assert came_out(function.stop(server)) == {server: "stopped/confirmed"}
    assert cloud.count(CallKind.ACTIONS) == 0


def test_a_history_that_is_not_shown_leaves_the_age_rule_alone(cloud: Simulator, function: Function) -> None:
    """The server is stopped on the event's age, and a dry run shows the reason."""
    server = cloud.add_server()
    cloud.inject(Fault(on=CallKind.ACTIONS, status=403, times=None))
    planned = function.send({"server_id": server, "dry_run": True}, time=at(10))
    assert "history could not be read" in planned.json()["servers"][0]["detail"]
    assert came_out(function.stop(server, time=at(10))) == {server: "stopped/confirmed"}


VM_STATES = [
    *("active", "building", "paused", "suspended", "stopped", "rescued", "resized"),
    *("soft-delete", "deleted", "error", "shelved", "shelved_offloaded", "unheard-of"),
]
TASK_STATES = [
    *(None, "powering-off", "powering-on", "rebooting", "reboot_started_hard", "rebuilding", "rebuild_spawning"),
    *("deleting", "scheduling", "spawning", "image_snapshot", "unheard-of"),
]
# What the cloud's documents list, and how it comes out; what could pass is waited for until the time is up.
DOCUMENTED: dict[tuple[str, str | None], str] = {
    ("active", None): "stopped/confirmed",
    ("active", "powering-off"): "unchanged/already-stopping",
    **{
        ("active", task): "failed/busy"
        for task in ("rebooting", "reboot_pending", "reboot_started", "rebooting_hard", "reboot_pending_hard")
    },
    ("active", "reboot_started_hard"): "failed/busy",
    ("active", "deleting"): "failed/deleting",
    ("active", "rebuilding"): "failed/busy",
    ("active", "rebuild_spawning"): "failed/busy",
    ("active", "image_snapshot"): "failed/busy",
    ("building", None): "failed/wrong-state",
    ("building", "spawning"): "failed/wrong-state",
    ("stopped", None): "unchanged/already-stopped",
    ("stopped", "powering-on"): "skipped/started-since",
    ("stopped", "image_snapshot"): "unchanged/already-stopped",
    ("error", None): "stopped/confirmed",
    ("error", "rebuilding"): "failed/busy",
    ("deleted", None): "failed/not-found",
    ("soft-delete", None): "failed/deleting",
    ("paused", None): "failed/wrong-state",
    ("suspended", None): "failed/wrong-state",
    ("rescued", None): "failed/wrong-state",
    ("resized", None): "failed/wrong-state",
    ("shelved_offloaded", None): "failed/wrong-state",
    ("unheard-of", None): "failed/wrong-state",
}


def test_every_pair_of_states_has_its_reason_and_two_are_stopped(
    cloud: Simulator, start_function: StartFunction
) -> None:
    """Of all pairs of vm_state and task_state, only active and error without a running operation are sent a stop."""
    pairs = {
        cloud.add_server(vm_state=vm_state, task_state=task_state): (vm_state, task_state)
        for vm_state, task_state in {*itertools.product(VM_STATES, TASK_STATES), *DOCUMENTED}
    }
    function = start_function(cloud, AUTOSTOP_DEADLINE="3s", AUTOSTOP_WAIT="1s", AUTOSTOP_MAX_SERVERS="1000")
    answer = function.stop(*pairs)
    found = {pairs[id_]: what for id_, what in came_out(answer).items()}
    assert {pair: found[pair] for pair in DOCUMENTED} == DOCUMENTED
    stopped = {("active", None), ("error", None)}
    assert {pair for pair, what in found.items() if what == "stopped/confirmed"} == stopped
    assert {pairs[id_] for id_ in pairs if cloud.stops_sent(id_)} == stopped
    rows = {pairs[row["id"]]: row for row in answer.json()["servers"]}
    assert "rebuilding" in rows["active", "rebuilding"]["detail"]
    assert cloud.count(CallKind.LIST) > 1


def test_an_event_costs_the_cloud_no_more_than_it_must(cloud: Simulator, function: Function) -> None:
    """One login, one read, one stop, one read; the next event needs no login."""
    first, second, stopped = cloud.add_server(), cloud.add_server(), cloud.add_server(vm_state="stopped")
    function.stop(first)
    assert kinds(cloud) == [CallKind.LOGIN, CallKind.READ, CallKind.STOP, CallKind.READ]
    function.stop(second)
    assert kinds(cloud)[4:] == [CallKind.READ, CallKind.STOP, CallKind.READ]
    function.stop(stopped)
    assert kinds(cloud)[7:] == [CallKind.READ]


def test_the_history_is_asked_for_only_if_it_can_matter(cloud: Simulator, function: Function) -> None:
    """A server that has not changed since before the event cannot have been started after it."""
    settled = cloud.add_server(updated=time.time() - 3600)
    changed = cloud.add_server()
    function.stop(settled, time=at(60))
    assert kinds(cloud) == [CallKind.LOGIN, CallKind.READ, CallKind.STOP, CallKind.READ]
    function.stop(changed, time=at(60))
    assert kinds(cloud)[-4:] == [CallKind.READ, CallKind.ACTIONS, CallKind.STOP, CallKind.READ]


def test_two_hundred_servers_cost_nova_few_lists_and_one_stop_each(start_function: StartFunction) -> None:
    """No server is read singly, but for the last few that are still on their way."""
    with Simulator(power_off_delay=0.05) as cloud:
        ids = [cloud.add_server() for _ in range(200)]
        answer = start_function(cloud, AUTOSTOP_MAX_SERVERS="200").stop(*ids)
        assert came_out(answer) == dict.fromkeys(ids, "stopped/confirmed")
        assert {cloud.stops_sent(id_) for id_ in ids} == {1}
        assert 2 <= cloud.count(CallKind.LIST) <= 6
        assert cloud.count(CallKind.READ) <= 20


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        ({"flavor": "s3.medium.2"}, "skipped/not-bare-metal"),
        ({"flavor": "s3.medium.2", "tags": ["__type_baremetal"]}, "stopped/confirmed"),
        ({"flavor": "s3.medium.2", "metadata": {"metering.resourcetype": "__type_baremetal"}}, "stopped/confirmed"),
    ],
)
def test_a_server_is_bare_metal_by_flavor_tag_or_metadata(
    cloud: Simulator, function: Function, server: Mapping[str, Any], expected: str
) -> None:
    """Any of the three is enough."""
    id_ = cloud.add_server(**server)
    assert came_out(function.stop(id_)) == {id_: expected}


@pytest.mark.parametrize("fault", [{"status": 500}, {"cut": Cut.BEFORE}], ids=["500-on-stop", "cut-on-stop"])
@pytest.mark.usefixtures("quick_retries")
def test_a_stop_that_fails_touches_no_other_server(
    cloud: Simulator, start_function: StartFunction, fault: Mapping[str, Any]
) -> None:
    """With Nova each server has a stop of its own."""
    ids = [cloud.add_server() for _ in range(20)]
    cloud.inject(Fault(**fault, on=CallKind.STOP, server_id=ids[7], times=None))
    assert came_out(start_function(cloud).stop(*ids)) == {
        **dict.fromkeys(ids, "stopped/confirmed"),
        ids[7]: "failed/cloud-error",
    }
    assert [cloud.stops_taken(id_) for id_ in ids] == [int(id_ != ids[7]) for id_ in ids]


READ, LIST = ("GET", "/v2.1/servers/{id}"), ("GET", "/v2.1/servers/detail")
HISTORY, STOP = ("GET", "/v2.1/servers/{id}/os-instance-actions"), ("POST", "/v2.1/servers/{id}/action")


def with_rules(cloud: Simulator, start: StartFunction, *rules: tuple[str, str]) -> Function:
    """Start the function with an application credential that has access rules."""
    id_, secret = cloud.add_application_credential(access_rules=rules)
    environ = {**dict.fromkeys(cloud.environ(), ""), "OS_AUTH_URL": cloud.auth_url}
    environ |= {"OS_AUTH_TYPE": "v3applicationcredential", "OS_APPLICATION_CREDENTIAL_ID": id_}
    return start(cloud, **environ, OS_APPLICATION_CREDENTIAL_SECRET=secret)


def test_a_history_that_access_rules_forbid_leaves_the_age_alone(cloud: Simulator, start: StartFunction) -> None:
    """Keystone's middleware answers 401; one new token is tried, and nothing is held back."""
    function, ids = with_rules(cloud, start, READ, LIST, STOP), [cloud.add_server() for _ in range(3)]
    for id_ in ids:
        answer = function.stop(id_, time=at(1))
        assert came_out(answer) == {id_: "stopped/confirmed"}
        (row,) = answer.json()["servers"]
        assert (row["evidence"]["history"], "history could not be read" in row["detail"]) == ("forbidden", True)
    assert cloud.count(CallKind.LOGIN) == 2
    assert requests.get(f"{function.url}/readyz", timeout=10).status_code == 200


def test_a_stop_that_access_rules_forbid_is_forbidden(cloud: Simulator, start: StartFunction) -> None:
    """Once for each server, and the login is not refused for others."""
    function, ids = with_rules(cloud, start, READ, LIST, HISTORY), [cloud.add_server() for _ in range(3)]
    for _ in range(2):
        assert came_out(function.stop(*ids)) == dict.fromkeys(ids, "failed/forbidden")
    assert {cloud.stops_taken(id_) for id_ in ids} == {0}
    assert requests.get(f"{function.url}/readyz", timeout=10).status_code == 200
