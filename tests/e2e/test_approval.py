"""Plans and approvals, by the whole function: over HTTP, with the simulated cloud."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests

from handler import rfc3339
from handler.event_types import STOP_APPROVED, STOP_COMPLETED, STOP_FAILED, STOP_PLANNED, STOP_REFUSED, STOP_REQUESTED
from handler.simulator import CallKind, Fault, Simulator
from tests.conftest import Function, StartFunction
from tests.services.test_stop_servers import post_batch
from tests.support.capture import logged
from tests.support.events import batch, event
from tests.test_events_folder import schema_violations

KEY, NEW_KEY = "k" * 40, "n" * 40
KEYS = {"AUTOSTOP_APPROVAL_KEYS": KEY}
REQUESTER, ANOTHER = "slack:T1/U1", "slack:T1/U2"
MISSING = "0b6f6a9e-6a34-4a0e-8d5c-6a3f1f0f7c21"


@pytest.fixture
def function(cloud: Simulator, start_function: StartFunction) -> Function:
    """The function with a key, which asks for no approval by itself."""
    return start_function(cloud, **KEYS)


def ask(function: Function, *ids: str, **data: object) -> requests.Response:
    """Ask for a stop that another person must approve."""
    return function.send({"server_ids": list(ids), "approval": "other", "requester": REQUESTER, **data})


def token_of(answer: requests.Response) -> str:
    """The token of a plan."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["ce-type"] == STOP_PLANNED
    token: str = answer.json()["plan"]["token"]
    return token


def approve(function: Function, token: object, approved_by: object = ANOTHER, **attributes: Any) -> requests.Response:
    """Approve a plan."""
    return function.send({"plan": token, "approved_by": approved_by}, type=STOP_APPROVED, **attributes)


def reasons(answer: requests.Response) -> list[str]:
    """The reason of each server."""
    assert answer.status_code == 200, answer.text
    return [row["reason"] for row in answer.json()["servers"]]


def stops(cloud: Simulator) -> int:
    """How many stops were sent."""
    return cloud.count(CallKind.STOP)


def test_a_plan_is_answered_and_sends_nothing(cloud: Simulator, function: Function) -> None:
    """It is a result with a token: rows that need an approval, and rows that need nothing."""
    running, stopped = cloud.add_server("ci-1"), cloud.add_server(vm_state="stopped")
    before = datetime.now(UTC)
    answer = ask(function, running, stopped, MISSING)
    assert token_of(answer)
    data = answer.json()
    assert [row["reason"] for row in data["servers"]] == ["needs-approval", "already-stopped", "not-found"]
    assert data["plan"]["approver"] == "other"
    assert data["dry_run"] is False
    assert data["request"]["requester"] == REQUESTER
    left = rfc3339.parse(data["plan"]["expires_at"]) - before
    assert timedelta(minutes=14) < left < timedelta(minutes=16)
    assert schema_violations("stop.planned.v1.json", data) == []
    # Where nothing would be stopped there is nothing to approve.
    for id_, reason, type_ in ((stopped, "already-stopped", STOP_COMPLETED), (MISSING, "not-found", STOP_FAILED)):
        answer = ask(function, id_)
        assert (reasons(answer), answer.headers["ce-type"]) == ([reason], type_)
        assert "plan" not in answer.json()
    assert stops(cloud) == 0


def test_an_approval_stops_what_was_planned_and_nothing_else(cloud: Simulator, function: Function) -> None:
    """The result names the requester, the approver and the plan."""
    planned, protected = cloud.add_server(), cloud.add_server(tags=["autostop=never"])
    plan = ask(function, planned, protected)
    answer = approve(function, token_of(plan))
    assert reasons(answer) == ["confirmed"]
    assert answer.headers["ce-type"] == STOP_COMPLETED
    request = answer.json()["request"]
    assert (request["requester"], request["approved_by"]) == (REQUESTER, ANOTHER)
    assert request["plan_id"] == plan.headers["ce-id"]
    assert schema_violations("stop.completed.v1.json", answer.json()) == []
    assert cloud.server(protected).vm_state == "active"
    assert stops(cloud) == 1


