"""The servers, and the people who do things to them: the simulated cloud on a held clock, without a port."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from handler.simulator import BmsBehavior, ComputePath, Refusal, Simulator
from handler.simulator.bms.views import is_bare_metal
from handler.simulator.cloud import Cloud
from handler.simulator.compute.servers import ServerState
from handler.simulator.compute.world import Actor
from tests.harness.prove.clock import Clock
from tests.harness.prove.events import stamp
from tests.harness.prove.wire import CLOUD

_PHYSICAL = "physical.o2.medium"
_VIRTUAL = "s3.large.4"
# What servers carry that an event can mean without naming them.
TAG = "team=ci"

# What a server can be like when it comes into the world. Times are in seconds from now.
SHAPES: Mapping[str, Mapping[str, Any]] = {
    "plain": {},
    "slow": {"power_off_delay": 3.0},
    "endless": {"power_off_delay": 1e9},
    "stubborn": {"power_off_fails": True, "power_off_delay": 0.5},
    "error": {"vm_state": "error"},
    "never-launched": {"vm_state": "error", "launched": False},
    "stopped": {"vm_state": "stopped"},
    "locked": {"locked": True},
    "protected": {"tags": ["autostop=never"]},
    "protected-by-hand": {"tags": ["autostop= Never"]},
    "protected-metadata": {"metadata": {"autostop": "never"}},
    "kept": {"keep": 400.0},
    "kept-forever": {"keep": 1e8},
    "kept-once": {"keep": -10.0},
    "kept-somehow": {"tags": ["autostop-keep-until=tomorrow"]},
    "tagged": {"tags": [TAG]},
    "tagged-and-protected": {"tags": [TAG, "autostop=never"]},
    "tagged-virtual": {"flavor": _VIRTUAL, "tags": [TAG]},
    "virtual": {"flavor": _VIRTUAL},
    "bare-by-tag": {"flavor": _VIRTUAL, "tags": ["__type_baremetal"]},
    "bare-by-metadata": {"flavor": _VIRTUAL, "metadata": {"metering.resourcetype": "__type_baremetal"}},
    "paused": {"vm_state": "paused"},
    "building": {"vm_state": "building", "task_state": "spawning"},
    "rebuilding": {"task_state": "rebuilding"},
}

ACTS = (
    "start",
    "start-slowly",
    "stop",
    "reboot",
    "reboot-slowly",
    "lock",
    "unlock",
    "protect",
    "unprotect",
    "tag",
    "keep",
    "break",
    "rebuild",
    "rebuilt",
    "delete",
)


class Town:
    """A cloud with people in it.

    Args:
        otc: paths and answers are as on Open Telekom Cloud.
        bms: how its BMS API behaves; None if there is none, and Nova is spoken.
    """

    def __init__(self, clock: Clock, *, otc: bool = False, bms: BmsBehavior | None = None) -> None:
        self._clock = clock
        self._simulator = Simulator(
            clock=clock.time,
            compute_path=ComputePath.PROJECT if otc else ComputePath.PLAIN,
            max_microversion="2.60",
            stop_status=204 if otc else 202,
            bms=bms or False,
        )
        self.bms = bms
        # The seam behind its port: requests go in here, and what is to be sent back comes out.
        self.cloud: Cloud = self._simulator._cloud
        self.cloud.catalog.base_url = CLOUD
        self.world = self.cloud.world
        self.ids: list[str] = []

    def shows(self, state: ServerState) -> bool:
        """Whether the API that is spoken shows a server."""
        return self.bms is None or is_bare_metal(state)

    def end_tokens(self) -> None:
        """Let every token given out so far end."""
        self._simulator.revoke_tokens()

    def environ(self) -> dict[str, str]:
        """The variables of a login that works, and of the API that is spoken."""
        api = "nova" if self.bms is None else "bms"
        return {**self._simulator.environ(), "OS_AUTH_URL": f"{CLOUD}/v3", "AUTOSTOP_API": api}

    def add(self, shape: str) -> str:
        """Put a server there that is of one of the `SHAPES` and has not been touched for an hour."""
        wanted = dict(SHAPES[shape])
        now = self._clock.time()
        if "keep" in wanted:
            wanted["tags"] = [f"autostop-keep-until={stamp(now + wanted.pop('keep'))}"]
        number = len(self.ids) + 1
        server_id = self._simulator.add_server(
            f"{shape}-{number}",
            id=f"{number:08d}-0000-4000-8000-000000000000",
            updated=now - 3600.0,
            **{"flavor": _PHYSICAL, **wanted},
        )
        self.ids.append(server_id)
        return server_id

    def act(self, number: int, act: str) -> bool:
        """Let a person do something to a server; False if the cloud refuses or there is nothing to do."""
        server_id = self.ids[number % len(self.ids)]
        if self.world.get(server_id).deleted:
            return False
        count = len(self.world.actions(server_id))
        person = Actor("somebody-else", "", f"req-person-{server_id[:8]}-{count}", admin=True)
        try:
            return bool(self._act(server_id, act, person))
        except Refusal:
            return False

    def _act(self, server_id: str, act: str, person: Actor) -> bool:
        world, state = self.world, self.world.get(server_id)
        running = state.vm_state == "active"
        deeds: Mapping[str, Callable[[], object]] = {
            "start": lambda: world.start(server_id, person),
            "start-slowly": lambda: world.start(server_id, person, 40.0),
            "stop": lambda: world.stop(server_id, person),
            "reboot": lambda: world.reboot(server_id, person),
            "reboot-slowly": lambda: world.reboot(server_id, person, 8.0),
            "lock": lambda: world.change(server_id, locked=True),
            "unlock": lambda: world.change(server_id, locked=False),
            # Nova keeps tags in a table of their own: a new one does not show in `updated`.
            "protect": lambda: world.change(
                server_id, tags=[*state.tags, "autostop=never"], metadata=state.metadata, updated=state.updated
            ),
            "tag": lambda: world.change(server_id, tags=[*state.tags, TAG], updated=state.updated),
            "unprotect": lambda: world.change(server_id, tags=[], metadata={}, updated=state.updated),
            "keep": lambda: world.change(
                server_id,
                tags=[*state.tags, f"autostop-keep-until={stamp(self._clock.time() + 400)}"],
                updated=state.updated,
            ),
            "break": lambda: running and world.change(server_id, vm_state="error"),
            "rebuild": lambda: (
                running and state.task_state is None and world.change(server_id, task_state="rebuilding", due=None)
            ),
            "rebuilt": lambda: state.task_state == "rebuilding" and world.change(server_id, task_state=None),
            "delete": lambda: world.delete(server_id, person),
        }
        return deeds[act]() is not False
