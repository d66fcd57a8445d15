"""What real senders send, over real HTTP, to `stop_servers` before a cloud.

What is not understood stops nothing and is answered with the reason; what is understood is done.
"""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta

import pytest
import requests

from handler import rfc3339
from handler.simulator import Simulator
from tests.conftest import STOP, serving
from tests.inbound.webhooks.receiver import fresh_secret

A, B = "95bf2490-5428-432c-ad9b-5e3406f869dd", "5c9fd0d6-2f3b-4c8e-9a51-7be0a4b5c1f2"
TOKEN = fresh_secret()
PATH_TYPE, PLAIN_TYPE = "com.example.idle", "com.example.night"
_numbers = itertools.count(1)


def moment(**ago: float) -> str:
    """A time before now."""
    return rfc3339.render(datetime.now(UTC) - timedelta(**ago))


@pytest.fixture(scope="module")
def patch() -> Iterator[pytest.MonkeyPatch]:
    """A monkeypatch for the whole module."""
    with pytest.MonkeyPatch.context() as patch:
        yield patch


# --- events to `stop_servers`


class Stopper:
    """`stop_servers` before a cloud with two servers."""

    def __init__(self, cloud: Simulator, url: str) -> None:
        self.cloud = cloud
        self.url = url

    def send(self, body: object, headers: Mapping[str, str], path: str = "/") -> requests.Response:
        """Post a body; what is not text or bytes goes as JSON."""
        raw = body if isinstance(body, str | bytes) else json.dumps(body)
        return requests.post(self.url + path, data=raw, headers=headers, timeout=60)

    def reset(self) -> None:
        """Let both servers run, as if they had never been stopped."""
        for id_ in (A, B):
            self.cloud.change(id_, vm_state="active")

    def running(self) -> set[str]:
        """Return the servers that run."""
        return {id_ for id_ in (A, B) if self.cloud.server(id_).vm_state == "active"}


@pytest.fixture(scope="module")
def served(patch: pytest.MonkeyPatch) -> Iterator[tuple[Simulator, str]]:
    """Start the function once."""
    with Simulator() as cloud, serving(patch) as serve:
        environ = {
            "AUTOSTOP_INBOUND_AUTH": "none",
            "AUTOSTOP_EVENT_TYPES": f"{PATH_TYPE}=target.uuid; {PLAIN_TYPE}",
            **cloud.environ(),
        }
        for id_ in (A, B):
            cloud.add_server(id_[:4], id=id_)
        yield cloud, serve("stop_servers", environ)


@pytest.fixture
def stopper(served: tuple[Simulator, str]) -> Stopper:
    """The function before a cloud in which both servers run."""
    stopper = Stopper(*served)
    stopper.reset()
    return stopper


def ce(content_type: str | None = "application/json", type_: str = STOP, **attributes: str) -> dict[str, str]:
    """Headers of an event in binary mode."""
    headers = {
        "ce-specversion": "1.0",
        "ce-id": f"input-{next(_numbers)}",
        "ce-source": "/inputs",
        "ce-type": type_,
        **{f"ce-{name}": value for name, value in attributes.items()},
    }
    # An empty value keeps the client from sending a type of its own.
    return headers if content_type is None else {**headers, "Content-Type": content_type}


STRUCTURED = {"Content-Type": "application/cloudevents+json"}


def structured(data: object, type_: str = STOP, **attributes: object) -> dict[str, object]:
    """An event in structured mode."""
    return {"specversion": "1.0", "id": f"input-{next(_numbers)}", "source": "/x", "type": type_, "data": data} | (
        attributes
    )


def push(asked: object, **message: object) -> dict[str, object]:
    """What a Pub/Sub push subscription posts."""
    encoded = base64.b64encode(json.dumps(asked).encode()).decode()
    id_ = f"input-{next(_numbers)}"
    inner = {"data": encoded, "messageId": id_, "message_id": id_, "publishTime": moment(), **message}
    return {"message": inner, "subscription": "projects/acme/subscriptions/bms"}


IDS, TARGET = {"server_ids": [A]}, {"target": {"uuid": A}}
GENERIC = [None, "text/plain", "text/plain; charset=utf-8", "application/octet-stream", "application/json", "text/json"]


