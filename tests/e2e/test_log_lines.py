"""The log's lines against their table in `deploy/observability/README.md`: each kind is made for real and looked at."""

from __future__ import annotations

import ast
import contextlib
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from cloudevents.http import CloudEvent

from handler.cloud.nova import NovaReader
from handler.errors import CloudThrottled, KeysUnreachable, ProducerUnreachable, SinkUnreachable
from handler.event_types import STOP_APPROVED, STOP_COMPLETED, STOP_PLANNED
from handler.functiongraph.context import Call
from handler.functiongraph.invocation import NeverPossible, NotHandled, invoke
from handler.functiongraph.triggers.dispatch import requests_of
from handler.inbound.http.request import HttpRequest
from handler.inbound.webhooks import fetch
from handler.keep.model import KeepRequest
from handler.outbound.logs import BackgroundStream
from handler.outbound.result import binary as binary_result
from handler.outbound.result import result_event
from handler.outbound.sink import Sink
from handler.services.keep_servers import KeepService
from handler.services.notify_chat import NotifyService
from handler.services.receive_webhook import WebhookService
from handler.services.stop_servers import Service, SharedResources
from handler.settings.common import SinkSettings, wanted_signals
from handler.settings.keep_servers import from_environ as keep_settings
from handler.settings.notify_chat import from_environ as notify_settings
from handler.settings.receive_webhook import from_environ as webhook_settings
from handler.settings.stop_servers import from_environ
from handler.simulator import CallKind, Fault, Simulator
from handler.telemetry import start
from handler.telemetry.providers import _replace_log_output
from tests.cloud.test_servers import THEIRS, found
from tests.cloud.test_servers import row as server_row
from tests.conftest import KEEP, ROOT
from tests.inbound.auth.test_key_set import Server as KeyServer
from tests.inbound.webhooks.authentication import receiver
from tests.inbound.webhooks.scene import JSON, ONE, Scene, bearer
from tests.inbound.webhooks.test_buttons import press, slack_click
from tests.inbound.webhooks.test_smn import scene as smn_scene
from tests.inbound.webhooks.test_smn import send as smn_send
from tests.inbound.webhooks.vendor import CERT_URL, CONFIRM_URL, Vendor, certificate
from tests.outbound.test_result import REQUEST, report
from tests.outbound.test_result import row as server_result
from tests.outbound.test_smn_sink import ScriptedTopic
from tests.outbound.test_smn_sink import result as topic_result
from tests.support.capture import logged
from tests.support.events import FakeHandler, binary, call_endpoint, event, structured
from tests.support.functiongraph import NOW, StandIn, tick, trace
from tests.support.sink_server import Say, SinkServer

EVERY_LINE = {"time", "level", "message", "logger"}
OF_AN_EVENT = {"event_source", "event_id", "event_type", "trace_id"}
# Not in one piece, as a traceback shows lines of code.
MARK = "mark" + "ed"
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@dataclass(frozen=True)
class Line:
    """A row of the table."""

    levels: set[str]
    keys: set[str]
    sometimes: set[str]


def _table() -> dict[str, Line]:
    text = (ROOT / "deploy" / "observability" / "README.md").read_text()
    found = {}
    for row in text.partition("<!-- lines:")[2].partition("<!-- end of lines -->")[0].splitlines():
        if "`" in row:
            message, levels, about, keys = (cell.strip() for cell in row.strip("|").split("|"))
            of_event = OF_AN_EVENT if about == "yes" else set()
            always, _, more = keys.partition("(")
            names, sometimes = (set(re.findall("`(.*?)`", part)) for part in (always, more))
            found[message.strip("`")] = Line(
                {level.strip() for level in levels.split(",")}, names | of_event, sometimes
            )
    return found


TABLE = _table()


