"""CloudEvents of HTTP messages, and every violation by its name."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import pytest

from handler.errors import BadEvent, NotAnEvent, TooLarge, Violation
from handler.inbound.cloudevents.decode import Event, decode
from tests.support.events import (
    ONE,
    STOP,
    Message,
    attributes,
    batch,
    binary,
    call_endpoint,
    event,
    faults_of,
    structured,
)


def single(message: Message) -> Event:
    """The one event of a message that is not a batch."""
    delivery = decode(*message)
    assert not delivery.batch
    (found,) = delivery.events
    return found


def violations(message: Message) -> list[tuple[str, str]]:
    """The violations of the one event of a message."""
    return [(violation.at, violation.message) for violation in single(message).violations]


def in_base64(data: bytes, media_type: str | None) -> Message:
    """An event in structured mode with data in base64."""
    return structured(event(data_base64=base64.b64encode(data).decode(), datacontenttype=media_type))


CARRIED = ("id", "source", "type", "subject", "correlationid")


@pytest.fixture(params=[binary, lambda **given: structured(event(**given))], ids=["binary", "structured"])
def mode(request: pytest.FixtureRequest) -> Any:
    """Make a message with these attributes, in each mode in turn."""
    return request.param


def test_a_good_event_is_read_whole(mode: Any) -> None:
    """Every attribute that is used here arrives, times in UTC, and no violation is found."""
    found = single(
        mode(
            time="2026-11-20T20:00:00.5+01:00",
            expirytime="2026-11-20t19:30:00z",
            subject="a room",
            correlationid="flow-7",
            traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            tracestate="vendor=1",
        )
    )
    assert found == Event(
        id="event-1",
        source="/tests",
        type=STOP,
        time=datetime(2026, 11, 20, 19, 0, 0, 500000, UTC),
        expirytime=datetime(2026, 11, 20, 19, 30, tzinfo=UTC),
        subject="a room",
        correlationid="flow-7",
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        tracestate="vendor=1",
        violations=(),
        dead_letter=False,
        data={"server_ids": [ONE]},
        media_type=found.media_type,
    )


def test_what_is_not_set_is_none(mode: Any) -> None:
    """Above all the time."""
    found = single(mode())
    optional = (found.time, found.expirytime, found.subject, found.correlationid, found.traceparent, found.tracestate)
    assert optional == (None,) * 6


NO_TIMES = [
    "",
    "yesterday",
    "2026-11-20",
    "2026-11-20T19:00:00",
    "2026-11-20 19:00:00Z",
    "2026-02-30T19:00:00Z",
    "2026-11-20T19:00:00+24:00",
    "0001-01-01T00:00:00+14:00",
    "1795201200",
]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        *((name, None, "must be present") for name in ("id", "source", "type", "specversion")),
        *((name, "", "must not be empty") for name in ("id", "source", "type")),
        ("id", "   ", "must not be empty"),
        *(("specversion", version, "must be 1.0") for version in ("0.3", "1.0.1", "")),
        *(("time", value, "must be an RFC 3339 timestamp with a zone") for value in NO_TIMES),
        ("expirytime", "2026-11-20", "must be an RFC 3339 timestamp with a zone"),
        *((name, "x" * 2049, "must have at most 2048 bytes") for name in CARRIED),
        ("id", "é" * 1024 + "x", "must have at most 2048 bytes"),
    ],
)
def test_each_attribute_violation_is_named(mode: Any, name: str, value: str | None, message: str) -> None:
    """A violation of an attribute is reported once, by the name of the attribute, in both modes."""
    value = quote(value, safe=" ") if mode is binary and value else value
    assert violations(mode(**{name: value})) == [(name, message)]


@pytest.mark.parametrize("name", CARRIED)
@pytest.mark.parametrize("character", ["\n", "\r", "\x00", "\x7f", "\x85", "\uffff"])
def test_control_characters_are_refused(name: str, character: str) -> None:
    """An attribute that travels on has no control character, however it was written."""
    value = f"a{character}b"
    escaped = "".join(f"%{byte:02X}" for byte in value.encode())
    assert violations(structured(event(**{name: value}))) == [(name, "must not have control characters")]
    assert violations(binary(**{name: escaped})) == [(name, "must not have control characters")]


def test_the_longest_attribute_has_2048_bytes() -> None:
    """They may be 1024 characters."""
    assert violations(structured(event(id="é" * 1024))) == []


@pytest.mark.parametrize(
    ("written", "microsecond"),
    [("00.123456789", 123456), ("00", 0), ("00.1", 100000)],
)
def test_any_fraction_of_a_second_is_read(mode: Any, written: str, microsecond: int) -> None:
    """Nanoseconds, as Huawei's EventGrid sends them, are cut to microseconds."""
    found = single(mode(time=f"2026-11-20T19:00:{written}Z"))
    assert found.time == datetime(2026, 11, 20, 19, 0, 0, microsecond, UTC)


