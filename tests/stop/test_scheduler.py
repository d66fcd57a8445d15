"""The run of one event: many servers, one budget, and no server waits for another."""

from __future__ import annotations

import contextlib
import gc
import itertools
import logging
import random
from collections.abc import Callable
from typing import Any

import pytest

from handler.errors import (
    BudgetSpent,
    CallDenied,
    CloudError,
    CloudFault,
    CloudThrottled,
    CloudUnreachable,
    InternalError,
    LoginRefused,
    ServerNotFound,
    StateConflict,
)
from handler.stop import pauses
from handler.stop.calls import CompletedCall, Observations, Step, call
from handler.stop.model import Policy, Reason, ServerResult
from handler.stop.pauses import backoff
from handler.stop.ports import StopFailed, Taken
from handler.stop.server_task import ServerTask
from tests.stop.fakes import (
    ID,
    NOW,
    START,
    FakeExecutor,
    Raised,
    Scenario,
    Script,
    ScriptedCloud,
    acts,
    id_of,
    seconds,
    seen,
)

OFF = "active/powering-off"
DOWN = CloudUnreachable("down", status=503)
ONE, TWO, THREE = id_of(1), id_of(2), id_of(3)
STRANGER = id_of(999)
MANY = Policy(max_servers=1000)


def quick() -> Script:
    """A server that is stopped without errors."""
    return Script("active", "stopped")


def reasons(scenario: Scenario) -> list[Reason]:
    """The reasons in the order of the results."""
    return [result.reason for result in scenario.results()]


# --- the report ---


def test_the_results_stand_in_the_order_of_the_request() -> None:
    """However long each server took."""
    scenario = Scenario(
        Script("active", OFF, OFF, OFF, "stopped", lasts=2.0), Script("stopped"), Script("paused", lasts=1.0)
    )
    results = scenario.results()
    assert [result.id for result in results] == [ONE, TWO, THREE]
    assert [result.reason for result in results] == [Reason.CONFIRMED, Reason.ALREADY_STOPPED, Reason.WRONG_STATE]


def test_the_report_says_when_it_began_and_ended_and_through_which_api() -> None:
    """Times are those of the executor's wall clock."""
    scenario = Scenario(Script("stopped", lasts=1.5))
    report = scenario.report()
    assert (report.started_at, report.finished_at) == (NOW, NOW + seconds(1.5))
    assert (report.api, report.dry_run, report.refusal, report.failed) == ("nova", False, None, False)


def test_a_dry_run_of_many_servers_sends_nothing() -> None:
    """Each server that would be stopped is planned, and not one stop reaches the cloud."""
    scenario = Scenario(quick(), quick(), Script("stopped"), dry_run=True)
    report = scenario.report()
    assert [result.reason for result in report.servers] == [Reason.DRY_RUN, Reason.DRY_RUN, Reason.ALREADY_STOPPED]
    assert {call.kind for call in scenario.cloud.calls} == {"read"}


# --- side by side ---


def test_servers_are_worked_on_side_by_side() -> None:
    """Ten servers of three calls of a second each take three seconds, not thirty."""
    scenario = Scenario(*(Script("active", "stopped", lasts=1.0) for _ in range(10)))
    assert reasons(scenario) == [Reason.CONFIRMED] * 10
    assert scenario.elapsed < 3.5


@pytest.mark.parametrize("width", [1, 2, 3])
def test_never_more_calls_are_in_flight_than_allowed(width: int) -> None:
    """The width bounds reads, stops and reads together, and is used up."""
    scenario = Scenario(*(Script("active", OFF, "stopped", lasts=0.5) for _ in range(9)), width=width)
    assert reasons(scenario) == [Reason.CONFIRMED] * 9
    assert scenario.executor.most_at_once == width


def test_stops_go_before_reads() -> None:
    """The shorter the time between a read and the stop, the less can change in it."""
    scenario = Scenario(quick(), quick(), width=1, wait=0.0)
    assert reasons(scenario) == [Reason.ACCEPTED] * 2
    assert [(call.kind, call.id) for call in scenario.cloud.calls] == [
        ("read", ONE),
        ("stop", ONE),
        ("read", TWO),
        ("stop", TWO),
    ]


def test_stops_that_find_no_free_thread_wait_for_one() -> None:
    """One read showed three servers; their stops go out one after the other, before any other call."""
    scenario = Scenario(quick(), quick(), quick(), Script("stopped"), width=1, wait=0.0, together=3)
    assert reasons(scenario) == [Reason.ACCEPTED] * 3 + [Reason.ALREADY_STOPPED]
    assert [call.kind for call in scenario.cloud.calls] == ["read"] * 3 + ["stop"] * 3 + ["read"]


