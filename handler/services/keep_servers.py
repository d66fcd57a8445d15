"""The composition root of `keep_servers`: from settings to an endpoint.

It writes the keep-until of servers and cannot stop them: its cloud is a reader and a writer of metadata
(`handler.keep.ports.MetadataCloud`).
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from datetime import UTC, datetime
from functools import cached_property
from itertools import repeat
from typing import TYPE_CHECKING, Any

from cloudevents.http import CloudEvent

from handler.cloud.metadata import MetadataClouds
from handler.errors import RetryableError
from handler.http_client import HttpClient, host_of
from handler.inbound.endpoints.keep_servers import KeepEndpoint
from handler.inbound.http.responses import Answer
from handler.inbound.readiness import Readiness
from handler.keep.model import KeepReport, KeepRequest, KeepResult
from handler.keep.run import prepare, run
from handler.keep.runner import ServerLocks
from handler.outbound.keep import keep_result_event, log_keep_report, log_keep_server
from handler.outbound.logs import FailedCalls, log_received, log_started, log_unhandled
from handler.outbound.result import batch, binary
from handler.outbound.sink import Sink
from handler.settings import durations
from handler.settings.keep_servers import KeepSettings
from handler.stop.executor import ThreadExecutor
from handler.stop.prepare import PreparedRequest, refuse_too_many

if TYPE_CHECKING:
    from handler.outbound.smn_sink import TopicSink
    from handler.telemetry import Telemetry

_READY_TIMEOUT = 5.0
_BATCH_WIDTH = 8
# The part of the budget for the delivery of the result, and its upper bound in seconds.
_SINK_SHARE, _ANSWER_SHARE, _LONGEST_DELIVERY = 0.2, 0.02, 5.0


class _Clock:
    """The real time."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self.monotonic = monotonic
        self.sleep = time.sleep

    def now(self) -> datetime:
        """Return the wall time, aware, UTC."""
        return datetime.now(UTC)


