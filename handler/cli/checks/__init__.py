"""What `bms-autostop doctor` checks.

A check is `ok` only for what was seen to work. What could not be checked is a `warning`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

__all__ = ["TIMEOUT", "Check", "OnCheck", "Status", "error", "ok", "warning"]

TIMEOUT = 10.0
"""Seconds for one call."""

OnCheck = Callable[[str], None]
"""Called with the name of a check before it is made."""


class Status(StrEnum):
    """The result of a check."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Check:
    """One check: its name, what was found, and what to do about it (empty if nothing)."""

    check: str
    status: Status
    detail: str
    fix: str = ""


def ok(check: str, detail: str) -> Check:
    """Return a check of something that works."""
    return Check(check, Status.OK, detail)


def warning(check: str, detail: str, fix: str) -> Check:
    """Return a check of something that may be wrong, or could not be checked."""
    return Check(check, Status.WARNING, detail, fix)


def error(check: str, detail: str, fix: str) -> Check:
    """Return a check of something that keeps the function from working."""
    return Check(check, Status.ERROR, detail, fix)
