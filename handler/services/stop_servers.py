"""The composition root of `stop_servers`: from settings to an endpoint."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import cached_property, partial
from typing import TYPE_CHECKING

from cloudevents.http import CloudEvent

from handler.cloud.connect import Clouds
from handler.http_client import HttpClient, host_of
from handler.inbound.endpoints.stop_servers import StopEndpoint
from handler.inbound.readiness import Readiness
from handler.outbound import logs
from handler.outbound.result import result_event
from handler.services.events import BATCH_WIDTH, READY_TIMEOUT, EventService, new_sink
from handler.services.runs import Runs
from handler.settings.stop_servers import AnnounceMode, Settings
from handler.stop.calls import CompletedCall
from handler.stop.executor import ThreadExecutor
from handler.stop.model import Report, ServerResult, StopRequest
from handler.stop.ports import Hooks
from handler.stop.prepare import PreparedRequest, prepare, refuse_too_many
from handler.stop.run import run
from handler.stop.stop_limit import LimitedCloud, Reservation, StopLimit

if TYPE_CHECKING:
    from handler.outbound.announcement import Announcer
    from handler.outbound.sink import Sink
    from handler.outbound.smn_sink import TopicSink
    from handler.telemetry import Telemetry


def _http_threads() -> int:
    """Return the number of functions-framework's threads: `THREADS`, or four for each processor."""
    threads = os.environ.get("THREADS", "")
    return int(threads) if threads.isascii() and threads.isdigit() else (os.cpu_count() or 1) * 4


