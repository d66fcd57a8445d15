"""The HTTP server of the simulated cloud: connections, several calls at once, and the end of it."""

import ast
import http.client
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

import handler.simulator
from handler.simulator import CallKind, Fault, Simulator
from tests.simulator.conftest import Ask
from tests.support.clock import FakeClock

pytest_plugins = ["handler.simulator.fixture"]


REQUEST = b"GET /v3 HTTP/1.1\r\nHost: x\r\n\r\n"


def connect(cloud: Simulator) -> Any:
    """Return a connection to the cloud."""
    where = urlsplit(cloud.url)
    return socket.create_connection((where.hostname, where.port), timeout=5)


def is_closed(connection: Any) -> bool:
    """Return whether the cloud has closed a connection, which may not have been accepted before."""
    try:
        return bool(connection.recv(1) == b"")
    except ConnectionResetError:
        return True


def test_a_connection_serves_one_request_after_the_other(cloud: Simulator) -> None:
    """Also after an error, a body and no body."""
    where = urlsplit(cloud.url)
    token, path = cloud.token(), f"/v2.1/servers/{cloud.add_server()}"
    with closing(http.client.HTTPConnection(str(where.hostname), where.port, timeout=5)) as connection:
        connection.connect()
        same = connection.sock
        for method, target, body, status in [
            ("GET", path, None, 200),
            ("POST", f"{path}/action", b"{}", 400),
            ("POST", f"{path}/action", b'{"os-stop": null}', 202),
            ("GET", "/v2.1/servers/none", None, 404),
        ]:
            connection.request(method, target, body, {"X-Auth-Token": token})
            answer = connection.getresponse()
            answer.read()
            assert (answer.status, answer.version, connection.sock) == (status, 11, same)


def test_an_answer_has_server_and_date(ask: Ask, clock: FakeClock) -> None:
    """The date is that of the clock of the cloud, also in an error."""
    clock.advance(3600)
    for path in ("/v2.1/servers", "/v2.1/servers/x", "/v3/auth/catalog", "/v3"):
        answer = ask("GET", path)
        assert answer.header("Server") == "bms-autostop-simulator"
        assert answer.header("Date") == "Sun, 15 Jun 2025 16:06:40 GMT"


def test_a_head_request_is_answered_without_a_body(cloud: Simulator, ask: Ask) -> None:
    """But with the length that the body would have."""
    own = cloud.token()
    answer = ask("HEAD", "/v3/auth/tokens", token=own, X_Subject_Token=own)
    assert (answer.status, answer.body) == (200, b"")
    assert int(answer.header("Content-Length")) > 1000


@pytest.mark.parametrize("header", ["Transfer-Encoding: chunked", "Content-Length: many"])
def test_a_body_of_unknown_length_is_refused(cloud: Simulator, header: str) -> None:
    """411, and the connection is closed."""
    with connect(cloud) as connection:
        connection.sendall(f"POST /v3/auth/tokens HTTP/1.1\r\nHost: x\r\n{header}\r\n\r\n".encode())
        with connection.makefile("rb") as answer:
            assert answer.read().startswith(b"HTTP/1.1 411 ")


def test_links_name_the_host_that_the_caller_used(ask: Ask) -> None:
    """As with a real cloud, which has several names."""
    (link,) = ask("GET", "/v3", Host="cloud.example:5000").json()["version"]["links"]
    assert link["href"] == "http://cloud.example:5000/v3/"


@pytest.mark.parametrize("delay", [0, 60])
def test_of_several_stops_at_once_exactly_one_is_accepted(ask: Ask, delay: float) -> None:
    """The others are refused in the new state. The clock is slow, so that they do arrive in between."""

    def slow_clock() -> float:
        time.sleep(0.001)
        return time.time()

    with Simulator(clock=slow_clock) as cloud:
        token, server_id = cloud.token(), cloud.add_server(power_off_delay=delay)
        path = f"/v2.1/servers/{server_id}/action"
        with ThreadPoolExecutor(8) as pool:
            tasks = [pool.submit(ask, "POST", path, {"os-stop": None}, to=cloud, token=token) for _ in range(8)]
        assert sorted(task.result().status for task in tasks) == [202] + [409] * 7
        assert (cloud.stops_sent(server_id), cloud.stops_taken(server_id)) == (8, 1)


