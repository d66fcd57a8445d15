"""SIGTERM while events are handled, on the real gunicorn: each is finished, or answered 503 and not begun."""

from __future__ import annotations

import http.client
import io
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import requests

from handler.inbound.http import wsgi
from handler.simulator import Simulator
from tests.conftest import STOP
from tests.support.process import HANG, ROOT, environment
from tests.support.raw_http import FunctionProcess

THREADS = 2
EVENTS = 8


def _accepted(port: int) -> bool:
    """Whether the server has taken every connection that was made to its port."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, queues, *_ = line.split()
        if state == "0A" and int(local.rpartition(":")[2], 16) == port:
            return int(queues.partition(":")[2], 16) == 0
    return False


def _send(url: str, server: str, answers: dict[str, requests.Response | None]) -> None:
    headers = {"ce-specversion": "1.0", "ce-id": server, "ce-source": "/leaving", "ce-type": STOP}
    try:
        answers[server] = requests.post(url, json={"server_ids": [server]}, headers=headers, timeout=60)
    except requests.ConnectionError:
        answers[server] = None


def test_events_in_hand_are_finished_and_others_go_elsewhere(tmp_path: Path) -> None:
    """More events than threads, then SIGTERM: those begun end as ever, those waiting are 503 and untouched.

    A new request is refused at once, while events are still handled.
    """
    environ = {"AUTOSTOP_WAIT": "10s", "AUTOSTOP_DEADLINE": "25s", "THREADS": str(THREADS)}
    with Simulator(power_off_delay=3.0) as cloud:
        function = FunctionProcess(cloud, tmp_path, environ=environ)
        port = function.port
        try:
            function.restart()
            servers = [cloud.add_server(f"leaving-{number}") for number in range(EVENTS)]
            answers: dict[str, requests.Response | None] = {}
            senders = [threading.Thread(target=_send, args=(function.url, server, answers)) for server in servers]
            for sender in senders:
                sender.start()
            give_up = time.monotonic() + 3 * HANG
            while sum(cloud.stops_taken(server) for server in servers) < THREADS or not _accepted(port):
                assert time.monotonic() < give_up
                time.sleep(0.01)
            function.popen.terminate()
            while _reached(port):
                assert time.monotonic() < give_up
                time.sleep(0.01)
            assert sum(sender.is_alive() for sender in senders) >= THREADS
            for sender in senders:
                sender.join()
            assert function.popen.wait(HANG) == 0
        finally:
            function.kill()
        assert [answer is not None and answer.ok for answer in answers.values()].count(True) == THREADS
        assert len(answers) == EVENTS
        for server, answer in answers.items():
            assert answer is not None
            if answer.ok:
                assert answer.json()["summary"]["stopped"] == 1
            else:
                assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
                assert answer.json()["type"] == "urn:bms-autostop:problem:shutting-down"
                assert cloud.stops_sent(server) == 0


def _reached(port: int) -> bool:
    line = http.client.HTTPConnection("127.0.0.1", port, timeout=0.5)
    try:
        line.request("GET", "/healthz")
        line.getresponse()
    except ConnectionError:
        return False
    except TimeoutError:
        # It was let in and left waiting: not yet what is wanted.
        return True
    finally:
        line.close()
    return True


@pytest.mark.parametrize(("deadline", "seconds"), [("5s", 30), ("50s", 60)])
def test_the_server_waits_for_the_longest_event(deadline: str, seconds: int) -> None:
    """Gunicorn's own 30 s would end an event that may take 50 without an answer."""
    program = (
        "import functions_framework, functions_framework._http.gunicorn as served\n"
        f"app = functions_framework.create_app('stop_servers', {str(ROOT / 'handler' / 'main.py')!r}, 'http')\n"
        "print(served.GunicornApplication(app, '127.0.0.1', 0, False).cfg.graceful_timeout)"
    )
    environ = environment(
        AUTOSTOP_INBOUND_AUTH="none",
        AUTOSTOP_DEADLINE=deadline,
        AUTOSTOP_WAIT="0",
        OS_AUTH_URL="http://127.0.0.1:9/v3",
        OS_AUTH_TYPE="admin_token",
        OS_TOKEN="token",
        OS_PROJECT_ID="project",
        AUTOSTOP_COMPUTE_URL="http://127.0.0.1:9/v2.1",
    )
    done = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True, timeout=60)
    # Before it the process logs that it starts.
    assert done.stdout.splitlines()[-1:] == [str(seconds)], done.stderr


@pytest.mark.parametrize(("method", "path"), [("POST", "/"), ("GET", "/readyz"), ("OPTIONS", "/"), ("GET", "/healthz")])
def test_a_process_that_ends_begins_nothing_and_is_alive(method: str, path: str) -> None:
    """Also on a connection that was kept open; or it would be killed before it has finished."""
    statuses: list[str] = []
    environ: dict[str, Any] = {"REQUEST_METHOD": method, "PATH_INFO": path, "wsgi.input": io.BytesIO()}

    def app(_: Any, start: Any) -> list[bytes]:
        start("200 OK", [])
        return [b"from the application"]

    wsgi.shutting_down.set()
    try:
        middleware = wsgi.Middleware(app, 4096)
        answer = b"".join(middleware(environ, lambda status, *_: statuses.append(status)))  # type: ignore[arg-type]
    finally:
        wsgi.shutting_down.clear()
    if path == "/healthz":
        assert answer == b"from the application"
    else:
        assert statuses[0].startswith("503 ")
        assert json.loads(answer)["type"] == "urn:bms-autostop:problem:shutting-down"
