"""The README against the code."""

from __future__ import annotations

import re

from handler.settings import VARIABLES
from handler.stop.model import Outcome, Reason
from handler.webhook_variables import WEBHOOK_VARIABLES
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text()


def _table(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]


def test_the_settings_table_is_the_list_in_the_code() -> None:
    """Each setting stands in the README with the default and the meaning that the code gives it, and no other does."""
    part = README.split("<!-- settings:")[1].split("<!-- end of settings -->")[0]
    assert _table(part)[2:] == [[f"`{v.name}`", v.default, v.meaning] for v in VARIABLES]


def test_the_webhooks_table_is_the_list_in_the_code() -> None:
    """The same for the settings of `receive_webhook`."""
    part = README.split("<!-- webhook settings:")[1].split("<!-- end of webhook settings -->")[0]
    assert _table(part)[2:] == [[f"`{v.name}`", v.default, v.meaning] for v in WEBHOOK_VARIABLES]


def test_the_outcome_table_is_the_closed_vocabulary() -> None:
    """The README pairs each outcome with exactly the reasons that the code has for it."""
    rows = {row[0].strip("`"): re.findall(r"`([a-z-]+)`", row[2]) for row in _table(README) if len(row) == 3}
    for outcome in Outcome:
        assert rows[outcome] == [reason for reason in Reason if reason.outcome is outcome]


def test_the_readme_names_only_make_targets_that_exist() -> None:
    """Whoever follows the README finds each target in the Makefile."""
    named = set(re.findall(r"make ([a-z]+)", README))
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert named
    assert named <= targets
