"""What is measured of the function: cold start, memory, a warm event, many servers."""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import requests

from tests.harness.bench.stage import Served, cloud, compile_bytecode, cpu, memory, served, stop, until_answer
from tests.support.process import MAIN

LATENCY = 0.05
HELLO = "def hello(request):\n    return 'hello'\n"
# The rounds of a benchmark stop more servers within ten minutes than the stop limit lets through by default.
OPEN = {"AUTOSTOP_INBOUND_AUTH": "none", "AUTOSTOP_STOP_LIMIT": "0"}


@dataclass(slots=True)
class Starts:
    """From process start to the first answer, a round each: seconds, seconds of processor time, and MiB after it."""

    seconds: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    mib: list[float] = field(default_factory=list)

    def add(self, function: Served) -> None:
        """Measure a function that has just given its first answer."""
        self.seconds.append(time.perf_counter() - function.began)
        self.processor.append(cpu(function.pid))
        self.mib.append(memory(function.pid))

    @property
    def start(self) -> float:
        return statistics.median(self.seconds)

    @property
    def cpu(self) -> float:
        """The mean of the seconds of processor time, which the kernel counts in hundredths."""
        return statistics.fmean(self.processor)

    @property
    def memory(self) -> float:
        return statistics.median(self.mib)


@dataclass(frozen=True, slots=True)
class Fleet:
    """One event about many running servers.

    Attributes:
        calls: of each kind, logins included.
        waves: calls that must be waited for one after the other, at best, and what they are.
        seconds: wall time, the median of the rounds.
    """

    calls: dict[str, int]
    waves: int
    reported: str
    seconds: float
    cpu: float
    peak: float

    @property
    def ideal(self) -> float:
        """Wall time if nothing but the cloud's latency took any."""
        return self.waves * LATENCY


def starts(sdk_python: str | None, sdk_source: Path, rounds: int) -> tuple[Starts, Starts, Starts]:
    """Cold starts in turns: of hello, of ours with a real stop, and of the same job by openstacksdk if there is one."""
    hello, ours, sdk = Starts(), Starts(), Starts()
    compile_bytecode()
    with tempfile.TemporaryDirectory() as folder, cloud(0.0, 2 * rounds) as simulated:
        source = Path(folder) / "hello.py"
        source.write_text(HELLO)
        for index in range(rounds):
            with served(source, "hello", {}) as function:
                until_answer(partial(requests.post, function.url, timeout=60))
                hello.add(function)
            with served(MAIN, "stop_servers", simulated.environ | OPEN) as function:
                answer = until_answer(partial(stop, function.url, [simulated.ids[index]]))
                ours.add(function)
                assert answer.json()["summary"]["stopped"] == 1, answer.text
            if sdk_python is None:
                continue
            with served(sdk_source, "stop_servers", simulated.environ, python=sdk_python) as function:
                answer = until_answer(partial(stop, function.url, [simulated.ids[rounds + index]]))
                sdk.add(function)
                assert answer.json() == {"stopped": 1}, answer.text
    return hello, ours, sdk


def warm_event(rounds: int = 200) -> float:
    """Seconds for one event about one server that is stopped already: one read."""
    with cloud(0.0, 1) as simulated, served(MAIN, "stop_servers", simulated.environ | OPEN) as function:
        until_answer(lambda: stop(function.url, simulated.ids))
        times = []
        for _ in range(rounds):
            began = time.perf_counter()
            assert stop(function.url, simulated.ids).json()["summary"]["unchanged"] == 1
            times.append(time.perf_counter() - began)
    return statistics.median(times)


def many(size: int, concurrency: int, *, api: str = "nova", wait: bool = False, rounds: int = 5) -> Fleet:
    """One event about `size` running servers; with `wait` until all are seen stopped, else until all stops are taken.

    The function has its token already: it was asked whether it is ready.
    """
    environ = OPEN | {
        "AUTOSTOP_API": api,
        "AUTOSTOP_MAX_SERVERS": str(size),
        "AUTOSTOP_CONCURRENCY": str(concurrency),
        "AUTOSTOP_WAIT": "20s" if wait else "0",
    }
    took, spent, calls = [], [], {}
    with ExitStack() as stack:
        simulated = stack.enter_context(cloud(LATENCY, size, api))
        function = stack.enter_context(served(MAIN, "stop_servers", simulated.environ | environ))
        until_answer(lambda: requests.get(f"{function.url}readyz", timeout=60)).raise_for_status()
        for _ in range(rounds):
            simulated.restart()
            used, began = cpu(function.pid), time.perf_counter()
            answer = stop(function.url, simulated.ids)
            took.append(time.perf_counter() - began)
            spent.append(cpu(function.pid) - used)
            assert answer.json()["summary"]["stopped" if wait else "accepted"] == size, answer.text
            calls = simulated.calls()
        peak = memory(function.pid, peak=True)
    # 1 page holds 1000 servers; BMS v1 takes 1000 in one stop, and reports them by a job.
    if api == "bms":
        stops, reported = 1, "1 list page + 1 batch"
    else:
        stops = math.ceil(size / concurrency)
        reported = f"1 list page + {size} stops / {concurrency}"
    confirming = (2 if api == "bms" else 1) if wait else 0
    if wait:
        reported += " + 1 job + 1 list page" if api == "bms" else " + 1 list page"
    waves = 1 + stops + confirming
    reported = f"({reported}) x {LATENCY * 1000:.0f} ms"
    return Fleet(calls, waves, reported, statistics.median(took), statistics.median(spent), peak)
