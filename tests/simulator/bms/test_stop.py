"""A batch of servers is stopped by a job, whose way can be followed; what is not documented can be chosen."""

import http.client
import math
from collections.abc import Iterator
from typing import Any

import pytest

from handler.simulator import Api, BatchPolicy, BmsBehavior, CallKind, ConflictKind, Fault, Simulator
from tests.simulator.conftest import Ask, Lookup, Reply
from tests.support.clock import FakeClock

NEVER_SEEN = "00000000-0000-4000-8000-000000000000"
ROW = ["status", "job_id", "job_type", "begin_time", "end_time", "error_code", "fail_reason", "entities"]


@pytest.fixture
def cloud(clock: FakeClock) -> Iterator[Simulator]:
    """Open Telekom Cloud with BMS v1."""
    with Simulator(clock=clock, bms=True) as running:
        yield running


@pytest.fixture
def stop_all(ask: Ask, cloud: Simulator) -> Ask:
    """Stop servers in one batch."""

    def send(*ids: Any, body: Any = None, **more: Any) -> Any:
        body = {"os-stop": {"type": "HARD", "servers": [{"id": id} for id in ids]}} if body is None else body
        return ask("POST", f"/v1/{cloud.project_id}/baremetalservers/action", body, **more)

    return send


@pytest.fixture
def job(ask: Ask, cloud: Simulator) -> Lookup:
    """Look at the job that an answer names."""

    def look(answer: Reply) -> Any:
        found = ask("GET", f"/v1/{cloud.project_id}/jobs/{answer.json()['job_id']}")
        assert found.status == 200
        return found.json()

    return look


def statuses(job: Any) -> Any:
    """The status of a job and of its parts."""
    return job["status"], [part["status"] for part in job["entities"]["sub_jobs"]]


def test_a_batch_is_stopped_and_a_job_named(cloud: Simulator, stop_all: Ask, clock: FakeClock) -> None:
    """200, and each server is powering off until its time has come."""
    ids = [cloud.add_server(power_off_delay=8), cloud.add_server()]
    answer = stop_all(*ids)
    assert (answer.status, list(answer.json())) == (200, ["job_id"])
    assert [cloud.server(id).task_state for id in ids] == ["powering-off", None]
    clock.advance(8)
    assert [cloud.server(id).vm_state for id in ids] == ["stopped", "stopped"]


def test_the_record_has_every_server_of_a_batch(cloud: Simulator, stop_all: Ask) -> None:
    """A call about several is about no single one; a stop counts for each that it names."""
    one, two = cloud.add_server(), cloud.add_server()
    stop_all(one.upper(), two)
    call = cloud.calls[-1]
    assert (call.kind, call.api, call.server_id, call.acted) == (CallKind.STOP, Api.BMS, None, True)
    assert call.server_ids == call.acted_on == (one, two)
    assert cloud.count(CallKind.STOP) == cloud.count(CallKind.STOP, one) == cloud.count(CallKind.STOP, two) == 1
    assert [(cloud.stops_sent(id), cloud.stops_taken(id)) for id in (one, two)] == [(1, 1), (1, 1)]
    three = cloud.add_server()
    stop_all(three)
    assert cloud.calls[-1].server_id == three


def test_the_job_goes_from_init_to_success(cloud: Simulator, stop_all: Ask, job: Lookup, clock: FakeClock) -> None:
    """As the clock goes; each part has an end of its own, and the job has the last of them."""
    ids = [cloud.add_server(power_off_delay=4), cloud.add_server(power_off_delay=8.4)]
    answer = stop_all(*ids)
    assert statuses(job(answer)) == ("INIT", ["INIT", "INIT"])
    clock.advance(1)
    assert statuses(job(answer)) == ("RUNNING", ["RUNNING", "RUNNING"])
    clock.advance(3)
    assert statuses(job(answer)) == ("RUNNING", ["SUCCESS", "RUNNING"])
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


