"""The whole function, from an event over HTTP to the cloud and back, on the simulator."""

from __future__ import annotations

import itertools
import math
import time
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests

from handler import rfc3339
from handler.cloud import servers as servers_module
from handler.simulator import CallKind, ConflictKind, Cut, Fault, Simulator
from tests.conftest import Function, StartFunction

COMPLETED = "io.github.bms-autostop.stop.completed.v1"
FAILED = "io.github.bms-autostop.stop.failed.v1"
REFUSED = "io.github.bms-autostop.stop.refused.v1"


@pytest.fixture
def _one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers are read singly, however many they are, so that one of them can be the only one that is not shown."""
    monkeypatch.setattr(servers_module, "_FEW", 1000)


def came_out(answer: requests.Response) -> dict[str, str]:
    """Outcome and reason of each server, as `outcome/reason`."""
    assert answer.status_code == 200, answer.text
    return {row["id"]: f"{row['outcome']}/{row['reason']}" for row in answer.json()["servers"]}


def kinds(cloud: Simulator) -> list[CallKind]:
    """What the cloud was asked, in order."""
    return [call.kind for call in cloud.calls]


def at(seconds_ago: float) -> str:
    """A time as an event has it."""
    return rfc3339.render(datetime.now(UTC) - timedelta(seconds=seconds_ago))


def test_an_active_server_is_stopped_and_seen_stopped(cloud: Simulator, function: Function) -> None:
    """An active server ends as stopped/confirmed, with the state that it had before and the cloud's request id."""
    server = cloud.add_server("ci-07")
    answer = function.stop(server)
    (row,) = answer.json()["servers"]
    assert answer.status_code == 200
    assert answer.headers["ce-type"] == COMPLETED
    assert answer.headers["ce-subject"] == server
    assert (row["outcome"], row["reason"]) == ("stopped", "confirmed")
    assert (row["previous_vm_state"], row["vm_state"], row["name"]) == ("active", "stopped", "ci-07")
    assert row["request_id"] == cloud.actions(server)[0].request_id
    assert cloud.server(server).vm_state == "stopped"
    assert cloud.stops_taken(server) == 1


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        ({"vm_state": "error"}, "stopped/confirmed"),
        ({"power_off_delay": 0.1}, "stopped/confirmed"),
        ({"tags": ["autostop-keep-until=2020-01-01T00:00:00Z"]}, "stopped/confirmed"),
        ({"tags": ["autostop=later"], "metadata": {"autostop": "later"}}, "stopped/confirmed"),
        ({"flavor": "s3.medium.2", "tags": ["__type_baremetal"]}, "stopped/confirmed"),
        ({"flavor": "s3.medium.2", "metadata": {"metering.resourcetype": "__type_baremetal"}}, "stopped/confirmed"),
        ({"vm_state": "stopped"}, "unchanged/already-stopped"),
        ({"vm_state": "stopped", "locked": True, "tags": ["autostop=never"]}, "unchanged/already-stopped"),
        ({"task_state": "powering-off"}, "unchanged/already-stopping"),
        ({"locked": True}, "skipped/locked"),
        ({"tags": ["autostop=never"]}, "skipped/protected"),
        ({"metadata": {"autostop": "never"}}, "skipped/protected"),
        ({"tags": ["autostop-keep-until=2999-01-01T00:00:00Z"]}, "skipped/kept-until"),
        ({"metadata": {"autostop-keep-until": "2999-01-01T00:00:00+02:00"}}, "skipped/kept-until"),
        ({"tags": ["autostop-keep-until=tomorrow"]}, "skipped/protected"),
        ({"flavor": "s3.medium.2"}, "skipped/not-bare-metal"),
        ({"vm_state": "stopped", "task_state": "powering-on"}, "skipped/started-since"),
        ({"vm_state": "error", "launched": False}, "failed/never-launched"),
        ({"vm_state": "error", "host": False}, "failed/never-launched"),
        ({"vm_state": "building", "task_state": "spawning"}, "failed/wrong-state"),
        ({"vm_state": "building", "task_state": "scheduling", "host": False}, "failed/wrong-state"),
        ({"vm_state": "paused"}, "failed/wrong-state"),
        ({"task_state": "deleting"}, "failed/deleting"),
        ({"power_off_fails": True}, "failed/reverted"),
        ({"power_off_fails": True, "power_off_delay": 0.2}, "failed/reverted"),
    ],
)
def test_each_server_comes_out_as_its_state_and_the_guards_demand(
    cloud: Simulator, function: Function, server: Mapping[str, Any], expected: str
) -> None:
    """One stop for what could be stopped, none for anything else; a failed server makes the result a failed one."""
    id_ = cloud.add_server(**server)
    answer = function.stop(id_)
    assert came_out(answer) == {id_: expected}
    assert cloud.stops_sent(id_) == (expected in ("stopped/confirmed", "failed/reverted"))
    assert answer.headers["ce-type"] == (FAILED if expected.startswith("failed/") else COMPLETED)
    outcome = expected.partition("/")[0]
    assert {name: count for name, count in answer.json()["summary"].items() if count} == {outcome: 1}


