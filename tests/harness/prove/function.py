"""The real function on held hands: its door, service, run, login and clients, with the clock and the wire swapped."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest import mock

from handler.inbound.http.request import HttpRequest
from handler.inbound.http.responses import Answer
from handler.outbound.sink import Sink
from handler.services import stop_servers
from handler.settings import stop_servers as stop_settings
from handler.settings.common import SinkSettings
from tests.harness.prove import fibers
from tests.harness.prove.clock import Clock
from tests.harness.prove.wire import SinkWire, Wire

SINK = "http://sink.test/results"


class FakeExecutor:
    """A crew whose calls are made in turn by the run itself, with a pause before and after each.

    In what order calls are made, and in what order their answers are seen, is the fiber's choice.
    """

    def __init__(self, clock: Clock) -> None:
        self.now, self.monotonic = clock.now, clock.monotonic
        self._clock = clock
        self._waiting: list[Callable[[], Any]] = []
        self._ended: list[Any] = []

    def start(self, call: Callable[[], Any]) -> None:
        """Keep the call until the run waits."""
        self._waiting.append(call)

    def next(self, timeout: float) -> Any:
        """Make one call or more and return what one of them brought; if there is none, let the time pass."""
        fiber = fibers.current()
        if not self._waiting and not self._ended:
            # A little more, or rounding might leave the run waiting for the last bit for ever.
            fibers.sleep(self._clock, timeout + 1e-6)
            return None
        fibers.pause()
        while self._waiting and (not self._ended or fiber.choose(2)):
            self._ended.append(self._waiting.pop(fiber.choose(len(self._waiting)))())
            fibers.pause()
        return self._ended.pop(fiber.choose(len(self._ended)))


class Function:
    """One instance of the function.

    Args:
        sink: whether results go to a sink instead of into the answers.
    """

    def __init__(
        self,
        login: Mapping[str, str],
        extra: Mapping[str, str],
        clock: Clock,
        wire: Wire,
        sink_wire: SinkWire,
        sink: bool,
    ) -> None:
        environ = {"AUTOSTOP_INBOUND_AUTH": "none", **login, **extra}
        if sink:
            environ["AUTOSTOP_RESULT_SINK"] = SINK
        self._clock = clock
        settings = stop_settings.from_environ(environ)
        shared = stop_servers.SharedResources(settings, clock.monotonic)
        clouds = shared.clouds
        # The parts of a service that look at a clock of their own get this one, and the wire.
        for part in (clouds.login, clouds.http):
            part._monotonic = clock.monotonic
            part._client = wire  # type: ignore[union-attr]
        if sink:
            shared.sink = sink = Sink(SinkSettings(SINK), sleep=clock.advance, monotonic=clock.monotonic)
            sink._client = sink_wire
        # Its fibers cannot wait for each other, so each delivery has a run of its own.
        shared.runs.report = lambda *call: call[-1]()  # type: ignore[method-assign]
        self._door = stop_servers.Service(settings, shared).endpoint()

    def answer(self, headers: Mapping[str, str], body: bytes) -> Answer:
        """Answer one POST. To be called in a fiber."""
        return self._door.answer(HttpRequest("POST", "/", headers, body, self._clock.monotonic()))


def _crew(clock: Clock, _executor: object) -> FakeExecutor:
    return FakeExecutor(clock)


@contextmanager
def held_hands(clock: Clock) -> Iterator[None]:
    """Within this block each service works with fibers in place of threads, and logs nothing."""
    logger = logging.getLogger("handler")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with (
            mock.patch.object(stop_servers, "ThreadExecutor", partial(_crew, clock)),
            mock.patch.object(stop_servers, "ThreadPoolExecutor", fibers.Pool),
        ):
            yield
    finally:
        logger.setLevel(level)
