"""The list of survivors: as it is read, and as mutmut's names and diffs are read beside it."""

from __future__ import annotations

import pytest

from tests.conftest import ROOT
from tests.harness.mutants.__main__ import changed, listed, where


@pytest.mark.parametrize(
    ("key", "place"),
    [
        ("handler.stop.server_task.xǁServerTaskǁ__init____mutmut_4", "server_task.ServerTask.__init__"),
        ("handler.stop.scheduler.xǁSchedulerǁ_probe__mutmut_12", "scheduler.Scheduler._probe"),
        ("handler.stop.server_task.x__withheld__mutmut_3", "server_task._withheld"),
        ("handler.stop.decide.x_decide__mutmut_1", "decide.decide"),
    ],
)
def test_a_mutants_name_shows_where_it_is(key: str, place: str) -> None:
    """As mutmut writes methods and functions."""
    assert where(key) == place


def test_a_diff_is_read_as_old_and_new_lines() -> None:
    """Without what stands around them, and without their indentation."""
    diff = "--- a.py\n+++ a.py\n@@ -1,3 +1,3 @@\n def f():\n-    match x:\n-        server_task 1:\n+    pass\n"
    assert changed(diff) == ("match x: ⏎ server_task 1:", "pass")


def test_each_survivor_that_is_listed_still_has_its_lines() -> None:
    """A reason for a line that has been rewritten since says nothing."""
    found = listed()
    assert found
    for mutant in found:
        source = (ROOT / "handler" / "stop" / f"{mutant.where.partition('.')[0]}.py").read_text()
        lines = {line.strip() for line in source.splitlines()}
        assert {*mutant.old.split(" ⏎ ")} <= lines, mutant
