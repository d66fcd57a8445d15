"""A storm of alarms, and the limit on the stops of one process, over real HTTP."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from handler.services import stop_servers
from handler.simulator import CallKind, Simulator
from handler.stop.stop_limit import StopLimit
from tests.conftest import Function, StartFunction
from tests.support.capture import logged

WINDOW = 600.0
LIMIT = 20
STORM = 60


class Clock:
    """The clock of the sliding window, which passes only when it is set."""

    now = 1000.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock that the stop limit of the function is measured with."""
    clock = Clock()

    def stop_limit(most: int, window: float, _: Callable[[], float]) -> StopLimit:
        return StopLimit(most, window, lambda: clock.now)

    monkeypatch.setattr(stop_servers, "StopLimit", stop_limit)
    return clock


def storm(function: Function, servers: list[str]) -> dict[str, requests.Response]:
    """Send one alarm for each server, many at a time."""
    with ThreadPoolExecutor(16) as senders:
        responses = senders.map(lambda server: function.stop(server, id=f"alarm-{server}"), servers)
        return dict(zip(servers, responses, strict=True))


def test_a_storm_is_held_at_the_limit_and_goes_on_in_later_windows(
    cloud: Simulator, start_function: StartFunction, clock: Clock
) -> None:
    """Of 60 alarms 20 stop their servers; the others are 503, come again, and are handled 20 in each window."""
    function = start_function(cloud, AUTOSTOP_MAX_SERVERS=str(LIMIT), AUTOSTOP_STOP_LIMIT=f"{LIMIT}/10m")
    waiting = [cloud.add_server() for _ in range(STORM)]
    stopped: list[str] = []
    while waiting:
        with logged() as lines:
            responses = storm(function, waiting)
        assert Counter(response.status_code for response in responses.values()) == Counter(
            {200: LIMIT, 503: len(waiting) - LIMIT}
        )
        handled = [server for server, response in responses.items() if response.status_code == 200]
        held = [server for server in waiting if server not in handled]
        assert [responses[server].json()["servers"][0]["outcome"] for server in handled] == ["stopped"] * LIMIT
        for server in held:
            assert responses[server].json()["type"] == "urn:bms-autostop:problem:stop-limit-reached"
            assert 1 <= int(responses[server].headers["Retry-After"]) <= WINDOW
            assert cloud.stops_sent(server) == 0
        warnings = [line for line in lines.of("event not handled") if line["problem"] == "stop-limit-reached"]
        assert {(line["event_id"], line["level"]) for line in warnings} == {(f"alarm-{id_}", "WARNING") for id_ in held}
        # The instance stays ready: another one would have the same cloud, and no limit in common with it.
        assert requests.get(f"{function.url}/readyz", timeout=10).status_code == 200
        stopped += handled
        assert cloud.count(CallKind.STOP) == len(stopped)
        if held:
            # Until the window has passed, the answer says when that is.
            clock.now += WINDOW - 1
            again = function.stop(held[0])
            assert (again.status_code, again.headers["Retry-After"]) == (503, "1")
            clock.now += 1
        waiting = held
    assert len(stopped) == STORM
    assert {cloud.stops_taken(server) for server in stopped} == {1}


def test_what_needs_no_stop_is_answered_in_a_storm_too(
    cloud: Simulator, start_function: StartFunction, clock: Clock
) -> None:
    """Dry runs, repeats, protected servers and refused events take no room, and are not held back."""
    del clock
    function = start_function(cloud, AUTOSTOP_MAX_SERVERS="1", AUTOSTOP_STOP_LIMIT="1/10m")
    first, other, protected = cloud.add_server(), cloud.add_server(), cloud.add_server(tags=["autostop=never"])
    function.send({"server_ids": [other], "dry_run": True})
    assert function.stop(first).json()["servers"][0]["outcome"] == "stopped"
    assert function.stop(other).status_code == 503
    assert function.stop(first).json()["servers"][0]["outcome"] == "unchanged"
    assert function.stop(protected).json()["servers"][0]["reason"] == "protected"
    assert function.send({"server_ids": [other], "dry_run": True}).json()["servers"][0]["outcome"] == "planned"
    assert function.stop(first, other).json()["refusal"] == "too-many-servers"
    assert cloud.stops_sent(other) == 0


def test_the_nightly_event_of_fifty_is_not_touched_by_the_defaults(
    cloud: Simulator, start_function: StartFunction, clock: Clock
) -> None:
    """Nor are four of them in ten minutes; a fifth one waits."""
    del clock
    function = start_function(cloud)
    for _ in range(4):
        servers = [cloud.add_server() for _ in range(50)]
        response = function.stop(*servers)
        assert response.status_code == 200
        assert response.json()["summary"]["stopped"] == 50
    late = [cloud.add_server() for _ in range(50)]
    assert function.stop(*late).status_code == 503
    assert not any(cloud.stops_sent(server) for server in late)
