"""Plans and approvals, by the whole function: over HTTP, with the simulated cloud."""

from __future__ import annotations

import base64
import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests

from handler import rfc3339
from handler.event_types import STOP_APPROVED, STOP_COMPLETED, STOP_FAILED, STOP_PLANNED, STOP_REFUSED
from handler.simulator import CallKind, Fault, Simulator
from handler.stop.approval import verify
from tests.conftest import Function, StartFunction
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
    assert {answer.json()["type"].rpartition(":")[2] for answer in first if answer.status_code == 503} <= {
        "event-in-progress"
    }
    answers = [approve(function, token) if answer.status_code == 503 else answer for answer in first]
    found = [reason for answer in answers for reason in reasons(answer)]
    assert found.count("confirmed") == 3
    assert found.count("changed-since-plan") == 12
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


@pytest.mark.parametrize("extra", ["purpose=ci", "x"])
def test_a_tag_that_means_nothing_changes_no_plan(cloud: Simulator, function: Function, extra: str) -> None:
    """A plan rests on states and history, not on labels; those are looked at anew."""
    id_ = cloud.add_server()
    token = token_of(ask(function, id_))
    cloud.change(id_, tags=[extra])
    assert reasons(approve(function, token)) == ["confirmed"]


def refusal(answer: requests.Response) -> str:
    """Why an approval was refused."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["ce-type"] == STOP_REFUSED
    data = answer.json()
    assert data["servers"] == []
    assert schema_violations("stop.refused.v1.json", data) == []
    return str(data["refusal"])


def test_what_is_no_valid_approval_is_refused(
    cloud: Simulator, function: Function, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each with its own refusal, and nothing is sent."""
    token = token_of(ask(function, cloud.add_server()))
    assert refusal(approve(function, token[:-2] + ("AA" if token[-2:] != "AA" else "BA"))) == "approval-invalid"
    assert refusal(approve(function, f"{token}=")) == "approval-invalid"
    assert refusal(approve(function, token, REQUESTER)) == "approval-self"
    assert refusal(approve(function, token, "mattermost:u2")) == "approval-self"
    late = timedelta(minutes=15, seconds=1)

    def verify_late(token: str, keys: Sequence[bytes], audience: str, approved_by: str, now: datetime) -> Any:
        return verify(token, keys, audience, approved_by, now + late)

    monkeypatch.setattr("handler.services.approvals.verify", verify_late)
    assert refusal(approve(function, token)) == "approval-expired"
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


def test_every_bit_of_a_token_counts(cloud: Simulator, function: Function) -> None:
    """Of the bytes that it stands for, and of the characters that it is written in; all in one batch."""
    token = token_of(ask(function, cloud.add_server()))
    raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    forged = {
        base64.urlsafe_b64encode(bytes(byte ^ (bit * (at == place)) for at, byte in enumerate(raw))).decode().strip("=")
        for place in range(len(raw))
        for bit in (1 << number for number in range(8))
    }
    forged |= {
        token[:place] + chr(ord(token[place]) ^ bit) + token[place + 1 :]
        for place in range(len(token))
        for bit in (1 << number for number in range(7))
    }
    assert len(forged) >= 8 * len(raw)
    assert token not in forged
    batch = [
        {
            "specversion": "1.0",
            "id": str(number),
            "source": "/tests",
            "type": STOP_APPROVED,
            "data": {"plan": text, "approved_by": ANOTHER},
        }
        for number, text in enumerate(sorted(forged))
    ]
    headers = {"Content-Type": "application/cloudevents-batch+json"}
    found: list[str] = []
    for begin in range(0, len(batch), 100):
        part = json.dumps(batch[begin : begin + 100])
        answer = requests.post(function.url, data=part, headers=headers, timeout=60)
        assert answer.status_code == 200, answer.text
        found += [event["data"]["refusal"] for event in answer.json()]
    assert found == ["approval-invalid"] * len(batch)
    assert stops(cloud) == 0
    assert reasons(approve(function, token)) == ["confirmed"]


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


def test_an_old_approval_is_refused_like_any_event(cloud: Simulator, function: Function) -> None:
    """Its own time counts, too."""
    token = token_of(ask(function, cloud.add_server()))
    assert refusal(approve(function, token, time="2020-01-01T00:00:00Z")) == "too-old"


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


