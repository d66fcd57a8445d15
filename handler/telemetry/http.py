"""Measured HTTP: calls, which are spans while an event is handled, and requests to a WSGI application."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from opentelemetry.trace import SpanKind, Status, StatusCode

from handler.http_client import HttpClient, HttpResponse
from handler.stop.model import UUID
from handler.telemetry.event_span import current
from handler.telemetry.instruments import CALLS, REQUESTS, Attributes, Key
from handler.telemetry.providers import Signals

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT"})
_PROJECT = re.compile("[0-9a-f]{32}", re.ASCII)
_PORTS = {"http": 80, "https": 443}


def template(path: str) -> str:
    """Return a path of the cloud with names in place of ids, so that the same calls have the same name."""
    parts = path.split("/")
    for place, part in enumerate(parts):
        if place and parts[place - 1] == "jobs":
            parts[place] = "{job_id}"
        elif UUID.fullmatch(part):
            parts[place] = "{server_id}"
        elif _PROJECT.fullmatch(part):
            parts[place] = "{project_id}"
    return "/".join(parts)


class MeasuredHttpClient(HttpClient):
    """Sends as `HttpClient` does.

    Args:
        peer: `cloud` or `sink`. Only the cloud's paths are recorded: that of a sink may be secret.
        options: as for `HttpClient`.
    """

    def __init__(self, signals: Callable[[], Signals], peer: str, **options: Any) -> None:
        super().__init__(**options)
        self._signals = signals
        self._peer = peer

    def send(
        self, method: str, url: str, *, headers: Mapping[str, str], timeout: float, **options: Any
    ) -> HttpResponse:
        """Send one request as `HttpClient.send`, and measure it."""
        tracer, instruments = self._signals()
        parts = urlsplit(url)
        attributes: Attributes = {
            Key.METHOD: method,
            Key.ADDRESS: parts.hostname or "",
            Key.PORT: parts.port or _PORTS.get(parts.scheme, 0),
        }
        recorded: Attributes = dict(attributes)
        name = method
        if self._peer == "cloud":
            # Without query and credentials, which a URL of a catalogue may have.
            shown = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
            pattern = template(parts.path)
            recorded |= {"url.full": shown, "url.template": pattern}
            name = f"{method} {pattern}"
        attributes[Key.PEER] = self._peer
        event_span, span = current(), None
        if event_span is not None:
            server = UUID.search(parts.path) if self._peer == "cloud" and "servers/" in parts.path else None
            parent = event_span.server(server[0]) if server else event_span.context
            span = tracer.start_span(name, parent, SpanKind.CLIENT, recorded)
        began = time.monotonic()
        try:
            answer = super().send(method, url, headers=headers, timeout=timeout, **options)
        except BaseException as failure:
            attributes[Key.ERROR] = type(failure).__name__
            raise
        else:
            attributes[Key.STATUS] = answer.status
            if answer.status >= 400:
                attributes[Key.ERROR] = str(answer.status)
            return answer
        finally:
            instruments.record(CALLS, attributes, time.monotonic() - began)
            if span is not None:
                span.set_attributes({key: attributes[key] for key in (Key.STATUS, Key.ERROR) if key in attributes})
                if Key.ERROR in attributes:
                    span.set_status(Status(StatusCode.ERROR))
                span.end()


def measured(app: WSGIApplication, signals: Callable[[], Signals], routes: frozenset[str]) -> WSGIApplication:
    """Return the application so that the duration and the status of each request are recorded.

    Args:
        app: the application.
        signals: returns where metrics go.
        routes: the paths that become labels; any other path is untrusted input, and must not.
    """

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        began = time.monotonic()
        method, path = str(environ.get("REQUEST_METHOD", "")), str(environ.get("PATH_INFO", ""))
        labels: Attributes = {
            Key.METHOD: method if method in _METHODS else "_OTHER",
            Key.SCHEME: str(environ.get("wsgi.url_scheme", "http")),
        }
        if path in routes:
            labels[Key.ROUTE] = path

        def started(status: str, headers: list[tuple[str, str]], *more: Any) -> Callable[[bytes], object]:
            labels[Key.STATUS] = int(status[:3])
            return start_response(status, headers, *more)

        return body_of(app(environ, started), labels, began)

    def body_of(body: Iterable[bytes], labels: Attributes, began: float) -> Iterator[bytes]:
        try:
            yield from body
        finally:
            if hasattr(body, "close"):
                body.close()
            status = labels.setdefault(Key.STATUS, 500)
            if isinstance(status, int) and status >= 500:
                labels[Key.ERROR] = str(status)
            signals().instruments.record(REQUESTS, labels, time.monotonic() - began)

    return answer