@pytest.mark.parametrize("content_type", GENERIC)
@pytest.mark.parametrize(("type_", "data"), [(STOP, IDS), (PLAIN_TYPE, IDS), (PATH_TYPE, TARGET)])
@pytest.mark.parametrize("encoded", [1, 2])
def test_json_as_text_is_read_alike_by_all_extractors(
    stopper: Stopper, content_type: str | None, type_: str, data: object, encoded: int
) -> None:
    """Without a content type, under an unspecific one, and encoded twice."""
    body = json.dumps(data)
    for _ in range(encoded - 1):
        body = json.dumps(body)
    answer = stopper.send(body.encode(), ce(content_type, type_, time=moment()))
    assert (answer.status_code, stopper.running()) == (200, {B}), answer.text


@pytest.mark.parametrize(("type_", "data"), [(STOP, IDS), (PLAIN_TYPE, IDS), (PATH_TYPE, TARGET)])
def test_text_inside_of_a_structured_event_is_read_too(stopper: Stopper, type_: str, data: object) -> None:
    """As a sender makes it that encodes the data itself."""
    text = json.dumps(data)
    in_base64 = base64.b64encode(text.encode()).decode()
    for document in (
        structured(text, type_, datacontenttype="application/json"),
        {**structured(None, type_), "data_base64": in_base64},
        {**structured(None, type_), "data_base64": in_base64, "datacontenttype": "application/octet-stream"},
    ):
        stopper.reset()
        answer = stopper.send(document, STRUCTURED)
        assert (answer.status_code, stopper.running()) == (200, {B}), answer.text


@pytest.mark.parametrize("type_", [STOP, PLAIN_TYPE, PATH_TYPE])
@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"stop it", "text/plain"),
        (b"5", None),
        (b'"text"', "application/json"),
        (b"true", "application/json"),
        (b'{"server_ids": ["' + A.encode() + b'"], "server_ids": []}', "text/plain"),
        (b"\xff\xfe", "application/octet-stream"),
        (json.dumps(IDS).encode(), "application/xml"),
        (json.dumps(TARGET).encode(), "application/x-www-form-urlencoded"),
    ],
)
def test_an_extractor_that_can_find_nothing_is_400(
    stopper: Stopper, type_: str, body: bytes, content_type: str | None
) -> None:
    """Data of the wrong shape never reads like an event about nothing."""
    answer = stopper.send(body, ce(content_type, type_))
    assert (answer.status_code, stopper.running()) == (400, {A, B}), answer.text


@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "multipart/form-data"])
def test_the_content_type_of_a_form_is_named(stopper: Stopper, content_type: str) -> None:
    """It is what clients send by default."""
    answer = stopper.send(IDS, ce(content_type))
    assert answer.status_code == 400
    assert content_type in answer.json()["violations"][0]["message"]
    answer = stopper.send(structured(IDS), {"Content-Type": content_type})
    assert answer.status_code == 415
    assert content_type in answer.json()["detail"]
    assert stopper.running() == {A, B}


def test_a_pubsub_push_is_read_like_the_same_message_by_eventarc(stopper: Stopper) -> None:
    """With the id and the time of the message."""
    sent = push(IDS)
    answer = stopper.send(sent, {"Content-Type": "application/json"})
    assert (answer.status_code, stopper.running()) == (200, {B}), answer.text
    request = answer.json()["request"]
    assert request["source"] == "//pubsub.googleapis.com/projects/acme/subscriptions/bms"
    assert (request["id"], request["time"]) == (sent["message"]["messageId"], sent["message"]["publishTime"])  # type: ignore[index]


@pytest.mark.parametrize(
    ("document", "status"),
    [
        (push({"server_ids": ["all"]}), 400),
        (push(IDS, messageId=None), 400),
        (push(IDS, publishTime="soon"), 400),
        (push(IDS, data="no base64!"), 400),
        (push(IDS, attributes={"dry_run": "perhaps"}), 400),
        (push(IDS, attributes={"dry_run": "true"}), 200),
        ({"message": {"data": "e30="}}, 415),
        ({"message": "x", "subscription": "s"}, 415),
    ],
)
def test_a_push_that_is_malformed_or_a_dry_run_stops_nothing(
    stopper: Stopper, document: dict[str, object], status: int
) -> None:
    """And what only looks like one is none."""
    answer = stopper.send(document, {"Content-Type": "application/json"})
    assert (answer.status_code, stopper.running()) == (status, {A, B}), answer.text


