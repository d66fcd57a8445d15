"""`make flow`: many nights with trouble of every kind, and the same law for each event.

No event is lost, none is both told and given up, no server is stopped twice or without having been named, and dead
letters are exactly the events that could not succeed or whose trouble lasted longer than the tries.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

from tests.deploy.broker import Broker, Event
from tests.deploy.town import Town, night, request, running

_NIGHT = 86400.0


class Failure(StrEnum):
    """What goes wrong in a night."""

    NONE = "nothing"
    CLOUD = "cloud away for minutes"
    CLOUD_LONG = "cloud away for longer than the tries last"
    SINK = "sink away for minutes"
    KILLED = "function killed in the middle"
    TWICE = "duplicates"
    MALFORMED = "malformed event"


def main() -> int:
    """Run the nights; the exit code says whether the law was kept."""
    parser = argparse.ArgumentParser(prog="python -m tests.deploy", description=__doc__)
    parser.add_argument("--nights", type=int, default=60)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    options = parser.parse_args()
    chance, count, broken, began = random.Random(options.seed), Counter[str](), 0, time.monotonic()
    print(f"seed {options.seed}", flush=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        running(Path(folder), AUTOSTOP_DEADLINE="1s", AUTOSTOP_WAIT="300ms") as town,
    ):
        for number in range(options.nights):
            trouble = chance.choice([*Failure])
            posting = trouble is Failure.SINK or chance.random() < 0.5
            told = _night(town, chance, trouble, posting, count)
            count[trouble] += 1
            broken += bool(told)
            for line in told:
                print(f"night {number}, {trouble}: {line}", flush=True)
    for name, many in sorted(count.items()):
        print(f"{many:6}  {name}")
    print(f"{options.nights} nights in {time.monotonic() - began:.0f} s, seed {options.seed}")
    print("The law was kept." if not broken else f"The law was broken in {broken} nights.")
    return 1 if broken else 0


def _night(town: Town, chance: random.Random, trouble: Failure, posting: bool, count: Counter[str]) -> list[str]:
    """One night: some events, one trouble; what was wrong with it."""
    broker = town.broker(posting=posting)
    stopper = town.posting if posting else town.stopper
    servers = [town.cloud.add_server(f"flow-{number}") for number in range(chance.randint(2, 6))]
    bystander = town.cloud.add_server("bystander")
    minutes = chance.uniform(0.0, 10.0)
    events = [night(*servers), request(servers[0]), request(chance.choice(servers))]
    doomed: list[Event] = []
    match trouble:
        case Failure.CLOUD | Failure.CLOUD_LONG:
            town.cloud.stop()
            broker.at(minutes * 60 if trouble is Failure.CLOUD else 3600.0, town.cloud.start)
            doomed = events if trouble is Failure.CLOUD_LONG else []
        case Failure.SINK:
            broker.at(minutes * 60, _setter(broker, True))
        case Failure.MALFORMED:
            doomed = [request(servers[0], "no-server")]
            events += doomed
    for event in events:
        broker.publish(event, copies=3 if trouble is Failure.TWICE else 1)
    broker.up = trouble is not Failure.SINK
    killer = threading.Timer(chance.uniform(0.0, 0.1), stopper.kill)
    if trouble is Failure.KILLED:
        killer.start()
        broker.at(30.0, killer.join)
        broker.at(30.0, stopper.restart)
    broker.run()
    count["events"] += len(events)
    count["tries"] += len(broker.tries)
    count["dead letters"] += len(broker.dead)
    return [*_broken(town, broker, events, doomed, servers, bystander)]


def _setter(broker: Broker, up: bool) -> Callable[[], None]:
    def set_up() -> None:
        broker.up = up

    return set_up


def _broken(
    town: Town, broker: Broker, events: list[Event], doomed: list[Event], servers: list[str], bystander: str
) -> list[str]:
    wrong = [f"lost: {id_}" for id_ in broker.lost]
    dead = Counter(id_ for id_, _ in broker.dead)
    for event in events:
        id_, gone = event.attributes["id"], event in doomed
        if dead[id_] != gone:
            wrong.append(f"{id_}: {dead[id_]} dead letters")
        if (town.told(event) == 0) != gone:
            wrong.append(f"{id_}: told {town.told(event)} times")
        if len(town.logged("/dead-letters", event)) != dead[id_]:
            wrong.append(f"{id_}: the log has other dead letters")
    named = not all(event in doomed for event in events)
    wrong += [
        f"{server}: stopped {town.cloud.stops_taken(server)} times"
        for server in servers
        if town.cloud.stops_taken(server) != named
    ]
    if town.cloud.stops_sent(bystander):
        wrong.append("a server that nobody named was stopped")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
