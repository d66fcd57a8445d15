"""The processes of Knative's manifests on loopback, in front of a simulated cloud, and the events that come to them."""

from __future__ import annotations

import itertools
import json
import select
import socket
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from handler.event_types import STOP_REQUESTED
from handler.simulator import CallKind, Fault, Simulator
from tests.deploy.broker import Broker, Channel, Event, event_of
from tests.deploy.kustomize import PRODUCTION, find, render
from tests.deploy.validate import environment as variables_of
from tests.support.http_server import Handler, HttpServer
from tests.support.process import MAIN, ServerProcess, environment, free_port
from tests.support.sink_server import SinkServer

OBJECTS = render(PRODUCTION)
# Five seconds of the function's budget stand for 50.
QUICK = {"AUTOSTOP_DRY_RUN": "false", "AUTOSTOP_DEADLINE": "5s", "AUTOSTOP_WAIT": "500ms", "THREADS": "8"}
# What a gateway answers when the cloud behind it is overloaded, with a wait longer than the function's budget.
OVERLOADED = [
    Fault(on=kind, status=503, headers={"Retry-After": "120"}, times=None)
    for kind in (CallKind.LOGIN, CallKind.READ, CallKind.LIST)
]
ALERT_TOKEN = "alert-token-of-this-test"
_numbers = itertools.count(1)


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
    """Return what a SinkBinding to the broker, if there is one, puts into the environment of a Service."""
    for each in objects:
        if each["kind"] == "SinkBinding" and each["spec"]["subject"]["name"] == service:
            assert each["spec"]["sink"]["ref"]["kind"] == "Broker"
            overrides = each["spec"].get("ceOverrides")
            return {"K_SINK": sink, "K_CE_OVERRIDES": json.dumps(overrides) if overrides else ""}
    return {}


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
                        if self._disconnected():
                            publication.cancel()
                            self.close_connection = True
                            return
                status = 400 if event is None else 503 if publication is None else publication.status or 503
                # Longer than any client waits within one attempt.
                self.reply(status, headers={"Retry-After": "120"} if status == 503 else None)

            def _disconnected(self) -> bool:
                readable, _, _ = select.select([self.connection], [], [], 0)
                return bool(readable) and self.connection.recv(1, socket.MSG_PEEK) == b""

        super().__init__(Answers)
        self.url = f"{self.origin}/bms-autostop/bms-autostop"


