"""One check a second answers every question whether the function is ready."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from handler.errors import CloudUnreachable, LoginMissing, ReadinessUnknown
from handler.inbound.readiness import Readiness
from tests.support.clock import FakeClock


class Check:
    """A check that counts how often it was made."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.made = 0
        self.failure = failure

    def __call__(self) -> None:
        self.made += 1
        if self.failure is not None:
            raise self.failure


def test_a_result_serves_for_a_second() -> None:
    """Good or bad."""
    for failure in (None, CloudUnreachable("down")):
        clock, check = FakeClock(0.0), Check(failure)
        readiness = Readiness(clock)

        def ask(readiness: Readiness = readiness, check: Check = check) -> bool:
            try:
                readiness.check(check)
            except CloudUnreachable:
                return False
            return True

        for clock.now, made in ((0.0, 1), (0.5, 1), (1.0, 1), (1.01, 2), (2.0, 2), (2.02, 3)):
            assert ask() is (failure is None)
            assert check.made == made


def _meanwhile(readiness: Readiness, ask: Callable[[], None]) -> None:
    """Ask while another thread makes the check."""
    making, done = threading.Event(), threading.Event()

    def check() -> None:
        making.set()
        done.wait(10)

    maker = threading.Thread(target=readiness.check, args=(check,))
    maker.start()
    assert making.wait(10)
    try:
        ask()
    finally:
        done.set()
        maker.join()


def test_no_request_waits_for_a_check() -> None:
    """Without a result of the last ten seconds, nothing is known."""
    readiness = Readiness(FakeClock(0.0))
    unused = Check()

    def ask() -> None:
        with pytest.raises(ReadinessUnknown) as unknown:
            readiness.check(unused)
        assert unknown.value.retry_after == 1.0

    _meanwhile(readiness, ask)
    assert unused.made == 0


@pytest.mark.parametrize(("age", "known"), [(1.5, True), (10.0, True), (10.5, False)])
def test_the_last_result_serves_while_a_check_is_made(age: float, known: bool) -> None:
    """For ten seconds, good or bad."""
    for failure in (None, CloudUnreachable("down")):
        clock = FakeClock(0.0)
        readiness = Readiness(clock)
        try:
            readiness.check(Check(failure))
        except CloudUnreachable:
            assert failure
        clock.now = age

        def ask(readiness: Readiness = readiness, failure: Exception | None = failure) -> None:
            expected = type(failure) if known and failure else None if known else ReadinessUnknown
            if expected is None:
                readiness.check(Check(RuntimeError("must not be made")))
            else:
                with pytest.raises(expected):
                    readiness.check(Check(RuntimeError("must not be made")))

        _meanwhile(readiness, ask)


def test_a_call_without_a_login_says_nothing_of_others() -> None:
    """On FunctionGraph each call brings its own, and no call to the cloud was made without one."""
    readiness, check = Readiness(FakeClock(0.0)), Check()
    with pytest.raises(LoginMissing):
        readiness.check(Check(LoginMissing("none")))
    readiness.check(check)
    assert check.made == 1


def test_a_check_that_fails_by_a_defect_can_be_made_again() -> None:
    """It holds nothing."""
    readiness, check = Readiness(FakeClock(0.0)), Check()
    with pytest.raises(RuntimeError):
        readiness.check(Check(RuntimeError("bug")))
    readiness.check(check)
    assert check.made == 1
