"""What real senders send, over real HTTP, to `stop_servers` before a cloud and to `receive_webhook` before a sink.

What is not understood stops nothing and is answered with the reason; what is understood is done.
"""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests

from handler import rfc3339
from handler.simulator import Simulator
from tests.conftest import STOP, serving
from tests.inbound.webhooks.scene import bearer, fresh_secret
from tests.inbound.webhooks.test_alertmanager import alert, group
from tests.inbound.webhooks.test_aodh import notification, threshold
from tests.support.capture import logged
from tests.support.functiongraph import notifications, record
from tests.support.sink_server import SinkServer

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
            "RUNTIME_PROJECT_ID": "0123456789abcdef0123456789abcdef",
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
    assert content_type in answer.json()["faults"][0]["fault"]
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


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("selectors", "selector"),
        ("Selector", "selector"),
        ("serverids", "server_ids"),
        ("serverIds", "server_ids"),
        ("server-ids", "server_ids"),
        ("SERVER_ID", "server_ids"),
        ("sever_ids", "server_ids"),
        ("server_dis", "server_ids"),
        ("dryrun", "dry_run"),
        ("dryRun", "dry_run"),
        ("reasn", "reason"),
        ("reasons", "reason"),
        ("season", "reason"),
        ("requestedBy", "requested_by"),
        ("reply-to", "reply_to"),
        ("sinse", "since"),
        ("aproval", "approval"),
        ("noticefor", "notice_for"),
    ],
)
def test_a_member_under_another_name_is_400_that_names_it(stopper: Stopper, name: str, meant: str) -> None:
    """Its author expects that it counts."""
    answer = stopper.send({**IDS, name: "x"}, ce())
    assert (answer.status_code, stopper.running()) == (400, {A, B}), answer.text
    (fault,) = answer.json()["faults"]
    assert fault == {"at": f"data.{meant}", "fault": f"must be spelled {meant}"}


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
    assert answer.json()["faults"][0]["at"] == "data.since"


def test_a_notice_is_refused_without_a_dry_run(stopper: Stopper) -> None:
    """It announces a stop, and is none."""
    answer = stopper.send({**IDS, "notice_for": "1h"}, ce())
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


# --- alarms of Cloud Eye through FunctionGraph


def alarm(namespace: str | None, dimension: str | None, resource: str = A, **more: object) -> dict[str, object]:
    """An alarm of Cloud Eye that fires."""
    document = {
        "message_type": "alarm",
        "alarm_status": "alarm",
        "alarm_name": "disk",
        "namespace": namespace,
        "dimension": dimension,
        "time": int(datetime.now(UTC).timestamp() * 1000) - 1000,
        "template_variable": {"ResourceId": resource, "IsAlarm": True},
        **more,
    }
    return {name: value for name, value in document.items() if value is not None}


def invoke(stopper: Stopper, document: dict[str, object], **smn: object) -> requests.Response:
    """Hand an alarm to the container as FunctionGraph does."""
    event = notifications(record(document, message_id=f"input-{next(_numbers)}", timestamp=moment(), **smn))
    return stopper.send(event, {"Content-Type": "application/json"}, "/invoke")


RDS = "3d39c18788b54a919bab633874c159dfin01"


@pytest.mark.parametrize(
    "document",
    [
        alarm("SYS.RDS", f"rds_instance_id:{RDS}", RDS),
        alarm("SYS.RDS", f"rds_instance_id:{A}"),
        alarm("SYS.EVS", f"disk_name:{B}-volume"),
        alarm("SYS.ELB", f"lbaas_instance_id:{A}"),
        alarm("SYS.WAF", f"instance_id:{A}"),
        alarm("SERVICE.OBS", None),
        alarm("MINE.APP", f"volume:{A}"),
        alarm("MINE.APP", None),
        alarm(None, f"disk_name:{A}"),
        alarm(None, None),
    ],
)
def test_an_alarm_about_something_else_is_ignored(stopper: Stopper, document: dict[str, object]) -> None:
    """It is not a server's, whatever UUID it has; and it is not malformed."""
    answer = invoke(stopper, document)
    assert (answer.status_code, answer.content, stopper.running()) == (204, b"", {A, B})


