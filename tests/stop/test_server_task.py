"""One server on its way through an event, as the run takes it there."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from handler.cloud.dry_run import DryRunCloud
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
from handler.stop.approval import ApprovedReview, PlanReview
from handler.stop.evidence import Action, History
from handler.stop.model import Outcome, Policy, Reason, ServerResult
from handler.stop.ports import ReadSingly, StopFailed, Taken
from tests.stop.fakes import ID, NOW, START, Scenario, Script, acts, seconds, seen
from tests.test_events_folder import REASONS

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
RUNNING = seen("active", updated=NOW - timedelta(hours=1))
MANY = Policy(max_servers=1000)


def ends(*reads: Any, **script: Any) -> ServerResult:
    """The result of one server with this script."""
    return Scenario(Script(*reads, **script)).result()


def _rehearsed() -> ServerResult:
    play = Scenario(Script("active"))
    (result,) = play.report(DryRunCloud(play.cloud), dry_run=True).servers
    return result


def _unreadable() -> ServerResult:
    return Scenario(Script(DOWN), Script("active", "stopped")).results()[0]


# One way to reach each reason.
WAYS: Mapping[Reason, Callable[[], ServerResult]] = {
    Reason.CONFIRMED: lambda: ends("active", OFF, "stopped"),
    Reason.ACCEPTED: lambda: ends("active", OFF),
    Reason.ALREADY_STOPPED: lambda: ends("stopped"),
    Reason.ALREADY_STOPPING: lambda: ends(OFF),
    Reason.PROTECTED: lambda: ends(seen("active", tags=frozenset({"autostop=never"}))),
    Reason.KEPT_UNTIL: lambda: ends(seen("active", metadata={"autostop-keep-until": "2099-01-01T00:00:00Z"})),
    Reason.LOCKED: lambda: ends(seen("active", locked=True)),
    Reason.NOT_BARE_METAL: lambda: ends(seen("active", flavor="s3.large.2")),
    Reason.STARTED_SINCE: lambda: ends("stopped/powering-on"),
    Reason.OTHER_PROJECT: lambda: ends(seen("active", other_project="0a1b")),
    Reason.NOT_OPTED_IN: lambda: Scenario(Script("active"), policy=Policy(only=("autostop", "allowed"))).result(),
    Reason.CHANGED_SINCE_PLAN: lambda: Scenario(Script(RUNNING), review=ApprovedReview({})).result(),
    Reason.NOT_FOUND: lambda: ends(GONE),
    Reason.WRONG_STATE: lambda: ends("paused"),
    Reason.POWER_STILL_ON: lambda: ends("active", OFF, seen("stopped", power_state=1)),
    Reason.BUSY: lambda: ends("active/rebooting"),
    Reason.DELETING: lambda: ends("active/deleting"),
    Reason.NEVER_LAUNCHED: lambda: ends(seen("error", launched=False)),
    Reason.FORBIDDEN: lambda: ends("active", stops=[DENIED]),
    Reason.CONFLICT: lambda: ends("active", stops=[CONFLICT]),
    Reason.REJECTED: lambda: ends("active", stops=[REJECTED]),
    Reason.REVERTED: lambda: ends("active", OFF, "active"),
    Reason.CLOUD_ERROR: _unreadable,
    Reason.DRY_RUN: _rehearsed,
    Reason.NEEDS_APPROVAL: lambda: Scenario(Script(RUNNING), review=PlanReview()).result(),
}


def test_there_is_a_way_to_each_reason_and_to_nothing_else() -> None:
    """A new reason of the vocabulary needs a scenario of its own here."""
    assert list(WAYS) == list(Reason), "WAYS above must lead to each reason, in the order of Reason"


@pytest.mark.parametrize("reason", WAYS)
def test_every_reason_can_be_reached(reason: Reason) -> None:
    """The vocabulary has no word that nothing leads to, and each comes with the contract's outcome and a sentence."""
    result = WAYS[reason]()
    assert result.reason is reason
    assert reason.value in REASONS[result.outcome.value]
    assert result.detail.endswith(".")


# --- a stop that was taken ---


def test_a_server_seen_stopped_after_our_stop_is_confirmed() -> None:
    """The result carries the states before and after, and the ids that the cloud gave to the stop."""
    reads = [seen(state, name="ci-07") for state in ("active", OFF, OFF, "stopped")]
    play = Scenario(Script(*reads, stops=[Taken("req-1", "job-1")]))
    assert replace(play.result(), evidence=None) == ServerResult(
        ID, Reason.CONFIRMED, "Stopped; it was active.", "ci-07", "stopped", None, "active", "req-1", "job-1"
    )
    assert play.cloud.story() == ["read", "stop", "read", "read", "read"]


def test_a_server_in_error_is_stopped_and_the_result_says_that_it_was() -> None:
    """The previous state is the one that the stop was decided on."""
    result = ends("error", "error/powering-off", "stopped")
    assert (result.reason, result.previous_vm_state) == (Reason.CONFIRMED, "error")


def test_a_stop_not_seen_through_within_the_wait_is_accepted() -> None:
    """The watch ends with the waiting time, on a last look at exactly its end."""
    play = Scenario(Script("active", OFF), wait=7.0)
    result = play.result()
    assert (result.reason, result.vm_state, result.task_state) == (Reason.ACCEPTED, "active", "powering-off")
    assert (result.previous_vm_state, result.request_id) == ("active", "req-stop")
    assert play.elapsed == pytest.approx(7.0)
    assert play.cloud.of("read")[-1].at == pytest.approx(7.0)


