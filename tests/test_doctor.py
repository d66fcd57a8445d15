"""The doctor: what it finds between the settings and a stop, what it advises, and that it stops nothing."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from handler import cli, doctor
from handler.doctor import Finding, Verdict
from handler.http_client import HttpClient, HttpResponse
from handler.settings import stop_servers as stop_settings
from handler.simulator import CallKind, Fault, Simulator
from tests.cloud.https import https_login
from tests.support.issuer import Issuer


def examined(cloud: Simulator, **environ: str) -> dict[str, Finding]:
    """What the doctor finds, by check."""
    made = stop_settings.from_environ({"AUTOSTOP_INBOUND_AUTH": "none", **cloud.environ(), **environ})
    return {finding.check: finding for finding in doctor.examine(made)}


def verdicts(found: Mapping[str, Finding]) -> dict[str, str]:
    """The verdict of each check."""
    return {check: str(finding.verdict) for check, finding in found.items()}


def assert_nothing_stopped(cloud: Simulator) -> None:
    """No stop was acted upon."""
    assert [call for call in cloud.calls if call.kind is CallKind.STOP and call.acted_on] == []


@pytest.fixture
def refused() -> Iterator[str]:
    """An address at which nobody listens."""
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{unheard.getsockname()[1]}"


@pytest.mark.parametrize("api", ["nova", "bms"])
def test_a_deployment_that_works_is_fine_throughout(api: str) -> None:
    """Every check is made in order, the servers are counted, and none is stopped."""
    with Simulator.otc() as cloud:
        cloud.add_server()
        cloud.add_server(flavor="s3.medium.2")
        found = examined(cloud, AUTOSTOP_API=api, AUTOSTOP_RESULT_SINK=cloud.url)
        name = "BMS" if api == "bms" else "Nova"
        checks = ["IAM", "clock", "login", "endpoint", name, "read", "list", "history", "stop", "sink"]
        assert verdicts(found) == dict.fromkeys(checks, "ok")
        assert [*found] == checks
        assert "1 of them bare metal" in found["list"].said
        assert cloud.project_id in found["login"].said
        assert_nothing_stopped(cloud)


def test_a_wrong_password_ends_it_after_one_try(cloud: Simulator) -> None:
    """The rest would only lock the account, and the password is not repeated."""
    found = examined(cloud, OS_PASSWORD="not-the-password")
    assert verdicts(found) == {"IAM": "ok", "clock": "ok", "login": "wrong"}
    assert cloud.count(CallKind.LOGIN) == 1
    assert "not-the-password" not in str(found)


def test_an_iam_without_a_name_or_a_listener_ends_it(cloud: Simulator, refused: str) -> None:
    """Each with its own advice."""
    nameless = examined(cloud, OS_AUTH_URL="https://nowhere.invalid/v3")
    assert verdicts(nameless) == {"IAM": "wrong"}
    assert "has no address" in nameless["IAM"].said
    assert "DNS" in nameless["IAM"].mend
    unheard = examined(cloud, OS_AUTH_URL=f"http://{refused}/v3")
    assert verdicts(unheard) == {"IAM": "wrong"}
    assert "ConnectionRefusedError" in unheard["IAM"].said
    assert "firewall" in unheard["IAM"].mend
    assert cloud.calls == []


def test_a_port_without_tls_ends_it(cloud: Simulator) -> None:
    """Whether certificates are checked or not."""
    secured = cloud.auth_url.replace("http:", "https:")
    for insecure in ("false", "true"):
        found = examined(cloud, OS_AUTH_URL=secured, OS_INSECURE=insecure)
        assert verdicts(found) == {"IAM": "wrong"}


def test_a_region_that_is_not_there_is_told_with_the_settings_to_check(cloud: Simulator) -> None:
    """No other region is looked at instead."""
    found = examined(cloud, OS_REGION_NAME="elsewhere")
    assert verdicts(found) == {"IAM": "ok", "clock": "ok", "login": "ok", "endpoint": "wrong"}
    assert "OS_REGION_NAME" in found["endpoint"].mend
    assert "AUTOSTOP_COMPUTE_URL" in found["endpoint"].mend


def test_an_http_url_after_a_login_over_https_is_found(cloud: Simulator, tmp_path: Path) -> None:
    """An error if the catalogue names it, a doubt if it is configured."""
    with https_login(cloud, tmp_path) as login:
        found = examined(cloud, **login)
        assert verdicts(found) == {"IAM": "ok", "clock": "ok", "login": "ok", "endpoint": "wrong"}
        assert "AUTOSTOP_COMPUTE_URL" in found["endpoint"].mend
        allowed = examined(cloud, **login, AUTOSTOP_COMPUTE_URL=cloud.url)
    assert allowed["endpoint"].verdict is Verdict.DOUBT
    assert "unencrypted" in allowed["endpoint"].said
    assert allowed["stop"].verdict is Verdict.OK


def test_an_api_that_does_not_listen_ends_it(cloud: Simulator, refused: str) -> None:
    """After everything before it was found well."""
    found = examined(cloud, AUTOSTOP_COMPUTE_URL=f"http://{refused}")
    assert verdicts(found) == {"IAM": "ok", "clock": "ok", "login": "ok", "endpoint": "ok", "Nova": "wrong"}


def test_a_login_that_may_only_read_is_found(cloud: Simulator) -> None:
    """By its role."""
    found = examined(cloud, **cloud.environ("watcher"))
    assert found["login"].verdict is Verdict.WRONG
    assert "reader" in found["login"].said


def _answer_with(monkeypatch: pytest.MonkeyPatch, headers: Mapping[str, str]) -> None:
    """Have the request for IAM's clock answered with these headers."""
    send = HttpClient.send

    def answered(client: HttpClient, method: str, url: str, **options: Any) -> HttpResponse:
        response = send(client, method, url, **options)
        return response._replace(headers=headers) if options.get("head_only") else response

    monkeypatch.setattr(HttpClient, "send", answered)