def test_a_server_that_is_not_there_is_not_found(cloud: Simulator, function: Function) -> None:
    """It was never there, is deleted, or belongs to another project: the cloud tells none of them from another."""
    gone, foreign = cloud.add_server(), cloud.add_server(project_id=cloud.other_project_id)
    cloud.delete_server(gone)
    never = str(uuid.uuid4())
    answer = function.stop(never, gone, foreign)
    assert came_out(answer) == dict.fromkeys((never, gone, foreign), "failed/not-found")
    assert cloud.count(CallKind.STOP) == 0


def test_a_server_is_stopped_once_another_operation_has_ended(cloud: Simulator, function: Function) -> None:
    """A reboot is waited for, not interrupted."""
    server = cloud.add_server()
    cloud.reboot_server(server, delay=0.1)
    assert came_out(function.stop(server)) == {server: "stopped/confirmed"}
    assert cloud.stops_sent(server) == cloud.stops_taken(server) == 1


@pytest.mark.parametrize("wait", ["0", "0.2s"])
def test_a_stop_that_is_not_seen_through_in_time_is_accepted(
    cloud: Simulator, start_function: StartFunction, wait: str
) -> None:
    """The cloud took it, and that is what is told; with no waiting time nothing is read again."""
    server = cloud.add_server(power_off_delay=math.inf)
    answer = start_function(cloud, AUTOSTOP_WAIT=wait).stop(server)
    assert came_out(answer) == {server: "accepted/accepted"}
    assert answer.headers["ce-type"] == COMPLETED
    assert (cloud.count(CallKind.READ, server) == 1) == (wait == "0")


def test_a_login_that_may_only_read_is_forbidden_to_stop(cloud: Simulator, start_function: StartFunction) -> None:
    """The refusal is final: it is not tried again."""
    server = cloud.add_server()
    answer = start_function(cloud, **cloud.environ("watcher")).stop(server)
    assert came_out(answer) == {server: "failed/forbidden"}
    assert cloud.stops_sent(server) == 1
    assert cloud.server(server).vm_state == "active"


@pytest.mark.parametrize(
    ("on", "status", "expected"),
    [
        (CallKind.READ, 400, "failed/rejected"),
        (CallKind.READ, 403, "failed/forbidden"),
        (CallKind.STOP, 400, "failed/rejected"),
        (CallKind.STOP, 403, "failed/forbidden"),
    ],
)
def test_what_the_cloud_calls_wrong_or_forbids_is_final(
    cloud: Simulator, function: Function, on: CallKind, status: int, expected: str
) -> None:
    """One call of that kind was made, and the result carries its request id."""
    server = cloud.add_server()
    cloud.inject(Fault(on=on, status=status))
    answer = function.stop(server)
    assert came_out(answer) == {server: expected}
    assert answer.json()["servers"][0]["request_id"].startswith("req-")
    assert cloud.count(on, server) == 1


# --- was it started since? ---


