"""HTTP requests of a container on Open Telekom Cloud's FunctionGraph: `POST /invoke` and `POST /init`, on port 8000."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence

from cloudevents.http import CloudEvent

from handler.errors import BadEvent
from handler.functiongraph_call import Call
from handler.functiongraph_service import Invocation, structured, through_gateway
from handler.inbound import answers, caller
from handler.inbound.answers import Answer
from handler.inbound.door import HttpRequest
from handler.inbound.functiongraph.apig import Passage, is_cloudevent
from handler.inbound.webhooks.fields import json_object
from handler.outbound.result import batch
from handler.service import Service

_INVOKE, _INIT = "/invoke", "/init"


class Container:
    """Answers them, and CloudEvents as everywhere else; with the login of the headers, if no other is set."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def answer(self, request: HttpRequest) -> Answer:
        """Answer one request. Never raises."""
        return answers.always(lambda: self._answer(request))

    def _answer(self, request: HttpRequest) -> Answer:
        settings = self._service.settings
        call = Call.of_headers(request.headers, os.environ)
        if request.method != "POST" or request.path not in (_INVOKE, _INIT) or is_cloudevent(request):
            return self._service.lent(call.settings(settings)).door().answer(request)
        until = request.received + call.budget(settings)
        if request.path == _INIT:
            caller.prove(request.headers, settings, until)
            return Answer(200)
        try:
            document = json_object(request.body, "event")
        except BadEvent:
            caller.prove(request.headers, settings, until)
            raise
        if Passage.is_one(document):
            # The platform has nothing to prove itself with; who is before the gateway has.
            return answers.json_answer(200, through_gateway(self._service, document, call, request.received))
        caller.prove(request.headers, settings, until)
        results = Invocation(self._service, call, request.received).results(document)
        return _as_answer(results, sent=self._service.has_sink)


def _as_answer(events: Sequence[CloudEvent], *, sent: bool) -> Answer:
    """The results as an answer whose body says all: the platform passes no headers on to its destinations."""
    if not events or sent:
        return Answer(204)
    if len(events) > 1:
        return Answer(200, *batch(events))
    (document,) = structured(events)
    return Answer(200, {"content-type": "application/cloudevents+json"}, json.dumps(document).encode())
