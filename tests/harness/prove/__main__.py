"""`python -m tests.harness.prove --deliveries 10000 [--seed N]`: run until so many deliveries were made."""

from __future__ import annotations

import argparse
import random
import sys
import time

from hypothesis import HealthCheck, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.harness.prove.machine import TALLY, Machine

_WORLDS_A_ROUND = 250


def main() -> int:
    """Attack until enough was delivered; the first broken law ends it, with the shortest way there."""
    parser = argparse.ArgumentParser(prog="python -m tests.harness.prove", description=__doc__)
    parser.add_argument("--deliveries", type=int, default=10_000, help="deliveries to make at least")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32), help="where chance begins")
    parser.add_argument("--steps", type=int, default=50, help="most steps in one world")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    how = settings(
        max_examples=_WORLDS_A_ROUND,
        stateful_step_count=arguments.steps,
        database=None,
        report_multiple_bugs=False,
        deadline=None,
        print_blob=False,
        suppress_health_check=list(HealthCheck),
    )
    began, rounds = time.monotonic(), 0
    try:
        while TALLY.total("deliveries") < arguments.deliveries:
            run_state_machine_as_test(seed(arguments.seed + rounds)(Machine), settings=how)
            rounds += 1
    finally:
        print("\n".join(TALLY.lines()))
        print(f"{time.monotonic() - began:.0f} s, seed {arguments.seed}, round {rounds}")
    print("The law was kept.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
