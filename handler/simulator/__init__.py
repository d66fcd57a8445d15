"""A faithful small cloud on this machine: for the demo, for this project's tests, and for yours."""

from handler.simulator.calls import Call, CallKind
from handler.simulator.catalog import ComputePath
from handler.simulator.faults import ConflictKind, Cut, Fault
from handler.simulator.servers import Action, ServerFault, ServerState
from handler.simulator.simserver import SimServer
from handler.simulator.simulator import Simulator
from handler.simulator.world import Conflict, NotFound, Refusal

__all__ = [
    "Action",
    "Call",
    "CallKind",
    "ComputePath",
    "Conflict",
    "ConflictKind",
    "Cut",
    "Fault",
    "NotFound",
    "Refusal",
    "ServerFault",
    "ServerState",
    "SimServer",
    "Simulator",
]