@pytest.mark.parametrize("one_by_one", [True, False])
def test_a_stop_of_one_server_does_not_wait_for_the_rest_of_an_answer(one_by_one: bool) -> None:
    """It is out before the next server that the same read showed is decided; what goes in a batch waits for all."""
    sent: list[list[str]] = []
    scenario = Scenario(quick(), Script("stopped"), quick(), together=3, one_by_one=one_by_one)

    def reported(server: ServerResult) -> None:
        if server.id == TWO:
            sent.append([call.id for call in scenario.cloud.calls if call.kind == "stop"])

    assert not scenario.report(on_result=reported).failed
    assert sent == [[ONE] if one_by_one else []]


def test_servers_due_together_are_read_together_if_the_cloud_can() -> None:
    """The cloud groups the servers, each time that calls are made."""
    scenario = Scenario(quick(), quick(), together=2)
    assert reasons(scenario) == [Reason.CONFIRMED] * 2
    reads = [call.at for call in scenario.cloud.calls if call.kind == "read"]
    assert reads[0] == reads[1]
    assert reads[2] == reads[3]


def test_a_busy_server_holds_up_no_other() -> None:
    """With one thread only, the others are stopped while one reboots to the end of the budget."""
    scenario = Scenario(Script("active/rebooting"), quick(), quick(), width=1)
    assert reasons(scenario) == [Reason.BUSY, Reason.CONFIRMED, Reason.CONFIRMED]
    assert max(call.at for call in scenario.cloud.calls if call.kind == "stop") < 1.0


def test_a_throttled_server_holds_up_no_other() -> None:
    """It is left alone for as long as the cloud wants; the others are done by then."""
    slow = CloudThrottled("slow", status=429, retry_after=8.0)
    scenario = Scenario(Script(slow, "active", "stopped"), quick(), width=1)
    assert reasons(scenario) == [Reason.CONFIRMED] * 2
    assert [call.at for call in scenario.cloud.of("read", ONE)][:2] == [0.0, 8.0]
    assert scenario.cloud.of("read", TWO)[-1].at < 1.0


# --- the budget ---


def test_a_wait_beyond_the_budget_ends_the_run_as_soon_as_the_others_are_done() -> None:
    """Nobody waits for what can't come in time; the longest wait that the cloud named is passed on."""
    soon, late = (CloudThrottled("slow", status=429, retry_after=reported) for reported in (60.0, 90.0))
    scenario = Scenario(Script(soon), Script(late), quick(), budget=50.0)
    with pytest.raises(BudgetSpent, match=r"2 of 3 servers not handled in time \(cloud-throttled\)") as caught:
        scenario.report()
    assert caught.value.retry_after == 90.0
    assert scenario.cloud.sequence(THREE) == ["read", "stop", "read"]
    assert scenario.elapsed < 1.0


def test_causes_are_named_once_each_and_in_order() -> None:
    """The message lists kinds of errors, not servers."""
    scenario = Scenario(Script(DOWN), Script(CloudThrottled("slow")), Script(DOWN), budget=5.0)
    with pytest.raises(BudgetSpent, match=r"3 of 3 .* \(cloud-throttled, cloud-unreachable\)") as caught:
        scenario.report()
    assert caught.value.retry_after is None
    assert isinstance(caught.value.__cause__, CloudError)
    assert caught.value.cause == DOWN.cause


def test_each_failed_call_is_reported_but_no_history_that_cannot_be_had() -> None:
    """The row of the server says that; answers are no failures."""
    failures: list[CloudError] = []
    recent, denied = seen("active", updated=NOW), CallDenied("no", status=403)
    scenario = Scenario(Script(DOWN, recent, "stopped", histories=[denied]), time=NOW - seconds(60))
    (server,) = scenario.report(on_failure=failures.append).servers
    assert (server.reason, failures) == (Reason.CONFIRMED, [DOWN])
    failing, broken = Script(recent, "stopped", histories=[DOWN, acts()]), failures[:0]
    Scenario(failing, time=NOW - seconds(60)).report(on_failure=broken.append)
    assert broken == [DOWN]


