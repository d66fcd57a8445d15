"""The WSGI middleware: whatever bytes a client sends are harmless, shown on the real gunicorn."""

from __future__ import annotations

import http.client
import io
import json
import socket
import sys
from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import pytest

from handler.errors import BodyIncomplete
from handler.inbound.http import wsgi
from handler.inbound.http.request import HttpRequest
from handler.simulator import Simulator
from tests.conftest import StartFunction
from tests.support.events import binary
from tests.support.process import HANG
from tests.support.raw_http import MAX_BODY, FunctionProcess, problem, request, rest, statuses
from tests.test_events_folder import schema_violations

MARK = "marked-by-the-sender"
EVENT_HEADERS, EVENT_BODY = binary({})


def refused(answer: bytes, status: int) -> dict[str, Any]:
    """The problem document of an answer with this status, which echoes nothing."""
    assert statuses(answer) == [status], answer
    assert MARK.encode() not in answer
    document: dict[str, Any] = problem(answer)
    assert schema_violations("problem.json", document) == []
    return document


# --- over gunicorn


def test_an_event_is_handled_over_the_real_server(process: FunctionProcess, simulated: Simulator) -> None:
    """POST in, result event out, server stopped."""
    server = simulated.add_server("front-1")
    headers, body = binary({"server_ids": [server]})
    answer = process.exchange(request(headers=headers, body=body))
    assert statuses(answer) == [200]
    assert b"io.github.bms-autostop.stop.completed.v1" in answer
    assert simulated.server(server).vm_state == "stopped"


@pytest.mark.parametrize(
    "path", ["/robots.txt", "/favicon.ico", "//a//b", "/a/../b", "/%2e%2e/", "/a?b=c", "//", "/é%ff"]
)
def test_no_path_is_special_for_events(process: FunctionProcess, path: str) -> None:
    """Where the framework has pages and redirects of its own, an event is an event."""
    path = path.replace("é", "%C3%A9")
    assert statuses(process.exchange(request("POST", path, EVENT_HEADERS, EVENT_BODY))) == [200]
    refused(process.exchange(request("GET", path)), 405)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "TRACE", "BREW", "PROPFIND", "GET", "CONNECT"])
def test_other_methods_are_405(process: FunctionProcess, method: str) -> None:
    """Also those that the framework does not know, and a request to become a tunnel."""
    target = f"{MARK}:443" if method == "CONNECT" else f"/{MARK}"
    answer = process.exchange(request(method, target, {MARK: MARK}, MARK.encode()))
    assert b"\r\nAllow: POST, OPTIONS\r\n" in answer
    refused(answer, 405)


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_health_is_answered(process: FunctionProcess, path: str) -> None:
    """GET has a body, HEAD has the same headers and none."""
    got, head = process.exchange(request("GET", path)), process.exchange(request("HEAD", path))
    assert statuses(got) == statuses(head) == [200]
    assert json.loads(got.partition(b"\r\n\r\n")[2])["status"] in ("alive", "ready")
    assert head.partition(b"\r\n\r\n")[2] == b""


def test_a_request_for_a_websocket_is_an_ordinary_request(process: FunctionProcess) -> None:
    """The framework's own page for it never shows."""
    headers = {**EVENT_HEADERS, "Upgrade": "websocket", "Connection": "Upgrade"}
    assert statuses(process.exchange(request(headers=headers, body=EVENT_BODY))) == [200]
    refused(process.exchange(request("GET", "/", {"Upgrade": "websocket", "Connection": "Upgrade"})), 405)


def test_a_body_at_the_limit_is_taken(process: FunctionProcess) -> None:
    """The limit itself is allowed, by length and in chunks."""
    body = b"{}".ljust(MAX_BODY)
    assert statuses(process.exchange(request(headers=EVENT_HEADERS, body=body))) == [200]
    chunked = {**EVENT_HEADERS, "Transfer-Encoding": "chunked"}
    assert statuses(process.exchange(request(headers=chunked, body=_chunks(body)))) == [200]


@pytest.mark.parametrize("length", [MAX_BODY + 1, 10 * MAX_BODY, 1024 * 1024])
def test_a_body_over_the_limit_is_413(process: FunctionProcess, length: int) -> None:
    """Announced or in chunks, sent in full or not at all; the log has a line of it."""
    body = MARK.encode().ljust(length)
    refused(process.exchange(request(headers=EVENT_HEADERS, body=body)), 413)
    chunked = {**EVENT_HEADERS, "Transfer-Encoding": "chunked"}
    refused(process.exchange(request(headers=chunked, body=_chunks(body))), 413)
    with process.connect() as line:
        line.sendall(request(headers={**EVENT_HEADERS, "Content-Length": str(length)}))
        assert statuses(line.recv(65536)) == [413]
    assert any(line.get("problem") == "too-large" for line in process.log_lines())