def test_a_wait_of_zero_does_not_look_again() -> None:
    """The stop is accepted, and the result says no more."""
    play = Scenario(Script("active"), wait=0.0)
    assert play.result().reason is Reason.ACCEPTED
    assert play.cloud.story() == ["read", "stop"]


def test_the_budget_ends_a_watch_that_would_last_longer() -> None:
    """What the cloud took is accepted, not an error, even if the server could not be read to the end."""
    play = Scenario(Script("active", OFF), wait=600.0, budget=10.0)
    assert play.result().reason is Reason.ACCEPTED
    assert play.elapsed <= 10.0


def test_the_looks_grow_apart() -> None:
    """The first look comes at once, for clouds that are quick; later ones are seconds apart, for those that are not."""
    play = Scenario(Script("active", OFF), wait=40.0)
    play.result()
    looks = [call.at for call in play.cloud.of("read")][1:-1]
    gaps = [round(later - earlier, 6) for earlier, later in itertools.pairwise(looks)]
    assert looks[0] <= 0.1
    assert gaps == sorted(gaps)
    assert 1.0 <= gaps[-1] <= 5.0


def _rhythm(servers: int) -> list[float]:
    """The pauses between the looks at servers that never stop."""
    play = Scenario(*(Script("active", OFF) for _ in range(servers)), wait=40.0, together=servers, policy=MANY)
    play.results()
    looks = [call.at for call in play.cloud.of("read")][:-1]
    return [later - earlier for earlier, later in itertools.pairwise(looks)]


@pytest.mark.parametrize(("servers", "longest"), [(1, 3.0), (15, 3.0), (99, 3.0), (100, 5.0), (200, 5.0)])
def test_the_larger_the_crowd_the_longer_the_pauses(servers: int, longest: float) -> None:
    """Each pause is so many times the one before, up to three seconds, or five from a hundred servers on."""
    first = max(pauses._FIRST_POLL, servers * pauses._POLL_PER_SERVER)
    wanted = [min(first * pauses._POLL_GROWTH**number, longest) for number in range(8)]
    assert _rhythm(servers)[:8] == pytest.approx(wanted)


def test_a_crowd_that_has_gone_home_is_none() -> None:
    """Only servers that are still open make the looks rarer."""
    others = [Script("stopped") for _ in range(199)]
    play = Scenario(*others, Script("active/rebooting"), together=1000, policy=MANY)
    assert play.results()[-1].reason is Reason.BUSY
    looks = [call.at for call in play.cloud.of("read", play.ids[-1])]
    assert looks[1] == pytest.approx(pauses._FIRST_POLL)


def test_busy_servers_are_observed_at_a_little_early_to_save_calls() -> None:
    """Their operations began one after the other, yet each look shows all of them."""
    scripts = [Script("active", *["active/rebooting"] * 4, "stopped", stops=[CONFLICT], lasts=0.01) for _ in range(200)]
    play = Scenario(*scripts, together=1000, width=8, policy=MANY)
    assert {result.reason for result in play.results()} == {Reason.ALREADY_STOPPED}
    assert len({call.at for call in play.cloud.calls if call.kind == "read"}) <= 60


@pytest.mark.parametrize("state", ["active", "error"])
def test_a_server_that_falls_back_after_powering_off_is_reverted(state: str) -> None:
    """Seen powering off and then running, or in error: the stop came to nothing."""
    result = ends("active", OFF, state)
    assert (result.reason, result.vm_state) == (Reason.REVERTED, state)
    assert state in result.detail


def test_a_failure_in_the_clouds_own_record_is_a_reverted_stop() -> None:
    """If powering off was too quick to be seen, the history shows that our request failed."""
    ours = Action("stop", NOW, "req-1", failed=True)
    play = Scenario(Script("active", stops=[Taken("req-1")], histories=[acts(ours)]))
    result = play.result()
    assert (result.reason, result.request_id) == (Reason.REVERTED, "req-1")
    assert play.cloud.story() == ["read", "stop", "read", "history"]


@pytest.mark.parametrize(
    "entry", [Action("stop", NOW, "req-1"), Action("stop", NOW, "req-2", failed=True), Action("stop", NOW, failed=True)]
)
def test_another_record_says_nothing_about_our_stop(entry: Action) -> None:
    """A record without an error, or of another user's request, goes on being watched."""
    result = ends("active", "active", "active", "stopped", stops=[Taken("req-1")], histories=[acts(entry)])
    assert result.reason is Reason.CONFIRMED


def test_without_a_record_the_watch_goes_on_to_its_end() -> None:
    """A server that never moves is accepted: nothing says that the stop failed."""
    play = Scenario(Script("active"), wait=5.0)
    assert play.result().reason is Reason.ACCEPTED
    assert len(play.cloud.of("history")) > 1


@pytest.mark.parametrize("answer", [History(None), DENIED, REJECTED, GONE, CONFUSED])
def test_a_history_that_is_not_shown_is_asked_for_once(answer: Any) -> None:
    """A cloud that keeps no history, or hides it, is not bothered again."""
    play = Scenario(Script("active", histories=[answer]), wait=5.0)
    assert play.result().reason is Reason.ACCEPTED
    assert len(play.cloud.of("history")) == 1


