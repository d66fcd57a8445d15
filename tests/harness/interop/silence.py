"""A real Prometheus Alertmanager behind the receiver of deploy/recipes/alertmanager-silence.md, before a stop."""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import requests
import yaml

from handler.simulator import Simulator
from tests.conftest import ROOT
from tests.harness.interop.alertmanager import PROGRAM
from tests.harness.interop.stage import served, until
from tests.inbound.webhooks.scene import fresh_secret
from tests.support.blocks import blocks
from tests.support.process import ServerProcess, free_port

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
    config = tmp_path / "alertmanager.yml"
    config.write_text(yaml.safe_dump({"route": {"receiver": "none"}, "receivers": [{"name": "none"}]}))
    port, receiver_port = free_port(), free_port()
    command = [
        PROGRAM,
        f"--config.file={config}",
        f"--storage.path={tmp_path / 'alertmanager'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
    ]
    path = {"PATH": os.environ["PATH"]}
    script = tmp_path / "autostop-silence"
    (code,) = [block.text for block in blocks(PAGE) if block.language == "python"]
    script.write_text(code.replace('("", int(', '("127.0.0.1", int('))
    with (
        Simulator() as cloud,
        ServerProcess(command, path, tmp_path / "alertmanager.log", port=port, ready="/-/ready") as alertmanager,
        ServerProcess(
            [sys.executable, str(script)],
            {
                **path,
                "ALERTMANAGER_URL": alertmanager.url,
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
        now = datetime.now(UTC)
        alerts: Any = [
            {
                "labels": {"alertname": "NodeDown", "server_id": server},
                "startsAt": now.isoformat(),
                "endsAt": (now + timedelta(hours=1)).isoformat(),
            }
            for server in (one, other)
        ]
        requests.post(f"{alertmanager.url}/api/v2/alerts", json=alerts, timeout=30).raise_for_status()
        until(lambda: states(alertmanager.url) == {one: "active", other: "active"}, "the alerts")
        answer = requests.post(
            stop.url,
            data=json.dumps({"server_ids": [one]}),
            headers={
                "content-type": "application/json",
                "ce-specversion": "1.0",
                "ce-id": "nightly",
                "ce-source": "/tests",
                "ce-type": "io.github.bms-autostop.stop.requested.v1",
            },
            timeout=60,
        )
        assert answer.status_code == 204
        assert cloud.server(one).vm_state == "stopped"
        until(lambda: states(alertmanager.url) == {one: "suppressed", other: "active"}, "the silence")
        (silence,) = requests.get(f"{alertmanager.url}/api/v2/silences", timeout=30).json()
        assert (silence["createdBy"], silence["status"]["state"]) == ("bms-autostop", "active")
        until(lambda: states(alertmanager.url) == {one: "active", other: "active"}, "the end of the silence")
        (silence,) = requests.get(f"{alertmanager.url}/api/v2/silences", timeout=30).json()
        assert silence["status"]["state"] == "expired"
