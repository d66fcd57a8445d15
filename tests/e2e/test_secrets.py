"""No secret appears in any output.

Every secret setting and every other credential is marked, sent through every path, and searched for in all output.
"""

from __future__ import annotations

import base64
import inspect
import json
import re
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from handler import cli
from handler.cloud.nova import NovaReader
from handler.functiongraph.context import Call
from handler.functiongraph.invocation import NeverPossible, NotHandled, invoke
from handler.inbound.http.request import HttpRequest
from handler.inbound.http.responses import Answer
from handler.inbound.webhooks.registry import SWITCHES
from handler.outbound.result import binary, result_event
from handler.services.notify_chat import NotifyService
from handler.services.receive_webhook import WebhookService
from handler.services.stop_servers import Service, SharedResources
from handler.settings import declared
from handler.settings.common import wanted_signals
from handler.settings.env import Secret, SettingsError
from handler.settings.login import CloudLogin
from handler.settings.notify_chat import ChatName, NotifySettings
from handler.settings.notify_chat import from_environ as notify_settings
from handler.settings.receive_webhook import WebhookSettings
from handler.settings.receive_webhook import from_environ as webhook_settings
from handler.settings.stop_servers import Settings, from_environ
from handler.telemetry import start
from handler.telemetry.observer import OpenTelemetryObserver
from tests.conftest import STOP
from tests.inbound.webhooks.receiver import FORM, JSON, basic, bearer
from tests.outbound.test_result import report
from tests.outbound.test_result import row as server_result
from tests.support.capture import Lines, logged
from tests.support.echo_cloud import PROJECT, TOKEN, EchoCloud
from tests.support.functiongraph import StandIn, passage, tick
from tests.support.sink_server import Say, SinkServer
from tests.telemetry.collector import Collector

ONE = "95bf2490-5428-432c-ad9b-5e3406f869dd"
# Every setting that is a secret, with its mark. What is a list takes one.
LOGIN_MARKS = {
    "OS_PASSWORD": "marked-os-password",
    "OS_TOKEN": "marked-os-token",
    "OS_SECRET_KEY": "marked-os-secret-key",
    "OS_SECURITY_TOKEN": "marked-os-security-token",
    "OS_APPLICATION_CREDENTIAL_SECRET": "marked-os-credential-secret",
}
STOP_MARKS = {
    "AUTOSTOP_BEARER_TOKENS": "marked-bearer-token",
    "AUTOSTOP_SINK_TOKEN": "marked-autostop-sink-token-of-this-test",
    "AUTOSTOP_APPROVER_TOKENS": "marked-approver-token",
    "AUTOSTOP_APPROVAL_KEYS": "marked-approval-key-of-36-characters",
}
# The form of a secret that is not any visible text.
FORMS: Mapping[str, Callable[[str], str]] = {
    "AUTOSTOP_TEAMS_SECRET": lambda text: base64.b64encode(text.encode()).decode(),
    "AUTOSTOP_GITLAB_SIGNING_TOKEN": lambda text: f"whsec_{base64.b64encode(text.encode()).decode()}",
}


def _mark(name: str) -> str:
    return f"marked-{name.lower().replace('_', '-')}-of-this-test"


WEBHOOK_MARKS = {
    setting.name: FORMS.get(setting.name, str)(_mark(setting.name))
    for setting in declared()
    if setting.secret and "receive_webhook" in setting.targets
}
# Who knows the URL may post.
NOTIFY_MARKS = {
    f"AUTOSTOP_NOTIFY_{chat}_URL": f"https://127.0.0.1:1/marked-hook-of-{chat.lower()}"
    for chat in (name.upper() for name in ChatName)
}
MARKS = {**LOGIN_MARKS, **STOP_MARKS, **WEBHOOK_MARKS, **NOTIFY_MARKS}
WRONG = "marked-wrong-token"
PLACE = {
    "OS_USERNAME": "operator",
    "OS_USER_DOMAIN_NAME": "Default",
    "OS_PROJECT_NAME": "eu-de",
    "OS_ACCESS_KEY": "AKEXAMPLE",
    "OS_APPLICATION_CREDENTIAL_ID": "credential-1",
}
KINDS = ["password", "token", "v3applicationcredential", "admin_token", "aksk"]
# What FunctionGraph may put into requests, and what callers authenticate with.
CARRIED = {
    "x-cff-auth-token": "marked-cff-token",
    "x-cff-security-secret-key": "marked-cff-key",
    "x-auth-token": "marked-x-auth",
    "cookie": "session=marked-cookie",
}


