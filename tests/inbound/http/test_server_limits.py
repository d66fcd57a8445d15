"""The limits of the HTTP front end, with real clients at the real server process."""

from __future__ import annotations

import hashlib
import http.client
import inspect
import json
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from unittest.mock import Mock

import gunicorn
import pytest
from gunicorn import config
from gunicorn.http.errors import InvalidRequestLine, LimitRequestHeaders, LimitRequestLine, NoMoreData
from gunicorn.http.parser import Parser
from gunicorn.http.unreader import SocketUnreader, Unreader
from gunicorn.workers.gthread import PollableMethodQueue, TConn, ThreadWorker

from handler.errors import AutostopError, HeadersTooLarge, RequestLineTooLong
from handler.inbound.http import server_limits, wsgi
from handler.inbound.http.server_limits import Exchange, Head, LimitedThreadWorker
from handler.simulator import CallKind, Fault, Simulator
from tests.harness.bench.stage import memory
from tests.support.events import binary
from tests.support.process import HANG, environment, free_port, function_command
from tests.support.raw_http import MAX_BODY, FunctionProcess, problem, request, rest, statuses

HEAD = b"POST / HTTP/1.1\r\nHost: function.example\r\n"
EVENT_HEADERS, EVENT_BODY = binary({})
EVENT = request(headers=EVENT_HEADERS, body=EVENT_BODY)
HEALTH = request("GET", "/healthz")
TOKEN = "0123456789abcdef0123456789abcdef"
BEARER = {"AUTOSTOP_INBOUND_AUTH": "bearer", "AUTOSTOP_BEARER_TOKENS": TOKEN}


@contextmanager
def connected(process: FunctionProcess, count: int, sent: bytes) -> Iterator[list[socket.socket]]:
    """Connect so many clients that send this."""
    with ExitStack() as stack:
        clients = [stack.enter_context(process.connect()) for _ in range(count)]
        for client in clients:
            client.sendall(sent)
        yield clients


def healthy(process: FunctionProcess) -> float:
    """Seconds until `/healthz` was answered."""
    began = time.monotonic()
    assert statuses(process.exchange(HEALTH)) == [200]
    return time.monotonic() - began


def status(client: socket.socket) -> int:
    """Read one answer, and return its status."""
    answer = http.client.HTTPResponse(client)
    answer.begin()
    answer.read()
    return answer.status


def ended(clients: Sequence[socket.socket]) -> bytes:
    """What the server still sent before it closed these connections."""
    return b"".join(rest(client) for client in clients)


# --- heads that do not come


def test_clients_without_a_whole_head_hold_nothing(process: FunctionProcess) -> None:
    """More than threads: idle, dripping, with a large part of a head, on new connections and on kept ones.

    Others are answered meanwhile; after five seconds they are disconnected, however they drip.
    """
    large = HEAD + (b"A: " + b"x" * 8000 + b"\r\n") * 7
    before = memory(process.pid)
    began = time.monotonic()
    with (
        connected(process, 20, b"") as idle,
        connected(process, 60, large) as halves,
        connected(process, 10, HEAD) as dripping,
        connected(process, 10, HEALTH + HEAD) as kept,
    ):
        for client in kept:
            assert status(client) == 200
        assert healthy(process) < 1.0
        assert memory(process.pid) - before < 10
        assert statuses(process.exchange(EVENT)) == [200]
        done = threading.Event()

        def drip() -> None:
            while not done.wait(0.5):
                for client in (*dripping, *kept):
                    with suppress(OSError):
                        client.sendall(b"A: b\r\n")

        dripper = threading.Thread(target=drip)
        dripper.start()
        try:
            assert ended([*idle, *halves, *dripping, *kept]) == b""
        finally:
            done.set()
            dripper.join()
    assert 4.0 < time.monotonic() - began < 2 * HANG
    assert healthy(process) < 1.0


@pytest.mark.parametrize(("count", "sent"), [(300, b""), (100, HEAD + (b"A: " + b"x" * 8000 + b"\r\n") * 7)])
def test_of_too_many_such_clients_the_oldest_is_closed(process: FunctionProcess, count: int, sent: bytes) -> None:
    """More than 256, or more than 4 MiB of heads: at once, not after five seconds; the newest stays."""
    began = time.monotonic()
    with connected(process, count, sent) as clients:
        assert healthy(process) < 1.0
        assert rest(clients[0]) == b""
        assert time.monotonic() - began < 4.5
        clients[-1].setblocking(False)
        with pytest.raises(BlockingIOError):
            clients[-1].recv(1)


