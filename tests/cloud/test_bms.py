"""BMS v1: one stop for several servers, its job, and lists whose offset counts pages."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from handler.cloud.bms import BmsCloud
from handler.errors import (
    CallDenied,
    CloudError,
    CloudFault,
    CloudThrottled,
    CloudUnexpectedAnswer,
    CloudUnreachable,
    LoginRefused,
    ServerNotFound,
    StateConflict,
)
from handler.simulator import Api, BatchPolicy, CallKind, Fault, JobChildren, Simulator
from handler.stop.evidence import History
from handler.stop.model import Server
from handler.stop.ports import Pending, StopFailed, Taken
from tests.cloud.conftest import StartClient


@pytest.fixture
def otc() -> Iterator[Simulator]:
    """A cloud that has the API."""
    with Simulator.otc() as cloud:
        yield cloud


@pytest.fixture
def bms(otc: Simulator, start_client: StartClient) -> BmsCloud:
    """The cloud of one event."""
    made = start_client(otc, AUTOSTOP_API="bms").clouds.cloud(dry_run=False)
    assert isinstance(made, BmsCloud)
    return made


def _servers(cloud: Simulator, count: int, **options: Any) -> list[str]:
    return [cloud.add_server(**options) for _ in range(count)]


def _inject_job(cloud: Simulator, **job: Any) -> None:
    cloud.inject(Fault(on=CallKind.JOB, status=200, body=json.dumps(job)))


def _child(id_: str | None, status: str, code: str | None = None) -> dict[str, Any]:
    return {"status": status, "error_code": code, "entities": {"server_id": id_} if id_ else {}}


# --- servers and lists


def test_a_server_is_read_with_all_that_the_guards_need(otc: Simulator, bms: BmsCloud) -> None:
    """Without a task, its task state is null or missing."""
    id_ = otc.add_server("db-1", locked=True, tags=["a=b"], metadata={"k": "v"})
    for shown_as_null in (True, False):
        otc.bms.idle_task_state = shown_as_null
        server = bms.read([id_], 5)[id_]
        assert isinstance(server, Server)
        assert (server.name, server.vm_state, server.task_state, server.locked) == ("db-1", "active", None, True)
        assert "a=b" in server.tags
        assert server.metadata["k"] == "v"


def test_a_list_is_read_page_by_page(otc: Simulator, bms: BmsCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """`offset` counts pages from 1. The count may be that of one page, so that a search ends with an empty page."""
    monkeypatch.setattr("handler.cloud.servers.PAGE", 4)
    ids = _servers(otc, 8)
    assert {type(seen) for seen in bms.read(ids, 5).values()} == {Server}
    assert {server.id for server in bms.find(lambda _: True, 5)} == set(ids)
    lists = [call.path.partition("?")[2] for call in otc.calls if call.kind is CallKind.LIST]
    assert lists == [f"limit=4&offset={number}" for number in (1, 2, 1, 2, 3)]


def test_a_list_without_a_count_ends_with_an_empty_page(otc: Simulator, bms: BmsCloud) -> None:
    """Servers that are not on it are read one by one."""
    ids = _servers(otc, 5)
    otc.inject(Fault(on=CallKind.LIST, status=200, body='{"servers": [{"id": "x"}]}'))
    otc.inject(Fault(on=CallKind.LIST, status=200, body='{"servers": []}'))
    assert {type(seen) for seen in bms.read(ids, 5).values()} == {Server}
    assert (otc.count(CallKind.LIST), otc.count(CallKind.READ)) == (2, 5)


@pytest.mark.parametrize(("count", "complete"), [(3, True), (None, False), (4, False)])
def test_a_page_after_the_last_one_may_be_refused(
    otc: Simulator, bms: BmsCloud, count: int | None, complete: bool
) -> None:
    """If as many servers as it counts were read; otherwise one is missing."""
    ids = _servers(otc, 3)
    body = [bms._one(id_, 5).bodies[0] for id_ in ids]
    otc.inject(Fault(on=CallKind.LIST, status=200, body=json.dumps({"servers": body, "count": count})))
    otc.inject(Fault.bms(CallKind.LIST, "BMS.0018"))
    if complete:
        assert len(bms.find(lambda _: True, 5)) == 3
    else:
        with pytest.raises(CloudUnexpectedAnswer):
            bms.find(lambda _: True, 5)


def test_the_history_is_read_from_nova(otc: Simulator, bms: BmsCloud) -> None:
    """It manages the same servers, and the catalogue has its URL."""
    id_ = otc.add_server()
    otc.reboot_server(id_, user_id="u-7")
    history = bms.history(id_, 5)
    assert isinstance(history, History)
    assert history.actions is not None
    assert (history.actions[0].name, history.actions[0].user_id) == ("reboot", "u-7")
    assert [call.api for call in otc.calls if call.kind is CallKind.ACTIONS] == [Api.NOVA]


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Fault(on=CallKind.ACTIONS, status=404), History),
        (Fault(on=CallKind.ACTIONS, status=404, body="<html>"), History),
        (Fault(on=CallKind.ACTIONS, status=403), CallDenied),
        (Fault(on=CallKind.ACTIONS, status=500), CloudFault),
        # A stop without the history would be a guess; it is read again.
        (Fault(on=CallKind.LOGIN, status=404), CloudUnexpectedAnswer),
        (Fault(on=CallKind.LOGIN, status=503), CloudUnreachable),
    ],
)
def test_a_server_that_nova_does_not_have_has_no_history(
    otc: Simulator, bms: BmsCloud, fault: Fault, expected: type
) -> None:
    """This is neither an empty one, nor one that cannot be read now."""
    otc.inject(fault)
    result = bms.history(otc.add_server(), 5)
    assert type(result) is expected
    assert not isinstance(result, History) or result == History(actions=None)
    assert fault.on is not CallKind.LOGIN or (isinstance(result, CloudError) and result.waiting_helps)


def test_without_a_url_of_nova_there_is_no_history(otc: Simulator, start_client: StartClient) -> None:
    """As with an access key, whose login has no catalogue."""
    key = otc.key_environ(otc.add_access_key())
    environ = {**dict.fromkeys(otc.environ(), ""), **key, "AUTOSTOP_API": "bms", "AUTOSTOP_BMS_URL": otc.bms_url}
    without = start_client(otc, **environ).clouds.cloud(dry_run=False)
    assert without.history(otc.add_server(), 5) == History(actions=None)
    assert otc.count(CallKind.ACTIONS) == 0
    configured = start_client(otc, **environ, AUTOSTOP_COMPUTE_URL=otc.url).clouds.cloud(dry_run=False)
    history = configured.history(otc.add_server(), 5)
    assert isinstance(history, History)
    assert history.actions


# --- stops


def test_several_servers_are_stopped_with_one_call(otc: Simulator, bms: BmsCloud) -> None:
    """With the only documented type, and nothing but the ids."""
    ids = _servers(otc, 7)
    result = bms.stop(ids, 5)
    (call,) = [call for call in otc.calls if call.kind is CallKind.STOP]
    assert json.loads(call.body) == {"os-stop": {"type": "HARD", "servers": [{"id": id_} for id_ in ids]}}
    assert len({answer.job_id for answer in result.values() if isinstance(answer, Taken)}) == 1
    assert set(result) == set(ids)


def test_a_batch_has_at_most_a_thousand_servers(bms: BmsCloud) -> None:
    """The documented limit."""
    ids = [str(number) for number in range(2500)]
    groups = bms.stop_groups(ids)
    assert [len(group) for group in groups] == [1000, 1000, 500]
    assert [id_ for group in groups for id_ in group] == ids
    assert list(bms.stop_groups([])) == []


def test_a_refused_batch_is_sent_again_in_quarters(otc: Simulator, bms: BmsCloud) -> None:
    """Until the server that it was refused for is alone; the error is about that one then."""
    ids = _servers(otc, 16)
    otc.inject(Fault.bms(CallKind.STOP, "BMS.0037", server_id=ids[0], times=None))
    groups, sizes = [ids], []
    while groups:
        again: list[str] = []
        for group in groups:
            answers = bms.stop(group, 5)
            sizes.append(len(group))
            again += [id_ for id_, answer in answers.items() if isinstance(answer, CloudError) and answer.of_many]
        groups = [list(group) for group in bms.stop_groups(again)] if again else []
    assert sizes == [16, 4, 4, 4, 4, 1, 1, 1, 1]
    assert {otc.stops_taken(id_) for id_ in ids[1:]} == {1}
    alone = bms.stop(ids[:1], 5)[ids[0]]
    assert isinstance(alone, StateConflict)
    assert not alone.of_many


@pytest.mark.parametrize(
    "fault",
    [
        Fault.bms(CallKind.STOP, "BMS.0212"),
        Fault.gateway_code(CallKind.STOP, "APIG.0308", 429),
        Fault.gateway(CallKind.STOP, 504),
        Fault.cut_before(CallKind.STOP),
    ],
    ids=["overloaded", "throttled", "504", "cut"],
)
def test_a_batch_is_not_split_after_an_error_of_the_cloud_itself(otc: Simulator, bms: BmsCloud, fault: Fault) -> None:
    """More calls would not help."""
    ids = _servers(otc, 8)
    otc.inject(fault)
    answers = bms.stop(ids, 5)
    assert len({id(answer) for answer in answers.values()}) == 1
    assert not any(isinstance(answer, CloudError) and answer.of_many for answer in answers.values())
    assert bms.stop_groups(ids) == [ids]


@pytest.mark.parametrize("body", ["{}", '{"job_id": 7}', '{"job_id": "../x"}', "<html>", "", "[]", '{"job_id'])
def test_a_success_without_a_job_may_have_stopped_servers(otc: Simulator, bms: BmsCloud, body: str) -> None:
    """They must be read before anything else."""
    ids = _servers(otc, 3)
    otc.inject(Fault(on=CallKind.STOP, status=200, body=body, act=True))
    for answer in bms.stop(ids, 5).values():
        assert isinstance(answer, CloudUnexpectedAnswer)
        assert answer.maybe_acted
    assert bms.read_groups(ids) == [(id_,) for id_ in ids]


@pytest.mark.parametrize(
    ("body", "kind", "maybe_acted"),
    [
        ({"error": {"code": "BMS.0288", "message": "no"}}, CallDenied, False),
        ({"error": {"code": "BMS.0039", "message": "no"}}, StateConflict, False),
        ({"error": {"code": "BMS.1006", "message": "no"}}, ServerNotFound, False),
        ({"error_code": "APIG.0308", "error_msg": "no"}, CloudThrottled, False),
        ({"code": "BMS.1007", "message": "no"}, CloudFault, True),
        ({"error": {"code": "BMS.9999", "message": "no"}}, CloudUnexpectedAnswer, True),
    ],
)
def test_the_body_of_a_success_may_be_an_error(
    otc: Simulator, bms: BmsCloud, body: dict[str, Any], kind: type[CloudError], maybe_acted: bool
) -> None:
    """Of each server; the batch is split only if the error may be about one of them, and none was stopped."""
    ids = _servers(otc, 8)
    otc.inject(Fault(on=CallKind.STOP, status=200, body=json.dumps(body)))
    for error in bms.stop(ids, 5).values():
        assert type(error) is kind
        assert isinstance(error, CloudError)
        assert (error.maybe_acted, error.contradicts_status) == (maybe_acted, True)
    assert len(bms.stop_groups(ids)) == (4 if kind in (CallDenied, StateConflict, ServerNotFound) else 1)


def test_a_job_beside_an_error_is_read(otc: Simulator, bms: BmsCloud) -> None:
    """It has the result of the stop."""
    ids = _servers(otc, 2)
    otc.inject(Fault(on=CallKind.STOP, status=200, body='{"job_id": "j-1", "error_code": "BMS.0288"}'))
    assert {answer.job_id for answer in bms.stop(ids, 5).values() if isinstance(answer, Taken)} == {"j-1"}


def test_a_refused_login_is_raised_by_every_call(otc: Simulator, bms: BmsCloud) -> None:
    """It concerns all servers, also if it is refused while the job runs."""
    ids = _servers(otc, 2)
    bms.stop(ids, 5)
    otc.revoke_tokens()
    otc.inject(Fault(on=CallKind.LOGIN, status=401, times=None))
    for call in (lambda: bms.read(ids, 5), lambda: bms.read(["a"], 5), lambda: bms.stop(["a"], 5)):
        with pytest.raises(LoginRefused):
            call()


# --- jobs


def test_one_read_of_the_job_is_enough_for_its_servers(otc: Simulator, bms: BmsCloud) -> None:
    """They are pending while they power off, and are read themselves after that."""
    ids = _servers(otc, 6, power_off_delay=3600)
    bms.stop(ids, 5)
    assert bms.read_groups(ids) == [ids]
    assert {id_: type(answer) for id_, answer in bms.read(ids, 5).items()} == dict.fromkeys(ids, Pending)
    assert (otc.count(CallKind.JOB), otc.count(CallKind.READ), otc.count(CallKind.LIST)) == (1, 0, 0)
    for id_ in ids:
        otc.change(id_, vm_state="stopped")
    assert {seen.vm_state for seen in bms.read(ids, 5).values() if isinstance(seen, Server)} == {"stopped"}
    assert (otc.count(CallKind.JOB), otc.count(CallKind.LIST)) == (2, 1)


def test_servers_are_grouped_by_their_job(otc: Simulator, bms: BmsCloud) -> None:
    """A job does not have the servers of another."""
    ids = _servers(otc, 6, power_off_delay=3600)
    bms.stop(ids[:2], 5)
    bms.stop(ids[2:4], 5)
    assert bms.read_groups(ids) == [ids[:2], ids[2:4], (ids[4],), (ids[5],)]


@pytest.mark.parametrize("mixed", ["FAIL", "SUCCESS"])
def test_a_failed_child_is_a_failure_of_its_server_alone(otc: Simulator, bms: BmsCloud, mixed: str) -> None:
    """Whatever the status of the parent."""
    otc.bms.batch_policy, otc.bms.mixed_status = BatchPolicy.FAIL_SUB_JOB, mixed
    good, locked, busy = otc.add_server(), otc.add_server(locked=True), otc.add_server(task_state="rebooting")
    bms.stop([good, locked, busy], 5)
    seen = bms.read([good, locked, busy], 5)
    assert isinstance(seen[good], Server)
    for id_ in (locked, busy):
        failed = seen[id_]
        assert isinstance(failed, StopFailed)
        assert isinstance(failed.cause, StateConflict)
    assert bms.read_groups([locked]) == [(locked,)]


def test_a_child_is_the_result_of_its_server(otc: Simulator, bms: BmsCloud) -> None:
    """Without a valid child that has ended, a server is pending."""
    ids = _servers(otc, 5)
    bms.stop(ids, 5)
    children = [
        _child(ids[0].upper(), "SUCCESS"),
        _child(ids[1], "FAIL", "BMS.1007"),
        _child(ids[2], "FAIL"),
        _child(ids[3], "WAITING"),
        _child(None, "FAIL", "BMS.1007"),
        _child("another-server", "FAIL", "BMS.1007"),
        {"status": "FAIL", "entities": "none"},
        "random text",
    ]
    _inject_job(otc, status="RUNNING", entities={"sub_jobs": children})
    seen = bms.read(ids, 5)
    assert [type(seen[id_]) for id_ in ids] == [Server, StopFailed, StopFailed, Pending, Pending]
    assert set(seen) == set(ids)
    causes = [answer.cause for answer in seen.values() if isinstance(answer, StopFailed)]
    assert [type(cause) for cause in causes] == [CloudFault, CloudFault]
    assert [answer.report for answer in seen.values() if isinstance(answer, StopFailed)] == ["BMS.1007", ""]


@pytest.mark.parametrize("entities", [None, "none", {}, {"sub_jobs": None}, {"sub_jobs": "none"}])
@pytest.mark.parametrize(("status", "shown"), [("RUNNING", Pending), ("SUCCESS", Server), ("FAIL", StopFailed)])
def test_a_job_without_children_has_the_result_of_its_servers(
    otc: Simulator, bms: BmsCloud, entities: object, status: str, shown: type
) -> None:
    """After a success the servers are read; a failure is reported for each of them once, and it is read after that."""
    ids = _servers(otc, 2)
    bms.stop(ids, 5)
    _inject_job(otc, status=status, entities=entities, error_code="BMS.0039", fail_reason="it was\x1b off")
    seen = bms.read(ids, 5)
    assert {type(one) for one in seen.values()} == {shown}
    if shown is StopFailed:
        assert {(type(one.cause), one.report) for one in seen.values() if isinstance(one, StopFailed)} == {
            (CloudFault, "BMS.0039: it was off")
        }
        assert {type(one) for id_ in ids for one in bms.read([id_], 5).values()} == {Server}


@pytest.mark.parametrize(
    ("job", "report"),
    [
        ({"error_code": "BMS.1007", "fail_reason": "why"}, "BMS.1007: why"),
        ({"error_code": None, "fail_reason": None}, "BMS.0001: child"),
        ({}, "BMS.0001: child"),
        ({"error_code": 7, "fail_reason": ["x"]}, "7"),
        ({"fail_reason": "two\nlines " + "x" * 300}, "two lines " + "x" * 190),
    ],
)
def test_a_failed_job_without_a_reason_has_that_of_a_child_without_a_server(
    otc: Simulator, bms: BmsCloud, job: dict[str, Any], report: str
) -> None:
    """On one line, of limited length."""
    ids = _servers(otc, 2)
    bms.stop(ids, 5)
    child = {"status": "FAIL", "error_code": "BMS.0001", "entities": {"errorcode_message": "child"}}
    running, success = _child(ids[0], "RUNNING"), _child(ids[1], "SUCCESS")
    _inject_job(otc, status="FAIL", entities={"sub_jobs": [running, {"status": "SUCCESS"}, child, success]}, **job)
    seen = bms.read(ids, 5)
    failed = seen[ids[0]]
    assert isinstance(failed, StopFailed)
    assert failed.report == report
    assert isinstance(seen[ids[1]], Server)


def test_a_failed_job_may_have_no_reason(otc: Simulator, bms: BmsCloud) -> None:
    """There is nothing to quote."""
    ids = _servers(otc, 1)
    bms.stop(ids, 5)
    _inject_job(otc, status="FAIL")
    failed = bms.read(ids, 5)[ids[0]]
    assert isinstance(failed, StopFailed)
    assert (failed.report, str(failed.cause)) == ("", "stopping servers: the job failed")


def test_the_reason_of_a_job_does_not_repeat_our_token(otc: Simulator, start_client: StartClient) -> None:
    """Whatever a gateway inserts."""
    client = start_client(otc, AUTOSTOP_API="bms")
    bms, ids = client.clouds.cloud(dry_run=False), _servers(otc, 1)
    bms.stop(ids, 5)
    token = client.login.access(5).token.reveal()
    _inject_job(otc, status="FAIL", error_code=token, fail_reason=f"x {token} y")
    assert token[:64] not in repr(bms.read(ids, 5))


@pytest.mark.parametrize("children", list(JobChildren))
def test_the_reason_of_a_simulated_job_is_read(otc: Simulator, bms: BmsCloud, children: JobChildren) -> None:
    """From the child, or from the job itself."""
    otc.bms.job_children = children
    ids = _servers(otc, 1, power_off_fails=True)
    bms.stop(ids, 5)
    failed = bms.read(ids, 5)[ids[0]]
    assert isinstance(failed, StopFailed)
    assert failed.report == "BMS.1007: An internal call failed."


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault.gateway(CallKind.JOB, 502), CloudUnreachable),
        (Fault.gateway_code(CallKind.JOB, "APIG.0308", 429), CloudThrottled),
        (Fault(on=CallKind.JOB, status=200, body="<html>"), CloudUnexpectedAnswer),
        (Fault.bms(CallKind.JOB, "Common.0011", flat=True), Server),
        (Fault.bms(CallKind.JOB, "BMS.0288", 403), Server),
        # For this call alone: the token was accepted by the stop.
        (Fault(on=CallKind.JOB, status=401, times=None), Server),
    ],
    ids=["502", "throttled", "page", "unknown job", "denied", "401"],
)
def test_a_job_that_cannot_be_read_is_read_again_or_dropped(
    otc: Simulator, bms: BmsCloud, fault: Fault, kind: type
) -> None:
    """Again if waiting helps; otherwise the servers themselves are read from then on."""
    ids = _servers(otc, 2)
    bms.stop(ids, 5)
    otc.inject(fault)
    assert {type(seen) for seen in bms.read(ids, 5).values()} == {kind}
    assert bms.read_groups(ids) == ([(ids[0],), (ids[1],)] if kind is Server else [ids])
