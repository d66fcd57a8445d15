"""One server on its way through an event, as the run takes it there."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from handler.errors import (
    BudgetSpent,
    CallDenied,
    CallRejected,
    CloudError,
    CloudFault,
    CloudThrottled,
    CloudUnexpectedAnswer,
    CloudUnreachable,
    ServerNotFound,
    StateConflict,
)
from handler.stop import pauses
from handler.stop.evidence import Action, History, Lookup
from handler.stop.model import Outcome, Policy, Reason, ServerResult
from handler.stop.ports import Pending, ReadSingly, StopFailed, Taken
from tests.stop.fakes import ID, NOW, START, Scenario, Script, acts, seconds, seen

CONFLICT = StateConflict("busy", status=409, request_id="req-409")
FAULT = CloudFault("broken", status=500, request_id="req-500")
DOWN = CloudUnreachable("down", status=503)
LOST = CloudUnreachable("no answer", maybe_acted=True)
DENIED = CallDenied("no", status=403, request_id="req-403")
REJECTED = CallRejected("what?", status=400, request_id="req-400")
GONE = ServerNotFound("none", status=404, request_id="req-404")
CONFUSED = CloudUnexpectedAnswer("page not found", status=404)
PAGE = CloudUnexpectedAnswer("the answer must be a JSON object")
MOVED = CloudUnexpectedAnswer("HTTP 302", status=302)
OFF = "active/powering-off"
SOON, CHANGED = NOW + seconds(1), NOW + seconds(2)
EVENT, RECENT = NOW - timedelta(minutes=2), NOW - seconds(30)
STARTED = Action("start", RECENT)
NONE_KEPT = [History(None)]
MANY = Policy(max_servers=1000)


# --- the calls, in their order ---

OLD = seen("active", updated=NOW - timedelta(days=1))
ON, SYNC = seen("stopped", power_state=1), seen("stopped/powering-off", power_state=1)
AT_NOW, AT_CHANGE, AT_RECENT = (seen("active", updated=stamp) for stamp in (NOW, CHANGED, RECENT))
OURS = Action("stop", NOW, "req-stop", failed=True)
SLOW = CloudThrottled("slow", status=429, retry_after=10.0)
BUSY_JOB = StopFailed(StateConflict("BMS.0037"))


def one(
    *reads: Any, wait: float = 20.0, budget: float = 50.0, time: Any = None, **script: Any
) -> Callable[[], Scenario]:
    """A run over one server."""
    return lambda: Scenario(Script(*reads, **script), wait=wait, budget=budget, time=time)


FLOWS: dict[Reason, list[tuple[str, Callable[[], Scenario], str]]] = {
    Reason.CONFIRMED: [
        ("in error before", one("error", "error/powering-off", "stopped"), "read stop read read"),
        ("failed reads", one("active", DOWN, FAULT, OFF, "stopped"), "read stop read read read read"),
        ("another task before", one("active", "active/reboot_started", OFF, "stopped"), "read stop read read read"),
        ("another task after", one("active", OFF, "active/reboot_started", "stopped"), "read stop read read read"),
        ("another state", one("active", OFF, "paused", "stopped"), "read stop read read read"),
        ("power goes off late", one("active", OFF, ON, SYNC, ON, "stopped"), "read stop read read read read read"),
        *(
            (
                f"record that is not of a failure of our stop {number}",
                one(*["active"] * 3, "stopped", histories=[acts(entry)]),
                "read stop read history read history read",
            )
            for number, entry in enumerate(
                (OURS._replace(failed=False), OURS._replace(request_id="req-2"), OURS._replace(request_id=None))
            )
        ),
        (
            "reboot after a refusal",
            one("active", "active/rebooting", "active", "stopped", stops=[CONFLICT, Taken()]),
            "read stop read read history stop read",
        ),
        ("lost, stopped", one("active", "stopped", stops=[LOST]), "read stop read"),
        ("lost, powering off", one("active", OFF, OFF, "stopped", stops=[LOST]), "read stop read read read"),
        ("lost, and a failed read", one("active", DOWN, "stopped", stops=[LOST]), "read stop read read"),
        (
            "lost on its way",
            one("active", "active", OFF, "stopped", stops=[LOST, Taken()]),
            "read stop read history stop read read",
        ),
        (
            "lost, late",
            one("active", "active", OFF, "stopped", stops=[LOST, CONFLICT]),
            "read stop read history stop read read",
        ),
        (
            "lost, stopped late",
            one("active", "active", "stopped", stops=[LOST, CONFLICT]),
            "read stop read history stop read",
        ),
        ("record older than the stop", one(OLD, OLD, "stopped", stops=[LOST, Taken()]), "read stop read stop read"),
        (
            "created just before",
            one(
                "active",
                "active",
                "stopped",
                stops=[CONFLICT, Taken()],
                histories=[acts(Action("create", NOW - seconds(1)))],
            ),
            "read stop read history stop read",
        ),
        (
            "changed before the latest stop",
            one(AT_NOW, AT_CHANGE, AT_CHANGE, "stopped", stops=[CONFLICT, LOST, Taken()], histories=NONE_KEPT),
            "read stop read history stop read history stop read",
        ),
        ("not changed since", one(OLD, "stopped", time=EVENT), "read stop read"),
        ("not started since", one(AT_RECENT, "stopped", time=EVENT), "read history stop read"),
        ("pending job", one("active", Pending(), Pending(), "stopped"), "read stop read read read"),
        ("failed job, stopped", one("active", StopFailed(FAULT), "stopped"), "read stop read read"),
        (
            "second stop after a failed job",
            one("active", BUSY_JOB, "active", "active", "stopped"),
            "read stop read read history stop read history read",
        ),
        ("not on the list", one(ReadSingly(), "active", "stopped"), "read read stop read"),
        (
            "busy at first",
            one("active/rebooting", "active/reboot_started", "active", "stopped"),
            "read read read stop read",
        ),
    ],
    Reason.ACCEPTED: [
        ("no waiting time", one("active", wait=0.0), "read stop"),
        (
            "three refusals",
            one("active", stops=[*[CONFLICT] * 3, Taken()], wait=0.0),
            "read stop read history stop read history stop read history stop",
        ),
    ],
    Reason.REVERTED: [
        ("recorded as failed", one("active", histories=[acts(OURS)]), "read stop read history"),
        ("lost, runs again", one("active", OFF, "active", stops=[LOST]), "read stop read read"),
        ("failed job, runs", one("active", StopFailed(FAULT), "active"), "read stop read read"),
    ],
    Reason.CONFLICT: [
        (
            "failed read after four refusals",
            one(*["active"] * 4, DOWN, "active", stops=[CONFLICT]),
            "read stop read history stop read history stop read history stop read read history",
        ),
    ],
    Reason.POWER_STILL_ON: [
        ("lost, power still on", one("active", ON, stops=[LOST], wait=0.0), "read stop read"),
    ],
    Reason.STARTED_SINCE: [
        (
            "started between two stops",
            one("active", stops=[SLOW], histories=[acts(), acts(Action("start", SOON))]),
            "read stop read history stop read history",
        ),
        (
            "lost once stays lost",
            one(AT_NOW, AT_NOW, AT_CHANGE, stops=[LOST, CONFLICT], histories=NONE_KEPT),
            "read stop read history stop read history",
        ),
        ("started since", one(AT_RECENT, histories=[acts(STARTED)], time=EVENT), "read history"),
        (
            "history that fails at first",
            one(AT_RECENT, histories=[DOWN, CloudThrottled("slow"), FAULT, acts(STARTED)], time=EVENT),
            "read history read history read history read history",
        ),
        *(
            (
                f"{name} in place of the history",
                one(AT_RECENT, histories=[answer, acts(STARTED)], time=EVENT),
                "read history read history",
            )
            for name, answer in (("page", PAGE), ("redirect", MOVED))
        ),
        *(
            (
                f"restarted between two reads {number}",
                one(
                    seen("active", updated=first),
                    seen("active", updated=then),
                    stops=[CONFLICT],
                    histories=[acts(), acts(STARTED)],
                    time=EVENT,
                ),
                "read history stop read history",
            )
            for number, (first, then) in enumerate(
                [(RECENT, NOW), (RECENT, RECENT), (None, None), (None, NOW), (NOW, None)]
            )
        ),
    ],
    Reason.ALREADY_STOPPED: [
        ("job in another state", one("active", BUSY_JOB, "stopped"), "read stop read read"),
    ],
    Reason.FORBIDDEN: [
        ("job that was not permitted", one("active", StopFailed(DENIED)), "read stop read"),
    ],
}


@pytest.mark.parametrize(
    ("reason", "make", "calls"),
    [pytest.param(reason, *row[1:], id=row[0]) for reason, rows in FLOWS.items() for row in rows],
)
def test_a_stop_follows_a_read_that_allows_it(reason: Reason, make: Callable[[], Scenario], calls: str) -> None:
    """A stop is repeated only after another read, and none is sent after one that was accepted."""
    scenario = make()
    result = scenario.result()
    assert result.reason is reason
    assert " ".join(scenario.cloud.sequence()) == calls
    assert (result.previous_vm_state is not None) is ("stop" in calls and reason is not Reason.FORBIDDEN)


LATER = CloudUnreachable("down", status=503, retry_after=7.0)
AT_ONCE = CloudUnreachable("down", status=503, retry_after=0.0)
AFTER_3_S = CloudThrottled("slow", status=429, retry_after=3.0)


@pytest.mark.parametrize(
    ("script", "kind", "times"),
    [
        pytest.param(Script(DOWN, DOWN, LATER, "stopped"), "read", [0.0, 0.5, 1.5, 8.5], id="backoff or Retry-After"),
        pytest.param(Script(AT_ONCE, AT_ONCE, "stopped"), "read", [0.0, 0.5, 1.5], id="Retry-After 0"),
        pytest.param(
            Script("active", stops=[AT_ONCE, AT_ONCE, Taken()]), "stop", [0.0, 0.5, 1.5], id="stop, Retry-After 0"
        ),
        pytest.param(
            Script("active", stops=[AFTER_3_S] * 6 + [Taken()]),
            "stop",
            [0.0, 3.0, 6.0, 9.0, 12.0, 15.0, 18.0],
            id="a throttled stop is not a refusal",
        ),
        pytest.param(Script(ReadSingly(), "stopped"), "read", [0.0, 0.0], id="not on the list"),
        *(
            pytest.param(
                Script("active", "stopped", stops=[error]),
                "read",
                [0.0, 0.5],
                id=f"read after {type(error).__name__} {number}",
            )
            for number, error in enumerate((DOWN, LOST, CloudThrottled("slow", status=429), CONFUSED))
        ),
    ],
)
def test_calls_are_repeated_after_a_pause(script: Script, kind: str, times: list[float]) -> None:
    """The pause is the one that the cloud names, else the backoff; only after a refusal is the server read at once."""
    scenario = Scenario(script, wait=0.0)
    scenario.result()
    assert [call.at for call in scenario.cloud.of(kind)] == times


@pytest.mark.parametrize(
    ("servers", "pauses"),
    [
        (1, [0.015, 0.045, 0.135, 0.405, 1.215, 3.0, 3.0]),
        (15, [0.03, 0.09, 0.27, 0.81, 2.43, 3.0, 3.0]),
        (99, [0.198, 0.594, 1.782, 3.0, 3.0, 3.0, 3.0]),
        (100, [0.2, 0.6, 1.8, 5.0, 5.0, 5.0, 5.0]),
        (200, [0.4, 1.2, 3.6, 5.0, 5.0, 5.0, 5.0]),
    ],
)
@pytest.mark.parametrize("finished", [0, 199])
def test_the_pauses_between_reads_grow_with_their_number_and_the_servers_without_a_result(
    servers: int, pauses: list[float], finished: int
) -> None:
    """Servers that have a result do not count."""
    scripts = [Script("active", OFF) for _ in range(servers)] + [Script("stopped") for _ in range(finished)]
    scenario = Scenario(*scripts, wait=40.0, together=1000, policy=MANY)
    scenario.results()
    reads = [call.at for call in scenario.cloud.of("read")]
    assert [later - earlier for earlier, later in itertools.pairwise(reads)][:7] == pytest.approx(pauses)


@pytest.mark.parametrize(
    ("answer", "stop", "histories"),
    [
        pytest.param(acts(), Taken("req-1"), 7, id="nothing recorded"),
        *(
            pytest.param(answer, Taken("req-1"), 1, id=f"none shown {number}")
            for number, answer in enumerate((History(None), DENIED, REJECTED, GONE, CONFUSED))
        ),
        pytest.param(acts(), Taken(), 0, id="no request id to look for"),
        pytest.param(acts(), Taken("req-1", "job-1"), 0, id="a job that shows more"),
        pytest.param(DOWN, Taken("req-1"), 10, id="unreachable"),
        pytest.param(FAULT, Taken("req-1"), 10, id="failing"),
    ],
)
def test_the_history_of_an_accepted_stop_is_read_as_long_as_it_may_show_more(
    answer: Any, stop: Taken, histories: int
) -> None:
    """It does not extend the waiting time, after which the stop is accepted."""
    scenario = Scenario(Script("active", histories=[answer], stops=[stop]), wait=5.0)
    assert scenario.result().reason is Reason.ACCEPTED
    assert len(scenario.cloud.of("history")) == histories
    assert 4.0 < scenario.elapsed <= 5.0 + 1e-6


@pytest.mark.parametrize("error", [GONE, DENIED, REJECTED, DOWN, FAULT, CONFUSED, SLOW])
def test_an_accepted_stop_stays_accepted_though_the_server_cannot_be_read(error: CloudError) -> None:
    """Also if other servers can; the request id is that of the stop."""
    result = Scenario(Script("active", error), Script("active/rebooting"), wait=9.0).results()[0]
    assert (result.reason, result.request_id) == (Reason.ACCEPTED, "req-stop")


@pytest.mark.parametrize(
    ("script", "reason", "calls", "request_id"),
    [
        (Script("active", stops=[DENIED]), Reason.FORBIDDEN, ["read", "stop"], "req-403"),
        (Script("active", stops=[REJECTED]), Reason.REJECTED, ["read", "stop"], "req-400"),
        (Script(DENIED), Reason.FORBIDDEN, ["read"], "req-403"),
        (Script(REJECTED), Reason.REJECTED, ["read"], "req-400"),
    ],
)
def test_a_call_that_waiting_cannot_help_is_made_once(
    script: Script, reason: Reason, calls: list[str], request_id: str
) -> None:
    """The result has its request id."""
    scenario = Scenario(script)
    result = scenario.result()
    assert (result.reason, result.request_id, scenario.elapsed) == (reason, request_id, 0.0)
    assert scenario.cloud.sequence() == calls


@pytest.mark.parametrize(
    ("make", "cause"),
    [
        pytest.param(one("active", stops=[DOWN], budget=30.0), DOWN, id="no stop is taken"),
        pytest.param(one("active", stops=[CONFUSED], budget=30.0), CONFUSED, id="no stop is understood"),
        pytest.param(one("active", DOWN, stops=[LOST], budget=5.0), DOWN, id="lost, and not read since"),
        pytest.param(one("active/rebooting", DOWN, budget=10.0), DOWN, id="busy, and not read since"),
        pytest.param(one("active", lasts=100.0, budget=5.0), None, id="the only read is cut off"),
        pytest.param(one(AT_RECENT, histories=[DOWN], time=EVENT, budget=1.0), DOWN, id="no history"),
        pytest.param(one(AT_RECENT, histories=[AFTER_3_S], time=EVENT), AFTER_3_S, id="throttled history"),
        pytest.param(
            one("active", BUSY_JOB, "active", stops=[Taken("req-1", "job-1"), DOWN]),
            DOWN,
            id="a stop that its job took back is not one of another server",
        ),
    ],
)
def test_a_server_of_which_nothing_is_certain_makes_the_event_come_again(
    make: Callable[[], Scenario], cause: CloudError | None
) -> None:
    """The error of the event names the last failure."""
    with pytest.raises(BudgetSpent, match=r"1 of 1 servers not handled in time \(cloud-") as caught:
        make().result()
    assert cause is None or caught.value.__cause__ is cause


def test_a_read_that_the_end_of_the_budget_cuts_off_is_not_an_error() -> None:
    """Wherever the budget ends between the reads of a busy server, that is its result."""
    for cents in range(500, 900, 3):
        scenario = Scenario(Script("active/rebuilding", lasts=0.1), budget=cents / 100)
        assert scenario.result().reason is Reason.BUSY
        assert scenario.elapsed <= cents / 100 + 1e-6


# --- a stop that was taken ---


def test_a_server_seen_stopped_after_our_stop_is_confirmed() -> None:
    """The result carries the states before and after, and the ids that the cloud gave to the stop."""
    reads = [seen(state, name="ci-07") for state in ("active", OFF, OFF, "stopped")]
    scenario = Scenario(Script(*reads, stops=[Taken("req-1", "job-1")]))
    assert scenario.result()._replace(evidence=None) == ServerResult(
        ID, Reason.CONFIRMED, "Stopped; it was active.", "ci-07", "stopped", None, "active", "req-1", "job-1"
    )
    assert scenario.cloud.sequence() == ["read", "stop", "read", "read", "read"]


def test_a_stop_not_confirmed_within_the_wait_is_accepted() -> None:
    """The watch ends with the waiting time, on a last read at exactly its end."""
    scenario = Scenario(Script("active", OFF), wait=7.0)
    result = scenario.result()
    assert (result.reason, result.vm_state, result.task_state) == (Reason.ACCEPTED, "active", "powering-off")
    assert (result.previous_vm_state, result.request_id) == ("active", "req-stop")
    assert scenario.elapsed == pytest.approx(7.0)
    assert scenario.cloud.of("read")[-1].at == pytest.approx(7.0)


def test_busy_servers_are_read_a_little_early_to_save_calls() -> None:
    """Their operations began one after the other, yet each read shows all of them."""
    scripts = [Script("active", *["active/rebooting"] * 4, "stopped", stops=[CONFLICT], lasts=0.01) for _ in range(200)]
    scenario = Scenario(*scripts, together=1000, width=8, policy=MANY)
    assert {result.reason for result in scenario.results()} == {Reason.ALREADY_STOPPED}
    assert len({call.at for call in scenario.cloud.calls if call.kind == "read"}) <= 60


def test_a_read_that_is_due_at_the_very_end_of_the_watch_is_made() -> None:
    """The cloud asked to be left alone for exactly as long as the watch still lasts."""
    first_read = START + pauses._FIRST_POLL
    reported = CloudThrottled("slow", status=429, retry_after=START + 20.0 - first_read)
    scenario = Scenario(Script("active", reported, "stopped"), wait=20.0)
    assert scenario.result().reason is Reason.CONFIRMED
    assert scenario.elapsed == 20.0


# --- a stop that was turned down ---


@pytest.mark.parametrize(
    ("then", "reason"),
    [
        ("stopped", Reason.ALREADY_STOPPED),
        (OFF, Reason.ALREADY_STOPPING),
        (seen("active", locked=True), Reason.LOCKED),
        (GONE, Reason.NOT_FOUND),
        ("active/deleting", Reason.DELETING),
    ],
)
@pytest.mark.parametrize("refusal", [CONFLICT, FAULT, GONE])
def test_after_a_refusal_the_server_is_read_and_decided_again(refusal: CloudError, then: Any, reason: Reason) -> None:
    """Another user was quicker: what the second read shows counts, at once, and no second stop is sent."""
    scenario = Scenario(Script("active", then, stops=[refusal]))
    assert scenario.result().reason is reason
    assert scenario.cloud.sequence() == ["read", "stop", "read"]
    assert scenario.elapsed == 0.0


@pytest.mark.parametrize(
    ("refusal", "reason", "request_id"),
    [
        (CONFLICT, Reason.CONFLICT, "req-409"),
        (GONE, Reason.CONFLICT, "req-404"),
        (FAULT, Reason.CLOUD_ERROR, "req-500"),
    ],
)
def test_a_stop_turned_down_four_times_is_given_up(refusal: CloudError, reason: Reason, request_id: str) -> None:
    """Each time the server was read afresh and could be stopped; the pauses between the stops grow."""
    scenario = Scenario(Script("active", stops=[refusal]))
    result = scenario.result()
    assert (result.reason, result.request_id) == (reason, request_id)
    assert (result.vm_state, result.previous_vm_state) == ("active", "active")
    assert scenario.cloud.sequence() == ["read", "stop"] + ["read", "history", "stop"] * 3 + ["read", "history"]
    sent = [call.at for call in scenario.cloud.of("stop")]
    assert sent[1] == 0.0
    assert sent[1] < sent[2] < sent[3]


def test_a_server_that_the_cloud_does_not_know_is_not_found() -> None:
    """No state is given for it, since there is none."""
    assert Scenario(Script(GONE)).result() == ServerResult(
        ID,
        Reason.NOT_FOUND,
        "The cloud knows no such server in this project; check the id, and the project of the login.",
        request_id="req-404",
    )


# --- a start after our first stop attempt ---


@pytest.mark.parametrize("failed", [LOST, CONFLICT, FAULT, DOWN])
@pytest.mark.parametrize("at", [NOW - seconds(5), NOW, SOON])
def test_a_start_after_our_first_stop_counts_also_without_an_event_time(failed: CloudError, at: datetime) -> None:
    """Whatever the stop was answered with: the server is left running, and no second stop is sent."""
    scenario = Scenario(
        Script("active", "active", stops=[failed], histories=[acts(Action("start", at, user_id="u-7"))])
    )
    result = scenario.result()
    assert result.reason is Reason.STARTED_SINCE
    assert "u-7" in result.detail
    assert scenario.cloud.sequence() == ["read", "stop", "read", "history"]


def test_the_clouds_own_clock_says_when_our_stop_was_sent() -> None:
    """Ours is an hour ahead: the start came after the cloud showed the server to us, and so after the stop."""
    theirs = NOW - timedelta(hours=1)
    first = seen("active", cloud_time=theirs)
    started = Script(first, "active", stops=[LOST], histories=[acts(Action("start", theirs + seconds(1)))])
    before = Script(
        first, "active", "stopped", stops=[LOST, Taken()], histories=[acts(Action("start", theirs - seconds(6)))]
    )
    assert Scenario(started).result().reason is Reason.STARTED_SINCE
    assert Scenario(before).result().reason is Reason.CONFIRMED


CONTRADICTORY = StateConflict("busy", status=200)
CONTRADICTORY.contradicts_status = True


@pytest.mark.parametrize(
    ("before", "after", "failed", "reason"),
    [
        *((NOW, NOW, lost, Reason.CONFIRMED) for lost in (LOST, FAULT, CONTRADICTORY)),
        *((NOW, CHANGED, lost, Reason.STARTED_SINCE) for lost in (LOST, FAULT, CONTRADICTORY)),
        *((before, after, LOST, Reason.STARTED_SINCE) for before, after in ((NOW, None), (None, NOW), (None, None))),
        *((NOW, CHANGED, refused, Reason.CONFIRMED) for refused in (CONFLICT, DOWN)),
    ],
)
@pytest.mark.parametrize("time", [None, NOW - timedelta(minutes=2)])
def test_without_a_history_a_lost_stop_is_sent_again_only_if_the_record_has_not_changed(
    time: Any, before: Any, after: Any, failed: CloudError, reason: Reason
) -> None:
    """A stop that was turned down for certain is another matter: there the event's age counts alone."""
    reads = (seen("active", updated=before), seen("active", updated=after), "stopped")
    scenario = Scenario(Script(*reads, stops=[failed, Taken()], histories=NONE_KEPT), time=time)
    assert scenario.result().reason is reason
    assert len(scenario.cloud.of("stop")) == (2 if reason is Reason.CONFIRMED else 1)


