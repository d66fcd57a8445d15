"""A report as a result event: attributes, data, and both in binary and batch mode."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handler.inbound.cloudevents.decode import decode
from handler.outbound.result import batch, binary, result_event, result_id
from handler.stop.evidence import Action, Evidence, Lookup
from handler.stop.model import Approver, Outcome, PlanOffer, Reason, Refusal, Report, ServerResult, StopRequest
from tests.stop.test_sentences import SENTENCES
from tests.test_events_folder import MARKED, schema_violations

ONE = "5f0c1a52-3d0e-4b7a-9a55-0d6f3c2b1a10"
TWO = "95bf2490-5428-432c-ad9b-5e3406f869dd"
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
PREFIX = "io.github.bms-autostop.stop."
REQUEST = StopRequest(source="/ops", id="event-1", type="dev.knative.sources.ping", server_ids=(ONE,))


def row(reason: Reason = Reason.CONFIRMED, id_: str = ONE) -> ServerResult:
    """A server's result whose states fit its reason."""
    sent = reason.outcome in (Outcome.STOPPED, Outcome.ACCEPTED)
    return ServerResult(
        id=id_,
        reason=reason,
        detail="One plain sentence.",
        name=None if reason is Reason.NOT_FOUND else "ci-07",
        vm_state=None if reason is Reason.NOT_FOUND else "stopped" if reason.outcome is Outcome.STOPPED else "active",
        previous_vm_state="active" if sent else None,
        request_id="req-3f",
        evidence=None if reason is Reason.NOT_FOUND else evidence_of(reason),
    )


def evidence_of(reason: Reason = Reason.CONFIRMED, **changes: Any) -> Evidence:
    """Evidence that fits a reason."""
    usual = Evidence(
        observed_at=datetime(2026, 11, 20, 19, 0, 0, 250000, UTC),
        vm_state="active",
        task_state=None,
        power_state=1,
        locked=reason is Reason.LOCKED,
        launched=reason is not Reason.NEVER_LAUNCHED,
        flavor="physical.o2.medium",
        updated=None,
        tag="autostop=never" if reason in MARKED else None,
        metadata=None,
        event_time=None,
        clock_tolerance=timedelta(seconds=2.5),
        history=Lookup.NOT_ASKED,
        action=None,
    )
    return usual._replace(**changes)


PLAN = PlanOffer("dG9rZW4", datetime(2026, 11, 20, 19, 15, 4, 910000, UTC), Approver.OTHER)


def report(*rows: ServerResult, refusal: Refusal | None = None, dry_run: bool = False, **changes: Any) -> Report:
    """A report of a request with these servers."""
    ids = tuple(row.id for row in rows)
    return Report(
        request=REQUEST._replace(server_ids=ids, **changes),
        api="nova",
        dry_run=dry_run,
        refusal=refusal,
        servers=rows,
        started_at=datetime(2026, 11, 20, 19, 0, 0, 120000, UTC),
        finished_at=datetime(2026, 11, 20, 19, 0, 4, 910000, UTC),
        plan=PLAN if any(row.reason is Reason.NEEDS_APPROVAL for row in rows) else None,
    )


