"""The cron syntax that a PingSource takes."""

from __future__ import annotations

import re

_DESCRIPTORS = {"@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"}
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
# Lowest, highest, names and their first number.
_FIELDS: list[tuple[int, int, list[str], int]] = [
    (0, 59, [], 0),
    (0, 23, [], 0),
    (1, 31, [], 0),
    (1, 12, _MONTHS, 1),
    (0, 6, _DAYS, 0),
]
_SECONDS: tuple[int, int, list[str], int] = (0, 59, [], 0)
_RANGE = re.compile(r"(\*|\?|\w+)(?:-(\w+))?(?:/(\d+))?")


def cron_fault(schedule: str) -> str | None:
    """What is wrong with a schedule, or None: five fields, or six with seconds in front, or a descriptor."""
    if schedule.startswith("@"):
        return None if schedule in _DESCRIPTORS else f"{schedule.split()[0]} is not taken"
    if "TZ=" in schedule:
        return "the time zone has a field of its own"
    parts = schedule.split()
    if len(parts) not in (5, 6):
        return f"{len(parts)} fields, not 5"
    fields = _FIELDS if len(parts) == 5 else [_SECONDS, *_FIELDS]
    for part, (lowest, highest, names, first) in zip(parts, fields, strict=True):
        for item in part.split(","):
            found = _RANGE.fullmatch(item)
            if found is None:
                return f"{item!r} must be a range"
            begin, end, step = found.groups()
            if (begin in ("*", "?") and end is not None) or step == "0":
                return f"{item!r} must be a range"
            bounds = [
                names.index(text.lower()) + first if text.lower() in names else int(text) if text.isdecimal() else -1
                for text in (begin, end)
                if text not in (None, "*", "?")
            ]
            if any(not lowest <= bound <= highest for bound in bounds):
                return f"{item!r} is not within {lowest} and {highest}"
            if len(bounds) == 2 and bounds[0] > bounds[1]:
                return f"{item!r} runs backwards"
    return None