def test_each_result_is_reported_as_soon_as_it_is_there() -> None:
    """What was done is reported while others are still waited for, also if the event must come again, and only once."""
    heard: list[tuple[str, Reason, float]] = []
    slow = CloudThrottled("slow", status=429, retry_after=60.0)
    scenario = Scenario(Script(slow), quick(), Script("active", OFF), budget=30.0)

    def reported(server: ServerResult) -> None:
        heard.append((server.id, server.reason, scenario.elapsed))

    with pytest.raises(BudgetSpent):
        scenario.report(on_result=reported)
    (second, third) = heard
    assert second[:2] == (TWO, Reason.CONFIRMED)
    assert second[2] < 1.0
    assert third[:2] == (THREE, Reason.ACCEPTED)


def test_what_ends_with_the_budget_is_reported_too() -> None:
    """A server that was still watched then has a result as well."""
    heard: list[ServerResult] = []
    scenario = Scenario(quick(), Script("active", OFF), budget=10.0)
    report = scenario.report(on_result=heard.append)
    assert heard == list(report.servers)


def test_what_was_done_before_a_refused_login_is_reported() -> None:
    """The event is sent again; the result is in the log already."""
    heard: list[str] = []
    scenario = Scenario(quick(), Script("active", Raised(LoginRefused("No.")), lasts=2.0))
    with pytest.raises(LoginRefused):
        scenario.report(on_result=lambda server: heard.append(server.id))
    assert heard == [ONE]


def test_a_budget_that_is_spent_before_the_start_makes_no_call() -> None:
    """The event comes again; the cloud has not heard of it."""
    scenario = Scenario(quick(), budget=0.0)
    with pytest.raises(BudgetSpent, match="the time was too short") as caught:
        scenario.report()
    assert scenario.cloud.calls == []
    assert (caught.value.retry_after, caught.value.__cause__) == (None, None)


@pytest.mark.parametrize("handover", [2.5, 3.0])
def test_a_call_that_gets_its_thread_only_at_the_deadline_is_not_made(handover: float) -> None:
    """All threads were busy with other events; the stop that was decided long ago is not sent any more."""
    scenario = Scenario(quick(), budget=5.0, executor=FakeExecutor(handover=handover))
    with pytest.raises(BudgetSpent):
        scenario.report()
    assert scenario.cloud.sequence() == ["read"]


def test_the_end_of_the_budget_cuts_off_one_server_of_an_answer_and_not_the_next() -> None:
    """A list was read as far as time allowed: who is on it is handled."""
    cut_off = CloudUnreachable("no answer")
    scenario = Scenario(Script(cut_off, lasts=1.0), Script("stopped"), together=2, budget=1.0)
    reported: list[ServerResult] = []
    with pytest.raises(BudgetSpent, match="1 of 2"):
        scenario.report(on_result=reported.append)
    assert [result.id for result in reported] == [TWO]


def test_the_error_of_a_run_is_the_last_complete_answer_and_not_the_timeout_after_it() -> None:
    """The last read has a tenth of a second left; that it is cut off says nothing about the cloud."""
    slow = CloudThrottled("slow", status=429, retry_after=2.0)
    scenario = Scenario(Script(slow, lasts=1.0), budget=3.1)
    with pytest.raises(BudgetSpent) as caught:
        scenario.report()
    assert [call.timeout for call in scenario.cloud.calls] == pytest.approx([3.1, 0.1])
    assert (caught.value.__cause__, caught.value.retry_after) == (slow, 2.0)


def test_the_run_ends_at_the_deadline_even_if_a_call_does_not() -> None:
    """A call in flight is left behind."""
    scenario = Scenario(Script("active", lasts=100.0, ignores_timeout=True), quick(), budget=6.0)
    with pytest.raises(BudgetSpent, match="1 of 2"):
        scenario.report()
    assert scenario.elapsed == pytest.approx(6.0)
    assert scenario.executor.turns < 20


def test_no_call_may_take_longer_than_ten_seconds_or_than_the_budget() -> None:
    """Each call gets the time that it may take."""
    scenario = Scenario(Script("active", OFF), budget=12.0, wait=60.0)
    scenario.report()
    for made in scenario.cloud.calls:
        assert made.timeout == pytest.approx(min(10.0, 12.0 - made.at))


# --- one server's own error, or the cloud's ---


def busy() -> Script:
    """A server that reboots to the end of the budget."""
    return Script("active/rebooting")


WATCHED = ["active", *[OFF] * 7, "stopped"]
SLOW = CloudThrottled("slow", status=429)
FAULT = CloudFault("broken", status=500, request_id="req-500")
ERROR, DONE, OPEN = Reason.CLOUD_ERROR, Reason.ALREADY_STOPPED, None


