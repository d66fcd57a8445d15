"""A live view of one server, for tests."""

from collections.abc import Mapping

from handler.simulator.compute.servers import ServerState
from handler.simulator.compute.world import World


class SimServer:
    """A live view of one server: each attribute is read at that moment.

    Args:
        world: the servers.
        server_id: in the cloud's spelling.
    """

    def __init__(self, world: World, server_id: str) -> None:
        self._world = world
        self.id = server_id

    @property
    def state(self) -> ServerState:
        """Its present state, as a frozen value."""
        return self._world.get(self.id)

    @property
    def name(self) -> str:
        """The name that its owner gave it."""
        return self.state.name

    @property
    def vm_state(self) -> str:
        """`OS-EXT-STS:vm_state`: the settled state, such as active, stopped or error."""
        return self.state.vm_state

    @property
    def task_state(self) -> str | None:
        """`OS-EXT-STS:task_state`: the running operation, such as powering-off; None if there is none."""
        return self.state.task_state

    @property
    def power_state(self) -> int:
        """`OS-EXT-STS:power_state`: 0 none, 1 running, 3 paused, 4 off."""
        return self.state.power_state

    @property
    def status(self) -> str:
        """The `status` that Nova computes from vm_state and task_state."""
        return self.state.status

    @property
    def locked(self) -> bool:
        """Whether only an administrator may act on it."""
        return self.state.locked

    @property
    def tags(self) -> tuple[str, ...]:
        """Its tags."""
        return self.state.tags

    @property
    def metadata(self) -> Mapping[str, str]:
        """Its metadata."""
        return self.state.metadata

    @property
    def updated(self) -> float:
        """When it last changed, in seconds since the epoch."""
        return self.state.updated

    @property
    def deleted(self) -> bool:
        """Whether it is deleted."""
        return self.state.deleted

    def __repr__(self) -> str:
        return f"<SimServer {self.id} {self.vm_state}/{self.task_state}>"
