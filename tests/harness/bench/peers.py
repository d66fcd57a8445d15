"""The same jobs by openstacksdk and by python-openstackclient, in an environment of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tests.harness.bench.ours import LATENCY
from tests.harness.bench.stage import clean_environ, cloud

PACKAGES = ("openstacksdk", "python-openstackclient", "functions-framework")

# A simple function: read, stop, read until it is off. No guards, no events, no protection.
FUNCTION = """
import time

import openstack

CLOUD = openstack.connect()


def stop_servers(request):
    stopped = 0
    for id_ in request.get_json()["server_ids"]:
        server = CLOUD.compute.get_server(id_)
        if server.status == "ACTIVE":
            CLOUD.compute.stop_server(server)
            while CLOUD.compute.get_server(id_).status != "SHUTOFF":
                time.sleep(0.03)
            stopped += 1
    return {"stopped": stopped}
"""
LOOP = """
import sys

import openstack

cloud = openstack.connect()
for id_ in sys.argv[1:]:
    cloud.compute.stop_server(id_)
"""


@dataclass(frozen=True, slots=True)
class Used:
    """What a client used for `size` servers.

    Attributes:
        scaled: from the figures of how many servers this was worked out; None if it was measured.
    """

    calls: int
    seconds: float
    cpu: float
    peak: float
    scaled: int | None = None


class Peers:
    """An environment with the peers in it.

    Args:
        folder: where to make it; the caller removes it.
    """

    def __init__(self, folder: Path) -> None:
        self._bin = folder / "venv" / "bin"
        self.python = str(self._bin / "python")
        self.source = folder / "main.py"
        self.source.write_text(FUNCTION)
        subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
        pip = (self.python, "-m", "pip", "--disable-pip-version-check", "-qq", "install")
        subprocess.run([*pip, *PACKAGES], check=True, stdout=subprocess.DEVNULL)

    def versions(self) -> str:
        script = "import importlib.metadata as m, sys; print(*(f'{p} {m.version(p)}' for p in sys.argv[1:]), sep=', ')"
        reported = subprocess.run([self.python, "-c", script, *PACKAGES], check=True, capture_output=True, text=True)
        return reported.stdout.strip()

    def client(self, size: int, measured: int) -> Used:
        return self._scaled([str(self._bin / "openstack"), "server", "stop"], size, measured)

    def loop(self, size: int, measured: int) -> Used:
        return self._scaled([self.python, "-c", LOOP], size, measured)

    def _scaled(self, command: list[str], size: int, measured: int) -> Used:
        with cloud(LATENCY, size) as simulated:

            def run(count: int) -> Used:
                simulated.restart()
                began = time.perf_counter()
                process = subprocess.Popen([*command, *simulated.ids[:count]], env=clean_environ() | simulated.environ)
                _, status, usage = os.wait4(process.pid, 0)
                process.returncode = os.waitstatus_to_exitcode(status)
                took = time.perf_counter() - began
                calls = simulated.calls()
                assert process.returncode == 0, command
                assert calls["stop"] == count, calls
                return Used(sum(calls.values()), took, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)

            if measured >= size:
                return run(size)
            # The first start of all also reads the files from the disk.
            run(1)
            one = min(run(1), run(1), key=lambda used: used.seconds)
            some = run(measured)
        # What a start costs is not multiplied, only what each further server does.
        more = (size - measured) / (measured - 1)
        return Used(
            round(some.calls + more * (some.calls - one.calls)),
            some.seconds + more * (some.seconds - one.seconds),
            some.cpu + more * (some.cpu - one.cpu),
            some.peak,
            scaled=measured,
        )
