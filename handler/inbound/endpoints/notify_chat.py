"""The door of `notify_chat`: result events in, 204 out once they are told."""

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

Tell = Callable[[Sequence[ResultEvent], float], None]


class NotifyEndpoint:
    """Answers requests to `notify_chat`.

    Args:
        tell: tells the results of one request, given when it was here, or raises.
    """

    def __init__(self, settings: NotifySettings, tell: Tell) -> None:
        self._settings = settings
        self._tell = tell
        self._readiness = Readiness()

    def answer(self, request: HttpRequest) -> Answer:
        """Answer one request. Never raises."""
        return responses.served(request.method, request.path, self._be_ready, lambda: self._answer(request))

    def _be_ready(self) -> None:
        # Whether a chat takes messages is only known by posting one.
        self._readiness.check(lambda: caller.ready(self._settings.callers))

    def _answer(self, request: HttpRequest) -> Answer:
        match request.method:
            case "OPTIONS":
                return Answer(200, caller.consent(request.headers, self._settings.callers))
            case "POST":
                until = request.received + self._settings.deadline.total_seconds()
                caller.prove(request.headers, self._settings.callers, until)
                results = _results(decode(request.headers, request.body))
                if results:
                    self._tell(results, request.received)
                return Answer(204)
            case _:
                raise WrongMethod("Only POST and OPTIONS are served here.")


def _results(delivery: Delivery) -> list[ResultEvent]:
    """What the events tell.

    Raises:
        BadEvent: with the flaws of all events; one malformed event and none is told.
    """
    results: dict[tuple[str, str], ResultEvent] = {}
    violations: list[Violation] = []
    for index, event in enumerate(delivery.events):
        prefix = f"[{index}]." if delivery.batch else ""
        violations += event.violations
        if event.dead_letter and not event.violations:
            # A broker made this copy since it could not be told; telling it here again would go round in circles.
            _LOG.info("event ignored", extra={**about(event), "detail": "dead-lettered copy"})
            continue
        if event.type == STOP_ANNOUNCED and not event.violations:
            # The result follows within seconds and says what came of it.
            _LOG.info("event ignored", extra={**about(event), "detail": "announcement"})
            continue
        try:
            told = read(event)
        except BadEvent as bad:
            violations += [Violation(f"{prefix}{violation.at}", violation.message) for violation in bad.violations]
            continue
        if results.setdefault((told.source, told.id), told) != told:
            violations.append(Violation(f"{prefix}id", "must be unique within the batch"))
    if violations:
        raise BadEvent(*violations)
    return list(results.values())