def test_a_second_approval_stops_nothing(cloud: Simulator, function: Function) -> None:
    """Neither while the server is off nor after a person has started it again."""
    id_ = cloud.add_server()
    token = token_of(ask(function, id_))
    assert reasons(approve(function, token)) == ["confirmed"]
    assert reasons(approve(function, token)) == ["changed-since-plan"]
    cloud.start_server(id_)
    assert reasons(approve(function, token)) == ["changed-since-plan"]
    assert stops(cloud) == 1
    assert cloud.server(id_).vm_state == "active"


def test_five_approvals_at_once_stop_each_server_once(cloud: Simulator, function: Function) -> None:
    """One runs, a quarter of the threads may wait for it, and the rest must come again; all but one find it changed."""
    ids = [cloud.add_server(power_off_delay=0.3) for _ in range(3)]
    token = token_of(ask(function, *ids))
    with ThreadPoolExecutor(5) as people:
        first = list(people.map(lambda _: approve(function, token), range(5)))
    problems = [answer.json()["type"] for answer in first if answer.status_code == 503]
    assert set(problems) <= {"urn:bms-autostop:problem:event-in-progress"}
    answers = [approve(function, token) if answer.status_code == 503 else answer for answer in first]
    found = [reason for answer in answers for reason in reasons(answer)]
    assert (found.count("confirmed"), found.count("changed-since-plan")) == (3, 12)
    assert [cloud.stops_taken(id_) for id_ in ids] == [1, 1, 1]


def test_what_a_person_did_since_the_plan_counts(cloud: Simulator, function: Function) -> None:
    """A reboot, a tag that protects, a lock, a deletion: the guards count anew."""
    rebooted, protected, locked, gone, same = (cloud.add_server() for _ in range(5))
    token = token_of(ask(function, rebooted, protected, locked, gone, same))
    cloud.reboot_server(rebooted)
    cloud.change(protected, tags=["autostop=never"])
    cloud.change(locked, locked=True)
    cloud.delete_server(gone)
    assert reasons(approve(function, token)) == ["changed-since-plan", "protected", "locked", "not-found", "confirmed"]
    assert stops(cloud) == 1


def refusal(answer: requests.Response) -> str:
    """Why an approval was refused."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["ce-type"] == STOP_REFUSED
    data = answer.json()
    assert data["servers"] == []
    assert schema_violations("stop.refused.v1.json", data) == []
    return str(data["refusal"])


def test_what_is_no_valid_approval_is_refused(cloud: Simulator, function: Function) -> None:
    """Each with its own refusal, and nothing is sent."""
    token = token_of(ask(function, cloud.add_server()))
    assert refusal(approve(function, token[:-2] + ("AA" if token[-2:] != "AA" else "BA"))) == "approval-invalid"
    assert refusal(approve(function, f"{token}=")) == "approval-invalid"
    assert refusal(approve(function, token, REQUESTER)) == "approval-self"
    assert refusal(approve(function, token, "mattermost:u2")) == "approval-self"
    assert refusal(approve(function, token, time="2020-01-01T00:00:00Z")) == "too-old"
    assert stops(cloud) == 0


def test_a_plan_that_has_expired_is_refused(cloud: Simulator, start_function: StartFunction) -> None:
    """By the real clock: an approval that comes late is an `approval-expired`, and nothing is sent."""
    function = start_function(cloud, **KEYS, AUTOSTOP_APPROVAL_TTL="1s")
    plan = ask(function, cloud.add_server())
    token, ends = token_of(plan), rfc3339.parse(plan.json()["plan"]["expires_at"])
    while datetime.now(UTC) < ends:
        time.sleep(0.05)
    assert refusal(approve(function, token)) == "approval-expired"
    assert stops(cloud) == 0


@pytest.mark.parametrize("api", ["nova", "bms"])
def test_a_plan_is_approved_through_either_api(start_function: StartFunction, api: str) -> None:
    """Also after a start by a person it covers nothing any more."""
    with Simulator.otc() as otc:
        function = start_function(otc, **KEYS, AUTOSTOP_API=api)
        one, restarted = otc.add_server(), otc.add_server()
        token = token_of(ask(function, one, restarted))
        assert stops(otc) == 0
        otc.reboot_server(restarted)
        assert reasons(approve(function, token)) == ["confirmed", "changed-since-plan"]
        otc.start_server(one)
        assert reasons(approve(function, token)) == ["changed-since-plan", "changed-since-plan"]
        assert [otc.stops_taken(id_) for id_ in (one, restarted)] == [1, 0]


def test_deliveries_of_one_approval_at_once_stop_each_server_once(cloud: Simulator, function: Function) -> None:
    """They wait for one run and get its answer."""
    ids = [cloud.add_server(power_off_delay=0.3) for _ in range(2)]
    token = token_of(ask(function, *ids))
    stamp = rfc3339.render(datetime.now(UTC))
    with ThreadPoolExecutor(5) as senders:
        answers = list(senders.map(lambda _: approve(function, token, id="approval-1", time=stamp), range(5)))
    for answer in answers:
        assert answer.status_code in (200, 503), answer.text
    assert [cloud.stops_taken(id_) for id_ in ids] == [1, 1]


def test_a_token_is_valid_only_where_its_key_and_its_source_are(
    cloud: Simulator, start_function: StartFunction
) -> None:
    """Keys can be rotated; another deployment's token is none here."""
    id_ = cloud.add_server()
    token = token_of(ask(start_function(cloud, **KEYS), id_))
    assert refusal(approve(start_function(cloud, AUTOSTOP_APPROVAL_KEYS=NEW_KEY), token)) == "approval-invalid"
    elsewhere = start_function(cloud, AUTOSTOP_APPROVAL_KEYS=KEY, AUTOSTOP_SOURCE="/elsewhere")
    assert refusal(approve(elsewhere, token)) == "approval-invalid"
    assert stops(cloud) == 0
    rotated = start_function(cloud, AUTOSTOP_APPROVAL_KEYS=f"{NEW_KEY},{KEY}", AUTOSTOP_SOURCE="/bms-autostop")
    assert reasons(approve(rotated, token)) == ["confirmed"]


