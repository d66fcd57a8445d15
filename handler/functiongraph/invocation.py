"""The composition root of one call on FunctionGraph: from a parsed call to result events or the gateway's answer."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple, assert_never

from cloudevents.conversion import to_dict
from cloudevents.http import CloudEvent

from handler.errors import AutostopError, BadEvent, InternalError, RetryableError, Violation
from handler.functiongraph.context import Call
from handler.functiongraph.triggers.apig import GatewayRequest, reply
from handler.functiongraph.triggers.dispatch import requests_of
from handler.inbound.auth import caller
from handler.inbound.cloudevents import strict_json
from handler.inbound.cloudevents.decode import Delivery, decode_document
from handler.inbound.endpoints.stop_servers import requests_of as requests_of_delivery
from handler.inbound.http import responses
from handler.inbound.http.responses import Answer
from handler.inbound.webhooks.fields import json_object
from handler.services.stop_servers import Service, SharedResources
from handler.settings.stop_servers import Settings
from handler.stop.model import StopRequest

_LOG = logging.getLogger(__name__)

Document = Mapping[str, object]
"""A JSON object."""


class PlatformDocument(NamedTuple):
    """The event of a trigger other than the gateway."""

    document: Document


EventKind = Delivery | GatewayRequest | PlatformDocument


class NotHandled(Exception):
    """The event was not handled, and sending it again can help."""


class NeverPossible(Exception):
    """The event can never succeed; the message has the violations."""


def invoke(shared: SharedResources, event: object, call: Call, received: float) -> object:
    """Handle one event of a function that the platform calls as code: a JSON object, or the text of one.

    `shared` is the same for all calls of the process; `received` is on the monotonic clock.

    Returns:
        The result as a CloudEvent in the JSON format; for an event with several records a list of them; the gateway's
        answer for an event of the gateway; None if there was nothing to act on.

    Raises:
        NotHandled: it must be sent again.
        NeverPossible: it can never succeed.
    """
    try:
        match kind_of_event(event):
            case GatewayRequest() as request:
                return through_gateway(shared, request, call, received)
            case PlatformDocument(document) as platform:
                results = structured(platform_results(shared, platform, call, received))
                records = document.get("record")
                several = isinstance(records, list) and len(records) > 1
                return results if several and results else next(iter(results), None)
            case Delivery() as delivery:
                service = Service(call.settings(shared.settings), shared)
                # The platform authenticates its callers, and does not say which one called.
                approver = not service.settings.callers.names_approvers
                requests = requests_of_delivery(delivery, service.settings.event_types, approver=approver)
                results = structured(service.results(requests, received) if requests else [])
                return next(iter(results), None)
            case unknown:
                assert_never(unknown)
    except RetryableError as error:
        _LOG.warning("call not handled", extra=error.log_fields())
        raise NotHandled(f"{error.name}: {responses.detail_of(error)}") from None
    except AutostopError as error:
        _LOG.warning("call not handled", extra=error.log_fields())
        raise NeverPossible(str(error)) from None
    except Exception:
        _LOG.exception("a bug kept the event from being handled")
        raise NotHandled(f"{InternalError.name}: Something unexpected happened; the log has the details.") from None


def kind_of_event(event: object) -> EventKind:
    """Return the kind of the event of a call; raise BadEvent if it is not a JSON object, or the text of one."""
    document = json_object(event, "event")
    if isinstance(event, dict):
        try:
            strict_json.check(event)
        except ValueError as error:
            raise BadEvent(Violation("event", str(error))) from None
    return kind_of(document)


def kind_of(document: Document) -> EventKind:
    """Return the kind of a JSON object that is not marked as a CloudEvent by a header."""
    # A gateway's first: its caller must be authenticated, also if it has other members.
    return GatewayRequest.of(document) or decode_document(document) or PlatformDocument(document)


def platform_results(
    shared: SharedResources, platform: PlatformDocument, call: Call, received: float
) -> Sequence[CloudEvent]:
    """Handle the event of a trigger other than the gateway, as `invoke`; a sink gets the results, too, if there is one.

    Raises:
        BadEvent: it can never succeed.
        RetryableError: it must be sent again.
    """
    service = Service(call.settings(shared.settings), shared)
    requests = requests_of(platform.document, _source(service.settings, call), datetime.now(UTC))
    return service.results(requests, received) if requests else []


def through_gateway(shared: SharedResources, request: GatewayRequest, call: Call, received: float) -> Document:
    """Return the answer to a request of the gateway, in the gateway's form; as `invoke`, but it never raises."""
    return reply(responses.always(lambda: _gateway_answer(shared, request, call, received)))


def _gateway_answer(shared: SharedResources, request: GatewayRequest, call: Call, received: float) -> Answer:
    http = request.http(shared.settings.max_body, received)
    approver = False
    if http.method == "POST":
        approver = caller.authenticate(http.headers, shared.settings.callers, received + call.budget(shared.settings))
    service = Service(call.settings(shared.settings), shared)
    if http.method != "POST":
        return service.endpoint().answer(http)
    match request.read(http, f"{_source(service.settings, call)}/apig", datetime.now(UTC)):
        case Delivery() as delivery:
            return service.endpoint().deliver(delivery, http, approver)
        case StopRequest() as stop:
            return service.handle([stop], False, received)
        case unknown:
            assert_never(unknown)


def structured(events: Sequence[CloudEvent]) -> list[Document]:
    """Return events in the JSON format."""
    return [dict(to_dict(event)) for event in events]


def _source(settings: Settings, call: Call) -> str:
    # Two functions of one project may have timers of the same name.
    parts = (settings.source.rstrip("/"), "functiongraph", call.function)
    return "/".join(part for part in parts if part)