def test_a_head_in_pieces_is_taken(process: FunctionProcess) -> None:
    """Byte by byte over new and kept connections."""
    with process.connect() as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(2):
            for byte in HEALTH:
                client.sendall(bytes([byte]))
            assert status(client) == 200


def test_pipelined_requests_are_answered_in_order(process: FunctionProcess) -> None:
    """Events, probes and half a request, sent at once."""
    wrong = request("GET", "/")
    with process.connect() as client:
        client.sendall(EVENT + HEALTH + EVENT + wrong + HEALTH[:10])
        client.sendall(HEALTH[10:])
        client.shutdown(socket.SHUT_WR)
        assert statuses(rest(client)) == [200, 200, 200, 405, 200]


def test_a_client_that_stays_after_its_answer_delays_no_other(process: FunctionProcess) -> None:
    """The server waits for it to leave, but not in the thread that accepts connections; then it closes itself."""
    began = time.monotonic()
    with connected(process, 10, request("GET", "/", {"Connection": "close"})) as staying:
        for client in staying:
            assert status(client) == 405
        assert healthy(process) < 1.0
        assert ended(staying) == b""
        assert time.monotonic() - began < HANG


def test_probes_are_answered_while_every_thread_is_busy(simulated: Simulator, tmp_path: Path) -> None:
    """Or a platform would kill a process that is only busy."""
    waiting = request(headers={**EVENT_HEADERS, "Content-Length": "100"})
    with (
        FunctionProcess(simulated, tmp_path, environ={"THREADS": "2"}) as process,
        connected(process, 4, waiting) as clients,
    ):
        time.sleep(0.2)
        assert healthy(process) < 1.0
        for client in clients:
            client.sendall(b"P" * 100)
        assert {status(client) for client in clients} == {400}


# --- what is too large


@pytest.mark.parametrize(
    ("sent", "code", "name"),
    [
        (b"GET /" + b"x" * 9000, 414, "request-line-too-long"),
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\n\r\n", 414, "request-line-too-long"),
        (b"x" * 100_000, 414, "request-line-too-long"),
        (HEAD + b"A: " + b"x" * 9000, 431, "headers-too-large"),
        (HEAD + b"X-CFF-Auth-Token: " + b"x" * 9000 + b"\r\n\r\n", 431, "headers-too-large"),
        (HEAD + (b"A: " + b"x" * 1000 + b"\r\n") * 70 + b"\r\n", 431, "headers-too-large"),
        (HEAD + b"A: b\r\n" * 20_000, 431, "headers-too-large"),
        (HEAD + b"A: b\r\n" * 200 + b"\r\n", 431, "headers-too-large"),
    ],
)
def test_a_head_over_the_limits_is_refused_and_closed(
    process: FunctionProcess, sent: bytes, code: int, name: str
) -> None:
    """On a new connection and on a kept one, with a problem document."""
    for before in (b"", HEALTH):
        answer = process.exchange(before + sent)
        assert statuses(answer) == ([200] if before else []) + [code]
        document = problem(answer[answer.rindex(b"HTTP/1.1 ") :])
        assert document["type"] == f"urn:bms-autostop:problem:{name}"
    assert any(line.get("problem") == name for line in process.log_lines())


def test_a_head_at_the_limits_is_taken(process: FunctionProcess) -> None:
    """A request line and headers of 8 KiB, 64 KiB in all."""
    line = b"GET /" + b"x" * (8192 - len(b"GET / HTTP/1.1\r\n")) + b" HTTP/1.1\r\n"
    header = b"A: " + b"x" * (8192 - len(b"A: \r\n")) + b"\r\n"
    headers = header * 7 + header[: 8192 - 4] + b"\r\n"
    assert len(headers) + len(b"\r\n") == 64 * 1024
    assert statuses(process.exchange(line + headers + b"\r\n")) == [405]