def test_what_is_done_later_does_not_change_how_a_job_ended(cloud: Simulator, stop_all: Ask, job: Lookup) -> None:
    """Not even with the same server."""
    server_id = cloud.add_server()
    answer = stop_all(server_id)
    before = job(answer)
    cloud.start_server(server_id)
    stop_all(server_id)
    assert job(answer) == before


@pytest.mark.parametrize(
    ("befalls", "status", "code"),
    [
        (lambda cloud, id: cloud.change(id, vm_state="active"), "FAIL", "BMS.1007"),
        (lambda cloud, id: cloud.change(id, vm_state="error"), "FAIL", "BMS.1007"),
        (lambda cloud, id: cloud.delete_server(id), "FAIL", "BMS.0040"),
        (lambda cloud, id: cloud.change(id, vm_state="stopped"), "SUCCESS", None),
    ],
    ids=["active", "error", "deleted", "stopped"],
)
def test_a_job_ends_when_something_comes_between(
    cloud: Simulator,
    stop_all: Ask,
    job: Lookup,
    clock: FakeClock,
    befalls: Any,
    status: int,
    code: int,
) -> None:
    """And stays as it ended."""
    server_id = cloud.add_server(power_off_delay=math.inf)
    answer = stop_all(server_id)
    clock.advance(5)
    befalls(cloud, server_id)
    clock.advance(5)
    for _ in "ab":
        found = job(answer)
        assert statuses(found) == (status, [status])
        (part,) = found["entities"]["sub_jobs"]
        assert (part["error_code"], part["end_time"]) == (code, "2025-06-15T15:06:45.000Z")


def test_a_power_off_that_fails_fails_its_part(cloud: Simulator, stop_all: Ask, job: Lookup) -> None:
    """The server is as it was."""
    server_id = cloud.add_server(power_off_fails=True)
    found = job(stop_all(server_id))
    assert statuses(found) == ("FAIL", ["FAIL"])
    (part,) = found["entities"]["sub_jobs"]
    assert (part["error_code"], part["fail_reason"]) == ("BMS.1007", "An internal call failed.")
    assert (found["error_code"], found["fail_reason"]) == (None, None)
    assert cloud.server(server_id).vm_state == "active"


BAD = {
    "BMS.0040": lambda _: NEVER_SEEN,
    "BMS.0039": lambda cloud: cloud.add_server(vm_state="stopped"),
    "BMS.0036": lambda cloud: cloud.add_server(task_state="powering-off"),
    "BMS.0035": lambda cloud: cloud.add_server(vm_state="stopped", task_state="powering-on"),
    "BMS.0037": lambda cloud: cloud.add_server(task_state="rebooting_hard"),
    "Ecs.0605": lambda cloud: cloud.add_server(locked=True),
    "Ecs.0100": lambda cloud: cloud.add_server(task_state="rebuilding"),
}


@pytest.mark.parametrize(("code", "bad"), BAD.items(), ids=BAD)
def test_a_batch_with_a_server_that_cannot_be_stopped_is_refused_whole(
    cloud: Simulator, stop_all: Ask, code: int, bad: Any
) -> None:
    """400 with its code, and nothing is done."""
    good = cloud.add_server()
    bad_id = bad(cloud)
    answer = stop_all(good, bad_id)
    assert (answer.status, answer.json()["error"]["code"]) == (400, code)
    assert cloud.server(good).vm_state == "active"
    assert [(cloud.stops_sent(id), cloud.stops_taken(id)) for id in (good, bad_id)] == [(1, 0), (1, 0)]
    assert not cloud.calls[-1].acted


