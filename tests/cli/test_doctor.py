"""`bms-autostop doctor`: what it finds between the settings and a stop, what it advises, and that it stops nothing."""

from __future__ import annotations

import json
import re
import ssl
import sys
import time
import types
from collections.abc import Mapping
from email.utils import formatdate
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

from handler.cli.checks import Check, Status, network
from handler.cli.doctor import configured, examine
from handler.cli.settings import Target
from handler.simulator import CallKind, Fault, Simulator
from tests.cli.conftest import Run
from tests.cloud.https import https_login
from tests.support.issuer import Issuer
from tests.support.process import free_port
from tests.support.sink_server import SinkServer

_UNKNOWN = "5f0c1a52-3d0e-4b7a-9a55-0d6f3c2b1a10"


def examined(target: Target, environ: Mapping[str, str], server_id: str | None = None) -> dict[str, Check]:
    """Return the checks of a target, by name."""
    return {check.check: check for check in examine(target, environ, server_id, lambda _: None)}


def checked(cloud: Simulator, server_id: str | None = None, **environ: str) -> dict[str, Check]:
    """Return the checks of `stop_servers`, by name."""
    made = {"AUTOSTOP_INBOUND_AUTH": "none", **cloud.environ(), **environ}
    return examined(Target.STOP_SERVERS, made, server_id)


def statuses(checks: Mapping[str, Check]) -> dict[str, str]:
    """Return the status of each check."""
    return {name: str(check.status) for name, check in checks.items()}


def assert_nothing_stopped(cloud: Simulator) -> None:
    """No stop was acted upon."""
    assert [call for call in cloud.calls if call.kind is CallKind.STOP and call.acted_on] == []


@pytest.fixture
def closed() -> str:
    """An address at which nothing listens."""
    return f"127.0.0.1:{free_port()}"


# --- a deployment that works


@pytest.mark.parametrize("api", ["nova", "bms"])
def test_only_what_was_seen_to_work_is_ok(api: str) -> None:
    """Every check is made in order; the right to stop was not tested, which is a warning."""
    with Simulator.otc() as cloud:
        cloud.add_server()
        cloud.add_server(flavor="s3.medium.2")
        checks = checked(cloud, AUTOSTOP_API=api, AUTOSTOP_RESULT_SINK=cloud.url)
        name = "BMS" if api == "bms" else "Nova"
        names = ["settings", "callers", "IAM", "clock", "login", "endpoint", name]
        names += ["list", "bare metal", "read", "history", "stop", "sink"]
        assert [*checks] == names
        assert statuses(checks) == {check: "warning" if check == "stop" else "ok" for check in names}
        assert checks["list"].detail.startswith("1 server " if api == "bms" else "2 servers ")
        assert checks["bare metal"].detail.startswith("1 of the servers")
        assert cloud.project_id in checks["login"].detail
        assert cloud.count(CallKind.STOP) == 0


# --- the right to stop


def test_the_right_to_stop_is_seen_on_a_server_that_is_stopped(cloud: Simulator) -> None:
    """A stop is sent to it: 409 says that it is allowed. Only then is it ok."""
    stopped = cloud.add_server(vm_state="stopped")
    checks = checked(cloud, stopped)
    assert checks["stop"].status is Status.OK
    assert "409" in checks["stop"].detail
    assert cloud.stops_sent(stopped) == 1
    assert_nothing_stopped(cloud)


def test_without_a_server_the_right_to_stop_is_a_warning_that_names_one(cloud: Simulator) -> None:
    """One that is stopped already, if there is any."""
    cloud.add_server()
    assert checked(cloud)["stop"].fix.endswith("doctor --server ID")
    stopped = cloud.add_server(vm_state="stopped")
    found = checked(cloud)["stop"]
    assert (found.status, found.fix.rpartition(" ")[2]) == (Status.WARNING, stopped)
    assert cloud.count(CallKind.STOP) == 0


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"vm_state": "error"},
        {"vm_state": "paused"},
        {"vm_state": "stopped", "task_state": "powering-on"},
        {"vm_state": "stopped", "task_state": "powering-off"},
        {"vm_state": "active", "task_state": "powering-off"},
        {"vm_state": "stopped", "power_state": 1},
        {"vm_state": "stopped", "power_state": 0},
    ],
)
def test_no_stop_is_sent_to_a_server_that_is_not_stopped(cloud: Simulator, state: dict[str, Any]) -> None:
    """Whatever the operator asked for."""
    server_id = cloud.add_server(**state)
    found = checked(cloud, server_id)["stop"]
    assert found.status is Status.WARNING
    assert "was not tested" in found.detail
    assert cloud.count(CallKind.STOP) == 0


