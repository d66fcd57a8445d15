"""Stateful fault injection: a model of what the function may do, and random users, brokers, clouds and faults.

::

    machine ──> broker ──> the real endpoint, service, run, login and clients ──> network ──> the simulated cloud
       │                                                                            │
       ├── users, faults, kills, the clock                                          └── recorder ──> invariants
       └── after each step: does every invariant hold?

`invariants` restates the contract in plain Python and shares no line with the function.
`python -m tests.harness.prove` runs long.
"""
