"""BMS v1 as it speaks: one stop for many, the job that reports it, and lists whose offset counts pages."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from handler.cloud.bms import BmsCloud
from handler.errors import (
    CallDenied,
    CallRejected,
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


def _servers(cloud: Simulator, count: int, **what: Any) -> list[str]:
    return [cloud.add_server(**what) for _ in range(count)]


def _jobs(cloud: Simulator, *bodies: dict[str, Any]) -> None:
    for body in bodies:
        cloud.inject(Fault(on=CallKind.JOB, status=200, body=json.dumps(body)))


def _child(id_: str | None, status: str, code: str | None = None) -> dict[str, Any]:
    return {"status": status, "error_code": code, "entities": {"server_id": id_} if id_ else {}}


# --- what it shows ---


def test_a_server_is_shown_with_all_that_the_guards_need(otc: Simulator, bms: BmsCloud) -> None:
    """Idle is a task state that is null, or left out."""
    id_ = otc.add_server("db-1", locked=True, tags=["a=b"], metadata={"k": "v"})
    for shown_as_null in (True, False):
        otc.bms.idle_task_state = shown_as_null
        server = bms.read([id_], 5)[id_]
        assert isinstance(server, Server)
        assert (server.name, server.vm_state, server.task_state, server.locked) == ("db-1", "active", None, True)
        assert "a=b" in server.tags
        assert server.metadata["k"] == "v"


def test_pages_are_turned_by_their_number(otc: Simulator, bms: BmsCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """`offset` counts pages from 1, and the count in the answer says when to end."""
    monkeypatch.setattr("handler.cloud.servers.PAGE", 4)
    ids = _servers(otc, 10)
    assert {type(seen) for seen in bms.read(ids, 5).values()} == {Server}
    lists = [call.path.partition("?")[2] for call in otc.calls if call.kind is CallKind.LIST]
    assert lists == ["limit=4&offset=1", "limit=4&offset=2", "limit=4&offset=3"]


def test_a_list_without_a_count_ends_with_an_empty_page(otc: Simulator, bms: BmsCloud) -> None:
    """What is not on it is asked for singly."""
    ids = _servers(otc, 5)
    otc.inject(Fault(on=CallKind.LIST, status=200, body='{"servers": [{"id": "x"}]}'))
    otc.inject(Fault(on=CallKind.LIST, status=200, body='{"servers": []}'))
    assert {type(seen) for seen in bms.read(ids, 5).values()} == {Server}
    assert (otc.count(CallKind.LIST), otc.count(CallKind.READ)) == (2, 5)


def test_a_list_goes_on_until_an_empty_page(otc: Simulator, bms: BmsCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """The count may be that of one page, and a page may be shorter than it was asked for."""
    monkeypatch.setattr("handler.cloud.servers.PAGE", 4)
    ids = _servers(otc, 8)
    assert {server.id for server in bms.find(lambda _: True, 5)} == set(ids)
    assert otc.count(CallKind.LIST) == 3


@pytest.mark.parametrize(("count", "whole"), [(3, True), (None, False), (4, False)])
def test_a_page_after_the_last_one_may_be_refused(
    otc: Simulator, bms: BmsCloud, count: int | None, whole: bool
) -> None:
    """If all that were promised have been seen; else something is missing."""
    ids = _servers(otc, 3)
    body = [bms._one(id_, 5).bodies[0] for id_ in ids]
    otc.inject(Fault(on=CallKind.LIST, status=200, body=json.dumps({"servers": body, "count": count})))
    otc.inject(Fault.bms(CallKind.LIST, "BMS.0018"))
    if whole:
        assert len(bms.find(lambda _: True, 5)) == 3
    else:
        with pytest.raises(CloudUnexpectedAnswer):
            bms.find(lambda _: True, 5)


def test_nova_is_asked_for_the_history(otc: Simulator, bms: BmsCloud) -> None:
    """It manages the same servers, and the catalogue says where it is."""
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
        (Fault(on=CallKind.ACTIONS, status=404), History(actions=None)),
        (Fault(on=CallKind.ACTIONS, status=404, body="<html>"), History(actions=None)),
        (Fault(on=CallKind.ACTIONS, status=403), CallDenied),
        (Fault(on=CallKind.ACTIONS, status=500), CloudFault),
    ],
)
def test_a_history_that_nova_does_not_keep_is_none(otc: Simulator, bms: BmsCloud, fault: Fault, expected: Any) -> None:
    """Which is something else than an empty one, and than one that it does not show just now."""
    otc.inject(fault)
    answer = bms.history(otc.add_server(), 5)
    assert answer == expected if isinstance(expected, History) else type(answer) is expected


@pytest.mark.parametrize("status", [404, 503])
def test_a_login_that_fails_is_no_missing_history(otc: Simulator, bms: BmsCloud, status: int) -> None:
    """A stop without the history would rest on nothing; it is read again."""
    id_ = otc.add_server()
    otc.inject(Fault(on=CallKind.LOGIN, status=status))
    answer = bms.history(id_, 5)
    assert isinstance(answer, CloudError)
    assert answer.waiting_helps


def test_without_an_address_of_nova_there_is_no_history(otc: Simulator, start_client: StartClient) -> None:
    """As with an access key, which brings no catalogue."""
    key = otc.key_environ(otc.add_access_key())
    environ = {**dict.fromkeys(otc.environ(), ""), **key, "AUTOSTOP_API": "bms", "AUTOSTOP_BMS_URL": otc.bms_url}
    without = start_client(otc, **environ).clouds.cloud(dry_run=False)
    assert without.history(otc.add_server(), 5) == History(actions=None)
    assert otc.count(CallKind.ACTIONS) == 0
    named = start_client(otc, **environ, AUTOSTOP_COMPUTE_URL=otc.url).clouds.cloud(dry_run=False)
    answer = named.history(otc.add_server(), 5)
    assert isinstance(answer, History)
    assert answer.actions


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("BMS.0040", 400, ServerNotFound),
        ("BMS.1006", 400, ServerNotFound),
        ("BMS.0288", 403, CallDenied),
        ("BMS.0018", 400, CallRejected),
        ("BMS.0212", 400, CloudThrottled),
        ("BMS.1007", 400, CloudFault),
        ("BMS.0002", 404, CloudUnexpectedAnswer),
        ("BMS.9999", 400, CallRejected),
        ("BMS.9999", 500, CloudFault),
    ],
)
def test_a_code_says_more_than_the_status(
    otc: Simulator, bms: BmsCloud, code: str, status: int, kind: type[CloudError]
) -> None:
    """Most refusals come as 400."""
    otc.inject(Fault.bms(CallKind.READ, code, status))
    id_ = otc.add_server()
    fault = bms.read([id_], 5)[id_]
    assert type(fault) is kind
    assert isinstance(fault, CloudError)
    assert fault.request_id is not None


# --- how it takes a stop ---


def test_a_stop_goes_out_once_for_all(otc: Simulator, bms: BmsCloud) -> None:
    """With the only type that is documented, and nothing but the ids."""
    ids = _servers(otc, 7)
    taken = bms.stop(ids, 5)
    (call,) = [call for call in otc.calls if call.kind is CallKind.STOP]
    assert json.loads(call.body) == {"os-stop": {"type": "HARD", "servers": [{"id": id_} for id_ in ids]}}
    assert len({answer.job_id for answer in taken.values() if isinstance(answer, Taken)}) == 1
    assert set(taken) == set(ids)


def test_batches_hold_a_thousand_at_most(bms: BmsCloud) -> None:
    """As the cloud documents it."""
    ids = [str(number) for number in range(2500)]
    groups = bms.stop_groups(ids)
    assert [len(group) for group in groups] == [1000, 1000, 500]
    assert [id_ for group in groups for id_ in group] == ids
    assert list(bms.stop_groups([])) == []


def test_a_refused_batch_comes_again_in_quarters(otc: Simulator, bms: BmsCloud) -> None:
    """Until the one that it was refused for stands alone; the fault then speaks of that one."""
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
def test_a_batch_that_fails_for_the_clouds_sake_is_not_divided(otc: Simulator, bms: BmsCloud, fault: Fault) -> None:
    """More calls would only make it worse."""
    ids = _servers(otc, 8)
    otc.inject(fault)
    answers = bms.stop(ids, 5)
    assert len({id(answer) for answer in answers.values()}) == 1
    assert not any(isinstance(answer, CloudError) and answer.of_many for answer in answers.values())
    assert bms.stop_groups(ids) == [ids]


@pytest.mark.parametrize("body", ["{}", '{"job_id": 7}', '{"job_id": "../x"}', "<html>", "", "[]", '{"job_id'])
def test_a_success_that_names_no_job_may_have_stopped_something(otc: Simulator, bms: BmsCloud, body: str) -> None:
    """Whatever is wrong with the answer: the servers have to be looked at before anything else."""
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
def test_a_success_with_an_error_in_its_body_is_what_the_error_says(
    otc: Simulator, bms: BmsCloud, body: dict[str, Any], kind: type[CloudError], maybe_acted: bool
) -> None:
    """For each server; a batch is divided only if one of them can be meant and none was stopped."""
    ids = _servers(otc, 8)
    otc.inject(Fault(on=CallKind.STOP, status=200, body=json.dumps(body)))
    answers = bms.stop(ids, 5)
    assert {(type(answer), isinstance(answer, CloudError) and answer.maybe_acted) for answer in answers.values()} == {
        (kind, maybe_acted)
    }
    assert all(isinstance(answer, CloudError) and answer.contradicts_status for answer in answers.values())
    divided = kind in (CallDenied, StateConflict, ServerNotFound)
    assert len(bms.stop_groups(ids)) == (4 if divided else 1)


def test_a_job_beside_an_error_is_followed(otc: Simulator, bms: BmsCloud) -> None:
    """It says best what becomes of the stop."""
    ids = _servers(otc, 2)
    otc.inject(Fault(on=CallKind.STOP, status=200, body='{"job_id": "j-1", "error_code": "BMS.0288"}'))
    assert {answer.job_id for answer in bms.stop(ids, 5).values() if isinstance(answer, Taken)} == {"j-1"}


def test_a_refused_login_is_raised_by_every_call(otc: Simulator, start_client: StartClient) -> None:
    """It concerns all servers."""
    bms = start_client(otc, AUTOSTOP_API="bms", OS_PASSWORD="wrong").clouds.cloud(dry_run=False)
    with pytest.raises(LoginRefused):
        bms.stop(["a"], 5)
    with pytest.raises(LoginRefused):
        bms.read(["a"], 5)


# --- what the job shows ---


def test_one_look_at_the_job_reports_all_its_servers(otc: Simulator, bms: BmsCloud) -> None:
    """Pending while they power off; afterwards the servers themselves are shown."""
    ids = _servers(otc, 6, power_off_delay=3600)
    bms.stop(ids, 5)
    assert bms.read_groups(ids) == [ids]
    assert bms.read(ids, 5) == dict.fromkeys(ids, Pending())
    assert (otc.count(CallKind.JOB), otc.count(CallKind.READ), otc.count(CallKind.LIST)) == (1, 0, 0)
    for id_ in ids:
        otc.change(id_, vm_state="stopped")
    assert {seen.vm_state for seen in bms.read(ids, 5).values() if isinstance(seen, Server)} == {"stopped"}
    assert (otc.count(CallKind.JOB), otc.count(CallKind.LIST)) == (2, 1)


def test_servers_of_two_jobs_and_of_none_are_read_in_groups_of_their_own(otc: Simulator, bms: BmsCloud) -> None:
    """A job does not show another's servers."""
    ids = _servers(otc, 6, power_off_delay=3600)
    bms.stop(ids[:2], 5)
    bms.stop(ids[2:4], 5)
    assert bms.read_groups(ids) == [ids[:2], ids[2:4], (ids[4],), (ids[5],)]