@pytest.mark.parametrize(
    ("sent_ago", "expected"),
    [(120, "skipped/started-since"), (62, "skipped/started-since"), (30, "stopped/confirmed")],
)
def test_a_server_started_after_the_event_is_left_running(
    start_function: StartFunction, sent_ago: float, expected: str
) -> None:
    """Somebody started it a minute ago: an older event must not stop it, nor one too close to tell; a newer does."""
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
    """The server is stopped on the event's age, and a rehearsal says what that rests on."""
    server = cloud.add_server()
    cloud.inject(Fault(on=CallKind.ACTIONS, status=403, times=None))
    rehearsed = function.send({"server_id": server, "dry_run": True}, time=at(10))
    assert "history could not be read" in rehearsed.json()["servers"][0]["detail"]
    assert came_out(function.stop(server, time=at(10))) == {server: "stopped/confirmed"}


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
        pytest.param(
            {},
            {"on": CallKind.STOP, "status": 409, "message": ConflictKind.NOT_READY.value},
            "failed/conflict",
            id="conflict",
        ),
        pytest.param({}, {"on": CallKind.STOP, "status": 500}, "failed/cloud-error", id="500-on-stop"),
        pytest.param({}, {"on": CallKind.STOP, "cut": Cut.BEFORE}, "failed/cloud-error", id="cut-on-stop"),
    ],
)
@pytest.mark.usefixtures("quick_retries", "_one_by_one")
def test_one_bad_server_among_twenty_touches_no_other(
    cloud: Simulator,
    start_function: StartFunction,
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
    sick = cloud.add_server(**bad)
    if fault:
        cloud.inject(Fault(**fault, server_id=sick, times=None))
    ids = [*good]
    ids.insert(7, sick)
    answer = start_function(cloud).stop(*ids)
    assert came_out(answer) == {**good, sick: expected}
    assert list(came_out(answer)) == ids
    assert cloud.stops_taken(sick) == 0
    assert {cloud.stops_sent(id_) for id_, what in good.items() if what == "stopped/confirmed"} == {1}


# --- the same event again ---


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


def test_two_events_have_results_of_two_ids(cloud: Simulator, function: Function) -> None:
    """Id and source of an event both count."""
    server = cloud.add_server(vm_state="stopped")
    events = [{"id": "1", "source": "/a"}, {"id": "2", "source": "/a"}, {"id": "1", "source": "/b"}]
    assert len({function.stop(server, **event).headers["ce-id"] for event in events}) == 3


@pytest.mark.parametrize("delay", [0.0, 0.1])
def test_deliveries_at_the_same_moment_take_one_stop(start_function: StartFunction, delay: float) -> None:
    """Five at once: one run stops each server once, and those that waited for it get its result."""
    with Simulator(power_off_delay=delay) as cloud:
        function = start_function(cloud)
        servers = [cloud.add_server() for _ in range(3)]
        with ThreadPoolExecutor(5) as threads:
            answers = list(threads.map(lambda _: function.stop(*servers, id="at-once"), range(5)))
        for server in servers:
            outcomes = {came_out(answer)[server].partition("/")[0] for answer in answers if answer.status_code == 200}
            assert "stopped" in outcomes <= {"stopped", "unchanged"}
            assert cloud.stops_taken(server) == 1
        assert {answer.status_code for answer in answers} <= {200, 503}
        by_id: dict[str, set[str]] = {}
        for answer in answers:
            if answer.status_code == 200:
                by_id.setdefault(answer.headers["ce-id"], set()).add(str(came_out(answer)))
        assert all(len(said) == 1 for said in by_id.values())


# --- vm_state and task_state ---

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


# --- what it costs the cloud ---


def test_an_event_costs_the_cloud_no_more_than_it_must(cloud: Simulator, function: Function) -> None:
    """One login, one look, one stop, one look; the next event needs no login."""
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


def test_a_power_off_that_takes_its_time_is_observed_at_a_few_times(start_function: StartFunction) -> None:
    """Polls grow apart instead of hammering, and the stop is sent once."""
    with Simulator(power_off_delay=0.3) as cloud:
        server = cloud.add_server()
        assert came_out(start_function(cloud).stop(server)) == {server: "stopped/confirmed"}
        assert 3 <= cloud.count(CallKind.READ, server) <= 6
        assert cloud.stops_sent(server) == 1


# --- rehearsals ---


@pytest.mark.parametrize(
    ("deployment", "event", "rehearsed"),
    [
        ("false", {"dry_run": True}, True),
        ("true", {}, True),
        ("true", {"dry_run": False}, True),
        ("false", {"dry_run": False}, False),
    ],
)
def test_a_dry_run_only_looks(
    cloud: Simulator, start_function: StartFunction, deployment: str, event: Mapping[str, bool], rehearsed: bool
) -> None:
    """Wanted by the event or by the deployment: every call but the login is a GET, and an event cannot undo it."""
    runs, rests = cloud.add_server(), cloud.add_server(vm_state="stopped")
    function = start_function(cloud, AUTOSTOP_DRY_RUN=deployment)
    answer = function.send({"server_ids": [runs, rests], **event}, time=at(10))
    assert answer.json()["dry_run"] is rehearsed
    assert came_out(answer) == {
        runs: "planned/dry-run" if rehearsed else "stopped/confirmed",
        rests: "unchanged/already-stopped",
    }
    methods = {call.method for call in cloud.calls if call.kind is not CallKind.LOGIN}
    assert methods == ({"GET"} if rehearsed else {"GET", "POST"})
    assert cloud.server(runs).vm_state == ("active" if rehearsed else "stopped")
