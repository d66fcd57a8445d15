"""Strict decoding of HTTP messages to CloudEvents 1.0: every violation is named, none is repaired.

The SDK's own decoding fills in a missing `time`, takes a JSON body that does not parse as bytes, and stops at the
first violation.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from handler import rfc3339
from handler.errors import BadEvent, NotAnEvent, TooLarge, Violation
from handler.event_types import MESSAGE_PUBLISHED
from handler.inbound import dry_run
from handler.inbound.cloudevents import strict_json

_STRUCTURED = "application/cloudevents+json"
_BATCH = "application/cloudevents-batch+json"
_MARK = "application/cloudevents"
# The default of HTTP clients.
FORM_TYPES = ("application/x-www-form-urlencoded", "multipart/form-data")
_MOST_IN_BATCH = 100
# Attributes become headers of the result; servers accept about 8 KiB a header, and encoding can triple a text.
_LONGEST_ATTRIBUTE = 2048
_REQUIRED = ("id", "source", "type")
_TIMES = ("time", "expirytime")
_TEXTS = ("subject", "datacontenttype", "correlationid", "traceparent", "tracestate")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ufffe\uffff]")
_JSON_TYPE = re.compile(r"(application|text)/json|[\w.!#$&^+-]+/[\w.!#$&^+-]+\+json", re.ASCII)
# Media types of JSON from senders that leave them to a default.
_UNSPECIFIC_TYPES = ("", "application/octet-stream")
_DEAD_LETTER_MARKS = ("knativeerrordest", "knativeerrorcode", "deadletterreason")


class Event(NamedTuple):
    """One incoming CloudEvent.

    Attributes:
        time, expirytime: aware, UTC; None if the event has none.
        violations: those found so far; if there are any, the other attributes hold what could be read.
        dead_letter: whether it is a copy that a broker made of an event that it could not deliver.
        data: its JSON value, also if it came as text; other text or bytes; None without data.
        media_type: of the data, lower case and without parameters; empty if there is none.
        dry_run: whether an extension attribute asks for a dry run.
    """

    id: str
    source: str
    type: str
    time: datetime | None
    expirytime: datetime | None
    subject: str | None
    correlationid: str | None
    traceparent: str | None
    tracestate: str | None
    violations: tuple[Violation, ...]
    dead_letter: bool
    data: object
    media_type: str = ""
    dry_run: bool = False


class Delivery(NamedTuple):
    """The events of one HTTP message."""

    events: tuple[Event, ...]
    batch: bool


def decode(headers: Mapping[str, str], body: bytes) -> Delivery:
    """Read a message in binary, structured or batch mode.

    Args:
        headers: names in lower case; values as WSGI has them (bytes read as Latin-1).
        body: all of it.

    Returns:
        The events, each with its own violations, to be reported together with those of its data.

    Raises:
        BadEvent: the body as a whole cannot be read.
        NotAnEvent: it is not a CloudEvent in any mode.
        TooLarge: a batch has too many events.
    """
    media_type = essence(headers.get("content-type", ""))
    if media_type == _BATCH:
        return Delivery(_batch(body), batch=True)
    if media_type == _STRUCTURED:
        return Delivery((_single(_Reading(), _document(body)),), batch=False)
    if media_type.startswith(_MARK):
        raise NotAnEvent("The format of a CloudEvent must be JSON, or its mode binary.")
    if is_marked(headers):
        return Delivery((_binary(headers, media_type, body),), batch=False)
    if media_type == "application/json":
        # Senders with a payload template (Alertmanager, Grafana) can write the envelope but not the Content-Type.
        try:
            document = strict_json.loads(body)
        except ValueError:
            document = None
        delivery = decode_document(document)
        if delivery is not None:
            return delivery
    if media_type in FORM_TYPES:
        raise NotAnEvent(f"A CloudEvent must not have the Content-Type {media_type}.")
    raise NotAnEvent("A CloudEvent must have ce- headers or a CloudEvents media type.")


def is_marked(headers: Mapping[str, str]) -> bool:
    """Return whether the headers, names in lower case, mark a message as a CloudEvent in any mode and format."""
    media_type = essence(headers.get("content-type", ""))
    return media_type.startswith(_MARK) or any(f"ce-{name}" in headers for name in ("specversion", *_REQUIRED))


def decode_document(document: object) -> Delivery | None:
    """Read a JSON document that no header marks as a CloudEvent.

    Returns:
        The event, with its violations; None if the document is neither an event in the JSON format nor the
        request of a Pub/Sub push subscription.
    """
    if isinstance(document, dict) and "specversion" in document:
        return Delivery((_single(_Reading(), document),), batch=False)
    if isinstance(document, dict) and _is_pubsub_push(document):
        return Delivery((_pubsub_push(document),), batch=False)
    return None


def essence(content_type: str) -> str:
    """Return a media type in lower case and without its parameters."""
    return content_type.partition(";")[0].strip().lower()


def _is_pubsub_push(document: Mapping[str, object]) -> bool:
    return isinstance(document.get("message"), dict) and isinstance(document.get("subscription"), str)


def _pubsub_push(document: Mapping[str, object]) -> Event:
    """Convert the request of a Pub/Sub push subscription to the event that Eventarc makes of the same message.

    Its `source` is the subscription, since the request does not name the topic.
    """
    message = document["message"]
    assert isinstance(message, dict)
    event = {
        "specversion": "1.0",
        "id": message.get("messageId", message.get("message_id")),
        "source": f"//pubsub.googleapis.com/{document['subscription']}",
        "type": MESSAGE_PUBLISHED,
        "time": message.get("publishTime", message.get("publish_time")),
        "data": document,
    }
    return _single(_Reading(), event)


class _Reading:
    """The violations found so far; their paths have the prefix of the part of the message that is being read."""

    def __init__(self, prefix: str = "") -> None:
        self.violations: list[Violation] = []
        self.prefix = prefix

    def violation(self, at: str, message: str) -> None:
        self.violations.append(Violation(f"{self.prefix}{at}", message))


def _document(body: bytes) -> object:
    try:
        return strict_json.loads(body)
    except ValueError as error:
        raise BadEvent(Violation("body", str(error))) from None


def _batch(body: bytes) -> tuple[Event, ...]:
    members = _document(body)
    if not isinstance(members, list):
        raise BadEvent(Violation("body", "must be a JSON array"))
    if len(members) > _MOST_IN_BATCH:
        raise TooLarge(f"A batch must have at most {_MOST_IN_BATCH} events.")
    return tuple(_single(_Reading(f"[{index}]."), member) for index, member in enumerate(members))


def _single(reading: _Reading, document: object) -> Event:
    """Read one event in the JSON format."""
    if not isinstance(document, dict):
        reading.violation("event", "must be a JSON object")
        document = {}
    # JSON null is how the format writes "not set".
    members = {name: value for name, value in document.items() if value is not None}
    attributes: dict[str, str] = {}
    for name in ("specversion", *_REQUIRED, *_TIMES, *_TEXTS):
        value = members.get(name)
        if isinstance(value, str):
            attributes[name] = value
        elif value is not None:
            reading.violation(name, "must be a string")
            attributes[name] = ""
    media_type = essence(attributes.get("datacontenttype", ""))
    extensions = {name: value for name, value in members.items() if not name.startswith("data")}
    return _event(reading, attributes, extensions, _structured_data(reading, members, media_type), media_type)


def _structured_data(reading: _Reading, members: Mapping[str, object], media_type: str) -> object:
    if "data_base64" not in members:
        data = members.get("data")
        return strict_json.loads_text(data) if isinstance(data, str) else data
    if "data" in members:
        reading.violation("data_base64", "must not be beside data")
        return None
    encoded = members["data_base64"]
    try:
        raw = base64.b64decode(encoded.encode("ascii") if isinstance(encoded, str) else b"!", validate=True)
    except (binascii.Error, UnicodeEncodeError):
        reading.violation("data_base64", "must be base64")
        return None
    return _typed(reading, raw, media_type)


def _binary(headers: Mapping[str, str], media_type: str, body: bytes) -> Event:
    reading = _Reading()
    attributes: dict[str, str] = {}
    for name in ("specversion", *_REQUIRED, *_TIMES, *_TEXTS):
        value = headers.get(f"ce-{name}")
        if value is None:
            continue
        try:
            attributes[name] = _header_value(value)
        except ValueError:
            reading.violation(name, "must be UTF-8 once percent-decoded")
            attributes[name] = ""
    for name in ("traceparent", "tracestate"):
        # The headers of the request count where the sender did not set the extension.
        if name not in attributes and name in headers:
            attributes[name] = headers[name]
    extensions = {name[3:]: value for name, value in headers.items() if name.startswith("ce-")}
    return _event(reading, attributes, extensions, _typed(reading, body, media_type), media_type)


def _dry_run(reading: _Reading, attributes: Mapping[str, object]) -> bool:
    """Return whether the extension attribute `dryrun` asks for a dry run."""
    violations: list[Violation] = []
    requested = False
    for name, value in attributes.items():
        requested |= dry_run.requested_in({name: value}, "dryrun", violations)
    for violation in violations:
        reading.violation(*violation)
    return requested


def _header_value(value: str) -> str:
    """Remove optional quotes, then decode exactly one round of percent-encoding."""
    if len(value) >= 2 and value[0] == value[-1] == '"':
        value = re.sub(r"\\(.)", r"\1", value[1:-1])
    return unquote_to_bytes(value.encode("latin-1")).decode("utf-8")


def _typed(reading: _Reading, raw: bytes, media_type: str) -> object:
    """Decode data by its media type: JSON must parse, and text that holds JSON is parsed too."""
    if not raw:
        return None
    if _JSON_TYPE.fullmatch(media_type):
        try:
            value = strict_json.loads(raw)
        except ValueError as error:
            reading.violation("data", str(error))
            return None
        return strict_json.loads_text(value) if isinstance(value, str) else value
    if media_type.startswith("text/") or media_type in _UNSPECIFIC_TYPES:
        try:
            return strict_json.loads_text(raw.decode("utf-8-sig"))
        except UnicodeDecodeError:
            return raw
    return raw


def _event(
    reading: _Reading,
    attributes: Mapping[str, str],
    extensions: Mapping[str, object],
    data: object,
    media_type: str,
) -> Event:
    """Check the attributes that are used here, and build the event as far as it can be read."""
    dry_run = _dry_run(reading, extensions)
    reported = {violation.at for violation in reading.violations}
    checks = _Reading(reading.prefix)
    if attributes.get("specversion") != "1.0":
        checks.violation("specversion", "must be 1.0" if "specversion" in attributes else "must be present")
    for name in _REQUIRED:
        if not attributes.get(name, "").strip():
            checks.violation(name, "must not be empty" if name in attributes else "must be present")
    times: dict[str, datetime | None] = dict.fromkeys(_TIMES)
    for name in _TIMES:
        if name in attributes:
            try:
                times[name] = rfc3339.parse(attributes[name])
            except ValueError:
                checks.violation(name, "must be an RFC 3339 timestamp with a zone")
    for name in (*_REQUIRED, "subject", "correlationid"):
        if _CONTROL.search(attributes.get(name, "")):
            checks.violation(name, "must not have control characters")
        if len(attributes.get(name, "").encode()) > _LONGEST_ATTRIBUTE:
            checks.violation(name, f"must have at most {_LONGEST_ATTRIBUTE} bytes")
    # An attribute that is not text is reported once.
    reading.violations += [
        violation
        for violation in checks.violations
        if violation.at not in reported and f"{reading.prefix}event" not in reported
    ]
    return Event(
        id=attributes.get("id", ""),
        source=attributes.get("source", ""),
        type=attributes.get("type", ""),
        time=times["time"],
        expirytime=times["expirytime"],
        subject=attributes.get("subject"),
        correlationid=attributes.get("correlationid") or None,
        traceparent=attributes.get("traceparent"),
        tracestate=attributes.get("tracestate"),
        violations=tuple(reading.violations),
        dead_letter=any(name in extensions for name in _DEAD_LETTER_MARKS),
        data=data,
        media_type=media_type,
        dry_run=dry_run,
    )
