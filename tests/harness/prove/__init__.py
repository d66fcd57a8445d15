"""A model of what the function may do, and a machine that attacks the function until it breaks the model.

::

    machine ──> broker ──> the real door, service, run, login and Nova client ──> wire ──> the simulated cloud
       │                                                                          │
       ├── people, faults, kills, the clock                                       └── ledger ──> law
       └── after each step: has the law been broken?

`law` restates the contract in plain Python and
shares no line with the function. `python -m tests.harness.prove` runs long.
"""