class Seen:
    """Everything that came out, with where it did."""

    def __init__(self) -> None:
        self.texts: list[tuple[str, str]] = []

    def add(self, where: str, *things: object) -> None:
        self.texts += [(where, thing.decode("latin-1") if isinstance(thing, bytes) else str(thing)) for thing in things]

    def answer(self, where: str, answer: Answer) -> Answer:
        self.add(where, answer.status, dict(answer.headers), answer.body)
        return answer

    def sink(self, sink: SinkServer) -> None:
        """Keep what a sink got, but for the one header that is to hold the one secret of the sink."""
        for got in sink.got:
            headers = dict(got.headers)
            assert headers.pop("authorization", None) in (None, f"Bearer {MARKS['AUTOSTOP_SINK_TOKEN']}")
            self.add("event sent", got.path, headers, got.body)

    def none_of(self, marks: set[str]) -> None:
        """There is no mark in anything, in no spelling."""
        assert self.texts
        spellings = {"marked-"}
        for mark in marks:
            spellings |= {mark, mark.upper(), base64.b64encode(mark.encode()).decode().rstrip("="), mark[::-1]}
        assert not {(where, text) for where, text in self.texts for mark in spellings if mark in text}


READ = (from_environ, webhook_settings, notify_settings)
ALL = {
    *MARKS.values(),
    *CARRIED.values(),
    WRONG,
    TOKEN,
    *map(_mark, FORMS),
}


def secrets_of(settings: Any) -> Iterator[tuple[str, Secret]]:
    """Every Secret in a settings object, however deep, by the field that holds it."""
    for name, kind in inspect.get_annotations(type(settings)).items():
        value = getattr(settings, name)
        if inspect.get_annotations(type(value)):
            yield from secrets_of(value)
        elif "Secret" in str(kind):
            values = value.values() if isinstance(value, Mapping) else value or [Secret()]
            yield from ((name, secret) for secret in ([value] if isinstance(value, Secret) else values))


def stop_environ(cloud: EchoCloud, kind: str = "password", **more: str) -> dict[str, str]:
    """The environment of `stop_servers` with every secret that there is."""
    place = {**PLACE, "OS_AUTH_URL": f"{cloud.url}/v3", "OS_AUTH_TYPE": kind}
    if kind in ("aksk", "admin_token"):
        place["AUTOSTOP_COMPUTE_URL"] = f"{cloud.url}/v2.1"
    if kind == "admin_token":
        place["OS_PROJECT_ID"] = PROJECT
    return {
        **MARKS,
        **place,
        "AUTOSTOP_INBOUND_AUTH": "bearer",
        "AUTOSTOP_DEADLINE": "1s",
        "AUTOSTOP_WAIT": "0",
        "AUTOSTOP_EVENT_SINK": "http://127.0.0.1:1/",
        "AUTOSTOP_LOG_LEVEL": "DEBUG",
        "AUTOSTOP_NOTIFY_DEFAULT": "text",
        **more,
    }


@contextmanager
def everything() -> Iterator[tuple[Seen, Lines]]:
    """Log at DEBUG, and search all of it at the end."""
    seen = Seen()
    with logged("DEBUG") as lines:
        yield seen, lines
    seen.add("log", lines.text)
    seen.none_of(ALL)


def event_request(token: str, body: object, **headers: str) -> HttpRequest:
    """An event that carries everything that may come along with one."""
    sent = {
        **CARRIED,
        "content-type": "application/json",
        "authorization": f"Bearer {token}",
        **{f"ce-{name}": value for name, value in {"specversion": "1.0", "id": "e", "source": "/s"}.items()},
        "ce-type": STOP,
        **headers,
    }
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    query = f"token={WRONG}&access_token={MARKS['AUTOSTOP_BEARER_TOKENS']}"
    return HttpRequest("POST", f"/{WRONG}", sent, raw, time.monotonic(), query)


MALFORMED: list[Any] = [
    {"server_ids": [WRONG]},
    {"server_ids": [ONE], "dry_run": WRONG, "reason": {"x": WRONG}, "selector": WRONG},
    f'{{"server_ids": "{WRONG}'.encode(),
    f"{WRONG}".encode(),
    b'["' + WRONG.encode() + b'"]',
]