@pytest.mark.parametrize("mixed", ["FAIL", "SUCCESS"])
def test_what_a_child_failed_for_is_reported_of_its_server_alone(otc: Simulator, bms: BmsCloud, mixed: str) -> None:
    """Whatever the parent's status is."""
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


def test_children_are_believed_one_by_one(otc: Simulator, bms: BmsCloud) -> None:
    """Undocumented words, children that name no server and invalid ones only mean: not yet."""
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
        "rubbish",
    ]
    _jobs(otc, {"status": "RUNNING", "entities": {"sub_jobs": children}})
    seen = bms.read(ids, 5)
    assert [type(seen[id_]) for id_ in ids] == [Server, StopFailed, StopFailed, Pending, Pending]
    assert set(seen) == set(ids)
    causes = [answer.cause for answer in seen.values() if isinstance(answer, StopFailed)]
    assert [type(cause) for cause in causes] == [CloudFault, CloudFault]
    assert [answer.report for answer in seen.values() if isinstance(answer, StopFailed)] == ["BMS.1007", ""]


@pytest.mark.parametrize("entities", [None, "none", {}, {"sub_jobs": None}, {"sub_jobs": "none"}])
@pytest.mark.parametrize(("status", "shown"), [("RUNNING", Pending), ("SUCCESS", Server), ("FAIL", StopFailed)])
def test_a_job_without_children_is_waited_for_and_speaks_for_its_servers(
    otc: Simulator, bms: BmsCloud, entities: object, status: str, shown: type
) -> None:
    """Once it has ended well, the servers are read; if it has failed, that is reported of each, and then it is read."""
    ids = _servers(otc, 2)
    bms.stop(ids, 5)
    _jobs(otc, {"status": status, "entities": entities, "error_code": "BMS.0039", "fail_reason": "it was\x1b off"})
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
def test_a_failed_job_without_words_of_its_own_has_those_of_a_child_without_a_server(
    otc: Simulator, bms: BmsCloud, job: dict[str, Any], report: str
) -> None:
    """In one line, of bounded length."""
    ids = _servers(otc, 2)
    bms.stop(ids, 5)
    child = {"status": "FAIL", "error_code": "BMS.0001", "entities": {"errorcode_message": "child"}}
    good = {"status": "SUCCESS", "entities": {"server_id": ids[1]}}
    running = {"status": "RUNNING", "entities": {"server_id": ids[0]}}
    _jobs(otc, {"status": "FAIL", "entities": {"sub_jobs": [running, {"status": "SUCCESS"}, child, good]}, **job})
    seen = bms.read(ids, 5)
    failed = seen[ids[0]]
    assert isinstance(failed, StopFailed)
    assert failed.report == report
    assert isinstance(seen[ids[1]], Server)


