"""`make bench`: what the function costs, as ratios within one run, since machines differ and are noisy.

Each figure is a median of rounds in which the two sides take turns. The peer for start and memory is a bare
functions-framework function that says hello; for the fan-out it is arithmetic: the calls made, divided by the
concurrency, times the latency. The simulated cloud runs in a process of its own.
"""

from __future__ import annotations

import json
import math
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

ROOT = Path(__file__).parent.parent
MAIN = ROOT / "handler" / "main.py"
HELLO = "def hello(request):\n    return 'hello'\n"
STOP = "io.github.bms-autostop.stop.requested.v1"
CONCURRENCY = 16
LATENCY = 0.05
FLEET = 200

_CLOUD = """
import json, sys
from handler.simulator import Simulator
latency, fleet = float(sys.argv[1]), int(sys.argv[2])
with Simulator(latency=latency) as cloud:
    ids = [cloud.add_server(f"bms-{n:04}", updated=0.0) for n in range(fleet)]
    print(json.dumps({"environ": cloud.environ(), "ids": ids}), flush=True)
    for line in sys.stdin:
        if line == "start\\n":
            for id_ in ids:
                cloud.change(id_, vm_state="active", task_state=None)
        print(json.dumps(len(cloud.calls)), flush=True)
"""


class Cloud:
    """The simulator in a process of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        self.environ: dict[str, str] = told["environ"]
        self.ids: list[str] = told["ids"]

    def calls(self, *, start_all: bool = False) -> int:
        """How many calls it has served; with `start_all` every server runs again."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("start\n" if start_all else "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


@contextmanager
def cloud(latency: float, fleet: int) -> Iterator[Cloud]:
    """Run a simulated cloud."""
    with subprocess.Popen(
        [sys.executable, "-c", _CLOUD, str(latency), str(fleet)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        try:
            yield Cloud(process)
        finally:
            process.terminate()


@contextmanager
def served(source: Path, target: str, environ: dict[str, str]) -> Iterator[tuple[str, int, float]]:
    """Serve a function; yields its URL, the process id, and when the process was started."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AUTOSTOP_", "OS_", "K_"))}
    began = time.perf_counter()
    with subprocess.Popen(
        [
            *(sys.executable, "-m", "functions_framework", "--source", str(source)),
            *("--target", target, "--host", "127.0.0.1", "--port", str(port)),
        ],
        env={**kept, **environ},
        stdout=subprocess.DEVNULL,
    ) as process:
        try:
            yield f"http://127.0.0.1:{port}/", process.pid, began
        finally:
            process.terminate()


def until_answer(post: Callable[[], requests.Response]) -> requests.Response:
    """Call until the server listens."""
    while True:
        try:
            return post()
        except requests.ConnectionError:
            time.sleep(0.002)


def stop(url: str, ids: list[str]) -> requests.Response:
    """Send one event."""
    headers = {"ce-specversion": "1.0", "ce-id": "bench", "ce-source": "/bench", "ce-type": STOP}
    return requests.post(url, json={"server_ids": ids}, headers=headers, timeout=60)


def memory(pid: int) -> float:
    """Resident memory of a process and its children, in MiB (RSS, as `ps` shows it)."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    own = next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmRSS:"))
    return own + sum(memory(int(child)) for child in children)


def start_and_memory(rounds: int = 9) -> tuple[list[float], list[float], list[float], list[float]]:
    """Seconds from process start to the first answer, and memory after it: of hello, and of ours with a real stop."""
    hello_starts, hello_memory, our_starts, our_memory = [], [], [], []
    with tempfile.TemporaryDirectory() as folder, cloud(0.0, rounds) as simulated:
        hello = Path(folder) / "hello.py"
        hello.write_text(HELLO)
        environ = {**simulated.environ, "AUTOSTOP_INBOUND_AUTH": "none"}
        for index in range(rounds):
            with served(hello, "hello", {}) as (url, pid, began):
                until_answer(lambda url=url: requests.post(url, timeout=60))
                hello_starts.append(time.perf_counter() - began)
                hello_memory.append(memory(pid))
            with served(MAIN, "stop_servers", environ) as (url, pid, began):
                answer = until_answer(lambda url=url, id_=simulated.ids[index]: stop(url, [id_]))
                our_starts.append(time.perf_counter() - began)
                assert answer.json()["summary"]["stopped"] == 1, answer.text
                our_memory.append(memory(pid))
    return hello_starts, hello_memory, our_starts, our_memory


def warm_event(rounds: int = 200) -> float:
    """Seconds for one event about one server that is stopped already: one read."""
    with (
        cloud(0.0, 1) as simulated,
        served(MAIN, "stop_servers", {**simulated.environ, "AUTOSTOP_INBOUND_AUTH": "none"}) as (url, _, _),
    ):
        until_answer(lambda: stop(url, simulated.ids))
        times = []
        for _ in range(rounds):
            began = time.perf_counter()
            assert stop(url, simulated.ids).json()["summary"]["unchanged"] == 1
            times.append(time.perf_counter() - began)
    return statistics.median(times)


def fan_out(rounds: int = 5) -> tuple[float, float, int]:
    """Seconds for one event about `FLEET` running servers, the ideal for the calls made, and how many those were."""
    took, ideal, calls = [], 0.0, 0
    environ = {
        "AUTOSTOP_INBOUND_AUTH": "none",
        "AUTOSTOP_MAX_SERVERS": str(FLEET),
        "AUTOSTOP_CONCURRENCY": str(CONCURRENCY),
        "AUTOSTOP_WAIT": "0",
    }
    with (
        cloud(LATENCY, FLEET) as simulated,
        served(MAIN, "stop_servers", {**environ, **simulated.environ}) as (url, _, _),
    ):
        until_answer(lambda: requests.get(f"{url}readyz", timeout=60))
        for _ in range(rounds):
            before = simulated.calls(start_all=True)
            began = time.perf_counter()
            answer = stop(url, simulated.ids)
            took.append(time.perf_counter() - began)
            assert answer.json()["summary"]["accepted"] == FLEET, answer.text
            calls = simulated.calls() - before
            ideal = math.ceil(calls / CONCURRENCY) * LATENCY
    return statistics.median(took), ideal, calls


def main() -> int:
    """Measure and print; the exit code says whether the expected ratios were kept."""
    hello_starts, hello_memory, our_starts, our_memory = start_and_memory()
    hello_start, our_start = statistics.median(hello_starts), statistics.median(our_starts)
    hello_mib, our_mib = statistics.median(hello_memory), statistics.median(our_memory)
    took, ideal, calls = fan_out()
    rows = [
        ("process start to first server stopped / bare hello's first answer", our_start, hello_start, "s", 1.8),
        ("memory after it / bare hello's", our_mib, hello_mib, "MiB", 1.35),
        (f"{FLEET} servers, {calls} calls of {LATENCY * 1000:.0f} ms / ideal at {CONCURRENCY}", took, ideal, "s", 1.25),
    ]
    kept = True
    for name, ours, peer, unit, limit in rows:
        kept &= ours / peer <= limit
        print(f"{ours / peer:5.2f}  (expected <= {limit:.2f})  {name}: {ours:.3f} / {peer:.3f} {unit}")
    print(f"warm event, one server that is stopped already: {warm_event() * 1000:.1f} ms")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