def test_no_stop_is_sent_to_a_server_that_is_not_there(cloud: Simulator) -> None:
    """Nova answers 404 to everybody: nothing is known."""
    checks = checked(cloud, _UNKNOWN)
    assert (checks["read"].status, checks["stop"].status) == (Status.ERROR, Status.WARNING)
    assert "OS_PROJECT_NAME" in checks["read"].fix
    assert "history" not in checks, "it would say 404 again, with advice that does not help"
    assert (cloud.count(CallKind.STOP), cloud.count(CallKind.ACTIONS)) == (0, 0)


# --- the ten failures of on-call


class Failure(NamedTuple):
    """What is wrong, and the check that is an error, with words of its detail and its fix.

    In `environ`, `{url}` stands for the cloud's, `{closed}` for an address without a listener.
    """

    check: str
    detail: str
    fix: str
    environ: Mapping[str, str] = {}
    user: str = "operator"
    fault: Fault | None = None
    code: int = 1


_FAILURES = {
    "wrong password": Failure("login", "HTTP 401", "OS_PASSWORD", {"OS_PASSWORD": "not-the-password"}),
    "wrong project": Failure(
        "login", "user and password are right", "projects: bare-metal", {"OS_PROJECT_NAME": "elsewhere"}
    ),
    "connection refused": Failure(
        "IAM", "refused the connection", "whether the service runs", {"OS_AUTH_URL": "http://{closed}/v3"}
    ),
    "no such host": Failure("IAM", "no address", "DNS", {"OS_AUTH_URL": "https://nowhere.invalid/v3"}),
    "wrong region": Failure(
        "endpoint", "region elsewhere", "OS_REGION_NAME to one of: RegionOne", {"OS_REGION_NAME": "elsewhere"}
    ),
    "wrong compute URL": Failure("list", "HTTP 404", "AUTOSTOP_COMPUTE_URL", {"AUTOSTOP_COMPUTE_URL": "{url}/nowhere"}),
    "reader role": Failure("login", "no role but reader", "such as member", user="watcher"),
    "custom role without stop": Failure(
        "stop",
        "HTTP 403",
        "Allow the action ecs:servers:stop",
        fault=Fault(on=CallKind.STOP, status=403, times=None, message="Policy doesn't allow it to be performed."),
    ),
    "sink down": Failure(
        "sink", "refused the connection", "whether the service runs", {"AUTOSTOP_RESULT_SINK": "http://{closed}/"}
    ),
    "settings typo": Failure(
        "settings",
        "AUTOSTOP_DEADLIN must be the name of a setting",
        "bms-autostop settings",
        {"AUTOSTOP_DEADLIN": "5s"},
        code=2,
    ),
}


