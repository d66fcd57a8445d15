"""Measure what slow, idle, dripping and endless clients do to one function process.

Run as `python -m tests.harness.slow_clients`. The function is served as in production, by functions-framework and
gunicorn with 8 threads; everything is on loopback. Each line shows how long `/healthz` took while the clients were
connected, when they were disconnected, and by how much the resident memory of the process grew.
"""

from __future__ import annotations

import argparse
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from handler.simulator import CallKind, Fault, Simulator
from tests.harness.bench.stage import cpu, memory
from tests.support.events import binary
from tests.support.process import ServerProcess, environment, free_port, function_command
from tests.support.raw_http import request, rest, statuses

_PATIENCE = 25.0
_HEAD = b"POST / HTTP/1.1\r\nHost: function.example\r\n"


class Server(ServerProcess):
    """A function process."""

    def connect(self, sent: bytes = b"") -> socket.socket:
        """Open a connection, and send this."""
        client = socket.create_connection(("127.0.0.1", self.port), _PATIENCE)
        client.sendall(sent)
        return client

    def ask(self, sent: bytes) -> tuple[float, bytes]:
        """Seconds until the answer was complete, and the answer; empty if none came in time."""
        began = time.monotonic()
        try:
            with self.connect(sent) as client:
                client.shutdown(socket.SHUT_WR)
                answer = rest(client)
                return time.monotonic() - began, answer
        except OSError:
            return time.monotonic() - began, b""

    def health(self) -> str:
        """How long `/healthz` takes now, in words."""
        began = time.monotonic()
        _, answer = self.ask(request("GET", "/healthz"))
        took = time.monotonic() - began
        return f"/healthz {took:.2f} s" if statuses(answer) == [200] else f"/healthz no answer in {took:.1f} s"


@contextmanager
def serving(cloud: Simulator, stdout: int = subprocess.DEVNULL, **settings: Any) -> Iterator[Server]:
    """Run the function until the end."""
    port = free_port()
    settings = {"THREADS": "8", "AUTOSTOP_INBOUND_AUTH": "none", "AUTOSTOP_WAIT": "5s", **cloud.environ(), **settings}
    with tempfile.TemporaryDirectory() as folder:
        server = Server(function_command(port), environment(**settings), Path(folder) / "log", port=port, stdout=stdout)
        try:
            server.restart()
            yield server
        finally:
            server.kill()


def _closed(clients: Sequence[socket.socket], began: float) -> str:
    """When the last of these was disconnected by the server, in words."""
    for client in clients:
        client.settimeout(max(0.01, began + _PATIENCE - time.monotonic()))
        try:
            while client.recv(65536):
                pass
        except TimeoutError:
            return f"connected after {_PATIENCE:.0f} s"
        except OSError:
            pass
    return f"disconnected within {time.monotonic() - began:.1f} s"


def _drip(clients: Sequence[socket.socket], piece: bytes, seconds: float, stop: threading.Event) -> None:
    """Send this on all connections every so many seconds."""
    while not stop.wait(seconds):
        for client in clients:
            with suppress(OSError):
                client.sendall(piece)


def held(server: Server, count: int, first: bytes, drip: bytes = b"", every: float = 2.0) -> str:
    """What `count` clients do that send `first`, and then `drip` again and again, or nothing more."""
    before, began = memory(server.pid), time.monotonic()
    with ExitStack() as stack:
        clients = [stack.enter_context(server.connect(first)) for _ in range(count)]
        stop = threading.Event()
        if drip:
            sender = threading.Thread(target=_drip, args=(clients, drip, every, stop), daemon=True)
            sender.start()
        time.sleep(0.3)
        health = server.health()
        grown = memory(server.pid) - before
        closed = _closed(clients, began)
        stop.set()
    return f"{health}; {closed}; memory {grown:+.1f} MiB"


def endless(server: Server, first: bytes, piece: bytes) -> str:
    """What a client does that goes on sending a line without an end."""
    before, began = memory(server.pid), time.monotonic()
    with server.connect(first) as client:
        sent, answer = 0, b""
        client.settimeout(0.2)
        while time.monotonic() < began + 8.0:
            try:
                sent += client.send(piece)
            except TimeoutError:
                continue
            except OSError:
                break
        took = time.monotonic() - began
        health = server.health()
        with suppress(OSError):
            answer = client.recv(65536)
    reported = f"answered {statuses(answer)}" if answer else "no answer"
    grown = memory(server.pid) - before
    return f"{sent / 2**20:.1f} MiB sent in {took:.1f} s, {reported}; {health}; memory {grown:+.1f} MiB"


