"""The events of a keep in events/: schemas, samples and documents agree with each other and with the code."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import yaml

from handler.errors import BadEvent
from handler.inbound.cloudevents.decode import decode
from handler.inbound.extract.keep import extract_keep
from handler.keep.model import Outcome, Reason
from tests.support.events import structured
from tests.test_events_folder import EVENTS, PREFIX, schema_violations

REQUESTS = ("for.json", "until.json", "release.json")
RESULTS = sorted({path.name for path in (EVENTS / "samples" / "keep").glob("*.json")} - set(REQUESTS))
# The samples have a fixed time in them.
NOW = datetime(2026, 12, 23, 12, tzinfo=UTC)


def sample(name: str) -> Any:
    """A sample of this folder."""
    return json.loads((EVENTS / "samples" / "keep" / name).read_text())


def accepted(event: object) -> bool:
    """Whether the function takes an event."""
    try:
        (found,) = decode(*structured(event)).events
        if found.violations:
            return False
        extract_keep(found, timedelta(hours=24), NOW)
    except BadEvent:
        return False
    return True


def _data(**changes: object) -> Callable[[dict[str, Any]], None]:
    return lambda event: event["data"].update(changes)


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_fits_its_schema_and_is_accepted(name: str) -> None:
    """Also by the code."""
    assert schema_violations("cloudevent-in.json", sample(name)) == []
    assert accepted(sample(name))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(_data(until="2026-12-24T00:00:00Z"), id="for beside until"),
        pytest.param(_data(release=True), id="for beside release"),
        pytest.param(_data(**{"for": None}), id="neither for nor until nor release"),
        pytest.param(_data(**{"for": "2 h"}), id="a duration with a space"),
        pytest.param(_data(**{"for": "0h"}), id="no duration"),
        pytest.param(_data(**{"for": 2}), id="a number"),
        pytest.param(_data(release="yes"), id="release as text"),
        pytest.param(_data(release=None), id="release null"),
        pytest.param(_data(**{"for": None, "until": "tomorrow"}), id="a time that is none"),
        pytest.param(_data(**{"For": "2h"}), id="for misspelt"),
        pytest.param(_data(untils=None), id="until misspelt"),
        pytest.param(_data(Release=True), id="release misspelt"),
        pytest.param(_data(server_ids=[]), id="no ids"),
        pytest.param(_data(selector={"tags": ["ci"]}), id="selector beside ids"),
        pytest.param(_data(dry_run="true"), id="dry_run as text"),
        pytest.param(_data(reason="x" * 501), id="long reason"),
        pytest.param(lambda event: event.pop("data"), id="no data"),
    ],
)
def test_what_is_malformed_is_so_for_schema_and_code(change: Callable[[dict[str, Any]], None]) -> None:
    """An event with one thing wrong."""
    event = sample("for.json")
    change(event)
    assert schema_violations("cloudevent-in.json", event)
    assert not accepted(event)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(_data(until=None), id="null until"),
        pytest.param(_data(release=False), id="release false"),
        pytest.param(_data(later={"a": 1}), id="an unknown member"),
        pytest.param(_data(**{"for": "90s"}), id="seconds"),
        pytest.param(_data(**{"for": "1d"}), id="a day"),
        pytest.param(_data(**{"for": None, "until": "2026-12-24t07:00:00.5+01:00"}), id="a time with an offset"),
    ],
)
def test_what_is_unusual_is_well_formed_for_both(change: Callable[[dict[str, Any]], None]) -> None:
    """And nothing else."""
    event = sample("for.json")
    change(event)
    assert schema_violations("cloudevent-in.json", event) == []
    assert accepted(event)


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_fits_its_schema_and_counts_its_rows(name: str) -> None:
    """The summary has all outcomes."""
    event = sample(name)
    assert schema_violations("cloudevent-out.json", event) == []
    counted = {outcome.value: 0 for outcome in Outcome}
    for row in event["data"]["servers"]:
        counted[row["outcome"]] += 1
    assert event["data"]["summary"] == counted


def test_the_results_cover_every_outcome_and_reason() -> None:
    """Each reason with the outcome that the code has."""
    rows = [row for name in RESULTS for row in sample(name)["data"]["servers"]]
    assert {(row["outcome"], row["reason"]) for row in rows} == {(reason.outcome, reason) for reason in Reason}
    assert {sample(name)["type"] for name in RESULTS} == {f"{PREFIX}keep.{word}.v1" for word in ("completed", "failed")}


@pytest.mark.parametrize("outcome", Outcome)
def test_a_reason_goes_with_one_outcome(outcome: Outcome) -> None:
    """In the schema as in the code."""
    row = {**sample("completed.json")["data"]["servers"][0], "outcome": outcome.value}
    for reason in Reason:
        found = schema_violations("keep.result.v1.json#/$defs/server", {**row, "reason": reason.value})
        assert (found == []) is (reason.outcome is outcome), reason


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("completed.json", {"refusal": "too-old"}),
        ("completed.json", {"more": 1}),
        ("completed.json", {"dry_run": True}),
        ("completed.json", {"keep_until": "2026-11-20T21:00:00.000Z"}),
        ("failed.json", {"servers": sample("completed.json")["data"]["servers"]}),
        ("refused-too-old.json", {"refusal": None}),
        ("refused-too-old.json", {"servers": sample("completed.json")["data"]["servers"]}),
        ("dry-run.json", {"dry_run": False}),
    ],
)
def test_a_result_that_contradicts_itself_is_refused(name: str, change: dict[str, Any]) -> None:
    """Refusal, rows, dry run and type have to fit."""
    event = copy.deepcopy(sample(name))
    event["data"].update(change)
    event.pop("subject", None)
    assert any("$.data" in violation for violation in schema_violations("cloudevent-out.json", event))


def test_kept_is_a_time_that_was_seen() -> None:
    """A row that says kept without one is refused."""
    row = {**sample("completed.json")["data"]["servers"][0], "keep_until": None}
    assert schema_violations("keep.result.v1.json#/$defs/server", row)


def test_the_documents_have_all_types_outcomes_and_reasons() -> None:
    """README and AsyncAPI."""
    text = (EVENTS / "README.md").read_text()
    words = set(re.findall(r"`([^`\s]+)`", text))
    assert {f"{PREFIX}keep.requested.v1", "keep.completed.v1", "keep.failed.v1"} <= words
    for reason in Reason:
        assert f"| `{reason.outcome}` | `{reason}` | {reason.meaning} |" in text
    messages = yaml.safe_load((EVENTS / "asyncapi.yaml").read_text())["components"]["messages"].values()
    schemas = {message["name"]: message["payload"].get("$ref") for message in messages}
    for word in ("requested", "completed", "failed"):
        assert schemas[f"{PREFIX}keep.{word}.v1"] == f"schemas/keep.{word}.v1.json"