@pytest.mark.parametrize(
    "document",
    [
        alarm("AGT.BMS", f"instance_id:{A},mount_point:/var/lib", value=90, more={"new": [1]}),
        alarm("SERVICE.BMS", f"instance_id:{A}"),
        alarm("SYS.BMS", None),
        alarm("AGT.ECS", f"instance_id:{A}"),
        alarm("MINE.APP", f"instance_id:{A}"),
        alarm(None, f"instance_id:{A}"),
    ],
)
def test_an_alarm_about_a_server_stops_it(stopper: Stopper, document: dict[str, object]) -> None:
    """By its namespace, or by the dimension where that has none."""
    answer = invoke(stopper, document)
    assert (answer.status_code, stopper.running()) == (200, {B}), answer.text


@pytest.mark.parametrize(
    ("document", "smn"),
    [
        (alarm("SERVICE.BMS", f"instance_id:{A}", dry_run="true"), {}),
        (alarm("SERVICE.BMS", f"instance_id:{A}"), {"message_attributes": {"dry_run": "true"}}),
        ({"server_ids": [A]}, {"message_attributes": {"Dry-Run": "true"}}),
    ],
)
def test_an_alarm_may_be_a_dry_run(stopper: Stopper, document: dict[str, object], smn: dict[str, object]) -> None:
    """By a member of the message, or an attribute beside it."""
    answer = invoke(stopper, document, **smn)
    assert (answer.status_code, answer.json()["data"]["dry_run"], stopper.running()) == (200, True, {A, B})


def test_an_alarm_that_began_in_the_future_is_400(stopper: Stopper) -> None:
    """A time that is not understood is a violation."""
    ahead = int((datetime.now(UTC) + timedelta(hours=1)).timestamp() * 1000)
    times: list[Any] = [ahead, "soon", {}]
    for time in times:
        assert invoke(stopper, alarm("SERVICE.BMS", f"instance_id:{A}", time=time)).status_code == 400
    assert stopper.running() == {A, B}


# --- webhooks


class Webhook:
    """`receive_webhook` with producers switched on, before a sink."""

    def __init__(self, url: str, sink: SinkServer) -> None:
        self.url = url
        self.sink = sink
        sink.got.clear()

    def post(self, path: str, body: object, **headers: str) -> requests.Response:
        """Post a body with the right token."""
        sent = {**bearer(TOKEN), "x-gitlab-token": TOKEN, "content-type": "application/json", **headers}
        raw = body if isinstance(body, str | bytes) else json.dumps(body)
        return requests.post(self.url + path, data=raw, headers=sent, timeout=30)

    def handed_on(self) -> list[dict[str, Any]]:
        """Return the data of the events that the sink got."""
        return [got.data for got in self.sink.got]

    def ids(self) -> list[str]:
        """Return the servers of the one event that was to be stopped for good, or none."""
        if not self.sink.got:
            return []
        (data,) = self.handed_on()
        assert data["dry_run"] is False
        ids: list[str] = data["server_ids"]
        return ids


@pytest.fixture(scope="module")
def receiving(patch: pytest.MonkeyPatch) -> Iterator[tuple[str, SinkServer]]:
    """Start the function once."""
    tokens = {f"AUTOSTOP_{name}_TOKEN": TOKEN for name in ("ALERTMANAGER", "GRAFANA", "AODH", "AZURE", "EVENTBRIDGE")}
    with SinkServer() as sink, serving(patch) as serve:
        environ = {"AUTOSTOP_EVENT_SINK": sink.url, **tokens, "AUTOSTOP_GITLAB_TOKEN": TOKEN}
        yield serve("receive_webhook", environ), sink


@pytest.fixture
def webhook(receiving: tuple[str, SinkServer]) -> Webhook:
    """The function, with nothing handed on."""
    return Webhook(*receiving)


def firing(id_: object = A, **changes: Any) -> dict[str, Any]:
    """An alert that began an hour ago."""
    return alert(id_, **{"startsAt": moment(hours=1), **changes})


def labelled(**labels: str) -> dict[str, Any]:
    """An alert with more labels."""
    made = firing()
    return {**made, "labels": {**made["labels"], **labels}}


NO_DATA = [
    labelled(alertname="DatasourceNoData", rulename="bms-idle"),
    labelled(alertname="DatasourceError", rulename="bms-idle"),
    labelled(grafana_state_reason="NoData"),
    firing(annotations={"grafana_state_reason": "NoData", "summary": "idle"}),
    firing(annotations={"grafana_state_reason": "Error"}),
    firing(annotations={"grafana_state_reason": "NoData, KeepLast"}),
]


