"""The stop request of a CloudEvent: which servers it names, and which events are not acted on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from handler import rfc3339
from handler.errors import BadEvent
from handler.inbound.cloudevents.decode import decode
from handler.inbound.extract.dispatch import extract
from handler.inbound.skip import Skip
from handler.stop.model import StopRequest
from tests.support.capture import logged
from tests.support.events import (
    ONE,
    THREE,
    TWO,
    FakeHandler,
    Message,
    binary,
    call_endpoint,
    event,
    faults_of,
    structured,
)

NOW = datetime(2026, 11, 20, 20, tzinfo=UTC)
PING = "dev.knative.sources.ping"
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def found(message: Message, more: Mapping[str, str] | None = None, now: datetime | None = None) -> StopRequest | Skip:
    """What one event asks for, with these types of the settings."""
    (sent,) = decode(*message).events
    return extract(sent, more or {}, now)


def asked(more: Mapping[str, str] | None = None, now: datetime | None = None, **given: Any) -> StopRequest:
    """The stop request of a well-formed event."""
    request = found(structured(event(**given)), more, now)
    assert isinstance(request, StopRequest)
    return request


def violations(**given: Any) -> dict[str, str]:
    """What the answer to a bad event names."""
    fake = FakeHandler()
    reported = faults_of(call_endpoint(structured(event(**given)), fake))
    assert fake.requests == []
    return reported


@pytest.mark.parametrize(
    ("data", "ids"),
    [
        ({"server_ids": [ONE]}, (ONE,)),
        ({"server_ids": [TWO, ONE, THREE]}, (TWO, ONE, THREE)),
        ({"server_ids": [ONE.upper(), TWO]}, (ONE, TWO)),
        ({"server_ids": [TWO, ONE, TWO.upper(), ONE]}, (TWO, ONE)),
        ({"server_id": ONE}, (ONE,)),
        ({"server_id": ONE.upper(), "server_ids": [TWO, ONE]}, (TWO, ONE)),
        ({"server_id": ONE, "server_ids": None}, (ONE,)),
        ({"server_ids": [ONE], "server_id": None, "selector": None}, (ONE,)),
        ({"alarm_id": TWO, "user": {"id": THREE}}, ()),
        ({}, ()),
        (None, ()),
    ],
)
def test_ids_come_from_their_place_only(data: object, ids: tuple[str, ...]) -> None:
    """Ids are lower case, without repeats, in the order sent; a UUID elsewhere in the data is not an id of a server."""
    assert asked(data=data).server_ids == ids


@pytest.mark.parametrize("type_", ["io.github.bms-autostop.stop.requested.v1", PING])
def test_both_types_carry_the_canonical_data(type_: str) -> None:
    """A PingSource sends the same data."""
    assert asked(type=type_).server_ids == (ONE,)


def test_a_ping_without_content_type_is_read() -> None:
    """Text that holds JSON counts, as a PingSource without `contentType` sends it."""
    request = found(binary(content_type=None, type=PING))
    assert isinstance(request, StopRequest)
    assert request.server_ids == (ONE,)


@pytest.mark.parametrize(
    ("subject", "data", "ids"),
    [
        (ONE, {}, (ONE,)),
        (ONE.upper(), {}, (ONE,)),
        (ONE, None, (ONE,)),
        (ONE, {"server_ids": [TWO]}, (TWO,)),
        (ONE, {"server_id": TWO}, (TWO,)),
        (f"servers/{ONE}", {}, ()),
        (f"{ONE} ", {}, ()),
        (f"{ONE},{TWO}", {}, ()),
        ("a room", {}, ()),
    ],
)
def test_a_subject_that_is_one_uuid_names_the_server(subject: str, data: object, ids: tuple[str, ...]) -> None:
    """The subject counts if it is exactly one UUID and the data has no ids."""
    assert asked(subject=subject, data=data).server_ids == ids


NO_IDS = [
    *(
        "",
        "ci-07",
        ONE[:-1],
        ONE + "0",
        ONE.replace("-", ""),
        "{" + ONE + "}",
        f"urn:uuid:{ONE}",
        f" {ONE}",
        f"{ONE}\n",
    ),
    *(ONE.replace("5", "g", 1), ONE.replace("5", "\uff15", 1)),
    *(5, None, True, [ONE], {"id": ONE}),
]
NO_ARRAYS: list[Any] = [[], {}, "", ONE, 5, False]
NO_BOOLEANS: list[Any] = ["true", "false", 0, 1, None, [], "yes"]


@pytest.mark.parametrize(
    ("data", "at", "message"),
    [
        *(({"server_ids": [TWO, bad, THREE]}, "data.server_ids[1]", "must be a UUID") for bad in NO_IDS),
        *(({"server_id": bad}, "data.server_id", "must be a UUID") for bad in NO_IDS if bad is not None),
        *(({"server_ids": bad}, "data.server_ids", "must be an array of at least one id") for bad in NO_ARRAYS),
        *(({"server_ids": [ONE], "dry_run": bad}, "data.dry_run", "must be true or false") for bad in NO_BOOLEANS),
        ("plain words", "data", "must be JSON"),
        ("[1]", "data", "must be a JSON object"),
        ('{"a": 1, "a": 1}', "data", "must not have a name twice in one object"),
        ([], "data", "must be a JSON object"),
        (5, "data", "must be a JSON object"),
        (True, "data", "must be a JSON object"),
    ],
)
def test_malformed_data_refuses_the_whole_event(data: object, at: str, message: str) -> None:
    """The other ids of the event are not acted on either, and a valid subject does not replace one."""
    assert violations(subject=TWO, data=data) == {at: message}


def test_the_list_of_violations_is_bounded() -> None:
    """A thousand bad ids do not make an answer of a thousand lines."""
    assert len(violations(data={"server_ids": ["x"] * 1000, "dry_run": 1})) <= 51


@pytest.mark.parametrize("value", [True, False])
def test_dry_run_is_a_boolean(value: bool) -> None:
    """True and false are understood, and false is the default."""
    assert asked(data={"server_ids": [ONE], "dry_run": value}).dry_run is value
    assert asked().dry_run is False


MISSPELT = {
    "selector": ["selectors", "Selector"],
    "server_ids": ["serverids", "serverIds", "server-ids", "SERVER_ID", "sever_ids", "server_dis"],
    "dry_run": ["dryrun", "dryRun", "dry-run", "DRY_RUN", "Dry Run", "dry_run_", "_dry_run"],
    "reason": ["reasn", "reasons", "season"],
    "requested_by": ["requestedBy"],
    "reply_to": ["reply-to"],
    "since": ["sinse"],
    "approval": ["aproval"],
    "notice_for": ["noticefor"],
}


@pytest.mark.parametrize(("name", "meant"), [(name, meant) for meant, names in MISSPELT.items() for name in names])
def test_a_member_with_another_spelling_is_refused(name: str, meant: str) -> None:
    """Its author expects that it counts."""
    assert violations(data={"server_ids": [ONE], name: "x"})[f"data.{meant}"] == f"must be spelled {meant}"


@pytest.mark.parametrize(("name", "longest"), [("reason", 500), ("requested_by", 200), ("reply_to", 2048)])
def test_texts_have_their_limits(name: str, longest: int) -> None:
    """Texts are carried through up to their length, counted in characters."""
    assert getattr(asked(data={"server_ids": [ONE], name: "é" * longest}), name) == "é" * longest
    assert getattr(asked(data={"server_ids": [ONE], name: None}), name) is None
    too_long = {f"data.{name}": f"must have at most {longest} characters"}
    assert violations(data={"server_ids": [ONE], name: "x" * (longest + 1)}) == too_long
    assert violations(data={"server_ids": [ONE], name: 5}) == {f"data.{name}": "must be a string"}


def test_data_must_not_be_bytes() -> None:
    """Data of a media type that is not JSON is refused."""
    answer = call_endpoint(binary(b"<stop/>", content_type="application/xml"))
    assert faults_of(answer) == {"data": "must be a JSON object; the Content-Type is not that of JSON"}


@pytest.mark.parametrize(("opening", "closing"), [('{"a":', "}"), ("[", "]")])
def test_a_dry_run_is_found_at_any_depth(opening: str, closing: str) -> None:
    """As deep as JSON is read at all."""
    deep = json.loads(f"{opening * 400}{{}}{closing * 400}".replace("{}", '{"dry_run": true}'))
    assert asked(data={"server_ids": [ONE], "labels": deep}).dry_run is True


@pytest.mark.parametrize(
    ("since", "expected"),
    [
        ("2026-11-20T19:00:00+01:00", {ONE: 18, TWO: 18}),
        ({ONE.upper(): "2026-11-20T19:00:00Z"}, {ONE: 19, TWO: None}),
        ({}, {ONE: None, TWO: None}),
        (None, {ONE: None, TWO: None}),
    ],
)
def test_since_is_of_all_servers_or_by_id(since: object, expected: dict[str, int | None]) -> None:
    """A server that it does not name has none."""
    request = asked(now=NOW, data={"server_ids": [ONE, TWO], "since": since})
    for id_, hour in expected.items():
        stamp = request.since_of(id_)
        assert (stamp and stamp.hour) == hour


@pytest.mark.parametrize(("seconds", "taken"), [(60, True), (60.001, False)])
def test_since_may_be_a_minute_ahead_and_stays_as_it_is(seconds: float, taken: bool) -> None:
    """Clocks differ, but not by more. What an event asks for must not depend on when it is delivered."""
    ahead = rfc3339.render(NOW + timedelta(seconds=seconds))
    data = {"selector": {"name": "ci-*"}, "since": ahead}
    if taken:
        assert asked(now=NOW, data=data).since_of(ONE) == NOW + timedelta(seconds=seconds)
    else:
        with pytest.raises(BadEvent, match="must not be more than a minute in the future"):
            asked(now=NOW, data=data)


def test_unknown_members_are_ignored() -> None:
    """A producer may send more than is read here."""
    assert asked(data={"server_ids": [ONE], "team": "build", "nested": {"dry_run": True}}).server_ids == (ONE,)


def test_identity_and_context_are_carried() -> None:
    """What the result needs to point back arrives with the request."""
    request = asked(correlationid="flow", traceparent=TRACE, tracestate="vendor=1", expirytime="2026-11-20T19:00:00Z")
    assert (request.source, request.id, request.correlationid) == ("/tests", "event-1", "flow")
    assert (request.traceparent, request.tracestate) == (TRACE, "vendor=1")
    assert request.time is None
    assert request.expires is not None


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "x",
        TRACE.upper(),
        TRACE[:-1],
        TRACE + "-more",
        "ff" + TRACE[2:],
        f"00-{'0' * 32}-b7ad6b7169203331-01",
        f"00-0af7651916cd43dd8448eb211c80319c-{'0' * 16}-01",
        f"{TRACE}\n",
    ],
)
def test_a_malformed_trace_context_is_dropped(bad: str) -> None:
    """It does not fail the event, and takes its tracestate with it."""
    request = asked(traceparent=bad, tracestate="vendor=1")
    assert (request.traceparent, request.tracestate) == (None, None)


@pytest.mark.parametrize("bad", ["", " a=1", "a=é", "x" * 513, "a=1\n"])
def test_a_malformed_tracestate_is_dropped_alone(bad: str) -> None:
    """The trace itself goes on."""
    request = asked(traceparent=TRACE, tracestate=bad)
    assert (request.traceparent, request.tracestate) == (TRACE, None)


@pytest.mark.parametrize("word", ["completed", "failed", "refused", "announced"])
def test_own_results_are_ignored(word: str) -> None:
    """A result that comes back, as from a broker without a filter, is answered with an empty 204."""
    own = f"io.github.bms-autostop.stop.{word}.v1"
    assert isinstance(found(structured(event(type=own))), Skip)
    fake = FakeHandler()
    answer = call_endpoint(structured(event(type=own, data={"servers": []})), fake)
    assert (answer.status, answer.body, fake.requests) == (204, b"", [])


def test_dead_letters_are_ignored() -> None:
    """A copy of an event that could not be delivered is not a new request."""
    fake = FakeHandler()
    answer = call_endpoint(structured(event(knativeerrorcode="503")), fake)
    assert (answer.status, answer.body, fake.requests) == (204, b"", [])


def test_an_unknown_type_is_refused() -> None:
    """A type that is not configured is a 400, whatever its data is."""
    assert violations(type="com.example.stop", data={"server_ids": ["x"]}) == {
        "type": "must be a type that is accepted here"
    }


def test_what_is_ignored_must_be_well_formed_all_the_same() -> None:
    """A result event without an id is malformed before it is ours."""
    own = "io.github.bms-autostop.stop.completed.v1"
    assert violations(type=own, id=None) == {"id": "must be present"}


def test_the_log_says_what_was_ignored() -> None:
    """An ignored event leaves one line with its identity and the reason."""
    with logged() as lines:
        call_endpoint(structured(event(type="io.github.bms-autostop.stop.completed.v1")))
    (line,) = lines.all
    assert line["message"] == "event ignored"
    assert (line["event_id"], line["detail"]) == ("event-1", "own result event")