def test_on_functiongraph_a_login_in_the_headers_may_be_longer(simulated: Simulator, tmp_path: Path) -> None:
    """Up to 16 KiB; other headers may not."""
    place = {"RUNTIME_PROJECT_ID": simulated.project_id}
    with FunctionProcess(simulated, tmp_path, environ=place) as process:
        for name, length, code in (
            ("X-CFF-Auth-Token", 8_300, 200),
            ("X-CFF-Auth-Token", 16_000, 200),
            ("X-CFF-Auth-Token", 16_400, 431),
            ("X-CFG-Auth-Token", 8_300, 431),
        ):
            headers = {**EVENT_HEADERS, name: "x" * length}
            assert statuses(process.exchange(request(headers=headers, body=EVENT_BODY))) == [code]


# --- bodies


@pytest.fixture(scope="module")
def guarded(simulated: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FunctionProcess]:
    """A process that wants a bearer token."""
    with FunctionProcess(simulated, tmp_path_factory.mktemp("guarded"), environ=BEARER) as process:
        yield process


@pytest.mark.parametrize("path", ["/", "/invoke", "/init"])
@pytest.mark.parametrize("length", [100, 10 * MAX_BODY])
def test_without_credentials_a_caller_is_answered_before_its_body(
    guarded: FunctionProcess, path: str, length: int
) -> None:
    """Also where it asks for leave to send it, and the connection ends there."""
    for headers in (
        {"Content-Length": str(length)},
        {"Content-Length": str(length), "Expect": "100-continue"},
        {"Transfer-Encoding": "chunked"},
    ):
        with guarded.connect() as client:
            client.sendall(request("POST", path, {**EVENT_HEADERS, **headers}))
            answer = rest(client)
        assert statuses(answer) == [401]
        assert b"\r\nConnection: close\r\n" in answer


def test_with_credentials_the_body_is_asked_for(guarded: FunctionProcess) -> None:
    """Once the caller is authenticated."""
    headers = {**EVENT_HEADERS, "Authorization": f"Bearer {TOKEN}", "Expect": "100-continue"}
    with guarded.connect() as client:
        client.sendall(request(headers={**headers, "Content-Length": str(len(EVENT_BODY))}))
        assert statuses(client.recv(65536)) == [100]
        client.sendall(EVENT_BODY)
        assert status(client) == 200
        client.sendall(request(headers={**headers, "Content-Length": str(MAX_BODY + 1)}))
        assert statuses(rest(client)) == [413]


def test_an_answer_reaches_a_client_that_sends_its_body_first(guarded: FunctionProcess) -> None:
    """Closing at once would reset the connection, and it would lose the answer."""
    assert statuses(guarded.exchange(request(headers=EVENT_HEADERS, body=b"x" * 2**20))) == [401]


@pytest.mark.parametrize("path", ["/invoke", "/init"])
def test_elsewhere_functiongraphs_paths_are_as_any(process: FunctionProcess, path: str) -> None:
    """They take events, and nothing of a trigger."""
    assert statuses(process.exchange(request("POST", path, EVENT_HEADERS, EVENT_BODY))) == [200]
    answer = process.exchange(request("POST", path, {"Content-Type": "application/json"}, b'{"trigger": "TIMER"}'))
    assert statuses(answer) == [415]


def test_a_body_that_authenticates_its_sender_has_five_seconds(simulated: Simulator, tmp_path: Path) -> None:
    """However it drips; meanwhile the process is healthy."""
    webhook = {"AUTOSTOP_EVENT_SINK": "http://127.0.0.1:9/", "AUTOSTOP_SLACK_SIGNING_SECRET": TOKEN}
    with FunctionProcess(simulated, tmp_path, "receive_webhook", environ=webhook) as process:
        signed = {"X-Slack-Request-Timestamp": str(int(time.time())), "X-Slack-Signature": "v0=00"}
        sent = request("POST", "/slack", {**signed, "Content-Length": "1000"})
        began = time.monotonic()
        with connected(process, 8, sent) as clients:
            time.sleep(0.2)
            assert healthy(process) < 1.0
            while time.monotonic() < began + 4.0:
                for client in clients:
                    client.sendall(b"x")
                time.sleep(0.5)
            answers = [rest(client) for client in clients]
        assert [statuses(answer) for answer in answers] == [[503]] * 8
        assert problem(answers[0])["type"] == "urn:bms-autostop:problem:body-incomplete"
        assert 4.0 < time.monotonic() - began < 2 * HANG