@pytest.mark.parametrize("path", ["/grafana", "/alertmanager"])
@pytest.mark.parametrize("without_data", NO_DATA)
def test_missing_data_is_not_firing(webhook: Webhook, path: str, without_data: dict[str, Any]) -> None:
    """Nothing is known about the server; alerts beside it that have data count."""
    with logged() as lines:
        assert webhook.post(path, group(without_data)).status_code == 204
    assert webhook.ids() == []
    assert [line["detail"] for line in lines.all] == ["the alarm has no data"] * 2
    assert webhook.post(path, group(without_data, firing(B))).status_code == 200
    assert webhook.ids() == [B]


def test_the_state_of_each_alert_counts_and_not_a_label_of_that_name(webhook: Webhook) -> None:
    """They contradict each other."""
    over, on = labelled(status="firing"), {**labelled(status="resolved"), "fingerprint": "on"}
    on["labels"]["server_id"] = B
    assert webhook.post("/alertmanager", group({**over, "status": "resolved"}, on)).status_code == 200
    assert webhook.ids() == [B]


@pytest.mark.parametrize("bad", ["<no value>", "{{ $labels.id }}", "bms-07", f"{A}x", 5])
def test_a_bad_alert_does_not_block_its_group(webhook: Webhook, bad: object) -> None:
    """The log names it; alone it is a 400."""
    with logged() as lines:
        assert webhook.post("/alertmanager", group(firing(bad, fingerprint="f1"), firing(A))).status_code == 200
    assert webhook.ids() == [A]
    (line,) = lines.of("alert malformed")
    assert (line["alertname"], line["fingerprint"]) == ("BareMetalIdle", "f1")
    assert webhook.post("/alertmanager", group(firing(bad))).status_code == 400


@pytest.mark.parametrize("starts_at", ["yesterday", "2999-01-01T00:00:00Z", 5, "2026-11-20T12:00:00"])
def test_an_alert_whose_start_is_not_understood_is_a_bad_alert(webhook: Webhook, starts_at: object) -> None:
    """A server that was started since could not be recognised."""
    assert webhook.post("/grafana", group(firing(B, startsAt=starts_at), firing(A))).status_code == 200
    assert webhook.ids() == [A]
    assert webhook.post("/grafana", group(firing(B, startsAt=starts_at))).status_code == 400


def test_what_was_left_out_is_in_the_first_answer_and_handed_on(webhook: Webhook) -> None:
    """The log has it as well."""
    with logged() as lines:
        answer = webhook.post("/alertmanager", group(firing(), truncatedAlerts=3))
    assert (answer.status_code, answer.json()["left_out"]) == (200, 3)
    assert (webhook.ids(), webhook.handed_on()[0]["left_out"]) == ([A], 3)
    assert [line["left_out"] for line in lines.of("the producer left alerts out; raise its limit")] == [3]


def test_each_server_has_the_start_of_its_own_alert(webhook: Webhook) -> None:
    """Of several about one server the last, since that one is enough to ask for the stop; none if one does not say."""
    early, late = moment(hours=2), moment(hours=1)
    third = "0d2f6c1e-7a43-4b9d-8f60-3c5e1a9b7d24"
    webhook.post(
        "/alertmanager",
        group(
            firing(A, startsAt=early),
            firing(A, startsAt=late),
            firing(B, startsAt=early),
            firing(third, startsAt="0001-01-01T00:00:00Z"),
            firing(third, startsAt=early),
        ),
    )
    assert webhook.handed_on()[0]["since"] == {A: late, B: early}


@pytest.mark.parametrize("path", ["/grafana/", "/alertmanager/", "/gitlab/"])
def test_one_slash_at_the_end_of_the_path_is_accepted(webhook: Webhook, path: str) -> None:
    """And no more of them."""
    bodies = {"/gitlab/": pipeline({"SERVER_ID": A})}
    body = bodies.get(path, group(firing()))
    assert webhook.post(path, body).status_code == 200
    assert webhook.ids() == [A]
    assert webhook.post(f"{path}/", body).status_code == 403


def azure(custom: object = None, context: object = None, **essentials: object) -> dict[str, object]:
    """An alert of Azure Monitor with properties in either place."""
    return {
        "schemaId": "azureMonitorCommonAlertSchema",
        "data": {
            "essentials": {
                "alertId": f"/alerts/{next(_numbers)}",
                "alertRule": "bms-idle",
                "monitorCondition": "Fired",
                "firedDateTime": moment(minutes=5),
                **essentials,
            },
            "alertContext": {"properties": context, "conditionType": "LogQueryCriteria"},
            "customProperties": custom,
        },
    }