@pytest.mark.parametrize("data", [
    {"approved_by": ANOTHER},
    {"plan": "", "approved_by": ANOTHER},
    {"plan": 7, "approved_by": ANOTHER},
    {"plan": "x"},
    {"plan": "x", "approved_by": None},
    {"plan": "x", "approved_by": ""},
    {"plan": "x", "approved_by": "U2"},
    {"plan": "x", "approved_by": "slack:T1 U2"},
    {"plan": "x", "approved_by": "slack:"},
    {"plan": "x", "approved_by": "agent:planner"},
    {"plan": "x", "approved_by": ["slack:T1/U2"]},
    {"plan": "x", "approved_by": ANOTHER, "server_ids": [MISSING]},
    {"plan": "x", "approved_by": ANOTHER, "requester": ANOTHER},
    {"plan": "x", "approvedBy": ANOTHER},
    {"plan": "x", "approved_by": ANOTHER, "dryrun": True},
    "x",
    None,
])  # fmt: skip
def test_a_malformed_approval_can_never_succeed(cloud: Simulator, function: Function, data: Any) -> None:
    """It is no refusal, since its sender must be corrected."""
    answer = function.send(data, type=STOP_APPROVED)
    assert answer.status_code == 400, answer.text
    if isinstance(data, dict) and data.keys() <= {"plan", "approved_by", "server_ids", "requester"}:
        assert schema_violations("stop.approved.v1.json", data)
    assert cloud.calls == []


def test_an_approval_may_be_a_dry_run(cloud: Simulator, function: Function) -> None:
    """Then it says what it would do."""
    token = token_of(ask(function, cloud.add_server()))
    answer = function.send({"plan": token, "approved_by": ANOTHER, "dry_run": True}, type=STOP_APPROVED)
    assert reasons(answer) == ["dry-run"]
    assert stops(cloud) == 0


def test_a_dry_run_needs_no_approval(cloud: Simulator, start_function: StartFunction) -> None:
    """Neither its own nor that of the deployment."""
    id_ = cloud.add_server()
    function = start_function(cloud, **KEYS, AUTOSTOP_APPROVAL="always")
    answer = ask(function, id_, dry_run=True)
    assert reasons(answer) == ["dry-run"]
    assert answer.headers["ce-type"] == STOP_COMPLETED
    assert "plan" not in answer.json()
    dry_running = start_function(cloud, **KEYS, AUTOSTOP_APPROVAL="always", AUTOSTOP_DRY_RUN="true")
    assert reasons(ask(dry_running, id_)) == ["dry-run"]


