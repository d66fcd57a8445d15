"""`make flow`: many nights with faults of every kind, for each kind of broker, and the same invariants for each event.

No event is lost, none is both reported and given up, no server is stopped twice or without having been named, dead
letters are exactly the events that could not succeed or whose fault lasted longer than the retries, and a result that
comes to notify_chat again is dropped by its id. A restart of the broker's dispatcher is replayed where nothing may get
lost by it: with a durable broker, and with a synchronous channel, whose producer is not answered and sends again. The
asynchronous in-memory channel loses what it holds then, as its documentation says.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from enum import StrEnum
from pathlib import Path

from tests.deploy.broker import Broker, Channel, Event
from tests.deploy.environment import Environment, night, request, running


class Fault(StrEnum):
    """What goes wrong in a night."""

    NONE = "nothing"
    CLOUD = "cloud away for minutes"
    CLOUD_LONG = "cloud away for longer than the retries last"
    SINK = "broker away for minutes"
    KILLED = "function killed while it works"
    CHAT = "notify_chat away for minutes"
    LOG = "log service away for minutes"
    RESTART = "dispatcher of the broker restarted"
    DUPLICATES = "duplicates"
    MALFORMED = "malformed event"


def main() -> int:
    """Replay the nights; the exit code says whether the invariants held."""
    parser = argparse.ArgumentParser(prog="python -m tests.deploy", description=__doc__)
    parser.add_argument("--nights", type=int, default=30, help="for each kind of broker")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    parser.add_argument("--channel", choices=[each.name.lower() for each in Channel], help="one kind of broker only")
    options = parser.parse_args()
    chance, broken, began = random.Random(options.seed), 0, time.monotonic()
    channels = [each for each in Channel if options.channel in (None, each.name.lower())]
    print(f"seed {options.seed}, {options.nights} nights for each of {len(channels)} kinds of broker", flush=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        running(Path(folder), AUTOSTOP_DEADLINE="1s", AUTOSTOP_WAIT="300ms") as environment,
    ):
        for channel in channels:
            count = Counter[str]()
            order = [each for each in Fault if each is not Fault.RESTART or channel is not Channel.ASYNCHRONOUS]
            chance.shuffle(order)
            for number in range(options.nights):
                # All faults occur equally often, with results as replies and with results that are posted.
                fault = order[number % len(order)]
                posting = fault is Fault.SINK or number // len(order) % 2 == 1
                violations = replay(environment, channel, chance, fault, posting, count)
                broken += bool(violations)
                for line in violations:
                    print(f"{channel}: night {number}, {fault}, posting={posting}: {line}", flush=True)
            _report(channel, count)
    print(f"{time.monotonic() - began:.0f} s, seed {options.seed}")
    print("All invariants held." if not broken else f"Invariants were violated in {broken} nights.")
    return 1 if broken else 0


def _report(channel: Channel, count: Counter[str]) -> None:
    print(
        f"{channel}: {count['events']} events in {count['attempts']} attempts, {count['dead letters']} dead letters,"
        f" {count['lost']} lost, {count['stops']} servers stopped, each once\n"
        f"  {count['results']} results, {count['posted']} messages, {count['dropped']} repeats dropped by notify_chat;"
        f" a producer waited for {count['longest']} s at most, {count['sent again']} events were sent again",
        flush=True,
    )


def replay(
    environment: Environment,
    channel: Channel,
    chance: random.Random,
    fault: Fault,
    posting: bool,
    count: Counter[str],
) -> list[str]:
    """Replay one night: some events, one fault; return the invariants that were violated, and count what happened."""
    broker = environment.broker(channel, posting=posting)
    stopper = environment.posting if posting else environment.stopper
    servers = [environment.cloud.add_server(f"flow-{number}") for number in range(chance.randint(2, 6))]
    bystander = environment.cloud.add_server("bystander")
    minutes = chance.uniform(0.0, 10.0)
    events = [night(*servers), request(servers[0]), request(chance.choice(servers))]
    doomed: list[Event] = []
    match fault:
        case Fault.CLOUD | Fault.CLOUD_LONG:
            environment.cloud.stop()
            broker.at(minutes * 60 if fault is Fault.CLOUD else 3600.0, environment.start_cloud)
            doomed = events if fault is Fault.CLOUD_LONG else []
        case Fault.SINK:
            broker.at(minutes * 60, broker.recover)
        case Fault.CHAT | Fault.LOG:
            process = environment.chat if fault is Fault.CHAT else environment.log
            process.kill()
            broker.at(minutes * 60, process.restart)
        case Fault.RESTART:
            environment.chat.kill()
            broker.at(minutes * 60, environment.chat.restart)
            broker.at(minutes * 30, broker.restart)
        case Fault.MALFORMED:
            doomed = [request(servers[0], "no-server")]
            events += doomed
    copies = 3 if fault is Fault.DUPLICATES else 1
    publications = [broker.publish(event, copies=copies) for event in events]
    broker.up = fault is not Fault.SINK
    killer = threading.Timer(chance.uniform(0.0, 0.1), stopper.kill)
    if fault is Fault.KILLED:
        killer.start()
        broker.at(30.0, killer.join)
        broker.at(30.0, stopper.restart)
    broker.run()
    for event, publication in zip(events, publications, strict=True):
        if publication is not None and publication.answered_at is not None:
            count["longest"] = max(count["longest"], round(publication.answered_at))
        else:
            # A producer without an answer sends the event again.
            count["sent again"] += 1
            broker.publish(event)
            broker.run()
    count["events"] += len(events)
    count["attempts"] += len(broker.attempts)
    count["dead letters"] += len(broker.dead)
    count["lost"] += len(broker.lost)
    count["stops"] += sum(environment.cloud.stops_taken(server) for server in servers)
    return [
        *_violations(environment, broker, events, doomed),
        *_stop_violations(environment, servers, bystander, len(doomed) < len(events)),
        *_chat_violations(environment, broker, events, count),
    ]


def _violations(environment: Environment, broker: Broker, events: list[Event], doomed: list[Event]) -> list[str]:
    wrong = [f"lost: {id_}" for id_ in broker.lost]
    dead = Counter(id_ for id_, _ in broker.dead)
    for event in events:
        id_, messages = event.attributes["id"], environment.messages(event)
        if dead[id_] != (event in doomed):
            wrong.append(f"{id_}: {dead[id_]} dead letters")
        if (messages == 0) != (event in doomed):
            wrong.append(f"{id_}: {messages} messages")
        if len(environment.logged("/dead-letters", event)) != dead[id_]:
            wrong.append(f"{id_}: the log has other dead letters")
    return wrong


def _stop_violations(environment: Environment, servers: list[str], bystander: str, named: bool) -> list[str]:
    stops = {server: environment.cloud.stops_taken(server) for server in servers}
    wrong = [f"{server}: stopped {times} times" for server, times in stops.items() if times != named]
    if environment.cloud.stops_sent(bystander):
        wrong.append("a server that no event named was stopped")
    return wrong


def _chat_violations(environment: Environment, broker: Broker, events: list[Event], count: Counter[str]) -> list[str]:
    """Check that a delivery to notify_chat became a message or was dropped, and a result id became one message.

    That each event has a message is checked in `_violations`.
    """
    wrong = []
    for event in events:
        for id_, different in environment.results(event).items():
            accepted = len(broker.delivered_at("bms-autostop-chat", id_))
            posted, dropped = environment.posted(id_), environment.dropped(id_)
            count["results"] += different
            count["posted"] += posted
            count["dropped"] += dropped
            if posted + dropped != accepted:
                wrong.append(f"{id_}: {accepted} deliveries to the chat, {posted} messages and {dropped} dropped")
            # Where a synchronous channel could not reach notify_chat, the post of the result failed, and the event came
            # again: its next result, which says what is so by then, has an id of its own.
            if posted != 1 and not (broker.channel is Channel.SYNCHRONOUS and accepted == 0):
                wrong.append(f"{id_}: {posted} messages about one result id")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
