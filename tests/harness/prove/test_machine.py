"""The machine attacks the function for a few seconds; `python -m tests.harness.prove` does it for minutes."""

from __future__ import annotations

import logging

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.harness.prove.breakages import BREAKAGES, find
from tests.harness.prove.machine import TALLY, Machine

# The shortest way to a broken law takes minutes to find, and is for the long run.
_BRIEFLY = settings(max_examples=60, stateful_step_count=30, derandomize=True, database=None, phases=[Phase.generate])


def test_the_function_keeps_the_law_whatever_is_done_to_it() -> None:
    """No stop that may not be sent, no result that is not so, no event lost: under people, faults, kills, repeats."""
    before = TALLY.total("deliveries")
    # Many thousand lines, each of which pytest would keep and format.
    logging.disable(logging.CRITICAL)
    try:
        run_state_machine_as_test(Machine, settings=_BRIEFLY)
    finally:
        logging.disable(logging.NOTSET)
    assert TALLY.total("deliveries") - before > 100


@pytest.mark.parametrize("breakage", ["protected", "started-since", "read before a repeat", "confirm before stopped"])
def test_the_machine_finds_a_broken_guard(breakage: str) -> None:
    """A machine that finds nothing proves nothing; `make breakages` tries each guard."""
    assert find(breakage) is not None


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_each_breakage_is_of_something_that_is_there(breakage: str) -> None:
    """What was moved or renamed must be moved or renamed there too."""
    with BREAKAGES[breakage]():
        pass