def among(*scripts: Script, **facts: Any) -> Callable[[], Scenario]:
    """A run over these servers."""
    return lambda: Scenario(*scripts, **facts)


# The reason of each server, if it has a result, and the number of its reads.
FAILING: list[tuple[str, Callable[[], Scenario], list[Reason | None], list[int] | None]] = [
    # The others can be read; one of them is read once more, as a probe.
    ("unreachable", among(Script("stopped"), Script(DOWN)), [DONE, ERROR], [2, 4]),
    ("failing", among(Script("stopped"), Script(FAULT)), [DONE, ERROR], [2, 4]),
    (
        "two of them, one probe",
        among(Script("stopped", lasts=0.3), Script(DOWN), Script(DOWN)),
        [DONE, ERROR, ERROR],
        [2, 4, 4],
    ),
    (
        "seen before it failed",
        among(Script(*["active/rebooting"] * 3, DOWN), Script("stopped")),
        [ERROR, DONE],
        [7, 2],
    ),
    ("the second probe succeeds", among(Script("stopped", DOWN, "stopped"), Script(DOWN)), [DONE, ERROR], [3, 5]),
    # No probe is needed.
    ("another is watched", among(Script(*WATCHED), Script(DOWN)), [Reason.CONFIRMED, ERROR], [9, 4]),
    ("another was seen since", among(Script(DOWN, lasts=0.1), Script("stopped"), width=1), [ERROR, DONE], [4, 1]),
    ("its stop was accepted", among(Script("active", DOWN), Script("stopped")), [Reason.ACCEPTED, DONE], [7, 1]),
    (
        "not known",
        among(Script(ServerNotFound("none", status=404)), Script("stopped")),
        [Reason.NOT_FOUND, DONE],
        [1, 1],
    ),
    (
        "not four in a row",
        among(Script(*[DOWN] * 3, "active/rebooting", *[DOWN] * 3, "active", "stopped"), busy()),
        [Reason.CONFIRMED, Reason.BUSY],
        None,
    ),
    # It may be an error of the cloud.
    ("none can be read", among(Script(DOWN), Script(DOWN)), [OPEN, OPEN], None),
    ("there is no other", among(Script(DOWN)), [OPEN], None),
    ("the probe fails", among(Script("stopped", DOWN), Script(DOWN), budget=20.0), [DONE, OPEN], None),
    (
        "another was seen before only",
        among(Script("stopped", DOWN), Script(DOWN, lasts=1.0), budget=20.0),
        [DONE, OPEN],
        None,
    ),
    (
        "seen as the probe for another",
        among(Script("active/rebooting", DOWN, DOWN, "active/rebooting", DOWN), Script(DOWN)),
        [OPEN, ERROR],
        None,
    ),
    ("throttled", among(Script(SLOW), busy(), budget=20.0), [OPEN, Reason.BUSY], None),
    (
        "a server that is not of the event was seen",
        among(Script(DOWN), unrequested={STRANGER: seen("active", STRANGER)}, budget=20.0),
        [OPEN],
        None,
    ),
    (
        "a stop of such a server was accepted",
        among(Script("active", stops=[DOWN]), unrequested={STRANGER: Taken()}, budget=30.0),
        [OPEN],
        None,
    ),
    ("no answer about it", among(Script(...), quick(), together=1), [OPEN, Reason.CONFIRMED], [1, 2]),
    ("no answer about it in a list", among(Script(...), quick(), together=2), [OPEN, Reason.CONFIRMED], [1, 2]),
    (
        "each call times out",
        among(Script("active", lasts=60.0), quick(), budget=30.0, wait=1.0),
        [OPEN, Reason.CONFIRMED],
        [3, 2],
    ),
]


@pytest.mark.parametrize(("make", "reasons", "reads"), [pytest.param(*row[1:], id=row[0]) for row in FAILING])
def test_a_server_that_cannot_be_read_fails_alone_only_if_another_can(
    make: Callable[[], Scenario], reasons: list[Reason | None], reads: list[int] | None
) -> None:
    """Else the event must come again; the others have their results in either case."""
    scenario, found = make(), dict[str, Reason]()
    unfinished = reasons.count(OPEN)
    with pytest.raises(BudgetSpent, match=f"^{unfinished} of") if unfinished else contextlib.nullcontext():
        scenario.report(on_result=lambda server: found.update({server.id: server.reason}))
    assert [found.get(id_) for id_ in scenario.ids] == reasons
    assert reads is None or [len(scenario.cloud.of("read", id_)) for id_ in scenario.ids] == reads


