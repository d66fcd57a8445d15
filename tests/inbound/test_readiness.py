"""One check a second answers every question whether the function is ready."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from handler.errors import CloudUnreachable, LoginMissing, ReadinessUnknown
from handler.inbound.readiness import Readiness
from tests.support.clock import FakeClock

RESULT = pytest.mark.parametrize("failure", [None, CloudUnreachable("down")], ids=["ready", "down"])


class Check:
    """A check that counts how often it was made."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.made = 0
        self.failure = failure

    def __call__(self) -> None:
        self.made += 1
        if self.failure is not None:
            raise self.failure


def failure_of(readiness: Readiness, check: Check) -> type[Exception] | None:
    """Ask whether it is ready; return the class of the failure."""
    try:
        readiness.check(check)
    except (CloudUnreachable, ReadinessUnknown) as error:
        return type(error)
    return None


@RESULT
def test_a_result_counts_for_a_second(failure: Exception | None) -> None:
    """Whether it is ready or not."""
    clock, check = FakeClock(0.0), Check(failure)
    readiness = Readiness(clock)
    for clock.now, made in ((0.0, 1), (0.5, 1), (1.0, 1), (1.01, 2), (2.0, 2), (2.02, 3)):
        assert failure_of(readiness, check) is (failure and type(failure))
        assert check.made == made


@contextmanager
def being_checked(readiness: Readiness) -> Iterator[None]:
    """Let another thread make a check until the end of the block."""
    making, done = threading.Event(), threading.Event()

    def check() -> None:
        making.set()
        done.wait(10)

    maker = threading.Thread(target=readiness.check, args=(check,))
    maker.start()
    assert making.wait(10)
    try:
        yield
    finally:
        done.set()
        maker.join()


def test_no_request_waits_for_a_check() -> None:
    """Without a result of the last ten seconds, nothing is known."""
    readiness, unused = Readiness(FakeClock(0.0)), Check()
    with being_checked(readiness), pytest.raises(ReadinessUnknown) as unknown:
        readiness.check(unused)
    assert unknown.value.retry_after == 1.0
    assert unused.made == 0


@RESULT
@pytest.mark.parametrize(("age", "known"), [(1.5, True), (10.0, True), (10.5, False)])
def test_the_last_result_counts_while_a_check_is_made(failure: Exception | None, age: float, known: bool) -> None:
    """For ten seconds."""
    clock, unused = FakeClock(0.0), Check()
    readiness = Readiness(clock)
    failure_of(readiness, Check(failure))
    clock.now = age
    with being_checked(readiness):
        assert failure_of(readiness, unused) is ((failure and type(failure)) if known else ReadinessUnknown)
    assert unused.made == 0


@pytest.mark.parametrize("failure", [LoginMissing("none"), RuntimeError("bug")], ids=["login", "defect"])
def test_a_check_that_says_nothing_of_the_cloud_is_made_again(failure: Exception) -> None:
    """On FunctionGraph each call has its own login, so that no call to the cloud was made; nor was it with a defect."""
    readiness, check = Readiness(FakeClock(0.0)), Check()
    with pytest.raises(type(failure)):
        readiness.check(Check(failure))
    readiness.check(check)
    assert check.made == 1
