"""A night on Knative without Kubernetes: the manifests' own triggers and retries, real processes, a simulated cloud.

The broker's waits take no time (see `tests.deploy.broker`); the outage of ten minutes is ten minutes on its clock.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import requests

from tests.deploy import kustomize
from tests.deploy.broker import Broker
from tests.deploy.stage import PRODUCTION
from tests.deploy.town import ALERT_TOKEN, OVERLOADED, Town, alarm, night, request, running

MINUTES = 60.0


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """All processes, once for this file."""
    with running(tmp_path_factory.mktemp("flow")) as town:
        yield town


@pytest.fixture(autouse=True)
def _healthy(town: Town) -> Iterator[None]:
    """Each test begins with a cloud without faults."""
    yield
    town.cloud.clear_faults()


def overload(town: Town) -> None:
    """Let the cloud answer that it is in trouble, until its faults are cleared."""
    for fault in OVERLOADED:
        town.cloud.inject(fault)


def test_a_night_without_trouble(town: Town) -> None:
    """The tick stops its servers; the result is told to chat and log, and nothing else happens."""
    servers = [town.cloud.add_server(f"night-{number}") for number in range(3)]
    broker, event = town.broker(), night(*servers)
    broker.publish(event)
    broker.run()
    assert [town.cloud.stops_taken(server) for server in servers] == [1, 1, 1]
    assert broker.tried(event.attributes["id"]) == [200]
    assert (len(town.logged("/results", event)), len(town.logged("/failures", event)), town.told(event)) == (1, 0, 1)
    assert (broker.dead, broker.lost) == ([], [])


def test_an_outage_of_the_cloud_of_ten_minutes(town: Town) -> None:
    """Overloaded, gone, and overloaded again: tried until it is over, stopped once, told once, no dead letter."""
    servers = [town.cloud.add_server(f"outage-{number}") for number in range(2)]
    broker, event = town.broker(), night(*servers)
    overload(town)
    broker.at(0.5 * MINUTES, town.cloud.stop)
    broker.at(1 * MINUTES, town.cloud.start)
    broker.at(10 * MINUTES, town.cloud.clear_faults)
    broker.publish(event)
    broker.run()
    assert broker.tried(event.attributes["id"]) == [503] * 6 + [200]
    assert 10 * MINUTES < broker.now < 25 * MINUTES
    assert [town.cloud.stops_taken(server) for server in servers] == [1, 1]
    assert (len(town.logged("/results", event)), town.told(event)) == (1, 1)
    assert (broker.dead, broker.lost) == ([], [])


def test_an_outage_that_the_retries_do_not_outlast(town: Town) -> None:
    """After the last try the event is a dead letter with the answer's code, in the log, and nothing was stopped."""
    server = town.cloud.add_server("long-outage")
    broker, event = town.broker(), night(server)
    overload(town)
    broker.at(60 * MINUTES, town.cloud.clear_faults)
    broker.publish(event)
    broker.run()
    id_ = event.attributes["id"]
    assert broker.tried(id_) == [503] * 7 + [204]
    assert (broker.dead, broker.lost) == ([(id_, "503")], [])
    (letter,) = town.logged("/dead-letters", event)
    assert letter["ce-knativeerrorcode"] == "503"
    assert town.told(event) == 0
    assert town.cloud.stops_sent(server) == 0


def test_a_dead_letter_sent_back_is_not_acted_on(town: Town) -> None:
    """Somebody who points dead letters at the broker makes no stop of them."""
    server = town.cloud.add_server("letter")
    broker = town.broker()
    broker.publish(request(server, knativeerrorcode="503", knativeerrordest="http://x", knativeerrordata=""))
    broker.run()
    assert [each.status for each in broker.tries] == [204]
    assert town.cloud.stops_sent(server) == 0


def test_an_outage_of_the_sink(town: Town) -> None:
    """The result cannot be handed over: the event comes again, nothing is stopped again, and one result is told."""
    server = town.cloud.add_server("sink-outage")
    broker, event = town.broker(posting=True), request(server)
    broker.publish(event)
    broker.up = False

    def mend() -> None:
        broker.up = True

    broker.at(10 * MINUTES, mend)
    broker.run()
    assert broker.tried(event.attributes["id"]) == [503] * 6 + [204]
    assert town.cloud.stops_taken(server) == 1
    (line,) = town.logged("/results", event)
    assert line["ce-source"] == "/posting"
    assert '"already-stopped"' in line["data"]
    assert (town.told(event), broker.dead, broker.lost) == (1, [], [])


