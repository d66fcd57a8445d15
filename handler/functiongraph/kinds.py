"""The kinds of requests and calls that reach the function on FunctionGraph; each is parsed once into one of them."""

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
    """An HTTP request that brings no event: a health check, a webhook handshake, or a method that is not served."""


@dataclass(frozen=True, slots=True)
class Init:
    """The platform's request to initialize a container."""


@dataclass(frozen=True, slots=True)
class PlatformDocument:
    """What a trigger other than the gateway sends."""

    document: Mapping[str, object]


EventKind = Delivery | GatewayRequest | PlatformDocument
Kind = Probe | Init | EventKind


def of_document(document: Mapping[str, object]) -> EventKind:
    """Return what a JSON object is that no header marks as a CloudEvent."""
    # A gateway's first: its caller must be authenticated, whatever else is in it.
    return GatewayRequest.of(document) or decode_document(document) or PlatformDocument(document)


def of_event(event: object) -> EventKind:
    """Return what the event of a call is.

    Args:
        event: a JSON object that the platform has parsed, or the text of one.

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
