"""A simulated cloud on this machine: for the demo, for this project's tests, and for yours."""

from handler.simulator.bms.behavior import BatchPolicy, BmsBehavior, JobChildren
from handler.simulator.calls import Api, Call, CallKind
from handler.simulator.compute.servers import Action, Controller, ServerFault, ServerState
from handler.simulator.compute.store import Conflict, NotFound, Refusal
from handler.simulator.faults import ConflictKind, Cut, Fault
from handler.simulator.identity.catalog import ComputePath
from handler.simulator.identity.signing import AccessKey
from handler.simulator.simulator import Simulator
from handler.simulator.smn import Published

__all__ = [
    "AccessKey",
    "Action",
    "Api",
    "BatchPolicy",
    "BmsBehavior",
    "Call",
    "CallKind",
    "ComputePath",
    "Conflict",
    "ConflictKind",
    "Controller",
    "Cut",
    "Fault",
    "JobChildren",
    "NotFound",
    "Published",
    "Refusal",
    "ServerFault",
    "ServerState",
    "Simulator",
]
