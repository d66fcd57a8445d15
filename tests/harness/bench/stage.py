"""Processes to measure: simulated clouds, served functions, and what they used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import requests

from tests.support.process import ROOT, children, environment, free_port, function_command

STOP = "io.github.bms-autostop.stop.requested.v1"

_TICKS = os.sysconf("SC_CLK_TCK")
# Above a version document, as on DevStack: the SDK's discovery climbs up to it, and would find Keystone's otherwise.
_CLOUD = """
import json, sys
from handler.simulator import ComputePath, Simulator
latency, fleet, api = float(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
simulator = Simulator.otc(latency=latency) if api == "bms" else Simulator(
    latency=latency, compute_path=ComputePath.PREFIXED
)
with simulator as cloud:
    ids = [cloud.add_server(f"bms-{n:04}", updated=0.0) for n in range(fleet)]
    print(json.dumps({"environ": cloud.environ(), "ids": ids}), flush=True)
    for line in sys.stdin:
        if line == "start\\n":
            for id_ in ids:
                cloud.change(id_, vm_state="active", task_state=None)
        kinds = {}
        for call in cloud.calls:
            kinds[call.kind.value] = kinds.get(call.kind.value, 0) + 1
        print(json.dumps(kinds), flush=True)
"""


class Cloud:
    """A simulated cloud in a process of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        assert process.stdout is not None
        reported = json.loads(process.stdout.readline())
        self.environ: dict[str, str] = reported["environ"]
        self.ids: list[str] = reported["ids"]
        self._before: dict[str, int] = {}

    def restart(self) -> None:
        """Let every server run again, and count calls from here on."""
        self._before = self._ask("start")

    def calls(self) -> dict[str, int]:
        counts = {kind: count - self._before.get(kind, 0) for kind, count in self._ask("").items()}
        return {kind: count for kind, count in counts.items() if count}

    def cpu(self) -> float:
        return cpu(self._process.pid)

    def _ask(self, what: str) -> dict[str, int]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        return dict(json.loads(self._process.stdout.readline()))


@contextmanager
def cloud(latency: float, fleet: int, api: str = "nova") -> Iterator[Cloud]:
    """Run a simulated cloud."""
    with subprocess.Popen(
        [sys.executable, "-c", _CLOUD, str(latency), str(fleet), api],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        try:
            yield Cloud(process)
        finally:
            process.terminate()


@dataclass(frozen=True, slots=True)
class Served:
    """A function that is served.

    Attributes:
        pid: of the server, whose child does the work.
        began: when its process was started, on `time.perf_counter`.
    """

    url: str
    pid: int
    began: float


@contextmanager
def served(
    source: Path,
    target: str,
    environ: Mapping[str, str],
    *,
    python: str = sys.executable,
    stderr: IO[Any] | None = None,
) -> Iterator[Served]:
    """Serve a function with functions-framework, with the settings of glibc's allocator that the image has."""
    port = free_port()
    began = time.perf_counter()
    with subprocess.Popen(
        function_command(port, target, source=source, python=python),
        env={"MALLOC_ARENA_MAX": "1", **clean_environ(), **environ},
        stdout=subprocess.DEVNULL,
        stderr=stderr,
    ) as process:
        try:
            yield Served(f"http://127.0.0.1:{port}/", process.pid, began)
        finally:
            process.terminate()


def compile_bytecode() -> None:
    """Compile the function and what is installed, so that no measured start is charged for it."""
    folders = [str(ROOT / "handler"), sysconfig.get_path("purelib")]
    subprocess.run([sys.executable, "-m", "compileall", "-q", *folders], env=clean_environ(), check=True)


def clean_environ() -> dict[str, str]:
    """Return our environment without settings of the function or of a client, with the tests' bytecode cache.

    Where `PYTHONDONTWRITEBYTECODE` is set, each start would be charged the compilation of what it imports.
    """
    settings = ("AUTOSTOP_", "OS_", "K_", "OTEL_", "PYTHONDONTWRITEBYTECODE")
    return {**environment(), **{name: value for name, value in os.environ.items() if not name.startswith(settings)}}


def until_answer(post: Callable[[], requests.Response]) -> requests.Response:
    """Call until the server listens."""
    while True:
        try:
            return post()
        except requests.ConnectionError:
            time.sleep(0.002)


def stop(url: str, ids: Sequence[str]) -> requests.Response:
    """Send one event."""
    headers = {"ce-specversion": "1.0", "ce-id": "bench", "ce-source": "/bench", "ce-type": STOP}
    return requests.post(url, json={"server_ids": list(ids)}, headers=headers, timeout=120)


def tree(pid: int) -> list[int]:
    """A process and all below it."""
    return [pid, *(below for child in children(pid) for below in tree(child))]


def memory(pid: int, *, peak: bool = False) -> float:
    """Resident memory of a process and its children, in MiB (RSS, as `ps` shows it), now or at its highest."""
    field = "VmHWM:" if peak else "VmRSS:"
    lines = (line for each in tree(pid) for line in Path(f"/proc/{each}/status").read_text().splitlines())
    return sum(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def cpu(pid: int) -> float:
    """Seconds of processor time that a process and its children have used."""
    stats = (Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split() for each in tree(pid))
    return sum(int(stat[11]) + int(stat[12]) for stat in stats) / _TICKS