def test_a_simulator_that_has_ended_leaves_nothing_and_can_be_started_again(ask: Ask, clock: FakeClock) -> None:
    """Neither a thread nor an open port; it then has the same port, servers and tokens."""
    before = set(threading.enumerate())
    cloud = Simulator(clock=clock)
    cloud.stop()
    with cloud:
        url, token, server_id = cloud.url, cloud.token(), cloud.add_server()
        assert cloud.auth_url == f"{url}/v3"
        assert url.startswith("http://127.0.0.1:")
        with pytest.raises(RuntimeError, match="runs already"):
            cloud.start()
        assert ask("GET", "/v3", to=cloud).status == 200
        idle = connect(cloud)
    cloud.stop()
    with closing(idle):
        assert is_closed(idle)
    assert set(threading.enumerate()) <= before
    with pytest.raises(ConnectionRefusedError):
        connect(cloud)
    with cloud:
        assert cloud.url == url
        assert ask("GET", f"/v2.1/servers/{server_id}", to=cloud, token=token).status == 200


@pytest.mark.parametrize(
    "fault",
    [
        Fault(on=CallKind.VERSION, delay=3600),
        Fault(on=CallKind.VERSION, hold=3600),
        Fault(on=CallKind.VERSION, slow_body=3600),
    ],
    ids=["delay", "hold", "slow_body"],
)
def test_the_end_does_not_wait_for_calls_that_hang(clock: FakeClock, fault: Any) -> None:
    """Their connections are closed without (the rest of) an answer."""
    cloud = Simulator(clock=clock)
    cloud.start()
    cloud.inject(fault)
    with connect(cloud) as connection:
        connection.sendall(REQUEST)
        while not cloud.calls:
            time.sleep(0.001)
        before = time.monotonic()
        cloud.stop()
        assert time.monotonic() - before < 5
        with connection.makefile("rb") as answer:
            assert b"media-types" not in answer.read()


def test_the_end_waits_for_a_call_that_is_being_worked_on() -> None:
    """So that no thread is left."""
    before, at_work = set(threading.enumerate()), threading.Event()

    def slow_clock() -> float:
        at_work.set()
        time.sleep(0.05)
        return time.time()

    cloud = Simulator(clock=slow_clock)
    with cloud, connect(cloud) as connection:
        connection.sendall(REQUEST)
        assert at_work.wait(5)
        cloud.stop()
    assert set(threading.enumerate()) <= before


def test_an_incomplete_request_does_not_delay_the_end(cloud: Simulator) -> None:
    """It does not count as a call."""
    with connect(cloud) as connection:
        connection.sendall(REQUEST)
        connection.recv(1000)
        connection.sendall(b"POST /v3/auth/tokens HTTP/1.1\r\nContent-Length: 100\r\n\r\n{")
        cloud.stop()
        assert is_closed(connection)
    assert cloud.count(CallKind.LOGIN) == 0


def test_a_client_that_disconnects_is_not_an_error(cloud: Simulator, ask: Ask) -> None:
    """Others are served as before."""
    with connect(cloud) as connection:
        connection.sendall(b"GET /v3 HT")
    with connect(cloud) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.sendall(REQUEST)
    assert ask("GET", "/v3").status == 200


def test_latency_is_real_time_and_holds_for_every_call(ask: Ask, clock: FakeClock) -> None:
    """Whatever is asked."""
    with Simulator(clock=clock, latency=0.02) as cloud:
        before = time.monotonic()
        assert ask("GET", "/v3", to=cloud).status == 200
        assert time.monotonic() - before >= 0.02


def test_the_fixture_is_a_running_cloud(bms_cloud: Any, ask: Ask) -> None:
    """As a user of the package gets it."""
    assert bms_cloud.calls == []
    answer = ask("GET", "/v2.1/servers", to=bms_cloud, token=bms_cloud.token())
    assert answer.json() == {"servers": []}


def test_the_simulator_needs_nothing_but_the_standard_library() -> None:
    """Nothing of the rest of the project either; pytest only for the fixture, which nothing imports."""
    folder = Path(handler.simulator.__file__).parent
    for file in sorted(folder.rglob("*.py")):
        names = set()
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add(str(node.module))
        own = {name for name in names if name.startswith("handler")}
        assert all(name.startswith("handler.simulator") for name in own), file.name
        assert "handler.simulator.fixture" not in own
        allowed = {"pytest"} if file.name == "fixture.py" else set()
        assert {name.partition(".")[0] for name in names - own} <= set(sys.stdlib_module_names) | allowed


def test_a_port_that_has_errors_for_a_moment_goes_on(
    cloud: Simulator, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Out of file descriptors, for example, while a caller waits."""
    original, errors = socket.socket.accept, [OSError(24, "Too many open files")]

    def accept(listener: Any) -> Any:
        if errors:
            raise errors.pop()
        return original(listener)

    ask("GET", "/v3")
    monkeypatch.setattr(socket.socket, "accept", accept)
    # The thread is within the true one at this moment; its next turn gets the error.
    assert [ask("GET", "/v3").status for _ in range(2)] == [200, 200]
    assert errors == []
    assert cloud.count(CallKind.VERSION) == 3
