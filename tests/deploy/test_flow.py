"""Knative without Kubernetes: the manifests' own triggers and retries, real processes, a simulated cloud.

The broker's waits take no time (see `tests.deploy.broker`); the outage of ten minutes is ten minutes on its clock.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.deploy.__main__ import Fault as Faults
from tests.deploy.__main__ import replay
from tests.deploy.broker import Broker, Channel, Event, Publication
from tests.deploy.environment import ALERT_TOKEN, OVERLOADED, Environment, alarm, night, request, running
from tests.deploy.kustomize import PRODUCTION, find, render

MINUTES = 60.0


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    """All processes, once for this file."""
    with running(tmp_path_factory.mktemp("flow")) as environment:
        yield environment


@pytest.fixture(autouse=True)
def _healthy(environment: Environment) -> Iterator[None]:
    """Each test begins with a cloud without faults."""
    yield
    environment.cloud.clear_faults()


def overload(environment: Environment) -> None:
    """Let the cloud answer that it is overloaded, until its faults are cleared."""
    for fault in OVERLOADED:
        environment.cloud.inject(fault)


def deliver(broker: Broker, event: Event, **options: int) -> Publication:
    """Publish an event and deliver it to the end; nothing is lost, and nothing becomes a dead letter."""
    publication = broker.publish(event, **options)
    assert publication is not None
    broker.run()
    assert (broker.dead, broker.lost) == ([], [])
    return publication


@pytest.mark.parametrize(
    ("fault", "channel", "posting"),
    [
        *((fault, Channel.ASYNCHRONOUS, False) for fault in (Faults.NONE, Faults.KILLED, Faults.CHAT, Faults.LOG)),
        *((fault, Channel.ASYNCHRONOUS, True) for fault in (Faults.SINK, Faults.DUPLICATES, Faults.MALFORMED)),
        *((fault, Channel.SYNCHRONOUS, False) for fault in (Faults.KILLED, Faults.CHAT, Faults.RESTART)),
        (Faults.RESTART, Channel.DURABLE, True),
    ],
)
def test_no_fault_loses_an_event_or_stops_a_server_twice(
    environment: Environment, fault: Faults, channel: Channel, posting: bool
) -> None:
    """The invariants of `make flow`, for one night each; outages of the cloud have tests of their own."""
    assert replay(environment, channel, random.Random(7), fault, posting, Counter()) == []


def test_an_outage_of_the_cloud_of_ten_minutes(environment: Environment) -> None:
    """Overloaded, unreachable, and overloaded again: retried until it is over, one stop, one result, no dead letter."""
    servers = [environment.cloud.add_server(f"outage-{number}") for number in range(2)]
    broker, event = environment.broker(), night(*servers)
    overload(environment)
    broker.at(0.5 * MINUTES, environment.cloud.stop)
    broker.at(1 * MINUTES, environment.start_cloud)
    broker.at(10 * MINUTES, environment.cloud.clear_faults)
    deliver(broker, event)
    assert broker.tried(event.attributes["id"]) == [503] * 6 + [200]
    assert 10 * MINUTES < broker.now < 25 * MINUTES
    assert [environment.cloud.stops_taken(server) for server in servers] == [1, 1]
    assert environment.outcome(event) == (1, 0, 1)


def test_an_outage_that_the_retries_do_not_outlast(environment: Environment) -> None:
    """After the last attempt the event is a dead letter with the answer's code, in the log, and nothing was stopped."""
    server = environment.cloud.add_server("long-outage")
    broker, event = environment.broker(), night(server)
    overload(environment)
    broker.at(60 * MINUTES, environment.cloud.clear_faults)
    broker.publish(event)
    broker.run()
    id_ = event.attributes["id"]
    assert broker.tried(id_) == [503] * 7 + [204]
    assert (broker.dead, broker.lost) == ([(id_, "503")], [])
    (letter,) = environment.logged("/dead-letters", event)
    assert letter["ce-knativeerrorcode"] == "503"
    assert environment.messages(event) == 0
    assert environment.cloud.stops_sent(server) == 0


def test_a_dead_letter_sent_back_is_not_acted_on(environment: Environment) -> None:
    """Dead letters that are routed into the broker stop nothing."""
    server = environment.cloud.add_server("letter")
    broker = environment.broker()
    deliver(broker, request(server, knativeerrorcode="503", knativeerrordest="http://x", knativeerrordata=""))
    assert [each.status for each in broker.attempts] == [204]
    assert environment.cloud.stops_sent(server) == 0


def send_alarm(environment: Environment, body: dict[str, Any]) -> requests.Response:
    """Post an alert to the webhook, as Alertmanager does."""
    bearer = {"Authorization": f"Bearer {ALERT_TOKEN}"}
    return requests.post(f"{environment.webhook.url}/alertmanager", json=body, headers=bearer, timeout=30)


