"""The notice of a stop, from the event to the chat, over real HTTP."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import requests

from handler import rfc3339
from handler.simulator import CallKind, Simulator
from tests.conftest import Function, StartFunction, serving
from tests.services.test_stop_servers import result_of
from tests.support.events import structured
from tests.support.sink_server import SinkServer
from tests.test_events_folder import sample

KEEP_UNTIL = "autostop-keep-until"


def soon(**ahead: int) -> str:
    """A time so far ahead."""
    return rfc3339.render(datetime.now(UTC) + timedelta(**ahead))


def test_a_notice_counts_from_the_events_time(cloud: Simulator, function: Function) -> None:
    """Schedules send static data; a repeat gives notice for the same time. Without a time its receipt counts."""
    asked = {"server_ids": [cloud.add_server()], "dry_run": True, "notice_for": "1h"}
    time = datetime.now(UTC) - timedelta(minutes=5)
    results = [result_of(function.send(asked, time=time.isoformat(), id="evening")) for _ in range(2)]
    assert {result["data"]["notice_for"] for result in results} == {rfc3339.render(time + timedelta(hours=1))}
    assert results[0]["id"] == results[1]["id"]
    assert results[0]["data"]["servers"][0]["reason"] == "dry-run"
    data = result_of(function.send(asked))["data"]
    assert rfc3339.parse(data["notice_for"]) - rfc3339.parse(data["started_at"]) == timedelta(hours=1)
    del asked["notice_for"]
    assert "notice_for" not in result_of(function.send(asked))["data"]
    assert cloud.count(CallKind.STOP) == 0


def test_a_malformed_notice_is_refused(cloud: Simulator, function: Function) -> None:
    """And above all one that is not a dry run: nothing is stopped."""
    asked = {"server_ids": [cloud.add_server()], "dry_run": True, "notice_for": "1h"}
    for changes, message in (
        ({"dry_run": False}, "must be beside dry_run: true"),
        ({"dry_run": None}, ""),
        ({"notice_for": "soon"}, "must be a duration"),
        ({"notice_for": 60}, "must be a duration"),
        ({"notice_for": "2026-11-20T20:00:00"}, "must be a duration"),
        ({"notice_for": "31d"}, "at most 30 days"),
        ({"notice_for": "9999-12-31T23:59:59Z"}, "at most 30 days"),
        ({"notice_for": "9999999d"}, "at most 30 days"),
    ):
        answer = function.send({**asked, **changes})
        assert answer.status_code == 400, changes
        if message:
            (violation,) = answer.json()["violations"]
            assert violation["at"] == "data.notice_for"
            assert message in violation["message"]
    assert cloud.calls == []


def test_a_deployment_of_dry_runs_alone_makes_no_notice(cloud: Simulator, start_function: StartFunction) -> None:
    """The event must say dry_run itself, as it may be sent elsewhere tomorrow."""
    function = start_function(cloud, AUTOSTOP_DRY_RUN="true")
    assert function.send({"server_ids": [cloud.add_server()], "notice_for": "1h"}).status_code == 400


def test_a_keep_counts_only_if_it_lasts_until_then(cloud: Simulator, function: Function) -> None:
    """Kept for half an hour, a server loses power in an hour."""
    short = cloud.add_server("short", metadata={KEEP_UNTIL: soon(minutes=30)})
    long = cloud.add_server("long", metadata={KEEP_UNTIL: soon(minutes=90)})
    for notice_for in ("1h", soon(hours=1)):
        data = {"server_ids": [short, long], "dry_run": True, "notice_for": notice_for}
        rows = result_of(function.send(data, id=notice_for))["data"]["servers"]
        assert [row["reason"] for row in rows] == ["dry-run", "kept-until"]


def test_the_chat_reads_the_time_in_its_zone(
    cloud: Simulator, start_function: StartFunction, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And in UTC."""
    server = cloud.add_server("ci-07")
    with SinkServer() as chat, serving(monkeypatch) as serve:
        settings = {"AUTOSTOP_NOTIFY_TEXT_URL": chat.url, "AUTOSTOP_NOTIFY_TIMEZONE": "Asia/Kolkata"}
        notify = serve("notify_chat", {"AUTOSTOP_INBOUND_AUTH": "none", **settings})
        function = start_function(cloud, AUTOSTOP_RESULT_SINK=notify)
        due = (datetime.now(UTC) + timedelta(hours=2)).replace(second=0, microsecond=0)
        data = {"server_ids": [server], "dry_run": True, "notice_for": due.isoformat()}
        assert function.send(data).status_code == 204
    (got,) = chat.got
    headline = got.body.decode().splitlines()[0]
    local = due + timedelta(hours=5, minutes=30)
    assert headline.startswith(
        f"1 server will lose power at {local:%H:%M} Asia/Kolkata on {local:%Y-%m-%d} ({due:%H:%M} UTC"
    )
    assert f"- ci-07 ({server})" in got.body.decode()
    assert cloud.count(CallKind.STOP) == 0


def test_notify_chat_refuses_a_notice_that_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """A time decades away, none, or that of a real run, which has stopped servers or tried to."""
    notice, real = sample("out/completed-notice.json"), sample("out/completed.json")
    with SinkServer() as chat, serving(monkeypatch) as serve:
        url = serve("notify_chat", {"AUTOSTOP_INBOUND_AUTH": "none", "AUTOSTOP_NOTIFY_TEXT_URL": chat.url})
        for event, time in (
            (notice, "9999-12-31T23:59:59Z"),
            (notice, "tonight"),
            (real, real["data"]["finished_at"]),
        ):
            headers, body = structured({**event, "data": {**event["data"], "notice_for": time}})
            answer = requests.post(url, data=body, headers=headers, timeout=30)
            assert answer.status_code == 400, time
            assert [violation["at"] for violation in answer.json()["violations"]] == ["data.notice_for"]
    assert chat.got == []
