"""The kinds of requests and calls on FunctionGraph; each is parsed once into one of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from handler.errors import BadEvent, Violation
from handler.functiongraph.triggers.apig import GatewayRequest
from handler.inbound.cloudevents import strict_json
from handler.inbound.cloudevents.decode import Delivery, decode_document
from handler.inbound.webhooks.fields import json_object


@dataclass(frozen=True, slots=True)
class Probe:
    """An HTTP request without an event: a health check, a webhook handshake, or a method that is not served."""


@dataclass(frozen=True, slots=True)
class Init:
    """The platform's request to initialize a container."""


@dataclass(frozen=True, slots=True)
class PlatformDocument:
    """The event of a trigger other than the gateway."""

    document: Mapping[str, object]


EventKind = Delivery | GatewayRequest | PlatformDocument
Kind = Probe | Init | EventKind


def of_document(document: Mapping[str, object]) -> EventKind:
    """Return the kind of a JSON object that is not marked as a CloudEvent by a header."""
    # A gateway's first: its caller must be authenticated, also if it has other members.
    return GatewayRequest.of(document) or decode_document(document) or PlatformDocument(document)


def of_event(event: object) -> EventKind:
    """Return the kind of the event of a call.

    Args:
        event: a JSON object, parsed by the platform, or the text of one.

    Raises:
        BadEvent: it is not a JSON object.
    """
    document = json_object(event, "event")
    if isinstance(event, dict):
        try:
            strict_json.check(event)
        except ValueError as fault:
            raise BadEvent(Violation("event", str(fault))) from None
    return of_document(document)
