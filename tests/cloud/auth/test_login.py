"""One login for the whole process: shared, renewed in time, and never a hammer."""

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


def _all_at_once(client: Client, count: int = 20) -> list[object]:
    """What `access` brings to `count` threads that begin at the same moment: a token, or an exception."""
    gate = threading.Barrier(count)

    def ask(_: int) -> object:
        gate.wait()
        try:
            return client.login.access(10).token
        except CloudError as error:
            return error

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(ask, range(count)))


def test_a_token_is_kept_for_the_next_call(cloud: Simulator, client: Client) -> None:
    """One login serves many."""
    assert len({client.login.access(1).token for _ in range(3)}) == 1
    assert cloud.count(CallKind.LOGIN) == 1


def test_threads_that_need_a_token_at_once_share_one_login(cloud: Simulator, client: Client) -> None:
    """All twenty get the same token."""
    cloud.inject(Fault(on=CallKind.LOGIN, delay=0.05))
    (token,) = set(_all_at_once(client))
    assert isinstance(token, str)
    assert cloud.count(CallKind.LOGIN) == 1


@pytest.mark.parametrize(
    ("fault", "kind"),
    [({"status": 401}, LoginRefused), ({"status": 500}, CloudFault), ({"cut": Cut.BEFORE}, CloudUnreachable)],
)
def test_threads_that_wait_for_a_login_share_its_failure(
    cloud: Simulator, client: Client, fault: Mapping[str, Any], kind: type[CloudError]
) -> None:
    """Nobody tries again for himself."""
    cloud.inject(Fault(**fault, on=CallKind.LOGIN, delay=0.05, times=None))
    assert {type(brought) for brought in _all_at_once(client)} == {kind}
    assert cloud.count(CallKind.LOGIN) == 1


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
def test_a_failed_login_is_not_tried_again_for_a_while(
    cloud: Simulator, client: Client, fault: Mapping[str, Any], kind: type[CloudError], hold: float
) -> None:
    """Until then every caller gets the same error; then one try is made, and its success ends the matter."""
    cloud.inject(Fault(**fault, on=CallKind.LOGIN))
    for passed in (0.0, hold / 2, hold * 0.49):
        client.clock.now += passed
        with pytest.raises(CloudError) as caught:
            client.login.access(1)
        assert type(caught.value) is kind
    assert cloud.count(CallKind.LOGIN) == 1
    client.clock.now += hold * 0.02
    assert client.login.access(1).token == client.login.access(1).token
    assert cloud.count(CallKind.LOGIN) == 2


def test_a_refusal_that_lasts_costs_one_login_a_minute(cloud: Simulator, start_client: StartClient) -> None:
    """Ten minutes of an event each second, with a wrong password."""
    client = start_client(cloud, OS_PASSWORD="wrong")
    for _ in range(600):
        with pytest.raises(LoginRefused):
            client.login.access(1)
        client.clock.now += 1
    assert cloud.count(CallKind.LOGIN) == 10


@pytest.mark.parametrize(("life", "renewed_after"), [(86400, 86280), (3600, 3480), (600, 480), (100, 80), (5, 4)])
def test_a_token_is_renewed_before_it_ends(start_client: StartClient, life: float, renewed_after: float) -> None:
    """Two minutes before, or with a fifth of its life left if that is less."""
    with Simulator(token_ttl=life) as cloud:
        client = start_client(cloud)
        first = client.login.access(1).token
        client.clock.now += renewed_after - 0.1
        assert client.login.access(1).token == first
        client.clock.now += 0.1
        assert client.login.access(1).token != first
        assert cloud.count(CallKind.LOGIN) == 2


@pytest.mark.parametrize("hours", [-30, -1, 1, 30])
def test_a_clock_that_is_off_does_not_cost_a_login_per_call(start_client: StartClient, hours: float) -> None:
    """A token's life is measured by the cloud's own two times, not against ours."""
    with Simulator(clock=lambda: time.time() + hours * 3600) as cloud:
        client = start_client(cloud)
        assert len({client.login.access(1).token for _ in range(3)}) == 1
        assert cloud.count(CallKind.LOGIN) == 1


def test_a_refused_token_is_dropped_once(cloud: Simulator, client: Client) -> None:
    """Who comes later with the same old token does not drop the new one."""
    old = client.login.access(1)
    client.login.drop(old, 1)
    new = client.login.access(1)
    client.login.drop(old, 1)
    assert client.login.access(1) is new
    assert new.token != old.token
    assert cloud.count(CallKind.LOGIN) == 2


