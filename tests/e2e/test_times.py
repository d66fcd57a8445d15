"""One moment, written in several ways: wherever a time is read, it is compared as that moment."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from handler.stop.decide import KEEP_UNTIL, decide, refuse
from handler.stop.evidence import Action, History
from handler.stop.model import Decision, Policy, Reason, Refusal, StopRequest
from tests.stop.fakes import ID, asked, seen
from tests.support.events import FakeHandler, Message, batch, binary, call_endpoint, event, faults_of, structured

MOMENT = datetime(2026, 3, 1, tzinfo=UTC)
# How each is read is tested in tests/test_rfc3339.py.
WRITTEN = [
    "2026-03-01T00:00:00Z",
    "2026-02-28t23:59:60z",
    "2026-03-01T00:00:00.000000999Z",
    "2026-03-01T05:45:00.000+05:45",
    "2026-02-28T00:01:00-23:59",
]
NAIVE = ["2026-03-01T00:00:00", "2026-03-01 00:00:00"]
TICK = timedelta(microseconds=1)
POLICY = Policy()
TOLERANCE, AGE = POLICY.clock_tolerance, POLICY.max_event_age

every_way = pytest.mark.parametrize("text", WRITTEN)


def came_in(message: Message) -> StopRequest:
    """The request that the endpoint makes of a message."""
    fake = FakeHandler()
    assert call_endpoint(message, fake).status == 200
    (request,) = fake.requests
    return request


@every_way
def test_the_age_of_an_event_is_counted_from_that_moment(text: str) -> None:
    """As old as allowed it is acted on, a tick later it is too old, in every mode of HTTP."""
    for message in (binary(time=text), structured(event(time=text)), batch(event(time=text))):
        request = came_in(message)
        assert request.time == MOMENT
        assert refuse(request, POLICY, MOMENT + AGE) is None
        assert refuse(request, POLICY, MOMENT + AGE + TICK) is Refusal.TOO_OLD


@every_way
def test_an_event_expires_at_that_moment(text: str) -> None:
    """A tick before it is acted on."""
    request = came_in(binary(expirytime=text))
    assert refuse(request, POLICY, MOMENT - TICK) is None
    assert refuse(request, POLICY, MOMENT) is Refusal.EXPIRED


@every_way
def test_a_server_is_kept_until_that_moment(text: str) -> None:
    """By a tag as by metadata."""
    for labels in ({"tags": frozenset({f"{KEEP_UNTIL}={text}"})}, {"metadata": {KEEP_UNTIL: text}}):
        server = seen("active", **labels)
        assert decide(server, asked(ID), POLICY, MOMENT - TICK).reason is Reason.KEPT_UNTIL
        assert decide(server, asked(ID), POLICY, MOMENT).reason is Reason.DRY_RUN


@every_way
def test_a_start_is_compared_with_that_moment(text: str) -> None:
    """The tolerance of the clocks begins so long before it."""
    request = came_in(binary(time=text))

    def started(at: datetime) -> Decision:
        server = seen("active", updated=MOMENT, history=History((Action("start", at),)))
        return decide(server, request, POLICY, MOMENT)

    assert started(MOMENT - TOLERANCE).reason is Reason.STARTED_SINCE
    assert started(MOMENT - TOLERANCE - TICK).reason is Reason.DRY_RUN


@pytest.mark.parametrize("text", NAIVE)
def test_a_time_without_a_zone_is_refused(text: str) -> None:
    """It is ambiguous: the event is malformed, and a server with it is protected."""
    for name in ("time", "expirytime"):
        for message in (binary(**{name: text}), structured(event(**{name: text}))):
            assert faults_of(call_endpoint(message)) == {name: "must be an RFC 3339 timestamp with a zone"}
    kept = seen("active", tags=frozenset({f"{KEEP_UNTIL}={text}"}))
    decision = decide(kept, asked(ID), POLICY, MOMENT)
    assert decision.reason is Reason.PROTECTED
    assert "zone" in decision.detail
