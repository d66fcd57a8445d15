"""A report as text at a terminal."""

from __future__ import annotations

from dataclasses import replace

from handler.outbound.table import table
from handler.stop.evidence import Evidence
from handler.stop.model import Reason
from tests.outbound.test_result import judged_by, report, row


def _facts(evidence: Evidence | None) -> list[str]:
    """What stands under the line of one server."""
    return table(report(replace(row(Reason.PROTECTED), evidence=evidence))).splitlines()[2:]


def test_the_facts_have_the_names_of_the_result_event() -> None:
    """Whoever knows the one can read the other; states stand in the line above, and what is not there is left out."""
    assert [line.strip() for line in _facts(judged_by(Reason.PROTECTED))] == [
        "observed_at=2026-11-20T19:00:00.250Z, power_state=1, locked=no, launched=yes, flavor=physical.o2.medium,",
        "tag=autostop=never, clock_tolerance_seconds=2.5, history=not-asked",
    ]


def test_a_server_that_was_never_seen_has_no_facts() -> None:
    """And that is said."""
    assert _facts(None) == ["    never seen, so there is no evidence"]


def test_nothing_in_a_tag_reaches_the_terminal_as_a_command() -> None:
    """Control characters are written out; a tag is as long as somebody made it."""
    lines = _facts(judged_by(tag="autostop=\x1b[2Jnever\nserver", metadata="x" * 300))
    assert "tag='autostop=\\x1b[2Jnever\\nserver'" in "\n".join(lines)
    assert all(line.startswith("    ") and line.isprintable() for line in lines)