@pytest.mark.parametrize(("code", "bad"), BAD.items(), ids=BAD)
def test_or_only_its_part_of_the_job_fails(cloud: Simulator, stop_all: Ask, job: Lookup, code: int, bad: Any) -> None:
    """The others are stopped; the whole then counts as failed."""
    cloud.bms.batch_policy = "fail-sub-job"
    good = cloud.add_server()
    bad_id = bad(cloud)
    answer = stop_all(bad_id, good)
    assert answer.status == 200
    found = job(answer)
    assert statuses(found) == ("FAIL", ["FAIL", "SUCCESS"])
    part = found["entities"]["sub_jobs"][0]
    assert (part["error_code"], part["entities"]) == (code, {"server_id": bad_id})
    assert cloud.server(good).vm_state == "stopped"
    assert [(cloud.stops_sent(id), cloud.stops_taken(id)) for id in (good, bad_id)] == [(1, 1), (1, 0)]


@pytest.mark.parametrize(
    "state",
    [{"vm_state": "paused"}, {"vm_state": "building"}, {"vm_state": "error", "host": False}, {"launched": False}],
    ids=str,
)
def test_a_server_in_no_state_to_be_stopped_has_the_code_of_ecs(cloud: Simulator, stop_all: Ask, state: Any) -> None:
    """Its own table has none for it."""
    assert stop_all(cloud.add_server(**state)).json()["error"]["code"] == "Ecs.0100"


def test_the_first_bad_server_names_the_code(cloud: Simulator, stop_all: Ask) -> None:
    """In the order of the caller."""
    stopped, gone = cloud.add_server(vm_state="stopped"), NEVER_SEEN
    assert stop_all(stopped, gone).json()["error"]["code"] == "BMS.0039"
    assert stop_all(gone, stopped).json()["error"]["code"] == "BMS.0040"


def test_an_administrator_stops_a_locked_server(cloud: Simulator, stop_all: Ask) -> None:
    """In the own project only; the code for others is a choice."""
    server_id = cloud.add_server(locked=True)
    cloud.bms.locked_code = "BMS.0033"
    assert stop_all(server_id).json()["error"]["code"] == "BMS.0033"
    assert stop_all(server_id, token=cloud.token("admin")).status == 200


def test_a_server_named_twice_is_stopped_once(cloud: Simulator, stop_all: Ask, job: Lookup) -> None:
    """The second time it is on its way already."""
    server_id = cloud.add_server()
    assert stop_all(server_id, server_id).json()["error"]["code"] == "BMS.0036"
    cloud.bms.batch_policy = BatchPolicy.FAIL_SUB_JOB
    assert statuses(job(stop_all(server_id, server_id.upper()))) == ("FAIL", ["SUCCESS", "FAIL"])
    assert (cloud.stops_sent(server_id), cloud.stops_taken(server_id)) == (4, 1)


@pytest.mark.parametrize("others", [0, 1])
def test_what_a_job_is_called_that_failed_in_part_is_a_choice(clock: FakeClock, ask: Ask, others: Any) -> None:
    """One that failed in every part has failed."""
    behavior = BmsBehavior(batch_policy=BatchPolicy.FAIL_SUB_JOB, mixed_status="SUCCESS")
    with Simulator(clock=clock, bms=behavior) as cloud:
        assert cloud.bms is behavior
        ids = [NEVER_SEEN, *(cloud.add_server() for _ in range(others))]
        token, base = cloud.token(), f"/v1/{cloud.project_id}"
        body = {"os-stop": {"servers": [{"id": id} for id in ids]}}
        answer = ask("POST", f"{base}/baremetalservers/action", body, to=cloud, token=token)
        found = ask("GET", f"{base}/jobs/{answer.json()['job_id']}", to=cloud, token=token).json()
        assert found["status"] == ("SUCCESS" if others else "FAIL")
        assert cloud.calls[0].acted is bool(others)


