"""One request in, one answer out, whatever the handler raises."""

from __future__ import annotations

import json

import pytest

from handler.errors import BudgetSpent, LoginRefused
from tests.support.capture import logged
from tests.support.events import (
    ONE,
    TWO,
    FakeHandler,
    Message,
    batch,
    binary,
    call_endpoint,
    event,
    faults_of,
    structured,
)
from tests.test_events_folder import sample, schema_violations
from tests.test_events_folder import structured as sample_event

MARK = "marked-by-the-sender"
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_alive_does_not_depend_on_the_cloud_and_ready_means_that_a_token_can_be_obtained(method: str) -> None:
    """/healthz is 200 even when the cloud cannot be reached; /readyz is 200, or 503 with the reason's name."""
    down = FakeHandler(not_ready=LoginRefused("x"))
    answer = call_endpoint(({}, b""), down, method=method, path="/healthz")
    assert (answer.status, json.loads(answer.body)) == (200, {"status": "alive"})
    assert call_endpoint(({}, b""), method=method, path="/readyz").status == 200
    answer = call_endpoint(({}, b""), down, method=method, path="/readyz")
    assert answer.status == 503
    assert json.loads(answer.body)["type"] == "urn:bms-autostop:problem:login-refused"


@pytest.mark.parametrize("path", ["/", "/any/path", "//", "/healthz", "/readyz", "/robots.txt", ""])
def test_events_are_taken_on_any_path(path: str) -> None:
    """A POST is an event wherever it is sent."""
    fake = FakeHandler()
    assert call_endpoint(binary(), fake, path=path).status == 200
    assert [request.server_ids for request in fake.requests] == [(ONE,)]


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "BREW", ""])
def test_other_methods_are_refused(method: str) -> None:
    """Anything but POST and OPTIONS is 405, and an event in it is not acted on."""
    fake = FakeHandler()
    answer = call_endpoint(binary(), fake, method=method)
    assert (answer.status, answer.headers["Allow"], fake.requests) == (405, "POST, OPTIONS", [])


@pytest.mark.parametrize(
    ("message", "ids", "as_batch"),
    [
        (binary(id="a"), ["a"], False),
        (batch(event(id="a"), event(id="b", source="/other")), ["a", "b"], True),
        (batch(event(id="a")), ["a"], True),
        # The same event twice is one event; an id counts within its source only.
        (batch(event(id="a"), event(id="a"), event(id="b")), ["a", "b"], True),
        (batch(event(source="/a", id="a"), event(source="/b", id="a")), ["a", "a"], True),
        # Results are ignored.
        (batch(event(type="io.github.bms-autostop.stop.failed.v1"), event(id="a")), ["a"], True),
    ],
)
def test_the_events_of_a_message_are_handled_together_in_order(
    message: Message, ids: list[str], as_batch: bool
) -> None:
    """The budget counts from when the request was received, not from when it is handled."""
    fake = FakeHandler()
    assert call_endpoint(message, fake).status == 200
    assert ([request.id for request in fake.requests], fake.as_batch, fake.received) == (ids, as_batch, 12.5)


@pytest.mark.parametrize("members", [[], [event(type="io.github.bms-autostop.stop.failed.v1")]])
def test_a_batch_that_asks_for_nothing_is_204(members: list[object]) -> None:
    """Nothing is handled."""
    fake = FakeHandler()
    assert (call_endpoint(batch(*members), fake).status, fake.requests) == (204, [])


@pytest.mark.parametrize("bad", [event(id=None), event(data={"server_ids": ["x"]}), event(type="other"), 5, None, []])
def test_one_malformed_member_refuses_the_batch(bad: object) -> None:
    """Nothing of the batch is done, and the answer names the member."""
    fake = FakeHandler()
    found = faults_of(call_endpoint(batch(event(id="a"), bad, event(id="b")), fake))
    assert fake.requests == []
    assert all(at.startswith("[1].") for at in found)


def test_all_members_violations_are_reported_together() -> None:
    """Violations of attributes and of data, of all members, in one answer."""
    found = faults_of(call_endpoint(batch(event(id=None, data={"server_ids": []}), event(type="other", time="x"))))
    assert set(found) == {"[0].id", "[0].data.server_ids", "[1].time", "[1].type"}


def test_two_events_with_the_same_source_and_id_refuse_the_batch() -> None:
    """They identify one event; two that differ are a mistake of the sender."""
    fake = FakeHandler()
    answer = call_endpoint(batch(event(id="a"), event(id="a", data={"server_ids": [TWO]})), fake)
    assert faults_of(answer) == {"[1].id": "must be unique within the batch"}
    assert fake.requests == []


def test_too_large_a_batch_is_413() -> None:
    """101 events are not a malformed event, but too much at once."""
    assert call_endpoint(batch(*[event(id=str(number)) for number in range(101)])).status == 413


def test_an_error_in_the_handler_is_503() -> None:
    """What passes is answered so that the sender tries again."""
    answer = call_endpoint(binary(), FakeHandler(BudgetSpent("The budget is spent.", retry_after=3)))
    assert (answer.status, answer.headers["Retry-After"]) == (503, "3")


def test_a_bug_in_the_handler_is_503_and_shows_nothing() -> None:
    """The answer has no word of the exception; the log has where it came from, but not what it quotes."""
    with logged() as lines:
        answer = call_endpoint(binary(), FakeHandler(RuntimeError("secret words")))
    assert (answer.status, b"secret" in answer.body) == (503, False)
    assert schema_violations("problem.json", json.loads(answer.body)) == []
    (line,) = lines.all
    assert line["level"] == "ERROR"
    assert line["exception"].endswith("RuntimeError\n")
    assert "in handle" in line["exception"]
    assert "secret words" not in line["exception"]


