"""Output for terminals: what is escaped, how lines are broken, how tables fit, when progress is shown."""

from __future__ import annotations

import io
import sys
import time
import unicodedata

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handler.terminal import Progress, Row, counted, display_width, escape, os_reason, table, terminal_width, wrap

_UUID = "5f0c1a52-3d0e-4b7a-9a55-0d6f3c2b1a10"


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("ci-07", "ci-07"),
        ("größe 東京", "größe 東京"),
        ("\x1b[2J", r"\x1b[2J"),
        ("a\r\nb\tc", r"a\r\nb\tc"),
        ("a\u202eb", r"a\u202eb"),
        ("a\u200bb\ufeff", r"a\u200bb\ufeff"),
        ("\x9b31m", r"\x9b31m"),
        ("\ud800", r"\ud800"),
        ("a\u2028b", r"a\u2028b"),
        ("\U000e0041", r"\U000e0041"),
    ],
)
def test_what_does_not_print_is_written_out(text: str, escaped: str) -> None:
    """Control and format characters, separators of lines, halves of surrogate pairs."""
    assert escape(text) == escaped


@given(st.text())
def test_an_escaped_text_has_nothing_that_controls_a_terminal(text: str) -> None:
    """Whatever the cloud says."""
    escaped = escape(text)
    assert escaped.isprintable()
    assert not {unicodedata.category(character) for character in escaped} & {"Cc", "Cf", "Cs", "Zl", "Zp"}


@given(st.text(alphabet="ab -ü東\u0301", max_size=300), st.integers(4, 60))
def test_no_line_is_wider_than_asked_for_and_no_word_is_lost(text: str, width: int) -> None:
    """Wide characters count twice, combining ones not at all; words that are too long are broken."""
    lines = [*wrap(text, width, "* ", "  ")]
    assert all(display_width(line) <= width for line in lines)
    assert "".join(line[2:] for line in lines).replace(" ", "") == "".join(text.split())


def test_lines_begin_as_asked_for() -> None:
    """The rest is indented like the first by default."""
    assert [*wrap("one two three", 9, "-> ")] == ["-> one", "   two", "   three"]
    assert [*wrap("one two", 6, "- ", "")] == ["- one", "two"]
    assert [*wrap("", 9)] == []
    assert [*wrap("", 9, "| ")] == ["|"]


@given(
    st.lists(st.tuples(st.text("ab", max_size=50), st.text("x y", max_size=90)), max_size=5),
    st.integers(20, 200),
)
def test_a_table_fits_any_width(rows: list[tuple[str, str]], width: int) -> None:
    """Ids of servers are kept whole as long as there is room."""
    made = [Row((name, _UUID, "active"), "label:", text, "red", ("note " * 9,)) for name, text in rows]
    lines = [click.unstyle(line) for line in table(("NAME", "SERVER", "STATE", "RESULT"), made, width)]
    assert all(display_width(line) <= width for line in lines)
    if width >= 120:
        assert sum(_UUID in line for line in lines) == len(rows)


def test_the_last_column_goes_below_the_others_if_there_is_no_room() -> None:
    """And beside them if there is."""
    rows = [Row(("ci-07", _UUID), "failed/busy:", "Another operation is running on it.")]
    assert [click.unstyle(line) for line in table(("NAME", "SERVER", "RESULT"), rows, 60)] == [
        "NAME   SERVER",
        f"ci-07  {_UUID}",
        "    failed/busy: Another operation is running on it.",
    ]
    assert [click.unstyle(line) for line in table(("NAME", "SERVER", "RESULT"), rows, 100)] == [
        f"NAME   SERVER{' ' * 32}RESULT",
        f"ci-07  {_UUID}  failed/busy: Another operation is running on it.",
    ]


def test_only_the_label_has_colour() -> None:
    """Also in a row whose text takes several lines."""
    rows = [Row(("ci-07",), "failed/busy:", "Another operation is running on it. " * 3, "red")]
    _, first, *rest = table(("NAME", "RESULT"), rows, 60)
    assert click.style("failed/busy:", fg="red") in first
    assert not [line for line in rest if "\x1b" in line]


def test_the_width_is_that_of_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """`COLUMNS` wins, 80 is for no terminal, and less than 20 is taken for 20."""
    for columns, width in (("120", 120), ("1", 20), ("", 80), ("many", 80)):
        monkeypatch.setenv("COLUMNS", columns)
        monkeypatch.setattr(sys, "__stdout__", None)
        assert terminal_width() == width


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Make standard error a terminal. Not a fixture: pytest captures anew when the test itself begins."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "stderr", stderr := _Terminal())
    return stderr


def _shown(terminal: io.StringIO, text: str) -> bool:
    deadline = time.monotonic() + 30
    while text not in terminal.getvalue() and time.monotonic() < deadline:
        time.sleep(0.02)
    return text in terminal.getvalue()


def test_what_takes_long_is_shown_and_cleared(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what is waited for; other output clears the line first, and so does the end."""
    terminal = _terminal(monkeypatch)
    monkeypatch.setattr(sys, "stdout", stdout := io.StringIO())
    with Progress("asking the cloud", delay=1) as progress:
        assert _shown(terminal, "asking the cloud ... 1 s")
        progress.print("a line")
        assert terminal.getvalue().endswith("\r\x1b[K")
        progress.on("the history")
        assert _shown(terminal, "the history ... ")
    assert terminal.getvalue().endswith("\r\x1b[K")
    assert stdout.getvalue() == "a line\n"


def test_what_is_quick_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line would only flicker."""
    terminal = _terminal(monkeypatch)
    with Progress("asking the cloud"):
        pass
    assert terminal.getvalue() == ""


@pytest.mark.parametrize("term", ["dumb", ""])
def test_no_progress_without_a_terminal(term: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor on one that cannot clear a line."""
    stderr = _Terminal() if term else io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setenv("TERM", term or "xterm")
    with Progress("asking the cloud", delay=0) as progress:
        time.sleep(1.2)
        progress.on("else")
    assert stderr.getvalue() == ""


def test_numbers_agree_with_their_nouns() -> None:
    """One has no s."""
    assert [counted(number, "server") for number in (0, 1, 2)] == ["0 servers", "1 server", "2 servers"]


def test_the_reason_of_the_operating_system_is_short() -> None:
    """Without what a library adds to it."""
    assert os_reason(OSError(98, "Address already in use (while attempting to bind ...)")) == "Address already in use"
    assert os_reason(OSError(-2, "Name or service not known (while attempting x)")) == "Name or service not known"
    assert os_reason(OSError("plain")) == "plain"
