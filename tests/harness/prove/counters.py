"""Counts of what really happened in all environments of a run, and a hash of all of it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any


class Counters:
    """Counters in groups, and the transcript of the run."""

    def __init__(self) -> None:
        self._groups: dict[str, Counter[str]] = {}
        self._transcript = hashlib.sha256()

    def add(self, group: str, name: str = "", times: int = 1) -> None:
        """Count something."""
        self._groups.setdefault(group, Counter())[str(name)] += times

    def write(self, *parts: object) -> None:
        """Add a line to the transcript."""
        self._transcript.update(repr(parts).encode() + b"\n")

    @property
    def transcript(self) -> str:
        """The hash of all lines of the transcript so far (SHA-256, hexadecimal)."""
        return self._transcript.hexdigest()

    def total(self, group: str) -> int:
        """Return how often anything of a group was counted."""
        return sum(self._groups.get(group, Counter()).values())

    def unreached(self, required: Mapping[str, Iterable[str]]) -> list[str]:
        """Return what was never counted, as `group name`.

        Args:
            required: the names that must have been counted, by group.
        """
        return [f"{group} {name}" for group, names in required.items() for name in names if not self[group, str(name)]]

    def lines(self) -> list[str]:
        """Return one line for each group, then one for each of its names."""
        lines = []
        for group, counter in sorted(self._groups.items()):
            parts = sorted(((name, times) for name, times in counter.items() if name), key=lambda part: -part[1])
            lines.append(f"{group:22}{sum(counter.values()):>9}")
            lines += [f"    {name:34}{times:>9}" for name, times in parts]
        return lines

    def __getitem__(self, place: tuple[str, Any]) -> int:
        group, name = place
        return self._groups.get(group, Counter())[str(name)]