# --- a job that failed ---

JOB = StopFailed(CloudFault("failed"), "BMS.1007: no power unit")


@pytest.mark.parametrize(
    ("reads", "reason"),
    [
        (["stopped"], Reason.CONFIRMED),
        ([OFF, "stopped"], Reason.CONFIRMED),
        *(([state], Reason.REVERTED) for state in ("active", "error", OFF, "active/rebooting", "deleted")),
        ([seen("stopped", power_state=0)], Reason.REVERTED),
        *(([error], Reason.REVERTED) for error in (DENIED, REJECTED, DOWN)),
        ([ON], Reason.POWER_STILL_ON),
        ([GONE], Reason.NOT_FOUND),
    ],
)
def test_a_server_whose_job_failed_is_never_accepted(reads: list[Any], reason: Reason) -> None:
    """It is read once more: off is confirmed, and anything else has failed, with the job's words in the sentence."""
    scenario = Scenario(Script("active", JOB, *reads, stops=[Taken("req-1", "job-1")]), wait=5.0)
    result = scenario.result()
    assert result.reason is reason
    assert ("BMS.1007: no power unit" in result.detail) is (reason is not Reason.CONFIRMED)
    assert result.request_id == ("req-404" if reason is Reason.NOT_FOUND else "req-1")
    assert len(scenario.cloud.of("stop")) == 1


