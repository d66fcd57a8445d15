"""One run for each event in a process, however often the event is delivered meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from handler.errors import BudgetSpent, EventInProgress, RetryableError
from handler.services.runs import Runs
from handler.stop.model import Report, StopRequest
from tests.inbound.webhooks import test_alertmanager as alertmanager
from tests.inbound.webhooks.receiver import ONE, TWO
from tests.outbound.test_result import report, row
from tests.stop.fakes import asked, id_of

REQUEST = asked(id_of(1))
FAR = time.monotonic() + 3600.0


class Gate:
    """A run that begins, and ends when the test lets it."""

    def __init__(self) -> None:
        self.begun, self.end, self.count = threading.Event(), threading.Event(), 0

    def __call__(self) -> Report:
        self.count += 1
        self.begun.set()
        assert self.end.wait(60)
        return report(row())


@pytest.fixture
def gate() -> Gate:
    """A run that is held."""
    return Gate()


def waiting(runs: Runs, count: int) -> None:
    """Return when so many deliveries wait."""
    until = time.monotonic() + 60
    while runs._waiting != count:
        assert time.monotonic() < until
        time.sleep(0.005)


@contextmanager
def held(
    runs: Runs, gate: Gate, request: StopRequest, run: Callable[[], Report] | None = None
) -> Iterator[tuple[ThreadPoolExecutor, Future[Report]]]:
    """A delivery whose run has begun, and ends with the block; and threads for others."""
    with ThreadPoolExecutor(4) as threads:
        first = threads.submit(runs.report, request, FAR, run or gate)
        assert gate.begun.wait(60)
        try:
            yield threads, first
        finally:
            gate.end.set()
    assert runs._running == {}
    assert runs._waiting == 0


def shared(runs: Runs, gate: Gate, first: StopRequest, *others: StopRequest) -> list[Report]:
    """The reports of deliveries of which the first runs, and the others wait for it."""
    with held(runs, gate, first) as (threads, run):
        waits = [threads.submit(runs.report, one, FAR, never) for one in others]
        waiting(runs, len(others))
    return [one.result(60) for one in (run, *waits)]


def never() -> Report:
    """A run that must not be made."""
    raise AssertionError("a second run")


TIME = datetime(2026, 11, 28, 20, 0, tzinfo=UTC)
ALARM = REQUEST._replace(time=TIME + timedelta(minutes=1), since={id_of(1): TIME})


@pytest.mark.parametrize(
    ("first", "again"),
    [
        pytest.param(REQUEST, REQUEST, id="the same event"),
        pytest.param(REQUEST, REQUEST._replace(traceparent=f"00-{'1' * 32}-{'2' * 16}-01"), id="another trace"),
        # Alertmanager's messages have no time: `receive_webhook` gives each delivery of an alarm its arrival.
        pytest.param(ALARM, ALARM._replace(time=TIME + timedelta(seconds=68)), id="another time beside a since"),
    ],
)
def test_a_second_delivery_gets_the_report_of_the_first(gate: Gate, first: StopRequest, again: StopRequest) -> None:
    """It makes no run of its own."""
    reports = shared(Runs(2), gate, first, again, again)
    assert reports[0] is reports[1] is reports[2]
    assert gate.count == 1


def test_deliveries_of_an_alert_group_by_two_alertmanagers_are_one_event(gate: Gate) -> None:
    """They come at different times, and their alerts may have another order."""
    here = alertmanager.group_receiver()
    for alerts in ((ONE, TWO), (TWO, ONE)):
        alertmanager.send(here, *map(alertmanager.alert, alerts))
        here.later(seconds=8)
    first, second = shared(Runs(1), gate, *here.handed)
    assert first is second


@pytest.mark.parametrize(
    ("first", "change"),
    [
        *((REQUEST, change) for change in ({"id": "other"}, {"source": "/other"}, {"dry_run": True})),
        (REQUEST, {"server_ids": (id_of(2),)}),
        # Without `since` for a server, or with one that is later than the time, a new time could decide.
        *(
            (REQUEST._replace(time=TIME, since=since), {"time": TIME + timedelta(seconds=8)})
            for since in (None, {}, *({id_of(1): TIME + timedelta(seconds=after)} for after in (1, 9)))
        ),
    ],
)
def test_another_event_or_another_content_has_its_own_run(
    gate: Gate, first: StopRequest, change: dict[str, Any]
) -> None:
    """Two events under one name are a mistake of the producer; none is answered with the other's result."""
    runs, own = Runs(1), report(row())
    with held(runs, gate, first) as (_, run):
        assert runs.report(first._replace(**change), FAR, lambda: own) is own
    assert run.result(60) is not own


