"""One exchange with the cloud: authenticated, bounded in time and size, and never led elsewhere."""

from __future__ import annotations

import gzip
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from handler import __version__, http_client
from handler.cloud.api_client import Http, Reply
from handler.errors import CallDenied, CloudError, CloudUnexpectedAnswer, CloudUnreachable, LoginRefused, StateConflict
from handler.simulator import CallKind, Cut, Fault, Simulator
from tests.cloud.clients import Client


@pytest.fixture
def url(cloud: Simulator) -> str:
    """Where a server of the cloud is."""
    return f"{cloud.url}/v2.1/servers/{cloud.add_server('db-1')}"


def _get(client: Client, url: str, timeout: float = 5.0) -> Reply:
    return client.http.send("looking", "GET", url, timeout=timeout, headers={"Accept": "application/json"})


def test_a_good_answer_comes_whole(client: Client, url: str) -> None:
    """With its body and the cloud's id for the request."""
    reply = _get(client, url)
    assert reply.json("looking")["server"]["name"] == "db-1"  # type: ignore[index]
    assert reply.request_id is not None
    assert reply.request_id.startswith("req-")


def test_the_cloud_gets_a_user_agent(cloud: Simulator, client: Client, url: str) -> None:
    """Its operators find the program and its version in their logs."""
    _get(client, url)
    assert {call.headers["user-agent"].split()[0] for call in cloud.calls} == {f"bms-autostop/{__version__}"}


@pytest.mark.parametrize("body", [b"", b"<html>", b"[1]", b"null", b'"text"', b"\xff", b'{"a": ', b"[" * 100_000])
def test_a_body_that_is_not_a_json_object_is_unexpected(body: bytes) -> None:
    """It names the call and carries the request's id, and does not quote what came instead."""
    with pytest.raises(CloudUnexpectedAnswer) as caught:
        Reply({"x-request-id": "req-1"}, body).json("looking")
    assert str(caught.value) == "looking: the answer must be a JSON object"
    assert caught.value.request_id == "req-1"


def test_a_token_that_is_refused_is_renewed_once(cloud: Simulator, client: Client, url: str) -> None:
    """The call is then made again with the new one."""
    _get(client, url)
    cloud.revoke_tokens()
    assert _get(client, url).body
    assert [call.status for call in cloud.calls] == [201, 200, 401, 201, 200]


def test_a_fresh_token_that_is_refused_is_a_refused_login(cloud: Simulator, client: Client, url: str) -> None:
    """A third token would fare no better."""
    cloud.inject(Fault.token_expired(CallKind.READ, times=None))
    with pytest.raises(LoginRefused, match="looking: HTTP 401") as caught:
        _get(client, url)
    assert caught.value.status == 401
    assert caught.value.request_id is not None
    assert [call.status for call in cloud.calls] == [201, 401, 201, 401]


def _list(client: Client, cloud: Simulator, *, optional: bool = True) -> Reply:
    url = f"{cloud.url}/v2.1/servers/detail"
    return client.http.send("listing", "GET", url, timeout=5, headers={}, optional=optional)


def test_a_call_that_a_good_token_may_not_make_is_denied_alone(cloud: Simulator, client: Client, url: str) -> None:
    """Access rules: one new token is tried, once; then the call is known, and nothing else is held up."""
    _get(client, url)
    cloud.inject(Fault(on=CallKind.LIST, status=401, times=None))
    for _ in range(3):
        with pytest.raises(CallDenied, match="HTTP 401, though the token works for other calls") as caught:
            _list(client, cloud, optional=False)
        assert caught.value.status == 401
        assert _get(client, url).body
    assert cloud.count(CallKind.LOGIN) == 2


def test_a_call_that_was_accepted_once_is_not_denied_by_access_rules(
    cloud: Simulator, client: Client, url: str
) -> None:
    """They cannot be changed: a 401 then refuses the login, unless there is another way to learn the same."""
    _get(client, url)
    cloud.inject(Fault(on=CallKind.LIST, status=401, times=2))
    with pytest.raises(CallDenied):
        _list(client, cloud, optional=False)
    assert _list(client, cloud, optional=False).body
    cloud.inject(Fault(on=CallKind.LIST, status=401, times=4))
    with pytest.raises(CallDenied):
        _list(client, cloud)
    with pytest.raises(LoginRefused):
        _list(client, cloud, optional=False)