def left_open(server: Server, count: int) -> str:
    """What clients do that ask for `Connection: close` and then leave the connection open."""
    with ExitStack() as stack:
        for _ in range(count):
            client = stack.enter_context(server.connect(request("GET", "/", {"Connection": "close"})))
            assert client.recv(65536)
        return server.health()


def readiness(cloud: Simulator) -> str:
    """What 16 questions whether the function is ready do while the login hangs."""
    with serving(cloud) as server:
        cloud.inject(Fault(on=CallKind.LOGIN, times=None, delay=30.0))
        try:
            asked: list[tuple[float, bytes]] = []
            threads = [
                threading.Thread(target=lambda: asked.append(server.ask(request("GET", "/readyz")))) for _ in range(16)
            ]
            for thread in threads:
                thread.start()
            time.sleep(0.3)
            took, _ = server.ask(request(body=b"x"))
            health = server.health()
            for thread in threads:
                thread.join()
            late = sorted(seconds for seconds, _ in asked)
            return f"another request {took:.2f} s; {health}; /readyz answered after {late[0]:.1f} to {late[-1]:.1f} s"
        finally:
            cloud.clear_faults()


def unread(cloud: Simulator) -> str:
    """How long an event takes whose log is not read."""
    with serving(cloud, subprocess.PIPE, AUTOSTOP_DEADLINE="10s") as server:
        for _ in range(400):
            _, answer = server.ask(request(body=b"x"))
            if not answer:
                break
        took, answer = server.ask(request(headers=binary({})[0], body=binary({})[1]))
        return f"answered {statuses(answer)} in {took:.1f} s" if answer else f"no answer in {took:.1f} s"


def invoked(cloud: Simulator) -> str:
    """What a caller without a token costs who posts 0.96 MB to FunctionGraph's path, in processor time."""
    body = b'{"a": [' + b", ".join([b'{"b": "c"}'] * 80_000) + b"]}"
    secure: dict[str, Any] = {
        "AUTOSTOP_INBOUND_AUTH": "bearer",
        "AUTOSTOP_BEARER_TOKENS": "0123456789abcdef0123456789abcdef",
    }
    with serving(cloud, **secure) as server:
        costs = []
        for path in ("/", "/invoke"):
            used = cpu(server.pid)
            for _ in range(10):
                server.ask(request("POST", path, {"Content-Type": "application/json"}, body))
            costs.append(f"{path} {(cpu(server.pid) - used) * 100:.0f} ms")
        return ", ".join(costs)


def main() -> int:
    """Run the cases whose name contains the argument, or all, and print a line for each."""
    parser = argparse.ArgumentParser(prog="python -m tests.harness.slow_clients", description=__doc__)
    parser.add_argument("only", nargs="?", default="")
    only = parser.parse_args().only
    with Simulator() as cloud:

        def on_one(measure: Callable[[Server], str]) -> Callable[[], str]:
            def run() -> str:
                with serving(cloud) as server:
                    return measure(server)

            return run

        body = b"Content-Type: application/json\r\nContent-Length: 900\r\n\r\n"
        ended = request("GET", "/healthz")
        cases: dict[str, Callable[[], str]] = {
            "8 idle": on_one(lambda server: held(server, 8, b"")),
            "100 idle": on_one(lambda server: held(server, 100, b"")),
            "100 with 60 KiB of head": on_one(
                lambda server: held(
                    server, 100, _HEAD + b"A: " + b"x" * 8000 + b"\r\n" + (b"A: " + b"x" * 8000 + b"\r\n") * 6
                )
            ),
            "8 dripping heads": on_one(lambda server: held(server, 8, _HEAD, b"A: b\r\n")),
            "8 dripping heads on kept connections": on_one(lambda server: held(server, 8, ended + _HEAD, b"A: b\r\n")),
            "8 dripping bodies": on_one(lambda server: held(server, 8, _HEAD + body, b"x")),
            "endless request line": on_one(lambda server: endless(server, b"GET /", b"x" * 65536)),
            "endless header": on_one(lambda server: endless(server, _HEAD + b"A: ", b"x" * 65536)),
            "endless headers": on_one(lambda server: endless(server, _HEAD, b"A: b\r\n" * 10000)),
            "8 left open after the answer": on_one(lambda server: left_open(server, 8)),
            "16 readyz while the login hangs": lambda: readiness(cloud),
            "stdout that is not read": lambda: unread(cloud),
            "0.96 MB without a token": lambda: invoked(cloud),
        }
        for name, case in cases.items():
            if only in name:
                print(f"{name}: {case()}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