@pytest.mark.parametrize(
    ("body", "status", "ids"),
    [
        (azure(None, {"server_id": A}), 200, [A]),
        (azure({"server_id": A}, None), 200, [A]),
        (azure({"server_id": A}, {"server_id": A.upper()}), 200, [A]),
        (azure({"server_id": f"{A} {B}"}, {"server_id": f"{B},{A}"}), 200, [A, B]),
        (azure({"server_id": ""}, {"server_id": A}), 200, [A]),
        (azure({"server_id": A}, {"server_id": B}), 400, []),
        (azure({"server_id": A}, {"server_id": f"{A},{B}"}), 400, []),
        (azure({"server_id": A}, {"server_id": "bms-07"}), 400, []),
        (azure(None, None), 204, []),
        (azure([], {}), 204, []),
        (azure({"server_id": A}, monitorCondition="Resolved"), 204, []),
        (azure({"server_id": A}, firedDateTime="soon"), 400, []),
        (azure({"server_id": A}, firedDateTime="2999-01-01T00:00:00Z"), 400, []),
        ({"schemaId": "AzureMonitorMetricAlert", "data": {"properties": {"server_id": A}}}, 400, []),
    ],
)
def test_azure_names_the_server_in_either_place(
    webhook: Webhook, body: dict[str, object], status: int, ids: list[str]
) -> None:
    """Two that disagree are refused; without any there is nothing to act on."""
    answer = webhook.post("/azure-monitor", body)
    assert (answer.status_code, webhook.ids()) == (status, ids), answer.text


def test_another_schema_of_azure_is_refused_with_what_to_switch_on(webhook: Webhook) -> None:
    """The violation states the fix."""
    answer = webhook.post("/azure-monitor", {"schemaId": "AzureMonitorMetricAlert"})
    assert "common alert schema" in answer.json()["faults"][0]["fault"]


def cloudwatch(*metrics: dict[str, Any], **state: object) -> dict[str, object]:
    """An alarm of CloudWatch over these metrics."""
    return {
        "id": f"input-{next(_numbers)}",
        "detail-type": "CloudWatch Alarm State Change",
        "time": moment(),
        "detail": {
            "alarmName": "bms",
            "state": {"value": "ALARM", "reason": "Threshold Crossed", "timestamp": moment(minutes=5), **state},
            "configuration": {"metrics": list(metrics)},
        },
    }


def metric(id_: str | None, watched: bool | None = True, namespace: str = "BMS") -> dict[str, Any]:
    """One metric of an alarm."""
    found = {"namespace": namespace, "dimensions": {"server_id": id_} if id_ else {"Host": "x"}}
    return {"metricStat": {"metric": found}} | ({} if watched is None else {"returnData": watched})


MATH = {"id": "e1", "expression": "m1-m2", "returnData": True}


@pytest.mark.parametrize(
    ("body", "status", "ids"),
    [
        (cloudwatch(metric(A)), 200, [A]),
        (cloudwatch(metric(A, None)), 200, [A]),
        (cloudwatch(metric(A), metric(B, False)), 200, [A]),
        (cloudwatch(MATH, metric(A, False), metric(A, False)), 200, [A]),
        (cloudwatch(MATH, metric(A, False), metric(None, False)), 200, [A]),
        (cloudwatch(MATH, metric(A, False), metric(B, False)), 400, []),
        (cloudwatch(metric(A), metric(B)), 400, []),
        (cloudwatch(metric(A, False), metric(B, False)), 400, []),
        (cloudwatch(metric(None), metric(B, False)), 204, []),
        (cloudwatch(MATH), 204, []),
        (cloudwatch(metric(A, namespace="AWS/EC2")), 204, []),
        (cloudwatch(metric("i-0abc", namespace="AWS/EC2")), 204, []),
        (cloudwatch(metric("bms-07")), 400, []),
        (cloudwatch(metric(A), reason="Threshold Crossed: no datapoints were received for 1 period"), 204, []),
        (cloudwatch(metric(A), reasonData='{"version": "1.0", "recentDatapoints": []}'), 204, []),
        (cloudwatch(metric(A), reasonData='{"version": "1.0", "recentDatapoints": [1.0]}'), 200, [A]),
        (cloudwatch(metric(A), timestamp="2026-11-20T12:00:00.000+0000"), 200, [A]),
        (cloudwatch(metric(A), timestamp="soon"), 400, []),
        (cloudwatch(metric(A), value="INSUFFICIENT_DATA"), 204, []),
    ],
)
def test_cloudwatch_must_say_which_server_is_meant(
    webhook: Webhook, body: dict[str, object], status: int, ids: list[str]
) -> None:
    """Of several in a calculation none is."""
    answer = webhook.post("/eventbridge", body)
    assert (answer.status_code, webhook.ids()) == (status, ids), answer.text


