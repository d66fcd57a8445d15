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
from functools import cached_property, partial
from itertools import repeat
from typing import TYPE_CHECKING, Any

from cloudevents.http import CloudEvent

from handler.cloud.metadata import MetadataClouds
from handler.http_client import HttpClient, host_of
from handler.inbound.endpoints.keep_servers import KeepEndpoint
from handler.inbound.readiness import Readiness
from handler.keep.model import KeepReport, KeepRequest, KeepResult
from handler.keep.run import prepare, run
from handler.keep.runner import ServerLocks
from handler.outbound.keep import keep_result_event, log_keep_report, log_keep_server
from handler.outbound.logs import FailedCalls, log_started
from handler.services.events import BATCH_WIDTH, READY_TIMEOUT, EventService, new_sink
from handler.settings import durations
from handler.settings.keep_servers import KeepSettings
from handler.stop.executor import ThreadExecutor
from handler.stop.prepare import PreparedRequest, refuse_too_many

if TYPE_CHECKING:
    from handler.telemetry import Telemetry


class _Clock:
    """The real time."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self.monotonic = monotonic
        self.sleep = time.sleep

    def now(self) -> datetime:
        """Return the wall time, aware, UTC."""
        return datetime.now(UTC)


class KeepService(EventService[KeepRequest, KeepReport]):
    """What one process shares: the login, the connections, the threads, and the locks of servers.

    Args:
        telemetry: None if it is off.
    """

    settings: KeepSettings

    def __init__(
        self,
        settings: KeepSettings,
        monotonic: Callable[[], float] = time.monotonic,
        telemetry: Telemetry | None = None,
    ) -> None:
        self.settings = settings
        self._clock = _Clock(monotonic)
        self._telemetry = telemetry
        self._clouds = MetadataClouds(settings, new_client=telemetry.http_client("cloud") if telemetry else HttpClient)
        self._locks = ServerLocks()
        self._readiness = Readiness()
        self._sink = new_sink(settings.sink, self._clouds.topic(), telemetry)

    @cached_property
    def _threads(self) -> ThreadPoolExecutor:
        # Created on first use, so that a server that forks after loading the function has them in the right process.
        return ThreadPoolExecutor(self.settings.concurrency, thread_name_prefix="cloud")

    def for_call(self, settings: KeepSettings) -> KeepService:
        """Return a service for one call that differs in `login` and `deadline`; threads and locks are shared."""
        # Created now, so that the copy has them.
        _ = self._threads
        other = copy.copy(self)
        other.settings = settings
        if settings.login is not self.settings.login:
            other._clouds = MetadataClouds(settings, client=self._clouds.client)
            if settings.result_topic is not None:
                other._sink = new_sink(settings.sink, other._clouds.topic(), self._telemetry)
        return other

    def log_started(self) -> None:
        """Log what this process serves, for readers who do not know its settings."""
        settings = self.settings
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
        return KeepEndpoint(self.settings, self.handle, self.ready, on_skip, self._readiness)

    def ready(self) -> None:
        """Raise unless the login works and the cloud's URL is known."""
        self._clouds.ready(READY_TIMEOUT)

    def _event(self, report: KeepReport) -> CloudEvent:
        return keep_result_event(report, source=self.settings.source, extensions=self.settings.extensions)

    def _log(self, report: KeepReport, event_type: str) -> None:
        log_keep_report(report, event_type)

    def _reports(self, requests: Sequence[KeepRequest], deadline: float) -> list[KeepReport]:
        with ThreadPoolExecutor(min(BATCH_WIDTH, len(requests)), thread_name_prefix="event") as events:
            # All are prepared before the first write, so that the servers of the whole batch are counted.
            looked_up = list(events.map(lambda request: self._prepare(request, deadline), requests))
            prepared = refuse_too_many(looked_up, self.settings.policy.limits)
            return list(events.map(self._report, requests, prepared, repeat(deadline)))

    def _prepare(self, request: KeepRequest, deadline: float) -> PreparedRequest[KeepRequest]:
        executor: ThreadExecutor[Any] = ThreadExecutor(self._threads)
        return prepare(
            request,
            self.settings.policy,
            self._clouds.reader(),
            executor,
            deadline=deadline,
            on_failure=FailedCalls(request),
        )

    def _report(self, request: KeepRequest, prepared: PreparedRequest[KeepRequest], deadline: float) -> KeepReport:
        return self._observed(request, self._threads, partial(self._run, prepared, deadline))

    def _run(self, prepared: PreparedRequest[KeepRequest], deadline: float, threads: Executor) -> KeepReport:
        dry_run = prepared.request.dry_run or self.settings.policy.limits.dry_run

        def on_result(server: KeepResult) -> None:
            log_keep_server(prepared.request, server)
            if self._telemetry is not None:
                self._telemetry.server(server)

        return run(
            prepared,
            self.settings.policy,
            self._clouds.reader(),
            None if dry_run else self._clouds.writer(),
            threads,
            self._clock,
            self._locks,
            deadline=deadline,
            on_result=on_result,
            on_failure=FailedCalls(prepared.request),
        )