@pytest.mark.parametrize(("ahead", "said"), [(600, "behind the cloud"), (-600, "ahead of the cloud")])
def test_a_clock_that_is_off_is_found(
    cloud: Simulator, monkeypatch: pytest.MonkeyPatch, ahead: float, said: str
) -> None:
    """Either way, by the time that IAM tells."""
    stamp = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + ahead))
    _answer_with(monkeypatch, {"Date": stamp})
    found = examined(cloud)
    assert found["clock"].verdict is Verdict.WRONG
    assert said in found["clock"].said


def test_an_iam_that_does_not_tell_its_time_is_a_doubt(cloud: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the rest is looked at all the same."""
    _answer_with(monkeypatch, {})
    found = examined(cloud)
    assert found["clock"].verdict is Verdict.DOUBT
    assert found["stop"].verdict is Verdict.OK


@pytest.mark.parametrize(
    ("on", "fault", "check", "verdict"),
    [
        (CallKind.READ, {"status": 403}, "read", "wrong"),
        (CallKind.LIST, {"status": 403}, "list", "wrong"),
        (CallKind.STOP, {"status": 403}, "stop", "wrong"),
        (CallKind.ACTIONS, {"status": 403}, "history", "doubt"),
        (CallKind.READ, {"status": 200, "body": "<html>"}, "read", "wrong"),
        (CallKind.READ, {"status": 503}, "read", "doubt"),
        (CallKind.LIST, {"status": 503}, "list", "doubt"),
        (CallKind.LIST, {"status": 200, "body": '{"servers": [{"id": "a"}]}'}, "list", "wrong"),
        (CallKind.LIST, {"status": 200, "body": '{"servers": []}'}, "list", "ok"),
        (CallKind.STOP, {"status": 202}, "stop", "ok"),
    ],
)
def test_what_is_wrong_with_one_call_is_told_of_that_check_alone(
    cloud: Simulator, on: CallKind, fault: dict[str, Any], check: str, verdict: str
) -> None:
    """The other permissions are looked at all the same."""
    cloud.inject(Fault(on=on, **fault))
    found = verdicts(examined(cloud))
    assert found.pop(check) == verdict
    assert set(found.values()) == {"ok"}
    assert_nothing_stopped(cloud)


@pytest.mark.parametrize("on", [CallKind.READ, CallKind.LIST])
def test_a_token_that_the_api_does_not_take_is_told(cloud: Simulator, on: CallKind) -> None:
    """As of another cloud than the one that gave it."""
    cloud.inject(Fault(on=on, status=401, times=None))
    found = examined(cloud)
    assert found["token"].verdict is Verdict.WRONG
    assert "stop" not in found


def test_a_sink_that_cannot_be_reached_is_found(cloud: Simulator, refused: str) -> None:
    """After everything before it was found well."""
    found = examined(cloud, AUTOSTOP_RESULT_SINK=f"http://{refused}/events")
    assert found.pop("sink").verdict is Verdict.WRONG
    assert {finding.verdict for finding in found.values()} == {Verdict.OK}


def test_a_topic_as_the_sink_is_looked_for_and_not_published_to() -> None:
    """Where it is, and whether that can be reached; subscribers would see a message."""
    with Simulator.otc() as cloud:
        found = examined(cloud, AUTOSTOP_RESULT_SINK=f"smn:{cloud.add_topic()}")
        assert found["sink"].verdict is Verdict.OK
        assert cloud.published == []
    with Simulator() as plain:
        lost = examined(plain, AUTOSTOP_RESULT_SINK=f"smn:urn:smn:eu-de:{plain.project_id}:x")["sink"]
    assert (lost.verdict, "AUTOSTOP_SMN_URL" in lost.mend) == (Verdict.WRONG, True)


def test_a_host_behind_a_proxy_is_not_judged(cloud: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the proxy can reach it."""
    monkeypatch.setenv("http_proxy", "http://proxy.invalid:3128")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    found = examined(cloud, AUTOSTOP_RESULT_SINK="http://sink.invalid/events")
    assert found["sink"].verdict is Verdict.OK
    assert "proxy" in found["sink"].said


def test_an_issuer_that_gives_its_keys_is_fine(cloud: Simulator) -> None:
    """It is looked at first, and the keys are counted."""
    with Issuer() as issuer:
        found = examined(cloud, **issuer.environ())
    assert next(iter(found)) == "issuer"
    assert found["issuer"] == Finding("issuer", Verdict.OK, "it gives its keys, 1 of them usable")
    assert set(verdicts(found).values()) == {"ok"}


def test_an_issuer_that_does_not_is_found(cloud: Simulator) -> None:
    """With the settings to look at; the rest is looked at all the same."""
    with Issuer() as issuer:
        issuer.pages.clear()
        found = examined(cloud, **issuer.environ())
    assert found["issuer"].verdict is Verdict.WRONG
    assert "HTTP 404" in found["issuer"].said
    assert "AUTOSTOP_OIDC_ISSUER" in found["issuer"].mend
    assert found["stop"].verdict is Verdict.OK


@pytest.mark.parametrize(
    ("environ", "code"),
    [
        ({}, 0),
        ({"OS_PASSWORD": "wrong"}, 1),
        ({"OS_REGION_NAME": "elsewhere"}, 1),
        ({"AUTOSTOP_DEADLINE": "soon"}, 2),
    ],
)
def test_the_command_tells_it_by_its_exit_code(
    cloud: Simulator,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    environ: dict[str, str],
    code: int,
) -> None:
    """0 all is well, 1 something is wrong, 2 the settings are; advice stands below what is wrong."""
    for name, value in {**cloud.environ(), **environ}.items():
        monkeypatch.setenv(name, value)
    assert cli.main(["doctor"]) == code
    out = capsys.readouterr().out
    assert ("->" in out) == (code == 1)
    assert_nothing_stopped(cloud)
