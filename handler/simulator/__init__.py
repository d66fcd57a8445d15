"""A faithful small cloud on this machine: for the demo, for this project's tests, and for yours."""

from handler.simulator.access_keys import AccessKey
from handler.simulator.bms_manners import BatchPolicy, BmsManners
from handler.simulator.calls import Api, Call, CallKind
from handler.simulator.catalog import ComputePath
from handler.simulator.faults import ConflictKind, Cut, Fault
from handler.simulator.servers import Action, ServerFault, ServerState
from handler.simulator.simserver import SimServer
from handler.simulator.simulator import Simulator
from handler.simulator.smn import Published
from handler.simulator.world import Conflict, NotFound, Refusal

__all__ = [
    "AccessKey",
    "Action",
    "Api",
    "BatchPolicy",
    "BmsManners",
    "Call",
    "CallKind",
    "ComputePath",
    "Conflict",
    "ConflictKind",
    "Cut",
    "Fault",
    "NotFound",
    "Published",
    "Refusal",
    "ServerFault",
    "ServerState",
    "SimServer",
    "Simulator",
]
