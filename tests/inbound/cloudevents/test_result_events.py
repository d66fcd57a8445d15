"""Result events read back: everything that is reported is in them, and what is not a result is refused."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from cloudevents.conversion import to_dict

from handler.errors import BadEvent
from handler.inbound.cloudevents.decode import decode
from handler.inbound.cloudevents.result_events import ResultEvent, read
from handler.outbound.result import binary, result_event
from handler.stop.model import Outcome, Reason, Refusal, Report
from tests.outbound.chat.reports import reported
from tests.stop.fakes import id_of
from tests.test_events_folder import RESULTS, sample

STRUCTURED = {"content-type": "application/cloudevents+json"}


def reading(document: Any) -> ResultEvent:
    """Read one event in structured mode."""
    (event,) = decode(STRUCTURED, json.dumps(document).encode()).events
    return read(event)


def violations(document: Any) -> dict[str, str]:
    """What is wrong with it."""
    with pytest.raises(BadEvent) as caught:
        reading(document)
    return {violation.at: violation.message for violation in caught.value.violations}


@pytest.mark.parametrize("name", RESULTS)
def test_every_sample_of_a_result_is_read(name: str) -> None:
    """With the identity of the event, and every server."""
    document = sample(f"out/{name}")
    result = reading(document)
    assert (result.source, result.id, result.type) == (document["source"], document["id"], document["type"])
    rows = [(row.id, row.name, row.outcome, row.reason, row.detail) for row in result.report.servers]
    assert rows == [
        (row["id"], row["name"], row["outcome"], row["reason"], row["detail"]) for row in document["data"]["servers"]
    ]


@pytest.mark.parametrize(
    "report",
    [
        reported(
            *[reason for reason in Reason if reason.outcome is not Outcome.PLANNED],
            requested_by="ada",
            reply_to="https://x/",
        ),
        reported(Reason.NEEDS_APPROVAL, Reason.NOT_FOUND, requester="slack:T1/U1"),
        reported(requester="slack:T1/U1", approved_by="slack:T1/U2", plan_id=id_of(3)),
        reported(Reason.DRY_RUN, reason="try")._replace(detail="A sentence."),
        reported(),
        *(reported(refusal=refusal) for refusal in Refusal),
    ],
    ids=["everything", "plan", "approval", "dry run", "nothing", *Refusal],
)
def test_a_report_comes_back_as_it_was_sent(report: Report) -> None:
    """In binary mode, as `stop_servers` sends it, and as a broker may pass it on."""
    event = result_event(report, source="/bms-autostop", extensions={})
    (sent,) = decode(*binary(event)).events
    # A result does not repeat which servers were asked for: each has its row.
    expected = report._replace(request=report.request._replace(server_ids=()))
    assert read(sent).report == expected
    assert reading(dict(to_dict(event))).report == expected


def test_unknown_members_are_ignored() -> None:
    """A newer `stop_servers` may add members."""
    document = sample("out/completed.json")
    document["data"]["added_later"] = {"a": [1]}
    document["data"]["servers"][0]["evidence"] = "whatever"
    del document["data"]["summary"]
    assert reading(document).report == reading(sample("out/completed.json")).report


@pytest.mark.parametrize(
    ("reason", "dry_run"), [(Reason.CONFIRMED, True), (Reason.ACCEPTED, True), (Reason.DRY_RUN, False)]
)
def test_a_dry_run_stops_nothing_and_nothing_else_is_only_planned(reason: Reason, dry_run: bool) -> None:
    """A message would state both that nothing was sent and that a server was stopped."""
    event = result_event(reported(reason)._replace(dry_run=dry_run), source="/bms-autostop", extensions={})
    assert violations(dict(to_dict(event))) == {"data.dry_run": "must fit the servers"}


@pytest.mark.parametrize("type_", ["io.github.bms-autostop.stop.requested.v1", "com.example.other", "stop.failed.v1"])
def test_what_is_not_a_result_is_refused(type_: str) -> None:
    """A stop request is none: its sender has mixed up two URLs, and gets a 400."""
    assert violations({**sample("out/completed.json"), "type": type_}) == {"type": "must be a result event"}


@pytest.mark.parametrize("data", [None, "text", ["x"], 7])
def test_data_has_to_be_an_object(data: object) -> None:
    """Without it there is nothing to report."""
    assert violations({**sample("out/completed.json"), "data": data}) == {"data": "must be a JSON object"}


def _set(*path: str | int, value: object) -> Callable[[Any], None]:
    def change(data: Any) -> None:
        for part in path[:-1]:
            data = data[part]
        data[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "at", "message"),
    [
        (_set("request", value=None), "request", "must be a JSON object"),
        (_set("request", "id", value=""), "request.id", "must be a string"),
        (_set("request", "source", value=7), "request.source", "must be a string"),
        (_set("request", "reason", value=7), "request.reason", "must be a string"),
        (_set("request", "reply_to", value=[]), "request.reply_to", "must be a string"),
        (_set("dry_run", value="no"), "dry_run", "must be true or false"),
        (_set("refusal", value="bored"), "refusal", "must be a value that is known here"),
        (_set("refusal", value="expired"), "servers", "must be empty, since the event was refused"),
        (_set("detail", value=7), "detail", "must be a string"),
        (_set("api", value=None), "api", "must be a string"),
        (_set("started_at", value="2026-11-20T19:00:00"), "started_at", "must be an RFC 3339 timestamp with a zone"),
        (_set("finished_at", value=None), "finished_at", "must be an RFC 3339 timestamp with a zone"),
        (_set("servers", value={}), "servers", "must be an array of at most 1000 servers"),
        (_set("servers", value=[{}] * 1001), "servers", "must be an array of at most 1000 servers"),
        (_set("servers", 0, "id", value="ci-07"), "servers[0].id", "must be a UUID"),
        (_set("servers", 0, "id", value=None), "servers[0].id", "must be a string"),
        (_set("servers", 0, "name", value=7), "servers[0].name", "must be a string"),
        # An accepted server that calls itself stopped is what must never reach a chat.
        (_set("servers", 0, "reason", value="accepted"), "servers[0].outcome", "must be that of its reason"),
        (_set("servers", 0, "outcome", value="accepted"), "servers[0].outcome", "must be that of its reason"),
    ],
)
def test_each_violation_of_the_data_is_named(change: Callable[[Any], None], at: str, message: str) -> None:
    """One violation, one line, no value repeated."""
    document = copy.deepcopy(sample("out/completed-single.json"))
    change(document["data"])
    assert violations(document) == {f"data.{at}": message}


def test_a_server_that_is_not_an_object_and_an_unknown_reason_are_violations() -> None:
    """All their violations are reported."""
    document = copy.deepcopy(sample("out/completed-single.json"))
    document["data"]["servers"] = ["x", {**document["data"]["servers"][0], "reason": "because"}]
    found = violations(document)
    assert found["data.servers[0]"] == "must be a JSON object"
    assert found["data.servers[1].reason"] == "must be a value that is known here"


def test_the_type_has_to_fit() -> None:
    """A failure must not be posted as completed."""
    document = {**sample("out/failed.json"), "type": "io.github.bms-autostop.stop.completed.v1"}
    assert violations(document) == {"type": "must fit the data"}


def test_the_list_of_violations_is_bounded() -> None:
    """A thousand malformed servers give fifty lines."""
    document = copy.deepcopy(sample("out/completed-single.json"))
    document["data"]["servers"] = [7] * 1000
    (event,) = decode(STRUCTURED, json.dumps(document).encode()).events
    with pytest.raises(BadEvent) as caught:
        read(event)
    assert len(caught.value.violations) == 50


def test_an_event_without_a_type_is_still_read_to_its_end() -> None:
    """The missing type is a violation of the event; those of its data are reported along with it."""
    document = {**sample("out/completed-single.json"), "type": ""}
    assert reading(document).report == reading(sample("out/completed-single.json")).report
    document["data"] = {**document["data"], "dry_run": 1}
    assert violations(document) == {"data.dry_run": "must be true or false"}
