"""One run for each event in a process, however often the event is delivered meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from handler.errors import BudgetSpent, EventInProgress, RetryableError
from handler.services.runs import Runs
from handler.stop.model import Report, StopRequest
from tests.inbound.webhooks import test_alertmanager as alertmanager
from tests.inbound.webhooks.scene import ONE, TWO
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


def shared(runs: Runs, gate: Gate, first: StopRequest, *others: StopRequest) -> list[Report]:
    """The reports of deliveries of which the first runs, and the others wait for it."""
    with ThreadPoolExecutor(1 + len(others)) as threads:
        run = threads.submit(runs.report, first, FAR, gate)
        assert gate.begun.wait(60)
        waits = [threads.submit(runs.report, one, FAR, never) for one in others]
        waiting(runs, len(others))
        gate.end.set()
        return [one.result(60) for one in (run, *waits)]


def never() -> Report:
    """A run that must not be made."""
    raise AssertionError("a second run")


def test_a_second_delivery_gets_the_report_of_the_first(gate: Gate) -> None:
    """It makes no run of its own; a trace context of its own does not make it another event."""
    runs = Runs(2)
    again = replace(REQUEST, traceparent="00-" + "1" * 32 + "-" + "2" * 16 + "-01")
    first, second, third = shared(runs, gate, REQUEST, REQUEST, again)
    assert first is second is third
    assert gate.count == 1


def test_a_repeat_with_a_new_time_waits_if_the_event_says_since_when(gate: Gate) -> None:
    """Alertmanager's messages have no time: `receive_webhook` gives each delivery of an alarm its arrival."""
    runs = Runs(1)
    begun = datetime(2026, 11, 28, 20, 0, tzinfo=UTC)
    alarm = replace(REQUEST, time=begun + timedelta(minutes=1), since={id_of(1): begun})
    again = replace(alarm, time=begun + timedelta(minutes=1, seconds=8))
    first, second = shared(runs, gate, alarm, again)
    assert first is second
    assert gate.count == 1


def test_deliveries_of_an_alert_group_by_two_alertmanagers_are_one_event(gate: Gate) -> None:
    """They come at different times, and their alerts may have another order."""
    here = alertmanager.scene()
    for alerts in ((ONE, TWO), (TWO, ONE)):
        alertmanager.send(here, *map(alertmanager.alert, alerts))
        here.later(seconds=8)
    first, second = shared(Runs(1), gate, *here.handed)
    assert first is second


@pytest.mark.parametrize("since", [None, {}, {id_of(1): timedelta(seconds=1)}, {id_of(1): timedelta(seconds=9)}])
def test_a_new_time_that_could_decide_makes_a_run_of_its_own(gate: Gate, since: dict[str, timedelta] | None) -> None:
    """That is, without `since` for a server, or with one that is later than the time."""
    runs = Runs(1)
    own = report(row())
    time_ = datetime(2026, 11, 28, 20, 0, tzinfo=UTC)
    moments = None if since is None else {server: time_ + after for server, after in since.items()}
    alarm = replace(REQUEST, time=time_, since=moments)
    with ThreadPoolExecutor(1) as threads:
        run = threads.submit(runs.report, alarm, FAR, gate)
        assert gate.begun.wait(60)
        assert runs.report(replace(alarm, time=time_ + timedelta(seconds=8)), FAR, lambda: own) is own
        gate.end.set()
        assert run.result(60) is not own


def test_after_its_end_the_event_runs_anew(gate: Gate) -> None:
    """Nothing is remembered: a redelivery looks at the servers again."""
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

    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(runs.report, REQUEST, FAR, fails)
        assert gate.begun.wait(60)
        second = threads.submit(runs.report, REQUEST, FAR, never)
        waiting(runs, 1)
        gate.end.set()
        for one in (first, second):
            with pytest.raises(RetryableError, match="no"):
                one.result(60)