@pytest.mark.parametrize("name", [*_FAILURES])
def test_the_ten_failures_of_on_call(
    cloud: Simulator, closed: str, run: Run, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Each is one error with its cause and its fix, everything before it is ok, and no secret is printed."""
    failure = _FAILURES[name]
    stopped = cloud.add_server(vm_state="stopped")
    if failure.fault is not None:
        cloud.inject(failure.fault)
    made = {"AUTOSTOP_INBOUND_AUTH": "none", **cloud.environ(failure.user)}
    made |= {name: value.format(url=cloud.url, closed=closed) for name, value in failure.environ.items()}
    for variable, value in made.items():
        monkeypatch.setenv(variable, value)
    ran = run("doctor", "--server", stopped, "--json")
    checks = [Check(**row) for row in json.loads(ran.out)]
    (error,) = [check for check in checks if check.status == "error"]
    assert (ran.code, error.check) == (failure.code, failure.check)
    assert failure.detail in error.detail
    assert failure.fix in error.fix
    assert {check.status for check in checks if check is not error} <= {"ok"}
    assert made["OS_PASSWORD"] not in ran.out + ran.err
    assert_nothing_stopped(cloud)


# --- network


def test_the_account_is_not_locked_by_checking(cloud: Simulator) -> None:
    """A wrong password is tried twice: with and without the project. With a key once."""
    checked(cloud, OS_PASSWORD="not-the-password")
    assert cloud.count(CallKind.LOGIN) == 2


def test_projects_that_cannot_be_listed_are_not_named(cloud: Simulator) -> None:
    """The project is named as wrong all the same."""
    cloud.inject(Fault(on=CallKind.OTHER, status=403, times=None))
    found = checked(cloud, OS_PROJECT_NAME="elsewhere")["login"]
    assert "there is no project elsewhere" in found.detail
    assert "projects:" not in found.fix


def test_a_port_without_tls_ends_it(cloud: Simulator) -> None:
    """Whether certificates are verified or not."""
    secured = cloud.auth_url.replace("http:", "https:")
    for insecure in ("false", "true"):
        checks = checked(cloud, OS_AUTH_URL=secured, OS_INSECURE=insecure)
        assert statuses(checks) == {"settings": "ok", "callers": "ok", "IAM": "error"}


def test_a_certificate_that_is_not_trusted_is_named_with_the_setting(tls: ssl.SSLContext, tmp_path: Path) -> None:
    """And with that setting it is ok; a file that is not there is named too."""
    with SinkServer(tls=tls) as server:
        untrusted = network.reachable("IAM", server.url)
        assert (untrusted.status, "OS_CACERT" in untrusted.fix) == (Status.ERROR, True)
        assert "not trusted" in untrusted.detail
        assert network.reachable("IAM", server.url, False).status is Status.OK
        certificate = tmp_path / "cert.pem"
        assert network.reachable("IAM", server.url, str(certificate)).status is Status.OK
        assert network.reachable("IAM", server.url, certificate.read_text()).status is Status.OK
        lost = network.reachable("IAM", server.url, "/nowhere/ca.pem")
        assert (lost.status, "OS_CACERT" in lost.detail) == (Status.ERROR, True)


@pytest.mark.parametrize(
    ("url", "warned"),
    [
        ("http://iam.example/v3", True),
        ("https://iam.example/v3", False),
        ("http://127.0.0.1/v3", False),
        ("http://[::1]:5000/v3", False),
        ("http://localhost/v3", False),
    ],
)
def test_a_secret_over_http_is_a_warning(url: str, warned: bool) -> None:
    """Unless it does not leave this machine."""
    found = [*network.in_clear("IAM", url, "the login", "Set OS_AUTH_URL to an https URL.")]
    assert [check.status for check in found] == [Status.WARNING] * warned


def test_a_host_behind_a_proxy_is_a_warning(cloud: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the proxy can reach it, so nothing is known."""
    monkeypatch.setenv("http_proxy", "http://proxy.invalid:3128")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    found = checked(cloud, AUTOSTOP_RESULT_SINK="http://sink.invalid/events")["sink"]
    assert (found.status, "proxy" in found.detail) == (Status.WARNING, True)


@pytest.mark.parametrize(
    ("ahead", "status", "words"),
    [
        (600, "error", "behind the cloud"),
        (-600, "error", "ahead of the cloud"),
        (None, "warning", "the cloud sent no date"),
    ],
)
def test_the_clock_is_compared_with_that_of_iam(
    cloud: Simulator, monkeypatch: pytest.MonkeyPatch, ahead: float | None, status: str, words: str
) -> None:
    """By its `Date`; and the rest is checked all the same."""
    headers = {} if ahead is None else {"Date": formatdate(time.time() + ahead, usegmt=True)}
    monkeypatch.setattr(network.requests, "get", lambda *_, **__: SimpleNamespace(headers=headers))
    found = checked(cloud)
    assert (found["clock"].status, found["list"].status) == (status, "ok")
    assert words in found["clock"].detail


# --- the API


def test_an_http_url_after_a_login_over_https_is_an_error_in_the_catalogue_and_a_warning_if_configured(
    cloud: Simulator, tmp_path: Path
) -> None:
    """The token would be readable for all in between."""
    with https_login(cloud, tmp_path) as login:
        found = checked(cloud, **login)
        names = ("settings", "callers", "IAM", "clock", "login")
        assert statuses(found) == {**dict.fromkeys(names, "ok"), "endpoint": "error"}
        assert "the catalogue names an http URL" in found["endpoint"].detail
        assert "AUTOSTOP_COMPUTE_URL" in found["endpoint"].fix
        # An address of this machine that is not called a loopback address.
        allowed = checked(cloud, **login, AUTOSTOP_COMPUTE_URL=cloud.url.replace("127.0.0.1", "0.0.0.0"))
    assert (allowed["endpoint"].status, "over http" in allowed["endpoint"].detail) == (Status.WARNING, True)
    assert "AUTOSTOP_COMPUTE_URL" in allowed["endpoint"].fix
    assert allowed["list"].status is Status.OK


def test_an_api_that_does_not_listen_ends_it(cloud: Simulator, closed: str) -> None:
    """After everything before it was ok."""
    checks = checked(cloud, AUTOSTOP_COMPUTE_URL=f"http://{closed}")
    assert {name for name, status in statuses(checks).items() if status != "ok"} == {"Nova"}
    assert [*checks][-1] == "Nova"


_TRY_AGAIN = "Try again"
_FAILED_CALLS = [
    # Only 409 is ok and only 403 is an error: anything else says nothing about the right to stop.
    (CallKind.STOP, {"status": 403}, "error", "ecs:servers:stop"),
    *((CallKind.STOP, {"status": status}, "warning", _TRY_AGAIN) for status in (404, 500, 503)),
    (CallKind.STOP, {"status": 202}, "warning", "Look at the server"),
    (CallKind.READ, {"status": 403, "times": 1}, "error", "ecs:servers:get"),
    (CallKind.READ, {"status": 200, "body": "<html>", "times": 1}, "error", "does not look like the API"),
    (CallKind.READ, {"status": 503, "times": 1}, "warning", _TRY_AGAIN),
    (CallKind.LIST, {"status": 403}, "error", "ecs:servers:list"),
    (CallKind.LIST, {"status": 503}, "warning", _TRY_AGAIN),
    (CallKind.LIST, {"status": 406}, "error", "2.26"),
    (CallKind.LIST, {"status": 200, "body": '{"servers": [{"id": "a"}]}'}, "error", "2.26"),
    *((CallKind.ACTIONS, {"status": status}, "warning", "AUTOSTOP_MAX_EVENT_AGE") for status in (403, 404)),
    # Keystone's middleware answers 401 to what no access rule allows, while the token is good for other calls.
    (CallKind.LIST, {"status": 401}, "error", "access rule for GET /servers/detail"),
    (CallKind.ACTIONS, {"status": 401}, "warning", "access rule for GET /servers/*/os-instance-actions"),
    (CallKind.STOP, {"status": 401}, "error", "access rule for POST /servers/*/action"),
]


@pytest.mark.parametrize(("on", "fault", "status", "fix"), _FAILED_CALLS)
def test_an_error_of_one_call_is_reported_by_that_check_alone(
    cloud: Simulator, on: CallKind, fault: dict[str, Any], status: str, fix: str
) -> None:
    """With what to do."""
    stopped = cloud.add_server(vm_state="stopped")
    cloud.inject(Fault(on=on, **{"times": None, **fault}))
    checks = checked(cloud, stopped)
    check = {CallKind.ACTIONS: "history"}.get(on, on.value)
    assert fix in checks[check].fix
    assert checks[check].status == status
    assert {name for name, found in statuses(checks).items() if found == "error"} <= {check}


def test_a_nova_that_is_too_old_is_named_so() -> None:
    """As its own versions make it: it refuses the microversion."""
    with Simulator(max_microversion="2.25") as cloud:
        found = checked(cloud)["list"]
    assert found.status is Status.ERROR
    assert "too old" in found.detail


def test_a_token_that_no_call_accepts_is_named_so(cloud: Simulator) -> None:
    """As of another cloud than the one that issued it."""
    for on in (CallKind.READ, CallKind.LIST, CallKind.ACTIONS):
        cloud.inject(Fault(on=on, status=401, times=None))
    checks = checked(cloud, cloud.add_server())
    assert checks["token"].status is Status.ERROR
    assert "stop" not in checks


@pytest.mark.parametrize(("servers", "words"), [(0, "shows no server"), (2, "not-bare-metal")])
def test_no_bare_metal_servers_is_a_warning(cloud: Simulator, servers: int, words: str) -> None:
    """On another cloud than Open Telekom Cloud the setting to change is named."""
    for number in range(servers):
        cloud.add_server(f"vm-{number}", flavor="m1.small")
    found = checked(cloud)["bare metal"]
    assert found.status is Status.WARNING
    assert found.detail.startswith("0 bare metal servers")
    assert words in found.detail
    assert ("AUTOSTOP_BARE_METAL_ONLY" in found.fix) is bool(servers)
    assert checked(cloud, AUTOSTOP_BARE_METAL_ONLY="false")["bare metal"].status is Status.OK


def test_without_a_server_reading_is_not_called_ok(cloud: Simulator) -> None:
    """An unknown id would be answered with 404 whatever the rights are."""
    checks = checked(cloud)
    assert {checks[name].status for name in ("read", "history", "stop")} == {Status.WARNING}


# --- logins of other kinds


def test_a_key_or_token_that_is_refused_has_its_own_advice(cloud: Simulator) -> None:
    """Each names its own settings, and is tried once."""
    place = {name: cloud.environ()[name] for name in ("OS_AUTH_URL", "OS_REGION_NAME")}
    bare = {"OS_USERNAME": "", "OS_PASSWORD": "", **place}
    id_, _ = cloud.add_application_credential()
    credential = {**bare, "OS_APPLICATION_CREDENTIAL_ID": id_, "OS_APPLICATION_CREDENTIAL_SECRET": "wrong"}
    found = checked(cloud, **credential)["login"]
    assert (found.status, "OS_APPLICATION_CREDENTIAL_ID" in found.fix) == (Status.ERROR, True)
    assert cloud.count(CallKind.LOGIN) == 1
    found = checked(cloud, **bare, OS_TOKEN="wrong")["login"]
    assert (found.status, "OS_TOKEN" in found.fix) == (Status.ERROR, True)
    with Simulator.otc() as otc:
        key = {**otc.key_environ(otc.add_access_key()), "OS_SECRET_KEY": "wrong"}
        checks = examined(Target.STOP_SERVERS, {"AUTOSTOP_INBOUND_AUTH": "none", **key})
    assert (checks["login"].status, "OS_ACCESS_KEY" in checks["login"].fix) == (Status.ERROR, True)


def test_on_functiongraph_the_login_cannot_be_checked() -> None:
    """It comes with each call: a warning, and nothing is called."""
    made = {"AUTOSTOP_INBOUND_AUTH": "none", "RUNTIME_PROJECT_ID": "p", "OS_REGION_NAME": "eu-de"}
    found = examined(Target.STOP_SERVERS, made)
    assert statuses(found) == {"settings": "ok", "callers": "ok", "login": "warning"}


def test_an_entry_of_clouds_yaml_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With the name; where IAM is stands in that file, so the clock is not compared."""
    monkeypatch.setattr("handler.settings.login.find_spec", lambda _: object())

    def entry(_: object) -> None:
        raise RuntimeError("Cloud nowhere was not found, the password is marked")

    fake = types.ModuleType("clouds_yaml")
    fake.entry = entry  # type: ignore[attr-defined]
    monkeypatch.setattr("handler.cloud.auth.clouds_yaml", fake, raising=False)
    monkeypatch.setitem(sys.modules, "handler.cloud.auth.clouds_yaml", fake)
    made = {"AUTOSTOP_INBOUND_AUTH": "none", "OS_CLOUD": "nowhere", "HOME": str(tmp_path)}
    found = examined(Target.STOP_SERVERS, made)
    assert statuses(found) == {"settings": "ok", "callers": "ok", "clock": "warning", "login": "error"}
    assert "nowhere" in found["login"].detail
    assert "marked" not in str(found)


# --- sinks and issuers


def test_a_topic_as_the_sink_is_looked_for_and_not_published_to() -> None:
    """Where it is, and whether that can be reached; subscribers would see a message."""
    with Simulator.otc() as cloud:
        found = checked(cloud, AUTOSTOP_RESULT_SINK=f"smn:{cloud.add_topic()}")
        assert found["sink"].status is Status.OK
        assert cloud.published == []
    with Simulator() as plain:
        lost = checked(plain, AUTOSTOP_RESULT_SINK=f"smn:urn:smn:eu-de:{plain.project_id}:x")["sink"]
    assert (lost.status, "AUTOSTOP_SMN_URL" in lost.fix) == (Status.ERROR, True)


def test_a_token_for_the_sink_is_checked(cloud: Simulator, tmp_path: Path) -> None:
    """Its file must be readable and hold something; over http it is a warning."""
    file = tmp_path / "token"
    sink = {"AUTOSTOP_RESULT_SINK": cloud.url, "AUTOSTOP_SINK_TOKEN_FILE": str(file)}
    assert checked(cloud, **sink)["sink token"].status is Status.ERROR
    file.touch()
    assert checked(cloud, **sink)["sink token"].status is Status.ERROR
    file.write_text("secret-of-the-sink")
    found = checked(cloud, **sink)
    assert found["sink token"].status is Status.OK
    assert "secret-of-the-sink" not in str(found)


def test_callers_that_may_approve_what_they_ask_for_are_a_warning(cloud: Simulator) -> None:
    """Only where plans can be signed; with named approvers it is ok."""
    keys = {"AUTOSTOP_APPROVAL_KEYS": "k" * 32}
    bearer = {"AUTOSTOP_INBOUND_AUTH": "bearer", "AUTOSTOP_BEARER_TOKENS": "token-that-asks-only"}
    assert "approvals" not in checked(cloud, **bearer)
    found = checked(cloud, **bearer, **keys)["approvals"]
    assert found.status is Status.WARNING
    assert "AUTOSTOP_APPROVER_TOKENS" in found.fix
    named = checked(cloud, **bearer, **keys, AUTOSTOP_APPROVER_TOKENS="token-that-approves")
    assert named["approvals"].status is Status.OK


def test_the_keys_of_an_issuer_are_fetched(cloud: Simulator) -> None:
    """As the function fetches them, and counted; a failure names the settings, and the rest is checked all the same."""
    with Issuer() as issuer:
        assert checked(cloud, **issuer.environ())["issuer"] == Check("issuer", Status.OK, "1 usable key")
        issuer.pages.clear()
        found = checked(cloud, **issuer.environ())
    assert (found["issuer"].status, found["list"].status) == (Status.ERROR, Status.OK)
    assert "HTTP 404" in found["issuer"].detail
    assert "AUTOSTOP_OIDC_ISSUER" in found["issuer"].fix


# --- the other targets


def test_receive_webhook_is_checked(cloud: Simulator, closed: str) -> None:
    """Producers that are on, chats without permitted users, and the sink."""
    nothing = examined(Target.RECEIVE_WEBHOOK, {"AUTOSTOP_EVENT_SINK": cloud.url})
    assert statuses(nothing) == {"settings": "ok", "producers": "warning", "sink": "ok"}
    chat = {"AUTOSTOP_SLACK_SIGNING_SECRET": "0123456789abcdef", "AUTOSTOP_SLACK_USERS": "U1"}
    found = examined(Target.RECEIVE_WEBHOOK, {"AUTOSTOP_EVENT_SINK": f"http://{closed}/", **chat})
    assert statuses(found) == {"settings": "ok", "producers": "ok", "slack": "warning", "sink": "error"}
    assert found["producers"].detail == "/slack"
    assert "AUTOSTOP_SLACK_CHANNELS" in found["slack"].fix


def test_the_hosts_of_smn_are_checked(cloud: Simulator, closed: str) -> None:
    """Its certificates are fetched from there."""
    topic = f"urn:smn:eu-de:{cloud.project_id}:alarms"
    environ = {"AUTOSTOP_EVENT_SINK": cloud.url, "AUTOSTOP_SMN_TOPICS": topic, "AUTOSTOP_SMN_CERT_HOSTS": closed}
    found = statuses(examined(Target.RECEIVE_WEBHOOK, environ))
    assert (found["producers"], found["SMN certificates"]) == ("ok", "error")


def test_notify_chat_is_checked(cloud: Simulator, closed: str) -> None:
    """Each chat can be reached or not; its URL is a secret and not printed."""
    environ = {
        "AUTOSTOP_INBOUND_AUTH": "bearer",
        "AUTOSTOP_BEARER_TOKENS": "0123456789abcdef",
        "AUTOSTOP_NOTIFY_SLACK_URL": f"{cloud.url}/services/secret-part",
        "AUTOSTOP_NOTIFY_TEXT_URL": f"http://{closed}/secret-part",
        "AUTOSTOP_NOTIFY_DEFAULT": "slack",
    }
    found = examined(Target.NOTIFY_CHAT, environ)
    assert statuses(found) == {"settings": "ok", "callers": "ok", "slack": "ok", "text": "error"}
    assert "secret-part" not in str(found)


@pytest.mark.parametrize(
    ("environ", "targets"),
    [
        ({}, ["stop_servers"]),
        ({"OS_AUTH_URL": "x"}, ["stop_servers"]),
        ({"AUTOSTOP_EVENT_SINK": "x"}, ["receive_webhook"]),
        ({"AUTOSTOP_NOTIFY_SLACK_URL": "x", "OS_AUTH_URL": "x"}, ["stop_servers", "notify_chat"]),
        ({"FUNCTION_TARGET": "notify_chat", "OS_AUTH_URL": "x"}, ["notify_chat"]),
        ({"FUNCTION_TARGET": "something_else"}, ["stop_servers"]),
    ],
)
def test_the_targets_that_have_settings_are_checked(environ: dict[str, str], targets: list[str]) -> None:
    """Or the one that this container serves."""
    assert configured(environ) == targets


# --- the command


@pytest.mark.usefixtures("login")
def test_the_last_line_counts_and_strict_counts_warnings_too(run: Run) -> None:
    """Advice stands below what is not ok."""
    ran = run("doctor")
    *lines, last = ran.out.splitlines()
    statuses = [line.split()[0] for line in lines]
    warnings, oks = statuses.count("warning"), statuses.count("ok")
    assert statuses.count("->") == warnings > 0
    assert (ran.code, last) == (0, f"{oks + warnings} checks: {oks} ok, {warnings} warnings, 0 errors.")
    assert run("doctor", "--strict").code == 1


@pytest.mark.usefixtures("login")
def test_json_is_an_array_with_these_four_members(run: Run) -> None:
    """And nothing else is printed."""
    ran = run("doctor", "--json")
    rows = json.loads(ran.out)
    assert (ran.code, ran.err) == (0, "")
    assert {tuple(row) for row in rows} == {("check", "status", "detail", "fix")}
    assert {row["status"] for row in rows} == {"ok", "warning"}
    assert all(row["fix"] for row in rows if row["status"] != "ok")


def test_wrong_settings_of_any_target_end_it_with_2(
    login: Simulator, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them are named, and the other target is checked all the same."""
    monkeypatch.setenv("AUTOSTOP_NOTIFY_SLACK_URL", "ftp://x")
    monkeypatch.setenv("AUTOSTOP_INBOUND_AUTH", "none")
    monkeypatch.setenv("AUTOSTOP_NOTIFY_TEXT_URL", "y")
    login.add_server()
    ran = run("doctor")
    lines = ran.out.splitlines()
    assert [line for line in lines if line in [*Target]] == ["stop_servers", "notify_chat"]
    assert sum(line.startswith("error    settings: AUTOSTOP_NOTIFY_") for line in lines) == 2
    assert any(line.startswith("ok       list: 1 server ") for line in lines)
    as_json = run("doctor", "--json")
    names = [row["check"] for row in json.loads(as_json.out)]
    assert ("stop_servers: list" in names, names.count("notify_chat: settings")) == (True, 2)
    assert ran.code == as_json.code == 2


@pytest.mark.usefixtures("login")
def test_how_callers_are_authenticated_may_be_unset_here(run: Run) -> None:
    """On an operator's machine; it is one warning."""
    (line,) = [line for line in run("doctor").out.splitlines() if "callers:" in line]
    assert re.match(r"warning +callers: AUTOSTOP_INBOUND_AUTH is not set here", line)


@pytest.mark.parametrize(
    "options", [["--server", "ci-07"], ["--target", "other"], ["--target", "notify_chat", "--server", _UNKNOWN]]
)
def test_a_wrong_command_line_ends_with_2(options: list[str], run: Run) -> None:
    """And shows the usage."""
    ran = run("doctor", *options)
    assert (ran.code, ran.err.startswith("Usage: bms-autostop doctor")) == (2, True)
