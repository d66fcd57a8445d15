"""`python -m tests.harness.mutants`: change the decision code line by line, and see that a test notices.

mutmut makes the changes and runs `tests/stop` on each, in a copy under `mutants/`. What survives must stand in
`survivors.toml`, with the reason why it does not matter; a reason that has outlived its survivor must go.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[3]
_COPY = ROOT / "mutants"
_LISTED = Path(__file__).with_name("survivors.toml")
_LEAST_KILLED = 0.95
# What mutmut writes down of a mutant: the exit code of pytest, or of a process that it ended itself.
_VERDICTS: Mapping[int | None, str] = {
    0: "survived",
    1: "killed",
    3: "killed",
    33: "reached by no test",
    None: "not tried",
    36: "timeout",
    24: "timeout",
    -24: "timeout",
    152: "timeout",
}


class Mutant(NamedTuple):
    """One change of one place.

    Attributes:
        where: `module.function` or `module.Class.function`.
        old, new: the lines that differ, without their indentation, joined by ` ⏎ `.
    """

    where: str
    old: str
    new: str


def where(key: str) -> str:
    """The place of a mutant, from mutmut's name for it: `handler.stop.server_task.xǁCaseǁ_decide__mutmut_7`."""
    module, _, name = key.rpartition(".")
    function = name.rpartition("__mutmut_")[0].removeprefix("x")
    short = module.removeprefix("handler.stop.")
    if function.startswith("ǁ"):
        return ".".join((short, *function.strip("ǁ").split("ǁ")))
    return f"{short}.{function.removeprefix('_')}"


def changed(diff: str) -> tuple[str, str]:
    """The old and the new lines of a diff."""
    lines = [line for line in diff.splitlines() if not line.startswith(("---", "+++"))]
    old, new = (" ⏎ ".join(line[1:].strip() for line in lines if line.startswith(sign)) for sign in "-+")
    return old, new


def listed() -> list[Mutant]:
    """The survivors that `survivors.toml` allows."""
    groups = tomllib.loads(_LISTED.read_text())["group"]
    return [Mutant(**row) for group in groups for row in group["mutants"]]


def _verdicts() -> Iterator[tuple[str, str]]:
    for meta in sorted(_COPY.glob("handler/stop/*.meta")):
        for key, code in json.loads(meta.read_text())["exit_code_by_key"].items():
            yield key, _VERDICTS.get(code, f"exit code {code}")


def _mutant(key: str) -> Mutant:
    diff = subprocess.run(
        [sys.executable, "-m", "mutmut", "show", key], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    return Mutant(where(key), *changed(diff))


def main() -> int:
    """Run them all; 1 if one survived that may not, or a listed one did not."""
    if _COPY.exists():
        shutil.rmtree(_COPY)
    began = time.monotonic()
    run = subprocess.run(
        [sys.executable, "-m", "mutmut", "run", "--max-children", "2"], cwd=ROOT, capture_output=True, text=True
    )
    took = time.monotonic() - began
    verdicts = list(_verdicts())
    count = Counter(verdict for _, verdict in verdicts)
    # A change that makes the tests go on for ever was noticed.
    killed = count["killed"] + count["timeout"]
    if not verdicts or run.returncode:
        print(run.stdout[-4000:], run.stderr[-4000:])
        return 1
    survivors = Counter(_mutant(key) for key, verdict in verdicts if verdict not in ("killed", "timeout"))
    timed_out = Counter(_mutant(key) for key, verdict in verdicts if verdict == "timeout")
    allowed = Counter(listed())
    print(f"{len(verdicts)} mutants, {killed} killed ({killed / len(verdicts):.1%}), ", end="")
    print(f"{survivors.total()} survived; {took:.0f} s")
    print(", ".join(f"{verdict} {number}" for verdict, number in count.most_common()))
    # On a busy machine, the time may not suffice for one that would survive.
    unlisted, outlived = survivors - allowed, allowed - survivors - timed_out
    for mutant in unlisted.elements():
        print(f"not in the list: {mutant.where}\n    - {mutant.old}\n    + {mutant.new}")
    for mutant in outlived.elements():
        print(f"in the list, but it did not survive: {mutant.where}\n    - {mutant.old}\n    + {mutant.new}")
    return 1 if unlisted or outlived or killed < _LEAST_KILLED * len(verdicts) else 0


if __name__ == "__main__":
    sys.exit(main())