@pytest.mark.parametrize("dripping", [True, False])
def test_the_time_of_a_body_counts_in_all(dripping: bool) -> None:
    """Not from one byte to the next, and no further time-out begins when it stalls."""
    ours, theirs = socket.socketpair()
    done = threading.Event()

    def drip() -> None:
        theirs.sendall(b"x")
        while dripping and not done.wait(0.02):
            theirs.sendall(b"x")

    with ours, theirs:
        unreader = server_limits._Unreader(ours)
        body = Mock(read=lambda size: unreader.read(size))
        request, connection = Mock(body=body, _expected_100_continue=False), Mock(parser=Mock(unreader=unreader))
        dripper = threading.Thread(target=drip)
        dripper.start()
        began = time.monotonic()
        try:
            with pytest.raises(TimeoutError):
                Exchange(request, connection).read(100_000, 0.3)
        finally:
            done.set()
            dripper.join()
        assert 0.2 < time.monotonic() - began < 4.0
        assert ours.gettimeout() == server_limits.SEND_TIMEOUT
        # A head is never waited for in a thread.
        with pytest.raises(NoMoreData):
            unreader.read(100_000)


# --- readiness, and what peers say of others


def test_questions_whether_it_is_ready_make_one_call(simulated: Simulator, tmp_path: Path) -> None:
    """More than there are threads, while the login hangs: one waits for it, the others and events are answered."""
    with FunctionProcess(simulated, tmp_path) as process, ThreadPoolExecutor(16) as clients:
        simulated.inject(Fault(on=CallKind.LOGIN, times=None, delay=3.0))
        before = simulated.count(CallKind.LOGIN)
        try:
            began = time.monotonic()
            asked = [clients.submit(process.exchange, request("GET", "/readyz")) for _ in range(16)]
            time.sleep(0.2)
            assert healthy(process) < 1.0
            assert statuses(process.exchange(request(body=b"x"))) == [415]
            assert time.monotonic() - began < 2.5
            answers = [each.result() for each in asked]
        finally:
            simulated.clear_faults()
        names = [problem(answer)["type"].rpartition(":")[2] for answer in answers if statuses(answer) == [503]]
        assert names.count("readiness-unknown") >= 15
        assert simulated.count(CallKind.LOGIN) - before <= 1


@pytest.mark.parametrize(
    "headers",
    [
        {"SCRIPT_NAME": "/healthz"},
        {"PATH_INFO": "/healthz"},
        {"X-Forwarded-Proto": "https", "X-Forwarded-Ssl": "off"},
        {"X-Forwarded-Prefix": "/healthz"},
        {"X-Original-URL": "/healthz"},
    ],
)
def test_headers_do_not_change_the_path(process: FunctionProcess, headers: dict[str, str]) -> None:
    """Nor the scheme, although the peer is on this machine."""
    assert statuses(process.exchange(request("GET", "/healthz/x", headers))) == [405]
    assert statuses(process.exchange(request("GET", "/healthz", headers))) == [200]


def test_a_script_name_of_the_environment_is_ignored(simulated: Simulator, tmp_path: Path) -> None:
    """With it gunicorn would refuse every other path."""
    environ = {"SCRIPT_NAME": "/prefix", "FORWARDED_ALLOW_IPS": "*"}
    with FunctionProcess(simulated, tmp_path, environ=environ) as process:
        sent = request(headers={**EVENT_HEADERS, "SCRIPT_NAME": "/x"}, body=EVENT_BODY)
        assert statuses(process.exchange(sent)) == [200]


# --- the log


@contextmanager
def with_an_unread_log(simulated: Simulator, folder: Path) -> Iterator[FunctionProcess]:
    """A process that has logged 600 requests, of some 200 bytes each: far more than a pipe holds."""
    with FunctionProcess(simulated, folder, stdout=subprocess.PIPE) as process:
        with process.connect() as client:
            for _ in range(600):
                client.sendall(request("GET", "/"))
                assert status(client) == 405
        yield process


