"""The endpoint of `receive_webhook`: verify, gate, extract, hand on; at most one stop request a delivery."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from handler.errors import CallerForbidden, SinkUnreachable, WrongMethod
from handler.inbound import dry_run
from handler.inbound.http import responses
from handler.inbound.http.request import HttpRequest
from handler.inbound.http.responses import Answer
from handler.inbound.trace_context import traced
from handler.inbound.webhooks.model import Producer
from handler.keep.model import KeepRequest
from handler.stop.model import StopRequest

_LOG = logging.getLogger(__name__)

HandOn = Callable[[StopRequest | KeepRequest, float], None]


class WebhookEndpoint:
    """Answers requests to `receive_webhook`.

    Args:
        producers: by path; every other path is refused.
        hand_on: sends a stop request to the sink by a time on the monotonic clock, or raises SinkUnreachable.
        dry_run: whether everything is handed on as a dry run.
        now: the clock.
    """

    def __init__(
        self,
        producers: Mapping[str, Producer[Any]],
        hand_on: HandOn,
        *,
        dry_run: bool = False,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._producers = producers
        self._hand_on = hand_on
        self._dry_run = dry_run
        self._now = now

    def answer(self, request: HttpRequest) -> Answer:
        """Answer one request; never raises."""
        # The settings were valid at the start, and there is no login: the target is always ready.
        # URLs are often configured with a slash at the end.
        path = request.path.removesuffix("/") or "/"
        return responses.served(request.method, path, lambda: None, lambda: self._answer(request._replace(path=path)))

    def _answer(self, request: HttpRequest) -> Answer:
        if request.method != "POST":
            raise WrongMethod("Only POST is served here.", allow="POST")
        producer = self._producers.get(request.path)
        if producer is None:
            raise CallerForbidden("No webhook is switched on here.")
        until = request.received + producer.patience
        now = self._now()
        message = producer.verify(request, now)
        skip = producer.gate(message)
        if skip is not None:
            level = logging.WARNING if skip.warn else logging.INFO
            _LOG.log(level, "delivery ignored", extra={"webhook": request.path, "detail": skip.reason})
            return skip.response
        dry = dry_run.requested_beside(request.headers, request.query)
        found = producer.extract(message)
        wanted = found._replace(
            time=found.time or now,
            dry_run=found.dry_run or dry or self._dry_run,
            **traced(request.headers.get("traceparent"), request.headers.get("tracestate")),
        )
        try:
            self._hand_on(wanted, until)
        except SinkUnreachable as error:
            answer = producer.not_handed_on(message, wanted, error.acceptance)
            if answer is None:
                raise
            return answer
        return producer.handed_on(message, wanted)
