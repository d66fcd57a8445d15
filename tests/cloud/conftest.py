"""What the tests of the cloud layer share."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from handler.simulator import Simulator
from tests.cloud.clients import Client

StartClient = Callable[..., Client]


@pytest.fixture
def start_client() -> Iterator[StartClient]:
    """Make a client with settings of one's own: `start_client(cloud, OS_PASSWORD="wrong")`."""
    made: list[Client] = []

    def start(cloud: Simulator, **environ: str) -> Client:
        made.append(Client(cloud, **environ))
        return made[-1]

    yield start
    for client in made:
        client.close()


@pytest.fixture
def client(cloud: Simulator, start_client: StartClient) -> Client:
    """A client with the login that works."""
    return start_client(cloud)
