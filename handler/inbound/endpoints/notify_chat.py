"""The endpoint of `notify_chat`: receives result events, and answers 204 once a chat has accepted them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from handler.errors import BadEvent, Violation, WrongMethod
from handler.event_types import STOP_ANNOUNCED
from handler.inbound.auth import caller
from handler.inbound.cloudevents.decode import Delivery, decode
from handler.inbound.cloudevents.result_events import ResultEvent, read
from handler.inbound.endpoints.stop_servers import about
from handler.inbound.http import responses
from handler.inbound.http.request import HttpRequest
from handler.inbound.http.responses import Answer
from handler.inbound.readiness import Readiness
from handler.settings.notify_chat import NotifySettings

_LOG = logging.getLogger(__name__)

Post = Callable[[Sequence[ResultEvent], float], None]


class NotifyEndpoint:
    """Answers requests to `notify_chat`.

    Args:
        settings: of the target.
        post: posts the results of one request, given when it arrived, or raises.
    """

    def __init__(self, settings: NotifySettings, post: Post) -> None:
        self._settings = settings
        self._post = post
        self._readiness = Readiness()

    def answer(self, request: HttpRequest) -> Answer:
        """Answer one request; never raises."""
        return responses.served(request.method, request.path, self._be_ready, lambda: self._answer(request))

    def _be_ready(self) -> None:
        # Only posting a message would show whether a chat accepts messages.
        self._readiness.check(lambda: caller.ready(self._settings.callers))

    def _answer(self, request: HttpRequest) -> Answer:
        match request.method:
            case "OPTIONS":
                return Answer(200, caller.consent(request.headers, self._settings.callers))
            case "POST":
                until = request.received + self._settings.deadline.total_seconds()
                caller.authenticate(request.headers, self._settings.callers, until)
                results = _results(decode(request.headers, request.body))
                if results:
                    self._post(results, request.received)
                return Answer(204)
            case _:
                raise WrongMethod("Only POST and OPTIONS are served here.")


def _results(delivery: Delivery) -> list[ResultEvent]:
    """Read the results of all events.

    Raises:
        BadEvent: an event is malformed, so that none is posted; with the violations of all.
    """
    results: dict[tuple[str, str], ResultEvent] = {}
    violations: list[Violation] = []
    for index, event in enumerate(delivery.events):
        prefix = f"[{index}]." if delivery.batch else ""
        violations += event.violations
        if event.dead_letter and not event.violations:
            # A broker made this copy because it could not be delivered: to post it again would be a loop.
            _LOG.info("event ignored", extra={**about(event), "detail": "dead-lettered copy"})
            continue
        if event.type == STOP_ANNOUNCED and not event.violations:
            # The result follows within seconds and has the outcome.
            _LOG.info("event ignored", extra={**about(event), "detail": "announcement"})
            continue
        try:
            result = read(event)
        except BadEvent as bad:
            violations += [Violation(f"{prefix}{violation.at}", violation.message) for violation in bad.violations]
            continue
        if results.setdefault((result.source, result.id), result) != result:
            violations.append(Violation(f"{prefix}id", "must be unique within the batch"))
    if violations:
        raise BadEvent(*violations)
    return list(results.values())
