"""A real Prometheus Alertmanager before a served `receive_webhook`, which sends to a served `stop_servers`."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from handler.simulator import Simulator
from tests.harness.interop.stage import Passed, Relay, captured, served, until
from tests.inbound.webhooks.scene import fresh_secret
from tests.support.process import ServerProcess, free_port

PROGRAM = "prometheus-alertmanager"
TOKEN = fresh_secret()
PROOFS: dict[str, dict[str, Any]] = {
    "bearer": {"authorization": {"type": "Bearer", "credentials": TOKEN}},
    "basic": {"basic_auth": {"username": "alertmanager", "password": TOKEN}},
    "wrong": {"authorization": {"credentials": "another-token"}},
}
seen: dict[str, Any] = {}


@dataclass(frozen=True)
class Chain:
    """Alertmanager, a relay, `receive_webhook`, a relay, `stop_servers`, and the cloud.

    Attributes:
        url: Alertmanager's.
        notified, asked: what passed before and behind `receive_webhook`.
    """

    cloud: Simulator
    url: str
    notified: Relay
    asked: Relay

    def alert(self, *firing: str, resolved: Iterable[str] = ()) -> None:
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
        requests.post(f"{self.url}/api/v2/alerts", json=alerts, timeout=30).raise_for_status()

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
        config = folder / "alertmanager.yml"
        receiver = {"url": f"{notified.url}/alertmanager", "send_resolved": True, "http_config": PROOFS[credentials]}
        config.write_text(
            yaml.safe_dump(
                {
                    "route": {
                        "receiver": "autostop",
                        "group_by": ["alertname"],
                        "group_wait": "1s",
                        "group_interval": "3s",
                        "repeat_interval": "1h",
                    },
                    "receivers": [{"name": "autostop", "webhook_configs": [receiver]}],
                }
            )
        )
        port = free_port()
        command = [
            PROGRAM,
            f"--config.file={config}",
            f"--storage.path={folder / 'alertmanager'}",
            f"--web.listen-address=127.0.0.1:{port}",
            # Empty: it looks for no peers, and listens nowhere else.
            "--cluster.listen-address=",
        ]
        environ = {"PATH": os.environ["PATH"]}
        log = folder / "alertmanager.log"
        alertmanager = stack.enter_context(ServerProcess(command, environ, log, port=port, ready="/-/ready"))
        yield Chain(cloud, alertmanager.url, notified, asked)


@pytest.fixture(scope="module", autouse=True)
def _captures() -> Iterator[None]:
    yield
    version = re.search(r"version ([\d.]+)", subprocess.check_output([PROGRAM, "--version"], text=True, stderr=-2))
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
