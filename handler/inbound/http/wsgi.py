"""WSGI middleware that keeps from the framework what it does not handle safely.

functions-framework answers 404 on two paths and a redirect for doubled slashes, reads a body of any length into
memory after the function has answered, and shows an exception's text on its 500 page. None of that happens to the
requests that this module passes on. What gunicorn leaves unbounded is bounded in `server_limits`.
"""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from http import HTTPStatus
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from handler.errors import AutostopError, BadEvent, BodyIncomplete, ShuttingDown, TooLarge, Violation
from handler.inbound.http import responses
from handler.inbound.http.request import HttpRequest
from handler.inbound.http.responses import Answer

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from handler.inbound.http.server_limits import Exchange

_KEY = "autostop.request"

shutting_down = threading.Event()
"""Set after SIGTERM: the process finishes the events that it has begun, and begins no more.

gunicorn alone works off what it has accepted, however long the queue, and clients that connect meanwhile wait until the
end. A client that is answered 503 at once can go elsewhere.
"""


class Middleware:
    """Wraps the framework's WSGI application; `request_of` returns the whole request to the function.

    `flush` is called before a response is sent, to write what was logged until then.
    """

    def __init__(self, app: WSGIApplication, max_body: int, flush: Callable[[], None] = lambda: None) -> None:
        self._app = app
        self._max_body = max_body
        self._flush = flush

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Pass a plain request on to the framework; the body of the real one is read on first access."""
        body = _Body(environ, self._max_body)
        try:
            if shutting_down.is_set() and environ.get("PATH_INFO") != "/healthz":
                raise ShuttingDown("This process is being ended.", retry_after=1.0)
            return self._app(_plain(environ, body), start_response)
        except AutostopError as error:
            return _send(responses.refused(error), environ, start_response)
        finally:
            # A function has answered when its application returns. Where the next request begins is not known if
            # the body was not read, and to read it now would let an unauthenticated client occupy a thread.
            if not body.complete and (exchange := _exchange(environ)) is not None:
                exchange.close()
            self._flush()


class _Body:
    """The body of a request: read once, on first access, within bounds."""

    def __init__(self, environ: WSGIEnvironment, max_body: int) -> None:
        self._environ = environ
        self._max_body = max_body
        self._announced = _announced(environ)
        self._read: bytes | AutostopError | None = None
        chunked = environ.get("wsgi.input_terminated") and "HTTP_TRANSFER_ENCODING" in environ
        if not self._announced and not chunked:
            self._read = b""

    @property
    def complete(self) -> bool:
        """Whether nothing of it is left on the connection."""
        return isinstance(self._read, bytes)

    def __call__(self, within: float) -> bytes:
        """Return the body, as `HttpRequest.body`; read it within so many seconds, if it was not read before."""
        if self._read is None:
            try:
                self._read = self._bounded(within)
            except AutostopError as error:
                self._read = error
        if isinstance(self._read, AutostopError):
            raise self._read
        return self._read

    def _bounded(self, within: float) -> bytes:
        announced = self._announced
        too_large = TooLarge(f"At most {self._max_body} bytes are taken.")
        if announced is not None and announced > self._max_body:
            raise too_large
        most = self._max_body + 1 if announced is None else announced
        exchange, stream = _exchange(self._environ), self._environ["wsgi.input"]
        try:
            body: bytes = exchange.read(most, within) if exchange is not None else stream.read(most)
        except TimeoutError:
            raise BodyIncomplete("The body did not arrive in time.") from None
        except ConnectionError:
            raise BodyIncomplete("The connection ended inside the body.") from None
        except OSError:
            raise BadEvent(Violation("body", "must be complete and correctly framed")) from None
        if len(body) > self._max_body:
            raise too_large
        if announced is not None and len(body) < announced:
            raise BodyIncomplete("The body ended before its announced length.")
        return body


def request_of(environ: Mapping[str, Any]) -> HttpRequest:
    """Return the request that the middleware has put into the WSGI environment."""
    found = environ[_KEY]
    assert isinstance(found, HttpRequest)
    return found


def install(
    app: Any, max_body: int, longest: timedelta = timedelta(0), flush: Callable[[], None] = lambda: None
) -> None:
    """Install the middleware in a Flask application, and the limits in gunicorn; see `server_limits.install`.

    Raises:
        SystemExit: the server is configured in a way in which the limits cannot hold.
    """
    app.wsgi_app = Middleware(app.wsgi_app, max_body, flush)
    if find_spec("gunicorn") is None:
        # Without gunicorn (Windows) functions-framework serves with Flask's development server.
        return
    from handler.inbound.http import server_limits

    server_limits.install(longest)


def _plain(environ: WSGIEnvironment, body: _Body) -> WSGIEnvironment:
    return {
        **environ,
        _KEY: _request(environ, body),
        "PATH_INFO": "/",
        "SCRIPT_NAME": "",
        "QUERY_STRING": "",
        "HTTP_HOST": "localhost",
        # Werkzeug would answer a request for a WebSocket with a page of its own.
        "HTTP_UPGRADE": "",
        # The framework reads what is left of the body; the function has the body from the request.
        "CONTENT_LENGTH": "0",
        "wsgi.input": io.BytesIO(),
    }


def _request(environ: WSGIEnvironment, body: _Body) -> HttpRequest:
    headers = {
        key[5:].replace("_", "-").lower(): str(value) for key, value in environ.items() if key.startswith("HTTP_")
    }
    if environ.get("CONTENT_TYPE"):
        headers["content-type"] = str(environ["CONTENT_TYPE"])
    exchange = _exchange(environ)
    return HttpRequest(
        method=str(environ.get("REQUEST_METHOD", "")).upper(),
        path=str(environ.get("PATH_INFO", "")),
        query=str(environ.get("QUERY_STRING", "")),
        headers=headers,
        content=body,
        received=time.monotonic() if exchange is None else exchange.received,
    )


def _exchange(environ: WSGIEnvironment) -> Exchange | None:
    """Return the server's side of the request; None with another server than ours."""
    return getattr(environ.get("wsgi.input"), "exchange", None)


def _announced(environ: WSGIEnvironment) -> int | None:
    text = str(environ.get("CONTENT_LENGTH") or "")
    if not (text.isascii() and text.isdigit()):
        return None
    # Python refuses to read a number of thousands of digits; this one is above any limit.
    return int(text) if len(text) < 19 else 10**18


def _send(answer: Answer, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    headers = [*answer.headers.items(), ("Content-Length", str(len(answer.body)))]
    start_response(f"{answer.status} {HTTPStatus(answer.status).phrase}", headers)
    return [answer.body] if environ.get("REQUEST_METHOD") != "HEAD" else []