@pytest.mark.parametrize("name", ["serverIds", "server-id", "Server_IDs", "selectors", "sever_ids"])
def test_a_constant_input_under_another_name_is_400(webhook: Webhook, name: str) -> None:
    """It is not taken for something else."""
    answer = webhook.post("/eventbridge", {name: [A]})
    assert (answer.status_code, webhook.ids()) == (400, [])
    assert "must be spelled" in answer.json()["faults"][0]["fault"]


def pipeline(variables: Mapping[str, str], **attributes: object) -> dict[str, object]:
    """A pipeline of GitLab that has succeeded."""
    return {
        "object_kind": "pipeline",
        "object_attributes": {
            "id": next(_numbers),
            "status": "success",
            "finished_at": moment(seconds=2),
            "variables": [{"key": key, "value": value} for key, value in variables.items()],
            **attributes,
        },
        "builds": [{"name": "dry-run", "status": "success"}],
    }


@pytest.mark.parametrize(
    ("value", "status", "ids"),
    [
        (f'["{A}", "{B}"]', 200, [A, B]),
        (f' [ "{A}" ]\n', 200, [A]),
        (f"{A},{B}", 200, [A, B]),
        ("[]", 400, []),
        (f'["{A}", "bms-07"]', 400, []),
        (f'["{A}", 5]', 400, []),
        (f"[{A}]", 400, []),
        (f'{{"server_ids": ["{A}"]}}', 400, []),
    ],
)
def test_a_variable_may_hold_an_array(webhook: Webhook, value: str, status: int, ids: list[str]) -> None:
    """A variable is text, so the canonical array is written into it."""
    answer = webhook.post("/gitlab", pipeline({"SERVER_IDS": value}))
    assert (answer.status_code, webhook.ids()) == (status, ids), answer.text


def aodh(webhook: Webhook, body: object, query: str = "") -> requests.Response:
    """Post a notification of Aodh with the token in its URL."""
    return webhook.post(f"/aodh?token={TOKEN}{query}", body)


@pytest.mark.parametrize(
    ("body", "query", "status", "ids"),
    [
        (threshold(), f"&server_id={A}", 200, [A]),
        (threshold(), f"&server_id={A},{B.upper()}", 200, [A, B]),
        (threshold(), f"&server_id={A}&server_id={B}", 200, [A, B]),
        (notification(reason_data={"type": "composite"}), f"&server_id={A}", 200, [A]),
        (notification(), f"&server_id={A}", 200, [A]),
        (notification(), f"&server_id={B}", 400, []),
        (threshold(), "&server_id=bms-07", 400, []),
        (threshold(), "&server_id=", 400, []),
        (threshold(current="ok"), f"&server_id={A}", 204, []),
        (threshold(current="insufficient data"), f"&server_id={A}", 204, []),
        (notification(event={"event_type": "compute.instance.power_off.end"}), f"&server_id={A}", 204, []),
        (notification(event={"generated": "2026-11-20T12:00:00.123456"}), "", 200, [A]),
        (notification(event={"generated": "soon"}), "", 400, []),
        (notification(event={"generated": "2999-01-01T00:00:00"}), "", 400, []),
        (threshold(), f"&server_id={A}&dry_run=perhaps", 400, []),
    ],
)
def test_the_url_of_an_aodh_action_may_name_the_server(
    webhook: Webhook, body: dict[str, Any], query: str, status: int, ids: list[str]
) -> None:
    """Under the same token; what fires and what is an echo is decided as before."""
    answer = aodh(webhook, body, query)
    assert (answer.status_code, webhook.ids()) == (status, ids), answer.text


def test_an_aodh_alarm_that_names_no_server_warns_what_to_add(webhook: Webhook) -> None:
    """It is not lost silently."""
    with logged() as lines:
        assert aodh(webhook, threshold()).status_code == 204
    (line,) = lines.of("delivery ignored")
    assert line["level"] == "WARNING"
    assert "server_id=" in line["detail"]
    assert aodh(webhook, threshold(), f"&server_id={A}&token=x").status_code == 401


