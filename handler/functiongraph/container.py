"""HTTP requests of a container on Open Telekom Cloud's FunctionGraph: `POST /invoke` and `POST /init`, on port 8000."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import assert_never

from cloudevents.http import CloudEvent

from handler.errors import BadEvent, NotAnEvent, Unauthenticated
from handler.functiongraph import invocation
from handler.functiongraph.context import Call
from handler.functiongraph.invocation import EventKind, PlatformDocument
from handler.functiongraph.triggers.apig import GatewayRequest
from handler.inbound.auth import caller
from handler.inbound.cloudevents.decode import Delivery, decode, is_marked
from handler.inbound.http import responses
from handler.inbound.http.request import HttpRequest
from handler.inbound.http.responses import Answer
from handler.inbound.webhooks.fields import json_object
from handler.outbound.result import batch
from handler.services.stop_servers import Service, SharedResources

_INVOKE, _INIT = "/invoke", "/init"


class Container:
    """Answers these requests and CloudEvents, with the login of the headers if no other is set."""

    def __init__(self, shared: SharedResources) -> None:
        self._shared = shared

    def answer(self, request: HttpRequest) -> Answer:
        """Answer one request. Never raises."""
        return responses.always(lambda: self._answer(request))

    def _answer(self, request: HttpRequest) -> Answer:
        call, settings = Call.of_headers(request.headers, os.environ), self._shared.settings
        if request.method != "POST":
            return self._service(call).endpoint().answer(request)
        kind: EventKind | None
        try:
            approver = caller.authenticate(request.headers, settings.callers, request.received + call.budget(settings))
        except Unauthenticated:
            kind = gateway_request(request) if request.path == _INVOKE else None
            if kind is None:
                raise
            approver = False
        else:
            kind = _kind(request)
        match kind:
            case None:
                return Answer(200)
            case Delivery() as delivery:
                return self._service(call).endpoint().deliver(delivery, request, approver)
            case GatewayRequest() as inside:
                return responses.json_answer(
                    200, invocation.through_gateway(self._shared, inside, call, request.received)
                )
            case PlatformDocument() as platform:
                results = invocation.platform_results(self._shared, platform, call, request.received)
                return _as_answer(results, sent=self._shared.sink is not None)
            case unknown:
                assert_never(unknown)

    def _service(self, call: Call) -> Service:
        return Service(call.settings(self._shared.settings), self._shared)


def _kind(request: HttpRequest) -> EventKind | None:
    """Parse the request of an authenticated caller; None if it initializes the container."""
    if request.path == _INVOKE and not is_marked(request.headers):
        return invocation.kind_of(json_object(request.body, "event"))
    try:
        return decode(request.headers, request.body)
    except NotAnEvent:
        if request.path == _INIT:
            return None
        raise


def gateway_request(request: HttpRequest) -> GatewayRequest | None:
    """Return the gateway's request in a call; its headers authenticate the caller."""
    try:
        return GatewayRequest.of(json_object(request.unauthenticated_body, "event"))
    except BadEvent:
        return None


def _as_answer(events: Sequence[CloudEvent], *, sent: bool) -> Answer:
    """Return the results in the body of an answer: the platform does not pass headers on to its destinations."""
    if not events or sent:
        return Answer(204)
    if len(events) > 1:
        return Answer(200, *batch(events))
    (document,) = invocation.structured(events)
    return Answer(200, {"content-type": "application/cloudevents+json"}, json.dumps(document).encode())
