"""The runner of one server, against a cloud in which others write at the same time."""

from __future__ import annotations

import threading
from datetime import datetime
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handler.errors import (
    BudgetSpent,
    CallDenied,
    CallRejected,
    CloudError,
    CloudFault,
    CloudThrottled,
    CloudUnreachable,
    LoginRefused,
    ServerNotFound,
    StateConflict,
)
from handler.keep.decide import written
from handler.keep.model import KeepResult, Reason
from handler.keep.runner import KeepTask, ServerLocks
from tests.keep.fakes import ID, KEY, Clock, Cloud, hours

WANTED = hours(3)


def task(
    cloud: Cloud,
    until: datetime | None = WANTED,
    *,
    clock: Clock | None = None,
    deadline: float = 60.0,
    dry: bool = False,
) -> KeepTask:
    """A task on a cloud."""
    return KeepTask(
        ID, until, ("autostop", "never"), cloud, None if dry else cloud, clock or Clock(), deadline, lambda _: 0.25
    )


def result(cloud: Cloud, until: datetime | None = WANTED, *, deadline: float = 60.0) -> KeepResult:
    """What comes of a server."""
    found = task(cloud, until, deadline=deadline).run()
    assert isinstance(found, KeepResult), found
    return found


def sets(cloud: Cloud, value: str | None) -> None:
    """Another client writes."""
    if value is None:
        cloud.metadata.pop(KEY, None)
    else:
        cloud.metadata[KEY] = value


def test_a_keep_is_read_before_and_after_and_once_more_after_a_pause() -> None:
    """One write, three reads."""
    cloud, clock = Cloud({"owner": "ci"}), Clock()
    found = task(cloud, clock=clock).run()
    assert isinstance(found, KeepResult)
    assert (found.reason, found.keep_until, found.request_id) == (Reason.KEPT, WANTED, "req-1")
    assert (cloud.reads, cloud.writes) == (3, [(KEY, written(WANTED))])
    assert clock.slept == [0.5]
    assert cloud.metadata == {"owner": "ci", KEY: written(WANTED)}


@pytest.mark.parametrize("vm_state", ["stopped", "paused"])
def test_a_kept_server_that_does_not_run_is_reported_as_such(vm_state: str) -> None:
    """The stop was first: a keep that comes after it is written, and the server stays off."""
    found = result(Cloud(vm_state=vm_state))
    assert (found.reason, found.vm_state) == (Reason.KEPT, vm_state)
    assert f"Its vm_state is {vm_state}: a keep neither starts a server nor ends a stop" in found.detail
    assert result(Cloud()).detail == f"It is kept until {written(WANTED)}."


@pytest.mark.parametrize("read", [2, 3])
@pytest.mark.parametrize("other", [written(hours(1)), None])
def test_an_earlier_time_that_replaces_ours_is_replaced_in_turn(read: int, other: str | None) -> None:
    """Whether it comes before the first or the second look."""
    cloud: Cloud = Cloud(before_reads={read: lambda: sets(cloud, other)})
    assert result(cloud).reason is Reason.KEPT
    assert cloud.metadata[KEY] == written(WANTED)
    assert len(cloud.writes) == 2


def test_a_later_time_that_replaces_ours_stays() -> None:
    """The server is kept longer than was asked for, which the row shows."""
    cloud: Cloud = Cloud(before_reads={3: lambda: sets(cloud, written(hours(9)))})
    found = result(cloud)
    assert (found.reason, found.keep_until, len(cloud.writes)) == (Reason.KEPT, hours(9), 1)


def test_the_pause_is_longer_on_a_slow_cloud() -> None:
    """Another keep needs longer there between its read and its write."""
    clock = Clock()
    cloud = Cloud(before_writes={1: lambda: clock.sleep(1.0)})
    task(cloud, clock=clock).run()
    assert clock.slept == [1.0, 3.0]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (StateConflict("writing: HTTP 409 (Instance is locked)"), Reason.CONFLICT),
        (CallDenied("writing: HTTP 403 (Policy)", request_id="req-9"), Reason.FORBIDDEN),
    ],
)
def test_a_refusal_is_a_result_in_the_clouds_words(fault: CloudError, reason: Reason) -> None:
    """After one attempt."""
    cloud = Cloud(faults={1: fault})
    found = result(cloud)
    assert (found.reason, found.request_id, len(cloud.writes)) == (reason, fault.request_id, 1)
    assert str(fault) in found.detail


def test_a_lost_answer_is_not_written_twice() -> None:
    """The read after it shows the value."""
    cloud = Cloud(faults={1: CloudUnreachable("writing: no answer", maybe_acted=True)})
    assert (result(cloud).reason, len(cloud.writes)) == (Reason.KEPT, 1)


def test_a_write_that_is_never_seen_is_reported() -> None:
    """After four writes."""
    cloud = Cloud(deaf=True)
    assert (result(cloud).reason, len(cloud.writes)) == (Reason.NOT_SEEN, 4)


@pytest.mark.parametrize("deadline", [60.0, 0.4])
def test_a_write_that_cannot_be_read_back_is_reported(deadline: float) -> None:
    """Because the reads fail, or the time is up."""
    faults = {number: CloudUnreachable("reading: no answer") for number in range(2, 20)}
    assert result(Cloud(read_faults=faults), deadline=deadline).reason is Reason.NOT_SEEN


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (ServerNotFound("reading: HTTP 404"), Reason.NOT_FOUND),
        (CallDenied("reading: HTTP 403"), Reason.FORBIDDEN),
    ],
)
def test_a_server_that_cannot_be_read_is_not_written(fault: CloudError, reason: Reason) -> None:
    """And the row has no states."""
    cloud = Cloud(read_faults={1: fault})
    found = result(cloud)
    assert (found.reason, found.vm_state, cloud.writes) == (reason, None, [])


