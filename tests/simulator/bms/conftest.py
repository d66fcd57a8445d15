"""A simulated cloud with BMS v1."""

from collections.abc import Iterator

import pytest

from handler.simulator import Simulator
from tests.simulator.conftest import Ask
from tests.support.clock import FakeClock


@pytest.fixture
def cloud(clock: FakeClock) -> Iterator[Simulator]:
    """Open Telekom Cloud with BMS v1."""
    with Simulator(clock=clock, bms=True) as running:
        yield running


@pytest.fixture
def bms(ask: Ask, cloud: Simulator) -> Ask:
    """Send a GET to the BMS API, below the operator's project."""
    return lambda path, **more: ask("GET", f"/v1/{cloud.project_id}/{path}", **more)
