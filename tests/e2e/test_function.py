"""The whole function, from an event over HTTP to the cloud and back, with Nova as with BMS v1.

The outcome of a server must not depend on the API. What one API alone does is in `test_nova.py` and `test_bms.py`.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest
import requests

from handler.event_types import STOP_COMPLETED, STOP_FAILED, STOP_PLANNED, STOP_REFUSED
from handler.simulator import Api, CallKind, ConflictKind, Controller, Cut, Fault, Simulator
from handler.stop.model import Reason, Refusal
from tests.conftest import Function, StartFunction
from tests.e2e.conftest import MakeCloud
from tests.e2e.outcomes import at, came_out, kinds, stops

APIS = ("nova", "bms")
KEYS = {"AUTOSTOP_APPROVAL_KEYS": "k" * 40}
DAY_AGO = time.time() - 86400
SHORT = {"AUTOSTOP_DEADLINE": "2s", "AUTOSTOP_WAIT": "0.2s"}
UNKNOWN = "0b6f6a9e-6a34-4a0e-8d5c-6a3f1f0f7c21"


@dataclass(frozen=True)
class Case:
    """A server, and what it comes out as.

    Attributes:
        expected: outcome and reason; another one with BMS v1 if `bms` is given.
        server: what it is like; None if there is none.
        fault: what goes wrong in the cloud, with this server alone.
        then: what happens to it before the event is delivered.
        user: whose login it is.
        environ: settings beside the usual ones.
        data: of the event, beside the id.
    """

    expected: str
    server: Mapping[str, Any] | None = field(default_factory=dict)
    bms: str = ""
    fault: Callable[[str], Fault] | None = None
    then: Callable[[Simulator, str], None] | None = None
    user: str = "operator"
    environ: Mapping[str, str] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)


CASES = [
    Case("stopped/confirmed", {}),
    Case("stopped/confirmed", {"vm_state": "error"}),
    Case("stopped/confirmed", {"power_off_delay": 0.1}),
    Case("stopped/confirmed", {"tags": ["autostop-keep-until=2020-01-01T00:00:00Z"]}),
    Case("stopped/confirmed", {"tags": ["autostop-keep-until=20011224T070000Z"]}),
    Case("stopped/confirmed", {"tags": ["autostop=later"], "metadata": {"autostop": "later"}}),
    Case(
        "stopped/confirmed",
        {"flavor": "9d2f8d0e-0d6b-4c59-8b5b-0d9f1e7a6c11", "flavor_name": "physical.h2.large"},
    ),
    Case("accepted/accepted", {"power_off_delay": math.inf}, environ=SHORT),
    Case("unchanged/already-stopped", {"vm_state": "stopped"}),
    Case("unchanged/already-stopped", {"vm_state": "stopped", "locked": True, "tags": ["autostop=never"]}),
    Case("unchanged/already-stopped", {"vm_state": "stopped", "power_state": 4, "task_state": "powering-off"}),
    Case("unchanged/already-stopped", {"vm_state": "stopped", "power_state": 0}),
    Case("unchanged/already-stopping", {"task_state": "powering-off"}),
    Case("skipped/locked", {"locked": True}),
    Case("skipped/protected", {"tags": ["autostop=never"]}),
    Case("skipped/protected", {"metadata": {"autostop": "never"}}),
    Case("skipped/protected", {"vm_state": "stopped", "power_state": 1, "tags": ["autostop=never"]}),
    Case("skipped/protected", {"tags": ["autostop-keep-until=tomorrow"]}),
    Case("skipped/protected", {"tags": ["autostop.never"]}),
    Case("skipped/protected", {"metadata": {"autostop.never": ""}}),
    Case("skipped/protected", {"tags": ["autostop-keep-until.2099-12-24"]}),
    Case("skipped/kept-until", {"tags": ["autostop-keep-until=2999-01-01T00:00:00Z"]}),
    Case("skipped/kept-until", {"metadata": {"autostop-keep-until": "2999-01-01T00:00:00+02:00"}}),
    Case("skipped/kept-until", {"tags": ["autostop-keep-until.2099-12-24T07:00:00Z"]}),
    Case("skipped/kept-until", {"tags": ["autostop-keep-until=20991224T070000Z"]}),
    Case("skipped/kept-until", {"metadata": {"autostop-keep-until": "20991224T070000+0100"}}),
    # BMS v1 shows bare metal servers of the login's own project only.
    Case("skipped/not-bare-metal", {"flavor": "s3.medium.2"}, bms="failed/not-found"),
    Case("skipped/other-project", {"project_id": "elsewhere"}, user="admin", bms="failed/not-found"),
    Case(
        "unchanged/already-stopped",
        {"project_id": "elsewhere", "vm_state": "stopped"},
        user="admin",
        bms="failed/not-found",
    ),
    Case("skipped/not-opted-in", environ={"AUTOSTOP_ONLY": "autostop=allowed"}),
    Case("skipped/started-since", {"vm_state": "stopped", "task_state": "powering-on"}),
    Case("failed/not-found", None),
    Case("failed/not-found", {"project_id": "elsewhere"}),
    Case("failed/not-found", then=lambda cloud, id_: cloud.delete_server(id_)),
    Case("failed/busy", {"task_state": "powering-off", "updated": DAY_AGO}),
    Case("failed/busy", {"vm_state": "stopped", "task_state": "powering-on", "updated": DAY_AGO}),
    Case("failed/busy", {"vm_state": "reboot"}, environ=SHORT),
    Case("failed/busy", then=lambda cloud, id_: cloud.reboot_server(id_, delay=math.inf), environ=SHORT),
    Case("failed/never-launched", {"vm_state": "error", "launched": False}),
    Case("failed/never-launched", {"vm_state": "error", "host": False}),
    Case("failed/wrong-state", {"vm_state": "building", "task_state": "spawning"}),
    Case("failed/wrong-state", {"vm_state": "building", "task_state": "scheduling", "host": False}),
    Case("failed/wrong-state", {"vm_state": "paused"}),
    Case("failed/wrong-state", {"vm_state": "rescued"}),
    Case("failed/deleting", {"task_state": "deleting"}),
    Case("failed/reverted", {"power_off_fails": True}),
    Case("failed/reverted", {"power_off_fails": True, "power_off_delay": 0.2}),
    Case("failed/power-still-on", {"vm_state": "stopped", "power_state": 1}),
    Case("failed/power-still-on", {"vm_state": "stopped", "power_state": 1, "task_state": "powering-off"}),
    Case("failed/forbidden", user="watcher"),
    Case("failed/rejected", fault=lambda id_: Fault(on=CallKind.READ, status=400, server_id=id_, times=None)),
    Case("planned/dry-run", data={"dry_run": True}),
    Case("planned/needs-approval", {"updated": DAY_AGO}, data={"approval": "self"}, environ=KEYS),
]
STOPPED_BY_US = ("confirmed", "accepted", "reverted")
# Given by the tests below of one bad server among others, and in test_approval.py.
OF_OTHER_TESTS = {Reason.CLOUD_ERROR, Reason.CONFLICT, Reason.CHANGED_SINCE_PLAN}


def test_every_reason_has_a_case() -> None:
    """A new reason needs a case of the whole function in CASES."""
    assert {case.expected.partition("/")[2] for case in CASES} | OF_OTHER_TESTS == set(Reason)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.expected)
def test_each_server_comes_out_as_its_state_and_the_guards_demand(
    cloud: Simulator, start: StartFunction, api: str, case: Case
) -> None:
    """One stop for what could be stopped, and none for anything else; a failed server makes the result a failed one."""
    id_ = UNKNOWN if case.server is None else cloud.add_server(**case.server)
    if case.then:
        case.then(cloud, id_)
    if case.fault:
        cloud.inject(case.fault(id_))
    function = start(cloud, **cloud.environ(case.user), **case.environ)
    answer = function.send({"server_ids": [id_], **case.data})
    expected = (api == "bms" and case.bms) or case.expected
    outcome, _, reason = expected.partition("/")
    assert came_out(answer) == {id_: expected}
    assert answer.json()["api"] == api
    (row,) = answer.json()["servers"]
    assert row["detail"].endswith(".")
    assert (row["evidence"] is not None) == (reason not in ("not-found", "rejected"))
    assert cloud.stops_taken(id_) == (reason in STOPPED_BY_US)
    assert cloud.stops_sent(id_) == (reason in (*STOPPED_BY_US, "forbidden"))
    assert {call.api for call in cloud.calls} <= {Api.KEYSTONE, Api(api), *([Api.NOVA] if case.data else [])}
    types = {"failed": STOP_FAILED, "planned": STOP_PLANNED if "approval" in case.data else STOP_COMPLETED}
    assert answer.headers["ce-type"] == types.get(outcome, STOP_COMPLETED)
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


def test_a_reboot_is_waited_for(cloud: Simulator, function: Function) -> None:
    """And then the stop is sent, once."""
    server = cloud.add_server()
    cloud.reboot_server(server, delay=0.1)
    assert came_out(function.stop(server)) == {server: "stopped/confirmed"}
    assert cloud.stops_sent(server) == cloud.stops_taken(server) == 1


def test_a_state_that_is_a_reboot_is_waited_for(cloud: Simulator, function: Function) -> None:
    """Open Telekom Cloud's list page documents `reboot` as a vm_state; it is active again a moment later."""
    server = cloud.add_server(vm_state="reboot")
    timer = threading.Timer(0.3, lambda: cloud.change(server, vm_state="active"))
    timer.start()
    assert came_out(function.stop(server)) == {server: "stopped/confirmed"}
    timer.join()
    assert cloud.stops_sent(server) == 1


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


