"""The real server process, shared by the tests of this folder that need nothing special."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from handler.simulator import Simulator
from tests.support.raw_http import FunctionProcess


@pytest.fixture(scope="package")
def simulated() -> Iterator[Simulator]:
    """One cloud for all tests of this folder."""
    with Simulator() as cloud:
        yield cloud


@pytest.fixture(scope="package")
def process(simulated: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FunctionProcess]:
    """One process for all tests that need nothing special."""
    with FunctionProcess(simulated, tmp_path_factory.mktemp("function")) as process:
        yield process