class KeepService:
    """What one process shares: the login, the connections, the threads, and the locks of servers.

    Args:
        telemetry: None if it is off.
    """

    def __init__(
        self,
        settings: KeepSettings,
        monotonic: Callable[[], float] = time.monotonic,
        telemetry: Telemetry | None = None,
    ) -> None:
        self._settings = settings
        self._clock = _Clock(monotonic)
        self._telemetry = telemetry
        self._clouds = MetadataClouds(settings, new_client=telemetry.http_client("cloud") if telemetry else HttpClient)
        self._locks = ServerLocks()
        self._readiness = Readiness()
        self._sink = self._new_sink()

    @cached_property
    def _threads(self) -> ThreadPoolExecutor:
        # Created on first use, so that a server that forks after loading the function has them in the right process.
        return ThreadPoolExecutor(self._settings.concurrency, thread_name_prefix="cloud")

    def for_call(self, settings: KeepSettings) -> KeepService:
        """Return a service for one call that differs in `login` and `deadline`; threads and locks are shared."""
        # Created now, so that the copy has them.
        _ = self._threads
        other = copy.copy(self)
        other._settings = settings
        if settings.login is not self._settings.login:
            other._clouds = MetadataClouds(settings, client=self._clouds.client)
            if settings.result_topic is not None:
                other._sink = other._new_sink()
        return other

    def log_started(self) -> None:
        """Log what this process serves, for readers who do not know its settings."""
        settings = self._settings
        log_started(
            "keep_servers",
            api=settings.api.value,
            dry_run=settings.policy.limits.dry_run,
            inbound_auth=settings.callers.inbound_auth.value,
            sink=host_of(settings.sink.url) if settings.sink else settings.result_topic,
            max_keep=durations.render(settings.policy.max_keep),
        )

    def endpoint(self) -> KeepEndpoint:
        """Return the endpoint of `keep_servers`."""
        on_skip = self._telemetry.ignored if self._telemetry else None
        return KeepEndpoint(self._settings, self.handle, self.ready, on_skip, self._readiness)

    def ready(self) -> None:
        """Raise unless the login works and the cloud's URL is known."""
        self._clouds.ready(_READY_TIMEOUT)

    def handle(self, requests: Sequence[KeepRequest], as_batch: bool, received: float) -> Answer:
        """Handle the events of one HTTP request within one budget, and send or return their results.

        The budget begins when they were `received`, on the monotonic clock.

        Raises:
            RetryableError: at least one of them must be sent again; no result is returned.
        """
        if self._telemetry is None:
            events = self._results(requests, received)
        else:
            with self._telemetry.events(requests):
                events = self._results(requests, received)
        if self._sink is not None:
            return Answer(204)
        return Answer(200, *(batch(events) if as_batch else binary(events[0])))

    def _results(self, requests: Sequence[KeepRequest], received: float) -> Sequence[CloudEvent]:
        for request in requests:
            log_received(request)
        budget = self._settings.deadline.total_seconds()
        deadline = received + budget
        kept = min(budget * (_SINK_SHARE if self._sink is not None else _ANSWER_SHARE), _LONGEST_DELIVERY)
        try:
            reports = self._reports(requests, deadline - kept)
            events = [
                keep_result_event(report, source=self._settings.source, extensions=self._settings.extensions)
                for report in reports
            ]
            if self._sink is not None:
                self._deliver(self._sink, events, deadline)
        except RetryableError as error:
            for request in requests:
                log_unhandled(request, error)
            raise
        for report, event in zip(reports, events, strict=True):
            log_keep_report(report, event["type"])
        return events

    def _reports(self, requests: Sequence[KeepRequest], deadline: float) -> list[KeepReport]:
        with ThreadPoolExecutor(min(_BATCH_WIDTH, len(requests)), thread_name_prefix="event") as events:
            # All are prepared before the first write, so that the servers of the whole batch are counted.
            looked_up = list(events.map(lambda request: self._prepare(request, deadline), requests))
            prepared = refuse_too_many(looked_up, self._settings.policy.limits)
            return list(events.map(self._observed, requests, prepared, repeat(deadline)))

    def _prepare(self, request: KeepRequest, deadline: float) -> PreparedRequest[KeepRequest]:
        executor: ThreadExecutor[Any] = ThreadExecutor(self._threads)
        return prepare(
            request,
            self._settings.policy,
            self._clouds.reader(),
            executor,
            deadline=deadline,
            on_failure=FailedCalls(request),
        )

    def _observed(self, request: KeepRequest, prepared: PreparedRequest[KeepRequest], deadline: float) -> KeepReport:
        if self._telemetry is None:
            return self._run(prepared, deadline, self._threads)
        with self._telemetry.event(request):
            report = self._run(prepared, deadline, self._telemetry.executor(self._threads))
            self._telemetry.report(report)
            return report

    def _run(self, prepared: PreparedRequest[KeepRequest], deadline: float, threads: Executor) -> KeepReport:
        dry_run = prepared.request.dry_run or self._settings.policy.limits.dry_run

        def on_result(server: KeepResult) -> None:
            log_keep_server(prepared.request, server)
            if self._telemetry is not None:
                self._telemetry.server(server)

        return run(
            prepared,
            self._settings.policy,
            self._clouds.reader(),
            None if dry_run else self._clouds.writer(),
            threads,
            self._clock,
            self._locks,
            deadline=deadline,
            on_result=on_result,
            on_failure=FailedCalls(prepared.request),
        )

    def _new_sink(self) -> Sink | TopicSink | None:
        """Return the sink of results; None if the response is the result."""
        if self._settings.sink is not None:
            new_client = self._telemetry.http_client("sink") if self._telemetry else HttpClient
            return Sink(self._settings.sink, new_client=new_client)
        topic = self._clouds.topic()
        if topic is None:
            return None
        from handler.outbound.smn_sink import TopicSink

        return TopicSink(topic)

    @staticmethod
    def _deliver(sink: Sink | TopicSink, events: Sequence[CloudEvent], deadline: float) -> None:
        # In parallel, so that many results reach a slow sink in the time that is left for them.
        with ThreadPoolExecutor(min(_BATCH_WIDTH, len(events)), thread_name_prefix="result") as results:
            list(results.map(lambda event: sink.deliver(event, deadline), events))
