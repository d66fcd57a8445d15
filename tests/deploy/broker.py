"""A broker that does what the manifests say: filters, tries, waits, replies, dead letters.

It is modelled on Knative's broker made of channels. Events go out in binary mode over real HTTP to real processes. Only
its clock is its own: a wait of minutes is a jump, and a try takes no time on it. So what it proves about times is what
it proves about the order of things; how long a real try may take is held against the manifests by other tests.

What it keeps to (Knative Eventing 1.22):

- tried again: no answer, 5xx, 404, 408, 409, 429; any other code but 2xx is final; `Retry-After` is not looked at;
- the n-th wait is `backoffDelay` times n (linear) or times two to the n (exponential), n from 0;
- a 2xx without body is the end, one with an event is a reply, which goes into the broker; any other body is a failure;
- a dead letter is the event with `knativeerrordest`, `knativeerrorcode`, `knativeerrordata`, sent by the same rules;
- a reply that the broker cannot take makes a dead letter of the event that was replied to;
- replies to replies end after so many rounds.
"""

from __future__ import annotations

import base64
import heapq
import itertools
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import requests

from tests.deploy.rules import iso_duration

ROUNDS = 255
_AGAIN = frozenset({404, 408, 409, 429})
# Processes work in real time; a try that takes this long hangs.
_HANGS = 20.0
_LONGEST_ERROR = 1024


@dataclass(frozen=True, slots=True)
class Event:
    """One event as it is on the wire in binary mode."""

    attributes: Mapping[str, str]
    data: bytes = b""
    content_type: str | None = "application/json"

    def headers(self) -> dict[str, str]:
        """Its headers."""
        sent = {f"ce-{name}": value for name, value in self.attributes.items()}
        return sent if self.content_type is None else {**sent, "content-type": self.content_type}


def event_of(headers: Mapping[str, str], body: bytes) -> Event | None:
    """The event of a binary-mode request or answer, or None if it is none."""
    attributes = {name.lower()[3:]: value for name, value in headers.items() if name.lower().startswith("ce-")}
    if not {"id", "source", "type", "specversion"} <= set(attributes):
        return None
    kind = next((value for name, value in headers.items() if name.lower() == "content-type"), None)
    return Event(attributes, body, kind)


def matches(filters: list[dict[str, Any]], attributes: Mapping[str, str]) -> bool:
    """Whether an event passes all filters of a trigger."""
    return all(_match(each, attributes) for each in filters)


def _match(dialect: Mapping[str, Any], attributes: Mapping[str, str]) -> bool:
    ((name, value),) = dialect.items()
    match name:
        case "all":
            return all(_match(each, attributes) for each in value)
        case "any":
            return any(_match(each, attributes) for each in value)
        case "not":
            return not _match(value, attributes)
        case "exact":
            return all(attributes.get(key) == wanted for key, wanted in value.items())
        case "prefix":
            return all(attributes.get(key, "").startswith(wanted) for key, wanted in value.items())
        case "suffix":
            return all(attributes.get(key, "").endswith(wanted) for key, wanted in value.items())
        case other:
            raise ValueError(f"{other} is not known here")


@dataclass(frozen=True, slots=True)
class Try:
    """One try to deliver an event.

    Attributes:
        at: seconds on the broker's clock.
        trigger: whose event it is.
        to: the URL.
        status: None for no answer.
    """

    at: float
    trigger: str
    to: str
    id: str
    status: int | None


@dataclass(slots=True)
class _Errand:
    """An event on its way to one place."""

    trigger: Mapping[str, Any]
    event: Event
    to: str
    rounds: int
    tries: int = 0
    dead: bool = False
    # The event whose answer this is, on its way back into the broker.
    reply_to: _Errand | None = None


@dataclass(frozen=True, slots=True)
class _Said:
    status: int | None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