def test_waiting_for_another_callers_login_has_an_end(cloud: Simulator, client: Client) -> None:
    """A caller with less time than that login takes gets an error, and does not begin another."""
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
        pytest.param({"status": 201, "body": "<html>"}, id="no json"),
        pytest.param({"status": 200, "body": "[]"}, id="a list"),
        pytest.param({"status": 201, "body": '{"token": null}', "headers": {"X-Subject-Token": "t"}}, id="null"),
        pytest.param({"status": 201, "body": '{"token": {}}', "headers": {"X-Subject-Token": "t"}}, id="no times"),
        pytest.param(
            {
                "status": 201,
                "body": '{"token": {"expires_at": "never", "issued_at": "now"}}',
                "headers": {"X-Subject-Token": "t"},
            },
            id="no readable times",
        ),
        pytest.param({"status": 201, "body": '{"token": {"expires_at": ""}}'}, id="no header"),
        pytest.param(
            {
                "status": 201,
                "body": '{"token": {"expires_at": "2026-11-24T12:00:00Z", "issued_at": "2026-11-24T11:00:00Z",'
                ' "catalog": ["compute"]}}',
                "headers": {"X-Subject-Token": "t"},
            },
            id="no readable catalogue",
        ),
        pytest.param({"status": 302, "headers": {"Location": "/v3/elsewhere"}}, id="redirect"),
        pytest.param({"status": 308, "headers": {"Location": "/v3/elsewhere"}}, id="permanent redirect"),
    ],
)
def test_what_is_not_a_token_is_refused(cloud: Simulator, client: Client, fault: Mapping[str, Any]) -> None:
    """It is reported as such and not stored, and no redirect takes the password elsewhere."""
    cloud.inject(Fault(**fault, on=CallKind.LOGIN))
    with pytest.raises(CloudUnexpectedAnswer, match=r"logging in: (no usable answer|HTTP 30)"):
        client.login.access(1)
    assert {call.path for call in cloud.calls} == {"/v3/auth/tokens"}
    client.clock.now += 1
    assert client.login.access(1).project_id == cloud.project_id


# --- the kinds of login ---

_NO_PASSWORD = {"OS_USERNAME": "", "OS_PASSWORD": "", "OS_USER_DOMAIN_NAME": ""}


def _by_token(cloud: Simulator) -> Mapping[str, str]:
    return {**_NO_PASSWORD, "OS_TOKEN": cloud.token(scoped=False)}


def _by_credential_id(cloud: Simulator) -> Mapping[str, str]:
    id_, secret = cloud.add_application_credential()
    return {
        **_NO_PASSWORD,
        "OS_PROJECT_NAME": "",
        "OS_PROJECT_DOMAIN_NAME": "",
        "OS_APPLICATION_CREDENTIAL_ID": id_,
        "OS_APPLICATION_CREDENTIAL_SECRET": secret,
    }


def _by_credential_name(cloud: Simulator) -> Mapping[str, str]:
    _, secret = cloud.add_application_credential("night")
    return {
        "OS_PASSWORD": "",
        "OS_APPLICATION_CREDENTIAL_NAME": "night",
        "OS_APPLICATION_CREDENTIAL_SECRET": secret,
    }


@pytest.mark.parametrize(
    ("environ", "method"),
    [
        pytest.param(lambda _: {}, "password", id="password"),
        pytest.param(
            lambda cloud: {"OS_PROJECT_NAME": "", "OS_PROJECT_ID": cloud.project_id}, "password", id="project id"
        ),
        pytest.param(
            lambda cloud: {"OS_USERNAME": "", "OS_USER_DOMAIN_NAME": "", "OS_USER_ID": cloud.user().id},
            "password",
            id="user id",
        ),
        pytest.param(lambda cloud: {"OS_AUTH_URL": f"{cloud.url}/v3/"}, "password", id="slash at the end"),
        pytest.param(lambda cloud: {"OS_AUTH_URL": cloud.url}, "password", id="no version"),
        pytest.param(_by_token, "token", id="token"),
        pytest.param(_by_credential_id, "application_credential", id="credential"),
        pytest.param(_by_credential_name, "application_credential", id="credential by name"),
    ],
)
def test_every_kind_of_login_brings_a_token_for_the_project(
    cloud: Simulator,
    start_client: StartClient,
    environ: Callable[[Simulator], Mapping[str, str]],
    method: str,
) -> None:
    """With one call each: no version is looked for first."""
    client = start_client(cloud, **environ(cloud))
    access = client.login.access(1)
    assert access.project_id == cloud.project_id
    assert isinstance(client.login, KeystoneLogin)
    assert asked(client.settings.login)["identity"]["methods"] == [method]  # type: ignore[index]
    assert [call.kind for call in cloud.calls] == [CallKind.LOGIN]
    server = cloud.add_server()
    taken = client.nova.stop([server], 5)[server]
    assert isinstance(taken, Taken)
    assert taken.request_id == cloud.actions(server)[0].request_id


@pytest.mark.parametrize(
    ("environ", "secret"),
    [
        ({"OS_PASSWORD": "a-Secret-word"}, "a-Secret-word"),
        ({**_NO_PASSWORD, "OS_TOKEN": "a-Secret-token"}, "a-Secret-token"),
        (
            {"OS_APPLICATION_CREDENTIAL_ID": "1", "OS_APPLICATION_CREDENTIAL_SECRET": "a-Secret-of-it"},
            "a-Secret-of-it",
        ),
    ],
)
@pytest.mark.parametrize("fault", [None, {"status": 500}, {"cut": Cut.AFTER}, {"status": 201, "body": "a-Secret"}])
def test_no_exception_speaks_of_a_secret(
    cloud: Simulator,
    start_client: StartClient,
    environ: Mapping[str, str],
    secret: str,
    fault: Mapping[str, Any] | None,
) -> None:
    """Neither its text nor its parts, nor those of what caused it, as deep as it goes."""
    if fault:
        cloud.inject(Fault(**fault, on=CallKind.LOGIN))
    client = start_client(cloud, **environ)
    with pytest.raises(CloudError) as caught:
        client.login.access(1)
    cause: BaseException | None = caught.value
    reported = [repr(client.settings)]
    while cause is not None:
        reported += [str(cause), repr(cause), repr(cause.args)]
        cause = cause.__cause__ or cause.__context__
    assert len(reported) >= 4
    assert secret not in "".join(reported)