def test_a_plan_in_which_nothing_would_be_stopped_is_a_result(cloud: Simulator, function: Function) -> None:
    """There is nothing to approve."""
    answer = ask(function, cloud.add_server(vm_state="stopped"))
    assert (reasons(answer), answer.headers["ce-type"]) == (["already-stopped"], STOP_COMPLETED)
    assert "plan" not in answer.json()
    answer = ask(function, MISSING)
    assert (reasons(answer), answer.headers["ce-type"]) == (["not-found"], STOP_FAILED)


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
    events = [
        {
            "specversion": "1.0",
            "id": f"batch-{number}",
            "source": "/tests",
            "type": "io.github.bms-autostop.stop.requested.v1",
            "data": {"server_ids": [cloud.add_server()]},
        }
        for number in range(2)
    ]
    headers = {"Content-Type": "application/cloudevents-batch+json"}
    answer = requests.post(function.url, data=json.dumps(events), headers=headers, timeout=60)
    assert [event["type"] for event in answer.json()] == [STOP_PLANNED, STOP_PLANNED]
    assert stops(cloud) == 0
    approvals_ = [
        {
            **event,
            "id": f"approval-{number}",
            "type": STOP_APPROVED,
            "data": {"plan": event["data"]["plan"]["token"], "approved_by": ANOTHER},
        }
        for number, event in enumerate(answer.json())
    ]
    answer = requests.post(function.url, data=json.dumps(approvals_), headers=headers, timeout=60)
    assert [event["data"]["servers"][0]["reason"] for event in answer.json()] == ["confirmed", "confirmed"]
    assert {event["causationid"] for event in answer.json()} == {"approval-0", "approval-1"}


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


def test_fifty_servers_fit_a_button(cloud: Simulator, function: Function) -> None:
    """A value of a Slack button has at most 2,000 characters."""
    token = token_of(ask(function, *[cloud.add_server() for _ in range(50)]))
    assert len(token) <= 1900
    assert set(reasons(approve(function, token))) == {"confirmed"}


ASKS, APPROVES = "a" * 20, "b" * 20


def test_a_caller_that_may_ask_cannot_approve(cloud: Simulator, start_function: StartFunction) -> None:
    """Approvals of all but the named callers are a 403, also in a batch; those may ask, too."""
    function = start_function(
        cloud,
        **KEYS,
        AUTOSTOP_INBOUND_AUTH="bearer",
        AUTOSTOP_BEARER_TOKENS=ASKS,
        AUTOSTOP_APPROVER_TOKENS=APPROVES,
    )

    def send(bearer: str, data: object, type_: str = "io.github.bms-autostop.stop.requested.v1") -> requests.Response:
        return function.send(data, type=type_, headers={"Authorization": f"Bearer {bearer}"})

    id_ = cloud.add_server()
    token = token_of(send(ASKS, {"server_ids": [id_], "approval": "self"}))
    token_of(send(APPROVES, {"server_ids": [id_], "approval": "self"}))
    approval = {"plan": token, "approved_by": ANOTHER}
    assert send(ASKS, approval, STOP_APPROVED).status_code == 403
    assert send("c" * 20, approval, STOP_APPROVED).status_code == 401
    event = {"specversion": "1.0", "id": "1", "source": "/tests", "type": STOP_APPROVED, "data": approval}
    headers = {"Authorization": f"Bearer {ASKS}", "Content-Type": "application/cloudevents-batch+json"}
    assert requests.post(function.url, data=json.dumps([event]), headers=headers, timeout=60).status_code == 403
    assert stops(cloud) == 0
    assert reasons(send(APPROVES, approval, STOP_APPROVED)) == ["confirmed"]


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


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """Everything that is logged, with all that is beside the messages."""
    found: list[str] = []

    class _Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(repr(record.__dict__))

    collector = _Collector()
    logging.getLogger("handler").addHandler(collector)
    with caplog.at_level(logging.DEBUG, "handler"):
        yield found
    logging.getLogger("handler").removeHandler(collector)


def test_the_log_names_the_people_and_no_token(cloud: Simulator, function: Function, lines: list[str]) -> None:
    """A token in a log could be approved by those who read it."""
    token = token_of(ask(function, cloud.add_server()))
    assert reasons(approve(function, token)) == ["confirmed"]
    assert any(f"'approved_by': '{ANOTHER}'" in line and f"'requester': '{REQUESTER}'" in line for line in lines)
    assert not [line for line in lines if token in line or KEY in line]


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
