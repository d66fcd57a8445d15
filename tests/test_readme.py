"""The README against the code."""

from __future__ import annotations

import re

import pytest

from tests.conftest import ROOT
from tests.readme import written

README = (ROOT / "README.md").read_text()


def test_the_tables_are_those_of_the_code() -> None:
    """Settings and reasons stand in the README as the code has them; `make readme` mends it."""
    assert written(README) == README


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
