"""The interface to OpenTelemetry. The other modules of this package are loaded only if telemetry is switched on.

What can be observed is given a `Telemetry` or None.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from typing import Any, Protocol

from handler.http_client import HttpClient
from handler.keep.model import KeepReport, KeepRequest, KeepResult
from handler.stop.model import Report, ServerResult, StopRequest


class Telemetry(Protocol):
    """Observes the handling of events. No method blocks, and none raises."""

    def install(self, app: Any, routes: Iterable[str]) -> None:
        """Measure each request to a Flask application; these paths become labels."""
        ...

    def http_client(self, peer: str) -> Callable[..., HttpClient]:
        """Return a constructor of HTTP clients for `cloud` or `sink` whose calls are measured."""
        ...

    def executor(self, executor: Executor) -> Executor:
        """Return the executor so that its calls belong to the event that is current where they are submitted."""
        ...

    def events(self, requests: Sequence[StopRequest] | Sequence[KeepRequest]) -> AbstractContextManager[None]:
        """Observe the handling of the events of one HTTP request in a `with` block; what it raises is their error."""
        ...

    def event(self, request: StopRequest | KeepRequest) -> AbstractContextManager[None]:
        """Make one of them current in this thread in a `with` block."""
        ...

    def server(self, result: ServerResult | KeepResult) -> None:
        """Record the result of a server of the current event."""
        ...

    def report(self, report: Report | KeepReport) -> None:
        """Record the result of the current event."""
        ...

    def announced(self, delivered: bool) -> None:
        """Whether the announcement of an event's stops was delivered."""
        ...

    def ignored(self, type_: str, why: str) -> None:
        """Record an event that asked for nothing."""
        ...