def test_a_stop_without_a_request_id_has_no_record_to_look_for() -> None:
    """Without the id no entry could be recognised as ours."""
    play = Scenario(Script("active", stops=[Taken()]), wait=5.0)
    assert play.result().reason is Reason.ACCEPTED
    assert play.cloud.of("history") == []


@pytest.mark.parametrize("fault", [DOWN, FAULT])
def test_a_failing_history_does_not_stretch_the_watch(fault: CloudError) -> None:
    """The watch ends with the waiting time, whatever the history does."""
    play = Scenario(Script("active", histories=[fault]), wait=5.0)
    assert play.result().reason is Reason.ACCEPTED
    assert play.elapsed <= 5.0


def test_a_server_deleted_while_it_is_watched_was_accepted() -> None:
    """The cloud took the stop; that a user deleted the server since is not a failure."""
    result = ends("active", OFF, "deleted")
    assert result.reason is Reason.ACCEPTED
    assert "deleted" in result.detail


@pytest.mark.parametrize("fault", [GONE, DENIED, REJECTED])
def test_a_server_no_longer_shown_while_it_is_watched_was_accepted(fault: CloudError) -> None:
    """What the cloud took stays taken; the request id is that of the stop."""
    result = ends("active", OFF, fault)
    assert (result.reason, result.request_id) == (Reason.ACCEPTED, "req-stop")


@pytest.mark.parametrize("fault", [DOWN, FAULT, CONFUSED, CloudThrottled("slow", status=429, retry_after=60.0)])
def test_a_server_that_cannot_be_watched_was_accepted(fault: CloudError) -> None:
    """An error in the watch is not a failure of a stop that was taken, even if other servers can be read."""
    result = Scenario(Script("active", fault), Script("active/rebooting"), wait=10.0).results()[0]
    assert (result.reason, result.request_id) == (Reason.ACCEPTED, "req-stop")


def test_an_error_in_the_watch_may_pass() -> None:
    """A failed look or two are made good by the next."""
    assert ends("active", DOWN, FAULT, OFF, "stopped").reason is Reason.CONFIRMED


@pytest.mark.parametrize("reads", [("active/reboot_started", OFF), (OFF, "active/reboot_started"), (OFF, "paused")])
def test_another_task_after_our_stop_is_watched_on(reads: tuple[str, ...]) -> None:
    """Whatever the cloud does on the way to stopped, only the end counts."""
    assert ends("active", *reads, "stopped").reason is Reason.CONFIRMED


def test_a_look_that_is_due_at_the_very_end_of_the_watch_is_made() -> None:
    """The cloud asked to be left alone for exactly as long as the watch still lasts."""
    first_look = START + pauses._FIRST_POLL
    reported = CloudThrottled("slow", status=429, retry_after=START + 20.0 - first_look)
    play = Scenario(Script("active", reported, "stopped"), wait=20.0)
    assert play.result().reason is Reason.CONFIRMED
    assert play.elapsed == 20.0


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
    """Another user was quicker: what the second look shows counts, at once, and no second stop is sent."""
    play = Scenario(Script("active", then, stops=[refusal]))
    assert play.result().reason is reason
    assert play.cloud.story() == ["read", "stop", "read"]
    assert play.elapsed == 0.0


def test_the_sentence_says_what_the_stop_was_answered_with() -> None:
    """A person can see that a stop was sent; the state before it stands in the row."""
    result = ends("active", "stopped", stops=[CONFLICT])
    assert "answered with 409" in result.detail
    assert result.previous_vm_state == "active"


def test_the_sentence_blames_the_stop_and_not_a_later_read() -> None:
    """A read that failed in between is not the answer to the stop."""
    result = ends("active", FAULT, "stopped", stops=[CONFLICT])
    assert "409" in result.detail
    assert "500" not in result.detail


def test_the_sentence_says_that_a_stop_had_no_answer() -> None:
    """A lost answer has no status that could be named."""
    result = ends("active", seen("active", locked=True), stops=[LOST])
    assert result.reason is Reason.LOCKED
    assert result.detail.endswith("Our stop had no answer.")


def test_a_sentence_without_a_stop_has_none() -> None:
    """Nothing was sent, and no state before it is given."""
    result = ends(DOWN, "stopped")
    assert (result.detail, result.previous_vm_state) == ("It was already stopped.", None)


def test_a_refusal_while_another_operation_runs_is_waited_out() -> None:
    """409, a reboot is seen, it ends, and the stop is sent anew."""
    play = Scenario(Script("active", "active/rebooting", "active", OFF, "stopped", stops=[CONFLICT, Taken("req-2")]))
    result = play.result()
    assert (result.reason, result.request_id) == (Reason.CONFIRMED, "req-2")
    assert play.cloud.story() == ["read", "stop", "read", "read", "history", "stop", "read", "read"]