class Broker:
    """The broker and its triggers.

    Args:
        objects: the rendered manifests.
        addresses: where each Service of them listens, without a slash at the end.

    Attributes:
        now: seconds on its clock.
        up: whether it takes events in.
        tries: all of them, in order.
        dead: ids and codes of the events that were handed to a dead letter sink.
        lost: ids of events that are nowhere any more.
    """

    def __init__(self, objects: list[dict[str, Any]], addresses: Mapping[str, str]) -> None:
        self._triggers = [each for each in objects if each["kind"] == "Trigger"]
        (broker,) = (each for each in objects if each["kind"] == "Broker")
        self._default: Mapping[str, Any] = broker["spec"].get("delivery", {})
        self._addresses = addresses
        self._waiting: list[tuple[float, int, Callable[[], None] | _Errand]] = []
        self._order = itertools.count()
        self._lock = threading.Lock()
        self.now = 0.0
        self.up = True
        self.tries: list[Try] = []
        self.dead: list[tuple[str, str]] = []
        self.lost: list[str] = []

    def at(self, seconds: float, do: Callable[[], None]) -> None:
        """Have something done at a time of the broker's clock, before the deliveries of that time."""
        self._wait_until(seconds, do)

    def publish(self, event: Event, *, rounds: int = ROUNDS, copies: int = 1) -> bool:
        """Take an event in, if the broker is up: once, or as the duplicates that at-least-once may bring."""
        if not self.up:
            return False
        for trigger in self._triggers:
            if matches(trigger["spec"].get("filters", []), event.attributes):
                for _ in range(copies):
                    to = self._url(trigger["spec"]["subscriber"])
                    self._wait_until(self.now, _Errand(trigger, event, to, rounds))
        return True

    def run(self) -> None:
        """Deliver until nothing waits any more; what is due at the same time is delivered at the same time."""
        with ThreadPoolExecutor(16) as pool:
            while self._waiting:
                for errand, said in self._due(pool):
                    self._settle(errand, said)

    def tried(self, id_: str) -> list[int | None]:
        """What the tries to deliver an event were answered with, in order."""
        return [each.status for each in self.tries if each.id == id_]

    def _due(self, pool: ThreadPoolExecutor) -> list[tuple[_Errand, _Said]]:
        with self._lock:
            self.now = max(self.now, self._waiting[0][0])
            due = []
            while self._waiting and self._waiting[0][0] <= self.now:
                due.append(heapq.heappop(self._waiting)[2])
        errands = []
        for each in due:
            if isinstance(each, _Errand):
                errands.append(each)
            else:
                each()
        return list(zip(errands, pool.map(self._send, errands), strict=True))

    def _send(self, errand: _Errand) -> _Said:
        errand.tries += 1
        if errand.reply_to is not None:
            return _Said(202 if self.publish(errand.event, rounds=errand.rounds) else 503)
        headers = {**errand.event.headers(), "Prefer": "reply"}
        try:
            answer = requests.post(
                errand.to, data=errand.event.data, headers=headers, timeout=_HANGS, allow_redirects=False
            )
        except requests.Timeout:
            raise
        except requests.RequestException:
            return _Said(None)
        return _Said(answer.status_code, answer.headers, answer.content)

    def _settle(self, errand: _Errand, said: _Said) -> None:
        id_, status = errand.event.attributes["id"], said.status
        self.tries.append(Try(self.now, errand.trigger["metadata"]["name"], errand.to, id_, status))
        reply = event_of(said.headers, said.body) if status is not None and 200 <= status < 300 else None
        if status is not None and 200 <= status < 300 and said.body and reply is None:
            # As the broker's filter has it.
            status = 502
        if status is not None and 200 <= status < 300:
            if errand.dead:
                self.dead.append((id_, errand.event.attributes["knativeerrorcode"]))
            elif reply is not None and errand.rounds > 0:
                back = _Errand(errand.trigger, reply, "broker", errand.rounds - 1, reply_to=errand)
                self._wait_until(self.now, back)
            return
        delivery = errand.trigger["spec"].get("delivery", self._default)
        if (status is None or status >= 500 or status in _AGAIN) and errand.tries <= delivery.get("retry", 0):
            delay = iso_duration(delivery["backoffDelay"]).total_seconds()
            count = errand.tries - 1
            factor = count if delivery["backoffPolicy"] == "linear" else 2.0**count
            self._wait_until(self.now + delay * factor, errand)
        elif errand.dead or "deadLetterSink" not in delivery:
            self.lost.append(id_)
        else:
            self._bury(errand, status, said.body, self._url(delivery["deadLetterSink"]))

    def _bury(self, errand: _Errand, status: int | None, body: bytes, to: str) -> None:
        told = {
            "knativeerrordest": errand.to,
            # What the dispatcher writes if there was no answer at all.
            "knativeerrorcode": str(status or 500),
            "knativeerrordata": base64.b64encode(body).decode()[:_LONGEST_ERROR],
        }
        event = errand.reply_to.event if errand.reply_to else errand.event
        letter = Event({**event.attributes, **told}, event.data, event.content_type)
        self._wait_until(self.now, _Errand(errand.trigger, letter, to, 0, dead=True))

    def _url(self, destination: Mapping[str, Any]) -> str:
        return self._addresses[destination["ref"]["name"]] + destination.get("uri", "/")

    def _wait_until(self, due: float, what: Callable[[], None] | _Errand) -> None:
        with self._lock:
            # Actions come first.
            heapq.heappush(self._waiting, (due, next(self._order) - (0 if isinstance(what, _Errand) else 10**9), what))
