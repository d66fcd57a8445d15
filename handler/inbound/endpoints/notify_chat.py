"""The endpoint of `notify_chat`: receives result events, and answers 204 once a chat has accepted them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from handler.errors import BadEvent, Violation
from handler.event_types import STOP_ANNOUNCED
from handler.inbound.auth import caller
from handler.inbound.cloudevents.decode import Delivery, decode
from handler.inbound.cloudevents.result_events import ResultEvent, read
from handler.inbound.endpoints.stop_servers import about, serve
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
        callers = self._settings.callers
        # Only posting a message would show whether a chat accepts messages.
        return serve(
            request,
            callers,
            self._settings.deadline,
            lambda: self._readiness.check(lambda: caller.ready(callers)),
            lambda _: self._deliver(request),
        )

    def _deliver(self, request: HttpRequest) -> Answer:
        results = _results(decode(request.headers, request.body))
        if results:
            self._post(results, request.received)
        return Answer(204)


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
        # A broker made a dead-lettered copy because it could not be delivered: to post it again would be a loop. The
        # result of what is announced follows within seconds and has the outcome.
        if not event.violations and (event.dead_letter or event.type == STOP_ANNOUNCED):
            detail = "dead-lettered copy" if event.dead_letter else "announcement"
            _LOG.info("event ignored", extra={**about(event), "detail": detail})
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