@pytest.mark.parametrize("length", ["9" * 18, "9" * 19, "9" * 4000])
def test_a_length_of_more_digits_than_any_body_has_is_413(process: FunctionProcess, length: str) -> None:
    """Python refuses to read a number of thousands of digits."""
    refused(process.exchange(request(headers={**EVENT_HEADERS, "Content-Length": length}, body=b"{}")), 413)


def test_a_body_shorter_than_announced_is_503(process: FunctionProcess) -> None:
    """The event can be sent again."""
    answer = process.exchange(request(headers={**EVENT_HEADERS, "Content-Length": "100"}, body=MARK.encode()))
    assert refused(answer, 503)["type"] == "urn:bms-autostop:problem:body-incomplete"
    assert b"\r\nRetry-After: " in answer


@pytest.mark.parametrize(
    "body",
    [
        b"zz\r\n",
        b"-1\r\n\r\n",
        b"5\r\nabcdefgh\r\n",
        b"1;" + b"x" * 9000,
        b"\r\n",
        b"0\r\nHost: x\r\n\r\n",
    ],
)
def test_broken_chunks_are_refused(process: FunctionProcess, body: bytes) -> None:
    """A body that is framed wrongly is not an event."""
    answer = process.exchange(request(headers={**EVENT_HEADERS, "Transfer-Encoding": "chunked"}, body=body))
    refused(answer, 400)


@pytest.mark.parametrize("body", [b"", b"5", b"5\r\nabc", b"2\r\n{}", b"2\r\n{}\r\n0\r\n"])
def test_chunks_that_end_too_early_are_503(process: FunctionProcess, body: bytes) -> None:
    """The event can be sent again: the connection ended in its body."""
    answer = process.exchange(request(headers={**EVENT_HEADERS, "Transfer-Encoding": "chunked"}, body=body))
    assert refused(answer, 503)["type"] == "urn:bms-autostop:problem:body-incomplete"


@pytest.mark.parametrize(
    "head",
    [
        f"{MARK}\r\n\r\n",
        f"GET {MARK}\r\n\r\n",
        f"GET / {MARK}/1.1\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        f"post /{MARK} HTTP/1.1\r\n\r\n",
        f"POST /{MARK}\x00 HTTP/1.1\r\n\r\n",
        f"POST / HTTP/1.1\r\n{MARK}\r\n\r\n",
        f"POST / HTTP/1.1\r\n{MARK} : x\r\n\r\n",
        f"POST / HTTP/1.1\r\nAuthorization: Bearer {MARK}\x01\r\n\r\n",
        f"POST / HTTP/1.1\r\nA: b\r\n {MARK}\r\n\r\n",
        f"POST / HTTP/1.1\r\nContent-Length: {MARK}\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        f"POST / HTTP/1.1\r\nTransfer-Encoding: {MARK}\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
        f"POST / HTTP/1.1\r\nExpect: {MARK}\r\n\r\n",
        f"POST / HTTP/1.1\r\nHost: a\r\nHost: {MARK}\r\n\r\n",
    ],
)
def test_what_is_not_http_is_400_and_not_quoted(process: FunctionProcess, head: str) -> None:
    """The server's own error page never shows, and never a 5xx."""
    refused(process.exchange(head.encode("latin-1")), 400)


@pytest.mark.parametrize("sent", [b"", b"\r\n", b"\x16\x03\x01\x02\x00", b"GET", b"POST / HTTP/1.1\r\nHost"])
def test_half_a_request_gets_nothing_worse_than_400(process: FunctionProcess, sent: bytes) -> None:
    """A client that disconnects may get no answer, and the next one is served."""
    assert statuses(process.exchange(sent)) in ([], [400])
    assert statuses(process.exchange(request("GET", "/healthz"))) == [200]


@pytest.mark.parametrize(
    ("first", "status"),
    [
        (request(headers=EVENT_HEADERS, body=EVENT_BODY), 200),
        (request("GET", "/"), 405),
        (request(body=b"no event"), 415),
        (request(headers={**EVENT_HEADERS, "ce-id": ""}, body=EVENT_BODY), 400),
    ],
)
def test_the_connection_can_be_used_again(process: FunctionProcess, first: bytes, status: int) -> None:
    """After an answer, good or bad, the next event on the same connection is handled."""
    with process.connect() as line:
        for sent, expected in [(first, status), (request(headers=EVENT_HEADERS, body=EVENT_BODY), 200)]:
            line.sendall(sent)
            answer = http.client.HTTPResponse(line)
            answer.begin()
            answer.read()
            assert answer.status == expected