def test_without_a_key_an_event_that_needs_an_approval_is_not_handled(
    cloud: Simulator, start_function: StartFunction
) -> None:
    """It can be sent again once there is one; an approval is invalid, and all else goes on."""
    function = start_function(cloud)
    id_ = cloud.add_server()
    answer = ask(function, id_)
    assert answer.status_code == 503
    assert answer.json()["type"].endswith("approval-not-configured")
    assert "Retry-After" in answer.headers
    assert stops(cloud) == 0
    assert refusal(approve(function, "AAAA")) == "approval-invalid"
    assert reasons(function.stop(id_)) == ["confirmed"]


@pytest.mark.parametrize(
    ("environ", "asked", "approver"),
    [
        ({}, None, None),
        ({}, "self", "self"),
        ({}, "other", "other"),
        ({"AUTOSTOP_APPROVAL": "always"}, None, "other"),
        ({"AUTOSTOP_APPROVAL": "always", "AUTOSTOP_APPROVER": "self"}, None, "self"),
        ({"AUTOSTOP_APPROVAL": "always", "AUTOSTOP_APPROVER": "self"}, "other", "other"),
        ({"AUTOSTOP_APPROVAL": "always", "AUTOSTOP_APPROVER": "other"}, "self", "other"),
        ({"AUTOSTOP_APPROVAL": "above:2"}, None, None),
        ({"AUTOSTOP_APPROVAL": "above:1"}, None, "other"),
        ({"AUTOSTOP_APPROVAL": "above:2", "AUTOSTOP_APPROVER": "other"}, "self", "other"),
        ({"AUTOSTOP_APPROVER": "other"}, "self", "other"),
        ({"AUTOSTOP_APPROVER": "other"}, None, None),
    ],
)
def test_an_event_can_only_tighten_what_the_deployment_asks_for(
    cloud: Simulator, start_function: StartFunction, environ: Mapping[str, str], asked: str | None, approver: str | None
) -> None:
    """The stricter of both counts; two servers are above one and not above two."""
    function = start_function(cloud, **KEYS, **environ)
    data = {"server_ids": [cloud.add_server(), cloud.add_server()], "approval": asked}
    answer = function.send(data)
    assert answer.json().get("plan", {}).get("approver") == approver
    assert (stops(cloud) == 0) is (approver is not None)


def test_the_servers_of_a_whole_batch_count(cloud: Simulator, start_function: StartFunction) -> None:
    """Two events for one server each are a delivery for two."""
    function = start_function(cloud, **KEYS, AUTOSTOP_APPROVAL="above:1")
    plans = post_batch(
        function, *(event(id=f"batch-{number}", data={"server_ids": [cloud.add_server()]}) for number in range(2))
    ).json()
    assert [plan["type"] for plan in plans] == [STOP_PLANNED, STOP_PLANNED]
    assert stops(cloud) == 0
    approvals = [{"plan": plan["data"]["plan"]["token"], "approved_by": ANOTHER} for plan in plans]
    results = post_batch(
        function,
        *(event(id=f"approval-{number}", type=STOP_APPROVED, data=data) for number, data in enumerate(approvals)),
    ).json()
    assert [result["data"]["servers"][0]["reason"] for result in results] == ["confirmed", "confirmed"]
    assert {result["causationid"] for result in results} == {"approval-0", "approval-1"}


def test_a_selector_is_planned_by_what_it_fits(cloud: Simulator, start_function: StartFunction) -> None:
    """What fits it later is not in the plan."""
    function = start_function(cloud, **KEYS, AUTOSTOP_APPROVAL="above:1")
    ids = {cloud.add_server(f"ci-{number}") for number in range(2)}
    token = token_of(function.send({"selector": {"name": "ci-*"}}))
    cloud.add_server("ci-later")
    answer = approve(function, token)
    assert {row["id"] for row in answer.json()["servers"]} == ids
    assert reasons(answer) == ["confirmed", "confirmed"]


