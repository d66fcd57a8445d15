"""`python -m tests.harness.interop`: exchange events with other programs, on loopback."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys

from tests.conftest import ROOT
from tests.harness.interop.stage import BUILD, CAPTURE

# Each program, and what brings it on Debian.
NEEDED = {"node": "nodejs", "npm": "npm", "prometheus-alertmanager": "prometheus-alertmanager"}
JAVASCRIPT = ROOT / "tests" / "harness" / "interop" / "javascript"


def main() -> int:
    """Set up the SDK, then run the suite."""
    parser = argparse.ArgumentParser(prog="python -m tests.harness.interop")
    parser.add_argument("--capture", action="store_true", help="write tests/captured anew from what they send")
    asked = parser.parse_args()
    missing = [f"`{name}` (Debian package {package})" for name, package in NEEDED.items() if not shutil.which(name)]
    if missing:
        sys.exit("make interop needs " + " and ".join(missing) + ".")
    _set_up_sdk()
    here = ROOT / "tests" / "harness" / "interop"
    files = [str(here / "javascript_sdk.py"), str(here / "alertmanager.py")]
    suite = [sys.executable, "-m", "pytest", "-v", *files]
    environ = {**os.environ, CAPTURE: "1"} if asked.capture else dict(os.environ)
    return subprocess.run(suite, cwd=ROOT, env=environ, check=False).returncode


def _set_up_sdk() -> None:
    """Install the SDK as its lock file says, once for each lock file."""
    lock = JAVASCRIPT / "package-lock.json"
    done = BUILD / "installed.json"
    if done.exists() and done.read_bytes() == lock.read_bytes():
        return
    BUILD.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(JAVASCRIPT / name, BUILD / name)
    # No script of any package is run.
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    if subprocess.run(command, cwd=BUILD, check=False).returncode:
        sys.exit("make interop could not install the CloudEvents SDK; see npm's output.")
    shutil.copy(lock, done)


if __name__ == "__main__":
    sys.exit(main())