def test_a_job_that_failed_says_nothing_of_the_next_stop() -> None:
    """The first job met a reboot; the second stop was taken, and is accepted for itself."""
    busy = StopFailed(StateConflict("busy"), "BMS.0037")
    scenario = Scenario(Script("active", busy, "active", OFF, stops=[Taken("req-1", "job-1")]), wait=5.0)
    result = scenario.result()
    assert (result.reason, "job" in result.detail) == (Reason.ACCEPTED, False)
    assert len(scenario.cloud.of("stop")) == 2


# --- waiting ---


def test_a_server_busy_to_the_end_has_failed_and_the_sentence_names_the_task() -> None:
    """It was read again and again, within the budget, and nothing was sent."""
    scenario = Scenario(Script("active/rebuilding"), budget=10.0)
    result = scenario.result()
    assert (result.outcome, result.reason, result.task_state) == (Outcome.FAILED, Reason.BUSY, "rebuilding")
    assert "rebuilding" in result.detail
    assert scenario.elapsed <= 10.0
    assert len(scenario.cloud.of("read")) > 3
    assert scenario.cloud.of("stop") == []


def test_throttled_stops_are_no_refusals_even_if_those_of_others_are_taken() -> None:
    """The cloud has nothing against this server; it only wants its calls later."""
    slow = CloudThrottled("slow", status=429, retry_after=3.0)
    late, other = Scenario(Script("active", stops=[slow] * 6 + [Taken()]), Script("active"), wait=0.0).results()
    assert (late.reason, other.reason) == (Reason.ACCEPTED, Reason.ACCEPTED)


