"""A dry run's cloud has nothing to write with."""

from __future__ import annotations

import pytest

from handler.cloud.dry_run import DryRunCloud
from handler.cloud.nova import NovaCloud, NovaReader
from handler.simulator import CallKind, Simulator
from handler.stop.ports import DryRunStop
from tests.cloud.clients import Client


@pytest.fixture
def reader(client: Client) -> NovaReader:
    """What a dry run is given."""
    return NovaReader(client.http, client.endpoint)


def test_a_reader_has_no_method_that_writes(reader: NovaReader) -> None:
    """What it lacks beside the cloud that acts is exactly the stop."""
    missing = {name for name in dir(NovaCloud) if not hasattr(NovaReader, name)}
    assert missing == {"one_by_one", "stop", "_stop", "stop_groups"}
    assert not isinstance(reader, NovaCloud)


def test_a_dry_run_looks_through_the_reader(cloud: Simulator, reader: NovaReader) -> None:
    """State and history are the real ones."""
    ids = [cloud.add_server(), cloud.add_server(vm_state="stopped")]
    dry_run = DryRunCloud(reader)
    assert dry_run.api == reader.api == "nova"
    assert dry_run.read_groups(ids) == reader.read_groups(ids)
    assert dry_run.read(ids, 5) == reader.read(ids, 5)
    assert dry_run.history(ids[0], 5) == reader.history(ids[0], 5)


def test_a_stop_in_a_dry_run_is_not_sent(cloud: Simulator, reader: NovaReader) -> None:
    """All servers at once, each answered, and the cloud is not called at all."""
    ids = [cloud.add_server() for _ in range(3)]
    dry_run = DryRunCloud(reader)
    assert dry_run.stop_groups(ids) == [ids]
    assert dry_run.stop(ids, 5) == dict.fromkeys(ids, DryRunStop())
    assert cloud.calls == []
    assert cloud.count(CallKind.STOP) == 0