class Environment:
    """The processes of the manifests, and what they have done.

    Attributes:
        cloud: the simulated cloud.
        stopper: stop_servers whose results are replies, as in the base.
        posting: stop_servers whose results go to the sink, as in the overlay.
        chat: notify_chat, which posts to a server in place of the chat.
        log: the program that logs results and dead letters.
    """

    def __init__(
        self, cloud: Simulator, ingress: Ingress, messages: SinkServer, folder: Path, settings: Mapping[str, str]
    ) -> None:
        self.cloud, self._ingress, self._messages = cloud, ingress, messages

        def process(name: str, mark: str = "", **environ: str) -> Process:
            return Process(find(OBJECTS, "Service", name), environ, folder / f"{name}{mark}.log")

        own = {**cloud.environ(), **QUICK, **settings}
        self.stopper = process("bms-autostop", **own)
        self.posting = process(
            "bms-autostop", "-posting", **own, **bound(OBJECTS, "bms-autostop", ingress.url), AUTOSTOP_SOURCE="/posting"
        )
        self.webhook = process(
            "bms-autostop-webhook",
            **bound(OBJECTS, "bms-autostop-webhook", ingress.url),
            AUTOSTOP_ALERTMANAGER_TOKEN=ALERT_TOKEN,
        )
        self.chat = process("bms-autostop-chat", AUTOSTOP_NOTIFY_TEXT_URL=messages.url)
        self.log = process("bms-autostop-log")
        self.all = (self.stopper, self.posting, self.webhook, self.chat, self.log)

    def start_cloud(self) -> None:
        """Start the cloud again, and wait for longer than the function remembers that a login failed (0.5 s).

        On the broker's clock minutes pass before its next attempt, but here it follows at once.
        """
        self.cloud.start()
        time.sleep(1)

    def broker(self, channel: Channel | None = None, *, posting: bool = False) -> Broker:
        """Return a broker with nothing in it, in front of these processes."""
        addresses = {
            "bms-autostop": (self.posting if posting else self.stopper).url,
            "bms-autostop-log": self.log.url,
            "bms-autostop-chat": self.chat.url,
        }
        broker = Broker(OBJECTS, addresses, channel=channel)
        self._ingress.broker = broker
        return broker

    def logged(self, path: str, event: Event) -> list[dict[str, Any]]:
        """Return what the log service wrote of an event or of its result."""
        id_ = event.attributes["id"]
        return [
            line
            for line in self.log.lines()
            if line.get("path") == path and id_ in (line["ce-id"], line.get("ce-causationid"))
        ]

    def results(self, event: Event) -> dict[str, int]:
        """Return the ids of an event's results, and how many different ones came to the broker under each id."""
        ends: dict[str, set[str]] = {}
        for result in self._ingress.broker.accepted if self._ingress.broker else []:
            if result.attributes.get("causationid") == event.attributes["id"]:
                ends.setdefault(result.attributes["id"], set()).add(json.loads(result.data)["finished_at"])
        return {id_: len(times) for id_, times in ends.items()}

    def posted(self, result_id: str) -> int:
        """Return how many messages about a result came to the chat."""
        return self._chat_lines("result posted", result_id)

    def dropped(self, result_id: str) -> int:
        """Return how many repeats of a result notify_chat dropped."""
        return self._chat_lines("result posted before", result_id)

    def outcome(self, event: Event) -> tuple[int, int, int]:
        """Return how many results and failures of an event were logged, and how many messages came to the chat."""
        return len(self.logged("/results", event)), len(self.logged("/failures", event)), self.messages(event)

    def messages(self, event: Event) -> int:
        """Return how many messages about an event's results came to the chat."""
        return sum(self.posted(id_) for id_ in self.results(event))

    def _chat_lines(self, message: str, result_id: str) -> int:
        return sum((line["message"], line.get("event_id")) == (message, result_id) for line in self.chat.lines())


def night(*server_ids: str) -> Event:
    """Return what the PingSource of the manifests sends when its time has come, with these servers."""
    source = find(OBJECTS, "PingSource", "weekday-evening")
    namespace, name = source["metadata"].get("namespace", "default"), source["metadata"]["name"]
    return Event(
        {
            "specversion": "1.0",
            "id": str(uuid.uuid4()),
            "source": f"/apis/v1/namespaces/{namespace}/pingsources/{name}",
            "type": "dev.knative.sources.ping",
            "time": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        },
        json.dumps({**json.loads(source["spec"]["data"]), "server_ids": list(server_ids)}).encode(),
        source["spec"]["contentType"],
    )


def request(*server_ids: str, **attributes: str) -> Event:
    """Return an event as a pipeline sends it."""
    identity = {"specversion": "1.0", "id": f"flow-{next(_numbers)}", "source": "/pipeline", "type": STOP_REQUESTED}
    return Event({**identity, **attributes}, json.dumps({"server_ids": list(server_ids)}).encode())


def alarm(server_id: str) -> dict[str, Any]:
    """Return what Alertmanager sends while an alert fires."""
    alert = {
        "status": "firing",
        "labels": {"alertname": "Idle", "server_id": server_id},
        "annotations": {},
        "startsAt": "2026-11-20T19:00:00Z",
        "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "",
        "fingerprint": f"{next(_numbers):016x}",
    }
    return {"version": "4", "status": "firing", "receiver": "autostop", "groupKey": "{}", "alerts": [alert]}


@contextmanager
def running(folder: Path, **settings: str) -> Iterator[Environment]:
    """Run all processes until the end of the block; the settings are those of the two that stop servers."""
    with Simulator() as cloud, SinkServer() as messages, Ingress() as ingress:
        environment = Environment(cloud, ingress, messages, folder, settings)
        try:
            for process in environment.all:
                process.start()
            for process in environment.all:
                process.wait_until_ready()
            yield environment
        finally:
            for process in environment.all:
                process.kill()
