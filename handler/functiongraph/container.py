"""HTTP requests of a container on Open Telekom Cloud's FunctionGraph: `POST /invoke` and `POST /init`, on port 8000."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence

from cloudevents.http import CloudEvent

from handler.errors import BadEvent, Unauthenticated
from handler.functiongraph.context import Call
from handler.functiongraph.invocation import Invocation, structured, through_gateway
from handler.functiongraph.triggers.apig import GatewayRequest, is_cloudevent
from handler.inbound.auth import caller
from handler.inbound.http import responses
from handler.inbound.http.request import HttpRequest
from handler.inbound.http.responses import Answer
from handler.inbound.webhooks.fields import json_object
from handler.outbound.result import batch
from handler.services.stop_servers import Service

_INVOKE, _INIT = "/invoke", "/init"


class Container:
    """Answers them, and CloudEvents as everywhere else; with the login of the headers, if no other is set."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def answer(self, request: HttpRequest) -> Answer:
        """Answer one request. Never raises."""
        return responses.always(lambda: self._answer(request))

    def _answer(self, request: HttpRequest) -> Answer:
        settings = self._service.settings
        call = Call.of_headers(request.headers, os.environ)
        if request.method != "POST" or request.path not in (_INVOKE, _INIT):
            return self._service.lent(call.settings(settings)).endpoint().answer(request)
        until = request.received + call.budget(settings)
        try:
            caller.prove(request.headers, settings.callers, until)
        except Unauthenticated as unproven:
            return self._through_gateway(request, call, unproven)
        if is_cloudevent(request):
            return self._service.lent(call.settings(settings)).endpoint().answer(request)
        if request.path == _INIT:
            return Answer(200)
        document = json_object(request.body, "event")
        if GatewayRequest.is_one(document):
            return responses.json_answer(200, through_gateway(self._service, document, call, request.received))
        results = Invocation(self._service, call, request.received).results(document)
        return _as_answer(results, sent=self._service.has_sink)

    def _through_gateway(self, request: HttpRequest, call: Call, unproven: Unauthenticated) -> Answer:
        """Answer a call that the platform made for a client of the gateway, whose proof is inside of the body."""
        if request.path == _INIT:
            raise unproven
        try:
            document = json_object(request.unauthenticated_body, "event")
        except BadEvent:
            raise unproven from None
        if not GatewayRequest.is_one(document):
            raise unproven
        return responses.json_answer(200, through_gateway(self._service, document, call, request.received))


def _as_answer(events: Sequence[CloudEvent], *, sent: bool) -> Answer:
    """The results as an answer whose body says all: the platform passes no headers on to its destinations."""
    if not events or sent:
        return Answer(204)
    if len(events) > 1:
        return Answer(200, *batch(events))
    (document,) = structured(events)
    return Answer(200, {"content-type": "application/cloudevents+json"}, json.dumps(document).encode())