def _gitlab(name: str, value: object) -> tuple[str, object]:
    return "/gitlab", pipeline({"SERVER_ID": A, name: value})  # type: ignore[dict-item]


def _grafana(name: str, value: object) -> tuple[str, object]:
    return "/grafana", group(labelled(**{name: value}))  # type: ignore[arg-type]


def _alertmanager(name: str, value: object) -> tuple[str, object]:
    return "/alertmanager", group(firing(), firing(B, annotations={name: value}))


def _resolved(name: str, value: object) -> tuple[str, object]:
    return "/alertmanager", group(firing(), firing(None, annotations={name: value}))


def _common(name: str, value: object) -> tuple[str, object]:
    return "/alertmanager", group(firing(), commonLabels={name: value})


def _azure(name: str, value: object) -> tuple[str, object]:
    return "/azure-monitor", azure({"server_id": A, name: value})


def _context(name: str, value: object) -> tuple[str, object]:
    return "/azure-monitor", azure({"server_id": A}, {name: value})


def _constant(name: str, value: object) -> tuple[str, object]:
    return "/eventbridge", {"server_ids": [A], "labels": {name: value}}


def _dimension(name: str, value: object) -> tuple[str, object]:
    made = metric(A)
    made["metricStat"]["metric"]["dimensions"][name] = value
    return "/eventbridge", cloudwatch(made)


def _trait(name: str, value: object) -> tuple[str, object]:
    return f"/aodh?token={TOKEN}", notification([["instance_id", 1, A], [name, 1, value]])


def _query(name: str, value: object) -> tuple[str, object]:
    return f"/grafana?{name}={value}", group(firing())


SAYS: list[Callable[[str, object], tuple[str, object]]] = [
    _gitlab,
    _grafana,
    _alertmanager,
    _resolved,
    _common,
    _azure,
    _context,
    _constant,
    _dimension,
    _trait,
    _query,
]


@pytest.mark.parametrize("made", SAYS)
@pytest.mark.parametrize("name", ["dry_run", "DRY_RUN", "dry-run", "DryRun", "ops/dry-run"])
@pytest.mark.parametrize("value", ["true", "True", " TRUE "])
def test_every_producer_lets_people_ask_for_a_dry_run(
    webhook: Webhook, made: Callable[[str, object], tuple[str, object]], name: str, value: str
) -> None:
    """Label, annotation, property, dimension, variable, trait, or parameter of the URL."""
    path, body = made(name, value)
    assert webhook.post(path, body).status_code == 200
    (data,) = webhook.handed_on()
    assert (data["dry_run"], A in data["server_ids"]) == (True, True)


@pytest.mark.parametrize("made", SAYS)
@pytest.mark.parametrize(("name", "value"), [("dry_run", "yes"), ("dry_run", ""), ("dry-run", "1"), ("dry_run", "tru")])
def test_a_dry_run_that_is_not_understood_hands_nothing_on(
    webhook: Webhook, made: Callable[[str, object], tuple[str, object]], name: str, value: str
) -> None:
    """Its author expects that nothing is stopped."""
    path, body = made(name, value)
    answer = webhook.post(path, body)
    assert (answer.status_code, webhook.handed_on()) == (400, []), answer.text


@pytest.mark.parametrize("made", SAYS)
def test_a_dry_run_that_is_not_wanted_is_none(
    webhook: Webhook, made: Callable[[str, object], tuple[str, object]]
) -> None:
    """The word alone does not make it one."""
    path, body = made("dry_run", "false")
    assert webhook.post(path, body).status_code == 200
    assert A in webhook.ids()


@pytest.mark.parametrize("path", ["/alertmanager", "/grafana", "/azure-monitor", "/eventbridge", "/gitlab"])
def test_a_form_in_place_of_json_is_refused_with_its_content_type(webhook: Webhook, path: str) -> None:
    """It is what clients send by default; JSON is read whatever it is called."""
    form = "application/x-www-form-urlencoded"
    answer = webhook.post(path, "a=b", **{"content-type": form})
    assert (answer.status_code, webhook.handed_on()) == (400, [])
    assert form in answer.json()["faults"][0]["fault"]


def test_the_whole_group_is_read_if_it_was_encoded_twice(webhook: Webhook) -> None:
    """As text that holds the JSON."""
    assert webhook.post("/alertmanager", json.dumps(json.dumps(group(firing())))).status_code == 200
    assert webhook.ids() == [A]
