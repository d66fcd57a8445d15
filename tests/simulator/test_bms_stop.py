"""A batch of servers is stopped by a job; what is not documented can be configured."""

import http.client
import math
from functools import partial
from typing import Any

import pytest

from handler.simulator import Api, BatchPolicy, CallKind, ConflictKind, Fault, JobChildren, Simulator
from tests.simulator.conftest import UNKNOWN_ID, Ask, Lookup, Reply
from tests.support.clock import FakeClock

CLOUD = partial(Simulator, bms=True)
ROW = ["status", "job_id", "job_type", "begin_time", "end_time", "error_code", "fail_reason", "entities"]


@pytest.fixture
def stop_all(ask: Ask, cloud: Simulator) -> Ask:
    """Stop servers in one batch."""

    def send(*ids: str, body: Any = None, **more: Any) -> Reply:
        body = {"os-stop": {"type": "HARD", "servers": [{"id": id} for id in ids]}} if body is None else body
        return ask("POST", f"/v1/{cloud.project_id}/baremetalservers/action", body, **more)

    return send


@pytest.fixture
def job(bms: Ask) -> Lookup:
    """Read the job that an answer names."""

    def read(answer: Reply) -> Any:
        found = bms(f"jobs/{answer.json()['job_id']}")
        assert found.status == 200
        return found.json()

    return read


def statuses(job: Any) -> Any:
    """Return the status of a job and of its parts."""
    return job["status"], [part["status"] for part in job["entities"]["sub_jobs"]]


def stops(cloud: Simulator, *ids: str) -> Any:
    """Return how many stops of each server were sent and accepted."""
    return [(cloud.stops_sent(id_), cloud.stops_taken(id_)) for id_ in ids]


def test_a_call_about_several_servers_is_recorded_for_each(cloud: Simulator, stop_all: Ask) -> None:
    """It is about no single one; a stop counts for each that it names, and is in the history of Nova."""
    one, two = cloud.add_server(), cloud.add_server()
    answer = stop_all(one.upper(), two)
    assert (answer.status, list(answer.json())) == (200, ["job_id"])
    call = cloud.calls[-1]
    assert (call.kind, call.api, call.server_id, call.acted) == (CallKind.STOP, Api.BMS, None, True)
    assert call.server_ids == call.acted_on == (one, two)
    assert cloud.count(CallKind.STOP) == cloud.count(CallKind.STOP, one) == cloud.count(CallKind.STOP, two) == 1
    assert stops(cloud, one, two) == [(1, 1), (1, 1)]
    entry = cloud.actions(one)[0]
    assert (entry.action, entry.user_id, entry.finish_time is None) == ("stop", cloud.user().id, False)


def test_the_job_goes_from_init_to_success(cloud: Simulator, stop_all: Ask, job: Lookup, clock: FakeClock) -> None:
    """By the clock; each part has an end of its own, and the job has the last of them."""
    ids = [cloud.add_server(power_off_delay=4), cloud.add_server(power_off_delay=8.4)]
    answer = stop_all(*ids)
    assert statuses(job(answer)) == ("INIT", ["INIT", "INIT"])
    clock.advance(1)
    assert statuses(job(answer)) == ("RUNNING", ["RUNNING", "RUNNING"])
    clock.advance(3)
    assert statuses(job(answer)) == ("RUNNING", ["SUCCESS", "RUNNING"])
    assert [cloud.server(id).task_state for id in ids] == [None, "powering-off"]
    clock.advance(60)
    done = job(answer)
    assert statuses(done) == ("SUCCESS", ["SUCCESS", "SUCCESS"])
    assert list(done) == ROW
    assert (done["job_id"], done["job_type"]) == (answer.json()["job_id"], "baremetalBatchOperate")
    assert (done["begin_time"], done["end_time"]) == ("2025-06-15T15:06:40.000Z", "2025-06-15T15:06:48.400Z")
    assert (done["error_code"], done["fail_reason"]) == (None, None)
    assert done["entities"]["sub_jobs_total"] == 2
    part = done["entities"]["sub_jobs"][0]
    assert list(part) == ROW
    assert (part["job_type"], part["end_time"]) == ("baremetalSingleOperate", "2025-06-15T15:06:44.000Z")
    assert [part["entities"] for part in done["entities"]["sub_jobs"]] == [{"server_id": id} for id in ids]