@pytest.mark.parametrize(
    ("attributes", "data"),
    [
        ({"id": f'100% sure "{next(_numbers)}"', "source": "/jobs/nightly stop", "subject": "a b"}, IDS),
        ({"subject": ""}, IDS),
        ({"subject": A}, {}),
    ],
)
def test_headers_that_are_not_encoded_do_not_matter(
    stopper: Stopper, attributes: dict[str, str], data: dict[str, object]
) -> None:
    """As the SDKs for Go and Java write them."""
    body = json.dumps({**data, "reason": "Wärmeproblem"}, ensure_ascii=False).encode()
    answer = stopper.send(body, ce("application/json; charset=utf-8", **attributes))
    assert (answer.status_code, stopper.running()) == (200, {B}), answer.text


# --- dry runs


@pytest.mark.parametrize(
    ("headers", "body", "path"),
    [
        (ce(type_=PATH_TYPE), {**TARGET, "dry_run": True}, "/"),
        (ce(type_=PATH_TYPE), {**TARGET, "Dry-Run": "TRUE"}, "/"),
        (ce(type_=PATH_TYPE), {"target": {"uuid": A, "dry_run": True}}, "/"),
        (ce("text/plain", PATH_TYPE), {**TARGET, "dry_run": True}, "/"),
        (ce(dryrun="true"), IDS, "/"),
        (ce(dryrun="True", type_=PATH_TYPE), TARGET, "/"),
        ({**ce(), "ce-dry-run": "true"}, IDS, "/"),
        ({**ce(), "dry-run": "true"}, IDS, "/"),
        ({**ce(), "X-Dry-Run": "true"}, IDS, "/"),
        (ce(), IDS, "/?dry_run=true"),
        (ce(), {**IDS, "labels": {"dry-run": True}}, "/"),
        (ce(dryrun="false"), {**IDS, "dry_run": True}, "/"),
        (ce(dryrun="true"), {**IDS, "dry_run": False}, "/"),
        (STRUCTURED, structured(IDS, dryrun=True), "/"),
        (STRUCTURED, structured(IDS, dryrun="true"), "/"),
        (STRUCTURED, structured(TARGET, PATH_TYPE, dry_run=True), "/"),
        (STRUCTURED, structured({**TARGET, "dry_run": True}, PATH_TYPE), "/"),
    ],
)
def test_a_dry_run_is_honoured_wherever_it_is_asked_for(
    stopper: Stopper, headers: dict[str, str], body: object, path: str
) -> None:
    """Any part is enough."""
    answer = stopper.send(body, headers, path)
    assert (answer.status_code, stopper.running()) == (200, {A, B}), answer.text
    assert (answer.json()["dry_run"], answer.json()["servers"][0]["reason"]) == (True, "dry-run")


@pytest.mark.parametrize(
    ("headers", "body", "path"),
    [
        (ce(type_=PATH_TYPE), {**TARGET, "dry_run": "yes"}, "/"),
        (ce(type_=PATH_TYPE), {**TARGET, "dry_run": None}, "/"),
        (ce(type_=PATH_TYPE), {**TARGET, "dry_run": 1}, "/"),
        (ce(type_=PATH_TYPE), {**TARGET, "dry_rum": True}, "/"),
        (ce(type_=PATH_TYPE), {**TARGET, "dyrRun": True}, "/"),
        (ce(), {**IDS, "dry_run": "true"}, "/"),
        (ce(), {**IDS, "dry\u200brun": True}, "/"),
        (ce(), {**IDS, "\uff44ry\u2013run": True}, "/"),
        (ce(), {**IDS, "dry_runs": True}, "/"),
        (ce(), {**IDS, "labels": {"dry-run": "perhaps"}}, "/"),
        (ce(dryrun="1"), IDS, "/"),
        (ce(dryrun=""), IDS, "/"),
        (ce(dryrn="true"), IDS, "/"),
        ({**ce(), "dry-run": "yes"}, IDS, "/"),
        (ce(), IDS, "/?dry_run"),
        (STRUCTURED, structured(IDS, dryrun=1), "/"),
        (STRUCTURED, structured(IDS, dryrun="perhaps"), "/"),
    ],
)
def test_a_dry_run_that_cannot_be_read_is_400(
    stopper: Stopper, headers: dict[str, str], body: object, path: str
) -> None:
    """Its author expects that nothing is stopped."""
    answer = stopper.send(body, headers, path)
    assert (answer.status_code, stopper.running()) == (400, {A, B}), answer.text