@pytest.mark.parametrize(
    ("refusal", "reason", "request_id"),
    [
        (CONFLICT, Reason.CONFLICT, "req-409"),
        (GONE, Reason.CONFLICT, "req-404"),
        (FAULT, Reason.CLOUD_ERROR, "req-500"),
    ],
)
def test_a_stop_turned_down_four_times_is_given_up(refusal: CloudError, reason: Reason, request_id: str) -> None:
    """Each time the server was read afresh and looked ready; the pauses between the stops grow."""
    play = Scenario(Script("active", stops=[refusal]))
    result = play.result()
    assert (result.reason, result.request_id) == (reason, request_id)
    assert (result.vm_state, result.previous_vm_state) == ("active", "active")
    assert play.cloud.story() == ["read", "stop"] + ["read", "history", "stop"] * 3 + ["read", "history"]
    sent = [call.at for call in play.cloud.of("stop")]
    assert sent[1] == 0.0
    assert sent[1] < sent[2] < sent[3]


def test_three_refusals_are_not_yet_enough_to_give_up() -> None:
    """The fourth stop is taken."""
    assert ends("active", stops=[CONFLICT, CONFLICT, CONFLICT, Taken()]).reason is Reason.ACCEPTED


def test_what_ends_the_stops_is_judged_by_the_stops() -> None:
    """A read that failed after the fourth refusal changes nothing, and no fifth stop is sent."""
    play = Scenario(Script("active", "active", "active", "active", DOWN, "active", stops=[CONFLICT]))
    assert play.result().reason is Reason.CONFLICT
    assert len(play.cloud.of("stop")) == 4


@pytest.mark.parametrize("fault", [DOWN, CONFUSED])
def test_a_cloud_that_takes_no_stop_at_all_is_a_transient_error(fault: CloudError) -> None:
    """It answers reads, but no stop gets through: the event comes again later."""
    play = Scenario(Script("active", stops=[fault]), budget=30.0)
    with pytest.raises(BudgetSpent, match="1 of 1") as caught:
        play.result()
    assert caught.value.__cause__ is fault
    assert len(play.cloud.of("stop")) > 4


def test_a_cloud_that_takes_only_the_stops_of_others_fails_this_server() -> None:
    """If the stops of other servers get through, it is this server's own error."""
    unlucky, lucky = Scenario(Script("active", stops=[DOWN]), Script("active", "stopped")).results()
    assert (unlucky.reason, lucky.reason) == (Reason.CLOUD_ERROR, Reason.CONFIRMED)


@pytest.mark.parametrize(("fault", "reason"), [(DENIED, Reason.FORBIDDEN), (REJECTED, Reason.REJECTED)])
def test_what_waiting_cannot_help_ends_at_once(fault: CloudError, reason: Reason) -> None:
    """A denied or rejected call is made once, be it the read or the stop; the result carries its request id."""
    stop, read = Scenario(Script("active", stops=[fault])), Scenario(Script(fault))
    for play, story in ((stop, ["read", "stop"]), (read, ["read"])):
        result = play.result()
        assert (result.reason, result.request_id) == (reason, fault.request_id)
        assert play.cloud.story() == story
        assert play.elapsed == 0.0


def test_a_server_that_the_cloud_does_not_know_is_not_found() -> None:
    """No state is given for it, since there is none."""
    assert ends(GONE) == ServerResult(
        ID,
        Reason.NOT_FOUND,
        "The cloud knows no such server in this project; check the id, and the project of the login.",
        request_id="req-404",
    )


def test_a_server_that_went_while_it_was_stopped_keeps_its_name_and_loses_its_state() -> None:
    """404 on the stop, 404 on the look after it."""
    result = ends(seen("active", name="ci-07"), GONE, stops=[GONE])
    assert (result.reason, result.name, result.vm_state, result.task_state) == (Reason.NOT_FOUND, "ci-07", None, None)


# --- a stop whose answer was lost ---


@pytest.mark.parametrize("reads", [("stopped",), (OFF, "stopped"), (OFF, OFF, "stopped")])
def test_a_lost_answer_to_a_stop_that_acted_is_found_out_by_looking(reads: tuple[str, ...]) -> None:
    """The server is powering off, or is stopped: our stop did it, and is not sent again."""
    play = Scenario(Script("active", *reads, stops=[LOST]))
    result = play.result()
    assert (result.outcome, result.reason, result.previous_vm_state) == (Outcome.STOPPED, Reason.CONFIRMED, "active")
    assert len(play.cloud.of("stop")) == 1


def test_a_lost_answer_followed_by_a_failed_look_is_looked_into_again() -> None:
    """Only a successful look decides whether the stop acted."""
    play = Scenario(Script("active", DOWN, "stopped", stops=[LOST]))
    assert play.result().reason is Reason.CONFIRMED
    assert play.cloud.story() == ["read", "stop", "read", "read"]


def test_a_lost_answer_to_a_stop_that_did_not_act_is_sent_again_after_a_look() -> None:
    """Still active with no task: the stop got lost on its way, and a second one is due."""
    play = Scenario(Script("active", "active", OFF, "stopped", stops=[LOST, Taken("req-2")]))
    assert play.result().reason is Reason.CONFIRMED
    assert play.cloud.story() == ["read", "stop", "read", "history", "stop", "read", "read"]


@pytest.mark.parametrize("late", [OFF, "stopped"])
def test_a_lost_stop_that_acts_late_is_still_ours(late: str) -> None:
    """The look came too early and the second stop met the first at work: it was our stop all the same."""
    play = Scenario(Script("active", "active", late, "stopped", stops=[LOST, CONFLICT]))
    result = play.result()
    assert (result.reason, result.previous_vm_state) == (Reason.CONFIRMED, "active")
    assert len(play.cloud.of("stop")) == 2


