"""The announcement of stops as an event, and its delivery within two seconds."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from cloudevents.conversion import to_dict
from cloudevents.http import CloudEvent

from handler.errors import Acceptance, Cause, NotAnnounced, SinkUnreachable
from handler.outbound.announcement import Announcer, announcement_event
from handler.outbound.result import result_event
from handler.stop.model import Selector
from handler.stop.ports import Candidate
from tests.outbound.test_result import REQUEST, report
from tests.support.capture import Lines, logged
from tests.test_events_folder import EVENTS, schema_violations

NOW = datetime(2026, 11, 20, 19, tzinfo=UTC)
ONE = Candidate("5f0c1a52-3d0e-4b7a-9a55-0d6f3c2b1a10", "ci-07")
TWO = Candidate("0b6f6a9e-6a34-4a0e-8d5c-6a3f1f0f7c21", None)


@pytest.fixture
def lines() -> Iterator[Lines]:
    """What is logged."""
    with logged() as lines:
        yield lines


def made(*servers: Candidate) -> dict[str, Any]:
    """The announcement in structured mode."""
    event = announcement_event(REQUEST, servers, source="/bms-autostop", extensions={"team": "ops"}, now=NOW)
    return dict(to_dict(event))


def test_it_fits_its_schema_and_names_the_servers() -> None:
    """In their order, with the name null where it is not known."""
    event = made(ONE, TWO)
    assert schema_violations("cloudevent-out.json", event) == []
    assert event["data"]["servers"] == [{"id": ONE.id, "name": "ci-07"}, {"id": TWO.id, "name": None}]
    assert (event["causationid"], event["team"], event["time"]) == (REQUEST.id, "ops", "2026-11-20T19:00:00.000Z")
    assert "subject" not in event
    assert made(ONE)["subject"] == ONE.id


def test_its_request_is_that_of_the_result() -> None:
    """Receivers of both read one form, with the selector."""
    request = REQUEST._replace(selector=Selector(tags=("env=ci",)))
    event = announcement_event(request, [ONE], source="/s", extensions={}, now=NOW)
    result = result_event(report()._replace(request=request), source="/s", extensions={})
    assert event.data["request"] == result.data["request"]


def test_the_same_content_has_the_same_id() -> None:
    """Other servers, or another name, are other content."""
    ids = {made(*servers)["id"] for servers in ((ONE,), (ONE, TWO), (TWO,), (ONE._replace(name="other"),))}
    assert len(ids) == 4
    assert made(ONE, TWO)["id"] == made(ONE, TWO)["id"]
    assert made(ONE)["id"] != result_event(report(), source="/s", extensions={})["id"]


def test_the_sample_fits_its_schema() -> None:
    """And has the members that the code makes."""
    sample = json.loads((EVENTS / "samples" / "announce" / "announced.json").read_text())
    assert schema_violations("cloudevent-out.json", sample) == []
    assert set(made(ONE, TWO)) - {"team"} == set(sample)
    assert set(made(ONE, TWO)["data"]["request"]) == set(sample["data"]["request"])


@pytest.mark.parametrize(
    "change",
    [{"servers": []}, {"servers": [{"id": ONE.id}]}, {"servers": [{"id": "CI-07", "name": None}]}, {"more": 1}],
)
def test_another_form_does_not_fit_the_schema(change: dict[str, object]) -> None:
    """No server, one without a name, one whose id is not a UUID, an unknown member."""
    event = made(ONE, TWO)
    assert schema_violations("cloudevent-out.json", {**event, "data": {**event["data"], **change}})


# --- delivery


class Taking:
    """A sink that takes events, once `until` is set, or fails with `error`."""

    def __init__(self, error: Exception | None = None, until: threading.Event | None = None) -> None:
        self.taken: list[CloudEvent] = []
        self.seconds: list[float] = []
        self._error = error
        self._until = until

    def deliver(self, event: CloudEvent, deadline: float) -> None:
        """Take an event."""
        self.seconds.append(deadline - time.monotonic())
        if self._until is not None:
            self._until.wait(60)
        if self._error is not None:
            raise self._error
        self.taken.append(event)


def announce(sink: Taking, *, required: bool = True, seconds: float = 50.0) -> list[bool]:
    """Announce one server; what the metric gets."""
    outcomes: list[bool] = []
    announcer = Announcer(sink, required=required, source="/s", extensions={}, on_outcome=outcomes.append)
    announcer.announce(REQUEST, time.monotonic() + seconds, [ONE])
    return outcomes


def test_a_delivered_announcement_is_logged_and_counted(lines: Lines) -> None:
    """With its id."""
    sink = Taking()
    assert announce(sink) == [True]
    (line,) = lines.of("stop announced")
    assert (line["servers"], line["announcement_id"]) == (1, sink.taken[0]["id"])
    assert 0 < sink.seconds[0] <= 2.0


CAUSE = Cause("posting the event", "sink.example", 500, None)
FAILURES = [
    SinkUnreachable("The sink failed (HTTP 500).", acceptance=Acceptance.UNKNOWN, cause=CAUSE, retry_after=7.0),
    RuntimeError("a bug"),
]


@pytest.mark.parametrize("failure", FAILURES)
def test_best_effort_goes_on_without_it(lines: Lines, failure: Exception) -> None:
    """It is logged and counted."""
    assert announce(Taking(failure), required=False) == [False]
    (line,) = lines.of("stop not announced")
    assert (line["required"], line["level"]) == (False, "WARNING")
    assert lines.of("stop announced") == []


@pytest.mark.parametrize("failure", FAILURES)
def test_required_ends_the_event(lines: Lines, failure: Exception) -> None:
    """With the `Retry-After` of the sink, and the cause."""
    with pytest.raises(NotAnnounced) as raised:
        announce(Taking(failure))
    if isinstance(failure, SinkUnreachable):
        assert (raised.value.retry_after, raised.value.cause) == (7.0, CAUSE)
    assert lines.of("stop not announced")[0]["required"] is True
    assert bool(lines.of("a bug kept the stops from being announced")) is isinstance(failure, RuntimeError)


@pytest.mark.parametrize("required", [True, False])
def test_a_sink_that_never_returns_is_left_alone_after_two_seconds(*, required: bool) -> None:
    """Whatever holds it: name resolution cannot be bounded."""
    until = threading.Event()
    began = time.monotonic()
    try:
        if required:
            with pytest.raises(NotAnnounced):
                announce(Taking(until=until))
        else:
            assert announce(Taking(until=until), required=False) == [False]
        assert time.monotonic() - began < 20.0
    finally:
        until.set()


def test_of_a_budget_that_is_nearly_spent_half_is_left() -> None:
    """So that a slow sink leaves time for the stops."""
    sink = Taking()
    announce(sink, seconds=1.0)
    assert 0 < sink.seconds[0] <= 0.5