def test_1000_servers_are_the_most(cloud: Simulator, stop_all: Ask, job: Lookup) -> None:
    """One more, and none is stopped."""
    ids = [cloud.add_server() for _ in range(1001)]
    answer = stop_all(*ids)
    assert (answer.status, answer.json()["error"]["code"]) == (400, "BMS.0018")
    assert job(stop_all(*ids[:1000]))["entities"]["sub_jobs_total"] == 1000
    assert cloud.stops_taken(ids[1000]) == 0


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", "BMS.0001"),
        (b"", "BMS.0001"),
        ([], "BMS.0018"),
        ({}, "BMS.0018"),
        ({"servers": [{"id": NEVER_SEEN}]}, "BMS.0018"),
        ({"os-start": {"servers": [{"id": NEVER_SEEN}]}}, "BMS.0018"),
        ({"os-stop": None}, "BMS.0018"),
        ({"os-stop": {}}, "BMS.0018"),
        ({"os-stop": {"servers": []}}, "BMS.0018"),
        ({"os-stop": {"servers": {}}}, "BMS.0018"),
        ({"os-stop": {"servers": [NEVER_SEEN]}}, "BMS.0018"),
        ({"os-stop": {"servers": [{"id": 1}]}}, "BMS.0018"),
        ({"os-stop": {"servers": [{"id": NEVER_SEEN}, {}]}}, "BMS.0018"),
        ({"os-stop": {"type": "SOFT", "servers": [{"id": NEVER_SEEN}]}}, "BMS.0018"),
    ],
    ids=repr,
)
def test_a_body_that_is_not_a_stop_is_refused(stop_all: Ask, body: Any, code: int) -> None:
    """Before any server is looked for."""
    answer = stop_all(body=body)
    assert (answer.status, answer.json()["error"]["code"]) == (400, code)


def test_who_may_only_read_may_not_stop(cloud: Simulator, stop_all: Ask) -> None:
    """403 with the code of the policy."""
    answer = stop_all(cloud.add_server(), token=cloud.token("watcher"))
    assert (answer.status, answer.json()["error"]["code"]) == (403, "BMS.0288")


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_job_that_is_not_there_is_refused(cloud: Simulator, stop_all: Ask, ask: Ask, wrapped: Any) -> None:
    """Also another project's; code and message are at the top, or where all others are."""
    cloud.bms.job_error_wrapped = wrapped
    theirs = stop_all(cloud.add_server()).json()["job_id"]
    admin = cloud.user("admin")
    own = admin.default_project
    assert own is not None
    identity = {"methods": ["password"], "password": {"user": {"id": admin.id, "password": admin.password}}}
    body = {"auth": {"identity": identity, "scope": {"project": {"id": own.id}}}}
    token = ask("POST", "/v3/auth/tokens", body, token=None).header("X-Subject-Token")
    error = {"code": "Common.0011", "message": "The job id is not valid."}
    for path, bearer in ((f"{cloud.project_id}/jobs/x", cloud.token()), (f"{own.id}/jobs/{theirs}", token)):
        answer = ask("GET", f"/v1/{path}", token=bearer)
        assert (answer.status, answer.json()) == (400, {"error": error} if wrapped else error)


def test_the_answer_can_lack_the_job(cloud: Simulator, stop_all: Ask) -> None:
    """The servers are stopped all the same."""
    cloud.bms.job_id = False
    server_id = cloud.add_server()
    answer = stop_all(server_id)
    assert (answer.status, answer.json()) == (200, {})
    assert cloud.server(server_id).vm_state == "stopped"


def test_the_parts_of_a_job_can_lack_their_servers(cloud: Simulator, stop_all: Ask, job: Lookup) -> None:
    """Then it is not known which is which."""
    cloud.bms.job_server_ids = False
    assert job(stop_all(cloud.add_server()))["entities"]["sub_jobs"][0]["entities"] == {}


def test_a_job_can_go_on_for_ever(cloud: Simulator, stop_all: Ask, job: Lookup) -> None:
    """Although the server is off."""
    cloud.bms.job_ends = False
    server_id = cloud.add_server()
    found = job(stop_all(server_id))
    assert statuses(found) == ("RUNNING", ["RUNNING"])
    assert found["end_time"] is None
    assert cloud.server(server_id).vm_state == "stopped"


