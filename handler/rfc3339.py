"""Strict parsing of RFC 3339 timestamps, and their rendering."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

_FORM = re.compile(
    r"(\d{4})-(\d{2})-(\d{2})[Tt](\d{2}):(\d{2}):(\d{2})(?:\.(\d+))?(?:([Zz])|([+-])(\d{2}):(\d{2}))",
    re.ASCII,
)
_BASIC_FORM = re.compile(
    r"(\d{4})(\d{2})(\d{2})[Tt](\d{2})(\d{2})(\d{2})(?:\.(\d+))?(?:([Zz])|([+-])(\d{2})(\d{2}))",
    re.ASCII,
)


def parse(text: str) -> datetime:
    """Parse one RFC 3339 timestamp.

    Args:
        text: `2026-11-20T19:00:00.123456789+01:00` for example. `t` and `z` may be lower case, the fraction may
            have any number of digits (cut off after six), a leap second `:60` is read as the second after `:59`.

    Returns:
        An aware datetime in UTC.

    Raises:
        ValueError: it is not RFC 3339, has no zone, or there is no such date.
    """
    match = _FORM.fullmatch(text)
    if match is None:
        raise ValueError("not an RFC 3339 timestamp with a zone")
    return _moment(match)


def parse_either(text: str) -> datetime:
    """Read one timestamp in RFC 3339's form or in ISO 8601's basic form.

    Args:
        text: as `parse` has it, or the same without dashes and colons: `20261224T070000Z`, `20261224T080000+0100`.
            Open Telekom Cloud's console takes only letters, digits, `_`, `.` and `-` in the value of a tag.

    Returns:
        An aware datetime in UTC.

    Raises:
        ValueError: neither form, no zone, or no such date.
    """
    match = _BASIC_FORM.fullmatch(text)
    return parse(text) if match is None else _moment(match)


def _moment(match: re.Match[str]) -> datetime:
    year, month, day, hour, minute, second = (int(part) for part in match.group(1, 2, 3, 4, 5, 6))
    fraction, _, sign, offset_hours, offset_minutes = match.group(7, 8, 9, 10, 11)
    zone: timezone = UTC
    if sign:
        if int(offset_hours) > 23 or int(offset_minutes) > 59:
            raise ValueError("no such zone offset")
        offset = timedelta(hours=int(offset_hours), minutes=int(offset_minutes))
        zone = timezone(-offset if sign == "-" else offset)
    leap = timedelta(seconds=1 if second == 60 else 0)
    micros = int((fraction or "0").ljust(6, "0")[:6])
    try:
        stamp = datetime(year, month, day, hour, minute, min(second, 59) if leap else second, micros, zone)
        return (stamp + leap).astimezone(UTC)
    except OverflowError:
        raise ValueError("outside the years 1 to 9999") from None


def render(stamp: datetime) -> str:
    """Render an aware datetime in UTC with milliseconds: `2026-11-20T19:00:00.120Z`."""
    return stamp.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
