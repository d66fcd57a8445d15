"""Every reason and every refusal, given by the whole function: over HTTP, on either API of the simulated cloud."""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from handler import rfc3339
from handler.cloud import servers as servers_module
from handler.event_types import STOP_APPROVED, STOP_REQUESTED
from handler.simulator import Api, CallKind, ConflictKind, Fault, Simulator
from handler.stop.approval import Plan, issue
from handler.stop.model import Approver, Reason, Refusal
from tests.conftest import StartFunction
from tests.e2e.conftest import set_backoff

UNKNOWN = "0b6f6a9e-6a34-4a0e-8d5c-6a3f1f0f7c21"
KEY, OTHER_KEY = "k" * 40, "o" * 40
KEYS = {"AUTOSTOP_APPROVAL_KEYS": KEY}
LONG_AGO = time.time() - 86400
SHORT = {"AUTOSTOP_DEADLINE": "2s", "AUTOSTOP_WAIT": "0.2s"}


@dataclass(frozen=True, slots=True)
class Way:
    """How the function is brought to give a reason for a server.

    Attributes:
        server: what the server is like; None if there is none.
        fault: what goes wrong in the cloud, with this server alone.
        then: what happens to the server before the event is delivered.
        environ: settings beside the usual ones.
        user: whose login it is.
        data, time: of the event, beside the server's id.
        approved: whether the event is sent as an approval of its plan.
        restarted: whether the server is rebooted between plan and approval.
        beside: whether a second, healthy server is named too.
        foreign: the server belongs to another project.
        nova_only: BMS v1 can't lead there: it shows bare metal servers of the own project only.
    """

    server: Mapping[str, Any] | None = field(default_factory=dict)
    fault: Callable[[str], Fault] | None = None
    then: Callable[[Simulator, str], None] | None = None
    environ: Mapping[str, str] = field(default_factory=dict)
    user: str = "operator"
    data: Mapping[str, Any] = field(default_factory=dict)
    time: timedelta | None = None
    approved: bool = False
    restarted: bool = False
    beside: bool = False
    foreign: bool = False
    nova_only: bool = False


WAYS = {
    Reason.CONFIRMED: Way(),
    Reason.ACCEPTED: Way(server={"power_off_delay": math.inf}, environ=SHORT),
    Reason.ALREADY_STOPPED: Way(server={"vm_state": "stopped"}),
    Reason.ALREADY_STOPPING: Way(server={"task_state": "powering-off"}),
    Reason.PROTECTED: Way(server={"tags": ["autostop=never"]}),
    Reason.KEPT_UNTIL: Way(server={"tags": ["autostop-keep-until=2999-01-01T00:00:00Z"]}),
    Reason.LOCKED: Way(server={"locked": True}),
    Reason.NOT_BARE_METAL: Way(server={"flavor": "s3.medium.2", "tags": []}, nova_only=True),
    Reason.STARTED_SINCE: Way(
        server={"vm_state": "stopped"},
        then=lambda cloud, id_: cloud.start_server(id_),
        time=timedelta(minutes=2),
    ),
    Reason.OTHER_PROJECT: Way(foreign=True, user="admin", nova_only=True),
    Reason.NOT_OPTED_IN: Way(environ={"AUTOSTOP_ONLY": "autostop=allowed"}),
    Reason.CHANGED_SINCE_PLAN: Way(server={"updated": LONG_AGO}, approved=True, restarted=True),
    Reason.NOT_FOUND: Way(server=None),
    Reason.WRONG_STATE: Way(server={"vm_state": "paused"}),
    Reason.POWER_STILL_ON: Way(server={"controller": "refuses"}, environ=SHORT),
    Reason.BUSY: Way(then=lambda cloud, id_: cloud.reboot_server(id_, delay=math.inf), environ=SHORT),
    Reason.DELETING: Way(server={"task_state": "deleting"}),
    Reason.NEVER_LAUNCHED: Way(server={"vm_state": "error", "launched": False}),
    Reason.FORBIDDEN: Way(user="watcher"),
    Reason.CONFLICT: Way(fault=lambda id_: Fault.conflict(ConflictKind.NOT_READY, id_, times=None)),
    Reason.REJECTED: Way(fault=lambda id_: Fault(on=CallKind.READ, status=400, server_id=id_, times=None)),
    Reason.REVERTED: Way(server={"power_off_fails": True}),
    Reason.CLOUD_ERROR: Way(
        fault=lambda id_: Fault(on=CallKind.READ, status=500, server_id=id_, times=None), beside=True
    ),
    Reason.DRY_RUN: Way(data={"dry_run": True}),
    Reason.NEEDS_APPROVAL: Way(server={"updated": LONG_AGO}, data={"approval": "self"}),
}
_STOP_TAKEN = frozenset({Reason.CONFIRMED, Reason.ACCEPTED, Reason.REVERTED, Reason.POWER_STILL_ON})
REFUSALS: Mapping[Refusal, Mapping[str, Any]] = {
    Refusal.TOO_OLD: {"time": "2020-01-01T00:00:00Z"},
    Refusal.EXPIRED: {"expirytime": "2020-01-01T00:00:00Z"},
    Refusal.TOO_MANY_SERVERS: {"ids": 3},
    Refusal.NO_SERVER_IDS: {"ids": 0},
    Refusal.IN_THE_FUTURE: {"time": "2999-01-01T00:00:00Z"},
    Refusal.APPROVAL_INVALID: {"keys": [OTHER_KEY]},
    Refusal.APPROVAL_EXPIRED: {"age": timedelta(0)},
    Refusal.APPROVAL_SELF: {"approved_by": "slack:T1/U1"},
}