# --- the table itself


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        (from_environ, {**LOGIN_MARKS, **STOP_MARKS}),
        (webhook_settings, WEBHOOK_MARKS),
        (
            notify_settings,
            NOTIFY_MARKS | {name: MARKS[name] for name in ("AUTOSTOP_BEARER_TOKENS", "AUTOSTOP_ACTION_KEYS")},
        ),
    ],
    ids=["stop_servers", "receive_webhook", "notify_chat"],
)
def test_every_secret_setting_is_marked_here(settings: Any, wanted: dict[str, str]) -> None:
    """A field of the type Secret has its variable in a table above, and so in every test below."""
    with EchoCloud() as cloud:
        made = settings(stop_environ(cloud, AUTOSTOP_RESULT_SINK="http://127.0.0.1:1/"))
    # Of the functions with callers only stop_servers takes approvals.
    found = [one for one in secrets_of(made) if settings is from_environ or one[0] != "approver_tokens"]
    unmarked = {name for name, secret in found if secret.reveal() not in MARKS.values()}
    assert not unmarked, "LOGIN_MARKS, STOP_MARKS or NOTIFY_MARKS must have their variables (webhooks: secret=True)"
    marked = {secret.reveal() for _, secret in found}
    assert {name for name, mark in wanted.items() if mark not in marked} == set()
    assert marked <= set(wanted.values())


def test_what_is_called_like_a_secret_is_one() -> None:
    """A field for a token, a password, a secret or a key that is a plain text would be shown by `repr`."""
    for kind in (Settings, CloudLogin, WebhookSettings, NotifySettings):
        for name, type_ in kind.__annotations__.items():
            if re.search("token|password|secret", name) and not name.endswith("_file"):
                assert "Secret" in str(type_), name
    secret = "(TOKEN|PASSWORD|SECRET|SECRET_KEY|APPROVAL_KEY|ACTION_KEY)S?$"
    named = {setting.name for setting in declared() if re.search(secret, setting.name)}
    assert named | set(NOTIFY_MARKS) == set(MARKS) == {setting.name for setting in declared() if setting.secret}


# --- settings


def test_settings_show_no_secret() -> None:
    """Neither as they are nor inside of other texts."""
    seen = Seen()
    with EchoCloud() as cloud:
        for made in (read(stop_environ(cloud)) for read in READ):
            seen.add("repr", repr(made), str(made), f"{made}", [made])
            seen.add("secret", *(format(secret) for _, secret in secrets_of(made)))
    seen.none_of(ALL)


@pytest.mark.parametrize("corrupted", [" ", "\x01", "\u20ac", ",", "\n x"])
def test_a_malformed_secret_is_not_quoted(corrupted: str) -> None:
    """Whatever is wrong with it; the violation names the variable alone."""
    seen = Seen()
    with EchoCloud() as cloud:
        environ = {**stop_environ(cloud), **{name: f"{mark}{corrupted}{mark}" for name, mark in MARKS.items()}}
        for read in READ:
            try:
                seen.add("settings", repr(read(environ)))
            except SettingsError as error:
                seen.add("violations", error, error.violations, repr(error))
    seen.none_of(ALL)


def test_a_secret_in_the_wrong_variable_is_not_quoted() -> None:
    """People mix up lines; each setting gets each kind of value that might be a password."""
    seen = Seen()
    with EchoCloud() as cloud:
        good = stop_environ(cloud)
        others = {setting.name for setting in declared() if setting.name != "OS_CLOUD"}
        for value in (WRONG, f"https://user:{WRONG}@host/", f"https://{WRONG}\u20ac/", f'{{"extensions": "{WRONG}"}}'):
            for read in READ:
                with pytest.raises(SettingsError) as error:
                    read({**good, **dict.fromkeys(others, value)})
                seen.add("violations", error.value, repr(error.value))
    seen.none_of(ALL)


# --- stop_servers


