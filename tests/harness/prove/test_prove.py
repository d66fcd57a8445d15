"""The state machine runs for a few seconds; `python -m tests.harness.prove` runs it for minutes."""

from __future__ import annotations

import logging
import os
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, Phase, settings

from handler.stop.model import Outcome, Reason
from tests.harness.prove.breakages import BREAKAGES, find
from tests.harness.prove.invariants import OUTCOMES
from tests.harness.prove.keeping import KeepMachine
from tests.harness.prove.machine import COUNTERS, Machine, run_round
from tests.harness.prove.people import PeopleMachine

# The shortest way to a violation takes minutes to find, and is for the long run.
_BRIEFLY = settings(
    max_examples=20,
    stateful_step_count=30,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def test_every_invariant_holds_whatever_goes_wrong() -> None:
    """No stop that may not be sent, no result that is not so, no event lost: under users, faults, kills, repeats."""
    before = COUNTERS.total("deliveries")
    # Many thousand lines, each of which pytest would keep and format.
    logging.disable(logging.CRITICAL)
    try:
        for number, machine in enumerate((Machine, Machine, Machine, PeopleMachine, KeepMachine)):
            run_round(machine, number, 1, _BRIEFLY)
    finally:
        logging.disable(logging.NOTSET)
    assert COUNTERS.total("deliveries") - before > 100


@pytest.mark.parametrize(
    "breakage",
    [
        "protected",
        "started-since",
        "read before a repeat",
        "confirm before stopped",
        "changed-since-plan",
        "approval-self",
        "stops are announced",
        "a keep never shortens",
    ],
)
def test_a_removed_guard_is_found(breakage: str) -> None:
    """A state machine that finds nothing proves nothing; `make breakages` tries each guard."""
    assert find(breakage) is not None


@pytest.mark.parametrize("reason", Reason)
def test_each_reason_is_in_the_model(reason: Reason) -> None:
    """A new guard is modelled and broken once; SHAPES in environment.py has servers that it keeps running."""
    message = f"OUTCOMES in tests/harness/prove/invariants.py must have {reason}"
    assert OUTCOMES.get(reason, "failed") == reason.outcome, message
    if reason.outcome is Outcome.SKIPPED:
        assert reason in BREAKAGES, f"BREAKAGES in tests/harness/prove/breakages.py must have {reason}"


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_each_breakage_is_of_something_that_exists(breakage: str) -> None:
    """What was moved or renamed must be moved or renamed there too."""
    with BREAKAGES[breakage]():
        pass


def test_the_same_seed_gives_the_same_transcript() -> None:
    """Also in another process, where sets and dictionaries of texts have another order."""

    def transcript(seed: int, hash_seed: str) -> str:
        command = [sys.executable, "-m", "tests.harness.prove", "--deliveries", "1", "--seed", str(seed)]
        command += ["--environments", "6", "--steps", "30"]
        environ = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
        return next(line for line in done.stdout.splitlines() if line.startswith("transcript "))

    first = transcript(1, "1")
    assert transcript(1, "2") == first
    assert transcript(2, "1") != first


def test_a_round_is_the_same_whatever_ran_before_it() -> None:
    """So that what a breakage finds is due to the guard, since the whole function holds with the same choices."""
    code = (
        "import sys, logging; logging.disable()\n"
        "from tests.harness.prove import machine, test_prove\n"
        "for number in (0, 0):\n"
        "    before = set(sys.modules)\n"
        "    machine.COUNTERS = machine.Counters()\n"
        "    machine.run_round(machine.Machine, number, 1, test_prove._BRIEFLY)\n"
        "    print(machine.COUNTERS.transcript)\n"
        "    print([m for m in sys.modules if m not in before and m.startswith(('handler', 'tests'))])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, loaded, second, _ = done.stdout.splitlines()
    assert (loaded, first) == ("[]", second)
