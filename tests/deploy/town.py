"""The processes of the manifests in front of a simulated cloud, and the events that come to them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from handler.inbound.extract import STOP_REQUESTED
from handler.simulator import CallKind, Fault, Simulator
from tests.deploy import kustomize
from tests.deploy.broker import Broker, Event
from tests.deploy.stage import PRODUCTION, Ingress, Process, bound, tick
from tests.support.sink_server import SinkServer

OBJECTS = kustomize.render(PRODUCTION)
# Five seconds of the function's budget stand for 50.
QUICK = {"AUTOSTOP_DRY_RUN": "false", "AUTOSTOP_DEADLINE": "5s", "AUTOSTOP_WAIT": "500ms", "THREADS": "8"}
# A gateway says so when what is behind it is in trouble, and for so long that the function does not wait for it.
OVERLOADED = [
    Fault(on=kind, status=503, headers={"Retry-After": "120"}, times=None)
    for kind in (CallKind.LOGIN, CallKind.READ, CallKind.LIST)
]
ALERT_TOKEN = "alert-token-of-this-test"
_numbers = itertools.count(1)


def found(kind: str, name: str) -> dict[str, Any]:
    return next(each for each in OBJECTS if (each["kind"], each["metadata"]["name"]) == (kind, name))


class Town:
    """The processes of the manifests, and what a test looks at afterwards.

    Attributes:
        stopper: stop_servers whose results are answers, as in the base.
        posting: stop_servers whose results go to the sink, as in the overlay.
    """

    def __init__(
        self, cloud: Simulator, ingress: Ingress, chat: SinkServer, folder: Path, settings: Mapping[str, str]
    ) -> None:
        self.cloud, self._ingress, self._chat = cloud, ingress, chat

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
        self.log = process("bms-autostop-log")
        self.all = (self.stopper, self.posting, self.webhook, self.log)

    def broker(self, *, posting: bool = False) -> Broker:
        """A broker with nothing in it, in front of these processes."""
        # The chat's target has tests of its own; here a stand-in takes what it would get.
        chat = self._chat.url.removesuffix("/results")
        addresses = {
            "bms-autostop": (self.posting if posting else self.stopper).url,
            "bms-autostop-log": self.log.url,
            "bms-autostop-chat": chat,
        }
        broker = Broker(OBJECTS, addresses)
        self._ingress.broker = broker
        return broker

    def logged(self, path: str, event: Event) -> list[dict[str, Any]]:
        """What the log service wrote of an event or of its result."""
        id_ = event.attributes["id"]
        return [
            line
            for line in self.log.lines()
            if line.get("path") == path and id_ in (line["ce-id"], line.get("ce-causationid"))
        ]

    def told(self, event: Event) -> int:
        """How many results of an event came to the chat."""
        return sum(got.headers.get("ce-causationid") == event.attributes["id"] for got in self._chat.got)


def night(*server_ids: str) -> Event:
    """The schedule's event, for these servers."""
    return tick(found("PingSource", "weekday-evening"), {"server_ids": list(server_ids)})


def request(*server_ids: str, **attributes: str) -> Event:
    """An event as a pipeline sends it."""
    identity = {"specversion": "1.0", "id": f"flow-{next(_numbers)}", "source": "/pipeline", "type": STOP_REQUESTED}
    return Event({**identity, **attributes}, json.dumps({"server_ids": list(server_ids)}).encode())


def alarm(server_id: str) -> dict[str, Any]:
    """What Alertmanager sends while an alert fires."""
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
def running(folder: Path, **settings: str) -> Iterator[Town]:
    """All processes, until the end of the block; the settings are those of the two that stop servers."""
    with Simulator() as cloud, SinkServer() as chat:
        ingress = Ingress()
        town = Town(cloud, ingress, chat, folder, settings)
        try:
            for process in town.all:
                process.start()
            for process in town.all:
                process.until_up()
            yield town
        finally:
            for process in town.all:
                process.kill()
            ingress.close()