def test_a_refusal_leaves_a_line_in_the_log() -> None:
    """One line for the event, with what could be made out of its identity, and one for the request that it came in."""
    with logged() as lines:
        call_endpoint(structured(event(id="", type="what.ever", data={"server_ids": [MARK]}, traceparent=TRACE)))
    of_event, of_request = lines.all
    assert (of_event["message"], of_event["level"]) == ("event malformed", "WARNING")
    assert (of_event["event_source"], of_event["event_id"], of_event["event_type"]) == ("/tests", None, "what.ever")
    assert (of_event["problem"], of_event["trace_id"]) == ("bad-event", TRACE.split("-")[1])
    assert (of_request["message"], of_request["level"]) == ("request not handled", "WARNING")
    assert (of_request["problem"], of_request["status"]) == ("bad-event", 400)
    assert (
        of_event["detail"]
        == of_request["detail"]
        == "id: must not be empty; type: must be a type that is accepted here"
    )
    assert MARK not in lines.text


def test_each_malformed_event_of_a_batch_is_a_line() -> None:
    """And what was right in that batch, or would have been ignored, is none: nothing was done with it."""
    own = event(id="own", type="io.github.bms-autostop.stop.failed.v1")
    with logged() as lines:
        call_endpoint(
            batch(own, event(id="good"), event(id="bad", data={"server_ids": [MARK]}), event(id="worse", time="x"))
        )
    assert [(line["message"], line.get("event_id")) for line in lines.all] == [
        ("event malformed", "bad"),
        ("event malformed", "worse"),
        ("request not handled", None),
    ]
    assert lines.all[0]["detail"] == "[2].data.server_ids[0]: must be a UUID"


def _marked_everywhere() -> list[Message]:
    data = {
        "server_ids": [MARK, ONE],
        "server_id": MARK,
        "dry_run": MARK,
        "dryRun": MARK,
        "selector": MARK,
        "reason": [MARK],
        "requested_by": {MARK: MARK},
        "reply_to": MARK * 200,
        MARK: MARK,
    }
    bad = {"specversion": MARK, "id": f"{MARK}\x7f", "time": MARK, "expirytime": MARK, "subject": f"\x00{MARK}"}
    document = event(**bad, type=MARK, source=MARK * 200, data=data, datacontenttype=5, data_base64=MARK)
    headers, body = binary(data, **{name: value.replace("\x00", "%00") for name, value in bad.items()}, type=MARK)
    return [
        (headers, body),
        ({**headers, MARK: MARK, "authorization": f"Bearer {MARK}"}, MARK.encode()),
        structured(document),
        structured(event(id=MARK, source=MARK, data=data)),
        structured(event(type=MARK, id=MARK)),
        structured(f'{{"{MARK}": 1, "{MARK}": 2}}'.encode()),
        structured(f'["{MARK}'.encode()),
        batch(event(id=MARK), document, MARK, [MARK], {MARK: MARK}),
        batch(event(id=MARK), event(id=MARK, data={"server_ids": [TWO]})),
        ({"content-type": f"application/{MARK}"}, MARK.encode()),
        ({"content-type": f"application/cloudevents+{MARK}"}, MARK.encode()),
        ({"content-type": "application/x-www-form-urlencoded"}, f"{MARK}={MARK}".encode()),
    ]


@pytest.mark.parametrize("message", _marked_everywhere())
@pytest.mark.parametrize("method", ["POST", "PUT", MARK])
def test_nothing_is_echoed(message: Message, method: str) -> None:
    """However bad a request is, no text of it comes back in headers or body."""
    fake = FakeHandler()
    answer = call_endpoint(message, fake, method=method, path=f"/{MARK}", headers={"host": MARK, "x-mark": MARK})
    assert answer.status in (400, 405, 415)
    assert MARK not in str(dict(answer.headers))
    assert MARK.encode() not in answer.body
    assert schema_violations("problem.json", json.loads(answer.body)) == []
    assert fake.requests == []


def test_an_origin_that_is_refused_is_not_repeated() -> None:
    """The refusal of the handshake does not repeat the origin."""
    answer = call_endpoint(({}, b""), method="OPTIONS", headers={"webhook-request-origin": MARK})
    assert answer.status == 403
    assert MARK.encode() not in answer.body


@pytest.mark.parametrize("name", ["schedule", "stop-request", "server-id", "subject-only", "dry-run"])
def test_samples_are_accepted(name: str) -> None:
    """What events/ shows as a good event is one."""
    fake = FakeHandler()
    assert call_endpoint(structured(sample_event(f"{name}.json")), fake).status == 200
    assert len(fake.requests) == 1


def test_the_malformed_sample_gives_the_sample_problem() -> None:
    """The violations of the sample in events/ are those found."""
    answer = call_endpoint(structured(sample("in/malformed.json")))
    expected = {violation["at"]: violation["message"] for violation in sample("out/problem.json")["violations"]}
    assert faults_of(answer) == expected


def test_the_batch_sample_is_taken() -> None:
    """Each member of the sample batch becomes a request."""
    members = sample("in/batch.json")
    fake = FakeHandler()
    assert call_endpoint(batch(*members), fake).status == 200
    assert len(fake.requests) == len(members)


def test_the_binary_sample_is_taken() -> None:
    """Headers and body as the PingSource sends them."""
    sent = sample("in/schedule-binary.json")
    headers = {name.lower(): value for name, value in sent["headers"].items()}
    body = sent["body"] if isinstance(sent["body"], str) else json.dumps(sent["body"])
    fake = FakeHandler()
    assert call_endpoint((headers, body.encode()), fake).status == 200
    assert fake.requests[0].type == "dev.knative.sources.ping"