@pytest.mark.parametrize(
    "other", [Fault(on=CallKind.LIST, status=403), Fault(on=CallKind.LIST, status=200, body="<html>")]
)
def test_an_answer_of_something_before_the_cloud_does_not_show_that_access_rules_include_a_call(
    cloud: Simulator, client: Client, url: str, other: Fault
) -> None:
    """A gateway may have answered; the 401 that follows must not refuse the login for good."""
    _get(client, url)
    cloud.inject(other)
    cloud.inject(Fault(on=CallKind.LIST, status=401, times=None))
    with suppress(CallDenied):
        _list(client, cloud, optional=False)
    for _ in range(2):
        with pytest.raises(CallDenied):
            _list(client, cloud, optional=False)
    assert _get(client, url).body


def test_a_login_whose_last_success_is_long_ago_is_refused(cloud: Simulator, client: Client, url: str) -> None:
    """Nothing shows any more that its tokens are good for anything."""
    now = 0.0
    http = Http(client.login, client.clouds.client, lambda: now)
    http.send("looking", "GET", url, timeout=5, headers={})
    cloud.inject(Fault(on=CallKind.LIST, status=401, times=None))
    for now, kind in ((59.0, CallDenied), (60.0, LoginRefused)):
        http = Http(client.login, client.clouds.client, lambda: 0.0)
        http.send("looking", "GET", url, timeout=5, headers={})
        http._monotonic = lambda now=now: now  # type: ignore[misc]
        with pytest.raises(kind):
            http.send("listing", "GET", f"{cloud.url}/v2.1/servers/detail", timeout=5, headers={})


def test_many_denied_calls_at_once_cost_few_logins_and_refuse_none(cloud: Simulator, client: Client, url: str) -> None:
    """Whichever of them is the first to know."""
    _get(client, url)
    cloud.inject(Fault(on=CallKind.LIST, status=401, times=None))

    def denied(_: int) -> bool:
        try:
            return bool(_list(client, cloud, optional=False))
        except CallDenied:
            return True

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(denied, range(40)))
    assert cloud.count(CallKind.LOGIN) <= 10


def test_a_list_never_refuses_a_login_that_was_not_used_yet(cloud: Simulator, client: Client, url: str) -> None:
    """What can be learnt by other calls says nothing of them: they decide."""
    cloud.inject(Fault(on=CallKind.LIST, status=401, times=None))
    with pytest.raises(CallDenied):
        _list(client, cloud)
    assert _get(client, url).body


@pytest.mark.parametrize(("status", "accepted"), [(404, True), (403, True), (409, True), (500, False), (302, False)])
def test_only_an_answer_about_the_call_shows_that_a_token_is_accepted(
    cloud: Simulator, client: Client, url: str, status: int, accepted: bool
) -> None:
    """An error inside the cloud, or of something before it, does not."""
    cloud.inject(Fault(on=CallKind.READ, status=status))
    with pytest.raises(CloudError):
        _get(client, url)
    cloud.inject(Fault(on=CallKind.LIST, status=401, times=None))
    with pytest.raises(CallDenied if accepted else LoginRefused):
        _list(client, cloud, optional=False)


def test_a_denied_call_is_tried_with_the_token_that_another_call_has_renewed(
    cloud: Simulator, client: Client, url: str
) -> None:
    """The known denial hides that the token has expired, until the next call that is not denied."""
    _get(client, url)
    cloud.inject(Fault(on=CallKind.LIST, status=401, times=2))
    with pytest.raises(CallDenied):
        _list(client, cloud)
    cloud.revoke_tokens()
    with pytest.raises(CallDenied):
        _list(client, cloud)
    assert _get(client, url).body
    assert _list(client, cloud).body
    assert cloud.count(CallKind.LOGIN) == 3


def test_an_error_of_the_cloud_is_raised(cloud: Simulator, client: Client, url: str) -> None:
    """With status and request id."""
    cloud.inject(Fault(on=CallKind.READ, status=409))
    with pytest.raises(StateConflict) as caught:
        _get(client, url)
    assert caught.value.status == 409
    assert caught.value.request_id is not None


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
def test_a_redirect_is_an_error_and_not_a_way(cloud: Simulator, client: Client, url: str, status: int) -> None:
    """The token would be shown to the server there."""
    cloud.inject(Fault(on=CallKind.READ, status=status, headers={"Location": f"{cloud.url}/elsewhere"}))
    with pytest.raises(CloudUnexpectedAnswer, match=f"HTTP {status}"):
        _get(client, url)
    assert not [call for call in cloud.calls if "elsewhere" in call.path]


