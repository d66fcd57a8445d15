"""Open Telekom Cloud for the tests of FunctionGraph."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from handler.simulator import Simulator


@pytest.fixture
def otc() -> Iterator[Simulator]:
    """Open Telekom Cloud."""
    with Simulator.otc() as cloud:
        yield cloud
