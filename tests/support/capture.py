"""The lines that the function logs, as dictionaries."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from handler.outbound.logs import JsonLines


class Lines:
    """What was logged so far."""

    def __init__(self) -> None:
        self.stream = io.StringIO()

    @property
    def text(self) -> str:
        """As it would stand in the log."""
        return self.stream.getvalue()

    @property
    def all(self) -> list[dict[str, Any]]:
        """Each line; each has to be JSON."""
        return [json.loads(line) for line in self.text.splitlines()]

    def of(self, message: str) -> list[dict[str, Any]]:
        return [line for line in self.all if line["message"] == message]


@contextmanager
def logged(level: str = "INFO") -> Iterator[Lines]:
    """Catch what `handler` logs in the block, formatted as in production."""
    lines = Lines()
    logger = logging.getLogger("handler")
    before = logger.handlers[:], logger.level, logger.propagate
    catcher = logging.StreamHandler(lines.stream)
    catcher.setFormatter(JsonLines())
    logger.handlers, logger.propagate = [catcher], False
    logger.setLevel(level)
    try:
        yield lines
    finally:
        logger.handlers, logger.propagate = before[0], before[2]
        logger.setLevel(before[1])
