"""`bms-autostop explain` and `settings`: every word, from the same text as the runbook; every setting."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from handler.cli import explain as module
from handler.cli.explain import entries, explain
from handler.cli.settings import Target, declarations
from handler.errors import AutostopError, CallFailure
from handler.stop.model import Reason, Refusal
from tests.cli.conftest import Run
from tests.conftest import ROOT


def _problems() -> Iterator[str]:
    classes: list[type[AutostopError]] = [AutostopError]
    for one in classes:
        classes += one.__subclasses__()
        yield one.name


@pytest.mark.parametrize("word", sorted({*Reason, *Refusal, *_problems()}))
def test_every_word_is_explained(word: str, run: Run) -> None:
    """With the sentence of the code and the action of the runbook."""
    lines = run("explain", word).out.splitlines()
    assert lines, f"the runbook in deploy/README.md must have a row for {word}"
    assert lines[0].startswith(f"{word} (")
    assert len(lines) >= 3


@pytest.mark.parametrize("word", [*CallFailure])
def test_every_failure_of_a_call_is_explained(word: str, run: Run) -> None:
    """What `cause.failure` says in a log line, with what to do."""
    heading, *action = run("explain", word).out.splitlines()
    assert heading == f"{word} (failure of a call)"
    assert any(line.strip() for line in action)


def test_the_row_is_that_of_the_runbook(run: Run) -> None:
    """Word by word, but for the marks of Markdown."""
    heading, meaning, action = run("explain", "already-stopping").out.splitlines()
    assert heading == "already-stopping (reason of the outcome unchanged)"
    assert meaning.strip() == Reason.ALREADY_STOPPING.meaning
    rows = (ROOT / "deploy" / "README.md").read_text().replace("`", "").splitlines()
    (row,) = [row for row in rows if row.startswith("| already-stopped, already-stopping |")]
    assert row.endswith(f"| {action.strip()} |")


def test_a_word_of_two_kinds_is_explained_twice(run: Run) -> None:
    """`cloud-error` is a reason and a problem. The type of a problem document may be pasted whole."""
    for word in ("cloud-error", "Cloud-Error ", "https://example.org/problems/cloud-error"):
        ran = run("explain", word)
        assert ran.code == 0
        assert "cloud-error (reason of the outcome failed)" in ran.out
        assert "cloud-error (problem, answered with 503)" in ran.out


@pytest.mark.parametrize(
    ("word", "hint"),
    [("already-stoped", "Did you mean already-stopped"), ("to-old", "too-old"), ("xyz", "deploy/README.md")],
)
def test_an_unknown_word_gets_the_nearest_known_one(word: str, hint: str, run: Run) -> None:
    """Exit code 2."""
    ran = run("explain", word)
    assert (ran.code, ran.out, hint in ran.err) == (2, "", True)


def test_completion_offers_the_words_of_the_runbook() -> None:
    """Each once, though some are of two kinds."""
    context = click.Context(explain)
    (argument,) = explain.params
    offered = [item.value for item in argument.shell_complete(context, "cloud-e")]
    assert offered == ["cloud-error"]


def test_the_runbook_is_found_in_a_checkout_and_in_an_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside the package, or inside it; and nowhere else."""
    assert entries()
    monkeypatch.setattr(module, "_PACKAGE", tmp_path / "handler")
    with pytest.raises(FileNotFoundError, match="not installed"):
        entries()
    inside = tmp_path / "handler" / "_deploy" / "README.md"
    inside.parent.mkdir(parents=True)
    table = "| reason | outcome | what to do |\n|---|---|---|\n| `a`, `b` | x | Nothing. |\n"
    inside.write_text(f"{table}\n| other |\n|---|\n")
    assert [(entry.word, entry.beside, entry.action) for entry in entries()] == [
        ("a", "x", "Nothing."),
        ("b", "x", "Nothing."),
    ]


@pytest.mark.parametrize("target", [*Target])
def test_settings_prints_every_declaration(target: Target, run: Run) -> None:
    """Of one target, or of all."""
    one, everything = run("settings", "--target", target.value).out, run("settings").out
    declared = declarations(target)
    assert declared
    for out in (one, everything):
        rows = {line.split()[0]: line for line in out.splitlines() if line}
        for setting in declared:
            assert rows[setting.name].endswith(setting.description.replace("`", ""))
            assert setting.shown_default.replace("`", "") in rows[setting.name]
    assert one.splitlines()[-1].startswith(f"{len(declared)} settings.")
    assert "`" not in everything