def test_a_later_action_does_not_change_how_a_job_ended(cloud: Simulator, stop_all: Ask, job: Lookup) -> None:
    """Not even on the same server."""
    server_id = cloud.add_server()
    answer = stop_all(server_id)
    before = job(answer)
    cloud.start_server(server_id)
    stop_all(server_id)
    assert job(answer) == before


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"vm_state": "active"}, "FAIL", "BMS.1007"),
        ({"vm_state": "error"}, "FAIL", "BMS.1007"),
        ({"vm_state": "deleted"}, "FAIL", "BMS.0040"),
        ({"vm_state": "stopped"}, "SUCCESS", None),
    ],
    ids=str,
)
def test_a_job_ends_when_its_server_is_changed(
    cloud: Simulator, stop_all: Ask, job: Lookup, clock: FakeClock, change: Any, status: str, code: str | None
) -> None:
    """And does not change any more."""
    server_id = cloud.add_server(power_off_delay=math.inf)
    answer = stop_all(server_id)
    clock.advance(5)
    cloud.change(server_id, **change)
    clock.advance(5)
    for _ in "ab":
        found = job(answer)
        assert statuses(found) == (status, [status])
        (part,) = found["entities"]["sub_jobs"]
        assert (part["error_code"], part["end_time"]) == (code, "2025-06-15T15:06:45.000Z")


@pytest.mark.parametrize("fails", [True, False])
@pytest.mark.parametrize(
    ("children", "entities"),
    [
        (JobChildren.NONE, {"sub_jobs_total": 1, "sub_jobs": []}),
        (JobChildren.NULL, {"sub_jobs_total": 1, "sub_jobs": None}),
        (JobChildren.MISSING, {}),
        (JobChildren.SERVER_ID, {"server_id": "{id}"}),
        (JobChildren.LISTED, None),
    ],
)
def test_a_job_may_not_list_its_servers(
    cloud: Simulator, stop_all: Ask, job: Lookup, children: str, entities: Any, fails: bool
) -> None:
    """If a power-off has failed, the job itself has code and reason then."""
    cloud.bms.job_children = children
    server_id = cloud.add_server(power_off_fails=fails)
    found = job(stop_all(server_id))
    assert (found["status"], cloud.server(server_id).vm_state) == (
        ("FAIL", "active") if fails else ("SUCCESS", "stopped")
    )
    failed = found
    if entities is None:
        (failed,) = found["entities"]["sub_jobs"]
        assert (found["error_code"], failed["entities"]) == (None, {"server_id": server_id})
    else:
        assert found["entities"] == {name: server_id if value == "{id}" else value for name, value in entities.items()}
    reason = ("BMS.1007", "An internal call failed.") if fails else (None, None)
    assert (failed["error_code"], failed["fail_reason"]) == reason


BAD = [
    ("BMS.0040", None),
    ("BMS.0039", {"vm_state": "stopped"}),
    ("BMS.0036", {"task_state": "powering-off"}),
    ("BMS.0035", {"vm_state": "stopped", "task_state": "powering-on"}),
    ("BMS.0037", {"task_state": "rebooting_hard"}),
    ("Ecs.0605", {"locked": True}),
    # The table of BMS has no code for these.
    ("Ecs.0100", {"task_state": "rebuilding"}),
    ("Ecs.0100", {"vm_state": "paused"}),
    ("Ecs.0100", {"vm_state": "building"}),
    ("Ecs.0100", {"vm_state": "error", "host": False}),
    ("Ecs.0100", {"launched": False}),
]


@pytest.mark.parametrize("policy", BatchPolicy)
@pytest.mark.parametrize(("code", "fields"), BAD, ids=str)
def test_a_server_that_cannot_be_stopped_refuses_the_batch_or_fails_its_part(
    cloud: Simulator, stop_all: Ask, job: Lookup, code: str, fields: Any, policy: str
) -> None:
    """400 with its code and nothing is done, or the others are stopped and the job counts as failed."""
    cloud.bms.batch_policy = policy
    good, bad = cloud.add_server(), UNKNOWN_ID if fields is None else cloud.add_server(**fields)
    answer = stop_all(bad, good)
    if policy == "reject-whole":
        assert (answer.code, cloud.calls[-1].acted) == ((400, code), False)
        assert (cloud.server(good).vm_state, stops(cloud, good, bad)) == ("active", [(1, 0), (1, 0)])
        return
    found = job(answer)
    assert statuses(found) == ("FAIL", ["FAIL", "SUCCESS"])
    part = found["entities"]["sub_jobs"][0]
    assert (part["error_code"], part["entities"]) == (code, {"server_id": bad})
    assert (cloud.server(good).vm_state, stops(cloud, good, bad)) == ("stopped", [(1, 1), (1, 0)])


