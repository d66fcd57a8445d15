"""What clouds do that a client easily gets wrong: each behaviour can be asked of the simulator."""

from __future__ import annotations

from typing import Any

import pytest

from handler.simulator import BmsBehavior, Controller, JobChildren, Simulator
from tests.simulator.conftest import Ask
from tests.support.clock import FakeClock

UNKNOWN = "00000000-0000-4000-8000-000000000000"


@pytest.mark.parametrize(
    ("controller", "after", "power_state"),
    [
        (Controller.WORKS, 8.0, 4),
        (Controller.REFUSES, 0.0, 1),
        (Controller.IGNORES, 8.0, 1),
        (Controller.SILENT, 8.0, 0),
        ("refuses", 0.0, 1),
    ],
)
def test_a_stop_is_recorded_as_done_whatever_the_management_controller_does(
    cloud: Simulator, stop: Ask, ask: Ask, clock: FakeClock, controller: Any, after: Any, power_state: Any
) -> None:
    """As a real Nova with Ironic does it: only the power_state tells, and another stop is a 409."""
    id_ = cloud.add_server(controller=controller, power_off_delay=8.0)
    assert stop(id_).status == 202
    if after:
        clock.advance(after - 0.1)
        assert cloud.server(id_).task_state == "powering-off"
        clock.advance(0.1)
    server = cloud.server(id_)
    assert (server.vm_state, server.task_state, server.power_state) == ("stopped", None, power_state)
    shown = ask("GET", f"/v2.1/servers/{id_}/os-instance-actions").json()["instanceActions"][0]
    assert (shown["action"], shown["message"]) == ("stop", None)
    assert stop(id_).status == 409


def test_a_management_controller_of_another_kind_is_an_error(cloud: Simulator) -> None:
    """When it is asked for its power, at the latest."""
    id_ = cloud.add_server(vm_state="stopped")
    with pytest.raises(ValueError, match="sulks"):
        Controller("sulks")
    assert cloud.server(id_).power_state == 4


def test_an_entry_of_the_history_can_be_written_without_doing_anything(
    cloud: Simulator, ask: Ask, clock: FakeClock
) -> None:
    """As Ironic's notifications do it; at any time, and in order."""
    id_ = cloud.add_server()
    clock.advance(100)
    before = cloud.server(id_)
    cloud.record_action(id_, "start", user_id="ironic")
    cloud.record_action(id_, "reboot", user_id="u-7", at=clock.now - 10)
    shown = ask("GET", f"/v2.1/servers/{id_}/os-instance-actions").json()["instanceActions"]
    assert [(entry["action"], entry["user_id"]) for entry in shown[:2]] == [("start", "ironic"), ("reboot", "u-7")]
    assert cloud.server(id_) == before
    detail = ask("GET", f"/v2.1/servers/{id_}/os-instance-actions/{shown[0]['request_id']}", token=cloud.token("admin"))
    assert detail.json()["instanceAction"]["events"][0]["event"] == "compute_start_instance"
    with pytest.raises(KeyError):
        cloud.record_action(UNKNOWN, "start")


def test_the_bms_api_shows_both(clock: FakeClock, ask: Ask) -> None:
    """And recognizes a bare metal server by the name."""
    with Simulator(clock=clock, bms=True) as cloud:
        id_ = cloud.add_server(flavor="9d2f8d0e", flavor_name="physical.h2.large")
        path = f"/v1/{cloud.project_id}/baremetalservers/{id_}"
        flavor = ask("GET", path, to=cloud, token=cloud.token()).json()["server"]["flavor"]
        assert (flavor["id"], flavor["name"]) == ("9d2f8d0e", "physical.h2.large")


# --- jobs ---


@pytest.mark.parametrize("fails", [True, False])
@pytest.mark.parametrize("children", list(JobChildren))
def test_a_job_need_not_list_its_servers(clock: FakeClock, ask: Ask, children: Any, fails: Any) -> None:
    """If it failed, it has code and reason itself then."""
    with Simulator(clock=clock, bms=BmsBehavior(job_children=children)) as cloud:
        token, id_ = cloud.token(), cloud.add_server(power_off_fails=fails)
        path = f"/v1/{cloud.project_id}/"
        body = {"os-stop": {"servers": [{"id": id_}]}}
        job_id = ask("POST", f"{path}baremetalservers/action", body, to=cloud, token=token).json()["job_id"]
        job = ask("GET", f"{path}jobs/{job_id}", to=cloud, token=token).json()
    assert job["status"] == ("FAIL" if fails else "SUCCESS")
    itself = fails and children is not JobChildren.LISTED
    assert (job["error_code"], job["fail_reason"]) == (
        ("BMS.1007", "An internal call failed.") if itself else (None, None)
    )
    shown = {
        JobChildren.NONE: {"sub_jobs_total": 1, "sub_jobs": []},
        JobChildren.NULL: {"sub_jobs_total": 1, "sub_jobs": None},
        JobChildren.MISSING: {},
        JobChildren.SERVER_ID: {"server_id": id_},
    }
    if children is JobChildren.LISTED:
        assert job["entities"]["sub_jobs"][0]["entities"] == {"server_id": id_}
    else:
        assert job["entities"] == shown[children]


# --- time ---


def test_the_cloud_says_its_own_time(ask: Ask, clock: FakeClock) -> None:
    """In each answer, also in one that is refused."""
    clock.advance(3600)
    for path in ("/v2.1/servers", f"/v2.1/servers/{UNKNOWN}", "/v3/auth/catalog"):
        assert ask("GET", path).header("Date") == "Sun, 15 Jun 2025 16:06:40 GMT"