def test_all_violations_are_reported_at_once(mode: Any) -> None:
    """One answer names everything that is wrong with attributes and data together."""
    data = {"server_ids": [ONE, "nonsense"], "dry_run": "yes", "reason": 5}
    message = mode(specversion="2", id="", source=None, time="soon", expirytime="x", subject="a\x7f", data=data)
    assert set(faults_of(call_endpoint(message))) == {
        "specversion",
        "id",
        "source",
        "time",
        "expirytime",
        "subject",
        "data.server_ids[1]",
        "data.dry_run",
        "data.reason",
    }


def test_without_a_type_the_violations_of_the_data_are_reported_too(mode: Any) -> None:
    """An event that does not say what it is, is read as a request for the sake of its violations."""
    assert set(faults_of(call_endpoint(mode(type=None, data={"server_ids": []})))) == {"type", "data.server_ids"}


# --- binary mode


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        ("a%20b", "a b"),
        ("a%2520b", "a%20b"),
        ("%E2%82%AC", "€"),
        ("\xe2\x82\xac", "€"),
        ("100%", "100%"),
        ("%zz%4", "%zz%4"),
        ('"quoted"', "quoted"),
        ('"a%20b"', "a b"),
        (r'"say \"hi\""', 'say "hi"'),
        (r'"back\\slash"', r"back\slash"),
        (r'"\\\"%5C"', '\\"\\'),
        ('"', '"'),
        ('"open', '"open'),
        ("%22kept%22", '"kept"'),
        ("%22%2522%22", '"%22"'),
        ("a+b", "a+b"),
    ],
)
def test_header_values_are_decoded_exactly_once(sent: str, read: str) -> None:
    """Quotes are removed first, then one round of percent-encoding."""
    found = single(binary(subject=sent))
    assert (found.subject, found.violations) == (read, ())


@pytest.mark.parametrize("name", ["id", "subject", "time"])
@pytest.mark.parametrize("sent", ["%ff", "%C3%28", "\xe9", "%ED%A0%80", "%C0%AF"])
def test_a_header_that_is_not_utf8_is_refused(name: str, sent: str) -> None:
    """Bytes that are not UTF-8, also overlong ones and surrogates, are one violation."""
    assert violations(binary(**{name: sent})) == [(name, "must be UTF-8 once percent-decoded")]


@pytest.mark.parametrize(
    ("content_type", "body", "data"),
    [
        ("application/json", b'{"a": 1}', {"a": 1}),
        ("Application/JSON ; charset=utf-8", b'{"a": 1}', {"a": 1}),
        ("text/json", b"[1]", [1]),
        ("application/vnd.example+json", b'"x"', "x"),
        ("application/json", b"null", None),
        ("application/json", b"\xef\xbb\xbf{}", {}),
        ("application/json", b"", None),
        ("text/plain", b"{}", {}),
        ("text/plain", b"{", "{"),
        ("application/json", b'"{}"', {}),
        ("text/plain", b"\xff", b"\xff"),
        (None, b"plain", "plain"),
        (None, b"\xff", b"\xff"),
        ("application/octet-stream", b"{}", {}),
        ("application/octet-stream", b"\xff", b"\xff"),
        (None, b"[1]", [1]),
        ("application/xml", b"{}", b"{}"),
    ],
)
def test_data_is_read_as_its_media_type_says(content_type: str | None, body: bytes, data: object) -> None:
    """JSON is parsed, also where it comes as text; other text is text, and anything else stays bytes."""
    for found in (single(binary(body, content_type=content_type)), single(in_base64(body, content_type))):
        assert (found.data, found.violations) == (data, ())


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "must be JSON"),
        (b"{'a': 1}", "must be JSON"),
        (b"{} {}", "must be JSON"),
        (b"[1,]", "must be JSON"),
        (b"\xff\xfe{\x00}\x00", "must be UTF-8"),
        (b'{"a": 1, "a": 2}', "must not have a name twice in one object"),
        (b'{"b": {"a": 1, "\\u0061": 1}}', "must not have a name twice in one object"),
        (b'{"a": NaN}', "must have only numbers of JSON"),
        (b"[-Infinity]", "must have only numbers of JSON"),
        (b'["\\ud800"]', "must not have half of a surrogate pair"),
        (b'{"\\udc00": 1}', "must not have half of a surrogate pair"),
        (b"[" * 100_000, "must not be nested so deep"),
        (b'{"a":' * 100_000, "must not be nested so deep"),
        (b"[" * 100_000 + b"]" * 100_000, "must not be nested so deep"),
        (b"9" * 5000, "must be JSON"),
        (b"\xef\xbb\xbf\xef\xbb\xbf{}", "must be JSON"),
    ],
)
def test_what_is_not_json_is_refused(body: bytes, message: str) -> None:
    """Strictly by RFC 8259; it is a violation of the data, or of the body in structured mode."""
    assert violations(binary(body)) == violations(in_base64(body, "application/json")) == [("data", message)]
    with pytest.raises(BadEvent) as raised:
        decode(*structured(body))
    assert raised.value.violations == (Violation("body", message),)


def test_both_halves_of_a_surrogate_pair_are_one_character() -> None:
    """An escaped emoji is text like any other."""
    assert single(binary(b'{"a": "\\ud83d\\ude00"}')).data == {"a": "\U0001f600"}


