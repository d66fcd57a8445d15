"""The simulator as a pytest fixture for your own tests.

Name this module in the `conftest.py` at the root of your tests, and ask for `bms_cloud`:

    pytest_plugins = ["handler.simulator.fixture"]

    def test_my_client_stops_the_server(bms_cloud, monkeypatch):
        server_id = bms_cloud.add_server("db-1")
        for name, value in bms_cloud.environ().items():
            monkeypatch.setenv(name, value)
        my_client(server_id)
        assert bms_cloud.server(server_id).vm_state == "stopped"

No other module here imports pytest.
"""

from collections.abc import Iterator

import pytest

from handler.simulator.simulator import Simulator


@pytest.fixture
def bms_cloud() -> Iterator[Simulator]:
    """Run a simulated cloud without servers, one for each test."""
    with Simulator() as cloud:
        yield cloud
