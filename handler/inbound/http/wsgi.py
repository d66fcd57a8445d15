"""The WSGI front: makes what any byte on the wire can do to the framework harmless before it gets there.

functions-framework answers 404 on two paths and a redirect for doubled slashes, reads a body of any length into
memory after the function has answered, and shows an exception's text on its 500 page; gunicorn's own error page
quotes the request. Each of these is seen to here, and the function stays a plain `http` one.
"""

from __future__ import annotations

import contextlib
import io
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from handler.errors import AutostopError, BadEvent, BodyIncomplete, InternalFault, ShuttingDown, TooLarge, Violation
from handler.inbound.http import responses, shutdown
from handler.inbound.http.request import HttpRequest
from handler.inbound.http.responses import Answer

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_KEY = "autostop.request"
# A sender that stands still in the middle of a body holds a thread for no longer than this.
_BODY_TIMEOUT = 20.0
# Of a body that is too large, so much is still taken after the answer.
_MOST_DROPPED = 16 * 1024 * 1024
_DROP_TIMEOUT = 2.0
_REASONS = {
    200: "OK",
    204: "No Content",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    405: "Method Not Allowed",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    503: "Service Unavailable",
}


class Front:
    """Wraps the framework's WSGI application; the function finds the whole request in the WSGI environment."""

    def __init__(self, app: WSGIApplication, max_body: int) -> None:
        self._app = app
        self._max_body = max_body

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Read the body within bounds, then let the framework route a request that cannot surprise it."""
        try:
            request = self._request(environ)
        except AutostopError as error:
            sent = _send(responses.refused(error), environ, start_response)
            return _then_drop_rest(sent, environ) if isinstance(error, TooLarge | ShuttingDown) else sent
        plain: WSGIEnvironment = {
            **environ,
            _KEY: request,
            "PATH_INFO": "/",
            "QUERY_STRING": "",
            "HTTP_HOST": "localhost",
            # Werkzeug would answer a request to become a WebSocket with a page of its own.
            "HTTP_UPGRADE": "",
            "CONTENT_LENGTH": str(len(request.body)),
            "wsgi.input": io.BytesIO(request.body),
        }
        return self._app(plain, start_response)

    def _request(self, environ: WSGIEnvironment) -> HttpRequest:
        received = time.monotonic()
        if shutdown.begun() and environ.get("PATH_INFO") != "/healthz":
            raise ShuttingDown("This process is being ended.", retry_after=1.0)
        headers = {
            key[5:].replace("_", "-").lower(): str(value) for key, value in environ.items() if key.startswith("HTTP_")
        }
        if environ.get("CONTENT_TYPE"):
            headers["content-type"] = str(environ["CONTENT_TYPE"])
        return HttpRequest(
            method=str(environ.get("REQUEST_METHOD", "")).upper(),
            path=str(environ.get("PATH_INFO", "")),
            query=str(environ.get("QUERY_STRING", "")),
            headers=headers,
            body=self._body(environ),
            received=received,
        )

    def _body(self, environ: WSGIEnvironment) -> bytes:
        announced = _announced(environ)
        if announced is not None and announced > self._max_body:
            raise TooLarge(f"At most {self._max_body} bytes are taken.")
        if announced is None and not environ.get("wsgi.input_terminated"):
            return b""
        wire = environ.get("gunicorn.socket")
        before = wire.gettimeout() if isinstance(wire, socket.socket) else None
        if isinstance(wire, socket.socket):
            wire.settimeout(_BODY_TIMEOUT)
        try:
            most = self._max_body + 1 if announced is None else announced
            body: bytes = environ["wsgi.input"].read(most)
        except TimeoutError:
            raise BodyIncomplete("The body did not arrive in time.") from None
        except ConnectionError:
            raise BodyIncomplete("The connection ended inside the body.") from None
        except OSError:
            # gunicorn's parser raises these for a broken chunk as well as for a broken line.
            raise BadEvent(Violation("body", "is broken off or wrongly framed")) from None
        finally:
            if isinstance(wire, socket.socket):
                wire.settimeout(before)
        if len(body) > self._max_body:
            raise TooLarge(f"At most {self._max_body} bytes are taken.")
        if announced is not None and len(body) < announced:
            raise BodyIncomplete("The body ended before its announced length.")
        return body


def request_of(environ: Mapping[str, Any]) -> HttpRequest:
    """The request that the front has put into the WSGI environment."""
    found = environ[_KEY]
    assert isinstance(found, HttpRequest)
    return found


def install(app: Any, max_body: int) -> None:
    """Put the front before a Flask application, silence gunicorn's error page, and let it leave in order."""
    app.wsgi_app = Front(app.wsgi_app, max_body)
    shutdown.install()
    _quiet_gunicorn()


def _announced(environ: WSGIEnvironment) -> int | None:
    text = str(environ.get("CONTENT_LENGTH") or "")
    if not (text.isascii() and text.isdigit()):
        return None
    # Python refuses to read a number of thousands of digits; this one is over any limit.
    return int(text) if len(text) < 19 else 10**18


def _send(answer: Answer, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    # What is left of the body on the line cannot be told from a next request.
    headers = [*answer.headers.items(), ("Content-Length", str(len(answer.body))), ("Connection", "close")]
    start_response(f"{answer.status} {_REASONS[answer.status]}", headers)
    return [answer.body] if environ.get("REQUEST_METHOD") != "HEAD" else []


def _then_drop_rest(sent: Iterable[bytes], environ: WSGIEnvironment) -> Iterable[bytes]:
    """Answer, then take some of what is still being sent: closing on it would reset the line, and lose the answer."""
    yield from sent
    wire = environ.get("gunicorn.socket")
    before = wire.gettimeout() if isinstance(wire, socket.socket) else None
    left, until = min(_announced(environ) or _MOST_DROPPED, _MOST_DROPPED), time.monotonic() + _DROP_TIMEOUT
    # Whatever goes wrong here, the answer is out already.
    with contextlib.suppress(Exception):
        if isinstance(wire, socket.socket):
            wire.settimeout(_DROP_TIMEOUT)
        while left > 0 and time.monotonic() < until and (part := environ["wsgi.input"].read(min(left, 65536))):
            left -= len(part)
    if isinstance(wire, socket.socket):
        wire.settimeout(before)


def _quiet_gunicorn() -> None:
    """Have gunicorn answer what it cannot parse without quoting it, and never with a 5xx that is its own guess.

    Its page is made before any WSGI application is asked, and functions-framework leaves no other way to set it.
    """
    try:
        from gunicorn import util
    except ImportError:
        # Without gunicorn (Windows) functions-framework serves with Flask's development server.
        return
    write: Callable[[socket.socket, bytes], None] = util.write_nonblock

    def write_error(sock: socket.socket, status_int: int, _reason: str, mesg: str) -> None:
        error: AutostopError = BadEvent(Violation("request", "is no HTTP that is understood here"))
        if status_int == 500 and not mesg:
            # Nothing is wrong with the request then: an exception came out of what is behind the parser.
            error = InternalFault("Something unexpected happened; the log tells more.")
        answer = responses.problem(error)
        head = f"HTTP/1.1 {answer.status} {_REASONS[answer.status]}\r\nConnection: close\r\n"
        lines = "".join(f"{name}: {value}\r\n" for name, value in answer.headers.items())
        write(sock, f"{head}{lines}Content-Length: {len(answer.body)}\r\n\r\n".encode() + answer.body)

    util.write_error = write_error
