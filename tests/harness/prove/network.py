"""The network between the function and the simulated cloud and sink, without sockets, and what goes wrong on it.

Whatever takes time takes it from the simulated clock. Each exchange is one step: no one acts in the middle of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from http.client import RemoteDisconnected
from typing import Any
from urllib.parse import urlsplit

import urllib3

from handler import http_client
from handler.simulator import CallKind
from handler.simulator.cloud import Cloud, Delivery
from handler.simulator.messages import Request
from tests.harness.prove import scheduler
from tests.harness.prove.approvals import is_announcement
from tests.harness.prove.command import Command
from tests.harness.prove.recorder import Recorder, ids_shown
from tests.harness.prove.scheduler import Clock

CLOUD = "http://cloud.test"
_POOL = urllib3.HTTPConnectionPool("cloud.test")
_STARTS = frozenset({"start", "reboot"})


class NetworkFault(StrEnum):
    """What can go wrong with a call to the cloud on its way or in its answer."""

    REFUSED = "connection refused"
    """Nothing is sent."""
    DELAYED = "delayed"
    """No answer in time; the request reaches the cloud only some seconds after that."""
    NO_ANSWER = "no answer"
    """The cloud does it at once, and its answer does not come in time."""
    SLOW = "slow"
    """The answer takes some seconds, which may be in time."""
    INCOMPLETE = "incomplete"
    """The answer to a read lacks locks, tags and metadata, as of an old microversion."""
    OTHER_SERVER = "other server"
    """The answer to a read shows another server."""
    HTML = "html"
    """A portal answers a read with 200 and a page of its own."""
    UNKNOWN_ACTION = "unknown action"
    """In a history the latest start, or else the latest entry, has an action that no one has documented."""
    NO_ACTION = "no action"
    """That entry has no action."""
    UNREADABLE_TIME = "unreadable time"
    """That entry has a time that cannot be read."""
    NO_ENTRY = "no entry"
    """In the place of that entry is something else than an object."""


HISTORY_FAULTS = frozenset(
    {NetworkFault.UNKNOWN_ACTION, NetworkFault.NO_ACTION, NetworkFault.UNREADABLE_TIME, NetworkFault.NO_ENTRY}
)
_NOT_USABLE = frozenset({NetworkFault.INCOMPLETE, NetworkFault.OTHER_SERVER, NetworkFault.HTML})


@dataclass(frozen=True, slots=True)
class PlannedFault:
    """A fault that waits for the next call of a kind.

    Attributes:
        server_id: only calls about this server; None for all.
        seconds: for DELAYED and SLOW.
    """

    on: CallKind
    fault: NetworkFault
    server_id: str | None = None
    seconds: float = 0.0


class CloudClient(http_client.HttpClient):
    """Carries the function's requests to the cloud and records what came back.

    Args:
        latency: seconds that each exchange takes.

    Attributes:
        on_keep: called with a command, the servers and the body of each keep that arrives.
        delayed: requests on their way, with the time at which they arrive and the command that they are part of.
    """

    def __init__(self, clock: Clock, cloud: Cloud, recorder: Recorder, latency: float) -> None:
        super().__init__()
        self.planned: list[PlannedFault] = []
        self.on_keep: Callable[[Command, Sequence[str], bytes], None] = lambda *_: None
        self.delayed: list[tuple[float, Request, Command]] = []
        self._clock = clock
        self._cloud = cloud
        self._recorder = recorder
        self.latency = latency

    def send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None = None,
        timeout: float,
        **_: Any,
    ) -> http_client.HttpResponse:
        """Carry one request there and its answer back."""
        began = self._clock.monotonic()
        request = _request(method, url, headers, body)
        _api, kind, ids = self._cloud.classify(request)
        command = scheduler.current().command
        self._recorder.called(command, kind)
        if kind is CallKind.STOP:
            self._recorder.stop_attempted(command, ids)
        self._clock.advance(min(self.latency / 2, timeout))
        planned = self._next_fault(kind, ids)
        fault = planned.fault if planned else None
        if fault is NetworkFault.REFUSED:
            self._recorder.failed(command, kind, ids, None)
            raise urllib3.exceptions.NewConnectionError(None, "Connection refused")  # type: ignore[arg-type]
        if planned and fault is NetworkFault.DELAYED:
            if kind is CallKind.STOP:
                self._recorder.stop_sent(command, ids)
            self.delayed.append((self._clock.monotonic() + timeout + planned.seconds, request, command))
            raise self._timed_out(command, kind, ids, url, timeout)
        sent = request
        if fault is NetworkFault.OTHER_SERVER and len(ids) == 1:
            sent = replace(request, target=self._other(request.target, ids[0]))
        delivery = self._handled(command, kind, ids, sent)
        if fault is NetworkFault.NO_ANSWER:
            raise self._timed_out(command, kind, ids, url, timeout)
        if planned and fault is NetworkFault.SLOW:
            if planned.seconds > timeout:
                raise self._timed_out(command, kind, ids, url, timeout)
            self._clock.advance(planned.seconds)
        answer = self._answer(delivery, fault, command, kind, ids)
        self._clock.advance(self.latency / 2)
        in_time = self._clock.monotonic() - began <= timeout
        # Nothing of an answer without a body can be lost.
        cut = bool(delivery.answer and delivery.answer.body) and (delivery.half or not in_time)
        if fault in HISTORY_FAULTS and not cut:
            command.unreadable_history |= set(ids)
        whole = not cut and fault not in _NOT_USABLE
        self._recorder.answered(command, kind, ids, answer.status, answer.body, whole=whole)
        if cut:
            raise urllib3.exceptions.ProtocolError("cut in the body")
        return answer

    def time_passed(self) -> None:
        """Let delayed requests arrive that are due by now."""
        due = [late for late in self.delayed if late[0] <= self._clock.monotonic()]
        self.delayed = [late for late in self.delayed if late not in due]
        for _, request, command in due:
            self._cloud.handle(request)
            for server_id in self._cloud.calls.all()[-1].acted_on:
                self._recorder.stop_taken(command, server_id, late=True)

    def _timed_out(
        self, command: Command, kind: CallKind, ids: tuple[str, ...], url: str, timeout: float
    ) -> urllib3.exceptions.ReadTimeoutError:
        self._clock.advance(timeout)
        if kind is CallKind.LOGIN:
            command.last_login = self._clock.time()
        self._recorder.failed(command, kind, ids, None)
        return urllib3.exceptions.ReadTimeoutError(_POOL, url, "no answer")

    def _handled(self, command: Command, kind: CallKind, ids: tuple[str, ...], request: Request) -> Delivery:
        # A stop is checked as it arrives, before the cloud acts on it.
        if kind is CallKind.STOP:
            self._recorder.stop_sent(command, ids)
        if kind is CallKind.METADATA:
            self.on_keep(command, ids, request.body)
        delivery = self._cloud.handle(request)
        call = self._cloud.calls.all()[-1]
        if kind is CallKind.STOP:
            for server_id in call.acted_on:
                self._recorder.stop_taken(command, server_id)
        if kind in (CallKind.READ, CallKind.LIST):
            self._recorder.shown(command, ids_shown(delivery.answer.body) if delivery.answer else [])
        answer = delivery.answer
        # A login carries secrets, which are random.
        bodies = () if kind is CallKind.LOGIN else (request.body, answer and answer.body)
        self._recorder.counters.write(
            self._clock.time(), request.method, request.target, answer and answer.status, *bodies
        )
        return delivery

    def _next_fault(self, kind: CallKind, ids: tuple[str, ...]) -> PlannedFault | None:
        for planned in self.planned:
            if planned.on is kind and planned.server_id in (None, *ids):
                self.planned.remove(planned)
                self._recorder.counters.add("faults", planned.fault)
                self._recorder.counters.add("faults by call", f"{planned.on} {planned.fault}")
                return planned
        return None

    def _other(self, target: str, server_id: str) -> str:
        others = [server.id for server in self._cloud.store.all() if not server.deleted and server.id != server_id]
        # Where there is one server only, no other one can be shown; the answer is then unusable in another way.
        return target.replace(server_id, others[0]) if others else "/v2.1/nowhere"

    def _answer(
        self, delivery: Delivery, fault: NetworkFault | None, command: Command, kind: CallKind, ids: tuple[str, ...]
    ) -> http_client.HttpResponse:
        answer = delivery.answer
        if answer is None:
            self._recorder.failed(command, kind, ids, None)
            raise urllib3.exceptions.ProtocolError("Connection aborted.", RemoteDisconnected("closed"))
        body = answer.body
        if fault is NetworkFault.HTML:
            return http_client.HttpResponse(200, urllib3.HTTPHeaderDict({"Content-Type": "text/html"}), b"<html>")
        if fault is NetworkFault.INCOMPLETE and answer.status == 200:
            body = _without_guards(body)
        if fault in HISTORY_FAULTS and answer.status == 200:
            body = _unreadable(body, fault)
        return http_client.HttpResponse(answer.status, urllib3.HTTPHeaderDict(answer.headers), body)


def _without_guards(body: bytes) -> bytes:
    document = json.loads(body)
    for name in ("locked", "tags", "metadata"):
        document["server"].pop(name, None)
    return json.dumps(document).encode()


def _unreadable(body: bytes, fault: NetworkFault) -> bytes:
    document = json.loads(body)
    entries = document["instanceActions"]
    place = next((place for place, entry in enumerate(entries) if entry["action"] in _STARTS), 0)
    match fault:
        case NetworkFault.UNKNOWN_ACTION:
            entries[place]["action"] = "power-cycle"
        case NetworkFault.NO_ACTION:
            entries[place]["action"] = None
        case NetworkFault.UNREADABLE_TIME:
            entries[place]["start_time"] = "yesterday"
        case _:
            entries[place] = "start"
    return json.dumps(document).encode()


class SinkFault(StrEnum):
    """What can go wrong with a result on its way to the sink."""

    BUSY = "sink answers 503"
    REFUSES = "sink answers 400"
    NO_ANSWER = "sink takes it without an answer"


class SinkClient(http_client.HttpClient):
    """A sink without a socket, which keeps what it took.

    Attributes:
        planned: faults that have not happened yet, in order.
        latency: seconds that each exchange takes.
    """

    def __init__(self, clock: Clock, recorder: Recorder, latency: float) -> None:
        super().__init__()
        self.planned: list[SinkFault] = []
        self._clock = clock
        self._recorder = recorder
        self.latency = latency

    def send(
        self,
        method: str,  # noqa: ARG002
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None = None,
        timeout: float,
        **_: Any,
    ) -> http_client.HttpResponse:
        """Take one event, or fail to."""
        command = scheduler.current().command
        scheduler.sleep(self._clock, min(self.latency, timeout))
        fault = self.planned.pop(0) if self.planned else None
        if fault:
            self._recorder.counters.add("faults", fault)
        status = 503 if fault is SinkFault.BUSY else 400 if fault is SinkFault.REFUSES else 202
        self._recorder.counters.write(self._clock.time(), "sink", body, status)
        names = {name.lower(): value for name, value in headers.items()}
        if is_announcement(names):
            self._recorder.announced(command, names, body or b"", taken=status == 202)
        elif status == 202:
            command.posted.append((names, body or b""))
        scheduler.pause()
        if self.latency > timeout:
            raise urllib3.exceptions.ReadTimeoutError(_POOL, url, "no answer")
        if fault is SinkFault.NO_ANSWER:
            raise urllib3.exceptions.ProtocolError("cut")
        return http_client.HttpResponse(status, {}, b"")


def _request(method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> Request:
    parts = urlsplit(url)
    return Request(
        method=method,
        target=parts.path + (f"?{parts.query}" if parts.query else ""),
        headers=tuple(headers.items()),
        body=body or b"",
        base_url=CLOUD,
    )
