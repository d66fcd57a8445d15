"""Calls to the cloud: authenticated, limited in time and size, and without redirects."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from handler import __version__, http_client
from handler.cloud.api_client import Http, Reply
from handler.errors import CallDenied, CloudError, CloudUnexpectedAnswer, CloudUnreachable, LoginRefused, StateConflict
from handler.simulator import CallKind, Cut, Fault
from tests.cloud.clients import Client


class Caller:
    """Makes calls of two kinds with one client."""

    def __init__(self, client: Client) -> None:
        self.cloud, self.login, self.http = client.cloud, client.login, client.http
        self.client = client.clouds.client
        self._server = f"{self.cloud.url}/v2.1/servers/{self.cloud.add_server('db-1')}"

    def get(self, timeout: float = 5.0) -> Reply:
        return self.http.send("reading", "GET", self._server, timeout=timeout, headers={"Accept": "application/json"})

    def list(self, *, optional: bool = False) -> Reply:
        url = f"{self.cloud.url}/v2.1/servers/detail"
        return self.http.send("listing", "GET", url, timeout=5, headers={}, optional=optional)

    def inject_401(self, times: int | None = None) -> None:
        self.cloud.inject(Fault(on=CallKind.LIST, status=401, times=times))


@pytest.fixture
def caller(client: Client) -> Caller:
    """A caller with a login that is accepted."""
    return Caller(client)


def test_a_reply_has_the_body_and_the_request_id(caller: Caller) -> None:
    """The request has the program and its version, for the logs of the cloud."""
    reply = caller.get()
    assert reply.json("reading")["server"]["name"] == "db-1"  # type: ignore[index]
    assert reply.request_id is not None
    assert reply.request_id.startswith("req-")
    assert {call.headers["user-agent"].split()[0] for call in caller.cloud.calls} == {f"bms-autostop/{__version__}"}


@pytest.mark.parametrize("body", [b"", b"<html>", b"[1]", b"null", b'"text"', b"\xff", b'{"a": ', b"[" * 100_000])
def test_a_body_that_is_not_a_json_object_is_unexpected(body: bytes) -> None:
    """The error has the call and the request id, and does not quote the body."""
    with pytest.raises(CloudUnexpectedAnswer) as caught:
        Reply({"x-request-id": "req-1"}, body).json("reading")
    assert (str(caught.value), caught.value.request_id) == ("reading: the answer must be a JSON object", "req-1")


def test_a_rejected_token_is_renewed_once(caller: Caller) -> None:
    """The call is repeated with the new one; if that is rejected as well, the login is refused."""
    caller.get()
    caller.cloud.revoke_tokens()
    assert caller.get().body
    assert [call.status for call in caller.cloud.calls] == [201, 200, 401, 201, 200]


def test_a_rejected_new_token_is_a_refused_login(caller: Caller) -> None:
    """A third token is not requested."""
    caller.cloud.inject(Fault.token_expired(CallKind.READ, times=None))
    with pytest.raises(LoginRefused, match="reading: HTTP 401") as caught:
        caller.get()
    assert caught.value.status == 401
    assert caught.value.request_id is not None
    assert [call.status for call in caller.cloud.calls] == [201, 401, 201, 401]


# --- calls that the access rules of an application credential do not include


def test_a_401_for_one_kind_of_call_denies_that_kind_alone(caller: Caller) -> None:
    """One new token is tried, once; other calls are not affected."""
    caller.get()
    caller.inject_401()
    for _ in range(3):
        with pytest.raises(CallDenied, match="HTTP 401, though the token works for other calls") as caught:
            caller.list()
        assert caught.value.status == 401
        assert caller.get().body
    assert caller.cloud.count(CallKind.LOGIN) == 2


def test_a_call_that_was_accepted_once_is_not_denied(caller: Caller) -> None:
    """Access rules do not change: a 401 refuses the login then, unless the call is optional."""
    caller.get()
    caller.inject_401(times=2)
    with pytest.raises(CallDenied):
        caller.list()
    assert caller.list().body
    caller.inject_401(times=4)
    with pytest.raises(CallDenied):
        caller.list(optional=True)
    with pytest.raises(LoginRefused):
        caller.list()


@pytest.mark.parametrize(
    "other", [Fault(on=CallKind.LIST, status=403), Fault(on=CallKind.LIST, status=200, body="<html>")]
)
def test_an_answer_of_a_gateway_does_not_show_that_a_call_is_permitted(caller: Caller, other: Fault) -> None:
    """The 401 that follows must not refuse the login."""
    caller.get()
    caller.cloud.inject(other)
    caller.inject_401()
    with suppress(CallDenied):
        caller.list()
    for _ in range(2):
        with pytest.raises(CallDenied):
            caller.list()
    assert caller.get().body


@pytest.mark.parametrize(("seconds", "kind"), [(59.0, CallDenied), (60.0, LoginRefused)])
def test_a_success_counts_for_a_minute(caller: Caller, seconds: float, kind: type[CloudError]) -> None:
    """After that nothing shows that the token is still accepted."""
    now = 0.0
    caller.http = Http(caller.login, caller.client, lambda: now)
    caller.get()
    caller.inject_401()
    now = seconds
    with pytest.raises(kind):
        caller.list()


def test_many_denied_calls_at_once_cost_few_logins(caller: Caller) -> None:
    """None of them refuses the login."""
    caller.get()
    caller.inject_401()

    def denied(_: int) -> bool:
        try:
            return bool(caller.list())
        except CallDenied:
            return True

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(denied, range(40)))
    assert caller.cloud.count(CallKind.LOGIN) <= 10


def test_an_optional_call_never_refuses_the_login(caller: Caller) -> None:
    """Also if the token was not used before."""
    caller.inject_401()
    with pytest.raises(CallDenied):
        caller.list(optional=True)
    assert caller.get().body


@pytest.mark.parametrize(("status", "accepted"), [(404, True), (403, True), (409, True), (500, False), (302, False)])
def test_an_error_about_the_call_shows_that_a_token_is_accepted(caller: Caller, status: int, accepted: bool) -> None:
    """An internal error of the cloud, or an answer of a gateway, does not."""
    caller.cloud.inject(Fault(on=CallKind.READ, status=status))
    with pytest.raises(CloudError):
        caller.get()
    caller.inject_401()
    with pytest.raises(CallDenied if accepted else LoginRefused):
        caller.list()


def test_a_denied_call_is_tried_again_with_a_renewed_token(caller: Caller) -> None:
    """An expired token is renewed by the next call that is not denied."""
    caller.get()
    caller.inject_401(times=2)
    with pytest.raises(CallDenied):
        caller.list(optional=True)
    caller.cloud.revoke_tokens()
    with pytest.raises(CallDenied):
        caller.list(optional=True)
    assert caller.get().body
    assert caller.list(optional=True).body
    assert caller.cloud.count(CallKind.LOGIN) == 3


# --- errors and limits


def test_an_error_of_the_cloud_is_raised(caller: Caller) -> None:
    """With its status and request id."""
    caller.cloud.inject(Fault(on=CallKind.READ, status=409))
    with pytest.raises(StateConflict) as caught:
        caller.get()
    assert caught.value.status == 409
    assert caught.value.request_id is not None


def test_a_call_without_time_is_not_sent(caller: Caller) -> None:
    """The time includes the login."""
    with pytest.raises(CloudUnreachable, match="out of time before it was sent") as caught:
        caller.get(timeout=0.0)
    assert caught.value.maybe_acted is False
    assert caller.cloud.calls == []
    times = iter([0.0, 0.0, 9.0])
    caller.http = Http(caller.login, caller.client, lambda: next(times))
    with pytest.raises(CloudUnreachable, match="out of time before it was sent"):
        caller.get()
    assert [call.kind for call in caller.cloud.calls] == [CallKind.LOGIN]


@pytest.mark.parametrize(
    ("fault", "shown"),
    [
        (Fault(on=CallKind.READ, delay=5.0), "timeout"),
        (Fault(on=CallKind.READ, slow_body=0.03), "timeout"),
        (Fault(on=CallKind.READ, cut=Cut.MIDWAY), "connection-lost"),
        (Fault(on=CallKind.READ, cut=Cut.AFTER), "connection-lost"),
        (
            Fault(on=CallKind.READ, status=200, body="no gzip", headers={"Content-Encoding": "gzip"}),
            "unexpected-response",
        ),
    ],
)
def test_an_incomplete_answer_is_unreachable(caller: Caller, fault: Fault, shown: str) -> None:
    """None in time, a slow one, one that is cut: the cloud may have acted."""
    caller.login.access(1)
    caller.cloud.inject(fault)
    with pytest.raises(CloudUnreachable, match=f"reading: no answer .{shown}.") as caught:
        caller.get(timeout=0.15)
    assert caught.value.maybe_acted is True


def test_an_answer_has_a_largest_size(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    """It cannot fill the memory."""
    caller.login.access(1)
    monkeypatch.setattr(http_client, "_MAX_BODY", 1000)
    caller.cloud.inject(Fault(on=CallKind.READ, status=200, body=b"x" * 1000))
    assert len(caller.get().body) == 1000
    caller.cloud.inject(Fault(on=CallKind.READ, status=200, body=b"x" * 1001))
    with pytest.raises(CloudUnexpectedAnswer, match=r"^reading: the body must have at most 1000 bytes$") as caught:
        caller.get()
    assert caught.value.maybe_acted is True


def test_after_a_refused_connection_the_cloud_did_not_act(caller: Caller) -> None:
    """Nothing was sent."""
    caller.login.access(1)
    caller.cloud.stop()
    with pytest.raises(CloudUnreachable) as caught:
        caller.get()
    assert caught.value.maybe_acted is False


@pytest.mark.parametrize("fault", [Fault.cut_after(CallKind.READ), Fault(on=CallKind.READ, status=500)])
def test_no_exception_has_the_token(caller: Caller, fault: Fault) -> None:
    """Nor one of its causes."""
    token = caller.login.access(1).token.reveal()
    caller.cloud.inject(fault)
    with pytest.raises(CloudError) as caught:
        caller.get()
    cause: BaseException | None = caught.value
    while cause is not None:
        assert token not in f"{cause}{cause!r}{cause.args}"
        cause = cause.__cause__ or cause.__context__