def made(report: Report, extensions: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The result event in the JSON format, which must match its schema."""
    (document,) = json.loads(batch([result_event(report, source="/bms-autostop", extensions=extensions or {})])[1])
    assert schema_violations("cloudevent-out.json", document) == []
    return dict(document)


@pytest.mark.parametrize("reason", Reason)
def test_each_reason_makes_a_valid_event(reason: Reason) -> None:
    """The result of every outcome matches its schema, and its type is `failed` if one failed."""
    document = made(report(row(reason), dry_run=reason is Reason.DRY_RUN))
    words = {Outcome.FAILED: "failed", Outcome.PLANNED: "planned" if reason is Reason.NEEDS_APPROVAL else "completed"}
    assert document["type"] == f"{PREFIX}{words.get(reason.outcome, 'completed')}.v1"
    (server,) = document["data"]["servers"]
    assert (server["outcome"], server["reason"]) == (reason.outcome, reason)
    assert document["data"]["summary"] == {outcome: int(outcome is reason.outcome) for outcome in Outcome}


@pytest.mark.parametrize("reason", Reason)
def test_what_a_run_brings_makes_a_valid_event(reason: Reason) -> None:
    """Not only results made up for a test: those of a whole run keep to the schema, evidence and all."""
    for scenario, _ in SENTENCES[reason]:
        result = scenario().results()[0]
        (server,) = made(report(result, dry_run=reason is Reason.DRY_RUN))["data"]["servers"]
        assert server["reason"] == reason


def test_the_evidence_is_reported_in_full() -> None:
    """Times as everywhere in a result, the tolerance in seconds, the entry of the history in Nova's words."""
    at = datetime(2026, 11, 20, 19, 1, 30, tzinfo=UTC)
    shown = evidence_of(
        updated=at, event_time=at, history=Lookup.FOUND, action=Action("start", at, "req-1", "u-7", failed=False)
    )
    (server,) = made(report(row(Reason.STARTED_SINCE)._replace(evidence=shown)))["data"]["servers"]
    assert server["evidence"] == {
        "observed_at": "2026-11-20T19:00:00.250Z",
        "vm_state": "active",
        "task_state": None,
        "power_state": 1,
        "locked": False,
        "launched": True,
        "flavor": "physical.o2.medium",
        "tag": None,
        "metadata": None,
        "updated": "2026-11-20T19:01:30.000Z",
        "event_time": "2026-11-20T19:01:30.000Z",
        "clock_tolerance_seconds": 2.5,
        "history": "found",
        "action": {
            "action": "start",
            "start_time": "2026-11-20T19:01:30.000Z",
            "user_id": "u-7",
            "request_id": "req-1",
            "failed": False,
        },
    }


@pytest.mark.parametrize("refusal", Refusal)
def test_each_refusal_makes_a_valid_event(refusal: Refusal) -> None:
    """A refused event has no rows, and a reason."""
    document = made(report(refusal=refusal))
    assert document["type"] == f"{PREFIX}refused.v1"
    assert (document["data"]["refusal"], document["data"]["servers"]) == (refusal, [])


def test_one_failure_among_many_makes_it_failed() -> None:
    """The others' good outcomes are reported all the same."""
    document = made(report(row(), row(Reason.BUSY, TWO)))
    assert document["type"] == f"{PREFIX}failed.v1"
    assert [server["outcome"] for server in document["data"]["servers"]] == ["stopped", "failed"]


def test_the_data_says_what_was_asked() -> None:
    """Everything of the request that a reader of the result wants."""
    asked: dict[str, Any] = {
        "time": datetime(2026, 11, 20, 19, 0, tzinfo=UTC),
        "reason": "nightly",
        "requested_by": "ops",
        "reply_to": "https://chat.example/1",
    }
    data = made(report(row(), **asked))["data"]
    assert data["request"] == {
        "source": "/ops",
        "id": "event-1",
        "type": "dev.knative.sources.ping",
        "time": "2026-11-20T19:00:00.000Z",
        "reason": "nightly",
        "requested_by": "ops",
        "reply_to": "https://chat.example/1",
        "selector": None,
    }
    assert made(report(row()))["data"]["request"]["time"] is None
    assert (data["api"], data["dry_run"]) == ("nova", False)
    assert (data["started_at"], data["finished_at"]) == ("2026-11-20T19:00:00.120Z", "2026-11-20T19:00:04.910Z")


def test_the_attributes_point_back() -> None:
    """Causationid is the incoming id; flow and trace go on; the time is when it ended; K_CE_OVERRIDES are added."""
    changes: dict[str, Any] = {"correlationid": "flow-7", "traceparent": TRACE, "tracestate": "vendor=1"}
    document = made(report(row(), **changes), {"team": "build"})
    assert {name: value for name, value in document.items() if name != "data"} == {
        "specversion": "1.0",
        "id": result_id(report(row()), f"{PREFIX}completed.v1"),
        "source": "/bms-autostop",
        "type": f"{PREFIX}completed.v1",
        "time": "2026-11-20T19:00:04.910Z",
        "datacontenttype": "application/json",
        "subject": ONE,
        "causationid": "event-1",
        "correlationid": "flow-7",
        "traceparent": TRACE,
        "tracestate": "vendor=1",
        "team": "build",
    }
    # What the request lacks the result lacks.
    assert not changes.keys() & made(report(row())).keys()


def test_only_a_single_server_is_the_subject() -> None:
    """Without a server, or with several, there is no subject; a refused event was about its server, too."""
    for several in (report(refusal=Refusal.NO_SERVER_IDS), report(row(), row(id_=TWO))):
        assert "subject" not in made(several)
    assert made(report(refusal=Refusal.TOO_OLD)._replace(request=REQUEST))["subject"] == ONE


def test_the_same_content_has_the_same_id() -> None:
    """Whenever it is made, and in every release, so that a receiver can drop a repeat."""
    first = report(row())
    hour = timedelta(hours=1)
    later = first._replace(started_at=first.started_at + hour, finished_at=first.finished_at + hour)
    assert made(first)["id"] == made(later)["id"] == "e0ff3739-b3d5-57b5-808b-d5d74b8687b8"


@pytest.mark.parametrize(
    "other",
    [
        report(row(Reason.BUSY)),
        report(row(id_=TWO)),
        report(refusal=Refusal.TOO_OLD),
        report(refusal=Refusal.EXPIRED),
        report(row()._replace(task_state="powering-off")),
        report(row()._replace(job_id="job-2")),
        report(row()._replace(request_id="req-2")),
        report(row(), row(id_=TWO)),
        report(row())._replace(request=REQUEST._replace(id="event-2")),
        report(row())._replace(request=REQUEST._replace(source="/other")),
    ],
)
def test_other_content_has_another_id(other: Report) -> None:
    """CloudEvents: source and id are unique for each distinct event."""
    assert made(other)["id"] != made(report(row()))["id"]


def test_the_request_id_of_a_failed_call_is_not_part_of_the_id() -> None:
    """It differs with each attempt, while the result is the same."""
    rows = (row(Reason.FORBIDDEN)._replace(request_id=f"req-{number}") for number in range(2))
    assert len({made(report(failed))["id"] for failed in rows}) == 1


@given(first=st.tuples(st.text(), st.text()), second=st.tuples(st.text(), st.text()))
def test_different_events_have_different_ids(first: tuple[str, str], second: tuple[str, str]) -> None:
    """Source and id are not simply glued together."""

    def derived(source: str, id_: str) -> str:
        return result_id(report(row())._replace(request=REQUEST._replace(source=source, id=id_)), "type")

    assert (derived(*first) == derived(*second)) is (first == second)
    assert derived("a", "b,c") != derived("a,b", "c")


WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Cn"]), min_size=1, max_size=60).filter(
    str.strip
)