def test_without_a_waiting_time_nothing_is_read_after_the_stop(cloud: Simulator, start: StartFunction) -> None:
    """The result says no more than that the cloud took it."""
    server = cloud.add_server(power_off_delay=math.inf)
    assert came_out(start(cloud, AUTOSTOP_WAIT="0").stop(server)) == {server: "accepted/accepted"}
    assert kinds(cloud) == [CallKind.LOGIN, CallKind.READ, CallKind.STOP]


REFUSED: Mapping[Refusal, Mapping[str, Any]] = {
    Refusal.TOO_OLD: {"time": "2020-01-01T00:00:00Z"},
    Refusal.EXPIRED: {"expirytime": "2020-01-01T00:00:00Z"},
    Refusal.IN_THE_FUTURE: {"time": "2999-01-01T00:00:00Z"},
    Refusal.TOO_MANY_SERVERS: {"ids": 51},
    Refusal.NO_SERVER_IDS: {"ids": 0},
}


def test_every_refusal_has_a_case() -> None:
    """A new refusal needs a case in REFUSED; those of approvals are in test_approval.py."""
    assert {refusal for refusal in Refusal if not refusal.startswith("approval-")} == set(REFUSED)


@pytest.mark.parametrize("refusal", REFUSED)
def test_a_refused_event_sends_nothing_to_the_cloud(cloud: Simulator, function: Function, refusal: Refusal) -> None:
    """Not even a login."""
    attributes = dict(REFUSED[refusal])
    ids = [cloud.add_server() for _ in range(attributes.pop("ids", 1))]
    answer = function.send({"server_ids": ids} if ids else None, **attributes)
    assert (answer.status_code, answer.headers["ce-type"]) == (200, STOP_REFUSED)
    assert (answer.json()["refusal"], answer.json()["servers"]) == (refusal, [])
    assert cloud.calls == []