# --- the history before a stop ---


@pytest.mark.parametrize("fault", [FAULT, DOWN, PAGE, MOVED])
def test_a_history_that_always_fails_is_this_servers_own_error(fault: CloudError) -> None:
    """The server can be read, so the cloud is there; without its history it is not stopped, and holds up no event."""
    scenario = Scenario(Script(seen("active", updated=RECENT), histories=[fault]), time=EVENT)
    result = scenario.result()
    assert (result.reason, result.vm_state, result.request_id) == (Reason.CLOUD_ERROR, "active", fault.request_id)
    assert result.evidence is not None
    assert result.evidence.history is Lookup.UNREADABLE
    assert scenario.cloud.sequence() == ["read", "history"] * 4
    assert [call.at for call in scenario.cloud.of("history")] == [0.0, 0.5, 1.5, 3.5]


def test_a_dry_run_goes_the_same_way_and_sends_nothing() -> None:
    """The dry run reads, asks the history, and says what it would have done."""
    scenario = Scenario(Script(seen("active", updated=RECENT)), time=EVENT, dry_run=True)
    report = scenario.report()
    (result,) = report.servers
    assert (report.dry_run, result.outcome, result.previous_vm_state) == (True, Outcome.PLANNED, None)
    assert result.detail == "It would be stopped; it is active."
    assert scenario.cloud.sequence() == ["read", "history"]


