"""How a command ends: its exit code, and what it prints on standard error for one that is not 0."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
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


class CommandError(Exception):
    """Ends a command: a heading and a line for each detail are printed on standard error."""

    def __init__(self, exit_code: Exit, heading: str, details: Iterable[str]) -> None:
        super().__init__(heading)
        self.exit_code = exit_code
        self.heading = heading
        self.details = details


@contextmanager
def refused(heading: str) -> Iterator[None]:
    """End the command with every violation if the event in the block is one that the function would refuse."""
    from handler.errors import AutostopError, BadEvent, RetryableError

    try:
        yield
    except RetryableError:
        raise
    except AutostopError as error:
        violations = error.violations if isinstance(error, BadEvent) else ()
        details = [f"{violation.at}: {violation.message}" for violation in violations] or [str(error)]
        raise CommandError(Exit.REFUSED, heading, details) from None
