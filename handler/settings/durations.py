"""Durations in events and commands: `30m`, `2h`, `1d`."""

from __future__ import annotations

import re
from datetime import timedelta

_FORM = re.compile(r"([1-9][0-9]{0,6})([smhd])", re.ASCII)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def parse(text: str) -> timedelta:
    """Parse a duration: a positive integer and one of `s`, `m`, `h`, `d`.

    Args:
        text: `30m` for example.

    Raises:
        ValueError: it has another form.
    """
    found = _FORM.fullmatch(text)
    if found is None:
        raise ValueError("must be a duration such as 30m, 2h or 1d")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def render(duration: timedelta) -> str:
    """Render a duration of whole seconds in the largest unit that divides it."""
    seconds = round(duration.total_seconds())
    unit, size = next(
        (unit, size) for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)) if not seconds % size
    )
    return f"{seconds // size}{unit}"