@pytest.mark.parametrize("name", ["specversion", "id", "source", "type"])
def test_one_required_header_is_enough_to_be_a_binary_event(name: str) -> None:
    """A single ce- header marks an event, which gets all violations."""
    message = {f"ce-{name}": "1.0"}, b""
    assert {at for at, _ in violations(message)} == {"specversion", "id", "source", "type"} - {name}


def test_tracing_headers_serve_where_the_extension_is_missing() -> None:
    """`traceparent` and `tracestate` are taken from the plain headers unless the event has its own."""
    plain = {"traceparent": "plain", "tracestate": "plain"}
    for own, expected in (({}, "plain"), ({"traceparent": "own"}, "own")):
        headers, body = binary(**own)
        found = single(({**headers, **plain}, body))
        assert (found.traceparent, found.tracestate) == (expected, "plain")


# --- structured mode


NO_OBJECTS: list[Any] = [[], "text", 1, None, True]
NO_TEXTS: list[Any] = [1, 1.0, True, [], {}, ["x"]]
NO_BASE64 = ["e", "e30", "e30=\n", "e3 0=", "é30=", "e30=!", 5, ["e30="], "{}"]
TEXTS = ["specversion", "id", "source", "type", "time", "expirytime", "subject", "datacontenttype"]


def test_null_means_not_set() -> None:
    """A null member is as good as none: fine for an optional attribute, missing for a required one."""
    optional = dict.fromkeys(("time", "subject", "correlationid", "expirytime", "data_base64"))
    assert violations(structured({**event(), **optional})) == []
    assert violations(structured({**event(), "id": None})) == [("id", "must be present")]


@pytest.mark.parametrize(
    ("document", "at", "message"),
    [
        *((event(data_base64=text), "data_base64", "must be base64") for text in NO_BASE64),
        (event(data={}, data_base64="e30="), "data_base64", "must not be beside data"),
        *((document, "event", "must be a JSON object") for document in NO_OBJECTS),
        *((event(**{name: value}), name, "must be a string") for name in TEXTS for value in NO_TEXTS),
    ],
)
def test_a_violation_of_the_json_format_is_reported_once(document: object, at: str, message: str) -> None:
    """An attribute that is not text is not reported as empty as well, nor those of what is not an object as missing."""
    assert violations(structured(json.dumps(document).encode())) == [(at, message)]


# --- batch mode


def test_a_batch_keeps_its_order() -> None:
    """Each member is an event, in the order sent; an empty batch holds none."""
    delivery = decode(*batch(event(id="a"), event(id="b")))
    assert (delivery.batch, [found.id for found in delivery.events]) == (True, ["a", "b"])
    assert decode(*batch()).events == ()


def test_violations_of_a_batch_say_which_member() -> None:
    """The place of a member precedes each of its violations."""
    delivery = decode(*batch(event(), event(id=None, time="x"), 5))
    assert [violation.at for found in delivery.events for violation in found.violations] == [
        "[1].id",
        "[1].time",
        "[2].event",
    ]


def test_a_batch_is_an_array() -> None:
    """A single event under the batch's name is refused."""
    headers, _ = batch()
    with pytest.raises(BadEvent) as raised:
        decode(headers, b"{}")
    assert raised.value.violations == (Violation("body", "must be a JSON array"),)


def test_a_batch_has_its_limit() -> None:
    """A hundred events are taken at once, and not one more."""
    assert len(decode(*batch(*[{}] * 100)).events) == 100
    with pytest.raises(TooLarge):
        decode(*batch(*[{}] * 101))


# --- which mode


def test_plain_json_with_an_envelope_is_an_event() -> None:
    """A sender that can't set the Content-Type is understood by its specversion."""
    found = single(({"content-type": "application/json; charset=utf-8"}, json.dumps(event()).encode()))
    assert (found.id, found.violations) == ("event-1", ())


def test_the_content_type_decides_before_the_headers() -> None:
    """A structured event stays one beside ce- headers."""
    headers, body = structured(event(id="inner"))
    assert single(({**headers, "ce-id": "outer"}, body)).id == "inner"


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/cloudevents+xml", b"<event/>"),
        ("application/cloudevents-batch+xml", b"<batch/>"),
        ("application/cloudevents", b"{}"),
        ("application/x-www-form-urlencoded", b"text=stop"),
        ("multipart/form-data; boundary=x", b"--x--"),
        ("application/json", b"{}"),
        ("application/json", b"[]"),
        ("application/json", b"{"),
        ("application/json", b""),
        ("text/plain", json.dumps(attributes()).encode()),
        ("", b""),
    ],
)
def test_what_is_not_an_event_in_json_is_not_understood(content_type: str, body: bytes) -> None:
    """XML formats, forms and plain JSON are not CloudEvents."""
    with pytest.raises(NotAnEvent):
        decode({"content-type": content_type}, body)


@pytest.mark.parametrize("mark", ["knativeerrordest", "knativeerrorcode", "deadletterreason"])
def test_dead_letters_are_known_by_their_mark(mode: Any, mark: str) -> None:
    """A copy that a broker could not deliver carries the broker's note."""
    assert single(mode(**{mark: "503"})).dead_letter