# A page that is not JSON is read in the same way whatever the login.
@pytest.mark.parametrize(("kind", "raw"), [*((kind, False) for kind in KINDS), ("password", True), ("aksk", True)])
def test_stopping_servers_shows_no_secret(kind: str, raw: bool) -> None:
    """With every kind of login, caller, event, cloud and sink.

    Callers right and wrong, events good and malformed, a cloud that works, refuses, or fails and repeats all that it
    was sent, a sink that accepts, refuses or fails.
    """
    codes: set[int] = set()
    with everything() as (seen, lines), EchoCloud() as cloud:
        cloud.raw = raw
        for login, status, stop in [
            *((201, status, status) for status in (200, 401, 403, 429, 500)),
            *((201, 200, stop) for stop in (400, 403, 500)),
            *((status, 200, 200) for status in (403, 500)),
        ]:
            cloud.login_status, cloud.status, cloud.stop_status = login, status, stop
            with SinkServer(Say(503), Say(202)) as sink:
                environ = stop_environ(cloud, kind, AUTOSTOP_RESULT_SINK=f"{sink.url}")
                endpoint = Service(from_environ(environ)).endpoint()
                for body in ({"server_ids": [ONE]}, MALFORMED[0]):
                    for token in (MARKS["AUTOSTOP_BEARER_TOKENS"], WRONG):
                        codes.add(seen.answer("answer", endpoint.answer(event_request(token, body))).status)
                ready = HttpRequest("GET", "/readyz", CARRIED, b"", time.monotonic())
                seen.answer("readyz", endpoint.answer(ready))
                seen.sink(sink)
    # Nothing was shown, though all of this happened.
    assert codes == {204, 400, 401, 503}
    reasons = {line["reason"] for line in lines.of("server handled")}
    assert {"accepted", "forbidden", "rejected"} <= reasons
    # What a cloud repeats of a request is in the log, without the token.
    assert ("***" in lines.text) is not raw


def test_malformed_events_are_not_repeated() -> None:
    """In any mode, whatever is wrong with them."""
    with everything() as (seen, _), EchoCloud() as cloud:
        endpoint = Service(from_environ(stop_environ(cloud))).endpoint()
        right = MARKS["AUTOSTOP_BEARER_TOKENS"]
        for body in MALFORMED:
            for headers in (
                {},
                {"content-type": "application/cloudevents+json"},
                {"content-type": "application/cloudevents-batch+json"},
                {"ce-time": WRONG, "ce-specversion": WRONG, "ce-traceparent": WRONG, "ce-expirytime": WRONG},
                {"content-type": WRONG},
            ):
                assert seen.answer("answer", endpoint.answer(event_request(right, body, **headers))).status >= 400
        for method in ("OPTIONS", "GET", "BREW"):
            origin = {**CARRIED, "authorization": f"Bearer {right}", "webhook-request-origin": WRONG}
            seen.answer(method, endpoint.answer(HttpRequest(method, f"/{WRONG}", origin, b"", time.monotonic(), WRONG)))


def test_a_crash_shows_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception that quotes what it stumbled over, in a call, behind the endpoint, or as the cause of another."""
    with everything() as (seen, lines), EchoCloud() as cloud:
        service = Service(from_environ(stop_environ(cloud)))
        endpoint = service.endpoint()
        request = event_request(MARKS["AUTOSTOP_BEARER_TOKENS"], {"server_ids": [ONE]})

        def broken(*_: object, **__: object) -> Any:
            try:
                raise ValueError(f"Invalid header value {MARKS['OS_TOKEN']!r}")
            except ValueError as error:
                raise RuntimeError(f"with {MARKS['OS_PASSWORD']}") from error

        with monkeypatch.context() as here:
            here.setattr(NovaReader, "read", broken)
            assert seen.answer("answer", endpoint.answer(request)).status == 503
        with monkeypatch.context() as here:
            here.setattr("handler.services.stop_servers.result_event", broken)
            assert seen.answer("answer", endpoint.answer(request)).status == 503
    assert len(lines.of("a call of the run failed")) == len(lines.of("a bug kept the request from being handled")) == 1
    for line in lines.all:
        if "exception" in line:
            assert "ValueError\n" in line["exception"]
            assert "RuntimeError\n" in line["exception"]


def test_a_token_that_no_header_can_hold_is_refused_at_the_start() -> None:
    """http.client would quote it in its error, at every call."""
    with EchoCloud() as cloud, pytest.raises(SettingsError) as error:
        from_environ(stop_environ(cloud, "admin_token", OS_TOKEN="marked-os\ntoken"))
    assert error.value.violations == ("OS_TOKEN must have visible ASCII characters only.",)


# Of each login what it repeats of a refusal; a cloud that works or fails repeats the same of each.
@pytest.mark.parametrize(("kind", "status"), [*((kind, 403) for kind in KINDS), ("password", 200), ("password", 500)])
def test_doctor_and_plan_show_no_secret(
    kind: str, status: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor what their settings are, nor what the cloud repeats."""
    event = tmp_path / "event.json"
    with everything() as (seen, _), EchoCloud() as cloud:
        cloud.status = cloud.stop_status = status
        for name, value in stop_environ(cloud, kind).items():
            monkeypatch.setenv(name, value)
        for data in ({"server_ids": [ONE]}, *MALFORMED[:2]):
            event.write_text(json.dumps({"specversion": "1.0", "id": "e", "source": "/s", "type": STOP, "data": data}))
            cli.main(["plan", "--timeout", "0.5", "-v", str(event)])
        for arguments in (["plan", "--timeout", "0.5", "--json", "--server", ONE], ["doctor"]):
            cli.main(arguments)
        cli.main(["doctor", "--json", "--server", ONE])
        monkeypatch.setenv("AUTOSTOP_DEADLINE", WRONG)
        for arguments in (["plan", str(event)], ["doctor"], ["serve"]):
            assert cli.main(arguments) == cli.Exit.USAGE
        out = capsys.readouterr()
        seen.add("output", out.out, out.err)
    assert ("***" in out.out) is (status != 200)