@pytest.mark.parametrize(("user", "status"), [("admin", 200), ("watcher", 403)])
def test_an_administrator_stops_a_locked_server_and_a_reader_none(
    cloud: Simulator, stop_all: Ask, user: str, status: int
) -> None:
    """The administrator in the own project only; the reader gets the code of the policy."""
    answer = stop_all(cloud.add_server(locked=True), token=cloud.token(user))
    assert answer.status == status if user == "admin" else answer.code == (status, "BMS.0288")


def test_a_server_named_twice_is_stopped_once(cloud: Simulator, stop_all: Ask, job: Lookup) -> None:
    """The second time it is being powered off already; the first refusal of the batch decides on the code."""
    server_id = cloud.add_server()
    assert stop_all(server_id, server_id, UNKNOWN_ID).code == (400, "BMS.0036")
    assert stop_all(UNKNOWN_ID, server_id, server_id).code == (400, "BMS.0040")
    cloud.bms.batch_policy = BatchPolicy.FAIL_SUB_JOB
    assert statuses(job(stop_all(server_id, server_id.upper()))) == ("FAIL", ["SUCCESS", "FAIL"])
    assert stops(cloud, server_id) == [(6, 1)]


def test_a_batch_has_at_most_1000_servers(cloud: Simulator, stop_all: Ask, job: Lookup) -> None:
    """With one more, none is stopped."""
    ids = [cloud.add_server() for _ in range(1001)]
    assert stop_all(*ids).code == (400, "BMS.0018")
    assert job(stop_all(*ids[:1000]))["entities"]["sub_jobs_total"] == 1000
    assert cloud.stops_taken(ids[1000]) == 0


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", "BMS.0001"),
        (b"", "BMS.0001"),
        ([], "BMS.0018"),
        ({}, "BMS.0018"),
        ({"servers": [{"id": UNKNOWN_ID}]}, "BMS.0018"),
        ({"os-start": {"servers": [{"id": UNKNOWN_ID}]}}, "BMS.0018"),
        ({"os-stop": None}, "BMS.0018"),
        ({"os-stop": {}}, "BMS.0018"),
        ({"os-stop": {"servers": []}}, "BMS.0018"),
        ({"os-stop": {"servers": {}}}, "BMS.0018"),
        ({"os-stop": {"servers": [UNKNOWN_ID]}}, "BMS.0018"),
        ({"os-stop": {"servers": [{"id": 1}]}}, "BMS.0018"),
        ({"os-stop": {"servers": [{"id": UNKNOWN_ID}, {}]}}, "BMS.0018"),
        ({"os-stop": {"type": "SOFT", "servers": [{"id": UNKNOWN_ID}]}}, "BMS.0018"),
    ],
    ids=repr,
)
def test_a_body_that_is_not_a_stop_is_refused(stop_all: Ask, body: Any, code: str) -> None:
    """Before any server is read."""
    assert stop_all(body=body).code == (400, code)


@pytest.mark.parametrize("wrapped", [False, True])
def test_an_unknown_job_is_refused(cloud: Simulator, stop_all: Ask, ask: Ask, wrapped: bool) -> None:
    """Also another project's; code and message are at the top, or inside an error object as all others are."""
    cloud.bms.job_error_wrapped = wrapped
    job_id, admin = stop_all(cloud.add_server()).json()["job_id"], cloud.user("admin")
    own = admin.default_project.id
    identity = {"methods": ["password"], "password": {"user": {"id": admin.id, "password": admin.password}}}
    body = {"auth": {"identity": identity, "scope": {"project": {"id": own}}}}
    token = ask("POST", "/v3/auth/tokens", body, token=None).header("X-Subject-Token")
    error = {"code": "Common.0011", "message": "The job id is not valid."}
    for path, bearer in ((f"{cloud.project_id}/jobs/x", cloud.token()), (f"{own}/jobs/{job_id}", token)):
        answer = ask("GET", f"/v1/{path}", token=bearer)
        assert (answer.status, answer.json()) == (400, {"error": error} if wrapped else error)