def test_an_alarm_while_the_broker_is_away(environment: Environment) -> None:
    """The webhook answers 503, so that Alertmanager sends it again; then the broker has it, and the server stops."""
    server = environment.cloud.add_server("alarm")
    broker, body = environment.broker(), alarm(server)
    broker.up = False
    assert send_alarm(environment, body).status_code == 503
    broker.up = True
    assert send_alarm(environment, body).ok
    # The broker has answered, and has not delivered yet.
    assert environment.cloud.stops_sent(server) == 0
    broker.run()
    assert environment.cloud.stops_taken(server) == 1
    assert (broker.dead, broker.lost) == ([], [])


def test_duplicates(environment: Environment) -> None:
    """Four copies at once and one an hour later: one stop, and results that say the same have the same id."""
    server = environment.cloud.add_server("duplicates")
    broker, event = environment.broker(), request(server)
    broker.at(60 * MINUTES, lambda: broker.publish(event))
    deliver(broker, event, copies=4)
    assert environment.cloud.stops_taken(server) == 1
    lines = environment.logged("/results", event)
    assert len(lines) == broker.tried(event.attributes["id"]).count(200) == 5
    assert len({line["ce-id"] for line in lines}) <= 3


def test_a_server_that_fails_raises_an_alert(environment: Environment) -> None:
    """The result says so, and comes to the alert's trigger as well as to log and chat."""
    broker, event = environment.broker(), request("5f0c1a52-3d0e-4b7a-9a55-0d6f3c2b1a10")
    deliver(broker, event)
    assert environment.outcome(event) == (1, 1, 1)


def test_an_event_that_is_too_old_is_refused_and_reported(environment: Environment) -> None:
    """Not lost and not acted on."""
    server = environment.cloud.add_server("old")
    broker, event = environment.broker(), request(server, time="2026-01-01T00:00:00Z")
    deliver(broker, event)
    assert environment.outcome(event)[1:] == (1, 1)
    assert environment.cloud.stops_sent(server) == 0


def test_results_shown_to_the_function_end_there(environment: Environment) -> None:
    """Without the filter each result comes back to the function once, which does not answer it."""
    objects = [find(render(PRODUCTION), kind, "bms-autostop") for kind in ("Broker", "Trigger")]
    objects[1]["spec"]["filters"] = []
    server = environment.cloud.add_server("loop")
    broker = Broker(objects, {"bms-autostop": environment.stopper.url})
    deliver(broker, request(server))
    assert [each.status for each in broker.attempts] == [200, 202, 204]
    assert environment.cloud.stops_taken(server) == 1


# --- a broker on a synchronous channel, as Knative is installed


def test_synchronous_broker_answers_an_alarm_when_the_function_is_done(environment: Environment) -> None:
    """So a chat that waits for 3 s needs AUTOSTOP_WAIT=0, or another broker."""
    server = environment.cloud.add_server("synchronous")
    broker = environment.broker(Channel.SYNCHRONOUS)
    answers: list[tuple[int, int]] = []

    def send() -> None:
        status = send_alarm(environment, alarm(server)).status_code
        answers.append((status, environment.cloud.stops_taken(server)))

    sender = threading.Thread(target=send)
    sender.start()
    broker.run(until=lambda: not sender.is_alive())
    assert [stops for _, stops in answers] == [1]
    assert all(status < 300 for status, _ in answers)
    assert (broker.dead, broker.lost) == ([], [])


@pytest.mark.parametrize("channel", [Channel.SYNCHRONOUS, Channel.ASYNCHRONOUS])
def test_log_is_away_and_results_come_to_the_chat(environment: Environment, channel: Channel) -> None:
    """Synchronously they come again and again, and notify_chat drops the repeats: one stop, one message."""
    server = environment.cloud.add_server("log-away")
    broker, event = environment.broker(channel), request(server)
    environment.log.kill()
    broker.at(5 * MINUTES, environment.log.restart)
    publication = deliver(broker, event)
    assert broker.tried(event.attributes["id"]) == [200]
    assert environment.cloud.stops_taken(server) == 1
    ((result, _),) = environment.results(event).items()
    repeats = 3 if channel is Channel.SYNCHRONOUS else 0
    assert (environment.posted(result), environment.dropped(result)) == (1, repeats)
    assert len(environment.logged("/results", event)) == 1
    assert publication.answered_at is not None
    assert (publication.answered_at > 5 * MINUTES) == (channel is Channel.SYNCHRONOUS)


def test_posting_function_is_held_by_a_chat_that_is_away(environment: Environment) -> None:
    """With results-to-broker and a synchronous channel the event comes again until the chat is back; one stop."""
    server = environment.cloud.add_server("posting-held")
    broker, event = environment.broker(Channel.SYNCHRONOUS, posting=True), request(server)
    environment.chat.kill()
    broker.at(1 * MINUTES, environment.chat.restart)
    deliver(broker, event)
    tried = broker.tried(event.attributes["id"])
    assert tried[0] == 503
    assert tried[-1] == 204
    assert environment.cloud.stops_taken(server) == 1
    assert len(environment.logged("/results", event)) > 1
    assert environment.messages(event) == 1
