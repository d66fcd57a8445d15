"""`make bench`: what the function costs, as ratios within one run, since machines differ and are noisy.

Each figure is a median of rounds in which the two sides take turns. The peer for start and memory is a bare
functions-framework function that says hello; for many servers it is arithmetic: the calls that must follow one another
at best, times the latency. With `--peers` the usual tools do the same next to it, in an environment that is set up for
them. Simulated clouds run in processes of their own. Bytecode is compiled before anything is measured.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from tests.harness.bench import imports, ours
from tests.harness.bench.peers import Peers, Used

_MANY = 1000


@dataclass(frozen=True, slots=True)
class Row:
    """A measured ratio.

    Attributes:
        aim: what it should be at most, or at least; None if it is only reported.
        limit: beyond this the benchmark fails; None if only the aim is reported.
    """

    name: str
    value: float
    aim: float | None
    detail: str
    limit: float | None = None
    at_least: bool = False

    def __str__(self) -> str:
        if self.aim is None:
            return f"  {self.value:6.2f}  {'':14}  {self.name}: {self.detail}"
        met = self.value >= self.aim if self.at_least else self.value <= self.aim
        sign = ">=" if self.at_least else "<="
        return f"{'  ' if met else '! '}{self.value:6.2f}  (aim {sign} {self.aim:.2f})  {self.name}: {self.detail}"

    @property
    def kept(self) -> bool:
        return self.limit is None or self.value <= self.limit


def _cold(peers: Peers | None, rounds: int) -> Iterator[Row]:
    python, source = (peers.python, peers.source) if peers else (None, Path())
    hello, mine, sdk = ours.starts(python, source, rounds)
    yield Row(
        "process start to first server stopped / bare hello's first answer, processor time",
        mine.cpu / hello.cpu,
        1.5,
        f"{mine.cpu:.3f} / {hello.cpu:.3f} s",
        limit=1.8,
    )
    yield Row("the same by the clock", mine.start / hello.start, 1.6, f"{mine.start:.3f} / {hello.start:.3f} s")
    if peers:
        yield Row(
            "the same / the same job with openstacksdk",
            mine.start / sdk.start,
            0.6,
            f"{mine.start:.3f} / {sdk.start:.3f} s",
        )
    yield Row(
        "memory after it / bare hello's",
        mine.memory / hello.memory,
        1.3,
        f"{mine.memory:.1f} / {hello.memory:.1f} MiB" + (f"; with openstacksdk {sdk.memory:.1f} MiB" if peers else ""),
        limit=1.35,
    )


def _fleets(peers: Peers | None, measured: int) -> Iterator[Row]:
    small = ours.many(200, 16)
    yield _against_ideal("200 servers, nova, concurrency 16", small, 1.10, limit=1.25)
    alone = ours.many(1, 32, rounds=1)
    nova = ours.many(_MANY, 32)
    yield _against_ideal(f"{_MANY} servers, nova, concurrency 32", nova, 1.12)
    yield _peak("nova", nova, alone)
    waited = ours.many(_MANY, 32, wait=True, rounds=3)
    # No aim: how long the function sleeps before it reads again is a choice, and real ones take longer.
    yield _against_ideal("the same, until all are seen stopped", waited, None)
    alone = ours.many(1, 32, api="bms", wait=True, rounds=1)
    bms = ours.many(_MANY, 32, api="bms", wait=True, rounds=3)
    calls = sum(bms.calls.values())
    yield Row(
        f"calls for {_MANY} servers, bms, until all are seen stopped",
        calls,
        10,
        f"{_named(bms.calls)}; {bms.seconds:.3f} s, processor {bms.cpu:.2f} s;"
        f" {bms.seconds / bms.ideal:.2f} of {bms.ideal:.3f} s = {bms.reported}",
    )
    yield _peak("bms", bms, alone)
    if peers:
        client, loop = peers.client(_MANY, measured), peers.loop(_MANY, measured)
        yield _against_peer("`openstack server stop`", client, nova)
        yield _against_peer("a loop with openstacksdk", loop, nova)


def _against_ideal(name: str, fleet: ours.Fleet, aim: float | None, limit: float | None = None) -> Row:
    detail = (
        f"{fleet.seconds:.3f} / {fleet.ideal:.3f} s = {fleet.reported};"
        f" {_named(fleet.calls)}; processor {fleet.cpu:.2f} s; peak {fleet.peak:.1f} MiB"
    )
    return Row(f"{name} / ideal", fleet.seconds / fleet.ideal, aim, detail, limit)


def _peak(api: str, many: ours.Fleet, one: ours.Fleet) -> Row:
    detail = f"{many.peak:.1f} / {one.peak:.1f} MiB"
    return Row(f"peak memory with {_MANY} servers / with one, {api}", many.peak / one.peak, 1.2, detail)


def _against_peer(name: str, peer: Used, fleet: ours.Fleet) -> Row:
    how = f" (worked out from 1 and {peer.scaled} servers)" if peer.scaled else ""
    detail = (
        f"{peer.seconds:.1f} / {fleet.seconds:.3f} s{how}; {peer.calls} calls, processor {peer.cpu:.2f} s,"
        f" peak {peer.peak:.1f} MiB"
    )
    return Row(f"{_MANY} servers with {name} / ours, nova", peer.seconds / fleet.seconds, 10, detail, at_least=True)


def _named(calls: dict[str, int]) -> str:
    return f"{sum(calls.values())} calls: " + ", ".join(f"{count} {kind}" for kind, count in sorted(calls.items()))


def _rows(peers: Peers | None, rounds: int, measured: int) -> bool:
    kept = True
    for row in chain(_cold(peers, rounds), _fleets(peers, measured)):
        print(row, flush=True)
        kept &= row.kept
        if not row.kept:
            print(f"   FAILED: the limit is {row.limit}")
    return kept


def main() -> int:
    """Measure and print; the exit code says whether the limits were kept."""
    parser = argparse.ArgumentParser(prog="python -m tests.harness.bench", description="Measure the function.")
    parser.add_argument(
        "--peers",
        nargs="?",
        type=int,
        const=50,
        metavar="SERVERS",
        help="measure openstacksdk and python-openstackclient too, with so many servers (50; 1000 takes minutes)",
    )
    parser.add_argument("--rounds", type=int, default=15, help="cold starts of each (15)")
    parser.add_argument("--imports", action="store_true", help="only show where the import time goes")
    options = parser.parse_args()
    if options.imports:
        print(imports.table())
        return 0
    print("ratio; ! marks an aim that was missed", flush=True)
    if options.peers is None:
        kept = _rows(None, options.rounds, 0)
    else:
        with tempfile.TemporaryDirectory() as folder:
            peers = Peers(Path(folder))
            print(f"peers: {peers.versions()}", flush=True)
            kept = _rows(peers, options.rounds, min(max(options.peers, 2), _MANY))
    print(f"warm event, one server that is stopped already: {ours.warm_event() * 1000:.1f} ms")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
