"""The runner of one server, against a cloud in which others write at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime
from typing import Any

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
from tests.keep.fakes import ID, KEY, Cloud, hours, sets

WANTED = hours(3)


def task(
    cloud: Cloud,
    until: datetime | None = WANTED,
    *,
    deadline: float = 60.0,
    dry: bool = False,
) -> KeepTask:
    """A task on a cloud."""
    writer = None if dry else cloud
    return KeepTask(ID, until, ("autostop", "never"), cloud.read, writer, cloud.clock, deadline, lambda _: 0.25)


def result(cloud: Cloud, until: datetime | None = WANTED, *, deadline: float = 60.0) -> KeepResult:
    """What comes of a server."""
    found = task(cloud, until, deadline=deadline).run()
    assert isinstance(found, KeepResult), found
    return found


LATER, EARLIER = written(hours(9)), written(hours(1))
LOST = CloudUnreachable("writing: no answer", maybe_acted=True)
UNREADABLE = dict.fromkeys(range(2, 20), CloudUnreachable("reading: no answer"))


def cloud_of(*args: Any, **facts: Any) -> Callable[[], Cloud]:
    """A cloud of one test."""
    return lambda: Cloud(*args, **facts)


FLOWS: list[tuple[str, Callable[[], Cloud], datetime | None, Reason, datetime | None, int, int]] = [
    # a keep: name, cloud, until when it is wanted, reason, until when it is kept, reads, writes
    ("one write, read back twice", cloud_of({"owner": "ci"}), WANTED, Reason.KEPT, WANTED, 3, 1),
    *(
        (
            f"replaced by {other} before read {read}",
            cloud_of(before_reads={read: sets(other)}),
            WANTED,
            Reason.KEPT,
            WANTED,
            read + 2,
            2,
        )
        for read in (2, 3)
        for other in (EARLIER, None)
    ),
    ("replaced by a later time", cloud_of(before_reads={3: sets(LATER)}), WANTED, Reason.KEPT, hours(9), 3, 1),
    ("lost answer", cloud_of(faults={1: LOST}), WANTED, Reason.KEPT, WANTED, 3, 1),
    ("never seen", cloud_of(ignores_writes=True), WANTED, Reason.NOT_SEEN, None, 5, 4),
    ("cannot be read back", cloud_of(read_faults=UNREADABLE), WANTED, Reason.NOT_SEEN, None, 5, 1),
    ("not found", cloud_of(read_faults={1: ServerNotFound("reading: HTTP 404")}), WANTED, Reason.NOT_FOUND, None, 1, 0),
    (
        "may not be read",
        cloud_of(read_faults={1: CallDenied("reading: HTTP 403")}),
        WANTED,
        Reason.FORBIDDEN,
        None,
        1,
        0,
    ),
    # a release
    ("released", cloud_of({KEY: EARLIER}), None, Reason.RELEASED, None, 3, 1),
    (
        "kept again since",
        cloud_of({KEY: EARLIER}, before_reads={2: sets(LATER)}),
        None,
        Reason.ALREADY_KEPT,
        hours(9),
        2,
        1,
    ),
    ("removed by another", cloud_of({KEY: EARLIER}, before_writes={1: sets(None)}), None, Reason.NOT_KEPT, None, 2, 1),
]


@pytest.mark.parametrize(
    ("make", "until", "reason", "kept", "reads", "writes"), [pytest.param(*row[1:], id=row[0]) for row in FLOWS]
)
def test_a_write_is_read_back_and_once_more_after_a_pause(
    make: Callable[[], Cloud], until: datetime | None, reason: Reason, kept: datetime | None, reads: int, writes: int
) -> None:
    """Whatever other clients write meanwhile."""
    cloud = make()
    entry = cloud.metadata.get(KEY)
    found = result(cloud, until)
    assert (found.reason, found.keep_until, cloud.reads, len(cloud.writes)) == (reason, kept, reads, writes)
    assert found.previous_keep_until == (hours(1) if entry else None)
    assert reason is Reason.NOT_SEEN or cloud.metadata.get(KEY) == (written(kept) if kept else None)


def test_a_write_for_which_there_is_no_time_to_read_it_back_is_not_seen() -> None:
    """The row does not say that the server is kept."""
    assert result(Cloud(read_faults=UNREADABLE), deadline=0.4).reason is Reason.NOT_SEEN


@pytest.mark.parametrize(
    ("make", "pauses"),
    [
        (cloud_of(), [0.5]),
        # Another keep needs longer between its read and its write.
        (cloud_of(before_writes={1: lambda cloud: cloud.clock.sleep(1.0)}), [1.0, 3.0]),
        # As long as the cloud asks for; then the backoff.
        (
            cloud_of(read_faults={1: CloudThrottled("429", retry_after=7.0)}, faults={1: CloudFault("500")}),
            [7.0, 0.25, 0.5],
        ),
    ],
)
def test_pauses_grow_with_the_time_that_the_cloud_takes(make: Callable[[], Cloud], pauses: list[float]) -> None:
    """And are as long as it asks for."""
    cloud = make()
    found = result(cloud)
    assert (found.reason, found.request_id, cloud.clock.slept) == (Reason.KEPT, f"req-{len(cloud.writes)}", pauses)


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


@pytest.mark.parametrize(
    ("call", "fault", "attempts"),
    [
        ("read", CloudUnreachable("no answer"), 4),
        ("read", CloudFault("HTTP 500"), 4),
        ("read", CloudThrottled("HTTP 429", retry_after=2.0), 4),
        ("read", CallRejected("HTTP 400"), 1),
        ("write", CloudUnreachable("no connection"), 4),
        ("write", CloudFault("HTTP 500"), 4),
        ("write", ServerNotFound("404"), 4),
    ],
)
def test_a_call_that_keeps_failing_is_given_up(call: str, fault: CloudError, attempts: int) -> None:
    """The last error is returned, for the event to decide on; each write comes after another read."""
    faults = dict.fromkeys(range(1, 20), fault)
    cloud = Cloud(read_faults=faults) if call == "read" else Cloud(faults=faults)
    assert task(cloud).run() is fault
    assert (cloud.reads, len(cloud.writes)) == (attempts, 0 if call == "read" else attempts)


def test_a_dry_run_writes_nothing() -> None:
    """And says what would be done."""
    cloud = Cloud()
    found = task(cloud, dry=True).run()
    assert isinstance(found, KeepResult)
    assert (found.reason, found.detail) == (Reason.DRY_RUN, f"It would be kept until {written(WANTED)}.")
    assert cloud.writes == []


@pytest.mark.parametrize("vm_state", ["stopped", "paused"])
def test_a_kept_server_that_does_not_run_is_reported_as_such(vm_state: str) -> None:
    """The stop was first: a keep that comes after it is written, and the server stays off."""
    found = result(Cloud(vm_state=vm_state))
    assert (found.reason, found.vm_state) == (Reason.KEPT, vm_state)
    assert f"Its vm_state is {vm_state}: a keep neither starts a server nor ends a stop" in found.detail
    assert result(Cloud()).detail == f"It is kept until {written(WANTED)}."


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


@given(
    present=st.none() | st.integers(-5, 20),
    wanted=st.integers(1, 20),
    steps=st.dictionaries(st.integers(1, 3), st.integers(-5, 20), max_size=2),
)
def test_a_keep_never_shortens(present: int | None, wanted: int, steps: dict[int, int]) -> None:
    """A server is kept at least as long as requested, and as before, also if other keeps write before a read."""
    least = max(wanted, present if present is not None else wanted)
    # Another client never shortens what it saw, but it has not seen ours.
    others = {read: max(value, present if present is not None else value) for read, value in steps.items()}
    cloud = Cloud(
        {KEY: written(hours(present))} if present is not None else {},
        before_reads={read: sets(written(hours(value))) for read, value in others.items()},
    )
    found = result(cloud, hours(wanted))
    assert found.outcome in ("kept", "unchanged")
    assert found.keep_until is not None
    assert found.keep_until >= hours(least)
    assert cloud.metadata[KEY] >= written(hours(least))


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
