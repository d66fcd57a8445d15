"""Tables and names in the documents against the code."""

from __future__ import annotations

import importlib.util
import re

import pytest

from handler.inbound.webhooks.registry import SWITCHES
from tests.conftest import ROOT
from tests.readme import EVENTS, SETTINGS, settings_page, with_reasons
from tests.test_documents import DOCUMENTS

README = (ROOT / "README.md").read_text()
WEBHOOKS = (ROOT / "events" / "webhooks.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()


def test_the_table_of_reasons_is_that_of_the_code() -> None:
    """`make readme` writes it anew."""
    assert with_reasons(EVENTS.read_text()) == EVENTS.read_text(), "`make readme` writes events/README.md"


def test_the_page_of_settings_is_that_of_the_code() -> None:
    """deploy/settings.md lists every setting as it is declared; `make settings` writes it anew."""
    assert settings_page() == SETTINGS.read_text(), "`make readme` writes deploy/settings.md"


def test_only_the_table_is_written() -> None:
    """What was between the markers is replaced, and nothing else changes."""
    text = EVENTS.read_text()
    outdated = text.replace("| `locked` |", "| `lost` |")
    assert outdated != text
    assert with_reasons(f"before\n{outdated}after\n") == f"before\n{text}after\n"


@pytest.mark.parametrize("marker", ["<!-- end of reasons -->", "<!-- reasons: "])
def test_a_lost_marker_is_an_error(marker: str) -> None:
    """Nothing is written over the rest of the page."""
    with pytest.raises(ValueError, match="has 0 tables"):
        with_reasons(EVENTS.read_text().replace(marker, ""))


def test_documents_name_only_make_targets_that_exist() -> None:
    """A reader finds each target in the Makefile."""
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
    for document in DOCUMENTS:
        named = set(re.findall(r"`make ([a-z-]+)|^make ([a-z-]+)", document.read_text(), re.MULTILINE))
        assert {one or other for one, other in named} <= targets, document


@pytest.mark.parametrize("path", SWITCHES)
def test_each_producer_is_in_the_table_of_the_documents(path: str) -> None:
    """What it acts on, where the ids stand, and how it authenticates."""
    rows = [line.split(" | ")[0] for line in WEBHOOKS.splitlines() if line.startswith("| `/")]
    assert any(f"`{path}`" in row for row in rows), f"events/webhooks.md must have a row for {path}"


def test_the_readme_names_only_settings_that_exist() -> None:
    """By the page that is made from the code."""
    named = set(re.findall(r"\b(?:AUTOSTOP|OS)_[A-Z_]+[A-Z]\b", README))
    assert len(named) > 10
    assert named <= set(re.findall(r"\b(?:AUTOSTOP|OS)_[A-Z_]+\b", SETTINGS.read_text()))


def test_make_runs_only_modules_that_exist() -> None:
    """A target that starts `python -m tests...` finds it in a fresh clone."""
    named = set(re.findall(r"-m (tests(?:\.\w+)+)", MAKEFILE))
    assert named
    assert [name for name in sorted(named) if importlib.util.find_spec(name) is None] == []