def test_a_server_that_falls_back_after_a_lost_answer_is_reverted() -> None:
    """Seen powering off after the lost stop, then active again."""
    play = Scenario(Script("active", OFF, "active", stops=[LOST]))
    assert play.result().reason is Reason.REVERTED
    assert len(play.cloud.of("stop")) == 1


def test_a_lost_answer_at_the_end_of_the_budget_is_not_a_result() -> None:
    """Whether the stop acted is not known; the event is sent again, and finds it."""
    play = Scenario(Script("active", DOWN, stops=[LOST]), budget=5.0)
    with pytest.raises(BudgetSpent):
        play.result()


# --- a start after our first stop attempt ---

SOON = NOW + seconds(1)


@pytest.mark.parametrize("failed", [LOST, CONFLICT, FAULT, DOWN])
@pytest.mark.parametrize("at", [NOW - seconds(5), NOW, SOON])
def test_a_start_after_our_first_stop_counts_also_without_an_event_time(failed: CloudError, at: datetime) -> None:
    """Whatever the stop was answered with: the server is left running, and no second stop is sent."""
    play = Scenario(Script("active", "active", stops=[failed], histories=[acts(Action("start", at, user_id="u-7"))]))
    result = play.result()
    assert result.reason is Reason.STARTED_SINCE
    assert "u-7" in result.detail
    assert play.cloud.story() == ["read", "stop", "read", "history"]


def test_the_sentence_says_if_the_start_is_too_close_to_our_stop() -> None:
    """Within the tolerance of the clocks it is not known which came first."""
    history = acts(Action("start", NOW - seconds(2)))
    assert "too close to our stop to tell" in ends("active", "active", stops=[LOST], histories=[history]).detail


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


def test_the_first_stop_is_the_one_that_counts() -> None:
    """Somebody started it between our first stop and our second, which came later than the tolerance of the clocks."""
    slow = CloudThrottled("slow", status=429, retry_after=10.0)
    history = [acts(), acts(Action("start", NOW + seconds(1)))]
    play = Scenario(Script("active", stops=[slow], histories=history))
    assert play.result().reason is Reason.STARTED_SINCE
    assert len(play.cloud.of("stop")) == 2


def test_a_server_whose_record_is_older_than_our_stop_was_not_started_since() -> None:
    """No history needs to be asked for it."""
    old = NOW - timedelta(days=1)
    play = Scenario(Script(seen("active", updated=old), seen("active", updated=old), "stopped", stops=[LOST, Taken()]))
    assert play.result().reason is Reason.CONFIRMED
    assert play.cloud.of("history") == []


def test_the_creation_of_a_server_is_no_start_after_our_stop() -> None:
    """It was there when the stop was sent, however near that its creation was."""
    history = acts(Action("create", NOW - seconds(1)))
    play = Scenario(Script("active", "active", "stopped", stops=[CONFLICT, Taken()], histories=[history]))
    assert play.result().reason is Reason.CONFIRMED


NONE_KEPT = [History(None)]
CHANGED = NOW + seconds(2)
CONTRADICTORY = StateConflict("busy", status=200)
CONTRADICTORY.contradicts_status = True


@pytest.mark.parametrize(
    ("before", "after", "failed", "reason"),
    [
        (NOW, NOW, LOST, Reason.CONFIRMED),
        (NOW, NOW, FAULT, Reason.CONFIRMED),
        (NOW, CHANGED, LOST, Reason.STARTED_SINCE),
        (NOW, CHANGED, FAULT, Reason.STARTED_SINCE),
        (NOW, None, LOST, Reason.STARTED_SINCE),
        (None, NOW, LOST, Reason.STARTED_SINCE),
        (None, None, LOST, Reason.STARTED_SINCE),
        (NOW, NOW, CONTRADICTORY, Reason.CONFIRMED),
        (NOW, CHANGED, CONTRADICTORY, Reason.STARTED_SINCE),
        (NOW, CHANGED, CONFLICT, Reason.CONFIRMED),
        (NOW, CHANGED, DOWN, Reason.CONFIRMED),
    ],
)
@pytest.mark.parametrize("time", [None, NOW - timedelta(minutes=2)])
def test_without_a_history_a_lost_stop_is_sent_again_only_if_the_record_has_not_changed(
    time: Any, before: Any, after: Any, failed: CloudError, reason: Reason
) -> None:
    """A stop that was turned down for certain is another matter: there the event's age counts alone."""
    reads = (seen("active", updated=before), seen("active", updated=after), "stopped")
    play = Scenario(Script(*reads, stops=[failed, Taken()], histories=NONE_KEPT), time=time)
    assert play.result().reason is reason
    assert len(play.cloud.of("stop")) == (2 if reason is Reason.CONFIRMED else 1)


def test_what_was_lost_once_stays_lost() -> None:
    """The second stop is turned down for certain, and the record has changed by then."""
    reads = (seen("active", updated=NOW), seen("active", updated=NOW), seen("active", updated=CHANGED))
    play = Scenario(Script(*reads, stops=[LOST, CONFLICT], histories=NONE_KEPT))
    assert play.result().reason is Reason.STARTED_SINCE
    assert len(play.cloud.of("stop")) == 2


