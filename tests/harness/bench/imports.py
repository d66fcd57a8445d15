"""Where the import time of a cold start goes, by package, next to a bare function's."""

from __future__ import annotations

import re
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import requests

from tests.harness.bench.ours import HELLO, OPEN
from tests.harness.bench.stage import cloud, served, stop, until_answer
from tests.support.process import MAIN

_LINE = re.compile(r"import time: +(\d+) \| +(\d+) \|( +)(\S+)")
_INTERPRETER = "(the interpreter)"
_ROUNDS = 5


def charged(text: str) -> Mapping[str, int]:
    """Microseconds a top package, from what `-X importtime` wrote.

    A module of the standard library is charged to the package that first asked for it.
    """
    lines = [(len(found[3]), found[4].partition(".")[0], int(found[1])) for found in _LINE.finditer(text)]
    spent: dict[str, int] = defaultdict(int)
    # An import is reported when it ends, after those that it caused: read backwards, each comes after who caused it.
    above: list[tuple[int, str]] = []
    for depth, package, own in reversed(lines):
        while above and above[-1][0] >= depth:
            above.pop()
        payer = above[-1][1] if above else _INTERPRETER
        if package not in sys.stdlib_module_names and not package.startswith("_"):
            payer = package
        above.append((depth, payer))
        spent[payer] += own
    return spent


def table() -> str:
    """The packages, the costliest first: milliseconds in a bare function and in ours, up to the first answer."""
    with tempfile.TemporaryDirectory() as folder, cloud(0.0, 2) as simulated:
        source = Path(folder) / "hello.py"
        source.write_text(HELLO)
        environ = simulated.environ | OPEN
        bare = _measured(source, "hello", {}, lambda url: requests.post(url, timeout=60))
        ours = _measured(MAIN, "stop_servers", environ, lambda url: stop(url, [simulated.ids[0]]))
    rows = sorted(((ours.get(name, 0), bare.get(name, 0), name) for name in {*ours, *bare}), reverse=True)
    few = sum(1 for mine, other, _ in rows if max(mine, other) < 500)
    lines = ["imports until the first answer, ms    ours    bare    more"]
    lines += [
        f"  {name:<32} {mine / 1000:8.1f}{other / 1000:8.1f}{(mine - other) / 1000:+8.1f}"
        for mine, other, name in [*rows, (sum(ours.values()), sum(bare.values()), "all")]
        if max(mine, other) >= 500
    ]
    return "\n".join([*lines, f"  ({few} packages below 0.5 ms left out; measuring itself slows imports down)"])


def _measured(
    source: Path, target: str, environ: Mapping[str, str], ask: Callable[[str], requests.Response]
) -> Mapping[str, int]:
    # The least of a few: other work on the machine only ever adds, and the first may still write byte code.
    rounds = []
    for _ in range(_ROUNDS):
        with tempfile.TemporaryFile("w+") as stderr:
            with served(source, target, {**environ, "PYTHONPROFILEIMPORTTIME": "1"}, stderr=stderr) as function:
                until_answer(partial(ask, function.url)).raise_for_status()
            stderr.seek(0)
            rounds.append(charged(stderr.read()))
    return {name: min(reported.get(name, 0) for reported in rounds) for name in rounds[-1]}
