"""The log's lines against their table in `deploy/observability/README.md`: each kind is really logged, and compared."""

from __future__ import annotations

import ast
import contextlib
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
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
from handler.stop.model import StopRequest
from handler.telemetry import start
from handler.telemetry.providers import _replace_log_output
from tests.cloud.test_servers import THEIRS, found
from tests.cloud.test_servers import row as server_row
from tests.conftest import KEEP, ROOT
from tests.inbound.auth.test_key_set import Server as KeyServer
from tests.inbound.webhooks.authentication import receiver
from tests.inbound.webhooks.fake_smn import CERT_URL, CONFIRM_URL, FakeSmn, certificate
from tests.inbound.webhooks.receiver import JSON, ONE, Receiver, bearer
from tests.inbound.webhooks.test_buttons import press, slack_click
from tests.inbound.webhooks.test_smn import receiver as smn_receiver
from tests.inbound.webhooks.test_smn import send as smn_send
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


def _broken(*_: object) -> None:
    raise RuntimeError(MARK)


class Causes:
    """What has each line logged."""

    def __init__(self, cloud: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cloud = cloud
        self.monkeypatch = monkeypatch

    def environ(self, **more: str) -> dict[str, str]:
        return {"AUTOSTOP_INBOUND_AUTH": "none", **self.cloud.environ(), **more}

    def handled(self, data: object = None, environ: Mapping[str, str] | None = None, **attributes: Any) -> None:
        """Have the function handle an event with the simulated cloud."""
        message = binary(data or {"server_ids": [self.cloud.add_server()]}, **attributes)
        call_endpoint(message, _Real(Service(from_environ(self.environ(**environ or {})))))

    def started(self) -> None:
        for results in ("http://sink.example/secret-path", ""):
            SharedResources(from_environ(self.environ(AUTOSTOP_RESULT_SINK=results))).log_started()

    def probed(self) -> None:
        endpoint = Service(from_environ(self.environ())).endpoint()
        for path in ("/healthz", "/readyz"):
            endpoint.answer(HttpRequest("GET", path, {}, b"", time.monotonic()))

    def call_failed(self) -> None:
        self.cloud.inject(Fault(on=CallKind.READ, status=503))
        self.handled()

    def announced(self, *answers: Say) -> None:
        with SinkServer(*answers) as results:
            self.handled(environ={"AUTOSTOP_RESULT_SINK": results.url, "AUTOSTOP_ANNOUNCE": "best-effort"})

    def announcement_crashed(self) -> None:
        def broken(_: Sink, event: CloudEvent, __: float) -> None:
            if event["type"].endswith("announced.v1"):
                raise RuntimeError(MARK)

        self.monkeypatch.setattr(Sink, "deliver", broken)
        self.announced()

    def approved(self) -> None:
        service = Service(from_environ(self.environ(AUTOSTOP_APPROVAL_KEYS="k" * 32)))
        asked = {"server_ids": [self.cloud.add_server()], "approval": "other", "requester": "slack:T1/U1"}
        plan = json.loads(call_endpoint(binary(asked, id="1"), _Real(service)).body)["plan"]["token"]
        call_endpoint(binary({"plan": plan, "approved_by": "slack:T1/U2"}, type=STOP_APPROVED, id="2"), _Real(service))

    def kept(self) -> None:
        request = KeepRequest("/tests", "k", KEEP, (self.cloud.add_server(),), duration=timedelta(hours=1))
        KeepService(keep_settings(self.environ())).handle([request], False, time.monotonic())

    def ignored(self) -> None:
        call_endpoint(structured(event(type="io.github.bms-autostop.stop.failed.v1", traceparent=TRACE)))

    def malformed(self) -> None:
        call_endpoint(structured(event(id="", traceparent="no trace")))

    def login_refused(self) -> None:
        self.handled(environ={"OS_PASSWORD": "wrong"})

    def run_failed(self) -> None:
        self.monkeypatch.setattr(NovaReader, "read", _broken)
        self.handled()

    def handed_on(self, *answers: Say, request: StopRequest | KeepRequest = REQUEST) -> None:
        with SinkServer(*answers) as sink, contextlib.suppress(SinkUnreachable):
            service = WebhookService(webhook_settings({"AUTOSTOP_EVENT_SINK": sink.url}))
            service.hand_on(request, time.monotonic() + 5)

    def alert(self, labels: Mapping[str, str] | None = None, status: str = "firing", **more: object) -> None:
        alert = {"status": status, "labels": labels or {"server_id": ONE}, "fingerprint": "a1"}
        headers = {**JSON, **bearer("token-of-this-test")}
        Receiver(AUTOSTOP_ALERTMANAGER_TOKEN="token-of-this-test").post(
            "/alertmanager", {"alerts": [alert], **more}, headers
        )

    def confirmed(self) -> None:
        vendor = FakeSmn()
        vendor.served = {CERT_URL: (200, certificate(vendor.key)), CONFIRM_URL: (200, b"ok")}
        smn_send(smn_receiver(vendor), vendor.confirmation())

    def producer_silent(self) -> None:
        with pytest.raises(ProducerUnreachable):
            fetch.get("http://127.0.0.1:1/", 1.0)

    def sink_silent(self) -> None:
        with SinkServer(Say(0)) as sink:
            Sink(SinkSettings(sink.url), sleep=lambda _: None).send({}, b"", time.monotonic() + 5)

    def selected(self) -> None:
        self.handled({"selector": {"name": "no-*"}})

    def selector_failed(self) -> None:
        self.monkeypatch.setattr(NovaReader, "find", _broken)
        self.selected()

    def keys_kept(self) -> None:
        issuer = KeyServer("one")
        issuer.down = KeysUnreachable("The key server gave no response.")
        with pytest.raises(KeysUnreachable):
            issuer.keys.find("one")

    def called(self, event: object) -> None:
        shared = SharedResources(from_environ(self.environ()))
        with pytest.raises((NotHandled, NeverPossible)):
            invoke(shared, event, Call.of_context(StandIn({}, cloud=self.cloud), {}), time.monotonic())

    def call_crashed(self) -> None:
        self.monkeypatch.setattr("handler.functiongraph.invocation.requests_of", _broken)
        self.called(tick())

    def posted(self, *answers: Say, again: bool = False, **environ: str) -> None:
        """Have `notify_chat` post a result to a chat that answers so."""
        with SinkServer(*answers) as chat:
            environ = {"AUTOSTOP_INBOUND_AUTH": "none", "AUTOSTOP_NOTIFY_TEXT_URL": chat.url, **environ}
            endpoint = NotifyService(notify_settings(environ)).endpoint()
            result = result_event(report(server_result(), traceparent=TRACE), source="/s", extensions={})
            for _ in range(1 + again):
                endpoint.answer(HttpRequest("POST", "/", *binary_result(result), time.monotonic()))

    def no_chat(self) -> None:
        self.posted(AUTOSTOP_NOTIFY_TEXT_URL="")

    def not_posted(self) -> None:
        self.posted(Say(503))
        self.no_chat()

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

    def telemetry_failed(self) -> None:
        _replace_log_output()
        logging.getLogger("opentelemetry.sdk").warning("Failure of %s of test_log_lines", MARK)


class _Real(FakeHandler):
    """Has the service handle what comes through the endpoint."""

    def __init__(self, service: Service) -> None:
        super().__init__()
        self._service = service

    def handle(self, requests: Any, as_batch: bool, received: float) -> Any:
        return self._service.handle(requests, as_batch, max(received, time.monotonic()))


KEEP_REQUEST = KeepRequest("/tests", "k", KEEP, (ONE,), release=True, requested_by="ada")
CAUSES: dict[str, Callable[[Causes], object]] = {
    "started": Causes.started,
    "probe received": Causes.probed,
    "event received": Causes.handled,
    "call to the cloud failed": Causes.call_failed,
    "event handled": Causes.handled,
    "server handled": Causes.handled,
    "keep handled": Causes.kept,
    "server keep handled": Causes.kept,
    "stop announced": Causes.announced,
    "stop not announced": lambda causes: causes.announced(Say(400)),
    "a bug kept the stops from being announced": Causes.announcement_crashed,
    "event ignored": Causes.ignored,
    "event malformed": Causes.malformed,
    "event not handled": Causes.login_refused,
    "request not handled": Causes.login_refused,
    "stop request handed on": Causes.handed_on,
    "stop request not handed on": lambda causes: causes.handed_on(Say(400)),
    "stop request sent, not known whether it was taken": lambda causes: causes.handed_on(Say(500)),
    "keep request handed on": lambda causes: causes.handed_on(request=KEEP_REQUEST),
    "keep request not handed on": lambda causes: causes.handed_on(Say(400), request=KEEP_REQUEST),
    "delivery ignored": lambda causes: causes.alert(status="resolved"),
    "a click was not answered": lambda _: press(receiver("/slack"), slack_click("https://elsewhere.example/actions/x")),
    "alert ignored": lambda causes: causes.alert({"alertname": "DatasourceNoData", "server_id": ONE}),
    "alert malformed": lambda causes: causes.alert({"alertname": "Idle", "server_id": "no id"}),
    "subscription confirmed": Causes.confirmed,
    "the producer left alerts out; raise its limit": lambda causes: causes.alert(truncatedAlerts=3),
    "the producer gave no answer": Causes.producer_silent,
    "the sink did not take the event": Causes.sink_silent,
    "no webhook is switched on": lambda _: WebhookService(
        webhook_settings({"AUTOSTOP_EVENT_SINK": "http://sink.example/"})
    ).endpoint(),
    "a call of the run failed": Causes.run_failed,
    "a bug kept the request from being handled": lambda _: call_endpoint(binary(), FakeHandler(RuntimeError(MARK))),
    "the look for a selector's servers failed": Causes.selector_failed,
    "servers of other projects are on the list of ours": lambda _: found([server_row(0, tenant_id=THEIRS)]),
    "the topic did not take the result": lambda _: ScriptedTopic(CloudThrottled("x")).deliver(topic_result()),
    "the issuer's keys were not renewed": Causes.keys_kept,
    "call not handled": lambda causes: causes.called({"no": "trigger"}),
    "a bug kept the event from being handled": Causes.call_crashed,
    "trigger ignored": lambda _: requests_of(trace(code=500, trace_status="incident"), "/s", NOW),
    "the context does not answer": lambda _: Call.of_context(object(), {}),
    "result posted": lambda causes: causes.posted(Say(200)),
    "result posted before": lambda causes: causes.posted(Say(200), again=True),
    "result not posted": Causes.not_posted,
    "the chat gave no answer": lambda causes: causes.posted(Say(0)),
    "the chat refuses the message": lambda causes: causes.posted(Say(400)),
    "no webhook of a chat is set": Causes.no_chat,
    "log lines dropped": Causes.lines_dropped,
    "telemetry is off": Causes.telemetry_off,
    "telemetry failed": Causes.telemetry_failed,
}


@pytest.fixture
def causes(cloud: Simulator, monkeypatch: pytest.MonkeyPatch) -> Causes:
    """The causes, with a cloud."""
    return Causes(cloud, monkeypatch)


@pytest.mark.parametrize("message", TABLE)
def test_each_line_is_as_the_table_has_it(causes: Causes, message: str) -> None:
    """Level and keys, no key more and none less; and nothing else that comes along is unknown to the table."""
    with logged("DEBUG") as lines:
        CAUSES[message](causes)
    assert lines.of(message)
    for line in lines.all:
        row = TABLE[line["message"]]
        assert line["level"] in row.levels
        assert set(line) - row.sometimes == EVERY_LINE | row.keys, line
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
        assert MARK not in json.dumps(line)


def test_a_selector_is_in_the_line_of_its_event(causes: Causes) -> None:
    """And in no other."""
    with logged() as lines:
        causes.selected()
        causes.handled()
    first, second = lines.of("event handled")
    assert (first["selector"], "selector" in second) == ({"name": "no-*"}, False)


def test_a_plan_and_its_approval_name_the_people(causes: Causes) -> None:
    """In the line of the event, with the id of the plan; never its token."""
    with logged() as lines:
        causes.approved()
    plan, approval = lines.of("event handled")
    assert (plan["result_type"], approval["result_type"]) == (STOP_PLANNED, STOP_COMPLETED)
    assert (plan["requester"], approval["requester"]) == ("slack:T1/U1", "slack:T1/U1")
    assert approval["approved_by"] == "slack:T1/U2"
    assert approval["plan_id"]
    assert "approved_by" not in plan
    for line in lines.all:
        assert set(line) <= EVERY_LINE | TABLE[line["message"]].keys | TABLE[line["message"]].sometimes


def test_a_trace_is_named_only_if_it_is_one(causes: Causes) -> None:
    """A `traceparent` that is malformed is as good as none, in every kind of line."""
    with logged() as lines:
        causes.handled(traceparent=TRACE)
        causes.ignored()
        causes.malformed()
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