def test_after_its_end_the_event_runs_anew(gate: Gate) -> None:
    """Nothing is remembered: a redelivery reads the servers again."""
    runs = Runs(1)
    gate.end.set()
    runs.report(REQUEST, FAR, gate)
    runs.report(REQUEST, FAR, gate)
    assert gate.count == 2
    assert runs._running == {}


def test_the_error_of_the_run_is_shared(gate: Gate) -> None:
    """Both deliveries must come again."""
    runs = Runs(1)

    def fails() -> Report:
        gate()
        raise RetryableError("no")

    with held(runs, gate, REQUEST, fails) as (threads, first):
        second = threads.submit(runs.report, REQUEST, FAR, never)
        waiting(runs, 1)
    for one in (first, second):
        with pytest.raises(RetryableError, match="no"):
            one.result(60)


@pytest.mark.parametrize(
    ("most", "deadline", "error"), [(0, lambda: FAR, EventInProgress), (1, time.monotonic, BudgetSpent)]
)
def test_few_may_wait_and_each_for_its_own_time_only(
    gate: Gate, most: int, deadline: Callable[[], float], error: type[Exception]
) -> None:
    """Else the deliveries of one slow event would take all threads."""
    runs = Runs(most)
    with held(runs, gate, REQUEST) as (_, run), pytest.raises(error):
        runs.report(REQUEST, deadline(), never)
    assert run.result(60) == report(row())


APPROVAL = asked()._replace(plan="plan-1", approved_by="slack:T1/U2")


def test_approvals_of_one_plan_run_one_after_the_other(gate: Gate) -> None:
    """Each is an event of its own: it makes its own run, once the earlier ones have ended, however they ended."""
    runs, order = Runs(2), []

    def fails() -> Report:
        gate()
        order.append("first")
        raise RetryableError("broken", retry_after=None)

    def second() -> Report:
        order.append("second")
        return report(row())

    with held(runs, gate, APPROVAL, fails) as (threads, first):
        later = threads.submit(runs.report, APPROVAL._replace(id="another"), FAR, second)
        waiting(runs, 1)
        assert order == []
        other_plan = APPROVAL._replace(id="other", plan="plan-2")
        assert runs.report(other_plan, FAR, lambda: report(row())) is not None
    with pytest.raises(RetryableError):
        first.result(60)
    later.result(60)
    assert order == ["first", "second"]


def test_a_repeated_approval_shares_the_run_that_waits(gate: Gate) -> None:
    """One event delivered twice is one run, also behind another approval of the plan."""
    runs, again = Runs(2), APPROVAL._replace(id="another")
    with held(runs, gate, APPROVAL) as (threads, _):
        mine = threads.submit(runs.report, again, FAR, lambda: report(row()))
        waiting(runs, 1)
        shared = threads.submit(runs.report, again, FAR, never)
        waiting(runs, 2)
    assert mine.result(60) is shared.result(60)


def test_few_approvals_of_a_plan_may_wait_and_none_runs_before_the_earlier_ones_have_ended(gate: Gate) -> None:
    """One more is answered 503; one whose time is over, too, and the next still waits for the first."""
    runs = Runs(2)
    with held(runs, gate, APPROVAL) as (threads, first):
        with pytest.raises(BudgetSpent, match="another approval of this plan"):
            runs.report(APPROVAL._replace(id="late"), time.monotonic() + 0.01, never)
        others = [
            threads.submit(runs.report, APPROVAL._replace(id=f"later-{n}"), FAR, lambda: report(row()))
            for n in range(2)
        ]
        waiting(runs, 2)
        with pytest.raises(EventInProgress):
            runs.report(APPROVAL._replace(id="one-too-many"), FAR, never)
        assert not any(other.done() for other in others)
    for one in (first, *others):
        one.result(60)