# --- FunctionGraph


@pytest.mark.parametrize("status", [200, 401, 403, 500])
def test_functiongraph_shows_no_secret(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the agency's token or keys, nor what a gateway passes through, whatever the cloud answers."""
    with everything() as (seen, _), EchoCloud() as cloud:
        cloud.status = cloud.stop_status = status
        environ = stop_environ(cloud, "functiongraph", AUTOSTOP_COMPUTE_URL=f"{cloud.url}/v2.1", OS_PROJECT_ID=PROJECT)
        environ["AUTOSTOP_MAX_EVENT_AGE"] = "0"
        shared = SharedResources(from_environ(environ))
        for token, key in ((MARKS["OS_TOKEN"], ""), ("", MARKS["OS_SECRET_KEY"])):
            context = StandIn(environ)
            monkeypatch.setattr(context, "getToken", lambda token=token: token)
            monkeypatch.setattr(context, "getSecurityAccessKey", lambda key=key: key and "AKEXAMPLE")
            monkeypatch.setattr(context, "getSecuritySecretKey", lambda key=key: key)
            monkeypatch.setattr(context, "getSecurityToken", lambda key=key: key and MARKS["OS_SECURITY_TOKEN"])
            call = Call.of_context(context, {})
            seen.add("call", repr(call))
            carried = {**CARRIED, "authorization": f"Bearer {WRONG}"}
            for event in (
                tick({"server_ids": [ONE]}),
                tick({"server_ids": [WRONG]}),
                {"no": WRONG},
                passage({"server_ids": [ONE]}, carried),
                passage(
                    {"server_ids": [WRONG]}, {**carried, "authorization": f"Bearer {MARKS['AUTOSTOP_BEARER_TOKENS']}"}
                ),
            ):
                try:
                    seen.add("result", json.dumps(invoke(shared, event, call, time.monotonic())))
                except (NotHandled, NeverPossible) as raised:
                    seen.add("raised", raised, repr(raised), "".join(traceback.format_exception(raised)))
        # Nothing was shown, though servers were stopped.
        assert any('"outcome": "accepted"' in text for _, text in seen.texts) is (status == 200)


# --- receive_webhook

TOPIC = "urn:smn:eu-de:0123456789abcdef0123456789abcdef:stop"


def _proofs(secret: str) -> Iterator[tuple[Mapping[str, str], str, bytes]]:
    """A secret in each place where a producer may put it: headers, query, body."""
    shown = {"token": secret, "text": f"stop {ONE} at night", "user_id": "u", "channel_id": "c", "trigger_id": "t"}
    body = json.dumps({**shown, "alerts": [{"status": "firing", "labels": {"server_id": WRONG}}]}).encode()
    form = "&".join(f"{name}={value}" for name, value in shown.items()).encode()
    for headers in (bearer(secret), basic(secret), {"authorization": f"Token {secret}"}, {"authorization": secret}):
        yield {**JSON, **headers}, "", body
    yield {**JSON, "x-gitlab-token": secret}, "", body
    yield JSON, f"token={secret}", body
    yield JSON, "", body
    yield FORM, "", form
    signed = {"x-slack-signature": secret, "x-slack-request-timestamp": "1", "x-grafana-alerting-signature": secret}
    yield {**FORM, **signed, "authorization": f"HMAC {secret}"}, "", form
    yield {**JSON, **bearer(secret)}, "", secret.encode()


@pytest.mark.parametrize("path", sorted(SWITCHES))
def test_webhooks_show_no_secret(path: str) -> None:
    """Each producer with its own secret, and with a wrong one, in each place; the sink takes, refuses or is away."""
    with everything() as (seen, _), EchoCloud() as cloud:
        for shown in (Say(202), Say(400), Say(503)):
            with SinkServer(*[shown] * 200) as sink:
                environ = {**stop_environ(cloud), "AUTOSTOP_EVENT_SINK": sink.url, "AUTOSTOP_SMN_TOPICS": TOPIC}
                environ |= {
                    f"AUTOSTOP_{chat}_{who}": who[0].lower() for chat in _CHATS for who in ("USERS", "CHANNELS")
                }
                endpoint = WebhookService(webhook_settings(environ)).endpoint()
                for secret in (*WEBHOOK_MARKS.values(), WRONG):
                    for headers, query, body in _proofs(secret):
                        # The time-out of the producer is counted from here: a sink that fails gets one more try.
                        received = time.monotonic() - 60.0 if shown.status == 503 else time.monotonic()
                        request = HttpRequest("POST", path, {**CARRIED, **headers}, body, received, query)
                        seen.answer(path, endpoint.answer(request))
                seen.sink(sink)


_CHATS = ("SLACK", "MATTERMOST", "TEAMS", "ROCKETCHAT")


def test_a_crash_of_a_producer_shows_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its code runs before and after the authentication."""

    def broken(*_: object, **__: object) -> Any:
        raise ValueError(MARKS["AUTOSTOP_ALERTMANAGER_TOKEN"])

    with everything() as (seen, _), EchoCloud() as cloud:
        endpoint = WebhookService(webhook_settings(stop_environ(cloud))).endpoint()
        for part in ("verify", "extract"):
            with monkeypatch.context() as here:
                here.setattr(type(endpoint._producers["/alertmanager"]), part, broken)
                headers = {**JSON, **bearer(MARKS["AUTOSTOP_ALERTMANAGER_TOKEN"])}
                body = json.dumps({"alerts": [{"status": "firing", "labels": {"server_id": ONE}}]}).encode()
                request = HttpRequest("POST", "/alertmanager", headers, body, time.monotonic())
                assert seen.answer("answer", endpoint.answer(request)).status == 503


# --- notify_chat


@pytest.mark.parametrize("shown", [Say(200), Say(400), Say(503), Say(0)])
def test_posting_to_chats_shows_no_secret(shown: Say) -> None:
    """Neither the chat's URL nor what callers bring, whatever the chat says."""
    with everything() as (seen, _), EchoCloud() as cloud:
        with SinkServer(shown) as chat:
            environ = stop_environ(cloud, AUTOSTOP_NOTIFY_TEXT_URL=f"{chat.url}/marked-hook")
            service = NotifyService(notify_settings(environ))
            endpoint = service.endpoint()
            headers, body = binary(result_event(report(server_result()), source="/s", extensions={}))
            for token in (MARKS["AUTOSTOP_BEARER_TOKENS"], WRONG):
                sent = {**headers, **CARRIED, "authorization": f"Bearer {token}"}
                for content in (body, f"{{{WRONG}".encode()):
                    seen.answer(
                        "answer", endpoint.answer(HttpRequest("POST", "/", sent, content, time.monotonic(), WRONG))
                    )
        assert len(chat.got) == 1
        seen.add("chat", chat.got[0].headers, chat.got[0].body)


# --- telemetry


def test_telemetry_shows_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither spans, nor metrics, nor what it says of itself; only the header that lets it in has its secret."""
    with everything() as (seen, _), Collector() as collector, EchoCloud() as cloud:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer marked-collector-token")
        environ = {**stop_environ(cloud), "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
        telemetry = start(wanted_signals(environ), environ)
        assert isinstance(telemetry, OpenTelemetryObserver)
        with SinkServer(Say(503)) as sink:
            environ["AUTOSTOP_RESULT_SINK"] = f"{sink.url}/{WRONG}?token={WRONG}"
            settings = from_environ(environ)
            endpoint = Service(settings, SharedResources(settings, telemetry=telemetry)).endpoint()
            for status in (200, 403, 500):
                cloud.status = status
                for token in (MARKS["AUTOSTOP_BEARER_TOKENS"], WRONG):
                    endpoint.answer(event_request(token, {"server_ids": [ONE]}))
        late: Any = telemetry._signals
        late.close()
        seen.add("telemetry", *collector.raw)
        assert collector.headers[0]["authorization"] == "Bearer marked-collector-token"
        assert collector.spans
