"""Fixtures of the tests of the whole function."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial

import pytest

from handler.cloud import servers as servers_module
from handler.simulator import Simulator
from handler.stop import run as run_module
from tests.conftest import Function, StartFunction

MakeCloud = Callable[..., Simulator]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the tests of a module that has `APIS` once with each of them."""
    apis = getattr(metafunc.module, "APIS", ())
    if apis and "api" in metafunc.fixturenames:
        metafunc.parametrize("api", apis, indirect=True)


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
def api(request: pytest.FixtureRequest) -> str:
    """The API that the function uses: Nova, unless the module has `APIS`."""
    return str(getattr(request, "param", "nova"))


@pytest.fixture
def make_cloud(api: str) -> Iterator[MakeCloud]:
    """Start a cloud that has this API, with options of its own."""
    make: MakeCloud = Simulator.otc if api == "bms" else Simulator
    with ExitStack() as running:
        yield lambda **options: running.enter_context(make(**options))


@pytest.fixture
def cloud(make_cloud: MakeCloud) -> Simulator:
    """A cloud that has this API, and whose servers stop at once."""
    return make_cloud()


@pytest.fixture
def start(start_function: StartFunction, api: str) -> StartFunction:
    """Start the function so that it uses this API."""
    return partial(start_function, AUTOSTOP_API=api)


@pytest.fixture
def function(start: StartFunction, cloud: Simulator) -> Function:
    """The function with the settings that most tests want."""
    return start(cloud)


@pytest.fixture
def otc() -> Iterator[Simulator]:
    """Open Telekom Cloud, for what BMS v1 alone does."""
    with Simulator.otc() as simulator:
        yield simulator


@pytest.fixture
def bms(start_function: StartFunction, otc: Simulator) -> Function:
    """The function that uses BMS v1."""
    return start_function(otc, AUTOSTOP_API="bms")
