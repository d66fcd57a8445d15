"""Many servers at once: refusals of whole batches, and reads that are made together."""

from __future__ import annotations

import random

import pytest

from handler.errors import (
    CloudError,
    CloudThrottled,
    CloudUnreachable,
    StateConflict,
)
from handler.stop import pauses
from handler.stop.model import Policy, Reason
from handler.stop.ports import StopFailed, Taken
from tests.stop.fakes import Scenario, Script

OFF = "stopped"
DOWN = CloudUnreachable("down", status=503)
MANY = Policy(max_servers=1000)


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


def _of_many(fault: CloudError) -> CloudError:
    fault.of_many = True
    return fault


def test_a_refusal_that_means_some_other_server_of_the_batch_does_not_count_against_this_one() -> None:
    """However often the batch is split before this one stands alone."""
    refused = [_of_many(StateConflict("BMS.0037")) for _ in range(7)]
    scenario = Scenario(Script("active", *["active"] * 7, OFF, stops=[*refused, Taken("req-1")]))
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
    scenario = Scenario(Script(DOWN, DOWN, OFF), Script("active", DOWN, OFF, stops=[busy]), together=2)
    scenario.results()
    reads = [[call.at for call in scenario.cloud.of("read", id_)] for id_ in scenario.ids]
    assert reads == [[0.0, 0.5, 1.5], [0.0, 0.5, 1.0]]


def test_many_servers_are_watched_with_few_reads() -> None:
    """Their stops are taken one after the other, yet each read shows all of them."""
    scripts = [
        Script("active", *["active/powering-off"] * 3, OFF, stops=[Taken("req-1")], lasts=0.01) for _ in range(200)
    ]
    scenario = Scenario(*scripts, together=1000, width=8, policy=MANY)
    report = scenario.report()
    assert {server.reason for server in report.servers} == {Reason.CONFIRMED}
    reads = {call.at for call in scenario.cloud.calls if call.kind == "read"}
    assert len(reads) <= 8


def test_a_given_wait_is_kept_even_if_others_are_read_just_before() -> None:
    """Early reads are for watching, not for a server whose calls the cloud wants later."""
    throttled = Script(CloudThrottled("later", retry_after=2.5), OFF)
    others = [Script("active", *["active/powering-off"] * 12, OFF) for _ in range(300)]
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
        Script(throttled, OFF),
        Script("active/rebooting", lasts=0.006),
    )
    scenario = Scenario(busy, left_alone, also_busy, budget=5.0)
    scenario.results()
    first, second, third = (scenario.cloud.of("read", id_)[1].at for id_ in scenario.ids)
    assert (first, second, third) == pytest.approx((poll, poll + 0.003, poll))


def test_a_call_about_many_may_take_longer() -> None:
    """A page of a thousand servers costs a cloud more than one of them."""
    scenario = Scenario(*(Script(OFF) for _ in range(501)), together=501, budget=100, policy=MANY)
    scenario.report()
    assert min(call.timeout for call in scenario.cloud.calls) == pytest.approx(60.0)