def test_the_record_before_the_latest_stop_is_the_one_that_must_not_change() -> None:
    """It changed after a stop that was turned down for certain, and not after the one whose answer was lost."""
    reads = (seen("active", updated=NOW), seen("active", updated=CHANGED), seen("active", updated=CHANGED), "stopped")
    play = Scenario(Script(*reads, stops=[CONFLICT, LOST, Taken()], histories=NONE_KEPT))
    assert play.result().reason is Reason.CONFIRMED
    assert len(play.cloud.of("stop")) == 3


# --- a job that failed ---

JOB = StopFailed(CloudFault("failed"), "BMS.1007: no power unit")


@pytest.mark.parametrize(
    ("reads", "reason"),
    [
        (["stopped"], Reason.CONFIRMED),
        (["active"], Reason.REVERTED),
        (["error"], Reason.REVERTED),
        ([OFF, "stopped"], Reason.CONFIRMED),
        ([OFF], Reason.REVERTED),
        (["active/rebooting"], Reason.REVERTED),
        ([seen("stopped", power_state=1)], Reason.POWER_STILL_ON),
        ([seen("stopped", power_state=0)], Reason.REVERTED),
        (["deleted"], Reason.REVERTED),
        ([GONE], Reason.NOT_FOUND),
        ([DENIED], Reason.REVERTED),
        ([REJECTED], Reason.REVERTED),
        ([DOWN], Reason.REVERTED),
    ],
)
def test_a_server_whose_job_failed_is_never_accepted(reads: list[Any], reason: Reason) -> None:
    """It is read once more: off is confirmed, and anything else has failed, with the job's words in the sentence."""
    play = Scenario(Script("active", JOB, *reads, stops=[Taken("req-1", "job-1")]), wait=5.0)
    result = play.result()
    assert result.reason is reason
    assert ("BMS.1007: no power unit" in result.detail) is (reason is not Reason.CONFIRMED)
    assert result.request_id == ("req-404" if reason is Reason.NOT_FOUND else "req-1")
    assert len(play.cloud.of("stop")) == 1


def test_a_job_that_failed_says_nothing_of_the_next_stop() -> None:
    """The first job met a reboot; the second stop was taken, and is accepted for itself."""
    busy = StopFailed(StateConflict("busy"), "BMS.0037")
    play = Scenario(Script("active", busy, "active", OFF, stops=[Taken("req-1", "job-1")]), wait=5.0)
    result = play.result()
    assert (result.reason, "job" in result.detail) == (Reason.ACCEPTED, False)
    assert len(play.cloud.of("stop")) == 2


def test_where_there_is_a_job_the_history_is_not_asked_about_our_stop() -> None:
    """The job shows more, and Nova has another request id for the stop."""
    play = Scenario(Script("active", stops=[Taken("req-1", "job-1")]), wait=5.0)
    assert play.result().reason is Reason.ACCEPTED
    assert play.cloud.of("history") == []


# --- a list that fails ---


def test_a_server_that_the_list_did_not_show_is_read_again_at_once() -> None:
    """And decided on as any other."""
    play = Scenario(Script(ReadSingly(), "active", "stopped"))
    assert play.result().reason is Reason.CONFIRMED
    assert play.cloud.story() == ["read", "read", "stop", "read"]
    assert play.cloud.of("read")[1].at == 0.0


# --- waiting ---


def test_a_busy_server_is_stopped_when_the_other_operation_is_done() -> None:
    """The function looks again until the task is gone."""
    play = Scenario(Script("active/rebooting", "active/reboot_started", "active", "stopped"))
    assert play.result().reason is Reason.CONFIRMED


def test_a_server_busy_to_the_end_has_failed_and_the_sentence_names_the_task() -> None:
    """It was looked at again and again, within the budget, and nothing was sent."""
    play = Scenario(Script("active/rebuilding"), budget=10.0)
    result = play.result()
    assert (result.outcome, result.reason, result.task_state) == (Outcome.FAILED, Reason.BUSY, "rebuilding")
    assert "rebuilding" in result.detail
    assert play.elapsed <= 10.0
    assert len(play.cloud.of("read")) > 3
    assert play.cloud.of("stop") == []


@pytest.mark.parametrize("cents", range(500, 900, 3))
def test_a_look_that_the_end_of_the_budget_cuts_off_is_not_an_error(cents: int) -> None:
    """Wherever in its rhythm of looks the budget ends, the server is called busy, and the event need not come again."""
    play = Scenario(Script("active/rebuilding", lasts=0.1), budget=cents / 100)
    assert play.result().reason is Reason.BUSY
    assert play.elapsed <= cents / 100 + 1e-6


def test_a_server_whose_only_look_is_cut_off_is_not_handled() -> None:
    """Nothing was seen of it; the event comes again, and the error names the cloud that did not answer."""
    with pytest.raises(BudgetSpent, match="cloud-unreachable"):
        Scenario(Script("active", lasts=100.0), budget=5.0).result()


def test_a_busy_server_that_cannot_be_read_any_more_is_not_called_busy() -> None:
    """At the end of the budget its state is not known, so the event is sent again."""
    with pytest.raises(BudgetSpent):
        Scenario(Script("active/rebooting", DOWN), budget=10.0).result()