def test_a_log_that_is_not_read_delays_no_event(simulated: Simulator, tmp_path: Path) -> None:
    """No line is lost, also not by SIGTERM right after an answer; they come in order once they are read."""
    server = simulated.add_server("unread")
    with with_an_unread_log(simulated, tmp_path) as process:
        headers, body = binary({"server_ids": [server]})
        began = time.monotonic()
        assert statuses(process.exchange(request(headers=headers, body=body))) == [200]
        assert time.monotonic() - began < HANG
        process.popen.terminate()
        assert process.popen.stdout is not None
        lines = [json.loads(line) for line in process.popen.stdout.read().splitlines()]
    event = ["event received", "server handled", "event handled"]
    assert [line["message"] for line in lines] == ["started", *["request not handled"] * 600, *event]


def test_it_ends_although_its_log_is_not_read(simulated: Simulator, tmp_path: Path) -> None:
    """What it still has to write is given up after two seconds."""
    with with_an_unread_log(simulated, tmp_path) as process:
        process.popen.terminate()
        assert process.popen.wait(2 * HANG) == 0


# --- the end of the process


def test_connections_without_a_request_do_not_delay_the_end(simulated: Simulator, tmp_path: Path) -> None:
    """They are closed after two seconds at most."""
    with (
        FunctionProcess(simulated, tmp_path) as process,
        connected(process, 5, b""),
        connected(process, 5, HEALTH + HEAD),
    ):
        healthy(process)
        process.popen.terminate()
        assert process.popen.wait(HANG) == 0


def test_what_is_waited_for_is_closed_early_at_the_end() -> None:
    """Heads that are not complete, and clients that have not left."""
    worker = LimitedThreadWorker.__new__(LimitedThreadWorker)
    conns = [TConn.__new__(TConn) for _ in range(3)]
    for conn, timeout in zip(conns, (1.0, 5.0, 7.0), strict=True):
        conn.timeout = timeout
    worker.keepalived_conns, worker._reading, worker._lingering = conns[:1], {conns[1]: None}, {conns[2]: None}
    worker._cap_keepalive(2.0)
    assert [conn.timeout for conn in conns] == [1.0, 2.0, 2.0]


@pytest.mark.parametrize(
    ("alive", "enabled", "leaves"), [(False, False, True), (True, False, False), (True, True, False)]
)
def test_only_a_worker_that_is_no_longer_alive_leaves(alive: bool, enabled: bool, leaves: bool) -> None:
    """It also stops accepting for a while when it has too many connections."""
    worker = LimitedThreadWorker.__new__(LimitedThreadWorker)
    worker.alive, worker.sockets = alive, [Mock()]
    # Nothing to change, so that gunicorn's own part does nothing.
    worker._accepting = enabled
    try:
        worker.set_accept_enabled(enabled)
        assert wsgi.shutting_down.is_set() is worker.sockets[0].close.called is leaves
    finally:
        wsgi.shutting_down.clear()


# --- the parts


@pytest.mark.parametrize(
    ("data", "complete"),
    [
        (b"", False),
        (b"GET / HTTP/1.1", False),
        (b"GET / HTTP/1.1\r\n", False),
        (b"GET / HTTP/1.1\r\n\r\n", True),
        (b"GET / HTTP/1.1\r\n\r\nmore", True),
        (b"GET / HTTP/1.1\r\nA: b\r\n", False),
        (b"GET / HTTP/1.1\r\nA: b\r\n\r\n", True),
        (b"\r\n", False),
        (b"\r\nGET / HTTP/1.1\r\n", False),
        (b"\r\nGET / HTTP/1.1\r\nA: b\r\n\r\n", True),
        # What the parser refuses without reading on.
        (b"\r\n\r\n", True),
        (b"GET / HTTP/1.1\n", True),
        (b"\n", True),
        (b"GET / HTTP/1.1\r\nA: b\n", True),
        (b"GET / HTTP/1.1\r\n\n", True),
    ],
)
def test_a_head_is_complete_with_its_empty_line(data: bytes, complete: bool) -> None:
    """In whatever pieces it comes."""
    assert Head().feed(data) is complete
    head = Head()
    pieces = [head.feed(data[i : i + 1]) for i in range(len(data))]
    assert any(pieces) is complete
    assert bytes(head.data) == data


