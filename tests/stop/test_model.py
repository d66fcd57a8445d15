"""The closed vocabularies, and the report that counts with them."""

from __future__ import annotations

import re

import pytest

from handler.stop.model import Outcome, Reason, Refusal, Report, ServerResult
from tests.stop.fakes import ID, NOW, asked, id_of, seen
from tests.test_events_folder import REASONS, REFUSALS


def test_every_reason_belongs_to_the_outcome_of_the_contract() -> None:
    """Each outcome has the reasons that the schema of results has, and each reason one outcome."""
    paired: dict[str, set[str]] = {outcome.value: set() for outcome in Outcome}
    for reason in Reason:
        paired[reason.outcome.value].add(reason.value)
    assert paired == REASONS, "events/schemas/result.v1.json must have each reason under its outcome"


def test_each_reason_has_one_plain_sentence() -> None:
    """No two are the same, and none breaks the table."""
    sentences = [reason.meaning for reason in Reason]
    assert len(set(sentences)) == len(Reason)
    assert all(re.fullmatch(r"[A-Z][^|\n.]+\.", sentence) for sentence in sentences)


def test_a_result_has_the_outcome_of_its_reason() -> None:
    """No result can pair a reason with another outcome: it has only the reason."""
    assert [ServerResult(ID, reason, "").outcome for reason in Reason] == [reason.outcome for reason in Reason]


def test_the_refusals_are_those_of_the_contract() -> None:
    """Eight reasons to refuse an event as a whole, and no more."""
    assert {refusal.value for refusal in Refusal} == REFUSALS


def _report(*reasons: Reason) -> Report:
    rows = tuple(ServerResult(id_of(number), reason, "") for number, reason in enumerate(reasons))
    return Report(asked(), "nova", False, None, rows, NOW, NOW)


@pytest.mark.parametrize("reason", Reason)
def test_one_failed_server_makes_the_report_failed(reason: Reason) -> None:
    """A report has failed if at least one server has, and nothing but the outcome `failed` counts as that."""
    assert _report(Reason.CONFIRMED, reason).failed is (reason.value in REASONS["failed"])


def test_a_report_counts_its_outcomes() -> None:
    """Each server is counted once, under its outcome; a report without servers has not failed."""
    report = _report(Reason.CONFIRMED, Reason.ALREADY_STOPPED, Reason.ALREADY_STOPPING, Reason.BUSY)
    assert report.summary == {
        "stopped": 1,
        "accepted": 0,
        "unchanged": 2,
        "skipped": 0,
        "failed": 1,
        "planned": 0,
    }
    assert not _report().failed


def test_facts_do_not_change() -> None:
    """What was seen of a server can't be altered afterwards."""
    server = seen("active")
    with pytest.raises(AttributeError):
        server.vm_state = "stopped"  # type: ignore[misc]