@given(id_=WORDS, flow=WORDS, extension=WORDS)
def test_attributes_survive_their_way_through_headers(id_: str, flow: str, extension: str) -> None:
    """What is sent in binary mode, this function would read the same; headers are printable ASCII."""
    event = result_event(
        report(row(), id=id_, correlationid=flow), source="/bms-autostop", extensions={"team": extension}
    )
    headers, body = binary(event)
    assert all(value.isascii() and value.isprintable() and " " not in value for value in headers.values())
    # The extension takes the place of an attribute that decoding looks at.
    seen = {name.lower(): value for name, value in headers.items()}
    seen["ce-subject"], seen["ce-id"] = seen["ce-team"], seen["ce-causationid"]
    (read,) = decode(seen, body).events
    assert (read.id, read.correlationid, read.subject) == (id_, flow, extension)
    assert read.violations == ()
    assert read.data == event.data


@pytest.mark.parametrize(
    ("value", "header"),
    [
        ("plain", "plain"),
        ("a b", "a%20b"),
        ('say "hi"', "say%20%22hi%22"),
        ("100%", "100%25"),
        ("a%20b", "a%2520b"),
        ("Euro €", "Euro%20%E2%82%AC"),
        ("\U0001f600", "%F0%9F%98%80"),
        ("!#$&'()*+,/:;<=>?@[\\]^`{|}~-._", "!#$&'()*+,/:;<=>?@[\\]^`{|}~-._"),
    ],
)
def test_header_values_are_percent_encoded(value: str, header: str) -> None:
    """Space, quote, percent and what is beyond ASCII, and nothing else (CloudEvents HTTP binding 3.1.3.2)."""
    headers, _ = binary(result_event(report(row()), source="/s", extensions={"team": value}))
    assert headers["ce-team"] == header


def test_binary_mode_carries_the_data_alone() -> None:
    """Attributes are headers, the body is the data, and its media type is the Content-Type."""
    event = result_event(report(row()), source="/s", extensions={})
    headers, body = binary(event)
    assert headers["content-type"] == "application/json"
    assert "ce-datacontenttype" not in headers
    assert json.loads(body) == event.data


def test_a_batch_is_an_array_of_events() -> None:
    """In the order given, under the batch's media type."""
    events = [result_event(report(row(), id=id_), source="/s", extensions={}) for id_ in ("a", "b")]
    headers, body = batch(events)
    assert headers == {"content-type": "application/cloudevents-batch+json"}
    assert [document["causationid"] for document in json.loads(body)] == ["a", "b"]


def test_a_plan_has_what_an_approver_needs() -> None:
    """Besides the rows: the token, until when, and who; also where another server failed."""
    document = made(report(row(Reason.NEEDS_APPROVAL), row(Reason.NOT_FOUND, TWO)))
    assert document["type"] == f"{PREFIX}planned.v1"
    assert document["data"]["plan"] == {
        "token": "dG9rZW4",
        "expires_at": "2026-11-20T19:15:04.910Z",
        "approver": "other",
    }


def test_another_expiry_makes_another_id() -> None:
    """Two plans of one event are two results; the token does not count."""
    one = report(row(Reason.NEEDS_APPROVAL))
    later = one._replace(plan=PLAN._replace(expires_at=PLAN.expires_at + timedelta(milliseconds=1)))
    same = one._replace(plan=PLAN._replace(token="other"))
    assert len({result_id(one, "t"), result_id(later, "t"), result_id(same, "t")}) == 2


def test_a_result_says_who_asked_and_who_approved() -> None:
    """As far as the event names them."""
    people: dict[str, Any] = {"requester": "slack:T1/U1", "approved_by": "slack:T1/U2", "plan_id": TWO}
    request = made(report(row(), **people))["data"]["request"]
    assert {name: request[name] for name in people} == people
    assert people.keys().isdisjoint(made(report(row()))["data"]["request"])
