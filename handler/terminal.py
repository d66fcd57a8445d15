"""What the command prints: escaped, wrapped to the terminal's width, in colour where that is wanted.

Texts from outside (names and states from the cloud, sentences of a function that is called) must go through `escape`
before anything else: nothing in them may reach the terminal as a control sequence or change the direction of text.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from types import TracebackType
from typing import Self

import click

_NARROWEST = 20
# A column that takes more is wrapped within itself; an id of a server fits.
_WIDEST_COLUMN = 36
# With less room than this beside the other columns, the last one goes below them.
_NARROWEST_LAST = 36
_INDENT = "    "
_GAP = "  "


def escape(text: str) -> str:
    r"""Write control, format and other characters that do not print as `\x1b`, `\n` or `\u202e`."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def terminal_width() -> int:
    """Return the columns of the terminal (or `COLUMNS`); 80 if there is none."""
    return max(shutil.get_terminal_size((80, 24)).columns, _NARROWEST)


def display_width(text: str) -> int:
    """Return the columns that a printable text takes on a terminal (Unicode Standard Annex 11)."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )


def wrap(text: str, width: int, first: str = "", rest: str | None = None) -> Iterator[str]:
    """Break a text into lines.

    Args:
        text: words, separated by any white space.
        width: columns that a line may take.
        first: beginning of the first line.
        rest: beginning of the other lines; blanks as wide as `first` if None.
    """
    line, blank = first, True
    rest = " " * display_width(first) if rest is None else rest
    for word in text.split():
        if not blank and display_width(line) + 1 + display_width(word) > width:
            yield line
            line, blank = rest, True
        if not blank:
            line += " "
        for character in word:
            if display_width(line) + display_width(character) > width and line.strip():
                yield line
                line = rest
            line += character
        blank = False
    if not blank or first.strip():
        yield line.rstrip()


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a table.

    Attributes:
        cells: all columns but the last.
        label: a word that begins the last column, in colour; or an empty text.
        text: the rest of the last column; it takes as many lines as it needs.
        colour: of the label, as click names them; None for none.
        notes: further texts below the row.
    """

    cells: tuple[str, ...]
    label: str
    text: str
    colour: str | None = None
    notes: tuple[str, ...] = ()


def table(header: Sequence[str], rows: Sequence[Row], width: int) -> Iterator[str]:
    """Lay out rows as lines that are no wider than `width`.

    The last column stands beside the others if there is room for it, and else below them.

    Args:
        header: the names of all columns.
        rows: in their order.
        width: columns of the terminal.
    """
    columns = _column_widths([header[:-1], *(row.cells for row in rows)], width)
    used = sum(column + len(_GAP) for column in columns)
    needed = max(map(display_width, (header[-1], *(f"{row.label} {row.text}".strip() for row in rows))))
    beside = width - used >= min(needed, _NARROWEST_LAST)
    heading, *more = _cell_lines(header[:-1], columns)
    for line in (heading + header[-1] * beside, *more):
        yield click.style(line.rstrip(), bold=True)
    for row in rows:
        cells = _cell_lines(row.cells, columns)
        last = list(wrap(f"{row.label} {row.text}", width - used if beside else width, "" if beside else _INDENT))
        last = [_coloured(last[0], row), *last[1:]] if last else [""]
        if beside:
            pairs = zip_longest(cells, last)
            yield from (f"{left or ' ' * used}{right or ''}".rstrip() for left, right in pairs)
        else:
            yield from (line.rstrip() for line in cells)
            yield from last
        for note in row.notes:
            yield from wrap(note, width, _INDENT)


def _column_widths(table: Sequence[Sequence[str]], width: int) -> list[int]:
    widths = [min(max(map(display_width, column)), _WIDEST_COLUMN) for column in zip(*table, strict=True)]
    while sum(widths) + len(_GAP) * len(widths) > width and max(widths) > 1:
        widths[widths.index(max(widths))] -= 1
    return widths


def _cell_lines(cells: Iterable[str], columns: Iterable[int]) -> Iterator[str]:
    wrapped = [list(wrap(cell, column)) for cell, column in zip(cells, columns, strict=True)]
    for parts in zip_longest(*wrapped, fillvalue=""):
        yield "".join(
            part + " " * (column - display_width(part)) + _GAP for part, column in zip(parts, columns, strict=True)
        )


def _coloured(line: str, row: Row) -> str:
    indent = line[: len(line) - len(line.lstrip())]
    begun = line.lstrip()
    if not row.label or not row.colour or not begun.startswith(row.label):
        return line
    return f"{indent}{click.style(row.label, fg=row.colour)}{begun[len(row.label) :]}"


def problems(what: str, details: Iterable[str]) -> None:
    """Print on standard error what is wrong: a heading, and a line for each detail."""
    width = terminal_width()
    click.echo("\n".join(wrap(what, width)), err=True)
    for detail in details:
        click.echo("\n".join(wrap(escape(detail), width, "  ", "    ")), err=True)


def os_reason(failure: OSError) -> str:
    """Return why the operating system refused, without what a library adds."""
    # Errors of name resolution have negative numbers, and texts of their own.
    if failure.errno and failure.errno > 0:
        return os.strerror(failure.errno)
    return (failure.strerror or str(failure)).partition(" (while attempting")[0]


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: `1 server`, `2 servers`."""
    return f"{number} {noun}{'s' * (number != 1)}"


class Progress:
    """Show on standard error what is waited for, once that takes longer than two seconds.

    Only on a terminal; what is printed meanwhile must go through `print`.

    Args:
        what: what is waited for, such as `asking the cloud`.
        delay: seconds before it is shown.
    """

    def __init__(self, what: str, delay: float = 2.0) -> None:
        self._what = what
        self._delay = delay
        self._seconds = 0
        self._shown = False
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb":
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
            self._clear()

    def on(self, what: str) -> None:
        """Say what is waited for from now on."""
        with self._lock:
            self._what, self._seconds = what, 0
            self._clear()

    def print(self, text: str) -> None:
        """Print a text on standard output."""
        with self._lock:
            self._clear()
            click.echo(text)

    def _run(self) -> None:
        while not self._ended.wait(1.0):
            with self._lock:
                self._seconds += 1
                if self._seconds >= self._delay:
                    line = f"{self._what} ... {self._seconds} s"[: terminal_width() - 1]
                    sys.stderr.write(f"\r\x1b[K{line}")
                    sys.stderr.flush()
                    self._shown = True

    def _clear(self) -> None:
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._shown = False