def _held(runs: Runs, threads: ThreadPoolExecutor, gate: Gate) -> Future[Report]:
    run = threads.submit(runs.report, REQUEST, FAR, gate)
    assert gate.begun.wait(60)
    return run


@pytest.mark.parametrize(
    ("most", "deadline", "error"), [(0, lambda: FAR, EventInProgress), (1, time.monotonic, BudgetSpent)]
)
def test_few_may_wait_and_each_for_its_own_time_only(
    gate: Gate, most: int, deadline: Callable[[], float], error: type[Exception]
) -> None:
    """Else the deliveries of one slow event would take all threads."""
    runs = Runs(most)
    with ThreadPoolExecutor(1) as threads:
        run = _held(runs, threads, gate)
        with pytest.raises(error):
            runs.report(REQUEST, deadline(), never)
        gate.end.set()
        assert run.result(60) == report(row())
    assert runs._waiting == 0


@pytest.mark.parametrize(
    "change", [{"id": "other"}, {"source": "/other"}, {"dry_run": True}, {"server_ids": (id_of(2),)}]
)
def test_another_event_or_another_content_has_its_own_run(gate: Gate, change: dict[str, object]) -> None:
    """Two events under one name are a mistake of the producer; none is answered with the other's result."""
    runs = Runs(1)
    own = report(row())
    with ThreadPoolExecutor(1) as threads:
        run = _held(runs, threads, gate)
        assert runs.report(replace(REQUEST, **change), FAR, lambda: own) is own  # type: ignore[arg-type]
        gate.end.set()
        assert run.result(60) is not own
    assert runs._running == {}


APPROVAL = replace(asked(), plan="plan-1", approved_by="slack:T1/U2")


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

    with ThreadPoolExecutor(3) as threads:
        first = threads.submit(runs.report, APPROVAL, FAR, fails)
        assert gate.begun.wait(60)
        later = threads.submit(runs.report, replace(APPROVAL, id="another"), FAR, second)
        waiting(runs, 1)
        assert order == []
        other_plan = replace(APPROVAL, id="other", plan="plan-2")
        assert runs.report(other_plan, FAR, lambda: report(row())) is not None
        gate.end.set()
        with pytest.raises(RetryableError):
            first.result(60)
        later.result(60)
    assert order == ["first", "second"]
    assert runs._waiting == 0
    assert not runs._running


def test_a_repeated_approval_shares_the_run_that_waits(gate: Gate) -> None:
    """One event delivered twice is one run, also behind another approval of the plan."""
    runs = Runs(2)
    again = replace(APPROVAL, id="another")
    with ThreadPoolExecutor(3) as threads:
        threads.submit(runs.report, APPROVAL, FAR, gate)
        assert gate.begun.wait(60)
        mine = threads.submit(runs.report, again, FAR, lambda: report(row()))
        waiting(runs, 1)
        shared = threads.submit(runs.report, again, FAR, never)
        waiting(runs, 2)
        gate.end.set()
        assert mine.result(60) is shared.result(60)


def test_few_approvals_of_a_plan_may_wait_and_none_runs_before_the_earlier_ones_have_ended(gate: Gate) -> None:
    """One more is answered 503; one whose time is over, too, and the next still waits for the first."""
    runs = Runs(2)
    with ThreadPoolExecutor(3) as threads:
        first = threads.submit(runs.report, APPROVAL, FAR, gate)
        assert gate.begun.wait(60)
        with pytest.raises(BudgetSpent, match="another approval of this plan"):
            runs.report(replace(APPROVAL, id="late"), time.monotonic() + 0.01, never)
        others = [
            threads.submit(runs.report, replace(APPROVAL, id=f"later-{n}"), FAR, lambda: report(row()))
            for n in range(2)
        ]
        waiting(runs, 2)
        with pytest.raises(EventInProgress):
            runs.report(replace(APPROVAL, id="one-too-many"), FAR, never)
        assert not any(other.done() for other in others)
        gate.end.set()
        first.result(60)
        for other in others:
            other.result(60)
    assert not runs._running