class Scenes:
    """What makes each line."""

    def __init__(self, cloud: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cloud = cloud
        self.monkeypatch = monkeypatch

    def service(self, **environ: str) -> Callable[..., None]:
        """The function before the simulated cloud: give it attributes and data of an event."""
        settings = {"AUTOSTOP_INBOUND_AUTH": "none", **self.cloud.environ(), **environ}
        service = Service(from_environ(settings))

        def send(data: object = None, **attributes: Any) -> None:
            message = binary(data or {"server_ids": [self.cloud.add_server()]}, **attributes)
            call_endpoint(message, _Real(service))

        return send

    def started(self) -> None:
        for results in ("http://sink.example/secret-path", ""):
            settings = {"AUTOSTOP_INBOUND_AUTH": "none", **self.cloud.environ(), "AUTOSTOP_RESULT_SINK": results}
            SharedResources(from_environ(settings)).log_started()

    def probed(self) -> None:
        service = Service(from_environ({"AUTOSTOP_INBOUND_AUTH": "none", **self.cloud.environ()}))
        for path in ("/healthz", "/readyz"):
            service.endpoint().answer(HttpRequest("GET", path, {}, b"", time.monotonic()))

    def call_failed(self) -> None:
        self.cloud.inject(Fault(on=CallKind.READ, status=503))
        self.service()()

    def handled(self) -> None:
        self.service()(traceparent=TRACE)

    def announced(self, *said: Say, sink: object = None) -> None:
        if sink is not None:
            self.monkeypatch.setattr(Sink, "deliver", sink)
        with SinkServer(*said) as results:
            self.service(AUTOSTOP_RESULT_SINK=results.url, AUTOSTOP_ANNOUNCE="best-effort")()

    def not_announced(self) -> None:
        self.announced(Say(400))

    def announcement_crashed(self) -> None:
        def broken(_: Sink, event: CloudEvent, __: float) -> None:
            if event["type"].endswith("announced.v1"):
                raise RuntimeError(MARK)

        self.announced(sink=broken)

    def approved(self) -> None:
        settings = {"AUTOSTOP_INBOUND_AUTH": "none", "AUTOSTOP_APPROVAL_KEYS": "k" * 32, **self.cloud.environ()}
        service = Service(from_environ(settings))
        asked = {"server_ids": [self.cloud.add_server()], "approval": "other", "requester": "slack:T1/U1"}
        plan = json.loads(call_endpoint(binary(asked, id="1"), _Real(service)).body)["plan"]["token"]
        call_endpoint(binary({"plan": plan, "approved_by": "slack:T1/U2"}, type=STOP_APPROVED, id="2"), _Real(service))

    def kept(self) -> None:
        settings = keep_settings({"AUTOSTOP_INBOUND_AUTH": "none", **self.cloud.environ()})
        service = KeepService(settings)
        request = KeepRequest("/tests", "k", KEEP, (self.cloud.add_server(),), duration=timedelta(hours=1))
        service.handle([request], False, time.monotonic())

    def ignored(self) -> None:
        call_endpoint(structured(event(type="io.github.bms-autostop.stop.failed.v1", traceparent=TRACE)))

    def malformed(self) -> None:
        call_endpoint(structured(event(id="", traceparent="no trace")))

    def not_handled(self) -> None:
        self.service(OS_PASSWORD="wrong")()

    def run_failed(self) -> None:
        def broken(*_: object) -> None:
            raise RuntimeError(MARK)

        self.monkeypatch.setattr(NovaReader, "read", broken)
        self.service()()

    def bug(self) -> None:
        call_endpoint(binary(), FakeHandler(RuntimeError(MARK)))

    def handed_on(self, *shown: Say) -> None:
        with SinkServer(*shown) as sink:
            service = WebhookService(webhook_settings({"AUTOSTOP_EVENT_SINK": sink.url}))
            try:
                service.hand_on(REQUEST, time.monotonic() + 5)
            except SinkUnreachable:
                assert shown

    def keep_handed_on(self, *answers: Say) -> None:
        with SinkServer(*answers) as sink:
            service = WebhookService(webhook_settings({"AUTOSTOP_EVENT_SINK": sink.url}))
            request = KeepRequest("/tests", "k", KEEP, (ONE,), release=True, requested_by="ada")
            with contextlib.suppress(SinkUnreachable):
                service.hand_on(request, time.monotonic() + 5)

    def keep_not_handed_on(self) -> None:
        self.keep_handed_on(Say(400))

    def not_handed_on(self) -> None:
        self.handed_on(Say(400))

    def perhaps_handed_on(self) -> None:
        self.handed_on(Say(500))

    def nothing_switched_on(self) -> None:
        WebhookService(webhook_settings({"AUTOSTOP_EVENT_SINK": "http://sink.example/"})).endpoint()

    def alerts(self, status: str, **more: object) -> None:
        here = Scene(AUTOSTOP_ALERTMANAGER_TOKEN="token-of-this-test")
        body = {"alerts": [{"status": status, "labels": {"server_id": ONE}}], **more}
        here.post("/alertmanager", body, {**JSON, **bearer("token-of-this-test")})

    def delivery_ignored(self) -> None:
        self.alerts("resolved")

    def alerts_left_out(self) -> None:
        self.alerts("firing", truncatedAlerts=3)

    def alert_without_data(self) -> None:
        self.alert({"alertname": "DatasourceNoData", "server_id": ONE})

    def alert_malformed(self) -> None:
        self.alert({"alertname": "Idle", "server_id": "no id"})

    def alert(self, labels: dict[str, str]) -> None:
        here = Scene(AUTOSTOP_ALERTMANAGER_TOKEN="token-of-this-test")
        body = {"alerts": [{"status": "firing", "labels": labels, "fingerprint": "a1"}]}
        here.post("/alertmanager", body, {**JSON, **bearer("token-of-this-test")})

    def confirmed(self) -> None:
        vendor = Vendor()
        vendor.served = {CERT_URL: (200, certificate(vendor.key)), CONFIRM_URL: (200, b"ok")}
        smn_send(smn_scene(vendor), vendor.confirmation())

    def producer_silent(self) -> None:
        with pytest.raises(ProducerUnreachable):
            fetch.get("http://127.0.0.1:1/", 1.0)

    def sink_silent(self) -> None:
        with SinkServer(Say(0)) as sink:
            Sink(SinkSettings(sink.url), sleep=lambda _: None).send({}, b"", time.monotonic() + 5)

    def selected(self) -> None:
        self.service()({"selector": {"name": "no-*"}})

    def selector_failed(self) -> None:
        def broken(*_: object) -> None:
            raise RuntimeError(MARK)

        self.monkeypatch.setattr(NovaReader, "find", broken)
        self.service()({"selector": {"name": "no-*"}})

    def other_projects(self) -> None:
        found([server_row(0, tenant_id=THEIRS)])

    def topic_silent(self) -> None:
        ScriptedTopic(CloudThrottled("x")).deliver(topic_result())

    def keys_kept(self) -> None:
        issuer = KeyServer("one")
        issuer.down = KeysUnreachable("The key server gave no response.")
        with pytest.raises(KeysUnreachable):
            issuer.keys().find("one")

    def called(self, event: object) -> None:
        """A call of FunctionGraph."""
        shared = SharedResources(from_environ({"AUTOSTOP_INBOUND_AUTH": "none", **self.cloud.environ()}))
        with pytest.raises((NotHandled, NeverPossible)):
            invoke(shared, event, Call.of_context(StandIn({}, cloud=self.cloud), {}), time.monotonic())

    def call_not_handled(self) -> None:
        self.called({"no": "trigger"})

    def click_not_answered(self) -> None:
        press(receiver("/slack"), slack_click("https://elsewhere.example/actions/x"))

    def call_crashed(self) -> None:
        def broken(*_: object) -> None:
            raise RuntimeError(MARK)

        self.monkeypatch.setattr("handler.functiongraph.invocation.requests_of", broken)
        self.called(tick())

    def trigger_ignored(self) -> None:
        assert requests_of(trace(code=500, trace_status="incident"), "/s", NOW) == []

    def context_silent(self) -> None:
        Call.of_context(object(), {})

    def chat(self, *shown: Say, again: bool = False, **environ: str) -> None:
        """`notify_chat` before a chat that says these."""
        with SinkServer(*shown) as chat:
            wanted = {"AUTOSTOP_NOTIFY_TEXT_URL": chat.url, **environ}
            service = NotifyService(notify_settings({"AUTOSTOP_INBOUND_AUTH": "none", **wanted}))
            endpoint = service.endpoint()
            message = binary_result(
                result_event(report(server_result(), traceparent=TRACE), source="/s", extensions={})
            )
            for _ in range(1 + again):
                endpoint.answer(HttpRequest("POST", "/", *message, time.monotonic()))

    def reported(self) -> None:
        self.chat(Say(200))

    def told_before(self) -> None:
        self.chat(Say(200), again=True)

    def not_posted(self) -> None:
        self.chat(Say(503))
        self.chat(AUTOSTOP_NOTIFY_TEXT_URL="")

    def chat_silent(self) -> None:
        self.chat(Say(0))

    def chat_refuses(self) -> None:
        self.chat(Say(400))

    def no_chat(self) -> None:
        self.chat(AUTOSTOP_NOTIFY_TEXT_URL="")

    def lines_dropped(self) -> None:
        reader, writer = os.pipe()
        stream = BackgroundStream(writer, 10)
        stream.write("longer than the buffer")
        stream.write("short")
        os.read(reader, 5)
        # It is logged after a line was written, by the thread that wrote it.
        stream.write("\n")
        os.read(reader, 1)
        os.close(reader)
        os.close(writer)

    def telemetry_off(self) -> None:
        environ = {"OTEL_TRACES_EXPORTER": "zipkin"}
        start(wanted_signals(environ), environ)

    def telemetry_trouble(self) -> None:
        _replace_log_output()
        logging.getLogger("opentelemetry.sdk").warning("Trouble of %s of test_log_lines", MARK)


class _Real(FakeHandler):
    """Has the service handle what comes through the endpoint."""

    def __init__(self, service: Service) -> None:
        super().__init__()
        self._service = service

    def handle(self, requests: Any, as_batch: bool, received: float) -> Any:
        """As in production, but from now on."""
        return self._service.handle(requests, as_batch, max(received, time.monotonic()))


SCENES: dict[str, Callable[[Scenes], None]] = {
    "started": Scenes.started,
    "probe received": Scenes.probed,
    "event received": Scenes.handled,
    "call to the cloud failed": Scenes.call_failed,
    "event handled": Scenes.handled,
    "server handled": Scenes.handled,
    "keep handled": Scenes.kept,
    "server keep handled": Scenes.kept,
    "stop announced": Scenes.announced,
    "stop not announced": Scenes.not_announced,
    "a bug kept the stops from being announced": Scenes.announcement_crashed,
    "event ignored": Scenes.ignored,
    "event malformed": Scenes.malformed,
    "event not handled": Scenes.not_handled,
    "request not handled": Scenes.not_handled,
    "stop request handed on": Scenes.handed_on,
    "keep request handed on": Scenes.keep_handed_on,
    "keep request not handed on": Scenes.keep_not_handed_on,
    "stop request not handed on": Scenes.not_handed_on,
    "stop request sent, not known whether it was taken": Scenes.perhaps_handed_on,
    "delivery ignored": Scenes.delivery_ignored,
    "a click was not answered": Scenes.click_not_answered,
    "alert ignored": Scenes.alert_without_data,
    "alert malformed": Scenes.alert_malformed,
    "subscription confirmed": Scenes.confirmed,
    "the producer left alerts out; raise its limit": Scenes.alerts_left_out,
    "the producer gave no answer": Scenes.producer_silent,
    "the sink did not take the event": Scenes.sink_silent,
    "no webhook is switched on": Scenes.nothing_switched_on,
    "a call of the run failed": Scenes.run_failed,
    "a bug kept the request from being handled": Scenes.bug,
    "the look for a selector's servers failed": Scenes.selector_failed,
    "servers of other projects are on the list of ours": Scenes.other_projects,
    "the topic did not take the result": Scenes.topic_silent,
    "the issuer's keys were not renewed": Scenes.keys_kept,
    "call not handled": Scenes.call_not_handled,
    "a bug kept the event from being handled": Scenes.call_crashed,
    "trigger ignored": Scenes.trigger_ignored,
    "the context does not answer": Scenes.context_silent,
    "result posted": Scenes.reported,
    "result posted before": Scenes.told_before,
    "result not posted": Scenes.not_posted,
    "the chat gave no answer": Scenes.chat_silent,
    "the chat refuses the message": Scenes.chat_refuses,
    "no webhook of a chat is set": Scenes.no_chat,
    "log lines dropped": Scenes.lines_dropped,
    "telemetry is off": Scenes.telemetry_off,
    "telemetry failed": Scenes.telemetry_trouble,
}


@pytest.fixture
def scenes(cloud: Simulator, monkeypatch: pytest.MonkeyPatch) -> Scenes:
    """The scenes, with a cloud."""
    return Scenes(cloud, monkeypatch)


@pytest.mark.parametrize("message", TABLE)
def test_each_line_is_as_the_table_has_it(scenes: Scenes, message: str) -> None:
    """Level and keys, no key more and none less; and nothing else that comes along is unknown to the table."""
    with logged("DEBUG") as lines:
        SCENES[message](scenes)
    assert lines.of(message)
    for line in lines.all:
        row = TABLE[line["message"]]
        assert line["level"] in row.levels
        assert set(line) - row.sometimes == EVERY_LINE | row.keys, line
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
        assert MARK not in json.dumps(line)


def test_a_selector_is_in_the_line_of_its_event(scenes: Scenes) -> None:
    """And in no other."""
    with logged() as lines:
        scenes.selected()
        scenes.handled()
    first, second = lines.of("event handled")
    assert (first["selector"], "selector" in second) == ({"name": "no-*"}, False)


def test_a_plan_and_its_approval_name_the_people(scenes: Scenes) -> None:
    """In the line of the event, with the id of the plan; never its token."""
    with logged() as lines:
        scenes.approved()
    plan, approval = lines.of("event handled")
    assert (plan["result_type"], approval["result_type"]) == (STOP_PLANNED, STOP_COMPLETED)
    assert (plan["requester"], approval["requester"]) == ("slack:T1/U1", "slack:T1/U1")
    assert approval["approved_by"] == "slack:T1/U2"
    assert approval["plan_id"]
    assert "approved_by" not in plan
    for line in lines.all:
        assert set(line) <= EVERY_LINE | TABLE[line["message"]].keys | TABLE[line["message"]].sometimes


def test_a_trace_is_named_only_if_it_is_one(scenes: Scenes) -> None:
    """A `traceparent` that is malformed is as good as none, in every kind of line."""
    with logged() as lines:
        scenes.handled()
        scenes.ignored()
        scenes.malformed()
    traces = {line["message"]: line.get("trace_id") for line in lines.all}
    assert traces == {
        "event received": TRACE.split("-")[1],
        "server handled": TRACE.split("-")[1],
        "event handled": TRACE.split("-")[1],
        "event ignored": TRACE.split("-")[1],
        "event malformed": None,
        "request not handled": None,
    }


def _log_calls() -> Iterator[tuple[str, str, ast.expr]]:
    for path in sorted((ROOT / "handler").rglob("*.py")):
        if "simulator" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(func=ast.Attribute(value=ast.Name(id="_LOG"), attr="log"), args=[_, message]):
                    yield str(path.relative_to(ROOT)), "", message
                case ast.Call(func=ast.Attribute(value=ast.Name(id="_LOG"), attr=level), args=[message, *_]):
                    yield str(path.relative_to(ROOT)), level, message


def test_every_line_in_the_code_is_in_the_table() -> None:
    """With a fixed text; who adds one adds its form here."""
    called: dict[str, set[str]] = {}
    for where, level, message in _log_calls():
        assert isinstance(message, ast.Constant), f"{where}: the message must be a constant"
        assert "%" not in str(message.value), f"{where}: what changes belongs into keys"
        levels = called.setdefault(str(message.value), set())
        # Where the level is worked out, the table has to know which come of it.
        levels |= {{"exception": "error"}.get(level, level).upper()} if level else TABLE[str(message.value)].levels
    assert called == {message: line.levels for message, line in TABLE.items()}
