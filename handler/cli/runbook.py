"""The rows of the runbook (`deploy/README.md`), which the wheel contains: the same text in both places."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_PACKAGE = Path(__file__).parent.parent
_ACTION = "what to do"
# The column of the words, and the one beside it.
_KINDS = {"reason": "outcome", "keep reason": "outcome", "refusal": "", "problem": "answer", "failure": ""}


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of one of the runbook's tables, for one of its words.

    Attributes:
        kind: `reason`, `keep reason`, `refusal`, `problem` or `failure`.
        word: such as `already-stopping`.
        beside: the outcome of a reason, the HTTP status of a problem; else empty.
        action: what to do.
    """

    kind: str
    word: str
    beside: str
    action: str


def entries() -> tuple[Entry, ...]:
    """Read the runbook: inside the package once it is installed, beside it in a checkout.

    Raises:
        FileNotFoundError: it is in neither place.
    """
    for place in (_PACKAGE / "_deploy" / "README.md", _PACKAGE.parent / "deploy" / "README.md"):
        if place.is_file():
            return tuple(_parse(place.read_text(encoding="utf-8").splitlines()))
    raise FileNotFoundError("the runbook deploy/README.md is not installed")


def _parse(lines: Sequence[str]) -> Iterator[Entry]:
    header: list[str] = []
    for line in lines:
        if not line.startswith("|"):
            header = []
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not header:
            header = cells
            continue
        row = dict(zip(header, cells, strict=False))
        kind = next((kind for kind in _KINDS if kind in row), None)
        if kind is None or _ACTION not in row:
            continue
        for word in re.findall(r"`([a-z-]+)`", row[kind]):
            yield Entry(kind, word, row.get(_KINDS[kind], ""), row[_ACTION])
