"""A model of Knative's broker: filters, retries, replies, dead letters, and when a producer gets its answer.

Events go out in binary mode over real HTTP to real processes. Only the clock is the model's own: a wait of minutes is a
jump, and a request takes no time on it.

Its rules are those of Knative Eventing 1.22 with the broker made of channels:

- retried: no answer, 5xx, 404, 408, 409, 429; any other code but 2xx is final; `Retry-After` is not looked at;
- the n-th wait is `backoffDelay` times n (linear) or times two to the n (exponential), n from 0;
- a 2xx without body is the end, one with an event is a reply, which goes into the broker; any other body is a failure;
- a dead letter is the event with `knativeerrordest`, `knativeerrorcode`, `knativeerrordata`, sent by the same rules;
- a reply that the broker does not take makes a dead letter of the event that was replied to;
- replies to replies end after `ROUNDS`.

How a producer is answered depends on the channel (`Channel`). In-memory channels deliver **synchronously** as Knative
is installed: the broker's 202 comes when every trigger is done with the event, its retries, replies and dead letters
included. So a subscriber that is down holds the producer; a reply that is held for longer than the trigger's
`delivery.timeout` counts as not accepted and is sent again, and every trigger that works gets it once more. When a
client disconnects, what was still to be delivered for it is given up (the request's context is cancelled).
"""

from __future__ import annotations

import base64
import heapq
import itertools
import queue
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from enum import Enum, StrEnum, auto
from typing import Any, NamedTuple

import requests

from tests.deploy.validate import iso_duration

ROUNDS = 255
ASYNC_ANNOTATION = "messaging.knative.dev/async-handler"
CLASS_ANNOTATION = "eventing.knative.dev/broker.class"
_RETRIED = frozenset({404, 408, 409, 429})
# Processes work in real time; a request that takes this long hangs.
_HANGS = 30.0
_LONGEST_ERROR = 1024


class Channel(StrEnum):
    """How a broker keeps and delivers events."""

    SYNCHRONOUS = "in-memory, synchronous"
    """As installed: the producer waits. What is held when the dispatcher restarts is not answered."""
    ASYNCHRONOUS = "in-memory, asynchronous"
    """With the annotation: the producer is answered at once. What is held when the dispatcher restarts is lost."""
    DURABLE = "durable"
    """A broker class such as Kafka or RabbitMQ: answered at once, and nothing is lost."""


def channel_of(broker: Mapping[str, Any]) -> Channel:
    """Return how a Broker of the manifests delivers: by its class and its annotations.

    The broker made of channels passes its annotations on to its channel (Knative Eventing 1.17 and later).
    """
    annotations = broker["metadata"].get("annotations", {})
    if annotations.get(CLASS_ANNOTATION, "MTChannelBasedBroker") != "MTChannelBasedBroker":
        return Channel.DURABLE
    return Channel.ASYNCHRONOUS if annotations.get(ASYNC_ANNOTATION) == "true" else Channel.SYNCHRONOUS


@dataclass(frozen=True, slots=True)
class Event:
    """One event as it is on the wire in binary mode."""

    attributes: Mapping[str, str]
    data: bytes = b""
    content_type: str | None = "application/json"

    def headers(self) -> dict[str, str]:
        """Return its headers."""
        sent = {f"ce-{name}": value for name, value in self.attributes.items()}
        return sent if self.content_type is None else {**sent, "content-type": self.content_type}


def event_of(headers: Mapping[str, str], body: bytes) -> Event | None:
    """Return the event of a binary-mode request or response, or None if it is not an event."""
    attributes = {name.lower()[3:]: value for name, value in headers.items() if name.lower().startswith("ce-")}
    if not {"id", "source", "type", "specversion"} <= set(attributes):
        return None
    kind = next((value for name, value in headers.items() if name.lower() == "content-type"), None)
    return Event(attributes, body, kind)


def matches(filters: list[dict[str, Any]], attributes: Mapping[str, str]) -> bool:
    """Return whether an event passes all filters of a trigger."""
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