# --- a server that is recorded as stopped while its power is on ---


@pytest.mark.parametrize(
    ("power_state", "reason"),
    [
        *((off, Reason.CONFIRMED) for off in (None, 3, 4, 6, 7)),
        (1, Reason.POWER_STILL_ON),
        *((unknown, Reason.ACCEPTED) for unknown in (0, -1, 99)),
    ],
)
def test_only_a_server_whose_power_is_off_is_confirmed(power_state: int | None, reason: Reason) -> None:
    """What is on, or not known to be off, is watched until the waiting time ends."""
    scenario = Scenario(Script("active", seen("stopped", power_state=power_state)))
    result = scenario.result()
    assert (result.reason, result.vm_state) == (reason, "stopped")
    assert scenario.cloud.sequence()[:3] == ["read", "stop", "read"]
    assert (len(scenario.cloud.sequence()) > 3) == (reason is not Reason.CONFIRMED)
    if reason is not Reason.CONFIRMED:
        assert result.evidence is not None
        assert (result.evidence.vm_state, result.evidence.power_state) == ("stopped", power_state)


def test_the_evidence_of_a_power_that_stayed_on_is_of_the_last_read() -> None:
    """With its times and its running task, which is Nova's power sync."""
    last = seen("stopped/powering-off", power_state=1, updated=NOW + seconds(20))
    scenario = Scenario(Script("active", last))
    result = scenario.result()
    assert (result.reason, result.evidence is not None) == (Reason.POWER_STILL_ON, True)
    assert result.evidence is not None
    assert result.evidence.task_state == "powering-off"
    assert result.evidence.updated == NOW + seconds(20)
    assert result.evidence.observed_at == scenario.executor.now()


@pytest.mark.parametrize(
    "facts", [{"time": 40.0}, {"since": 40.0}, {"since": {ID: 40.0}}, {"time": 40.0, "since": 30.0}]
)
def test_a_time_that_is_ahead_does_not_hide_a_start_after_the_delivery(facts: dict[str, Any]) -> None:
    """It counts as the present time: a server that is started right after that is left running."""

    def ahead(value: Any) -> Any:
        return (
            {id_: NOW + seconds(one) for id_, one in value.items()} if isinstance(value, dict) else NOW + seconds(value)
        )

    started = Script("active", "active", "stopped", histories=[acts(Action("start", SOON))])
    scenario = Scenario(started, **{name: ahead(value) for name, value in facts.items()})
    assert scenario.result().reason is Reason.STARTED_SINCE
