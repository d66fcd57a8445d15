"""What the tests of the whole function share."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from handler.cloud import servers as servers_module
from handler.simulator import Simulator
from handler.stop import run as run_module
from tests.conftest import Function, StartFunction


def set_backoff(monkeypatch: pytest.MonkeyPatch, backoff: Callable[[int], float]) -> None:
    """Have calls repeated after these seconds, by the number of the attempt."""
    defaults = run_module.run.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "backoff", backoff)


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls are repeated soon."""
    set_backoff(monkeypatch, lambda attempt: 0.002 * 2 ** min(attempt, 7))


@pytest.fixture
def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers are read singly, however many they are, so that one of them can be the only one that is not shown."""
    monkeypatch.setattr(servers_module, "_FEW", 1000)


@pytest.fixture
def otc() -> Iterator[Simulator]:
    """Open Telekom Cloud, for what BMS v1 alone does."""
    with Simulator.otc() as simulator:
        yield simulator


@pytest.fixture
def bms(start_function: StartFunction, otc: Simulator) -> Function:
    """The function that uses BMS v1."""
    return start_function(otc, AUTOSTOP_API="bms")
