"""The processes of the manifests in front of a simulated cloud, and the events that come to them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from handler.event_types import STOP_REQUESTED
from handler.simulator import CallKind, Fault, Simulator
from tests.deploy import kustomize
from tests.deploy.broker import Broker, Channel, Event
from tests.deploy.stage import PRODUCTION, Ingress, Process, bound, tick
from tests.support.sink_server import SinkServer

OBJECTS = kustomize.render(PRODUCTION)
# Five seconds of the function's budget stand for 50.
QUICK = {"AUTOSTOP_DRY_RUN": "false", "AUTOSTOP_DEADLINE": "5s", "AUTOSTOP_WAIT": "500ms", "THREADS": "8"}
# What a gateway answers when the cloud behind it is overloaded, with a wait longer than the function's budget.
OVERLOADED = [
    Fault(on=kind, status=503, headers={"Retry-After": "120"}, times=None)
    for kind in (CallKind.LOGIN, CallKind.READ, CallKind.LIST)
]
ALERT_TOKEN = "alert-token-of-this-test"
_numbers = itertools.count(1)


def found(kind: str, name: str) -> dict[str, Any]:
    """Return an object of the manifests."""
    return next(each for each in OBJECTS if (each["kind"], each["metadata"]["name"]) == (kind, name))


class Environment:
    """The processes of the manifests, and what a test looks at afterwards.

    Attributes:
        cloud: the simulated cloud.
        stopper: stop_servers whose results are replies, as in the base.
        posting: stop_servers whose results go to the sink, as in the overlay.
        chat: notify_chat, which posts to a stand-in for the chat.
        log: the program that logs results and dead letters.
    """

    def __init__(
        self, cloud: Simulator, ingress: Ingress, messages: SinkServer, folder: Path, settings: Mapping[str, str]
    ) -> None:
        self.cloud, self._ingress, self._messages = cloud, ingress, messages

        def process(name: str, mark: str = "", **environ: str) -> Process:
            return Process(found("Service", name), environ, folder / f"{name}{mark}.log")

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

    def broker(self, channel: Channel | None = None, *, posting: bool = False, **options: Any) -> Broker:
        """Return a broker with nothing in it, in front of these processes."""
        addresses = {
            "bms-autostop": (self.posting if posting else self.stopper).url,
            "bms-autostop-log": self.log.url,
            "bms-autostop-chat": self.chat.url,
        }
        broker = Broker(OBJECTS, addresses, channel=channel, **options)
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
        for result in self._ingress.broker.taken_in if self._ingress.broker else []:
            if result.attributes.get("causationid") == event.attributes["id"]:
                ends.setdefault(result.attributes["id"], set()).add(json.loads(result.data)["finished_at"])
        return {id_: len(times) for id_, times in ends.items()}

    def posted(self, result_id: str) -> int:
        """Return how many messages about a result came to the chat."""
        return self._chat_lines("result posted", result_id)

    def dropped(self, result_id: str) -> int:
        """Return how many repeats of a result notify_chat dropped."""
        return self._chat_lines("result posted before", result_id)

    def messages(self, event: Event) -> int:
        """Return how many messages about an event's results came to the chat."""
        return sum(self.posted(id_) for id_ in self.results(event))

    def _chat_lines(self, message: str, result_id: str) -> int:
        return sum((line["message"], line.get("event_id")) == (message, result_id) for line in self.chat.lines())


def night(*server_ids: str) -> Event:
    """Return the schedule's event, for these servers."""
    return tick(found("PingSource", "weekday-evening"), {"server_ids": list(server_ids)})


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
