"""What the function costs, as ratios within one run: `python -m tests.harness.bench --help`.

::

    __main__   the rows, their aims, the exit code
    ours       what is measured of the function
    peers      the same jobs by openstacksdk and python-openstackclient
    imports    where the import time of a cold start goes
    stage      processes to measure: simulated clouds, served functions, and what they used
"""
