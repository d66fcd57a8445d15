"""The seam for OpenTelemetry: what the rooms tell of themselves. Nothing in this folder is loaded unless it is wanted.

Whoever may be watched is given a `Telemetry` or None; what it does is in the other files here.
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
    """What is told. No method waits for anything, and none raises."""

    def install(self, app: Any, routes: Iterable[str]) -> None:
        """Have each request to a Flask application measured; these paths are told apart."""
        ...

    def http_client(self, peer: str) -> Callable[..., HttpClient]:
        """Return what makes HTTP clients for `cloud` or `sink` whose calls are measured."""
        ...

    def executor(self, executor: Executor) -> Executor:
        """The executor, whose calls belong to the event that is current where they are submitted."""
        ...

    def events(self, requests: Sequence[StopRequest] | Sequence[KeepRequest]) -> AbstractContextManager[None]:
        """The time in which the events of one HTTP request are handled; what is raised in it is their trouble."""
        ...

    def event(self, request: StopRequest | KeepRequest) -> AbstractContextManager[None]:
        """The time in which one of them is current in this thread."""
        ...

    def server(self, result: ServerResult | KeepResult) -> None:
        """What came of a server of the current event."""
        ...

    def report(self, report: Report | KeepReport) -> None:
        """What came of the current event."""
        ...

    def ignored(self, type_: str, why: str) -> None:
        """An event that was rightly not acted on."""
        ...
