"""The whole function, from an event over HTTP to the cloud and back, on the simulator."""

from __future__ import annotations

from handler.simulator import Simulator
from tests.conftest import Function


def test_an_active_server_is_stopped_and_seen_stopped(cloud: Simulator, function: Function) -> None:
    """An active server ends as stopped/confirmed, with the state that it had before."""
    server = cloud.add_server("ci-07")
    answer = function.stop(server)
    (row,) = answer.json()["servers"]
    assert answer.status_code == 200
    assert answer.headers["ce-type"] == "io.github.bms-autostop.stop.completed.v1"
    assert (row["outcome"], row["reason"]) == ("stopped", "confirmed")
    assert (row["previous_vm_state"], row["vm_state"], row["name"]) == ("active", "stopped", "ci-07")
    assert cloud.server(server).vm_state == "stopped"