class Attempt(NamedTuple):
    """An attempt to deliver an event.

    Attributes:
        at: seconds on the broker's clock.
        trigger: name of the trigger.
        id: of the event.
        status: None for no answer.
    """

    at: float
    trigger: str
    id: str
    status: int | None


@dataclass(eq=False, slots=True)
class Publication:
    """An event that the broker accepted, and its answer to the producer.

    Attributes:
        event: the event.
        answered_at: seconds on the broker's clock when the producer got its answer; None if it has none yet.
        status: of that answer; None without one.
        answered: set when there is one.
    """

    event: Event
    parent: Publication | None = None
    on_answer: Callable[[int], None] | None = None
    answered_at: float | None = None
    status: int | None = None
    answered: threading.Event = field(default_factory=threading.Event)
    open: int = 0
    failed: bool = False
    cancelled: bool = False

    def cancel(self) -> None:
        """Disconnect the client: in a synchronous channel nothing more is delivered for it."""
        self.cancelled = True

    def given_up(self) -> bool:
        """Return whether its client, or the client of an event that led to it, has disconnected."""
        return self.cancelled or (self.parent is not None and self.parent.given_up())


class _Stage(Enum):
    SUBSCRIBER = auto()
    REPLY = auto()
    DEAD_LETTER = auto()


@dataclass(eq=False, slots=True)
class _Delivery:
    """An event on its way to one place.

    Attributes:
        event: what is sent now.
        request: what was published, of which a dead letter is made.
    """

    publication: Publication
    trigger: Mapping[str, Any]
    event: Event
    request: Event
    to: str
    rounds: int
    stage: _Stage = _Stage.SUBSCRIBER
    attempts: int = 0


@dataclass(eq=False, slots=True)
class _Action:
    """Something else that is done at a time; `off` once it is not needed any more."""

    do: Callable[[], object]
    off: bool = False


class _Response(NamedTuple):
    status: int | None
    headers: Mapping[str, str] = {}
    body: bytes = b""


