"""The terminal output of `demo`, `plan` and `doctor`, at 80 and 120 columns, with colour and without."""

from __future__ import annotations

import pytest

from handler.terminal import display_width
from tests.cli.golden import COMMANDS, WIDTHS, file_of, printed, without_colour


@pytest.mark.parametrize("columns", WIDTHS)
@pytest.mark.parametrize("name", [*COMMANDS])
def test_the_output_is_as_the_file_has_it(name: str, columns: int) -> None:
    """In colour at a terminal; `python -m tests.cli.golden` writes the files anew."""
    golden = file_of(name, columns).read_text()
    assert "\x1b[" in golden
    assert printed(name, columns, colour=True) == golden
    assert max(display_width(line) for line in without_colour(golden).splitlines()) <= columns


@pytest.mark.parametrize(
    ("name", "terminal"), [("demo", True), ("plan", True), ("doctor", True), ("plan", False), ("doctor", False)]
)
def test_without_colour_it_is_the_same_text(name: str, *, terminal: bool) -> None:
    """With NO_COLOR at a terminal; in a pipe also without it."""
    golden = without_colour(file_of(name, 80).read_text())
    assert printed(name, 80, colour=not terminal, terminal=terminal) == golden
