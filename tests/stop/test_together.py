"""Many servers at once: jobs that speak for their servers, refusals of whole batches, looks made together."""

from __future__ import annotations

import random

import pytest

from handler.errors import (
    BudgetSpent,
    CallDenied,
    CloudError,
    CloudFault,
    CloudThrottled,
    CloudUnreachable,
    StateConflict,
)
from handler.stop import pauses
from handler.stop.model import Policy, Reason
from handler.stop.ports import Pending, StopFailed, Taken
from tests.stop.fakes import Scenario, Script

OFF = "stopped"
DOWN = CloudUnreachable("down", status=503)
MANY = Policy(max_servers=1000)


def test_a_pending_job_is_asked_again_until_the_server_is_seen_stopped() -> None:
    """Pending says nothing about the server, so nothing is claimed until it was looked at."""
    play = Scenario(Script("active", Pending(), Pending(), OFF, stops=[Taken("req-1", "job-1")]))
    result = play.result()
    assert (result.reason, result.job_id, result.vm_state) == (Reason.CONFIRMED, "job-1", OFF)
    assert play.cloud.story() == ["read", "stop", "read", "read", "read"]


def test_a_job_that_never_ends_leaves_the_stop_accepted() -> None:
    """The watch ends when its time is up, not when the job does."""
    play = Scenario(Script("active", Pending()), wait=6)
    assert play.result().reason is Reason.ACCEPTED
    assert play.elapsed == pytest.approx(6)


def test_a_job_that_failed_for_a_reason_of_the_cloud_is_a_stop_that_came_to_nothing() -> None:
    """The server is looked at, and still runs: no second stop is tried."""
    play = Scenario(Script("active", StopFailed(CloudFault("failed")), "active"))
    assert play.result().reason is Reason.REVERTED
    assert play.cloud.story() == ["read", "stop", "read", "read"]


def test_a_job_that_failed_although_the_server_stopped_is_a_stop_all_the_same() -> None:
    """What is seen counts more than what a job says."""
    assert Scenario(Script("active", StopFailed(CloudFault("failed")), OFF)).result().reason is Reason.CONFIRMED


def test_a_job_that_met_another_state_is_as_if_the_stop_had_been_refused() -> None:
    """Read again, decide again; the row says what became of our stop."""
    play = Scenario(Script("active", StopFailed(StateConflict("BMS.0039")), OFF))
    result = play.result()
    assert (result.reason, result.job_id) == (Reason.ALREADY_STOPPED, None)
    assert "The job of our stop failed" in result.detail


def test_a_second_stop_after_a_failed_job_is_watched_as_if_it_were_the_first() -> None:
    """What was seen of the first stop says nothing about the second, which has not begun yet."""
    read = Script(
        "active",
        StopFailed(StateConflict("BMS.0037")),
        "active",
        "active",
        OFF,
        stops=[Taken("req-1", "job-1"), Taken("req-2", "job-2")],
    )
    result = Scenario(read).result()
    assert (result.reason, result.job_id) == (Reason.CONFIRMED, "job-2")


def test_a_stop_that_its_job_took_back_is_not_a_sign_that_stops_of_others_are_taken() -> None:
    """The one server's later stops meet a cloud that can't be reached: the event comes again."""
    script = Script("active", StopFailed(StateConflict("BMS.0037")), "active", stops=[Taken("req-1", "job-1"), DOWN])
    with pytest.raises(BudgetSpent, match="1 of 1"):
        Scenario(script).result()


def test_a_job_that_was_not_permitted_ends_the_matter() -> None:
    """As the answer to the stop itself would have."""
    assert Scenario(Script("active", StopFailed(CallDenied("BMS.0033")))).result().reason is Reason.FORBIDDEN


def _of_many(fault: CloudError) -> CloudError:
    fault.of_many = True
    return fault


def test_a_refusal_that_means_some_other_server_of_the_batch_does_not_count_against_this_one() -> None:
    """However often the batch is split before this one stands alone."""
    refused = [_of_many(StateConflict("BMS.0037")) for _ in range(7)]
    play = Scenario(Script("active", *["active"] * 7, OFF, stops=[*refused, Taken("req-1")]))
    assert play.result().reason is Reason.CONFIRMED
    assert len(play.cloud.of("stop")) == 8


def test_servers_that_failed_together_are_observed_at_together_again() -> None:
    """The pause has chance in it, but the same chance for all of one answer: one call, not one for each."""
    lost = CloudUnreachable("no answer")
    play = Scenario(*(Script(lost, "stopped") for _ in range(8)), together=8)
    report = play.report(backoff=lambda attempt: random.uniform(0.2, 0.9) * attempt)
    assert {server.reason for server in report.servers} == {Reason.ALREADY_STOPPED}
    assert len({call.at for call in play.cloud.calls}) == 2


def test_each_server_of_an_answer_has_the_pause_of_its_own_failures() -> None:
    """The first failure of one and the second of another come in one answer; their next looks are not together."""
    busy = StateConflict("busy", status=409, retry_after=0.5)
    play = Scenario(Script(DOWN, DOWN, OFF), Script("active", DOWN, OFF, stops=[busy]), together=2)
    play.results()
    looks = [[call.at for call in play.cloud.of("read", id_)] for id_ in play.ids]
    assert looks == [[0.0, 0.5, 1.5], [0.0, 0.5, 1.0]]


def test_a_crowd_is_watched_with_few_looks() -> None:
    """Their stops are taken one after the other, yet each look shows all of them."""
    scripts = [
        Script("active", *["active/powering-off"] * 3, OFF, stops=[Taken("req-1")], lasts=0.01) for _ in range(200)
    ]
    play = Scenario(*scripts, together=1000, width=8, policy=MANY)
    report = play.report()
    assert {server.reason for server in report.servers} == {Reason.CONFIRMED}
    looks = {call.at for call in play.cloud.calls if call.kind == "read"}
    assert len(looks) <= 8


def test_a_given_wait_is_kept_even_if_others_are_observed_at_just_before() -> None:
    """Looking early is for watching, not for what the cloud asked us to leave alone."""
    throttled = Script(CloudThrottled("later", retry_after=2.5), OFF)
    others = [Script("active", *["active/powering-off"] * 12, OFF) for _ in range(300)]
    play = Scenario(throttled, *others, policy=MANY)
    play.report()
    first, second = play.cloud.of("read")
    assert second.at - first.at >= 2.5


def test_a_given_wait_between_two_looks_does_not_part_them() -> None:
    """Two servers whose looks are almost due are looked at together, past a third one that must be left alone still."""
    poll = pauses._FIRST_POLL
    throttled = CloudThrottled("later", retry_after=poll + 0.003)
    busy, left_alone, also_busy = (
        Script("active/rebooting"),
        Script(throttled, OFF),
        Script("active/rebooting", lasts=0.006),
    )
    play = Scenario(busy, left_alone, also_busy, budget=5.0)
    play.results()
    first, second, third = (play.cloud.of("read", id_)[1].at for id_ in play.ids)
    assert (first, second, third) == pytest.approx((poll, poll + 0.003, poll))


def test_a_call_about_many_may_take_longer() -> None:
    """A page of a thousand servers costs a cloud more than one of them."""
    play = Scenario(*(Script(OFF) for _ in range(501)), together=501, budget=100, policy=MANY)
    play.report()
    assert min(call.timeout for call in play.cloud.calls) == pytest.approx(60.0)