class Broker:
    """The broker and its triggers.

    Args:
        objects: the rendered manifests.
        addresses: URL of each Service of them, without a slash at the end.
        channel: how it delivers; None for what the manifests say.

    Attributes:
        channel: how it delivers.
        now: seconds on its clock.
        up: whether it accepts events.
        attempts: all of them, in order.
        accepted: every event that it accepted, replies included.
        dead: ids and codes of the events that were delivered to a dead letter sink.
        lost: ids of events that were answered 202 and are nowhere any more.
    """

    def __init__(
        self, objects: list[dict[str, Any]], addresses: Mapping[str, str], *, channel: Channel | None = None
    ) -> None:
        self._triggers = [each for each in objects if each["kind"] == "Trigger"]
        (broker,) = (each for each in objects if each["kind"] == "Broker")
        self._default: Mapping[str, Any] = broker["spec"].get("delivery", {})
        self._addresses = addresses
        self._waiting: list[tuple[float, int, _Action | _Delivery]] = []
        self._order = itertools.count()
        self._lock = threading.RLock()
        # None wakes `run`; a response of None is one that did not come in time.
        self._done: queue.SimpleQueue[tuple[_Delivery, _Response | None] | None] = queue.SimpleQueue()
        self.channel = channel or channel_of(broker)
        self.now = 0.0
        self.up = True
        self.attempts: list[Attempt] = []
        self.accepted: list[Event] = []
        self.dead: list[tuple[str, str]] = []
        self.lost: list[str] = []

    def at(self, seconds: float, do: Callable[[], object]) -> None:
        """Have something done at a time of the broker's clock, before the deliveries of that time."""
        self._schedule(seconds, _Action(do))

    def recover(self) -> None:
        """Accept events again."""
        self.up = True

    def publish(self, event: Event, *, rounds: int = ROUNDS, copies: int = 1) -> Publication | None:
        """Accept an event: once, or with the duplicates that at-least-once delivery may bring.

        Returns:
            The event with the answer to its producer; None while the broker is down.
        """
        return self._publish(Publication(event), rounds, copies)

    def run(self, until: Callable[[], bool] | None = None) -> None:
        """Deliver until nothing waits any more; what is due at the same time is delivered at the same time.

        Args:
            until: if given, go on until it is true, also while nothing waits: for events of other threads.
        """
        under_way = 0
        with ThreadPoolExecutor(32) as pool:
            while True:
                with self._lock:
                    due = self._due(idle=not under_way)
                for each in due:
                    if isinstance(each, _Action):
                        each.do()
                    elif each.stage is _Stage.REPLY:
                        self._reply(each)
                    else:
                        under_way += 1
                        pool.submit(self._send, each)
                if due:
                    continue
                if not under_way and not self._waiting and (until is None or until()):
                    return
                try:
                    done = self._done.get(timeout=_HANGS + 5 if under_way else 0.02)
                except queue.Empty:
                    assert not under_way, "a request hangs"
                    continue
                if done is not None:
                    under_way -= 1
                    delivery, response = done
                    assert response is not None, f"{delivery.to} hangs"
                    with self._lock:
                        self._settle(delivery, response)

    def restart(self) -> None:
        """Restart the dispatcher. What it holds is delivered later, not answered, or lost: see `Channel`."""
        with self._lock:
            if self.channel is Channel.DURABLE:
                return
            held = [each.event.attributes["id"] for _, _, each in self._waiting if isinstance(each, _Delivery)]
            self._waiting = [entry for entry in self._waiting if isinstance(entry[2], _Action)]
            heapq.heapify(self._waiting)
            if self.channel is Channel.ASYNCHRONOUS:
                self.lost += held

    def tried(self, id_: str) -> list[int | None]:
        """Return the answers to the attempts to deliver an event, in order."""
        return [each.status for each in self.attempts if each.id == id_]

    def delivered_at(self, trigger: str, id_: str) -> list[float]:
        """Return when a trigger's subscriber accepted an event, in seconds on the broker's clock."""
        attempts = [each for each in self.attempts if (each.trigger, each.id) == (trigger, id_)]
        return [each.at for each in attempts if each.status is not None and each.status < 300]

    def _publish(self, publication: Publication, rounds: int, copies: int = 1) -> Publication | None:
        with self._lock:
            if not self.up:
                return None
            event = publication.event
            self.accepted.append(event)
            for trigger in self._triggers:
                if matches(trigger["spec"].get("filters", []), event.attributes):
                    to = self._url(trigger["spec"]["subscriber"])
                    for _ in range(copies):
                        publication.open += 1
                        self._schedule(self.now, _Delivery(publication, trigger, event, event, to, rounds))
            if self.channel is not Channel.SYNCHRONOUS or not publication.open:
                self._answer(publication)
            self._done.put(None)
            return publication

    def _answer(self, publication: Publication) -> None:
        publication.answered_at, publication.status = self.now, 500 if publication.failed else 202
        publication.answered.set()
        if publication.on_answer is not None:
            publication.on_answer(publication.status)

    def _due(self, *, idle: bool) -> list[_Action | _Delivery]:
        """Return what is to be done now; time goes on only while no request is under way."""
        due: list[_Action | _Delivery] = []
        while self._waiting:
            at, _, each = self._waiting[0]
            if each.off if isinstance(each, _Action) else self._given_up(each):
                heapq.heappop(self._waiting)
            elif at <= self.now or (idle and not due):
                self.now = max(self.now, at)
                due.append(heapq.heappop(self._waiting)[2])
            else:
                break
        return due

    def _given_up(self, delivery: _Delivery) -> bool:
        return self.channel is Channel.SYNCHRONOUS and delivery.publication.given_up()

    def _send(self, delivery: _Delivery) -> None:
        headers = {**delivery.event.headers(), "Prefer": "reply"}
        response: _Response | None = None
        try:
            answer = requests.post(
                delivery.to, data=delivery.event.data, headers=headers, timeout=_HANGS, allow_redirects=False
            )
            response = _Response(answer.status_code, answer.headers, answer.content)
        except requests.Timeout:
            pass
        except requests.RequestException:
            response = _Response(None)
        self._done.put((delivery, response))

    def _reply(self, delivery: _Delivery) -> None:
        """Send a reply into the broker: the answer comes as any producer's does, or the time-out before it."""
        with self._lock:
            inner = Publication(delivery.event, parent=delivery.publication)
            limit = _Action(lambda: None)

            def settle(status: int | None) -> None:
                if not limit.off:
                    limit.off = True
                    self._settle(delivery, _Response(status))

            def give_up() -> None:
                with self._lock:
                    inner.cancel()
                    settle(None)

            inner.on_answer, limit.do = settle, give_up
            if self._publish(inner, delivery.rounds) is None:
                settle(503)
            timeout = self._rules(delivery).get("timeout")
            if not limit.off and timeout is not None:
                self._schedule(self.now + iso_duration(timeout).total_seconds(), limit)

    def _settle(self, delivery: _Delivery, response: _Response) -> None:
        id_, status = delivery.event.attributes["id"], response.status
        delivery.attempts += 1
        self.attempts.append(Attempt(self.now, delivery.trigger["metadata"]["name"], id_, status))
        ok = status is not None and 200 <= status < 300
        reply = event_of(response.headers, response.body) if ok else None
        if ok and response.body and reply is None:
            # As the broker's filter has it.
            ok, status = False, 502
        if ok:
            self._delivered(delivery, reply)
            return
        if self._given_up(delivery):
            return
        rules = self._rules(delivery)
        if (status is None or status >= 500 or status in _RETRIED) and delivery.attempts <= rules.get("retry", 0):
            delay = iso_duration(rules["backoffDelay"]).total_seconds()
            count = delivery.attempts - 1
            factor = count if rules["backoffPolicy"] == "linear" else 2.0**count
            self._schedule(self.now + delay * factor, delivery)
        elif delivery.stage is _Stage.DEAD_LETTER or "deadLetterSink" not in rules:
            self.lost.append(id_)
            delivery.publication.failed = True
            self._finish(delivery.publication)
        else:
            extensions = {
                "knativeerrordest": delivery.to,
                # What the dispatcher writes if there was no answer at all.
                "knativeerrorcode": str(status or 500),
                "knativeerrordata": base64.b64encode(response.body).decode()[:_LONGEST_ERROR],
            }
            letter = replace(delivery.request, attributes={**delivery.request.attributes, **extensions})
            to = self._url(rules["deadLetterSink"])
            following = replace(delivery, event=letter, to=to, stage=_Stage.DEAD_LETTER, attempts=0)
            self._schedule(self.now, following)

    def _delivered(self, delivery: _Delivery, reply: Event | None) -> None:
        if delivery.stage is _Stage.SUBSCRIBER and reply is not None and delivery.rounds > 0:
            rounds = delivery.rounds - 1
            following = replace(delivery, event=reply, to="broker", rounds=rounds, stage=_Stage.REPLY, attempts=0)
            self._schedule(self.now, following)
            return
        if delivery.stage is _Stage.DEAD_LETTER:
            self.dead.append((delivery.event.attributes["id"], delivery.event.attributes["knativeerrorcode"]))
        self._finish(delivery.publication)

    def _finish(self, publication: Publication) -> None:
        publication.open -= 1
        if not publication.open and publication.answered_at is None and not publication.given_up():
            self._answer(publication)

    def _rules(self, delivery: _Delivery) -> Mapping[str, Any]:
        rules: Mapping[str, Any] = delivery.trigger["spec"].get("delivery", self._default)
        return rules

    def _url(self, destination: Mapping[str, Any]) -> str:
        path: str = destination.get("uri", "/")
        return self._addresses[destination["ref"]["name"]] + path

    def _schedule(self, due: float, what: _Action | _Delivery) -> None:
        with self._lock:
            # Actions come first.
            order = next(self._order) - (0 if isinstance(what, _Delivery) else 10**9)
            heapq.heappush(self._waiting, (due, order, what))