def test_a_connection_whose_body_was_not_read_is_closed(process: FunctionProcess) -> None:
    """Where the next request begins is not known then: an event hidden in a body that is refused is not handled."""
    hidden = request(headers=EVENT_HEADERS, body=EVENT_BODY)
    answer = process.exchange(request("PUT", "/", body=EVENT_BODY) + hidden)
    assert statuses(answer) == [405]
    assert b"\r\nConnection: close\r\n" in answer
    answer = process.exchange(request(headers=EVENT_HEADERS, body=hidden.ljust(MAX_BODY + 1)))
    assert statuses(answer) == [413]


def test_every_line_of_the_process_is_json(process: FunctionProcess) -> None:
    """Whatever was sent before: nothing but JSON lines on stdout, and no secret in them."""
    process.exchange(request(headers={**EVENT_HEADERS, "ce-id": "logged"}, body=EVENT_BODY))
    assert any(line.get("event_id") == "logged" for line in process.log_lines())


def _chunks(body: bytes) -> bytes:
    parts = [body[start : start + 1000] for start in range(0, len(body), 1000)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


# --- without gunicorn


CHUNKED = {"wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"}


def send(**environ: Any) -> tuple[str, dict[str, str], bytes, list[dict[str, Any]]]:
    """Status, headers and body of the middleware's response, and the environment that the application got."""
    seen: list[dict[str, Any]] = []
    got: list[tuple[str, dict[str, str]]] = []

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        _ = wsgi.request_of(environ).body
        seen.append(environ)
        start_response("200 OK", [])
        return [b"inside"]

    body = wsgi.Middleware(app, 100)(
        {"REQUEST_METHOD": "POST", "PATH_INFO": "/", "wsgi.input": io.BytesIO(b""), **environ},
        lambda status, headers: got.append((status, dict(headers))),  # type: ignore[arg-type]
    )
    return *got[0], b"".join(body), seen


def test_the_framework_sees_a_request_that_cannot_surprise_it() -> None:
    """The path is plain, the host is known, nothing is left of the query; the function still has it all."""
    _, _, _, (seen,) = send(
        PATH_INFO="//robots.txt",
        QUERY_STRING="a=b",
        HTTP_HOST="<>",
        HTTP_CE_ID="x",
        HTTP_UPGRADE="websocket",
        CONTENT_TYPE="text/plain",
        CONTENT_LENGTH="4",
        **{"wsgi.input": io.BytesIO(b"body+more")},
    )
    assert (seen["PATH_INFO"], seen["QUERY_STRING"], seen["HTTP_HOST"]) == ("/", "", "localhost")
    assert (seen["HTTP_UPGRADE"], seen["CONTENT_LENGTH"], seen["wsgi.input"].read()) == ("", "0", b"")
    found = wsgi.request_of(seen)
    assert found == HttpRequest(
        method="POST",
        path="//robots.txt",
        headers={"host": "<>", "ce-id": "x", "upgrade": "websocket", "content-type": "text/plain"},
        content=found.content,
        received=found.received,
        query="a=b",
    )
    assert found.body == b"body"


@pytest.mark.parametrize("length", ["", "x", "-1", "\u0665"])
def test_without_a_length_there_is_no_body(length: str) -> None:
    """A server that does not end the input by itself is not read from: it would never return."""
    _, _, _, (seen,) = send(CONTENT_LENGTH=length, **{"wsgi.input": io.BytesIO(b"endless")})
    assert wsgi.request_of(seen).body == b""


def test_an_input_that_ends_by_itself_is_read_up_to_the_limit() -> None:
    """As gunicorn gives it for chunks; if there is more, nothing of it reaches the function."""
    _, _, _, (seen,) = send(**{**CHUNKED, "wsgi.input": io.BytesIO(b"body")})
    assert wsgi.request_of(seen).body == b"body"
    status, _, _, nothing = send(**{**CHUNKED, "wsgi.input": io.BytesIO(b"x" * 1000)})
    assert (int(status.split()[0]), nothing) == (413, [])


def test_a_refusal_to_head_has_no_body() -> None:
    """HEAD is answered by headers alone."""
    status, headers, body, seen = send(REQUEST_METHOD="HEAD", CONTENT_LENGTH="101")
    assert (int(status.split()[0]), body, seen) == (413, b"", [])
    assert int(headers["Content-Length"]) > 0


@pytest.mark.parametrize(
    ("failure", "status", "name"),
    [
        (TimeoutError(), 503, "body-incomplete"),
        (ConnectionResetError(), 503, "body-incomplete"),
        (OSError("Invalid chunk header"), 400, "bad-event"),
    ],
)
def test_a_body_that_cannot_be_read_is_503_or_400(failure: Exception, status: int, name: str) -> None:
    """What may succeed next time is 503; what is framed wrongly is 400."""
    broken = Mock(spec=["read"], read=Mock(side_effect=failure))
    line, _, body, seen = send(CONTENT_LENGTH="5", **{"wsgi.input": broken})
    assert (int(line.split()[0]), seen) == (status, [])
    assert json.loads(body)["type"] == f"urn:bms-autostop:problem:{name}"


class Exchanged(io.BytesIO):
    """A body as gunicorn's worker provides it; its `exchange` records the calls."""

    received = 7.0

    def __init__(self, body: bytes) -> None:
        super().__init__(body)
        self.exchange = self
        self.reads: list[tuple[int, float]] = []
        self.closing = False

    def read(self, size: int | None = -1, within: float | None = None) -> bytes:
        assert size is not None
        assert within is not None
        self.reads.append((size, within))
        return super().read(size)

    def close(self) -> None:
        self.closing = True


def request_with(read: Callable[[HttpRequest], object], content: Exchanged) -> HttpRequest:
    """The request of an application that reads its body in this way, or not at all."""
    got: list[HttpRequest] = []

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        got.append(wsgi.request_of(environ))
        read(got[0])
        start_response("200 OK", [])
        return []

    environ = {"REQUEST_METHOD": "POST", "PATH_INFO": "/", "CONTENT_LENGTH": "4", "wsgi.input": content}
    wsgi.Middleware(app, 100)(environ, lambda *_: None)  # type: ignore[arg-type]
    return got[0]


def test_a_body_has_20_seconds_and_5_before_its_caller_is_authenticated() -> None:
    """It is read once, however often it is accessed."""
    for read, seconds in ((lambda request: request.body, 20.0), (lambda request: request.unauthenticated_body, 5.0)):
        content = Exchanged(b"body")
        found = request_with(read, content)
        assert (found.body, found.unauthenticated_body) == (b"body", b"body")
        assert (content.reads, content.closing) == ([(4, seconds)], False)
        assert found.received == Exchanged.received


def test_a_body_that_is_not_accessed_is_not_read() -> None:
    """The connection is closed after the answer instead."""
    content = Exchanged(b"body")
    request_with(lambda _: None, content)
    assert (content.reads, content.closing) == ([], True)


def test_the_log_is_flushed_before_an_answer_is_sent() -> None:
    """Some platforms stop a process once it has answered."""
    done: list[str] = []

    def app(_: Any, start_response: Callable[..., Any]) -> list[bytes]:
        done.append("handled")
        start_response("200 OK", [])
        return []

    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/"}
    made = wsgi.Middleware(app, 100, lambda: done.append("flushed"))
    assert (list(made(environ, lambda *_: None)), done) == ([], ["handled", "flushed"])  # type: ignore[arg-type]


def test_a_body_that_failed_fails_again() -> None:
    """It is not read on from the middle."""
    content = Exchanged(b"bo")
    failures: list[str] = []

    def read(request: HttpRequest) -> None:
        for _ in range(2):
            with pytest.raises(BodyIncomplete) as failed:
                _ = request.body
            failures.append(str(failed.value))

    request_with(read, content)
    assert (len(content.reads), content.closing) == (1, True)
    assert failures == ["The body ended before its announced length."] * 2


def test_a_cut_body_is_given_up_by_the_whole_function(cloud: Simulator, start_function: StartFunction) -> None:
    """A connection that ends inside the body is answered on the framework's own server too."""
    function = start_function(cloud)
    port = int(function.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), HANG) as line:
        line.sendall(request(headers={**EVENT_HEADERS, "Content-Length": "100"}, body=b"half"))
        line.shutdown(socket.SHUT_WR)
        assert statuses(rest(line)) == [503]


def test_without_gunicorn_the_middleware_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """It cannot be installed everywhere (Windows)."""
    monkeypatch.setitem(sys.modules, "gunicorn", None)
    app: Any = Mock()
    wsgi.install(app, 100)
    assert isinstance(app.wsgi_app, wsgi.Middleware)
