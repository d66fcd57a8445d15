"""The README against the code."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.readme import SETTINGS, settings_page, written

README = (ROOT / "README.md").read_text()
PAGES = sorted(
    page for part in ("", "deploy/**/", "events/**/", "handler/**/", "tests/**/") for page in ROOT.glob(f"{part}*.md")
)


def test_the_tables_are_those_of_the_code() -> None:
    """Settings and reasons stand in the README as the code has them; `make readme` mends it."""
    assert written(README) == README


def test_the_page_of_settings_is_that_of_the_code() -> None:
    """deploy/settings.md lists every setting as it is declared; `make settings` writes it anew."""
    assert settings_page() == SETTINGS.read_text()


def test_only_the_tables_are_written() -> None:
    """Whatever was between the markers is replaced, and nothing else is touched."""
    spoilt = README.replace("| `AUTOSTOP_API` |", "| `AUTOSTOP_OLD` |").replace("| `locked` |", "| `lost` |")
    assert spoilt != README
    assert written(spoilt) == README
    assert written(f"before\n{README}after\n") == f"before\n{README}after\n"


@pytest.mark.parametrize("marker", ["<!-- end of reasons -->", "<!-- end of settings -->"])
def test_a_lost_marker_is_told(marker: str) -> None:
    """Nothing is written over the rest of the README."""
    with pytest.raises(ValueError, match="has 0 tables"):
        written(README.replace(marker, ""))


def test_the_readme_names_only_make_targets_that_exist() -> None:
    """Whoever follows the README finds each target in the Makefile."""
    named = set(re.findall(r"make ([a-z-]+)", README))
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert named
    assert named <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_that_exist(page: Path) -> None:
    """A link to a file of this project is one that a fresh clone has."""
    links = re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_make_runs_only_modules_that_exist() -> None:
    """A target that starts `python -m tests...` finds it in a fresh clone."""
    named = set(re.findall(r"-m (tests(?:\.\w+)+)", (ROOT / "Makefile").read_text()))
    assert named
    assert [name for name in sorted(named) if importlib.util.find_spec(name) is None] == []
