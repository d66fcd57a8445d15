"""What `demo`, `plan` and `doctor` print at a terminal, held in files. `python -m tests.cli.golden` writes them anew.

The files have colour; without colour the same lines must come, without the escape codes. Times, ports and the ids that
differ from run to run are replaced by ones of the same length.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from handler.demo.fleet import CI_09, FLEET, add
from handler.simulator import Simulator
from tests.conftest import ROOT

FILES = Path(__file__).parent / "golden"
WIDTHS = (80, 120)
COMMANDS: Mapping[str, tuple[str, ...]] = {
    "demo": ("demo",),
    "plan": ("plan", "--name", "*-[01]?"),
    "plan-verbose": ("plan", "-v", "--name", "ci-0[79]"),
    "doctor": ("doctor",),
    "doctor-server": ("doctor", "--server", CI_09),
    "doctor-error": ("doctor",),
}
_WRONG: Mapping[str, Mapping[str, str]] = {"doctor-error": {"OS_REGION_NAME": "elsewhere"}}
_CODES = re.compile(r"\x1b\[[0-9;]*m")
_VARYING = (
    (re.compile(r"\b20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"), "2026-11-20T19:00:00.000Z"),
    (re.compile(r"127\.0\.0\.1:\d{5}"), "127.0.0.1:50000"),
    (re.compile(r"within \d s of"), "within 1 s of"),
    (re.compile(r"\b[0-9a-f]{32}\b"), "0123456789abcdef0123456789abcdef"),
)


def printed(name: str, columns: int, *, colour: bool, terminal: bool = True) -> str:
    """Run a command and return what it prints on standard output; without a terminal, COLUMNS says how wide it is."""
    # Its port has five digits, as all of the ephemeral range.
    with Simulator() as cloud:
        for server in FLEET:
            add(cloud, server)
        env = {name: value for name, value in os.environ.items() if not name.startswith(("AUTOSTOP_", "OS_"))}
        env |= {**cloud.environ(), **_WRONG.get(name, {}), "PYTHONPATH": str(ROOT), "TERM": "xterm"}
        env = {name: value for name, value in env.items() if name not in ("COLUMNS", "NO_COLOR")}
        env |= ({} if colour else {"NO_COLOR": "1"}) | ({} if terminal else {"COLUMNS": str(columns)})
        command = [sys.executable, "-m", "handler.cli", *COMMANDS[name]]
        text = _at_terminal(command, env, columns) if terminal else _in_pipe(command, env)
    for pattern, replacement in _VARYING:
        text = pattern.sub(replacement, text)
    return text


def without_colour(text: str) -> str:
    """Take the escape codes out."""
    return _CODES.sub("", text)


def file_of(name: str, columns: int) -> Path:
    """Return where the golden output is."""
    return FILES / f"{name}-{columns}.txt"


def _in_pipe(command: list[str], env: Mapping[str, str]) -> str:
    return subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, timeout=120, check=False).stdout


def _at_terminal(command: list[str], env: Mapping[str, str], columns: int) -> str:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    # Progress is shown on standard error, and depends on how fast the machine is.
    with subprocess.Popen(command, env=env, stdout=theirs, stderr=subprocess.DEVNULL):
        os.close(theirs)
        text = b""
        # Linux reports the end as an error.
        with open(ours, "rb", buffering=0) as terminal, suppress(OSError):
            while part := terminal.read(65536):
                text += part
    return text.decode().replace("\r\n", "\n")


if __name__ == "__main__":
    FILES.mkdir(exist_ok=True)
    for each in COMMANDS:
        for width in WIDTHS:
            file_of(each, width).write_text(printed(each, width, colour=True))