# --- names and times


@pytest.mark.parametrize("name", ["team", "server", "servers", "ids", "time", "treason2", "dry", "requests", "source"])
def test_a_member_that_is_close_to_none_is_ignored(stopper: Stopper, name: str) -> None:
    """A producer may say more than is read here."""
    answer = stopper.send({**IDS, name: "x"}, ce())
    assert (answer.status_code, stopper.running()) == (200, {B}), answer.text


def test_an_event_from_the_future_is_refused_whole(stopper: Stopper) -> None:
    """More than a minute ahead; less is a clock, and counts as now."""
    answer = stopper.send(IDS, ce(time=moment(seconds=-90)))
    assert answer.headers["ce-type"] == "io.github.bms-autostop.stop.refused.v1"
    assert (answer.json()["refusal"], stopper.running()) == ("in-the-future", {A, B})
    stopper.send(IDS, ce(time=moment(seconds=-30)))
    assert stopper.running() == {B}


def test_a_time_that_is_a_little_ahead_does_not_hide_a_start(stopper: Stopper) -> None:
    """The server was started just now, so before the event's time, and after it really happened perhaps."""
    id_ = stopper.cloud.add_server(vm_state="stopped")
    stopper.cloud.start_server(id_)
    answer = stopper.send({"server_id": id_}, ce(time=moment(seconds=-50)))
    assert answer.json()["servers"][0]["reason"] == "started-since"
    assert stopper.cloud.server(id_).vm_state == "active"


@pytest.mark.parametrize(
    "since",
    [
        "2999-01-01T00:00:00Z",
        {A: "2999-01-01T00:00:00Z"},
        {A: "yesterday"},
        {A: None},
        {B: "2026-01-01T00:00:00Z"},
        {"bms-07": "2026-01-01T00:00:00Z"},
        "2026-01-01T00:00:00",
        "",
        5,
        ["2026-01-01T00:00:00Z"],
        True,
    ],
)
def test_a_since_that_is_not_understood_is_400(stopper: Stopper, since: object) -> None:
    """It is there to keep a server running."""
    answer = stopper.send({**IDS, "since": since}, ce())
    assert (answer.status_code, stopper.running()) == (400, {A, B}), answer.text
    assert answer.json()["violations"][0]["at"] == "data.since"


def test_a_notice_is_refused_without_a_dry_run(stopper: Stopper) -> None:
    """It announces a stop, and is none."""
    for headers in (ce(), ce(dryrun="true")):
        answer = stopper.send({**IDS, "notice_for": "1h"}, headers)
        assert (answer.status_code, stopper.running()) == (400, {A, B}), answer.text
    assert stopper.send({**IDS, "notice_for": "1h", "dry_run": True}, ce()).status_code == 200


def test_what_a_producer_left_out_is_in_the_detail(stopper: Stopper) -> None:
    """Of a result of any kind."""
    for ids, count, detail in (
        ([A], 3, "The producer left 3 alerts out of its message."),
        ([A], 1, "The producer left 1 alert out of its message."),
        (["00000000-0000-4000-8000-000000000000"], 2, "The producer left 2 alerts out of its message."),
        ([A], 0, None),
    ):
        answer = stopper.send({"server_ids": ids, "left_out": count}, ce())
        assert answer.json()["detail"] == detail
    for odd in (-1, "3", True):
        assert stopper.send({**IDS, "left_out": odd}, ce()).status_code == 400
