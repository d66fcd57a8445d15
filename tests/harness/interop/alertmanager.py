"""A real Prometheus Alertmanager before a served `receive_webhook`, which sends to a served `stop_servers`.

And one behind the receiver of deploy/recipes/alertmanager-silence.md, before a stop.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests

from handler.simulator import Simulator
from tests.conftest import ROOT
from tests.harness.interop.stage import ALERTMANAGER, Passed, Relay, alertmanager, captured, served, until
from tests.inbound.webhooks.receiver import fresh_secret
from tests.support.blocks import blocks
from tests.support.events import binary
from tests.support.process import ServerProcess, free_port

TOKEN = fresh_secret()
PROOFS: dict[str, dict[str, Any]] = {
    "bearer": {"authorization": {"type": "Bearer", "credentials": TOKEN}},
    "basic": {"basic_auth": {"username": "alertmanager", "password": TOKEN}},
    "wrong": {"authorization": {"credentials": "another-token"}},
}
seen: dict[str, Any] = {}


def post_alerts(url: str, *firing: str, resolved: Iterable[str] = ()) -> None:
    """Post alerts of one group to Alertmanager's API at once, as Prometheus does."""
    now = datetime.now(UTC)
    ends = {**dict.fromkeys(firing, now + timedelta(hours=1)), **dict.fromkeys(resolved, now)}
    alerts: Any = [
        {
            "labels": {"alertname": "BareMetalIdle", "server_id": server, "severity": "warning"},
            "annotations": {"summary": f"{server} is idle: 0 % - ✓ stop it"},
            "generatorURL": "http://prometheus.example/graph?g0.expr=idle",
            "startsAt": (now - timedelta(minutes=5)).isoformat(),
            "endsAt": end.isoformat(),
        }
        for server, end in ends.items()
    ]
    requests.post(f"{url}/api/v2/alerts", json=alerts, timeout=30).raise_for_status()


@dataclass(frozen=True)
class Chain:
    """Alertmanager, a relay, `receive_webhook`, a relay, `stop_servers`, and the cloud.

    Attributes:
        notified, asked: what passed before and behind `receive_webhook`.
    """

    cloud: Simulator
    url: str
    notified: Relay
    asked: Relay

    def alert(self, *firing: str, resolved: Iterable[str] = ()) -> None:
        """Post alerts of one group to Alertmanager."""
        post_alerts(self.url, *firing, resolved=resolved)

    def state(self, server: str) -> str:
        return self.cloud.server(server).vm_state or ""

    def notification(self, *states: tuple[str, str]) -> Passed | None:
        """The notification with exactly these servers in these states, once there is one."""
        for passed in self.notified.passed:
            if {(alert["labels"]["server_id"], alert["status"]) for alert in passed.data["alerts"]} == set(states):
                return passed
        return None


@contextmanager
def chain(folder: Path, credentials: str) -> Iterator[Chain]:
    """The whole chain in processes of their own."""
    with ExitStack() as stack:
        cloud = stack.enter_context(Simulator())
        stop = stack.enter_context(
            served("stop_servers", folder, AUTOSTOP_INBOUND_AUTH="none", AUTOSTOP_WAIT="1s", **cloud.environ())
        )
        asked = stack.enter_context(Relay(stop.url))
        webhook = stack.enter_context(
            served("receive_webhook", folder, AUTOSTOP_EVENT_SINK=f"{asked.url}/", AUTOSTOP_ALERTMANAGER_TOKEN=TOKEN)
        )
        notified = stack.enter_context(Relay(webhook.url))
        receiver = {"url": f"{notified.url}/alertmanager", "send_resolved": True, "http_config": PROOFS[credentials]}
        route = {"receiver": "autostop", "group_by": ["alertname"]}
        route |= {"group_wait": "1s", "group_interval": "3s", "repeat_interval": "1h"}
        config = {"route": route, "receivers": [{"name": "autostop", "webhook_configs": [receiver]}]}
        program = stack.enter_context(alertmanager(folder, config))
        yield Chain(cloud, program.url, notified, asked)


@pytest.fixture(scope="module", autouse=True)
def _captures() -> Iterator[None]:
    yield
    version = re.search(r"version ([\d.]+)", subprocess.check_output([ALERTMANAGER, "--version"], text=True, stderr=-2))
    assert version is not None
    captured("alertmanager", {"program": f"Prometheus Alertmanager {version[1]} (Debian)", "messages": seen})


def keep(name: str, credentials: str, passed: Passed) -> None:
    """Remember what was sent, without the secret and the name of this machine."""
    wanted = {key: value for key, value in passed.headers.items() if key in ("content-type", "user-agent")}
    body = re.sub(r'"externalURL":"[^"]*"', '"externalURL":"http://alertmanager.example"', passed.body.decode())
    seen[name] = {"proof": credentials, "headers": wanted, "body": body}


