"""Counts of what really happened, over all worlds of a run."""

from __future__ import annotations

from collections import Counter
from typing import Any


class Tally:
    """Counters in groups."""

    def __init__(self) -> None:
        self._groups: dict[str, Counter[str]] = {}

    def add(self, group: str, name: str = "", times: int = 1) -> None:
        """Count something."""
        self._groups.setdefault(group, Counter())[str(name)] += times

    def total(self, group: str) -> int:
        """How often anything of a group was counted."""
        return sum(self._groups.get(group, Counter()).values())

    def lines(self) -> list[str]:
        """One line a group, then what it is made of."""
        told = []
        for group, counter in sorted(self._groups.items()):
            parts = sorted(((name, times) for name, times in counter.items() if name), key=lambda part: -part[1])
            told.append(f"{group:22}{sum(counter.values()):>9}")
            told += [f"    {name:30}{times:>9}" for name, times in parts]
        return told

    def __getitem__(self, place: tuple[str, Any]) -> int:
        group, name = place
        return self._groups.get(group, Counter())[str(name)]
