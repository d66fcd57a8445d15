"""One login for the whole process: shared, renewed in time, and not repeated while it is refused."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from handler.cloud.auth.keystone import KeystoneLogin, asked
from handler.cloud.auth.login import REFUSED_HOLD
from handler.errors import CloudError, CloudFault, CloudThrottled, CloudUnexpectedAnswer, CloudUnreachable, LoginRefused
from handler.simulator import CallKind, Cut, Fault, Simulator
from handler.stop.ports import Taken
from tests.cloud.clients import Client
from tests.cloud.conftest import StartClient


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ({}, str),
        ({"status": 401, "times": None}, LoginRefused),
        ({"status": 500, "times": None}, CloudFault),
        ({"cut": Cut.BEFORE, "times": None}, CloudUnreachable),
    ],
)
def test_threads_share_one_login(client: Client, fault: Mapping[str, Any], kind: type) -> None:
    """All twenty get its token, or its failure, and another call gets the same token."""
    client.cloud.inject(Fault(**fault, on=CallKind.LOGIN, delay=0.05))
    gate = threading.Barrier(20)

    def access(_: int) -> object:
        gate.wait()
        try:
            return client.login.access(10).token.reveal()
        except CloudError as error:
            return error

    with ThreadPoolExecutor(20) as threads:
        results = set(threads.map(access, range(20)))
    assert {type(result) for result in results} == {kind}
    assert client.cloud.count(CallKind.LOGIN) == 1
    if kind is str:
        assert results == {client.login.access(1).token.reveal()}
        assert client.cloud.count(CallKind.LOGIN) == 1


@pytest.mark.parametrize(
    ("fault", "kind", "hold"),
    [
        ({"status": 401}, LoginRefused, REFUSED_HOLD),
        ({"status": 403}, LoginRefused, REFUSED_HOLD),
        ({"status": 401, "headers": {"Retry-After": "1"}}, LoginRefused, REFUSED_HOLD),
        ({"status": 500}, CloudFault, 0.5),
        ({"cut": Cut.BEFORE}, CloudUnreachable, 0.5),
        ({"status": 429}, CloudThrottled, 0.5),
        ({"status": 429, "headers": {"Retry-After": "0"}}, CloudThrottled, 0.5),
        ({"status": 429, "headers": {"Retry-After": "20"}}, CloudThrottled, 20.0),
        ({"status": 429, "headers": {"Retry-After": "3600"}}, CloudThrottled, 60.0),
    ],
)
def test_a_failed_login_is_not_repeated_for_a_time(
    client: Client, fault: Mapping[str, Any], kind: type[CloudError], hold: float
) -> None:
    """Every caller gets the same error; after that time one attempt is made."""
    cloud = client.cloud
    cloud.inject(Fault(**fault, on=CallKind.LOGIN))
    for passed in (0.0, hold / 2, hold * 0.49):
        client.clock.now += passed
        with pytest.raises(CloudError) as caught:
            client.login.access(1)
        assert type(caught.value) is kind
    assert cloud.count(CallKind.LOGIN) == 1
    client.clock.now += hold * 0.02
    assert client.login.access(1).token.reveal() == client.login.access(1).token.reveal()
    assert cloud.count(CallKind.LOGIN) == 2


def test_a_refused_login_is_repeated_once_a_minute(cloud: Simulator, start_client: StartClient) -> None:
    """Ten minutes with an event each second, and a wrong password."""
    client = start_client(cloud, OS_PASSWORD="wrong")
    for _ in range(600):
        with pytest.raises(LoginRefused):
            client.login.access(1)
        client.clock.now += 1
    assert cloud.count(CallKind.LOGIN) == 10


@pytest.mark.parametrize(("life", "renewed_after"), [(86400, 86280), (3600, 3480), (600, 480), (100, 80), (5, 4)])
def test_a_token_is_renewed_before_it_ends(start_client: StartClient, life: float, renewed_after: float) -> None:
    """By two minutes, or by a fifth of its life if that is less."""
    with Simulator(token_ttl=life) as cloud:
        client = start_client(cloud)
        first = client.login.access(1).token.reveal()
        client.clock.now += renewed_after - 0.1
        assert client.login.access(1).token.reveal() == first
        client.clock.now += 0.1
        assert client.login.access(1).token.reveal() != first
        assert cloud.count(CallKind.LOGIN) == 2


@pytest.mark.parametrize("hours", [-30, -1, 1, 30])
def test_a_wrong_clock_does_not_cost_a_login_for_each_call(start_client: StartClient, hours: float) -> None:
    """The life of a token is the difference of two times of the cloud."""
    with Simulator(clock=lambda: time.time() + hours * 3600) as cloud:
        client = start_client(cloud)
        assert len({client.login.access(1).token.reveal() for _ in range(3)}) == 1
        assert cloud.count(CallKind.LOGIN) == 1


def test_a_rejected_token_is_dropped_once(client: Client) -> None:
    """A second caller with the old token does not drop the new one."""
    old = client.login.access(1)
    client.login.drop(old, 1)
    new = client.login.access(1)
    client.login.drop(old, 1)
    assert client.login.access(1) is new
    assert new.token != old.token
    assert client.cloud.count(CallKind.LOGIN) == 2


def test_the_wait_for_a_login_of_another_thread_ends(client: Client) -> None:
    """With an error and without another login, if the caller has less time than it takes."""
    cloud = client.cloud
    cloud.inject(Fault(on=CallKind.LOGIN, delay=0.4))
    with ThreadPoolExecutor(1) as threads:
        slow = threads.submit(client.login.access, 5)
        while not cloud.calls:
            assert not slow.done()
        with pytest.raises(CloudUnreachable, match="another attempt is still under way"):
            client.login.access(0.05)
        assert slow.result().token
    assert cloud.count(CallKind.LOGIN) == 1


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 201, "body": "<html>"},
        {"status": 200, "body": "[]"},
        {"status": 201, "body": '{"token": {"expires_at": ""}}'},
        {"status": 302, "headers": {"Location": "/v3/elsewhere"}},
        {"status": 308, "headers": {"Location": "/v3/elsewhere"}},
        *(
            {"status": 201, "body": f'{{"token": {token}}}', "headers": {"X-Subject-Token": "t"}}
            for token in (
                "null",
                "{}",
                '{"expires_at": "never", "issued_at": "now"}',
                '{"expires_at": "2026-11-24T12:00:00Z", "issued_at": "2026-11-24T11:00:00Z", "catalog": ["compute"]}',
            )
        ),
    ],
    ids=["HTML", "list", "no header", "302", "308", "null", "no times", "invalid times", "invalid catalogue"],
)
def test_an_invalid_token_is_unexpected(client: Client, fault: Mapping[str, Any]) -> None:
    """It is not stored, and no redirect is followed with the password."""
    client.cloud.inject(Fault(**fault, on=CallKind.LOGIN))
    with pytest.raises(CloudUnexpectedAnswer, match=r"logging in: (no usable answer|HTTP 30)"):
        client.login.access(1)
    assert {call.path for call in client.cloud.calls} == {"/v3/auth/tokens"}
    client.clock.now += 1
    assert client.login.access(1).project_id == client.cloud.project_id


# --- the kinds of login

_NO_PASSWORD = {"OS_USERNAME": "", "OS_PASSWORD": "", "OS_USER_DOMAIN_NAME": ""}
_NO_PROJECT = {"OS_PROJECT_NAME": "", "OS_PROJECT_DOMAIN_NAME": ""}


def _credential(cloud: Simulator, *, by_name: bool) -> dict[str, str]:
    id_, secret = cloud.add_application_credential("night")
    if by_name:
        named = {"OS_PASSWORD": "", "OS_APPLICATION_CREDENTIAL_NAME": "night"}
    else:
        named = {**_NO_PASSWORD, **_NO_PROJECT, "OS_APPLICATION_CREDENTIAL_ID": id_}
    return {**named, "OS_APPLICATION_CREDENTIAL_SECRET": secret}


KINDS: Mapping[str, tuple[str, Callable[[Simulator], Mapping[str, str]]]] = {
    "password": ("password", lambda _: {}),
    "project id": ("password", lambda cloud: {"OS_PROJECT_NAME": "", "OS_PROJECT_ID": cloud.project_id}),
    "user id": (
        "password",
        lambda cloud: {"OS_USERNAME": "", "OS_USER_DOMAIN_NAME": "", "OS_USER_ID": cloud.user().id},
    ),
    "slash at the end": ("password", lambda cloud: {"OS_AUTH_URL": f"{cloud.url}/v3/"}),
    "no version": ("password", lambda cloud: {"OS_AUTH_URL": cloud.url}),
    "token": ("token", lambda cloud: {**_NO_PASSWORD, "OS_TOKEN": cloud.token(scoped=False)}),
    "credential": ("application_credential", lambda cloud: _credential(cloud, by_name=False)),
    "credential by name": ("application_credential", lambda cloud: _credential(cloud, by_name=True)),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_login_has_a_token_for_the_project(
    cloud: Simulator, start_client: StartClient, name: str
) -> None:
    """With one call, without version discovery."""
    method, environ = KINDS[name]
    client = start_client(cloud, **environ(cloud))
    assert client.login.access(1).project_id == cloud.project_id
    assert isinstance(client.login, KeystoneLogin)
    assert asked(client.settings.login)["identity"]["methods"] == [method]  # type: ignore[index]
    assert [call.kind for call in cloud.calls] == [CallKind.LOGIN]
    server = cloud.add_server()
    taken = client.nova.stop([server], 5)[server]
    assert isinstance(taken, Taken)
    assert taken.request_id == cloud.actions(server)[0].request_id


@pytest.mark.parametrize(
    "environ",
    [
        {"OS_PASSWORD": "a-Secret"},
        {**_NO_PASSWORD, "OS_TOKEN": "a-Secret"},
        {"OS_APPLICATION_CREDENTIAL_ID": "1", "OS_APPLICATION_CREDENTIAL_SECRET": "a-Secret"},
    ],
    ids=["password", "token", "credential"],
)
@pytest.mark.parametrize("fault", [None, {"status": 500}, {"cut": Cut.AFTER}, {"status": 201, "body": "a-Secret"}])
def test_no_exception_has_a_secret(
    cloud: Simulator, start_client: StartClient, environ: Mapping[str, str], fault: Mapping[str, Any] | None
) -> None:
    """Nor one of its causes, nor the settings."""
    if fault:
        cloud.inject(Fault(**fault, on=CallKind.LOGIN))
    client = start_client(cloud, **environ)
    with pytest.raises(CloudError) as caught:
        client.login.access(1)
    cause: BaseException | None = caught.value
    shown = [repr(client.settings)]
    while cause is not None:
        shown += [str(cause), repr(cause), repr(cause.args)]
        cause = cause.__cause__ or cause.__context__
    assert len(shown) >= 4
    assert "a-Secret" not in "".join(shown)