def approval(
    server_id: str,
    keys: Sequence[str] = (KEY,),
    age: timedelta = timedelta(minutes=-15),
    approved_by: str = "slack:T1/U2",
) -> dict[str, str]:
    """An approval of a plan that expired so long ago, for one server."""
    plan = Plan(
        str(uuid.uuid4()), "/tests", "1", "slack:T1/U1", Approver.OTHER, datetime.now(UTC) - age, {server_id: bytes(8)}
    )
    token = issue(plan, [key.encode() for key in keys], "/bms-autostop")
    return {"plan": token, "approved_by": approved_by}


@pytest.fixture(params=["nova", "bms"])
def api(request: pytest.FixtureRequest) -> Api:
    """The API that is spoken."""
    return Api(request.param)


@pytest.fixture
def simulated(api: Api) -> Iterator[Simulator]:
    """The cloud that has this API."""
    with Simulator.otc() if api is Api.BMS else Simulator() as simulator:
        yield simulator


def test_there_is_a_way_to_each_reason_and_refusal() -> None:
    """A new word in the vocabulary needs a scenario for the whole function here."""
    assert list(WAYS) == list(Reason), "WAYS above must lead to each reason, in the order of Reason"
    assert set(REFUSALS) == set(Refusal)


@pytest.mark.parametrize(
    ("api", "reason"),
    [(api, reason) for reason, way in WAYS.items() for api in ("nova", "bms") if api == "nova" or not way.nova_only],
    indirect=["api"],
)
def test_every_reason_is_given_by_the_whole_function(
    simulated: Simulator, start_function: StartFunction, monkeypatch: pytest.MonkeyPatch, api: Api, reason: Reason
) -> None:
    """What happens to a server in the cloud ends as this reason in the result event, with its outcome and a sentence.

    A server that was seen brings the evidence for it.
    """
    way = WAYS[reason]
    # What is tried again is tried again soon, and servers are read singly, so that a fault can meet one alone.
    set_backoff(monkeypatch, lambda attempt: 0.002 * 2 ** min(attempt, 7))
    monkeypatch.setattr(servers_module, "_FEW", 1000)
    owner: dict[str, Any] = {"project_id": simulated.other_project_id} if way.foreign else {}
    id_ = UNKNOWN if way.server is None else simulated.add_server("ci-07", **way.server, **owner)
    ids = [id_, *([simulated.add_server()] if way.beside else [])]
    if way.then:
        way.then(simulated, id_)
    if way.fault:
        simulated.inject(way.fault(id_))
    function = start_function(simulated, AUTOSTOP_API=str(api), **simulated.environ(way.user), **KEYS, **way.environ)
    stamp: dict[str, Any] = {} if way.time is None else {"time": rfc3339.render(datetime.now(UTC) - way.time)}
    asked, type_ = {"server_ids": ids, **way.data}, STOP_REQUESTED
    if way.approved:
        plan = function.send({"server_ids": ids, "approval": "self"}).json()["plan"]["token"]
        asked, type_ = {"plan": plan, "approved_by": "slack:T1/U1"}, STOP_APPROVED
    if way.restarted:
        simulated.reboot_server(id_)
    answer = function.send(asked, type=type_, **stamp)
    assert answer.status_code == 200, answer.text
    row = answer.json()["servers"][0]
    assert (row["id"], row["reason"], row["outcome"]) == (id_, reason, reason.outcome)
    assert row["detail"].endswith(".")
    seen = reason not in (Reason.NOT_FOUND, Reason.REJECTED, Reason.CLOUD_ERROR)
    assert (row["evidence"] is not None) == seen
    assert simulated.stops_taken(id_) == (reason in _STOP_TAKEN)


@pytest.mark.parametrize("refusal", Refusal)
def test_every_refusal_is_given_by_the_whole_function(
    simulated: Simulator, start_function: StartFunction, api: Api, refusal: Refusal
) -> None:
    """The result is a refusal of this name, and the cloud hears of no server."""
    attributes = dict(REFUSALS[refusal])
    function = start_function(simulated, AUTOSTOP_API=str(api), AUTOSTOP_MAX_SERVERS="2", **KEYS)
    if refusal.startswith("approval"):
        answer = function.send(approval(simulated.add_server(), **attributes), type=STOP_APPROVED)
        assert answer.status_code == 200, answer.text
        assert (answer.json()["refusal"], answer.json()["servers"]) == (refusal, [])
        assert {call.kind for call in simulated.calls} <= {CallKind.LOGIN}
        return
    ids = [simulated.add_server() for _ in range(attributes.pop("ids", 1))]
    answer = function.send({"server_ids": ids} if ids else None, **attributes)
    assert answer.status_code == 200, answer.text
    assert (answer.json()["refusal"], answer.json()["servers"]) == (refusal, [])
    assert {call.kind for call in simulated.calls} <= {CallKind.LOGIN}
