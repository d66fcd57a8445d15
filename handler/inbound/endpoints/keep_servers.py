"""The endpoint of `keep_servers`: authenticates the caller, reads the events, and has them handled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from handler.errors import WrongMethod
from handler.inbound import dry_run
from handler.inbound.auth import caller
from handler.inbound.cloudevents.decode import decode
from handler.inbound.endpoints.stop_servers import collect
from handler.inbound.extract.keep import extract_keep
from handler.inbound.http import responses
from handler.inbound.http.request import HttpRequest
from handler.inbound.http.responses import Answer
from handler.inbound.readiness import Readiness
from handler.inbound.trace_context import traced
from handler.keep.model import KeepRequest
from handler.settings.keep_servers import KeepSettings

Handle = Callable[[Sequence[KeepRequest], bool, float], Answer]


def _now() -> datetime:
    return datetime.now(UTC)


class KeepEndpoint:
    """Answers requests to `keep_servers`.

    Args:
        settings: of the target.
        handle: handles requests and makes the response, given whether they came as a batch, and when.
        ready: raises if no token can be obtained.
        on_skip: called with the type of each event that asks for nothing, and why.
        readiness: shared by all endpoints of the process.
        now: the clock.
    """

    def __init__(
        self,
        settings: KeepSettings,
        handle: Handle,
        ready: Callable[[], None],
        on_skip: Callable[[str, str], None] | None = None,
        readiness: Readiness | None = None,
        now: Callable[[], datetime] = _now,
    ) -> None:
        self._settings = settings
        self._handle = handle
        self._ready = ready
        self._on_skip = on_skip
        self._now = now
        self._readiness = readiness or Readiness()

    def answer(self, request: HttpRequest) -> Answer:
        """Answer one request; never raises."""
        return responses.served(
            request.method, request.path, lambda: self._readiness.check(self._check), lambda: self._answer(request)
        )

    def _check(self) -> None:
        caller.ready(self._settings.callers)
        self._ready()

    def _answer(self, request: HttpRequest) -> Answer:
        match request.method:
            case "OPTIONS":
                return Answer(200, caller.consent(request.headers, self._settings.callers))
            case "POST":
                until = request.received + self._settings.deadline.total_seconds()
                caller.authenticate(request.headers, self._settings.callers, until)
                return self._deliver(request)
            case _:
                raise WrongMethod("Only POST and OPTIONS are served here.")

    def _deliver(self, request: HttpRequest) -> Answer:
        delivery = decode(request.headers, request.body)
        now, max_keep = self._now(), self._settings.policy.max_keep
        requests: list[KeepRequest] = collect(
            delivery,
            lambda event: extract_keep(event, max_keep, now),
            self._on_skip,
            dry=dry_run.requested_beside(request.headers, request.query),
        )
        trace = traced(request.headers.get("traceparent"), request.headers.get("tracestate"))
        requests = [one if one.traceparent else replace(one, **trace) for one in requests]
        return self._handle(requests, delivery.batch, request.received) if requests else Answer(204)
