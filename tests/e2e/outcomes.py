"""What the tests of the whole function look at: outcomes, calls and times."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

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
