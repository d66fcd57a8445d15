"""`make release-check`: build what a release ships twice, in other folders and under other clocks, and compare it.

Compared are the wheel, the zip for FunctionGraph, and what the image installs: the pure Python wheels with their
bytecode. The two builds differ in the path of the folder, the times and permissions of all files, the clock that Python
programs read, the time zone and the hash seed. Layers, and what the base image brings, need a container engine and are
not compared here: `make image-test` does that with buildah.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from deploy.functiongraph.package import fetch, platform_python
from tests.support.process import ROOT

# Python reads it at the start of every program: the build's own and those that pip starts.
_CLOCK = """
import time
_now = time.time
time.time = lambda: _now() + {ahead}
"""


class Conditions(NamedTuple):
    """What differs between two builds.

    Attributes:
        folder: path below the work folder.
        mtime: of all source files, in seconds since 1970.
        mode: permissions of all source files.
        ahead: seconds by which the clock is ahead.
        zone: time zone.
        seed: of Python's hashes.
    """

    folder: str
    mtime: int
    mode: int
    ahead: int
    zone: str
    seed: str


CONDITIONS = (
    Conditions("a", 1_000_000_000, 0o644, 0, "UTC", "1"),
    Conditions("another/and longer/folder", 1_700_000_000, 0o600, 400 * 86400, "Pacific/Kiritimati", "4711"),
)


def differences(first: Mapping[str, str], second: Mapping[str, str]) -> list[str]:
    """Return the names whose digests differ, or that only one of the two has."""
    return sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))


def build(work: Path, conditions: Conditions, wheels: Path, zip_options: list[str]) -> dict[str, str]:
    """Build everything from a copy of the tracked files below `work`, and return the digest of each file by its name.

    The wheels are those that requirements.lock names, for the platform of the zip.
    """
    source = work / conditions.folder / "source"
    target = work / conditions.folder / "target"
    _copy(source, conditions)
    (source.parent / "clock").mkdir()
    (source.parent / "clock" / "sitecustomize.py").write_text(_CLOCK.format(ahead=conditions.ahead))
    environ = {
        **{name: value for name, value in os.environ.items() if name != "SOURCE_DATE_EPOCH"},
        "PYTHONPATH": str(source.parent / "clock"),
        "PYTHONHASHSEED": conditions.seed,
        "TZ": conditions.zone,
    }
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    site = target / "site-packages"
    for command in (
        [*pip, "wheel", "--no-index", "--no-deps", "--no-build-isolation", "--wheel-dir", str(target), "."],
        [
            *(sys.executable, "-m", "deploy.functiongraph.package", "--wheels", str(wheels)),
            *("--output", str(target / "functiongraph.zip"), *zip_options),
        ],
        # Those of the other platform cannot be installed here.
        [
            *(*pip, "install", "--no-index", "--no-deps", "--no-compile", "--target", str(site)),
            *map(str, sorted(wheels.glob("*-none-any.whl"))),
        ],
        [
            *(sys.executable, "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"),
            *("-s", str(site), "-p", "/opt/venv", str(site)),
        ],
    ):
        subprocess.run(command, cwd=source, env=environ, check=True, stdout=subprocess.DEVNULL)
    return {
        path.relative_to(target).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(target.rglob("*"))
        if path.is_file() and not path.is_relative_to(site / "bin")
    }


def _copy(source: Path, conditions: Conditions) -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in listed.stdout.split("\0"):
        if name and (ROOT / name).is_file():
            copy = source / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes((ROOT / name).read_bytes())
            copy.chmod(conditions.mode)
            os.utime(copy, (conditions.mtime, conditions.mtime))


def main() -> int:
    """Build twice and compare; the exit code is 1 if the builds differ."""
    python = platform_python(None)
    options = ["--python", python] if python else []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        (work / "wheels").mkdir()
        print("Fetching the wheels of requirements.lock (about 20 s)", flush=True)
        fetch(ROOT / "requirements.lock", work / "wheels")
        builds = []
        for number, conditions in enumerate(CONDITIONS, 1):
            print(f"Build {number} of {len(CONDITIONS)} (about 20 s)", flush=True)
            builds.append(build(work, conditions, work / "wheels", options))
    first, second = builds
    different = differences(first, second)
    for name in different:
        print(f"differs: {name}")
    for name, digest in first.items():
        if "/" not in name and name not in different:
            print(f"the same: {name}  sha256 {digest}")
    if not python:
        print("The zip has no bytecode: Python 3.12 was not found.")
    print("Not compared, for want of a container engine: the image's layers and its base (make image-test).")
    print(f"{len(different)} of {len(first)} files differ." if different else f"All {len(first)} files are the same.")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
