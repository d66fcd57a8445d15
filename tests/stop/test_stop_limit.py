"""The stop limit of a process: how many servers it sends stops for within a sliding window."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from unittest import mock

import pytest

from handler.errors import CloudThrottled, StopLimitReached
from handler.stop.model import Policy, Refusal
from handler.stop.ports import Cloud, Taken
from handler.stop.prepare import prepare, refuse_too_many
from handler.stop.stop_limit import LimitedCloud, Reservation, StopLimit
from tests.stop.fakes import START, FakeExecutor, Scenario, Script, asked, id_of
from tests.support.clock import FakeClock


def used(limit: StopLimit, *counts: int) -> None:
    """Attempts of other events."""
    for count in counts:
        one = Reservation(limit)
        one.reserve(count)
        attempt(one, count)
        one.release()


def attempt(one: Reservation, servers: int) -> None:
    """An attempt that is made, and ends at once."""
    assert one.attempt(servers) is None
    one.attempted(servers)


def test_the_limit_counts_attempts_until_they_leave_the_window() -> None:
    """Room comes back by and by, as each attempt grows older than the window."""
    clock = FakeClock()
    limit = StopLimit(5, 600.0, clock)
    used(limit, 3)
    clock.now += 100
    used(limit, 2)
    with pytest.raises(StopLimitReached) as refused:
        Reservation(limit).reserve(1)
    assert refused.value.retry_after == pytest.approx(500.0)
    with pytest.raises(StopLimitReached) as refused:
        Reservation(limit).reserve(4)
    assert refused.value.retry_after == pytest.approx(600.0)
    with pytest.raises(StopLimitReached, match=r"^At most 5 servers are stopped within 600 seconds\.$") as refused:
        Reservation(limit).reserve(3)
    assert refused.value.retry_after == pytest.approx(500.0)
    clock.now += 500
    used(limit, 3)
    with pytest.raises(StopLimitReached):
        Reservation(limit).reserve(1)


def test_what_an_event_did_not_use_is_given_back() -> None:
    """Servers that were skipped or already stopped leave no mark."""
    limit = StopLimit(5, 600.0, FakeClock())
    first, second = Reservation(limit), Reservation(limit)
    first.reserve(5)
    attempt(first, 1)
    with pytest.raises(StopLimitReached) as refused:
        second.reserve(1)
    assert refused.value.retry_after == 1.0
    first.release()
    second.reserve(4)
    with pytest.raises(StopLimitReached):
        Reservation(limit).reserve(1)


def test_each_attempt_counts() -> None:
    """A stop that is sent again needs room of its own, and is held back without it."""
    limit = StopLimit(3, 600.0, FakeClock())
    one = Reservation(limit)
    one.reserve(2)
    for _ in range(3):
        attempt(one, 1)
    pause = one.attempt(1)
    assert pause == pytest.approx(600.0)
    one.release()
    with pytest.raises(StopLimitReached):
        Reservation(limit).reserve(1)


def test_the_window_of_an_attempt_begins_when_it_ends() -> None:
    """The cloud may receive a stop as late as that, for example after a login."""
    clock = FakeClock()
    limit = StopLimit(1, 600.0, clock)
    inner = mock.create_autospec(Cloud, instance=True, one_by_one=True)

    def stop(ids: Sequence[str], _: float) -> dict[str, Taken]:
        clock.now += 650
        assert Reservation(limit).attempt(1) == 1.0
        return dict.fromkeys(ids, Taken())

    inner.stop.side_effect = stop
    LimitedCloud(inner, Reservation(limit)).stop(["a"], 700.0)
    clock.now += 599
    assert Reservation(limit).attempt(1) == 1.0
    clock.now += 1
    assert Reservation(limit).attempt(1) is None


def test_room_is_needed_for_what_was_not_reserved_and_is_given_back_once() -> None:
    """A stop of two servers with room for one needs room for one more."""
    limit = StopLimit(2, 600.0, FakeClock())
    one, other = Reservation(limit), Reservation(limit)
    one.reserve(1)
    assert one.attempt(2) is None
    assert other.attempt(1) == 1.0
    one.attempted(2)
    one.release()
    one.release()
    assert other.attempt(1) == pytest.approx(600.0)


def test_what_was_reserved_and_released_twice_is_given_back_once() -> None:
    """A reservation ends with its event."""
    limit = StopLimit(2, 600.0, FakeClock())
    used(limit, 1)
    one = Reservation(limit)
    one.reserve(1)
    one.release()
    one.release()
    with pytest.raises(StopLimitReached):
        Reservation(limit).reserve(2)


def test_all_but_stops_goes_to_the_cloud_as_it_is() -> None:
    """A limited cloud reads, finds and groups as the cloud does."""
    inner = mock.create_autospec(Cloud, instance=True, one_by_one=True, api="bms")
    cloud = LimitedCloud(inner, Reservation(StopLimit(1, 600.0, FakeClock())))
    for name in ("api", "one_by_one", "read_groups", "read", "find", "history", "stop_groups"):
        assert getattr(cloud, name) is getattr(inner, name)


def test_a_stop_that_is_held_back_is_not_sent() -> None:
    """It comes back as a throttled call, which the cloud never saw."""
    inner = mock.create_autospec(Cloud, instance=True, one_by_one=True)
    inner.stop.return_value = {"a": Taken()}
    reservation = Reservation(StopLimit(1, 600.0, FakeClock()))
    reservation.reserve(1)
    cloud = LimitedCloud(inner, reservation)
    assert cloud.stop(["a"], 1.0) == {"a": Taken()}
    answer = cloud.stop(["a"], 1.0)["a"]
    assert isinstance(answer, CloudThrottled)
    assert str(answer) == "stopping the server: the stop limit of this process is reached"
    assert answer.retry_after == pytest.approx(600.0)
    assert not answer.maybe_acted
    inner.stop.assert_called_once_with(["a"], 1.0)


# --- in a run


@pytest.mark.parametrize("room", [True, False])
@pytest.mark.parametrize("states", [("stopped", "active", "active"), ("active", "active"), ("stopped",)])
def test_a_run_asks_once_before_its_first_stop_for_the_servers_that_are_left(states: list[str], room: bool) -> None:
    """Too little room ends the run with nothing sent; an event that finds everything stopped needs none."""
    asked_for: list[int] = []

    def before(servers: int) -> None:
        asked_for.append(servers)
        if not room:
            raise StopLimitReached("full")

    running = states.count("active")
    scenario = Scenario(*(Script(state, "stopped") for state in states), width=1)
    with contextlib.nullcontext() if room or not running else pytest.raises(StopLimitReached):
        scenario.report(before_first_stop=before)
    assert asked_for == ([running] if running else [])
    assert [call.kind for call in scenario.cloud.calls].count("stop") == (running if room else 0)


# --- the servers of one delivery


def prepared(*ids: Sequence[str], most: int = 3, age: timedelta | None = None) -> list[Refusal | None]:
    """What becomes of the events of one batch."""
    executor: Any = FakeExecutor()
    cloud: Any = Scenario(Script("active")).cloud
    policy = Policy(max_servers=most)
    requests = [
        asked(*one, time=executor.now() - age if age and not number else None) for number, one in enumerate(ids)
    ]
    made = [prepare(one, policy, cloud, executor, deadline=START + 10) for one in requests]
    refused = refuse_too_many(made, policy)
    too_many = [one for one in refused if one.refusal is Refusal.TOO_MANY_SERVERS]
    for one in too_many:
        assert one.detail == "The events of this batch are about 4 servers; at most 3 are taken at once."
    return [one.refusal for one in refused]


ONE, TWO, THREE, FOUR = (id_of(number) for number in range(1, 5))
MANY, OLD, DAY = Refusal.TOO_MANY_SERVERS, Refusal.TOO_OLD, timedelta(days=1)


@pytest.mark.parametrize(
    ("events", "age", "refusals"),
    [
        ([[ONE, TWO], [TWO, THREE]], None, [None, None]),
        ([[ONE, TWO], [THREE, FOUR]], None, [MANY, MANY]),
        # The servers of an event that is refused anyway do not count.
        ([[ONE], [TWO, THREE, FOUR]], DAY, [OLD, None]),
        ([[ONE], [ONE, TWO], [THREE, FOUR]], DAY, [OLD, MANY, MANY]),
    ],
)
def test_distinct_servers_of_a_batch_are_counted(
    events: list[list[str]], age: timedelta | None, refusals: list[Refusal | None]
) -> None:
    """The same server in several events counts once; one too many refuses every event that is not refused already."""
    assert prepared(*events, age=age) == refusals