def test_the_answer_can_lack_the_job(cloud: Simulator, stop_all: Ask) -> None:
    """The servers are stopped nevertheless."""
    cloud.bms.job_id = False
    server_id = cloud.add_server()
    answer = stop_all(server_id)
    assert (answer.status, answer.json(), cloud.server(server_id).vm_state) == (200, {}, "stopped")


@pytest.mark.parametrize(
    ("behavior", "delays", "expected"),
    [
        ({"job_ends": False}, [0], ("RUNNING", ["RUNNING"])),
        ({"job_word": "PENDING_PAYMENT"}, [8], ("PENDING_PAYMENT", ["PENDING_PAYMENT"])),
        ({"job_word": "PENDING_PAYMENT"}, [0], ("SUCCESS", ["SUCCESS"])),
        ({"mixed_status": "SUCCESS"}, [0, None], ("SUCCESS", ["SUCCESS", "FAIL"])),
        ({"mixed_status": "SUCCESS"}, [None], ("FAIL", ["FAIL"])),
        ({"job_server_ids": False}, [0], ("SUCCESS", ["SUCCESS"])),
    ],
    ids=str,
)
def test_a_job_is_shown_as_configured(
    cloud: Simulator, stop_all: Ask, job: Lookup, behavior: Any, delays: Any, expected: Any
) -> None:
    """A server without a delay is unknown."""
    cloud.bms.batch_policy = BatchPolicy.FAIL_SUB_JOB
    for name, value in behavior.items():
        setattr(cloud.bms, name, value)
    ids = [UNKNOWN_ID if delay is None else cloud.add_server(power_off_delay=delay) for delay in delays]
    answer = stop_all(*ids)
    found = job(answer)
    assert statuses(found) == expected
    assert (found["end_time"] is None) is (8 in delays or "job_ends" in behavior)
    assert ("server_id" in found["entities"]["sub_jobs"][0]["entities"]) is cloud.bms.job_server_ids
    assert cloud.calls[0].acted is (delays != [None])


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (ConflictKind.VM_STATE, "BMS.0039"),
        (ConflictKind.TASK_STATE, "BMS.0036"),
        (ConflictKind.LOCKED, "Ecs.0605"),
        (ConflictKind.NOT_READY, "Ecs.0100"),
        (ConflictKind.NEVER_LAUNCHED, "Ecs.0100"),
    ],
    ids=str,
)
def test_a_conflict_has_a_code_here(cloud: Simulator, stop_all: Ask, kind: ConflictKind, code: str) -> None:
    """400, as this API has no 409; a fault about one server is applied to the batch that it is in."""
    one, two = cloud.add_server(), cloud.add_server()
    cloud.inject(Fault.conflict(kind, two))
    assert stop_all(one).status == 200
    assert stop_all(two, cloud.add_server()).code == (400, code)
    assert cloud.server(two).vm_state == "active"


@pytest.mark.parametrize(
    "fault",
    [
        Fault.bms(CallKind.STOP, "BMS.1007", 500, act=True),
        Fault.gateway_code(CallKind.STOP, "APIG.0203", 504, act=True),
    ],
    ids=["BMS", "gateway"],
)
def test_an_error_can_hide_that_the_batch_was_accepted(cloud: Simulator, stop_all: Ask, fault: Fault) -> None:
    """Of this API or of the gateway."""
    server_id = cloud.add_server()
    cloud.inject(fault)
    assert stop_all(server_id).status == fault.status
    assert stops(cloud, server_id) == [(1, 1)]


def test_another_user_may_stop_every_server_of_the_batch_first(cloud: Simulator, stop_all: Ask) -> None:
    """One that is stopped already is left alone."""
    ids = [cloud.add_server(), cloud.add_server(vm_state="stopped")]
    cloud.inject(Fault.two_stops_at_once())
    assert stop_all(*ids).status == 500
    assert [cloud.server(id).vm_state for id in ids] == ["stopped", "stopped"]
    assert stops(cloud, *ids) == [(1, 0), (1, 0)]


def test_a_stop_of_either_api_counts_and_is_cut_alike(cloud: Simulator, stop: Ask, stop_all: Ask) -> None:
    """So that a test can be for both."""
    for send in (stop, stop_all):
        server_id = cloud.add_server()
        cloud.inject(Fault.cut_after(CallKind.STOP, server_id))
        with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
            send(server_id)
        call = cloud.calls[-1]
        assert (call.server_id, call.server_ids, call.acted_on) == (server_id, (server_id,), (server_id,))
        assert stops(cloud, server_id) == [(1, 1)]