def test_the_pause_after_a_failed_look_is_the_backoff_unless_the_cloud_names_one() -> None:
    """Half a second, one, two ...; or what `Retry-After` says."""
    reported = CloudUnreachable("down", status=503, retry_after=7.0)
    play = Scenario(Script(DOWN, DOWN, reported, "stopped"))
    play.result()
    assert [call.at for call in play.cloud.of("read")] == [0.0, 0.5, 1.5, 8.5]


def test_a_cloud_that_says_retry_at_once_is_not_asked_without_a_pause() -> None:
    """`Retry-After: 0` is not a reason to send thousands of calls: the backoff counts then, for reads and for stops."""
    at_once = CloudUnreachable("down", status=503, retry_after=0.0)
    read, stop = (
        Scenario(Script(at_once, at_once, "stopped")),
        Scenario(Script("active", stops=[at_once, at_once, Taken()])),
    )
    read.result()
    stop.result()
    assert [call.at for call in read.cloud.of("read")] == [0.0, 0.5, 1.5]
    assert [call.at for call in stop.cloud.of("stop")] == [0.0, 0.5, 1.5]


def test_the_pause_after_a_throttled_stop_is_the_one_the_cloud_names() -> None:
    """A throttled stop never counts as a refusal, however often; the server is read before each repetition."""
    slow = CloudThrottled("slow", status=429, retry_after=3.0)
    play = Scenario(Script("active", stops=[slow] * 6 + [Taken()]), wait=0.0)
    assert play.result().reason is Reason.ACCEPTED
    assert [call.at for call in play.cloud.of("stop")] == [0.0, 3.0, 6.0, 9.0, 12.0, 15.0, 18.0]


def test_throttled_stops_are_no_refusals_even_if_those_of_others_are_taken() -> None:
    """The cloud has nothing against this server; it only wants its calls later."""
    slow = CloudThrottled("slow", status=429, retry_after=3.0)
    late, other = Scenario(Script("active", stops=[slow] * 6 + [Taken()]), Script("active"), wait=0.0).results()
    assert (late.reason, other.reason) == (Reason.ACCEPTED, Reason.ACCEPTED)


@pytest.mark.parametrize("fault", [DOWN, LOST, CloudThrottled("slow", status=429), CONFUSED])
def test_only_a_refusal_is_looked_into_at_once(fault: CloudError) -> None:
    """After any other failure of a stop even the first look waits for a moment."""
    play = Scenario(Script("active", "stopped", stops=[fault]))
    play.result()
    assert [call.at for call in play.cloud.of("read")] == [0.0, 0.5]


# --- the history before a stop ---

EVENT = NOW - timedelta(minutes=2)
RECENT = NOW - seconds(30)
STARTED = Action("start", RECENT)


def test_a_server_started_since_the_event_is_skipped() -> None:
    """Read, ask the history, leave it running."""
    play = Scenario(Script(seen("active", updated=RECENT), histories=[acts(STARTED)]), time=EVENT)
    assert play.result().reason is Reason.STARTED_SINCE
    assert play.cloud.story() == ["read", "history"]


def test_a_server_not_started_since_the_event_is_stopped() -> None:
    """Read, ask the history, stop."""
    play = Scenario(Script(seen("active", updated=RECENT), "stopped"), time=EVENT)
    assert play.result().reason is Reason.CONFIRMED
    assert play.cloud.story() == ["read", "history", "stop", "read"]


@pytest.mark.parametrize("answer", [DENIED, REJECTED, GONE, CONFUSED, History(None)])
def test_without_evidence_the_age_rule_counts_alone_and_the_row_says_so(answer: Any) -> None:
    """A cloud without a history, or one that hides it, does not keep a server from being stopped."""
    play = Scenario(Script(seen("active", updated=RECENT), histories=[answer]), time=EVENT)
    (result,) = play.report(DryRunCloud(play.cloud), dry_run=True).servers
    assert result.reason is Reason.DRY_RUN
    assert "history could not be read" in result.detail


def test_an_error_with_the_history_may_pass() -> None:
    """The server is read and its history asked for again before anything is sent."""
    script = Script(seen("active", updated=RECENT), histories=[DOWN, CloudThrottled("slow"), FAULT, acts(STARTED)])
    play = Scenario(script, time=EVENT)
    assert play.result().reason is Reason.STARTED_SINCE
    assert play.cloud.story() == ["read", "history"] * 4


@pytest.mark.parametrize("nonsense", [PAGE, MOVED])
def test_a_page_in_place_of_the_history_says_nothing_about_it(nonsense: CloudError) -> None:
    """A proxy stepped in between; asked again, the cloud reports the start, and the server is left running."""
    play = Scenario(Script(seen("active", updated=RECENT), histories=[nonsense, acts(STARTED)]), time=EVENT)
    assert play.result().reason is Reason.STARTED_SINCE
    assert play.cloud.story() == ["read", "history"] * 2


@pytest.mark.parametrize("fault", [FAULT, DOWN, PAGE, MOVED])
def test_a_history_that_always_fails_is_this_servers_own_error(fault: CloudError) -> None:
    """The server can be read, so the cloud is there; without its history it is not stopped, and holds up no event."""
    play = Scenario(Script(seen("active", updated=RECENT), histories=[fault]), time=EVENT)
    result = play.result()
    assert (result.reason, result.vm_state, result.request_id) == (Reason.CLOUD_ERROR, "active", fault.request_id)
    assert play.cloud.story() == ["read", "history"] * 4
    assert [call.at for call in play.cloud.of("history")] == [0.0, 0.5, 1.5, 3.5]


