"""`keep_servers` over HTTP: what it writes, what it answers, and what a stop finds afterwards."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests

from handler import rfc3339
from handler.simulator import Simulator
from handler.simulator.calls import CallKind
from tests.conftest import KEEP, STOP, Function, StartFunction
from tests.services.test_stop_servers import post_batch, result_of
from tests.support.capture import logged
from tests.support.events import event
from tests.support.sink_server import SinkServer

KEY = "autostop-keep-until"
GONE = "00000000-0000-4000-8000-000000000000"


def in_hours(hours: float) -> str:
    """A time ahead, as it is written."""
    ahead = datetime.now(UTC) + timedelta(hours=hours)
    return ahead.replace(microsecond=0, tzinfo=None).isoformat() + "Z"


def rows(answer: requests.Response) -> list[dict[str, Any]]:
    """The rows of a result."""
    return list(result_of(answer)["data"]["servers"])


def row(answer: requests.Response) -> tuple[str, str]:
    """Outcome and reason of the only server."""
    (only,) = rows(answer)
    return only["outcome"], only["reason"]


@pytest.fixture
def keep(cloud: Simulator, start_keep: StartFunction) -> Function:
    """The function with its defaults."""
    return start_keep(cloud)


def test_a_keep_is_written_read_back_and_respected(
    cloud: Simulator, keep: Function, start_function: StartFunction
) -> None:
    """One result with a row; then the stop finds the server kept, and after a release stops it."""
    server = cloud.add_server("db-1", metadata={"owner": "ci"})
    until = in_hours(2)
    answer = keep.send({"server_ids": [server], "until": until, "reason": "tests", "requested_by": "ci"}, id="k-1")
    assert answer.headers["ce-type"] == "io.github.bms-autostop.keep.completed.v1"
    assert (answer.headers["ce-causationid"], answer.headers["ce-subject"]) == ("k-1", server)
    data = answer.json()
    assert (data["keep_until"], data["refusal"], data["dry_run"], data["api"]) == (until, None, False, "nova")
    (found,) = data["servers"]
    assert found["request_id"].startswith("req-")
    assert {**found, "request_id": None} == {
        "id": server,
        "name": "db-1",
        "outcome": "kept",
        "reason": "kept",
        "detail": f"It is kept until {until}.",
        "keep_until": until,
        "previous_keep_until": None,
        "vm_state": "active",
        "task_state": None,
        "request_id": None,
    }
    assert data["summary"] == {"kept": 1, "released": 0, "unchanged": 0, "failed": 0, "planned": 0}
    assert cloud.server(server).metadata == {"owner": "ci", KEY: until}
    stop = start_function(cloud)
    assert row(stop.stop(server)) == ("skipped", "kept-until")
    assert row(keep.send({"server_ids": [server], "release": True})) == ("released", "released")
    assert cloud.server(server).metadata == {"owner": "ci"}
    assert row(stop.stop(server)) == ("stopped", "confirmed")


def test_a_duration_counts_from_the_events_time(cloud: Simulator, keep: Function) -> None:
    """So a repeat of the event asks for the same, and finds it."""
    server = cloud.add_server()
    time = datetime.now(UTC) - timedelta(minutes=5)
    first = keep.send({"server_ids": [server], "for": "30m"}, time=time.isoformat(), id="again")
    wanted = (time + timedelta(minutes=30)).replace(microsecond=0)
    assert rfc3339.parse(cloud.server(server).metadata[KEY]) == wanted
    second = keep.send({"server_ids": [server], "for": "30m"}, time=time.isoformat(), id="again")
    assert (row(first), row(second)) == (("kept", "kept"), ("unchanged", "already-kept"))
    assert first.headers["ce-id"] != second.headers["ce-id"]
    assert cloud.count(CallKind.METADATA) == 1


def test_a_release_leaves_what_is_not_understood_and_what_is_a_tag(cloud: Simulator, keep: Function) -> None:
    """A malformed entry protects, and stays; a tag is not changed."""
    malformed = cloud.add_server(metadata={KEY: "tomorrow"})
    tagged = cloud.add_server(tags=[f"{KEY}=2099-01-01T00:00:00Z"])
    both = cloud.add_server(tags=[f"{KEY}=2099-01-01T00:00:00Z"], metadata={"Autostop-Keep-Until": in_hours(1)})
    none = cloud.add_server()
    found = rows(keep.send({"server_ids": [malformed, tagged, both, none], "release": True}))
    assert [(one["outcome"], one["reason"]) for one in found] == [
        ("unchanged", "protected"),
        ("unchanged", "already-kept"),
        ("released", "released"),
        ("unchanged", "not-kept"),
    ]
    assert found[2]["keep_until"] == "2099-01-01T00:00:00Z"
    assert "a tag keeps it until 2099-01-01T00:00:00Z" in found[2]["detail"]
    assert cloud.server(both).metadata == {}
    assert cloud.server(malformed).metadata == {KEY: "tomorrow"}


def test_a_server_that_is_not_there_or_may_not_be_written(
    cloud: Simulator, keep: Function, start_keep: StartFunction
) -> None:
    """Each is a row; the others are kept."""
    server = cloud.add_server()
    found = rows(keep.send({"server_ids": [GONE, server], "for": "1h"}))
    assert [(one["id"], one["reason"]) for one in found] == [(GONE, "not-found"), (server, "kept")]
    other = cloud.add_server()
    reader = start_keep(cloud, **cloud.environ("watcher"))
    answer = reader.send({"server_ids": [other], "for": "1h"})
    assert row(answer) == ("failed", "forbidden")
    assert "server-metadata:create" in rows(answer)[0]["detail"]
    assert cloud.server(other).metadata == {}


def test_a_dry_run_writes_nothing(cloud: Simulator, keep: Function, start_keep: StartFunction) -> None:
    """By the event, by a header, or by the deployment."""
    server = cloud.add_server()
    data = {"server_ids": [server], "for": "1h"}
    always = start_keep(cloud, AUTOSTOP_DRY_RUN="true")
    for answer in (
        keep.send({**data, "dry_run": True}),
        keep.send(data, headers={"dry-run": "true"}),
        keep.send(data, dryrun="true"),
        always.send(data),
    ):
        assert row(answer) == ("planned", "dry-run")
        assert answer.json()["dry_run"] is True
    assert cloud.count(CallKind.METADATA) == 0


def test_what_can_never_succeed_is_a_400(cloud: Simulator, keep: Function) -> None:
    """With the place of each violation; nothing is written."""
    server = cloud.add_server()
    cases: list[tuple[dict[str, Any], str]] = [
        ({}, "for"),
        ({"for": "2h", "until": "2099-01-01T00:00:00Z"}, "until"),
        ({"for": "2h", "release": True}, "release"),
        ({"for": "25h"}, "for"),
        ({"until": "2099-01-01T00:00:00Z"}, "until"),
        ({"until": "tomorrow"}, "until"),
        ({"until": "2099-01-01T00:00:00"}, "until"),
        ({"for": 7200}, "for"),
        ({"for": "0h"}, "for"),
        ({"for": "2 hours"}, "for"),
        ({"release": "yes"}, "release"),
        ({"for": "2h", "dryrun": True}, "dry_run"),
        ({"for": "2h", "Until": None}, "until"),
        ({"for": "2h", "serverids": []}, "server_ids"),
    ]
    for data, at in cases:
        answer = keep.send({"server_ids": [server], **data})
        assert answer.status_code == 400, data
        assert f"data.{at}" in {violation["at"] for violation in answer.json()["violations"]}, data
    assert cloud.count(CallKind.METADATA) == 0


def test_the_event_as_a_whole_is_refused_as_for_a_stop(cloud: Simulator, keep: Function) -> None:
    """The result is keep.failed.v1 with the refusal and no rows."""
    server = cloud.add_server()
    now = datetime.now(UTC)
    many = [f"00000000-0000-4000-8000-{number:012d}" for number in range(51)]
    old, future = (now - timedelta(minutes=16)).isoformat(), (now + timedelta(minutes=5)).isoformat()
    cases: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
        ("too-old", {"server_ids": [server], "for": "1h"}, {"time": old}),
        ("in-the-future", {"server_ids": [server], "for": "1h"}, {"time": future}),
        ("expired", {"server_ids": [server], "for": "1h"}, {"expirytime": old}),
        ("expired", {"server_ids": [server], "until": old}, {}),
        ("expired", {"server_ids": [server], "for": "2m"}, {"time": (now - timedelta(minutes=3)).isoformat()}),
        ("no-server-ids", {"for": "1h"}, {}),
        ("too-many-servers", {"server_ids": many, "for": "1h"}, {}),
    ]
    for refusal, data, attributes in cases:
        answer = keep.send(data, **attributes)
        assert answer.status_code == 200, answer.text
        assert result_of(answer)["type"].endswith("keep.failed.v1")
        assert (answer.json()["refusal"], answer.json()["servers"]) == (refusal, [])
    assert cloud.count(CallKind.METADATA) == 0


def test_a_selector_is_looked_up(cloud: Simulator, keep: Function) -> None:
    """Those that it fits are the rows, by name; none is a completed result that says so."""
    two, one = cloud.add_server("ci-2", tags=["ci"]), cloud.add_server("ci-1", tags=["ci"])
    cloud.add_server("db", tags=["db"])
    answer = keep.send({"selector": {"tags": ["ci"]}, "for": "1h"})
    assert [found["id"] for found in rows(answer)] == [one, two]
    answer = keep.send({"selector": {"tags": ["other"]}, "for": "1h"})
    assert (rows(answer), answer.json()["detail"]) == ([], "No server of the project fits the selector.")


def test_a_batch_is_counted_as_one(cloud: Simulator, start_keep: StartFunction) -> None:
    """The servers of all its events; a foreign member refuses all of it."""
    keep = start_keep(cloud, AUTOSTOP_MAX_SERVERS="2")
    ids = [cloud.add_server() for _ in range(3)]
    members = [event(id=id_, type=KEEP, data={"server_ids": [id_], "for": "1h"}) for id_ in ids]
    kept = post_batch(keep, *members[:2])
    assert [one["data"]["summary"]["kept"] for one in kept.json()] == [1, 1]
    refused = post_batch(keep, *members)
    assert [one["data"]["refusal"] for one in refused.json()] == ["too-many-servers"] * 3
    assert post_batch(keep, members[0], event(id="foreign", type=STOP)).status_code == 403


def test_a_foreign_type_is_a_403_at_either_target(
    cloud: Simulator, keep: Function, start_function: StartFunction
) -> None:
    """Own results are ignored at both."""
    server = cloud.add_server()
    stop = start_function(cloud)
    for function, foreign in ((keep, STOP), (stop, KEEP), (keep, "com.example.other")):
        answer = function.send({"server_ids": [server], "for": "1h"}, type=foreign)
        assert (answer.status_code, answer.json()["type"]) == (403, "urn:bms-autostop:problem:caller-forbidden")
    for function in (keep, stop):
        for result in ("keep.completed", "keep.failed", "stop.completed"):
            assert function.send({}, type=f"io.github.bms-autostop.{result}.v1").status_code == 204
    assert cloud.stops_sent(server) == 0
    assert cloud.count(CallKind.METADATA) == 0


def test_callers_are_authenticated(cloud: Simulator, start_keep: StartFunction) -> None:
    """As for a stop."""
    keep = start_keep(cloud, AUTOSTOP_INBOUND_AUTH="bearer", AUTOSTOP_BEARER_TOKENS="token-of-this-test")
    data = {"server_ids": [cloud.add_server()], "for": "1h"}
    assert keep.send(data).status_code == 401
    assert row(keep.send(data, headers={"Authorization": "Bearer token-of-this-test"})) == ("kept", "kept")
    assert requests.get(f"{keep.url}/readyz", timeout=10).status_code == 200


def test_the_result_goes_to_the_sink_and_the_log_has_the_rows(cloud: Simulator, start_keep: StartFunction) -> None:
    """The response is empty then."""
    with SinkServer() as sink:
        keep = start_keep(cloud, AUTOSTOP_RESULT_SINK=sink.url)
        with logged() as lines:
            server = cloud.add_server("db-1")
            answer = keep.send({"server_ids": [server], "for": "1h"}, id="k-7")
    assert (answer.status_code, answer.content) == (204, b"")
    (got,) = sink.got
    assert got.headers["ce-type"].endswith("keep.completed.v1")
    (line,) = lines.of("server keep handled")
    assert (line["server_id"], line["outcome"], line["event_id"]) == (server, "kept", "k-7")
    (line,) = lines.of("keep handled")
    assert line["summary"] == got.data["summary"]


def test_a_keep_that_could_not_be_handled_is_a_503(cloud: Simulator, start_keep: StartFunction) -> None:
    """It must come again, and the log has the cause."""
    keep = start_keep(cloud, OS_PASSWORD="not-the-password")
    with logged() as lines:
        answer = keep.send({"server_ids": [cloud.add_server()], "for": "1h"}, id="k-8")
    assert (answer.status_code, answer.headers["Content-Type"]) == (503, "application/problem+json")
    assert int(answer.headers["Retry-After"]) >= 1
    (line,) = lines.of("event not handled")
    assert (line["event_id"], line["problem"]) == ("k-8", "login-refused")