def test_a_failed_job_without_any_words_says_so(otc: Simulator, bms: BmsCloud) -> None:
    """There is nothing to quote."""
    ids = _servers(otc, 1)
    bms.stop(ids, 5)
    _jobs(otc, {"status": "FAIL"})
    failed = bms.read(ids, 5)[ids[0]]
    assert isinstance(failed, StopFailed)
    assert (failed.report, str(failed.cause)) == ("", "stopping servers: the job failed")


def test_the_words_of_a_job_do_not_repeat_our_token(otc: Simulator, start_client: StartClient) -> None:
    """Whatever a gateway puts into them."""
    client = start_client(otc, AUTOSTOP_API="bms")
    bms, ids = client.clouds.cloud(dry_run=False), _servers(otc, 1)
    bms.stop(ids, 5)
    token = client.login.access(5).token
    _jobs(otc, {"status": "FAIL", "error_code": token, "fail_reason": f"x {token} y"})
    assert token[:64] not in repr(bms.read(ids, 5))


@pytest.mark.parametrize("children", list(JobChildren))
def test_a_simulated_job_fails_with_words_wherever_it_has_them(
    otc: Simulator, bms: BmsCloud, children: JobChildren
) -> None:
    """On the child, or on the job itself."""
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
    ],
    ids=["502", "throttled", "page", "unknown job", "denied"],
)
def test_a_job_that_cannot_be_asked_is_asked_again_or_left(
    otc: Simulator, bms: BmsCloud, fault: Fault, kind: type
) -> None:
    """Again if waiting helps; else the servers are looked at, and the job is forgotten."""
    ids = _servers(otc, 2)
    bms.stop(ids, 5)
    otc.inject(fault)
    assert {type(seen) for seen in bms.read(ids, 5).values()} == {kind}
    assert bms.read_groups(ids) == ([(ids[0],), (ids[1],)] if kind is Server else [ids])


def test_a_job_that_a_good_token_may_not_ask_leaves_the_servers_to_be_observed_at(
    otc: Simulator, bms: BmsCloud
) -> None:
    """401 for this call alone: it took the stop, and shows the servers."""
    ids = _servers(otc, 2)
    bms.stop(ids, 5)
    otc.inject(Fault(on=CallKind.JOB, status=401, times=None))
    assert {type(seen) for seen in bms.read(ids, 5).values()} == {Server}
    assert otc.count(CallKind.LOGIN) == 2


def test_a_login_that_is_refused_while_the_job_runs_is_raised(otc: Simulator, bms: BmsCloud) -> None:
    """It says nothing about the servers."""
    ids = _servers(otc, 2)
    bms.stop(ids, 5)
    otc.revoke_tokens()
    otc.inject(Fault(on=CallKind.LOGIN, status=401, times=None))
    with pytest.raises(LoginRefused):
        bms.read(ids, 5)
