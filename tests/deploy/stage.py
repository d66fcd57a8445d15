"""Where the manifests are, and the processes that they describe, on loopback."""

from __future__ import annotations

import json
import select
import socket
import sys
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.deploy.broker import Broker, Event, event_of
from tests.deploy.rules import environment as variables_of
from tests.support.http_server import Handler, HttpServer
from tests.support.process import MAIN, ROOT, ServerProcess, environment, free_port

KNATIVE = ROOT / "deploy" / "knative"
BASE = KNATIVE / "base"
PRODUCTION = KNATIVE / "overlays" / "production"
OIDC = KNATIVE / "overlays" / "production-oidc"
KAFKA = KNATIVE / "overlays" / "production-kafka"
KEEPS = KNATIVE / "overlays" / "production-keep"
OVERLAYS = (BASE, PRODUCTION, OIDC, KAFKA, KEEPS)


class Process(ServerProcess):
    """One Service of the manifests as a process: its command, its variables, and those that are given here.

    Args:
        service: the rendered manifest.
        environ: what a Secret and a SinkBinding would add, and what a test wants otherwise.
        log: where its output goes.
    """

    def __init__(self, service: Mapping[str, Any], environ: Mapping[str, str], log: Path) -> None:
        (container,) = service["spec"]["template"]["spec"]["containers"]
        if "command" in container:
            command = [sys.executable, *container["command"][1:], *container["args"]]
        else:
            command = [sys.executable, "-m", "functions_framework", "--source", str(MAIN)]
        # What the image sets.
        port = free_port()
        image = {"FUNCTION_TARGET": "stop_servers", "HOST": "127.0.0.1", "PORT": str(port)}
        variables = {**image, **variables_of(container), **environ}
        super().__init__(command, environment(**variables), log, port=port)

    def lines(self) -> list[dict[str, Any]]:
        """Return the JSON lines that it has written."""
        return [json.loads(line) for line in self.output().splitlines() if line.startswith("{")]


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


class Ingress(HttpServer):
    """Where events are POSTed to a broker.

    Attributes:
        broker: which takes them at the moment.
    """

    def __init__(self) -> None:
        self.broker: Broker | None = None
        ingress = self

        class Answers(Handler):
            def do_POST(self) -> None:
                """Answer when the broker does: 202; 400 for what is not an event; 503 while the broker is down."""
                event = event_of(dict(self.headers.items()), self.read_body())
                broker = ingress.broker
                publication = broker.publish(event) if event is not None and broker is not None else None
                if publication is not None:
                    while not publication.answered.wait(0.02):
                        if self._client_is_gone():
                            publication.cancel()
                            self.close_connection = True
                            return
                status = 400 if event is None else 503 if publication is None else publication.status or 503
                # Longer than any client waits within one attempt.
                self.reply(status, headers={"Retry-After": "120"} if status == 503 else None)

            def _client_is_gone(self) -> bool:
                readable, _, _ = select.select([self.connection], [], [], 0)
                return bool(readable) and self.connection.recv(1, socket.MSG_PEEK) == b""

        super().__init__(Answers)
        self.url = f"{self.origin}/bms-autostop/bms-autostop"
