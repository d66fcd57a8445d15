"""A cloud for dry runs has no method that writes."""

from __future__ import annotations

from handler.cloud.dry_run import DryRunCloud
from handler.cloud.nova import NovaCloud, NovaReader
from handler.simulator import CallKind
from handler.stop.ports import DryRunStop
from tests.cloud.clients import Client


def test_a_reader_has_no_method_that_writes(client: Client) -> None:
    """The other members of the cloud are those of the stop."""
    assert {name for name in dir(NovaCloud) if not hasattr(NovaReader, name)} == {
        "one_by_one",
        "stop",
        "_stop",
        "stop_groups",
    }
    assert not isinstance(client.clouds.reader(), NovaCloud)


def test_a_dry_run_reads_and_sends_no_stop(client: Client) -> None:
    """State and history are those of the cloud; each stop of all servers is simulated."""
    reader = NovaReader(client.http, client.endpoint)
    ids, dry_run = [client.cloud.add_server(), client.cloud.add_server(vm_state="stopped")], DryRunCloud(reader)
    assert dry_run.stop_groups(ids) == [ids]
    assert {id_: type(answer) for id_, answer in dry_run.stop(ids, 5).items()} == dict.fromkeys(ids, DryRunStop)
    assert client.cloud.calls == []
    assert dry_run.api == reader.api == "nova"
    assert dry_run.read_groups(ids) == reader.read_groups(ids)
    assert dry_run.read(ids, 5) == reader.read(ids, 5)
    assert dry_run.history(ids[0], 5) == reader.history(ids[0], 5)
    assert [server.id for server in dry_run.find(lambda server: server.vm_state == "stopped", 5)] == ids[1:]
    assert client.cloud.count(CallKind.STOP) == 0