def test_a_history_that_fails_to_the_end_of_the_budget_is_named_as_the_cause() -> None:
    """Who reads the answer learns that the cloud could not be had."""
    play = Scenario(Script(seen("active", updated=RECENT), histories=[DOWN]), time=EVENT, budget=1.0)
    with pytest.raises(BudgetSpent, match="cloud-unreachable") as caught:
        play.result()
    assert caught.value.__cause__ is DOWN


def test_a_throttled_history_is_never_held_against_the_server() -> None:
    """It is asked for to the end of the budget; then the event comes again."""
    script = Script(seen("active", updated=RECENT), histories=[CloudThrottled("slow", retry_after=1.0)])
    play = Scenario(script, time=EVENT, budget=10.0)
    with pytest.raises(BudgetSpent):
        play.result()
    assert len(play.cloud.of("history")) == 10


@pytest.mark.parametrize("updated", [[RECENT, NOW], [RECENT, RECENT], [None, None], [None, NOW], [NOW, None]])
def test_a_history_is_asked_for_anew_after_each_look(updated: list[Any]) -> None:
    """A user restarted it between two looks, if need be within one second of `updated`: the history shows it."""
    first, then = (seen("active", updated=stamp) for stamp in updated)
    play = Scenario(Script(first, then, stops=[CONFLICT], histories=[acts(), acts(STARTED)]), time=EVENT)
    assert play.result().reason is Reason.STARTED_SINCE
    assert play.cloud.story() == ["read", "history", "stop", "read", "history"]


def test_a_dry_run_goes_the_same_way_and_sends_nothing() -> None:
    """The dry run reads, asks the history, and says what it would have done."""
    play = Scenario(Script(seen("active", updated=RECENT)), time=EVENT)
    report = play.report(DryRunCloud(play.cloud), dry_run=True)
    (result,) = report.servers
    assert (report.dry_run, result.outcome, result.previous_vm_state) == (True, Outcome.PLANNED, None)
    assert result.detail == "It would be stopped; it is active."
    assert play.cloud.story() == ["read", "history"]


def test_the_policy_of_the_run_is_the_one_that_decides() -> None:
    """A virtual server is stopped if the deployment allows it."""
    script = Script(seen("active", flavor="s3.large.2"), "stopped")
    assert Scenario(script, policy=Policy(bare_metal_only=False)).result().reason is Reason.CONFIRMED


# --- a server that is recorded as stopped while its power is on ---


@pytest.mark.parametrize(
    ("power_state", "reason"),
    [
        (None, Reason.CONFIRMED),
        (3, Reason.CONFIRMED),
        (4, Reason.CONFIRMED),
        (6, Reason.CONFIRMED),
        (7, Reason.CONFIRMED),
        (1, Reason.POWER_STILL_ON),
        (0, Reason.ACCEPTED),
        (-1, Reason.ACCEPTED),
        (99, Reason.ACCEPTED),
    ],
)
def test_only_a_server_whose_power_is_off_is_confirmed(power_state: int | None, reason: Reason) -> None:
    """What is on, or not known to be off, is watched until the waiting time ends."""
    play = Scenario(Script("active", seen("stopped", power_state=power_state)))
    result = play.result()
    assert (result.reason, result.vm_state) == (reason, "stopped")
    assert play.cloud.story()[:3] == ["read", "stop", "read"]
    assert (len(play.cloud.story()) > 3) == (reason is not Reason.CONFIRMED)
    if reason is not Reason.CONFIRMED:
        assert result.evidence is not None
        assert (result.evidence.vm_state, result.evidence.power_state) == ("stopped", power_state)


def test_the_evidence_of_a_power_that_stayed_on_is_of_the_last_read() -> None:
    """With its times and its running task, which is Nova's power sync."""
    last = seen("stopped/powering-off", power_state=1, updated=NOW + seconds(20))
    play = Scenario(Script("active", last))
    result = play.result()
    assert (result.reason, result.evidence is not None) == (Reason.POWER_STILL_ON, True)
    assert result.evidence is not None
    assert result.evidence.task_state == "powering-off"
    assert result.evidence.updated == NOW + seconds(20)
    assert result.evidence.observed_at == play.executor.now()


def test_a_power_that_goes_off_late_is_confirmed() -> None:
    """The watch goes on while the power is on, also beside Nova's own power sync."""
    on, sync = seen("stopped", power_state=1), seen("stopped/powering-off", power_state=1)
    assert ends("active", OFF, on, sync, on, seen("stopped", power_state=4)).reason is Reason.CONFIRMED


def test_a_stop_whose_answer_was_lost_does_not_vouch_for_the_power() -> None:
    """The server is recorded as stopped after it; the power decides what is reported."""
    on = seen("stopped", power_state=1)
    assert ends("active", on, stops=[LOST]).reason is Reason.POWER_STILL_ON


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
    play = Scenario(started, **{name: ahead(value) for name, value in facts.items()})
    assert play.result().reason is Reason.STARTED_SINCE