@pytest.mark.parametrize("piece", [1, 7, 8192, 2**20])
@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"GET /" + b"x" * 8200, RequestLineTooLong),
        (b"\r\nGET /" + b"x" * 8200, RequestLineTooLong),
        (HEAD + b"A: " + b"x" * 8200, HeadersTooLarge),
        (HEAD + b"X-CFF-A: " + b"x" * 8200, HeadersTooLarge),
        (HEAD + (b"A: " + b"x" * 2000 + b"\r\n") * 33, HeadersTooLarge),
    ],
)
def test_a_head_is_refused_where_it_gets_too_large(data: bytes, error: type[AutostopError], piece: int) -> None:
    """Whether the line is complete or not."""
    for sent in (data, data + b"\r\n\r\n"):
        head = Head()
        with pytest.raises(error):
            _ = [head.feed(sent[start : start + piece]) for start in range(0, len(sent), piece)]


def test_the_platforms_headers_may_be_longer() -> None:
    """In any case of letters."""
    for name in (b"X-CFF-Auth-Token: ", b"x-cff-a: "):
        assert not Head(16384).feed(HEAD + name + b"x" * (16384 - len(name)))
        with pytest.raises(HeadersTooLarge):
            Head(16384).feed(HEAD + name + b"x" * (16385 - len(name)))
    with pytest.raises(HeadersTooLarge):
        Head(16384).feed(HEAD + b"X-CF-A: " + b"x" * 8192)


def test_a_client_that_does_not_read_is_noticed() -> None:
    """Before its next request is handled."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        assert server_limits._is_writable(ours)
        with suppress(BlockingIOError):
            while ours.send(b"x" * 65536):
                pass
        assert not server_limits._is_writable(ours)


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (LimitRequestLine(9000, 8190), 414),
        (LimitRequestHeaders("marked"), 431),
        (InvalidRequestLine("marked"), 400),
        (RuntimeError("marked"), 503),
    ],
)
def test_what_cannot_be_parsed_is_not_quoted(failure: Exception, code: int) -> None:
    """A failure of ours is 503, so that the sender does not give the event up."""
    worker = LimitedThreadWorker.__new__(LimitedThreadWorker)
    worker.log = Mock()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        worker.handle_error(None, ours, None, failure)
        answer = theirs.recv(65536)
    assert statuses(answer) == [code]
    assert b"marked" not in answer
    assert (b"\r\nRetry-After: 10\r\n" in answer) is (code == 503)


@pytest.mark.parametrize(
    ("name", "value"),
    [*(("THREADS", value) for value in ("1", "0", "-4", "many")), ("THREADED_TIMEOUT_ENABLED", "true")],
)
def test_it_refuses_to_start_where_the_limits_cannot_hold(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the variable's name."""
    monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit, match=name):
        server_limits.install(timedelta(0))


def test_the_whole_function_refuses_one_thread(simulated: Simulator) -> None:
    """With a line on stderr, and no traceback."""
    environ = {**environment(AUTOSTOP_INBOUND_AUTH="none", **simulated.environ()), "THREADS": "1"}
    done = subprocess.run(function_command(free_port()), env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "THREADS: must be a whole number of at least 2." in done.stderr
    assert "Traceback" not in done.stderr


def test_functions_framework_uses_the_worker() -> None:
    """For whichever number of threads."""
    from functions_framework._http.gunicorn import GunicornApplication

    before = config.WorkerClass.default, config.GracefulTimeout.default
    try:
        server_limits.install(timedelta(seconds=50))
        application = GunicornApplication(lambda *_: None, "127.0.0.1", 0, False)
        assert application.cfg.worker_class is LimitedThreadWorker
        assert application.cfg.graceful_timeout == 60
    finally:
        config.WorkerClass.default, config.GracefulTimeout.default = before


VERIFIED = {"27.0.1"}
"""The versions of gunicorn that all tests of this file passed with."""

INTERNALS = "12ac94f4b5addbb9564c0b1cf5ac35dc3136a573b5d4e0fe0331b08d3bdee030"
"""The digest of the classes below in these versions."""


def test_gunicorns_internals_are_those_that_were_verified() -> None:
    """If this fails: compare `workers/gthread.py` and `http/` of both versions with `server_limits`, then renew it."""
    assert gunicorn.__version__ in VERIFIED
    found = hashlib.sha256()
    for part in (ThreadWorker, TConn, PollableMethodQueue, Parser, Unreader, SocketUnreader):
        found.update(inspect.getsource(part).encode())
    assert found.hexdigest() == INTERNALS
