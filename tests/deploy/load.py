"""`make load`: a thousand events within a minute against one process, and a SIGTERM in the middle of them.

The function is served as in production, by functions-framework and gunicorn, with the settings of the manifest's
Service but for the dry run and the stop limit. The cloud is simulated in a process of its own and takes 50 ms for each
call. The sender is open: events leave on time whether or not earlier ones were answered, as from a broker.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import requests

from tests.conftest import STOP
from tests.deploy.environment import OBJECTS, Process
from tests.deploy.kustomize import find
from tests.harness.bench.stage import cloud, cpu, memory

LATENCY = 0.05
_SERVICE = find(OBJECTS, "Service", "bms-autostop")


@dataclass(slots=True)
class Answers:
    """The answers to the events that were sent.

    Attributes:
        statuses: how many answers had each; 0 stands for no answer at all.
        seconds: how long each answer took.
        halves: answers that were cut off, or that were not a complete result.
        late: the longest time by which an event was sent late.
    """

    statuses: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    halves: int = 0
    late: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, status: int, seconds: float, half: bool) -> None:
        """Record an answer."""
        with self._lock:
            self.statuses[status] += 1
            self.seconds.append(seconds)
            self.halves += half

    def reported(self) -> str:
        """Return a summary in one line."""
        ordered = sorted(self.seconds)
        many = ", ".join(f"{count} x {status or 'no answer'}" for status, count in sorted(self.statuses.items()))
        return (
            f"{many}; cut off {self.halves}; median {statistics.median(ordered):.3f} s,"
            f" 99 % {ordered[int(len(ordered) * 0.99) - 1]:.3f} s, longest {ordered[-1]:.3f} s; left at most"
            f" {self.late:.2f} s late"
        )


def _send(url: str, id_: str, server: str, answers: Answers) -> None:
    headers = {"ce-specversion": "1.0", "ce-id": id_, "ce-source": "/load", "ce-type": STOP}
    began = time.perf_counter()
    status, half = 0, False
    try:
        answer = requests.post(url, json={"server_ids": [server]}, headers=headers, timeout=120)
        status = answer.status_code
        half = status == 200 and sum(answer.json()["summary"].values()) != 1
    except requests.exceptions.ChunkedEncodingError:
        half = True
    except (requests.ConnectionError, ValueError):
        pass
    answers.add(status, time.perf_counter() - began, half)


def fire(url: str, servers: Sequence[str], events: int, seconds: float) -> Answers:
    """Send so many events, spread evenly, each about one server in turn; wait for all answers."""
    answers, threads, began = Answers(), [], time.perf_counter()
    for number, server in zip(range(events), itertools.cycle(servers), strict=False):
        wait = began + number * seconds / events - time.perf_counter()
        if wait > 0:
            time.sleep(wait)
        answers.late = max(answers.late, -wait)
        thread = threading.Thread(target=_send, args=(url, f"load-{number}", server, answers))
        thread.start()
        threads.append(thread)
    for thread in threads:
        thread.join()
    return answers


def main() -> int:
    """Load it and print; the exit code says whether all was answered and memory stayed bounded."""
    parser = argparse.ArgumentParser(prog="python -m tests.deploy.load", description=__doc__)
    parser.add_argument("--events", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    fine = True
    with tempfile.TemporaryDirectory() as folder, cloud(LATENCY, options.events) as simulated:
        # Each event stops a server of its own: by its default the stop limit would hold back four fifths of them.
        limit = {"AUTOSTOP_STOP_LIMIT": f"{2 * options.events}/10m"}
        environ = {**simulated.environ, **limit, "AUTOSTOP_DRY_RUN": "false", "MALLOC_ARENA_MAX": "1"}
        process = Process(_SERVICE, environ, Path(folder) / "log")
        process.restart()
        try:
            fire(process.url, simulated.ids[:1], 50, 1.0)
            simulated.restart()
            before, used, began = memory(process.pid), cpu(process.pid), time.perf_counter()
            answers = fire(process.url, simulated.ids, options.events, options.seconds)
            took = time.perf_counter() - began
            after = memory(process.pid)
            print(f"{options.events} events in {took:.1f} s, each a running server, {LATENCY * 1000:.0f} ms a call:")
            print(f"  {answers.reported()}")
            print(
                f"  memory {before:.1f} MiB before, {after:.1f} MiB after, {memory(process.pid, peak=True):.1f} at most"
            )
            print(f"  processor {(cpu(process.pid) - used) / options.events * 1000:.1f} ms an event", flush=True)
            fine &= answers.statuses == {200: options.events} and not answers.halves
            fine &= simulated.calls()["stop"] == options.events
            again = fire(process.url, simulated.ids, options.events // 2, options.seconds / 2)
            print(f"half as many again, servers stopped already: memory {memory(process.pid):.1f} MiB")
            print(f"  {again.reported()}", flush=True)
            fine &= again.statuses == {200: options.events // 2} and memory(process.pid) < after * 1.1 + 2.0
            simulated.restart()
            few = options.events // 4
            with ThreadPoolExecutor(1) as sender:
                sent = sender.submit(fire, process.url, simulated.ids, few, 3.0)
                time.sleep(1.5)
                code = process.stop()
                answers = sent.result()
            stops = simulated.calls().get("stop", 0)
            print(f"SIGTERM in the middle of {few} events in 3 s: exit code {code}, {stops} servers stopped")
            print(f"  {answers.reported()}")
            # An event that was not answered was not begun: no server was stopped without a result.
            fine &= stops == answers.statuses[200] > 0
            fine &= set(answers.statuses) <= {0, 200, 503} and not answers.halves and code == 0
        finally:
            process.kill()
    print("All were answered, none was lost." if fine else "NOT as it should be.")
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