def test_a_running_job_can_have_an_unknown_status(
    cloud: Simulator, stop_all: Ask, job: Lookup, clock: FakeClock
) -> None:
    """Until it has ended."""
    cloud.bms.job_word = "PENDING_PAYMENT"
    answer = stop_all(cloud.add_server(power_off_delay=8))
    assert statuses(job(answer)) == ("PENDING_PAYMENT", ["PENDING_PAYMENT"])
    clock.advance(8)
    assert statuses(job(answer)) == ("SUCCESS", ["SUCCESS"])


CODES = {
    ConflictKind.VM_STATE: "BMS.0039",
    ConflictKind.TASK_STATE: "BMS.0036",
    ConflictKind.LOCKED: "Ecs.0605",
    ConflictKind.NOT_READY: "Ecs.0100",
    ConflictKind.NEVER_LAUNCHED: "Ecs.0100",
}


@pytest.mark.parametrize(("kind", "code"), CODES.items(), ids=str)
def test_each_conflict_has_a_code_here(cloud: Simulator, stop_all: Ask, kind: Any, code: int) -> None:
    """400, as this API has no 409; a fault about one server strikes the batch that it is in."""
    one, two = cloud.add_server(), cloud.add_server()
    cloud.inject(Fault.conflict(kind, two))
    assert stop_all(one).status == 200
    answer = stop_all(two, cloud.add_server())
    assert (answer.status, answer.json()["error"]["code"]) == (400, code)
    assert cloud.server(two).vm_state == "active"


def test_an_error_can_hide_that_the_batch_was_taken(cloud: Simulator, stop_all: Ask) -> None:
    """Of this API or of the gateway."""
    one, two = cloud.add_server(), cloud.add_server()
    cloud.inject(Fault.bms(CallKind.STOP, "BMS.1007", 500, act=True))
    cloud.inject(Fault.gateway_code(CallKind.STOP, "APIG.0203", 504, act=True))
    assert [stop_all(one).status, stop_all(two).status] == [500, 504]
    assert (cloud.stops_taken(one), cloud.stops_taken(two)) == (1, 1)


def test_a_rival_stops_every_server_of_the_batch(cloud: Simulator, stop_all: Ask) -> None:
    """Who is too late does no harm."""
    ids = [cloud.add_server(), cloud.add_server(vm_state="stopped")]
    cloud.inject(Fault.two_stops_at_once())
    assert stop_all(*ids).status == 500
    assert [cloud.server(id).vm_state for id in ids] == ["stopped", "stopped"]
    assert [cloud.stops_taken(id) for id in ids] == [0, 0]


def test_a_stop_of_either_api_counts_and_is_cut_alike(cloud: Simulator, stop: Ask, stop_all: Ask) -> None:
    """One test serves for both."""
    for send in (stop, stop_all):
        server_id = cloud.add_server()
        cloud.inject(Fault.cut_after(CallKind.STOP, server_id))
        with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
            send(server_id)
        call = cloud.calls[-1]
        assert (call.server_id, call.server_ids, call.acted_on) == (server_id, (server_id,), (server_id,))
        assert (cloud.stops_sent(server_id), cloud.stops_taken(server_id)) == (1, 1)


def test_a_stop_by_this_api_is_in_novas_record(cloud: Simulator, stop_all: Ask, ask: Ask) -> None:
    """By who asked for it, and it has finished."""
    server_id = cloud.add_server()
    stop_all(server_id)
    entry = cloud.actions(server_id)[0]
    assert (entry.action, entry.user_id, entry.finish_time is None) == ("stop", cloud.user().id, False)
    assert ask("GET", f"/v2.1/servers/{server_id}/os-instance-actions").json()["instanceActions"][0]["action"] == "stop"
