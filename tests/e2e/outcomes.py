"""What the tests of the whole function compare: outcomes, calls, times, and what the cloud shows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import requests

from handler import rfc3339
from handler.simulator import Call, CallKind, Simulator


def came_out(answer: requests.Response) -> dict[str, str]:
    """Return outcome and reason of each server, as `outcome/reason`."""
    assert answer.status_code == 200, answer.text
    return {row["id"]: f"{row['outcome']}/{row['reason']}" for row in answer.json()["servers"]}


def kinds(cloud: Simulator) -> list[CallKind]:
    """Return the kinds of the calls that the cloud received, in order."""
    return [call.kind for call in cloud.calls]


def at(seconds_ago: float) -> str:
    """Return a time as an event has it."""
    return rfc3339.render(datetime.now(UTC) - timedelta(seconds=seconds_ago))


def stops(cloud: Simulator) -> list[Call]:
    """Return the calls that asked for a stop, in order."""
    return [call for call in cloud.calls if call.kind is CallKind.STOP]


def shown(cloud: Simulator, api: str, server: str = "") -> Any:
    """Return what the cloud shows now of a server, or of all its servers, as JSON."""
    base = f"{cloud.bms_url}/{cloud.project_id}/baremetalservers" if api == "bms" else f"{cloud.url}/v2.1/servers"
    headers = {"X-Auth-Token": cloud.token(), "OpenStack-API-Version": "compute 2.26"}
    return requests.get(f"{base}/{server or 'detail'}", headers=headers, timeout=10).json()
