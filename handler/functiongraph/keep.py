"""`keep_servers` as a container on Open Telekom Cloud's FunctionGraph; not as code.

It accepts CloudEvents and calls of API Gateway. Other triggers do not send keep requests.
"""

from __future__ import annotations

import os
from datetime import timedelta

from handler.errors import NotAnEvent
from handler.functiongraph.container import gateway_request
from handler.functiongraph.context import Call
from handler.functiongraph.triggers.apig import reply
from handler.inbound.cloudevents.decode import is_marked
from handler.inbound.http import responses
from handler.inbound.http.request import HttpRequest
from handler.inbound.http.responses import Answer
from handler.services.keep_servers import KeepService
from handler.settings.keep_servers import KeepSettings
from handler.settings.login import LoginKind


class KeepContainer:
    """Answers HTTP requests, with the login of the headers if no other is set."""

    def __init__(self, service: KeepService, settings: KeepSettings) -> None:
        self._service = service
        self._settings = settings

    def answer(self, request: HttpRequest) -> Answer:
        """Answer one request. Never raises."""
        return responses.always(lambda: self._answer(request))

    def _answer(self, request: HttpRequest) -> Answer:
        platform = request.method == "POST" and not is_marked(request.headers)
        if platform and request.path == "/init":
            return Answer(200)
        call, settings = Call.of_headers(request.headers, os.environ), self._settings
        own = settings.login.kind is not LoginKind.FUNCTIONGRAPH
        login = settings.login if own else call.login(settings.login)
        settings = settings._replace(login=login, deadline=timedelta(seconds=call.budget(settings)))
        endpoint = self._service.for_call(settings).endpoint()
        if not (platform and request.path == "/invoke"):
            return endpoint.answer(request)
        # The headers of the request inside authenticate the gateway's caller.
        inside = gateway_request(request)
        if inside is None:
            raise NotAnEvent("Of the triggers of FunctionGraph only API Gateway brings keep requests.")
        answer = endpoint.answer(inside.http(self._settings.max_body, request.received))
        return responses.json_answer(200, reply(answer))