class SharedResources:
    """What all calls of one process share: threads, connections, runs, the stop limit, readiness and telemetry.

    Args:
        settings: of the process; a call may have a login, a deadline and a policy of its own.
        monotonic: the clock, in seconds.
        telemetry: None if it is off.
    """

    def __init__(
        self,
        settings: Settings,
        monotonic: Callable[[], float] = time.monotonic,
        telemetry: Telemetry | None = None,
    ) -> None:
        self.settings = settings
        self.monotonic = monotonic
        self.telemetry = telemetry
        self.clouds = Clouds(settings, new_client=telemetry.http_client("cloud") if telemetry else HttpClient)
        self.sink = new_sink(settings.sink, self.clouds.topic(), telemetry)
        self.runs = Runs(max(1, _http_threads() // 4), monotonic)
        limit = settings.stop_limit
        self.stop_limit = (
            StopLimit(limit.servers, limit.window.total_seconds(), monotonic) if limit is not None else None
        )
        self.readiness = Readiness()

    @cached_property
    def threads(self) -> ThreadPoolExecutor:
        """The threads that call the cloud."""
        # Created on first use, so that a server that forks after loading the function has them in the right process.
        return ThreadPoolExecutor(self.settings.concurrency, thread_name_prefix="cloud")

    def log_started(self) -> None:
        """Log what this process serves, for readers who do not know its settings."""
        settings, limit = self.settings, self.settings.stop_limit
        logs.log_started(
            "stop_servers",
            api=settings.api.value,
            dry_run=settings.policy.dry_run,
            inbound_auth=settings.callers.inbound_auth.value,
            sink=host_of(settings.sink.url) if settings.sink else settings.result_topic,
            stop_limit=f"{limit.servers}/{limit.window.total_seconds():g}s" if limit else None,
            announce=settings.announce.value,
        )


class Service(EventService[StopRequest, Report]):
    """Handles the events of calls with the same settings, login and sink: of one call, or of all of a process.

    Args:
        settings: those of the process, or the same except for `login`, `deadline` and `policy`.
        shared: what the process shares; None to create it.
    """

    settings: Settings

    def __init__(self, settings: Settings, shared: SharedResources | None = None) -> None:
        self.settings = settings
        self._shared = shared = shared or SharedResources(settings)
        self._telemetry = shared.telemetry
        self._clouds, self._sink = shared.clouds, shared.sink
        if settings.login is not shared.settings.login:
            self._clouds = Clouds(settings, shared.monotonic, shared.clouds.client)
            if settings.result_topic is not None:
                self._sink = new_sink(settings.sink, self._clouds.topic(), self._telemetry)
        self._announcer = _announcer(settings, self._sink, shared)

    def endpoint(self) -> StopEndpoint:
        """Return the endpoint of `stop_servers`."""
        ignored = self._telemetry.ignored if self._telemetry else None
        return StopEndpoint(self.settings, self.handle, self.ready, ignored, self._shared.readiness)

    def ready(self) -> None:
        """Raise unless the login works and the cloud's URL is known."""
        self._clouds.endpoint.url(READY_TIMEOUT)

    def _event(self, report: Report) -> CloudEvent:
        return result_event(report, source=self.settings.source, extensions=self.settings.extensions)

    def _log(self, report: Report, event_type: str) -> None:
        logs.log_report(report, event_type)

    def report(self, request: StopRequest, deadline: float) -> Report:
        """Handle one event before the deadline, on the monotonic clock.

        Raises:
            RetryableError: the event must be sent again.
        """

        def report(threads: Executor) -> Report:
            def run() -> Report:
                (prepared,) = self._reviewed([self._prepare(request, deadline, threads)])
                return self._run(prepared, deadline, threads)

            # From this delivery's run, or from that of another delivery of the event.
            return self._shared.runs.report(request, deadline, run)

        return self._observed(request, self._shared.threads, report)

    def _dry_run(self, request: StopRequest) -> bool:
        return request.dry_run or self.settings.policy.dry_run

    def _prepare(self, request: StopRequest, deadline: float, threads: Executor) -> PreparedRequest[StopRequest]:
        executor: ThreadExecutor[CompletedCall] = ThreadExecutor(threads)
        failed = logs.FailedCalls(request)
        asked = request
        if request.plan is not None:
            from handler.services.approvals import approved

            now = executor.now()
            request, refusal = approved(request, self.settings.approval, self.settings.source, now)
            if refusal is not None:
                return PreparedRequest(asked, request, now, refusal)
        cloud = self._clouds.cloud(dry_run=self._dry_run(request))
        prepared = prepare(request, self.settings.policy, cloud, executor, deadline=deadline, on_failure=failed)
        return prepared._replace(asked=asked) if asked is not request else prepared

    def _reviewed(self, prepared: Sequence[PreparedRequest[StopRequest]]) -> Sequence[PreparedRequest[StopRequest]]:
        """Turn the events of one delivery that need an approval into plans.

        Raises:
            ApprovalNotConfigured: there is no key to sign a plan with.
        """
        approval = self.settings.approval
        servers = len({id_ for one in prepared if one.refusal is None for id_ in one.request.server_ids})
        reviewed = []
        for one in prepared:
            needed = approval.needed(one.request.approval, servers)
            if needed and one.refusal is None and one.asked.plan is None and not self._dry_run(one.request):
                from handler.services.approvals import to_be_planned

                one = one._replace(request=to_be_planned(one.request, needed, approval))
            reviewed.append(one)
        return reviewed

    def _run(self, prepared: PreparedRequest[StopRequest], deadline: float, threads: Executor) -> Report:
        request = prepared.request
        dry_run = self._dry_run(request)
        # A plan sends nothing either; only an approval has a review that lets a stop pass.
        planned = request.review is not None and request.plan is None
        cloud = self._clouds.cloud(dry_run=dry_run or planned)
        executor: ThreadExecutor[CompletedCall] = ThreadExecutor(threads)
        limit = self._shared.stop_limit
        writes = not (dry_run or planned)
        reservation = Reservation(limit) if limit is not None and writes else None
        announcer = self._announcer if writes else None

        def on_result(server: ServerResult) -> None:
            # Logged at once, so that it is not lost if the run fails later.
            logs.log_server(request, server)
            if self._telemetry is not None:
                self._telemetry.server(server)

        try:
            report = run(
                prepared,
                self.settings.policy,
                LimitedCloud(cloud, reservation) if reservation is not None else cloud,
                executor,
                deadline=deadline,
                # A few more than threads, so that none of them waits for the next decision.
                width=self.settings.concurrency * 5 // 4,
                dry_run=dry_run,
                hooks=Hooks(
                    on_result,
                    reservation.reserve if reservation is not None else lambda _: None,
                    logs.FailedCalls(request),
                    partial(announcer.announce, request, deadline) if announcer is not None else None,
                ),
            )
            if planned:
                from handler.services.approvals import with_plan

                report = with_plan(report, self.settings.approval, self.settings.source)
            return report
        finally:
            if reservation is not None:
                reservation.release()

    def _reports(self, requests: Sequence[StopRequest], deadline: float) -> list[Report]:
        if len(requests) == 1:
            return [self.report(requests[0], deadline)]
        with ThreadPoolExecutor(BATCH_WIDTH, thread_name_prefix="event") as events:
            # All are prepared before the first stop, so that the servers of the whole batch are counted.
            looked_up = events.map(lambda request: self._prepare(request, deadline, self._shared.threads), requests)
            prepared = self._reviewed(refuse_too_many(list(looked_up), self.settings.policy))

            return list(events.map(lambda one: self._batch_report(one, deadline), prepared))

    def _batch_report(self, one: PreparedRequest[StopRequest], deadline: float) -> Report:
        def report(threads: Executor) -> Report:
            def run() -> Report:
                return self._run(one, deadline, threads)

            # A refusal because of the batch is not a result for a delivery of that event alone.
            return run() if one.refusal is not None else self._shared.runs.report(one.asked, deadline, run)

        return self._observed(one.asked, self._shared.threads, report)


def _announcer(settings: Settings, sink: Sink | TopicSink | None, shared: SharedResources) -> Announcer | None:
    """What announces stops; None if that is off."""
    if settings.announce is AnnounceMode.OFF or sink is None:
        return None
    from handler.outbound.announcement import Announcer

    return Announcer(
        sink,
        required=settings.announce is AnnounceMode.REQUIRED,
        source=settings.source,
        extensions=settings.extensions,
        on_outcome=shared.telemetry.announced if shared.telemetry else None,
        monotonic=shared.monotonic,
    )