def test_an_alarm_while_the_broker_is_away(town: Town) -> None:
    """The webhook answers 503, so that Alertmanager tells it again; then the broker has it, and the server stops."""
    server = town.cloud.add_server("alarm")
    broker, told = town.broker(), alarm(server)

    def tell() -> requests.Response:
        bearer = {"Authorization": f"Bearer {ALERT_TOKEN}"}
        return requests.post(f"{town.webhook.url}/alertmanager", json=told, headers=bearer, timeout=30)

    broker.up = False
    assert tell().status_code == 503
    broker.up = True
    assert tell().ok
    broker.run()
    assert town.cloud.stops_taken(server) == 1
    assert (broker.dead, broker.lost) == ([], [])


def test_the_function_is_killed_in_the_middle_and_comes_back(town: Town) -> None:
    """The event had no answer: it comes again, the stop that was sent is not repeated, and one result is told."""
    server = town.cloud.add_server("killed", power_off_delay=3600.0)
    broker, event = town.broker(), night(server)

    def kill() -> None:
        give_up = time.monotonic() + 30
        while not town.cloud.stops_taken(server) and time.monotonic() < give_up:
            time.sleep(0.005)
        town.stopper.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    # Never a second process beside one that is still to be killed.
    broker.at(30.0, killer.join)
    broker.at(30.0, town.stopper.restart)
    broker.publish(event)
    broker.run()
    tried = broker.tried(event.attributes["id"])
    assert None in tried
    assert tried[-1] == 200
    assert town.cloud.stops_taken(server) == 1
    (line,) = town.logged("/results", event)
    assert '"already-stopping"' in line["data"]
    assert (town.told(event), broker.dead, broker.lost) == (1, [], [])


def test_duplicates(town: Town) -> None:
    """Four copies at once and one an hour later: one stop, and results that say the same have the same id."""
    server = town.cloud.add_server("duplicates")
    broker, event = town.broker(), request(server)
    broker.publish(event, copies=4)
    broker.at(60 * MINUTES, lambda: broker.publish(event) and None)
    broker.run()
    assert town.cloud.stops_taken(server) == 1
    lines = town.logged("/results", event)
    assert len(lines) == broker.tried(event.attributes["id"]).count(200) == 5
    assert len({line["ce-id"] for line in lines}) <= 3
    assert (broker.dead, broker.lost) == ([], [])


def test_an_event_that_can_never_succeed(town: Town) -> None:
    """One try, and then it is a dead letter with the faults in it; the server named beside the wrong one runs on."""
    server = town.cloud.add_server("malformed")
    broker, event = town.broker(), request(server, "web-1")
    broker.publish(event)
    broker.run()
    assert broker.dead == [(event.attributes["id"], "400")]
    assert len(town.logged("/dead-letters", event)) == 1
    assert town.cloud.stops_sent(server) == 0


def test_a_server_that_fails_raises_an_alert(town: Town) -> None:
    """The result says so, and comes to the alert's trigger as well as to log and chat."""
    broker, event = town.broker(), request("5f0c1a52-3d0e-4b7a-9a55-0d6f3c2b1a10")
    broker.publish(event)
    broker.run()
    assert (len(town.logged("/results", event)), len(town.logged("/failures", event)), town.told(event)) == (1, 1, 1)


def test_an_event_that_is_too_old_is_refused_and_told(town: Town) -> None:
    """Not lost and not acted on."""
    server = town.cloud.add_server("old")
    broker, event = town.broker(), request(server, time="2026-01-01T00:00:00Z")
    broker.publish(event)
    broker.run()
    assert (len(town.logged("/failures", event)), town.told(event)) == (1, 1)
    assert town.cloud.stops_sent(server) == 0


def test_results_shown_to_the_function_end_there(town: Town) -> None:
    """Somebody takes the filter away: each result comes back to the function once, which has nothing to say to it."""
    objects = kustomize.render(PRODUCTION)
    (trigger,) = (each for each in objects if each["kind"] == "Trigger" and each["metadata"]["name"] == "bms-autostop")
    objects = [each for each in objects if each["kind"] == "Broker"] + [trigger]
    trigger["spec"]["filters"] = []
    server = town.cloud.add_server("loop")
    broker = Broker(objects, {"bms-autostop": town.stopper.url})
    broker.publish(request(server))
    broker.run()
    assert [each.status for each in broker.tries] == [200, 202, 204]
    assert town.cloud.stops_taken(server) == 1