def test_an_approved_event_keeps_to_the_most_servers(cloud: Simulator, start_function: StartFunction) -> None:
    """A plan made when more were allowed does not go beyond what is allowed now."""
    ids = [cloud.add_server() for _ in range(3)]
    token = token_of(ask(start_function(cloud, **KEYS), *ids))
    assert refusal(approve(start_function(cloud, **KEYS, AUTOSTOP_MAX_SERVERS="2"), token)) == "too-many-servers"
    assert stops(cloud) == 0


def test_a_caller_that_may_ask_cannot_approve(cloud: Simulator, start_function: StartFunction) -> None:
    """Approvals of all but the named callers are a 403, also in a batch; those may ask, too."""
    asks, approves, unknown = ("a" * 20, "b" * 20, "c" * 20)
    tokens = {"AUTOSTOP_BEARER_TOKENS": asks, "AUTOSTOP_APPROVER_TOKENS": approves}
    function = start_function(cloud, **KEYS, AUTOSTOP_INBOUND_AUTH="bearer", **tokens)

    def send(bearer: str, data: object, type_: str = STOP_REQUESTED) -> requests.Response:
        return function.send(data, type=type_, headers={"Authorization": f"Bearer {bearer}"})

    id_ = cloud.add_server()
    token = token_of(send(asks, {"server_ids": [id_], "approval": "self"}))
    token_of(send(approves, {"server_ids": [id_], "approval": "self"}))
    approval = {"plan": token, "approved_by": ANOTHER}
    assert send(asks, approval, STOP_APPROVED).status_code == 403
    assert send(unknown, approval, STOP_APPROVED).status_code == 401
    headers, body = batch(event(type=STOP_APPROVED, data=approval))
    headers["Authorization"] = f"Bearer {asks}"
    assert requests.post(function.url, data=body, headers=headers, timeout=60).status_code == 403
    assert stops(cloud) == 0
    assert reasons(send(approves, approval, STOP_APPROVED)) == ["confirmed"]


def test_a_malformed_requester_or_approval_is_malformed(cloud: Simulator, function: Function) -> None:
    """A word for an approval that is not known is not taken for none."""
    id_ = cloud.add_server()
    for data in (
        {"approval": "Self"},
        {"approval": "none"},
        {"approval": True},
        {"approval": ["self"]},
        {"approvals": "self"},
        {"requester": "U1"},
        {"requester": 7},
        {"requester": "slack:T1 U1"},
    ):
        assert function.send({"server_ids": [id_], **data}).status_code == 400, data
        assert schema_violations("stop.requested.v1.json", {"server_ids": [id_], **data})
    assert stops(cloud) == 0


def test_the_log_names_the_people_and_no_token(cloud: Simulator, function: Function) -> None:
    """A token in a log could be approved by those who read it."""
    with logged("DEBUG") as lines:
        token = token_of(ask(function, cloud.add_server()))
        assert reasons(approve(function, token)) == ["confirmed"]
    assert any((line.get("approved_by"), line.get("requester")) == (ANOTHER, REQUESTER) for line in lines.all)
    assert token not in lines.text
    assert KEY not in lines.text


def test_a_repeat_of_an_approval_that_was_not_answered_stops_nothing_twice(
    cloud: Simulator, start_function: StartFunction
) -> None:
    """The result could not be made in time: what was stopped stays so, and the rest has its turn."""
    ids = [cloud.add_server(), cloud.add_server()]
    function = start_function(cloud, **KEYS, AUTOSTOP_DEADLINE="3s", AUTOSTOP_WAIT="1s")
    token = token_of(ask(function, *ids))
    cloud.inject(Fault(on=CallKind.READ, status=503, server_id=ids[1], times=None))
    cloud.inject(Fault(on=CallKind.LIST, status=503, times=None))
    approve(function, token, id="approval-1")
    assert cloud.stops_taken(ids[0]) <= 1
    cloud.clear_faults()
    answer = approve(function, token, id="approval-1")
    assert set(reasons(answer)) <= {"confirmed", "changed-since-plan"}
    assert [cloud.stops_taken(id_) for id_ in ids] == [1, 1]
