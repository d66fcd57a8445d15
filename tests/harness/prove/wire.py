"""The wire between the function and the simulated cloud, without sockets: what goes over it, and what goes wrong on it.

Whatever takes time takes it from the held clock. Each exchange is one step: nobody acts in the middle of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from http.client import RemoteDisconnected
from urllib.parse import urlsplit

import urllib3

from handler import http_client
from handler.simulator import CallKind
from handler.simulator.cloud import Cloud, Delivery
from handler.simulator.messages import Request
from tests.harness.prove import fibers
from tests.harness.prove.clock import Clock
from tests.harness.prove.ledger import Errand, Ledger

CLOUD = "http://cloud.test"
_POOL = urllib3.HTTPConnectionPool("cloud.test")


class Failure(StrEnum):
    """What can go wrong between the function and the cloud."""

    REFUSED = "refused"
    """No connection: nothing is sent."""
    LATE = "late"
    """No answer in time; the cloud gets to it only some seconds after that."""
    HELD = "held"
    """The cloud does it at once, and its answer does not come in time."""
    SLOW = "slow"
    """The answer takes some seconds, which may be in time."""
    STRIPPED = "stripped"
    """The answer to a read lacks locks, tags and metadata, as of an old microversion."""
    WRONG = "wrong"
    """The answer to a read shows another server."""
    PAGE = "page"
    """A portal answers a read with 200 and a page of its own."""


@dataclass(frozen=True, slots=True)
class Hitch:
    """A trouble that waits for the next call of a kind.

    Attributes:
        server_id: only calls about this server; None for all.
        seconds: for LATE and SLOW.
    """

    on: CallKind
    trouble: Failure
    server_id: str | None = None
    seconds: float = 0.0


class Wire(http_client.HttpClient):
    """Carries the function's requests to the cloud and writes down what came back.

    Args:
        latency: seconds that each exchange takes.
    """

    def __init__(self, clock: Clock, cloud: Cloud, ledger: Ledger, latency: float) -> None:
        super().__init__()
        self.hitches: list[Hitch] = []
        self._clock = clock
        self._cloud = cloud
        self._ledger = ledger
        self._latency = latency
        self.limbo: list[tuple[float, Request, Errand]] = []

    def send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None = None,
        timeout: float,
        head_only: bool = False,  # noqa: ARG002
    ) -> http_client.HttpResponse:
        """Carry one request there and its answer back."""
        patience = timeout
        began = self._clock.monotonic()
        asked = _asked(method, url, headers, body)
        (kind, server_id), ids = self._cloud.classify(asked), self._cloud.servers_of(asked)
        errand = fibers.current().errand
        self._clock.advance(min(self._latency / 2, patience))
        hitch = self._strike(kind, ids)
        trouble = hitch.trouble if hitch else None
        if trouble is Failure.REFUSED:
            raise urllib3.exceptions.NewConnectionError(None, "Connection refused")  # type: ignore[arg-type]
        with self._sent(errand, kind, ids):
            if hitch and trouble is Failure.LATE:
                self.limbo.append((self._clock.monotonic() + patience + hitch.seconds, asked, errand))
                delivery = None
            else:
                if trouble is Failure.WRONG and server_id is not None:
                    asked = replace(asked, target=self._other(asked.target, server_id))
                delivery = self._cloud.handle(asked)
        if delivery is None or trouble is Failure.HELD:
            self._clock.advance(patience)
            raise urllib3.exceptions.ReadTimeoutError(_POOL, url, "no answer")
        if hitch and trouble is Failure.SLOW:
            if hitch.seconds > patience:
                self._clock.advance(patience)
                raise urllib3.exceptions.ReadTimeoutError(_POOL, url, "no answer")
            self._clock.advance(hitch.seconds)
        answer = self._back(delivery, trouble)
        self._clock.advance(self._latency / 2)
        in_time = self._clock.monotonic() - began <= patience
        # Of an answer without a body nothing can get lost.
        torn = bool(delivery.answer and delivery.answer.body) and (delivery.half or not in_time)
        whole = not torn and trouble not in (Failure.STRIPPED, Failure.WRONG, Failure.PAGE)
        self._ledger.answered(errand, kind, ids, answer.status, whole=whole)
        if torn:
            raise urllib3.exceptions.ProtocolError("cut in the body")
        return answer

    def time_passed(self) -> None:
        """Let the cloud get to what lay about until now."""
        due = [late for late in self.limbo if late[0] <= self._clock.monotonic()]
        self.limbo = [late for late in self.limbo if late not in due]
        for _, asked, errand in due:
            self._cloud.handle(asked)
            for server_id in self._cloud.calls.all()[-1].acted_on:
                self._ledger.taken_late(errand, server_id)

    @contextmanager
    def _sent(self, errand: Errand, kind: CallKind, ids: tuple[str, ...]) -> Iterator[None]:
        # The law looks at a stop as it arrives, before the cloud has had its say.
        if kind is CallKind.STOP:
            self._ledger.stop_sent(errand, ids)
        before = len(self._cloud.calls.all())
        yield
        calls = self._cloud.calls.all()
        if kind is CallKind.STOP and len(calls) > before:
            for server_id in calls[-1].acted_on:
                self._ledger.stop_taken(errand, server_id)
        if kind in (CallKind.READ, CallKind.LIST):
            self._ledger.look(errand, ids)

    def _strike(self, kind: CallKind, ids: tuple[str, ...]) -> Hitch | None:
        for hitch in self.hitches:
            if hitch.on is kind and hitch.server_id in (None, *ids):
                self.hitches.remove(hitch)
                self._ledger.tally.add("faults", f"{hitch.on}-{hitch.trouble}")
                return hitch
        return None

    def _other(self, target: str, server_id: str) -> str:
        others = [server.id for server in self._cloud.world.all() if not server.deleted and server.id != server_id]
        # A lone server can't be mistaken for another; the answer is then no use in another way.
        return target.replace(server_id, others[0]) if others else "/v2.1/nowhere"

    def _back(self, delivery: Delivery, trouble: Failure | None) -> http_client.HttpResponse:
        answer = delivery.answer
        if answer is None:
            raise urllib3.exceptions.ProtocolError("Connection aborted.", RemoteDisconnected("closed"))
        body = answer.body
        if trouble is Failure.PAGE:
            return http_client.HttpResponse(200, urllib3.HTTPHeaderDict({"Content-Type": "text/html"}), b"<html>")
        if trouble is Failure.STRIPPED and answer.status == 200:
            document = json.loads(body)
            for name in ("locked", "tags", "metadata"):
                document["server"].pop(name, None)
            body = json.dumps(document).encode()
        return http_client.HttpResponse(answer.status, urllib3.HTTPHeaderDict(answer.headers), body)


class SinkTrouble(StrEnum):
    """What can go wrong with a result on its way to the sink."""

    BUSY = "busy"
    """The sink answers 503."""
    UNWILLING = "unwilling"
    """The sink answers 400."""
    DEAF = "deaf"
    """The sink takes the event, and the line is cut before its answer."""


class SinkWire(http_client.HttpClient):
    """A sink without a socket, which keeps what it took."""

    def __init__(self, clock: Clock, ledger: Ledger, latency: float) -> None:
        super().__init__()
        self.troubles: list[SinkTrouble] = []
        self._clock = clock
        self._ledger = ledger
        self._latency = latency

    def send(
        self,
        method: str,  # noqa: ARG002
        url: str,  # noqa: ARG002
        *,
        headers: Mapping[str, str],
        body: bytes | None = None,
        timeout: float,  # noqa: ARG002
        head_only: bool = False,  # noqa: ARG002
    ) -> http_client.HttpResponse:
        """Take one event, or don't."""
        errand = fibers.current().errand
        fibers.sleep(self._clock, self._latency)
        trouble = self.troubles.pop(0) if self.troubles else None
        if trouble:
            self._ledger.tally.add("faults", f"sink-{trouble}")
        status = {SinkTrouble.BUSY: 503, SinkTrouble.UNWILLING: 400}.get(trouble, 202)  # type: ignore[call-overload]
        if status == 202:
            self._ledger.result_posted(errand, {name.lower(): value for name, value in headers.items()}, body or b"")
        fibers.pause()
        if trouble is SinkTrouble.DEAF:
            raise urllib3.exceptions.ProtocolError("cut")
        return http_client.HttpResponse(status, {}, b"")


def _asked(method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> Request:
    parts = urlsplit(url)
    return Request(
        method=method,
        target=parts.path + (f"?{parts.query}" if parts.query else ""),
        headers=tuple(headers.items()),
        body=body or b"",
        base_url=CLOUD,
    )