@pytest.mark.parametrize(
    ("fault", "reads"),
    [
        (CloudUnreachable("no answer"), 4),
        (CloudFault("HTTP 500"), 4),
        (CloudThrottled("HTTP 429", retry_after=2.0), 4),
        (CallRejected("HTTP 400"), 1),
    ],
)
def test_a_read_that_keeps_failing_is_given_up(fault: CloudError, reads: int) -> None:
    """What was answered last is given back, for the event to decide on."""
    cloud = Cloud(read_faults=dict.fromkeys(range(1, 20), fault))
    assert task(cloud).run() is fault
    assert cloud.reads == reads


@pytest.mark.parametrize("fault", [CloudUnreachable("no connection"), CloudFault("HTTP 500"), ServerNotFound("404")])
def test_a_write_that_keeps_failing_is_given_up(fault: CloudError) -> None:
    """After four attempts, each after a fresh read."""
    cloud = Cloud(faults=dict.fromkeys(range(1, 20), fault))
    assert task(cloud).run() is fault
    assert (len(cloud.writes), cloud.reads) == (4, 4)


def test_a_short_failure_is_waited_for() -> None:
    """As long as the cloud asks for."""
    clock = Clock()
    cloud = Cloud(read_faults={1: CloudThrottled("HTTP 429", retry_after=7.0)}, faults={1: CloudFault("HTTP 500")})
    found = task(cloud, clock=clock).run()
    assert isinstance(found, KeepResult)
    assert (found.reason, clock.slept) == (Reason.KEPT, [7.0, 0.25, 0.5])


def test_without_time_nothing_is_written() -> None:
    """The event must come again."""
    cloud = Cloud()
    with pytest.raises(BudgetSpent):
        task(cloud, deadline=0.0).run()
    assert (cloud.reads, cloud.writes) == (0, [])


def test_a_refused_login_is_not_a_matter_of_one_server() -> None:
    """It ends the event."""
    with pytest.raises(LoginRefused):
        task(Cloud(faults={1: LoginRefused("logging in: HTTP 401")})).run()


def test_a_dry_run_has_nothing_to_write_with() -> None:
    """And says what would be done."""
    cloud = Cloud()
    found = task(cloud, dry=True).run()
    assert isinstance(found, KeepResult)
    assert (found.reason, cloud.writes) == (Reason.DRY_RUN, [])
    assert written(WANTED) in found.detail


def test_a_release_is_read_back() -> None:
    """Removed, and seen removed."""
    cloud = Cloud({KEY: written(hours(1))})
    found = result(cloud, None)
    assert (found.reason, found.keep_until, found.previous_keep_until) == (Reason.RELEASED, None, hours(1))
    assert (cloud.metadata, cloud.reads) == ({}, 3)


def test_a_release_does_not_remove_a_keep_that_came_after_it() -> None:
    """Another client keeps the server between our write and our read."""
    cloud: Cloud = Cloud({KEY: written(hours(1))}, before_reads={2: lambda: sets(cloud, written(hours(2)))})
    found = result(cloud, None)
    assert (found.reason, found.keep_until) == (Reason.ALREADY_KEPT, hours(2))
    assert cloud.metadata == {KEY: written(hours(2))}


def test_an_entry_that_another_client_removed_is_released() -> None:
    """The cloud says 404 to our removal; the next read shows why."""
    cloud: Cloud = Cloud({KEY: written(hours(1))}, before_writes={1: lambda: sets(cloud, None)})
    assert result(cloud, None).reason is Reason.NOT_KEPT


@given(
    present=st.none() | st.integers(-5, 20),
    wanted=st.integers(1, 20),
    steps=st.dictionaries(st.integers(1, 3), st.integers(-5, 20), max_size=2),
)
def test_a_keep_never_shortens(present: int | None, wanted: int, steps: dict[int, int]) -> None:
    """A server is kept at least as long as requested, and as before, also if other keeps write before a read."""
    cloud = Cloud()

    def other(value: int) -> None:
        # The other one never shortens what it saw, but it has not seen ours.
        sets(cloud, written(hours(max(value, present if present is not None else value))))

    cloud = Cloud(
        {KEY: written(hours(present))} if present is not None else {},
        before_reads={read: partial(other, value) for read, value in steps.items()},
    )
    found = result(cloud, hours(wanted))
    assert found.outcome in ("kept", "unchanged")
    least = written(hours(max(wanted, present if present is not None else wanted)))
    assert found.keep_until is not None
    assert written(found.keep_until) >= least
    assert cloud.metadata[KEY] >= least


def test_the_keeps_of_one_server_take_turns() -> None:
    """Those of others do not wait, and a wait ends with its time."""
    locks = ServerLocks()
    with locks.holding("a", 1.0):
        with locks.holding("b", 0.0):
            pass
        with pytest.raises(BudgetSpent), locks.holding("a", 0.01):
            pass
        entered = threading.Event()

        def enter() -> None:
            with locks.holding("a", 30.0):
                entered.set()

        thread = threading.Thread(target=enter)
        thread.start()
        assert not entered.is_set()
    thread.join(30)
    assert entered.is_set()


def test_a_lock_that_no_thread_uses_is_forgotten() -> None:
    """Else a process would keep one for each server that it ever kept."""
    locks = ServerLocks()
    with locks.holding("a", 1.0), locks.holding("b", 1.0):
        assert sorted(locks._locks) == ["a", "b"]
    assert not locks._locks