def test_a_call_without_time_is_not_made(cloud: Simulator, client: Client, url: str) -> None:
    """Nothing reaches the cloud, so nothing can have been done."""
    with pytest.raises(CloudUnreachable, match="out of time before it was sent") as caught:
        _get(client, url, timeout=0.0)
    assert caught.value.maybe_acted is False
    assert cloud.calls == []


def test_the_time_for_a_call_includes_its_login(cloud: Simulator, client: Client, url: str) -> None:
    """A login that used it up leaves none for the call."""
    times = iter([0.0, 0.0, 9.0])
    http = Http(client.login, client.clouds.client, lambda: next(times))
    with pytest.raises(CloudUnreachable, match="out of time before it was sent"):
        http.send("looking", "GET", url, timeout=5.0, headers={})
    assert [call.kind for call in cloud.calls] == [CallKind.LOGIN]


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
def test_an_answer_that_does_not_come_whole_in_time_is_none(
    cloud: Simulator, client: Client, url: str, fault: Fault, shown: str
) -> None:
    """Silence, dripping, and lines cut in any place: the cloud may have acted all the same."""
    client.login.access(1)
    cloud.inject(fault)
    with pytest.raises(CloudUnreachable, match=f"looking: no answer .{shown}.") as caught:
        _get(client, url, timeout=0.15)
    assert caught.value.maybe_acted is True


def test_an_answer_without_end_is_cut_off(
    cloud: Simulator, client: Client, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It cannot fill the memory."""
    client.login.access(1)
    monkeypatch.setattr(http_client, "_MAX_BODY", 1000)
    cloud.inject(Fault(on=CallKind.READ, status=200, body=b"x" * 1000))
    assert len(_get(client, url).body) == 1000
    cloud.inject(Fault(on=CallKind.READ, status=200, body=b"x" * 1001))
    with pytest.raises(CloudUnexpectedAnswer, match=r"^looking: the body must have at most 1000 bytes$") as caught:
        _get(client, url)
    assert caught.value.maybe_acted is True


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [("gzip, gzip", "the body must have one content encoding"), ("gzip", "the body must have at most 16777216 bytes")],
)
def test_an_answer_that_unpacks_too_far_is_unexpected(
    cloud: Simulator, client: Client, url: str, encoding: str, shown: str
) -> None:
    """64 MiB in 64 KiB, or in less by two encodings: the memory that it takes stays bounded."""
    client.login.access(1)
    body = gzip.compress(bytes(64 * 1024 * 1024))
    body = gzip.compress(body) if "," in encoding else body
    cloud.inject(Fault(on=CallKind.READ, status=200, body=body, headers={"Content-Encoding": encoding}))
    tracemalloc.start()
    try:
        with pytest.raises(CloudUnexpectedAnswer, match=f"looking: {shown}") as caught:
            _get(client, url, timeout=30.0)
        assert tracemalloc.get_traced_memory()[1] < 48 * 1024 * 1024
    finally:
        tracemalloc.stop()
    assert caught.value.maybe_acted is True


def test_a_closed_port_is_not_a_cloud(cloud: Simulator, client: Client, url: str) -> None:
    """Nothing was done there."""
    client.login.access(1)
    cloud.stop()
    with pytest.raises(CloudUnreachable) as caught:
        _get(client, url)
    assert caught.value.maybe_acted is False


def test_no_exception_speaks_of_the_token(cloud: Simulator, client: Client, url: str) -> None:
    """As deep as its causes go."""
    token = client.login.access(1).token
    cloud.inject(Fault.cut_after(CallKind.READ))
    cloud.inject(Fault(on=CallKind.READ, status=500))
    for _ in range(2):
        with pytest.raises(CloudError) as caught:
            _get(client, url)
        cause: BaseException | None = caught.value
        while cause is not None:
            assert token not in f"{cause}{cause!r}{cause.args}"
            cause = cause.__cause__ or cause.__context__
