"""The rooms put together: settings in, a thing that answers requests out. Every entry point starts here."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

from cloudevents.http import CloudEvent

from handler.cloud.connect import Clouds
from handler.errors import PassingTrouble
from handler.inbound.answers import Answer
from handler.inbound.door import Door
from handler.outbound import logs
from handler.outbound.result import batch, binary, result_event
from handler.outbound.sink import Sink
from handler.settings import Settings
from handler.stop.crew import Threads
from handler.stop.model import Report, StopRequest
from handler.stop.run import Ended, run

_READY_TIMEOUT = 5.0
_BATCH_WIDTH = 8


class Service:
    """Everything that one process shares: the login, the connections, the threads."""

    def __init__(self, settings: Settings, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.settings = settings
        self._monotonic = monotonic
        self._sink = Sink(settings.result_sink, settings.sink_token) if settings.result_sink else None
        self._clouds = Clouds(settings)

    @cached_property
    def _threads(self) -> ThreadPoolExecutor:
        # Made on first use, so that a server that forks after loading the function has them in the right process.
        return ThreadPoolExecutor(self.settings.concurrency, thread_name_prefix="cloud")

    def door(self) -> Door:
        """The door of `stop_servers`."""
        return Door(self.settings, self.handle, self.ready)

    def ready(self) -> None:
        """Raise unless a token and the cloud's address can be had."""
        self._clouds.endpoint.url(_READY_TIMEOUT)

    def handle(self, requests: Sequence[StopRequest], as_batch: bool, received: float) -> Answer:
        """Handle the events of one HTTP request within one budget, and send or return their results.

        Raises:
            PassingTrouble: at least one of them must come again; no result is returned.
        """
        deadline = received + self.settings.deadline.total_seconds()
        try:
            reports = self._reports(requests, deadline - self._kept_for_result())
            events = [
                result_event(report, source=self.settings.source, extensions=self.settings.extensions)
                for report in reports
            ]
            answer = self._deliver(events, as_batch, deadline)
        except PassingTrouble as trouble:
            for request in requests:
                logs.log_unhandled(request, trouble)
            raise
        for report, event in zip(reports, events, strict=True):
            logs.log_report(report, event["type"])
        return answer

    def report(self, request: StopRequest, deadline: float) -> Report:
        """Handle one event.

        Args:
            deadline: on the monotonic clock.

        Raises:
            PassingTrouble: the event must come again.
        """
        dry_run = request.dry_run or self.settings.policy.dry_run
        crew: Threads[Ended] = Threads(self._threads)
        return run(
            request,
            self.settings.policy,
            self._clouds.cloud(dry_run=dry_run),
            crew,
            deadline=deadline,
            width=self.settings.concurrency,
            dry_run=dry_run,
            # At once, while others are waited for: what was done to a server is told whatever comes after it.
            told=lambda server: logs.log_server(request, server),
        )

    def _reports(self, requests: Sequence[StopRequest], deadline: float) -> list[Report]:
        if len(requests) == 1:
            return [self.report(requests[0], deadline)]
        with ThreadPoolExecutor(_BATCH_WIDTH, thread_name_prefix="event") as events:
            return list(events.map(lambda request: self.report(request, deadline), requests))

    def _kept_for_result(self) -> float:
        """Seconds of the budget that the run must leave for the result's own way."""
        share = self.settings.deadline.total_seconds() * (0.2 if self._sink else 0.02)
        return min(share, 5.0)

    def _deliver(self, events: Sequence[CloudEvent], as_batch: bool, deadline: float) -> Answer:
        if self._sink is not None:
            for event in events:
                self._sink.send(*binary(event), deadline)
            return Answer(204)
        return Answer(200, *(batch(events) if as_batch else binary(events[0])))