@pytest.mark.parametrize("credentials", ["bearer", "basic"])
def test_what_fires_is_stopped_and_what_is_resolved_is_not(tmp_path: Path, credentials: str) -> None:
    """Also if both stand in one notification: the one that is resolved was started again, and keeps running."""
    with chain(tmp_path, credentials) as here:
        one, two, three = (here.cloud.add_server() for _ in range(3))
        here.alert(one, two)
        firing = until(lambda: here.notification((one, "firing"), (two, "firing")), "the first notification")
        until(lambda: here.state(one) == here.state(two) == "stopped", "the stop of two servers")
        here.cloud.start_server(two)
        until(lambda: here.state(two) == "active", "the start of a server")
        here.alert(three, resolved=[two])
        both = until(
            lambda: here.notification((one, "firing"), (two, "resolved"), (three, "firing")), "the mixed notification"
        )
        until(lambda: here.state(three) == "stopped", "the stop of the third server")
        here.alert(resolved=[one, three])
        resolved = until(
            lambda: here.notification((one, "resolved"), (three, "resolved")), "the notification that all is resolved"
        )
        assert here.state(two) == "active"
    # Where nothing fires there is nothing to do, and an empty 204 is a success to Alertmanager.
    assert here.notified.statuses == [200, 200, 204]
    asked = [sorted(passed.data["server_ids"]) for passed in here.asked.passed]
    assert asked == [sorted([one, two]), sorted([one, three])]
    assert {passed.path for passed in here.notified.passed} == {"/alertmanager"}
    for name, passed in (("firing", firing), ("firing-and-resolved", both), ("resolved", resolved)):
        assert passed is not None
        keep(f"{name}-{credentials}", credentials, passed)


def test_a_notification_that_could_not_be_handed_on_comes_again(tmp_path: Path) -> None:
    """Alertmanager takes our 503 for what it is, and the event that comes of it in the end is the same one."""
    with chain(tmp_path, "bearer") as here:
        server = here.cloud.add_server()
        here.asked.down = True
        here.alert(server)
        until(lambda: here.notified.statuses.count(503) >= 2, "a second try")
        assert here.state(server) == "active"
        here.asked.down = False
        until(lambda: here.notified.statuses[-1] == 200, "a try that is taken")
        until(lambda: here.state(server) == "stopped", "the stop")
    assert here.notified.statuses[-1] == 200
    assert set(here.notified.statuses[:-1]) == {503}
    bodies = {passed.body for passed in here.notified.passed}
    assert len(bodies) == 1
    ids = {passed.headers["ce-id"] for passed in here.asked.passed}
    assert len(ids) == 1


def test_a_wrong_token_is_not_tried_again_at_once(tmp_path: Path) -> None:
    """Alertmanager takes 401 for final, until the group is due again."""
    with chain(tmp_path, "wrong") as here:
        server = here.cloud.add_server()
        here.alert(server)
        until(lambda: here.notified.passed, "a notification")
        assert here.notified.statuses[0] == 401
        assert here.state(server) == "active"
    assert here.asked.passed == []
    assert json.loads((tmp_path / "receive_webhook.log").read_text().splitlines()[-1])["problem"] == "unauthenticated"


# --- a silence from an announcement

PAGE = ROOT / "deploy" / "recipes" / "alertmanager-silence.md"
# Long enough to see both states, short enough to wait for its end.
SECONDS = 10


def states(url: str) -> dict[str, str]:
    """The state of each alert by the id of its server."""
    alerts: Any = requests.get(f"{url}/api/v2/alerts", timeout=30).json()
    return {alert["labels"]["server_id"]: alert["status"]["state"] for alert in alerts}


def test_an_announced_stop_silences_its_servers_and_the_silence_ends_by_itself(tmp_path: Path) -> None:
    """Another server's alert stays active all the time."""
    token = fresh_secret()
    config = {"route": {"receiver": "none"}, "receivers": [{"name": "none"}]}
    receiver_port = free_port()
    path = {"PATH": os.environ["PATH"]}
    script = tmp_path / "autostop-silence"
    (code,) = [block.text for block in blocks(PAGE) if block.language == "python"]
    script.write_text(code.replace('("", int(', '("127.0.0.1", int('))
    with (
        Simulator() as cloud,
        alertmanager(tmp_path, config) as program,
        ServerProcess(
            [sys.executable, str(script)],
            {
                **path,
                "ALERTMANAGER_URL": program.url,
                "SILENCE_TOKEN": token,
                "SILENCE_SECONDS": str(SECONDS),
                "PORT": str(receiver_port),
            },
            tmp_path / "receiver.log",
            port=receiver_port,
        ) as receiver,
        served(
            "stop_servers",
            tmp_path,
            AUTOSTOP_INBOUND_AUTH="none",
            AUTOSTOP_RESULT_SINK=f"{receiver.url}/",
            AUTOSTOP_SINK_TOKEN=token,
            AUTOSTOP_ANNOUNCE="required",
            **cloud.environ(),
        ) as stop,
    ):
        one, other = cloud.add_server(), cloud.add_server()
        post_alerts(program.url, one, other)
        until(lambda: states(program.url) == {one: "active", other: "active"}, "the alerts")
        headers, data = binary({"server_ids": [one]}, id="nightly")
        answer = requests.post(stop.url, data=data, headers=headers, timeout=60)
        assert answer.status_code == 204
        assert cloud.server(one).vm_state == "stopped"
        until(lambda: states(program.url) == {one: "suppressed", other: "active"}, "the silence")
        (silence,) = requests.get(f"{program.url}/api/v2/silences", timeout=30).json()
        assert (silence["createdBy"], silence["status"]["state"]) == ("bms-autostop", "active")
        until(lambda: states(program.url) == {one: "active", other: "active"}, "the end of the silence")
        (silence,) = requests.get(f"{program.url}/api/v2/silences", timeout=30).json()
        assert silence["status"]["state"] == "expired"
