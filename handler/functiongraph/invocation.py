"""The rooms put together for Open Telekom Cloud's FunctionGraph: an event of any trigger in, result events out."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from cloudevents.conversion import to_dict
from cloudevents.http import CloudEvent

from handler.errors import AutostopError, InternalFault, RetryableError
from handler.functiongraph.context import Call
from handler.functiongraph.triggers.apig import GatewayRequest, reply
from handler.functiongraph.triggers.dispatch import requests_of
from handler.inbound.auth import caller
from handler.inbound.cloudevents.decode import decode
from handler.inbound.endpoints.stop_servers import requests_of as asked_by
from handler.inbound.http import responses
from handler.inbound.http.responses import Answer
from handler.inbound.webhooks.fields import json_object
from handler.services.stop_servers import Service
from handler.stop.model import StopRequest

_LOG = logging.getLogger(__name__)

Document = Mapping[str, object]
"""A JSON object."""


class NotHandled(Exception):
    """The event was not handled, and sending it again can help."""


class NeverPossible(Exception):
    """The event can never succeed; the message names its faults."""


class Invocation:
    """One event, handled with the login and within the time of the call that brought it.

    Args:
        service: of the process.
        received: when the event was here, on the monotonic clock.

    Raises:
        PassingTrouble: the call has no time left, or brought a login that cannot be one.
    """

    def __init__(self, service: Service, call: Call, received: float) -> None:
        self._service = service.lent(call.settings(service.settings))
        # Two functions of one project may have timers of the same name.
        parts = (service.settings.source.rstrip("/"), "functiongraph", call.function)
        self._source = "/".join(part for part in parts if part)
        self._received = received

    def results(self, document: Document) -> Sequence[CloudEvent]:
        """The results of an event that did not come through the gateway; the sink has got them too, if there is one.

        Raises:
            BadEvent: it can never succeed.
            PassingTrouble: it must come again.
        """
        requests = self._requests(document)
        return self._service.results(requests, self._received) if requests else []

    def answer(self, document: Document) -> Answer:
        """What an event of the gateway is to be answered with, once its caller has proved itself.

        Raises:
            AutostopError: what `handler.inbound.http.responses` makes an answer of.
        """
        passage = GatewayRequest(document, f"{self._source}/apig", self._received)
        http = passage.http(self._service.settings.max_body)
        if http.method == "POST":
            settings = self._service.settings
            caller.prove(http.headers, settings.callers, self._received + settings.deadline.total_seconds())
            asked = passage.extract(http, datetime.now(UTC))
            if asked is not None:
                return self._service.handle([asked], False, self._received)
        return self._service.endpoint().answer(http)

    def _requests(self, document: Document) -> list[StopRequest]:
        if "specversion" not in document:
            return requests_of(document, self._source, datetime.now(UTC))
        # Whoever calls the function by the platform's API can send the event itself.
        headers = {"content-type": "application/cloudevents+json"}
        return asked_by(decode(headers, json.dumps(document).encode()), self._service.settings.event_types)


def invoke(service: Service, event: object, call: Call, received: float) -> object:
    """Handle one event of a function that the platform calls as code.

    Args:
        event: as the platform hands it over: a JSON object, or the text of one.

    Returns:
        The result as a CloudEvent in the JSON format; for an event with several records a list of them; the gateway's
        answer for an event of the gateway; None if there was rightly nothing to act on.

    Raises:
        NotHandled: it must come again.
        NeverPossible: it never can succeed.
    """
    try:
        document = json_object(event, "event")
        if GatewayRequest.is_one(document):
            return through_gateway(service, document, call, received)
        results = structured(Invocation(service, call, received).results(document))
        records = document.get("record")
        several = isinstance(records, list) and len(records) > 1
        return results if several and results else next(iter(results), None)
    except RetryableError as trouble:
        _LOG.warning("call not handled", extra={"problem": trouble.name, "detail": str(trouble)})
        raise NotHandled(f"{trouble.name}: {responses.told(trouble)}") from None
    except AutostopError as error:
        _LOG.warning("call not handled", extra={"problem": error.name, "detail": str(error)})
        raise NeverPossible(str(error)) from None
    except Exception:
        _LOG.exception("a bug kept the event from being handled")
        raise NotHandled(f"{InternalFault.name}: Something unexpected happened; the log tells more.") from None


def through_gateway(service: Service, document: Document, call: Call, received: float) -> Document:
    """What the gateway is to make an HTTP answer of, whatever happens. Never raises."""
    return reply(responses.always(lambda: Invocation(service, call, received).answer(document)))


def structured(events: Sequence[CloudEvent]) -> list[Document]:
    """Events in the JSON format."""
    return [dict(to_dict(event)) for event in events]
