"""Measurement of the requests to a WSGI application."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from handler.telemetry.instruments import Attributes, Key
from handler.telemetry.providers import Signals

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT"})


class MeasuredApp:
    """WSGI middleware that measures each request.

    Args:
        routes: the paths that become labels; any other path is untrusted input, and must not.
    """

    def __init__(
        self,
        app: WSGIApplication,
        signals: Callable[[], Signals],
        routes: frozenset[str],
    ) -> None:
        self._app = app
        self._signals = signals
        self._routes = routes

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve a request, and record its duration and status."""
        began = time.monotonic()
        method, path = str(environ.get("REQUEST_METHOD", "")), str(environ.get("PATH_INFO", ""))
        labels: Attributes = {
            Key.METHOD: method if method in _METHODS else "_OTHER",
            Key.SCHEME: str(environ.get("wsgi.url_scheme", "http")),
        }
        if path in self._routes:
            labels[Key.ROUTE] = path

        def started(status: str, headers: list[tuple[str, str]], *more: Any) -> Callable[[bytes], object]:
            labels[Key.STATUS] = int(status[:3])
            return start_response(status, headers, *more)

        return self._measured(self._app(environ, started), labels, began)

    def _measured(self, body: Iterable[bytes], labels: Attributes, began: float) -> Iterator[bytes]:
        try:
            yield from body
        finally:
            if hasattr(body, "close"):
                body.close()
            status = labels.setdefault(Key.STATUS, 500)
            if isinstance(status, int) and status >= 500:
                labels[Key.ERROR] = str(status)
            self._signals().instruments.request(labels, time.monotonic() - began)