def test_what_a_run_held_is_free_once_it_is_over() -> None:
    """At once, not when Python next collects reference cycles: a thousand servers would stay in memory until then."""

    def tasks() -> list[ServerTask]:
        return [held for held in gc.get_objects() if isinstance(held, ServerTask)]

    gc.collect()
    before = len(tasks())
    gc.disable()
    try:
        scenario = Scenario(quick(), Script(DOWN, "stopped"), together=2)
        assert reasons(scenario) == [Reason.CONFIRMED, Reason.ALREADY_STOPPED]
        assert len(tasks()) == before
    finally:
        gc.enable()


# --- what ends the whole run ---


@pytest.mark.parametrize(
    "script",
    [
        Script(Raised(LoginRefused("no"))),
        Script("active", stops=[Raised(LoginRefused("no"))]),
        Script(seen("active", updated=NOW), histories=[Raised(LoginRefused("no"))]),
    ],
    ids=["read", "stop", "history"],
)
def test_a_refused_login_ends_the_run_at_once(script: Script) -> None:
    """Trying again would only lock the account, so nothing more is sent."""
    scenario = Scenario(script, time=NOW)
    with pytest.raises(LoginRefused):
        scenario.report()
    assert scenario.elapsed == 0.0
    assert len({call.kind for call in scenario.cloud.calls}) == len(scenario.cloud.calls)


