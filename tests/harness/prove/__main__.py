"""`python -m tests.harness.prove --deliveries 10000 [--seed N]`: run until so many deliveries were made.

The same seed gives the same run, whose hash is printed. A long run goes on until every reason, refusal, fault and
problem was reached at least once, and fails if that takes more than four times as many deliveries.
"""

from __future__ import annotations

import argparse
import random
import sys
import time

from hypothesis import HealthCheck, settings

from handler.keep.model import Reason as KeepReason
from handler.stop.model import Reason, Refusal
from tests.harness.prove.keeping import KeepMachine
from tests.harness.prove.machine import COUNTERS, FAULTS, PROBLEMS, Machine, run_round
from tests.harness.prove.people import PEOPLE_FAULTS, PEOPLE_PROBLEMS, PeopleMachine

# Hypothesis varies what it has tried before, so that many short rounds reach more than a long one.
_ENVIRONMENTS_A_ROUND = 25
# From so many deliveries on, all must have been reached.
_LONG = 10_000
_PATIENCE = 4
# No keep is released or is a dry run, and its login may do all.
_NO_KEEP_REASON = frozenset({"released", "not-kept", "forbidden", "dry-run", "not-seen", "cloud-error"})
# In turn.
_MACHINES = (Machine, PeopleMachine, Machine, KeepMachine)
_REQUIRED = {
    "reasons": [reason.value for reason in Reason],
    "refusals": [refusal.value for refusal in Refusal],
    "faults": [str(fault) for fault in (*FAULTS, *PEOPLE_FAULTS)],
    "problems": [*PROBLEMS, *PEOPLE_PROBLEMS],
    "runs shared": [""],
    "keeps": [reason.value for reason in KeepReason if reason not in _NO_KEEP_REASON],
}


def main() -> int:
    """Run until enough was delivered; the first violation ends it, with the shortest way there.

    Returns:
        1 if a long run did not reach everything.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.harness.prove", description=__doc__)
    parser.add_argument("--deliveries", type=int, default=_LONG, help="deliveries to make at least")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32), help="of the random choices")
    parser.add_argument("--steps", type=int, default=50, help="most steps in one environment")
    parser.add_argument(
        "--environments", type=int, default=_ENVIRONMENTS_A_ROUND, help="environments between two looks at the count"
    )
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    options = settings(
        max_examples=arguments.environments,
        stateful_step_count=arguments.steps,
        database=None,
        report_multiple_bugs=False,
        deadline=None,
        print_blob=False,
        suppress_health_check=list(HealthCheck),
    )
    began, rounds = time.monotonic(), 0
    try:
        while _goes_on(COUNTERS.total("deliveries"), arguments.deliveries):
            run_round(_MACHINES[rounds % len(_MACHINES)], rounds, arguments.seed, options)
            rounds += 1
    finally:
        print("\n".join(COUNTERS.lines()))
        print(f"{time.monotonic() - began:.0f} s, seed {arguments.seed}, round {rounds}")
        print(f"transcript {COUNTERS.transcript}")
    print("Every invariant held.")
    missing = COUNTERS.unreached(_REQUIRED)
    if missing:
        print(f"Not reached: {', '.join(missing)}.")
    return 1 if missing and arguments.deliveries >= _LONG else 0


def _goes_on(made: int, wanted: int) -> bool:
    return made < wanted or (wanted >= _LONG and made < _PATIENCE * wanted and bool(COUNTERS.unreached(_REQUIRED)))


if __name__ == "__main__":
    sys.exit(main())
