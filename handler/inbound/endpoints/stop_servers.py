"""The endpoint of `stop_servers`: one HTTP request in, one response out."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Generic, TypeVar

from handler.errors import BadEvent, CallerForbidden, Violation, WrongMethod
from handler.inbound import dry_run
from handler.inbound.auth import caller
from handler.inbound.cloudevents.decode import Delivery, Event, decode
from handler.inbound.extract.dispatch import extract
from handler.inbound.http import responses
from handler.inbound.http.request import HttpRequest
from handler.inbound.http.responses import Answer
from handler.inbound.readiness import Readiness
from handler.inbound.skip import Skip
from handler.inbound.trace_context import traced
from handler.settings.common import Callers
from handler.settings.stop_servers import Settings
from handler.stop.model import StopRequest

if TYPE_CHECKING:
    from handler.keep.model import KeepRequest
    from handler.settings.keep_servers import KeepSettings

_LOG = logging.getLogger(__name__)

Request = TypeVar("Request", StopRequest, "KeepRequest")
AnySettings = TypeVar("AnySettings", Settings, "KeepSettings")


class EventEndpoint(ABC, Generic[Request, AnySettings]):
    """Answers requests with events that ask for something to be done with servers.

    Args:
        settings: of the target.
        handle: handles requests and makes the response, given whether they came as a batch, and when.
        ready: raises if no token can be obtained.
        on_skip: called with the type of each event that asks for nothing, and why.
        readiness: shared by all endpoints of the process.
    """

    def __init__(
        self,
        settings: AnySettings,
        handle: Callable[[Sequence[Request], bool, float], Answer],
        ready: Callable[[], None],
        on_skip: Callable[[str, str], None] | None = None,
        readiness: Readiness | None = None,
    ) -> None:
        self._settings: AnySettings = settings
        self._handle: Callable[[Sequence[Request], bool, float], Answer] = handle
        self._ready = ready
        self._on_skip = on_skip
        self._readiness = readiness or Readiness()

    def answer(self, request: HttpRequest) -> Answer:
        """Answer one request; never raises."""
        return serve(
            request,
            self._settings.callers,
            self._settings.deadline,
            lambda: self._readiness.check(self._check),
            lambda approver: self.deliver(decode(request.headers, request.body), request, approver),
        )

    def deliver(self, delivery: Delivery, request: HttpRequest, approver: bool) -> Answer:
        """Handle the events of an authenticated caller, who may send approvals or not; the body is not read.

        Raises:
            BadEvent: with every violation of every event.
            CallerForbidden: an event is an approval, and the caller may not send one.
            RetryableError: at least one event must be sent again.
        """
        requests = self._requests(delivery, dry_run.requested_beside(request.headers, request.query), approver)
        # An event's own trace context comes first (CloudEvents' distributed tracing extension).
        trace = traced(request.headers.get("traceparent"), request.headers.get("tracestate"))
        requests = [one if one.traceparent else one._replace(**trace) for one in requests]
        return self._handle(requests, delivery.batch, request.received) if requests else Answer(204)

    @abstractmethod
    def _requests(self, delivery: Delivery, dry: bool, approver: bool) -> list[Request]:
        """Return what the events ask for; as `requests_of`."""

    def _check(self) -> None:
        caller.ready(self._settings.callers)
        self._ready()


class StopEndpoint(EventEndpoint[StopRequest, Settings]):
    """Answers requests to `stop_servers`."""

    def _requests(self, delivery: Delivery, dry: bool, approver: bool) -> list[StopRequest]:
        return requests_of(delivery, self._settings.event_types, self._on_skip, dry=dry, approver=approver)


def serve(
    request: HttpRequest,
    callers: Callers,
    deadline: timedelta,
    ready: Callable[[], None],
    handle: Callable[[bool], Answer],
) -> Answer:
    """Answer a probe, a handshake, or a POST of an authenticated caller within its deadline; never raises.

    `ready` raises if events could not be handled now; `handle` makes the response to a POST, given whether the caller
    may send approvals.
    """

    def answer() -> Answer:
        match request.method:
            case "OPTIONS":
                return Answer(200, caller.consent(request.headers, callers))
            case "POST":
                until = request.received + deadline.total_seconds()
                return handle(caller.authenticate(request.headers, callers, until))
            case _:
                raise WrongMethod("Only POST and OPTIONS are served here.")

    return responses.served(request.method, request.path, ready, answer)


def requests_of(
    delivery: Delivery,
    event_types: Mapping[str, str],
    on_skip: Callable[[str, str], None] | None = None,
    *,
    dry: bool = False,
    approver: bool = True,
) -> list[StopRequest]:
    """Return what the events of a delivery ask for, without those that ask for nothing.

    Args:
        delivery: the events.
        event_types: further types that are accepted, as the settings have them.
        on_skip: called with the type of each event that asks for nothing, and why.
        dry: whether the HTTP request asks for a dry run of all events.
        approver: whether the caller may send approvals.

    Raises:
        BadEvent: with every violation of every event.
        CallerForbidden: an event is an approval, and the caller may not send one.
    """
    requests = collect(delivery, lambda event: extract(event, event_types), on_skip, dry=dry)
    if not approver and any(request.plan is not None for request in requests):
        raise CallerForbidden("The caller is not one of those that may send approvals.")
    return requests


def collect(
    delivery: Delivery,
    extract: Callable[[Event], Request | Skip],
    on_skip: Callable[[str, str], None] | None = None,
    *,
    dry: bool = False,
) -> list[Request]:
    """Extract what each event of a delivery asks for by `extract`, which raises BadEvent; as `requests_of`."""
    requests: dict[tuple[str, str], Request] = {}
    skipped: list[tuple[Event, Skip]] = []
    violations: list[Violation] = []
    event: Event
    for index, event in enumerate(delivery.events):
        prefix = f"[{index}]." if delivery.batch else ""
        found = [*event.violations]
        asked: Request | Skip | None = None
        try:
            asked = extract(event)
            if dry and not isinstance(asked, Skip):
                asked = asked._replace(dry_run=True)
        except BadEvent as bad:
            found += [Violation(f"{prefix}{violation.at}", violation.message) for violation in bad.violations]
        if isinstance(asked, Skip):
            skipped.append((event, asked))
        # Source and id identify an event: two of a batch with the same are a repeat, or a mistake.
        elif asked is not None and not found and requests.setdefault((asked.source, asked.id), asked) != asked:
            found.append(Violation(f"{prefix}id", "must be unique within the batch"))
        if found:
            # With as much of its identity as could be read.
            _LOG.warning("event malformed", extra={**about(event), **BadEvent(*found).log_fields()})
            violations += found
    if violations:
        raise BadEvent(*violations)
    for event, skip in skipped:
        _LOG.info("event ignored", extra={**about(event), "detail": skip.reason})
        if on_skip is not None:
            on_skip(event.type, skip.reason)
    return list(requests.values())


def about(event: Event) -> dict[str, str | None]:
    """Return the keys of every log line about an event, as far as they could be read."""
    parent = traced(event.traceparent, None)["traceparent"]
    return {
        "event_source": event.source or None,
        "event_id": event.id or None,
        "event_type": event.type or None,
        "trace_id": parent.split("-")[1] if parent else None,
    }
