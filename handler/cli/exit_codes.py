"""Exit codes of the command; see also each command's `--help`."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes, for scripts; 130 and 141 are what a shell reports for SIGINT and SIGPIPE."""

    OK = 0
    FAILED = 1
    USAGE = 2
    REFUSED = 3
    UNAVAILABLE = 4
    INTERRUPTED = 130
    CLOSED_PIPE = 141
