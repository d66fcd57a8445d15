"""The runbook shows what to do about everything that the function can say, and names nothing that is not there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import pytest

from handler import errors
from handler.inbound.http.responses import problem
from handler.keep.model import Reason as KeepReason
from handler.stop.model import Reason, Refusal
from tests.conftest import ROOT
from tests.deploy.kustomize import KNATIVE

RUNBOOK = (ROOT / "deploy" / "README.md").read_text().partition("# Runbook\n")[2]


def rows(heading: str) -> list[list[str]]:
    """The table under a heading that begins so, as cells."""
    (section,) = re.findall(rf"^## {re.escape(heading)}.*?\n(.*?)(?=^## |\Z)", RUNBOOK, re.MULTILINE | re.DOTALL)
    lines = [line for line in section.splitlines() if line.startswith("| `") or re.match(r"\| \d", line)]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def quoted(cell: str) -> list[str]:
    """Return the parts of a cell in code marks."""
    return re.findall(r"`([^`]+)`", cell)


def situations(kind: type[errors.AutostopError] = errors.AutostopError) -> Iterator[type[errors.AutostopError]]:
    """Yield the error classes that have no subclasses."""
    for below in kind.__subclasses__():
        if below.__module__ == errors.__name__:
            yield below
            yield from situations(below)


@pytest.mark.parametrize(
    ("heading", "reasons"),
    [("What a row's reason means", list(Reason)), ("What a row of a keep means", list(KeepReason))],
)
def test_every_reason_is_reported_once_with_its_outcome(
    heading: str, reasons: Sequence[Reason] | Sequence[KeepReason]
) -> None:
    """No more and no less than the code has, under the right outcome."""
    reported = [(name, row[1]) for row in rows(heading) for name in quoted(row[0])]
    assert sorted(reported) == sorted((reason.value, reason.outcome.value) for reason in reasons)


def test_every_refusal_is_reported_once() -> None:
    """No more and no less than the code has."""
    reported = [name for row in rows("What a refusal of the whole event means") for name in quoted(row[0])]
    assert sorted(reported) == sorted(refusal.value for refusal in Refusal)


@pytest.mark.parametrize("kind", list(situations()), ids=lambda kind: kind.__name__)
def test_every_problem_is_reported_with_its_status(kind: type[errors.AutostopError]) -> None:
    """What a problem document can be called stands in the table, beside the code that it comes with."""
    reported = {(row[0], name) for row in rows("What an answer means that is no result") for name in quoted(row[1])}
    error = kind(errors.Violation("x", "is wrong")) if kind is errors.BadEvent else kind("why")
    assert (str(problem(error).status), error.name) in reported


@pytest.mark.parametrize("heading", ["What a row's reason", "What a refusal", "What an answer", "Rotating", "Sizing"])
def test_every_row_says_what_to_do(heading: str) -> None:
    """No cell is empty."""
    table = rows(heading) or re.findall(r"^\|(?!---)", RUNBOOK, re.MULTILINE)
    assert table
    assert all(cell for row in table for cell in row)


def test_the_platforms_page_links_the_runbook() -> None:
    """In the place where a reader needs it."""
    assert "runbook in [`../README.md`](../README.md)" in (KNATIVE / "README.md").read_text()


def test_figures_name_their_command() -> None:
    """Each row of the table of sizes ends with a make target that exists."""
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    (section,) = re.findall(r"^## Sizing\n(.*?)\Z", RUNBOOK, re.MULTILINE | re.DOTALL)
    commands = [line.rstrip("| ").rpartition("|")[2] for line in section.splitlines() if re.match(r"\| \d", line)]
    assert len(commands) >= 4
    for command in commands:
        (named,) = quoted(command)
        assert named.removeprefix("make ") in targets
