"""What the services of `stop_servers` and `keep_servers` share: the way of events to their results."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from cloudevents.http import CloudEvent

from handler.errors import RetryableError
from handler.http_client import HttpClient
from handler.inbound.http.responses import Answer
from handler.outbound import logs
from handler.outbound.result import batch, binary
from handler.outbound.sink import Sink

if TYPE_CHECKING:
    from handler.cloud.smn import Topic
    from handler.keep.model import KeepReport
    from handler.outbound.smn_sink import TopicSink
    from handler.settings.common import SinkSettings
    from handler.settings.keep_servers import KeepSettings
    from handler.settings.stop_servers import Settings
    from handler.stop.model import Report
    from handler.telemetry import Telemetry

BATCH_WIDTH = 8
"""Most events of one HTTP request that are handled at a time."""
READY_TIMEOUT = 5.0
"""Seconds for a check of readiness."""
# The part of the budget for the delivery of the results, and its upper bound in seconds.
_SINK_SHARE, _ANSWER_SHARE, _LONGEST_DELIVERY = 0.2, 0.02, 5.0

Request = TypeVar("Request", bound=Any)
Result = TypeVar("Result", bound="Report | KeepReport")


class EventService(ABC, Generic[Request, Result]):
    """Handles the events of one HTTP request within one budget, and sends or returns their results."""

    settings: Settings | KeepSettings
    _telemetry: Telemetry | None
    _sink: Sink | TopicSink | None

    @abstractmethod
    def _reports(self, requests: Sequence[Request], deadline: float) -> list[Result]:
        """Handle the events, and return a report for each; the deadline is on the monotonic clock."""

    @abstractmethod
    def _event(self, report: Result) -> CloudEvent:
        """Return the result event of a report."""

    @abstractmethod
    def _log(self, report: Result, event_type: str) -> None:
        """Log a report whose result was sent or will be returned."""

    def handle(self, requests: Sequence[Request], as_batch: bool, received: float) -> Answer:
        """Handle events as `results` does, and answer with their results if there is no sink.

        Raises:
            RetryableError: at least one of them must be sent again; no result is returned.
        """
        events = self.results(requests, received)
        if self._sink is not None:
            return Answer(204)
        return Answer(200, *(batch(events) if as_batch else binary(events[0])))

    def results(self, requests: Sequence[Request], received: float) -> Sequence[CloudEvent]:
        """Handle events within one budget, send their results to the sink, if there is one, and return them.

        The budget begins when they were `received`, on the monotonic clock.

        Raises:
            RetryableError: at least one of them must be sent again.
        """
        if self._telemetry is None:
            return self._results(requests, received)
        with self._telemetry.events(requests):
            return self._results(requests, received)

    def _results(self, requests: Sequence[Request], received: float) -> Sequence[CloudEvent]:
        for request in requests:
            logs.log_received(request)
        budget = self.settings.deadline.total_seconds()
        deadline = received + budget
        kept = min(budget * (_SINK_SHARE if self._sink is not None else _ANSWER_SHARE), _LONGEST_DELIVERY)
        try:
            reports = self._reports(requests, deadline - kept)
            events = [self._event(report) for report in reports]
            if self._sink is not None:
                _deliver(self._sink, events, deadline)
        except RetryableError as error:
            for request in requests:
                logs.log_unhandled(request, error)
            raise
        for report, event in zip(reports, events, strict=True):
            self._log(report, event["type"])
        return events

    def _observed(self, request: Request, threads: Executor, run: Callable[[Executor], Result]) -> Result:
        """Return the report of a run, which telemetry observes if it is on."""
        if self._telemetry is None:
            return run(threads)
        with self._telemetry.event(request):
            report = run(self._telemetry.executor(threads))
            self._telemetry.report(report)
            return report


def new_sink(
    settings: SinkSettings | None, topic: Topic | None, telemetry: Telemetry | None
) -> Sink | TopicSink | None:
    """Return the sink of results, or else their topic; None if the answer is the result."""
    if settings is not None:
        return Sink(settings, new_client=telemetry.http_client("sink") if telemetry else HttpClient)
    if topic is None:
        return None
    from handler.outbound.smn_sink import TopicSink

    return TopicSink(topic)


def _deliver(sink: Sink | TopicSink, events: Sequence[CloudEvent], deadline: float) -> None:
    if len(events) == 1:
        return sink.deliver(events[0], deadline)
    # In parallel: in sequence, many results could never reach a slow sink in the time for them, and the batch would be
    # sent again without end.
    with ThreadPoolExecutor(BATCH_WIDTH, thread_name_prefix="result") as results:
        list(results.map(lambda event: sink.deliver(event, deadline), events))
    return None
