"""Call a zip as FunctionGraph does: load the entry by its path in an otherwise empty Python, and call it."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from deploy.functiongraph.package import Distribution

# Runs under `python -I -S`: the standard library is all there is. The context has the documented methods.
DRIVER = """
import gc, importlib.util, json, logging, os, sys, time
call = json.load(sys.stdin)
before = set(sys.modules)

class Context:
    def getUserData(self, key): return call["user_data"].get(key)
    def getToken(self): return call["token"]
    def getSecurityAccessKey(self): return ""
    def getSecuritySecretKey(self): return ""
    def getSecurityToken(self): return ""
    def getProjectID(self): return call["project"]
    def getFunctionName(self): return "bms-autostop"
    def getVersion(self): return "latest"
    def getPackage(self): return "default"
    def getAlias(self): return ""
    def getRequestID(self): return "5b1e6a2c-0000-4000-8000-000000000001"
    def getRemainingTimeInMilliSeconds(self): return 90000
    def getRunningTimeInSeconds(self): return 90
    def getMemorySize(self): return 256
    def getCPUNumber(self): return 600
    def getLogger(self): return logging.getLogger()

root, (file, function) = call["root"], call["entry"].rsplit(".", 1)
if call["on_path"]:
    sys.path.insert(0, root)
spec = importlib.util.spec_from_file_location(file.rpartition("/")[2], os.path.join(root, file + ".py"))
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
results = [getattr(module, function)(event, Context()) for event in call["events"]]
files = {name: getattr(module, "__file__", None) for name, module in list(sys.modules.items()) if name not in before}
library = os.path.dirname(os.__file__) + os.sep
print(json.dumps({
    "results": results,
    "foreign": sorted(n for n, f in files.items() if f and not f.startswith((root + os.sep, library))),
    "loaded": sorted({n.partition(".")[0] for n, f in files.items() if f and f.startswith(root + os.sep)}),
    "collects": gc.isenabled(),
    "memory": next(int(l.split()[1]) / 1024 for l in open("/proc/self/status") if l.startswith("VmHWM:")),
}))
"""


@dataclass(frozen=True, slots=True)
class Called:
    """The outcome of a call.

    Attributes:
        results: what the function returned for each event.
        foreign: modules from neither the zip nor the standard library.
        loaded: top-level packages from the zip.
        collects: whether the garbage collector is on afterwards.
        memory: MiB resident at most.
        seconds: from the start of Python to its end.
    """

    results: list[Any]
    foreign: list[str]
    loaded: list[str]
    collects: bool
    memory: float
    seconds: float


def call(
    root: str,
    entry: str,
    events: Sequence[object],
    *,
    on_path: bool,
    user_data: Mapping[str, str],
    token: str,
    project: str,
    python: Sequence[str] = (sys.executable,),
) -> Called:
    """Call the function once for each event, in a process that has just started.

    `entry` is the handler string of the platform, such as `index.handler`. Whether the platform puts the root on
    `sys.path`, where it has unpacked the zip, is not documented. `python` is how to start Python.
    """
    arguments = {"root": root, "entry": entry, "events": list(events), "on_path": on_path}
    arguments |= {"user_data": dict(user_data), "token": token, "project": project}
    # PATH is for the command that starts Python; Python itself has no use for it.
    environ = {"PATH": os.environ["PATH"], "RUNTIME_PROJECT_ID": project, "RUNTIME_CODE_ROOT": root}
    began = time.perf_counter()
    done = subprocess.run(
        [*python, "-I", "-S", "-B", "-c", DRIVER],
        input=json.dumps(arguments),
        env=environ,
        cwd="/",
        text=True,
        capture_output=True,
        timeout=120,
        check=False,
    )
    seconds = time.perf_counter() - began
    if done.returncode:
        raise AssertionError(f"{done.stdout}\n{done.stderr}")
    return Called(**json.loads(done.stdout.splitlines()[-1]), seconds=seconds)


def timer(server_id: str) -> dict[str, str]:
    """The event of a timer trigger, now."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    data = json.dumps({"server_ids": [server_id]})
    return {"version": "v1.0", "time": now, "trigger_type": "TIMER", "trigger_name": "nightly", "user_event": data}


def installed(lock: Path) -> Iterator[Distribution]:
    """What the lock names, as it is installed here: for this Python and this machine, not for the platform's."""
    for name in re.findall(r"^([\w.-]+)", lock.read_text(), re.MULTILINE):
        try:
            found = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            # Its marker says that it is not for this machine.
            continue
        files = {
            path.as_posix(): Path(str(path.locate())).read_bytes()
            for path in found.files or []
            if not path.is_absolute() and ".." not in path.parts and Path(str(path.locate())).is_file()
        }
        requires = tuple(map(Requirement, found.requires or []))
        yield Distribution(canonicalize_name(found.metadata["Name"]), requires, files)
