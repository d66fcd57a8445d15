"""What makes an event be refused as a whole."""

from __future__ import annotations

from datetime import timedelta

import pytest

from handler.stop.decide import refuse
from handler.stop.model import Policy, Refusal
from tests.stop.fakes import ID, NOW, Scenario, Script, asked, id_of, seconds

AGE = timedelta(minutes=15)
TICK = timedelta(microseconds=1)


def test_an_event_with_nothing_against_it_is_not_refused() -> None:
    """No time, no expiry, one server: go."""
    assert refuse(asked(ID), Policy(), NOW) is None


@pytest.mark.parametrize(
    ("age", "refusal"),
    [(AGE - TICK, None), (AGE, None), (AGE + TICK, Refusal.TOO_OLD), (timedelta(days=400), Refusal.TOO_OLD)],
)
def test_an_event_older_than_the_limit_is_too_old(age: timedelta, refusal: Refusal | None) -> None:
    """Exactly as old as the limit is still young enough."""
    assert refuse(asked(ID, time=NOW - age), Policy(max_event_age=AGE), NOW) is refusal


@pytest.mark.parametrize(
    ("tolerance", "ahead", "refusal"),
    [
        (5, timedelta(minutes=1), None),
        (5, timedelta(minutes=1) + TICK, Refusal.IN_THE_FUTURE),
        (90, timedelta(seconds=90), None),
        (90, timedelta(seconds=90) + TICK, Refusal.IN_THE_FUTURE),
        (5, timedelta(days=36500), Refusal.IN_THE_FUTURE),
    ],
)
def test_an_event_from_the_future_is_refused(tolerance: int, ahead: timedelta, refusal: Refusal | None) -> None:
    """Clocks may differ by a minute, or by the clock tolerance if that is longer."""
    policy = Policy(clock_tolerance=timedelta(seconds=tolerance))
    assert refuse(asked(ID, time=NOW + ahead), policy, NOW) is refusal
    no_age = Policy(clock_tolerance=timedelta(seconds=tolerance), max_event_age=timedelta())
    assert refuse(asked(ID, time=NOW + ahead), no_age, NOW) is refusal


def test_a_limit_of_zero_switches_the_age_rule_off() -> None:
    """With a limit of zero even an event of last year is acted on; its expiry still counts."""
    policy, last_year = Policy(max_event_age=timedelta()), NOW - timedelta(days=400)
    assert refuse(asked(ID, time=last_year), policy, NOW) is None
    assert refuse(asked(ID, time=last_year, expires=last_year), policy, NOW) is Refusal.EXPIRED


@pytest.mark.parametrize(("left", "refusal"), [(TICK, None), (timedelta(), Refusal.EXPIRED), (-TICK, Refusal.EXPIRED)])
def test_an_event_expires_at_its_expirytime(left: timedelta, refusal: Refusal | None) -> None:
    """At the very moment of its `expirytime` an event is already expired."""
    assert refuse(asked(ID, expires=NOW + left), Policy(), NOW) is refusal


def test_an_event_must_name_a_server() -> None:
    """An event that names no server is refused; it never means all."""
    assert refuse(asked(), Policy(), NOW) is Refusal.NO_SERVER_IDS


@pytest.mark.parametrize(("servers", "refusal"), [(3, None), (4, Refusal.TOO_MANY_SERVERS)])
def test_an_event_may_name_as_many_servers_as_the_limit_and_no_more(servers: int, refusal: Refusal | None) -> None:
    """One over the limit refuses the whole event."""
    request = asked(*(id_of(number) for number in range(servers)))
    assert refuse(request, Policy(max_servers=3), NOW) is refusal


def test_the_refusals_have_an_order() -> None:
    """Expired comes before too old, that before the number of servers."""
    policy, old, gone = Policy(max_servers=1), {"time": NOW - 2 * AGE}, {"expires": NOW}
    many = (id_of(1), id_of(2))
    assert refuse(asked(*many, **old, **gone), policy, NOW) is Refusal.EXPIRED
    assert refuse(asked(*many, **old), policy, NOW) is Refusal.TOO_OLD
    assert refuse(asked(**old), policy, NOW) is Refusal.TOO_OLD
    assert refuse(asked(*many), policy, NOW) is Refusal.TOO_MANY_SERVERS


def test_a_refused_event_sends_nothing_to_the_cloud() -> None:
    """The report of a refused event names the refusal and no server, and the cloud never hears of it."""
    scenario = Scenario(Script("active"), time=NOW - AGE - seconds(1), policy=Policy(max_event_age=AGE))
    report = scenario.report()
    assert (report.refusal, report.servers, report.failed) == (Refusal.TOO_OLD, (), False)
    assert scenario.cloud.calls == []
