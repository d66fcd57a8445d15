"""Where the manifests are, and the processes that they describe, on loopback."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import requests

from tests.deploy.broker import Broker, Event, event_of
from tests.deploy.rules import environment

ROOT = Path(__file__).parent.parent.parent
KNATIVE = ROOT / "deploy" / "knative"
BASE = KNATIVE / "base"
PRODUCTION = KNATIVE / "overlays" / "production"
OIDC = KNATIVE / "overlays" / "production-oidc"
KAFKA = KNATIVE / "overlays" / "production-kafka"
OVERLAYS = (BASE, PRODUCTION, OIDC, KAFKA)
_HANGS = 30.0


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


class Process:
    """One Service of the manifests as a process: its command, its variables, and those that are given here.

    Args:
        service: the rendered manifest.
        environ: what a Secret and a SinkBinding would add, and what a test wants otherwise.
        log: where its output goes.
    """

    def __init__(self, service: Mapping[str, Any], environ: Mapping[str, str], log: Path) -> None:
        (container,) = service["spec"]["template"]["spec"]["containers"]
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = log
        if "command" in container:
            self._command = [sys.executable, *container["command"][1:], *container["args"]]
        else:
            self._command = [sys.executable, "-m", "functions_framework", "--source", str(ROOT / "handler" / "main.py")]
        # What the image sets, and a path to this source.
        base = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
        image = {"FUNCTION_TARGET": "stop_servers", "HOST": "127.0.0.1", "PORT": str(self.port)}
        self._environ = {**base, **image, **environment(container), **environ}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the server, whose child does the work."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it; it need not listen yet."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, env=self._environ, stdout=log, stderr=log, cwd=ROOT)

    def until_up(self) -> None:
        """Wait until it listens."""
        give_up = time.monotonic() + _HANGS
        while True:
            try:
                requests.get(f"{self.url}/healthz", timeout=_HANGS)
                return
            except requests.ConnectionError:
                assert self._process is not None
                assert self._process.poll() is None, self._log.read_text()
                assert time.monotonic() < give_up
                time.sleep(0.02)

    def restart(self) -> None:
        """As a platform does with a process that died."""
        self.start()
        self.until_up()

    def kill(self) -> None:
        """End it and its children in the middle of whatever they do."""
        if self._process is None or self._process.poll() is not None:
            return
        pid = self._process.pid
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            os.kill(int(child), signal.SIGKILL)
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        """End it as a platform does; the exit code."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(_HANGS)

    def lines(self) -> list[dict[str, Any]]:
        """The JSON lines that it has written."""
        return [json.loads(line) for line in self._log.read_text().splitlines() if line.startswith("{")]


def bound(objects: list[dict[str, Any]], service: str, sink: str) -> dict[str, str]:
    """What a SinkBinding to the broker, if there is one, puts into the environment of a Service."""
    for each in objects:
        if each["kind"] == "SinkBinding" and each["spec"]["subject"]["name"] == service:
            assert each["spec"]["sink"]["ref"]["kind"] == "Broker"
            overrides = each["spec"].get("ceOverrides")
            return {"K_SINK": sink, "K_CE_OVERRIDES": json.dumps(overrides) if overrides else ""}
    return {}


def tick(source: Mapping[str, Any], data: Mapping[str, Any]) -> Event:
    """What a PingSource of the manifests sends when its time has come, with these servers in its data."""
    namespace, name = source["metadata"].get("namespace", "default"), source["metadata"]["name"]
    return Event(
        {
            "specversion": "1.0",
            "id": str(uuid.uuid4()),
            "source": f"/apis/v1/namespaces/{namespace}/pingsources/{name}",
            "type": "dev.knative.sources.ping",
            "time": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        },
        json.dumps({**json.loads(source["spec"]["data"]), **data}).encode(),
        source["spec"]["contentType"],
    )


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A process that is killed cuts its lines; anything else is told."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class Ingress:
    """Where events are POSTed to a broker.

    Attributes:
        broker: which takes them at the moment.
    """

    def __init__(self) -> None:
        self.broker: Broker | None = None
        ingress = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                """Answer when the broker does: 202; 400 for what is not an event; 503 while the broker is down."""
                event = event_of(dict(self.headers.items()), self.rfile.read(int(self.headers["Content-Length"])))
                broker = ingress.broker
                publication = broker.publish(event) if event is not None and broker is not None else None
                if publication is not None:
                    while not publication.answered.wait(0.02):
                        if self._client_is_gone():
                            publication.cancel()
                            self.close_connection = True
                            return
                status = 400 if event is None else 503 if publication is None else publication.status or 503
                self.send_response_only(status)
                if status == 503:
                    # Longer than any client waits within one attempt.
                    self.send_header("Retry-After", "120")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def _client_is_gone(self) -> bool:
                readable, _, _ = select.select([self.connection], [], [], 0)
                return bool(readable) and self.connection.recv(1, socket.MSG_PEEK) == b""

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/bms-autostop/bms-autostop"

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