def test_a_wrong_password_is_tried_once(cloud: Simulator, start: StartFunction) -> None:
    """More tries would lock the account: every event gets a 503 with the time in which nothing is tried."""
    function = start(cloud, OS_PASSWORD="not-the-password")
    for _ in range(3):
        answer = function.stop(*(cloud.add_server() for _ in range(20)))
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "60")
        assert answer.json()["type"].endswith(":login-refused")
        assert "not-the-password" not in answer.text + str(answer.headers)
    ready = requests.get(f"{function.url}/readyz", timeout=10)
    assert (ready.status_code, ready.json()["type"]) == (503, "urn:bms-autostop:problem:login-refused")
    assert requests.get(f"{function.url}/healthz", timeout=10).status_code == 200
    assert [call.kind for call in cloud.calls] == [CallKind.LOGIN]


@pytest.mark.parametrize("on", [CallKind.LIST, CallKind.STOP, CallKind.ACTIONS])
def test_tokens_revoked_in_the_middle_cost_one_login(
    cloud: Simulator, function: Function, api: str, on: CallKind
) -> None:
    """Servers in parallel get the 401 at once, one of them logs in, and all are stopped, each once."""
    ids = [cloud.add_server() for _ in range(20)]
    # BMS v1 has one stop for all of them.
    skip = 0 if on is CallKind.LIST or (api, on) == ("bms", CallKind.STOP) else 5
    cloud.inject(Fault(on=on, skip=skip, expire_token=True))
    assert came_out(function.stop(*ids, time=at(10))) == dict.fromkeys(ids, "stopped/confirmed")
    assert cloud.count(CallKind.LOGIN) == 2
    assert {cloud.stops_taken(id_) for id_ in ids} == {1}


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
    # Results of one id are the same.
    assert len({id_ for id_, _ in results}) == len({(id_, str(found)) for id_, found in results})


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


@pytest.mark.usefixtures("quick_retries")
def test_a_server_that_a_user_started_after_our_lost_stop_is_left_running(cloud: Simulator, function: Function) -> None:
    """The answer to our stop was lost after it acted; before it is read again, a person starts it. No time is given."""
    server = cloud.add_server(updated=time.time() - 86400)
    cloud.inject(Fault(on=CallKind.STOP, cut=Cut.AFTER))
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


@pytest.mark.parametrize(
    ("bad", "fault", "expected"),
    [
        pytest.param({"project_id": "elsewhere"}, None, "failed/not-found", id="404"),
        pytest.param({}, {"status": 500}, "failed/cloud-error", id="500"),
        pytest.param({}, {"cut": Cut.BEFORE}, "failed/cloud-error", id="cut"),
        pytest.param({}, {"status": 200, "body": "<html>"}, "failed/cloud-error", id="page"),
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
        cloud.inject(Fault(**fault, on=CallKind.READ, server_id=bad_one, times=None))
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
