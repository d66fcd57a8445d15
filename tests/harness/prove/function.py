"""The real function in simulated time: its endpoint, service, login and clients, with clock and network replaced."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import count
from random import Random
from types import SimpleNamespace
from typing import Any
from unittest import mock
from uuid import UUID

from handler.cloud import bms, nova, servers
from handler.cloud.auth import keystone
from handler.inbound.endpoints import stop_servers as endpoint
from handler.inbound.extract import approved, selector
from handler.inbound.extract.dispatch import extract
from handler.inbound.http.request import HttpRequest
from handler.inbound.http.responses import Answer
from handler.outbound import announcement
from handler.outbound.sink import Sink
from handler.services import approvals, events, stop_servers
from handler.services.runs import Runs
from handler.settings import stop_servers as stop_settings
from handler.settings.common import SinkSettings
from handler.stop.model import Report, StopRequest
from tests.harness.prove import scheduler
from tests.harness.prove.command import Command
from tests.harness.prove.network import CloudClient, SinkClient
from tests.harness.prove.scheduler import Clock

SINK = "http://sink.test/results"
# What the function imports only when it needs it. Hypothesis draws from the constants of the project's modules that are
# loaded, so all are loaded before the first environment: else a round would depend on the rounds before it.
LOADED_LATE = (announcement, approvals, approved, bms, keystone, nova, selector)
# Deliveries that may wait for the run of another one, at a time.
_MAX_WAITING = 1

_processes = count()


class CooperativeExecutor:
    """An executor whose calls are made in turn by the run itself, with a pause before and after each.

    In which order calls are made, and in which order their answers are seen, is the task's choice.
    """

    def __init__(self, clock: Clock, _threads: object) -> None:
        self.now, self.monotonic = clock.now, clock.monotonic
        self._clock = clock
        self._waiting: list[Callable[[], Any]] = []
        self._completed: list[Any] = []

    def start(self, call: Callable[[], Any]) -> None:
        """Keep the call until the run waits."""
        self._waiting.append(call)

    def next(self, timeout: float) -> Any:
        """Make one call or more and return the result of one of them; if there is none, let the time pass."""
        task = scheduler.current()
        if not self._waiting and not self._completed:
            # A little more, or rounding might leave the run waiting for the last bit for ever.
            scheduler.sleep(self._clock, timeout + 1e-6)
            return None
        scheduler.pause()
        while self._waiting and (not self._completed or task.choose(2)):
            self._completed.append(self._waiting.pop(task.choose(len(self._waiting)))())
            scheduler.pause()
        return self._completed.pop(task.choose(len(self._completed)))


class _Inline:
    """Takes the place of the thread that posts an announcement: it does so at once, in the task of its run."""

    def __init__(self, target: Callable[..., None], args: tuple[Any, ...], **_: object) -> None:
        self.start = partial(target, *args)


class _RecordedRuns(Runs):
    """The runs of a process, which note the command whose run a delivery shares."""

    def __init__(self, clock: Clock, tasks: scheduler.Scheduler, on_shared: Callable[[], None]) -> None:
        super().__init__(_MAX_WAITING, clock.monotonic, tasks.wait)
        self._on_shared = on_shared
        self._by_report: dict[int, tuple[Report, Command]] = {}

    def report(self, request: StopRequest, deadline: float, run: Callable[[], Report]) -> Report:
        command: Command = scheduler.current().command

        def recorded() -> Report:
            report = run()
            self._by_report[id(report)] = report, command
            return report

        report = super().report(request, deadline, recorded)
        command.run_by = self._by_report[id(report)][1]
        if command.run_by is not command:
            self._on_shared()
        return report


class Function:
    """One process of the function.

    Args:
        sink: whether results go to a sink instead of into the answers.
        on_shared: called when a delivery shares the run of another one.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        clock: Clock,
        tasks: scheduler.Scheduler,
        cloud_client: CloudClient,
        sink_client: SinkClient,
        sink: bool,
        on_shared: Callable[[], None],
    ) -> None:
        self.process = next(_processes)
        environ = {"AUTOSTOP_INBOUND_AUTH": "none", **environ}
        if sink:
            environ["AUTOSTOP_RESULT_SINK"] = SINK
        self._clock = clock
        settings = stop_settings.from_environ(environ)
        shared = stop_servers.SharedResources(settings, clock.monotonic)
        clouds = shared.clouds
        # The parts of a service that read a clock of their own get this one, and the network.
        for part in (clouds.login, clouds.http):
            part._monotonic = clock.monotonic
            part._client = cloud_client  # type: ignore[union-attr]
        if sink:
            shared.sink = result_sink = Sink(SinkSettings(SINK), sleep=clock.advance, monotonic=clock.monotonic)
            result_sink._client = sink_client
        shared.runs = _RecordedRuns(clock, tasks, on_shared)
        service = stop_servers.Service(settings, shared)
        if service._announcer is not None:
            service._announcer._now = clock.now
        self._endpoint = service.endpoint()

    def answer(self, headers: Mapping[str, str], body: bytes) -> Answer:
        """Answer one POST. To be called in a task."""
        return self._endpoint.answer(HttpRequest("POST", "/", headers, body, self._clock.monotonic()))


@contextmanager
def simulated_time(clock: Clock) -> Iterator[None]:
    """Within this block each service runs in tasks in place of threads and reads this clock.

    The ids that the simulated cloud makes up are the same in each block, and nothing is logged.
    """
    logger = logging.getLogger("handler")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    numbers = Random(0)

    def uuid4() -> UUID:
        return UUID(int=numbers.getrandbits(128), version=4)

    with ExitStack() as patches:
        patches.callback(logger.setLevel, level)
        for patch in (
            mock.patch.object(stop_servers, "ThreadExecutor", partial(CooperativeExecutor, clock)),
            mock.patch.object(stop_servers, "ThreadPoolExecutor", scheduler.TaskPool),
            mock.patch.object(events, "ThreadPoolExecutor", scheduler.TaskPool),
            mock.patch.object(announcement, "threading", SimpleNamespace(Thread=_Inline)),
            mock.patch.object(endpoint, "extract", lambda event, types: extract(event, types, clock.now())),
            mock.patch.object(servers, "monotonic", clock.monotonic),
            mock.patch("uuid.uuid4", uuid4),
        ):
            patches.enter_context(patch)
        yield