@pytest.mark.parametrize("bug", [KeyError("secret"), CloudUnreachable("secret")])
def test_a_defect_in_the_cloud_is_an_internal_fault_and_is_logged(
    bug: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """The traceback goes to the log, and not into the message; what concerns one server must not be raised."""
    with caplog.at_level(logging.ERROR), pytest.raises(InternalError) as caught:
        Scenario(quick(), Script(Raised(bug))).report()
    assert caught.value.__cause__ is bug
    assert str(caught.value) == "a call to the cloud failed in an unexpected way"
    (record,) = caplog.records
    assert record.message == "a call of the run failed"
    assert record.exc_info is not None
    assert record.exc_info[1] is bug


# --- servers that were not asked for ---


def test_an_answer_about_another_server_changes_nothing() -> None:
    """It is neither read nor stopped nor reported."""
    scenario = Scenario(quick(), unrequested={STRANGER: seen("active", STRANGER)})
    assert [result.id for result in scenario.results()] == [ONE]
    assert {call.id for call in scenario.cloud.calls} == {ONE}


# --- the pauses ---


@pytest.mark.parametrize(
    ("attempt", "longest"), [(1, 0.5), (2, 1.0), (3, 2.0), (4, 4.0), (5, 8.0), (6, 8.0), (100, 8.0)]
)
def test_pauses_double_to_eight_seconds_and_differ(attempt: int, longest: float) -> None:
    """From the half to the whole of a bound that doubles, so that many servers do not come back together."""
    drawn = [backoff(attempt) for _ in range(200)]
    assert longest / 2 <= min(drawn) < max(drawn) <= longest


# --- many servers together ---


def test_a_second_stop_after_a_failed_job_is_watched_as_if_it_were_the_first() -> None:
    """What was seen of the first stop says nothing about the second, which has not begun yet."""
    read = Script(
        "active",
        StopFailed(StateConflict("BMS.0037")),
        "active",
        "active",
        "stopped",
        stops=[Taken("req-1", "job-1"), Taken("req-2", "job-2")],
    )
    result = Scenario(read).result()
    assert (result.reason, result.job_id) == (Reason.CONFIRMED, "job-2")


def _of_many(fault: CloudError) -> CloudError:
    fault.of_many = True
    return fault


def test_a_refusal_that_means_some_other_server_of_the_batch_does_not_count_against_this_one() -> None:
    """However often the batch is split before this one stands alone."""
    refused = [_of_many(StateConflict("BMS.0037")) for _ in range(7)]
    scenario = Scenario(Script("active", *["active"] * 7, "stopped", stops=[*refused, Taken("req-1")]))
    assert scenario.result().reason is Reason.CONFIRMED
    assert len(scenario.cloud.of("stop")) == 8


def test_servers_that_failed_together_are_read_together_again() -> None:
    """The pause has chance in it, but the same chance for all of one answer: one call, not one for each."""
    lost = CloudUnreachable("no answer")
    scenario = Scenario(*(Script(lost, "stopped") for _ in range(8)), together=8)
    report = scenario.report(backoff=lambda attempt: random.uniform(0.2, 0.9) * attempt)
    assert {server.reason for server in report.servers} == {Reason.ALREADY_STOPPED}
    assert len({call.at for call in scenario.cloud.calls}) == 2


def test_each_server_of_an_answer_has_the_pause_of_its_own_failures() -> None:
    """The first failure of one and the second of another come in one answer; their next reads are not together."""
    busy = StateConflict("busy", status=409, retry_after=0.5)
    scenario = Scenario(Script(DOWN, DOWN, "stopped"), Script("active", DOWN, "stopped", stops=[busy]), together=2)
    scenario.results()
    reads = [[call.at for call in scenario.cloud.of("read", id_)] for id_ in scenario.ids]
    assert reads == [[0.0, 0.5, 1.5], [0.0, 0.5, 1.0]]


def test_many_servers_are_watched_with_few_reads() -> None:
    """Their stops are taken one after the other, yet each read shows all of them."""
    scripts = [Script("active", *[OFF] * 3, "stopped", stops=[Taken("req-1")], lasts=0.01) for _ in range(200)]
    scenario = Scenario(*scripts, together=1000, width=8, policy=MANY)
    report = scenario.report()
    assert {server.reason for server in report.servers} == {Reason.CONFIRMED}
    reads = {call.at for call in scenario.cloud.calls if call.kind == "read"}
    assert len(reads) <= 8


def test_a_given_wait_is_kept_even_if_others_are_read_just_before() -> None:
    """Early reads are for watching, not for a server whose calls the cloud wants later."""
    throttled = Script(CloudThrottled("later", retry_after=2.5), "stopped")
    others = [Script("active", *[OFF] * 12, "stopped") for _ in range(300)]
    scenario = Scenario(throttled, *others, policy=MANY)
    scenario.report()
    first, second = scenario.cloud.of("read")
    assert second.at - first.at >= 2.5


def test_a_given_wait_between_two_reads_does_not_separate_them() -> None:
    """Two servers whose reads are almost due are read together, past a third one that must be left alone still."""
    poll = pauses._FIRST_POLL
    throttled = CloudThrottled("later", retry_after=poll + 0.003)
    busy, left_alone, also_busy = (
        Script("active/rebooting"),
        Script(throttled, "stopped"),
        Script("active/rebooting", lasts=0.006),
    )
    scenario = Scenario(busy, left_alone, also_busy, budget=5.0)
    scenario.results()
    first, second, third = (scenario.cloud.of("read", id_)[1].at for id_ in scenario.ids)
    assert (first, second, third) == pytest.approx((poll, poll + 0.003, poll))


def test_a_call_about_many_may_take_longer() -> None:
    """A page of a thousand servers costs a cloud more than one of them."""
    scenario = Scenario(*(Script("stopped") for _ in range(501)), together=501, budget=100, policy=MANY)
    scenario.report()
    assert min(call.timeout for call in scenario.cloud.calls) == pytest.approx(60.0)


# --- a call that starts late ---


@pytest.mark.parametrize("late", [0.0, 2.5])
@pytest.mark.parametrize("probe", [True, False])
def test_a_call_whose_time_is_up_is_not_made_and_brings_nothing(late: float, probe: bool) -> None:
    """The run may still take it in; it then learns nothing of the server."""
    executor = FakeExecutor()
    cloud = ScriptedCloud({ID: Script("active")}, executor)
    completed = call(Step.STOP, (ID,), cloud, executor.monotonic, START - late, probe=probe)
    assert completed == CompletedCall(Step.STOP, (ID,), START, {}, probe=probe)
    assert cloud.calls == []


def test_reads_that_are_due_later_are_not_made_early() -> None:
    """Only those that are due within milliseconds come along with a read that is due."""
    scenario = Scenario(Script("active/rebooting"), Script("active/rebooting", lasts=1.0))
    scenario.results()
    reads = [call.at for call in scenario.cloud.of("read", scenario.ids[0])]
    assert min(later - earlier for earlier, later in itertools.pairwise(reads[6:-1])) >= 2.9


def test_the_newest_read_of_another_server_counts() -> None:
    """Of several, in whatever order their answers come."""
    observations = Observations()
    for began, number in ((2.0, 1), (3.0, 2), (1.0, 3)):
        id_ = id_of(number)
        observations.note(CompletedCall(Step.READ, (id_,), began, {id_: seen("active", id_)}))
    assert [observations.newest(id_of(number)) for number in (1, 2, 3)] == [3.0, 2.0, 3.0]
