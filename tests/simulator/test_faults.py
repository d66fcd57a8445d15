"""Every fault that can be injected has the effect that its name and fields state, and no other."""

import http.client
import time
from typing import Any

import pytest

from handler.simulator import CallKind, ConflictKind, Cut, Fault, Simulator
from tests.simulator.conftest import NOVA_IDS, Ask
from tests.support.clock import FakeClock

NO_ANSWER = (http.client.RemoteDisconnected, ConnectionResetError)


@pytest.fixture
def server_id(cloud: Simulator) -> str:
    """A server."""
    return cloud.add_server("db-1")


@pytest.fixture
def read(ask: Ask, server_id: str) -> Ask:
    """Read that server."""
    return lambda **more: ask("GET", f"/v2.1/servers/{server_id}", **more)


@pytest.mark.parametrize(
    ("faults", "statuses"),
    [
        ([{"status": 500}], [500, 200]),
        ([{"status": 500, "times": 2}, {"status": 503, "times": None}], [500, 500, 503, 503]),
        ([{"status": 500, "skip": 1}], [200, 500, 200]),
        # What one fault skips may be answered by the next.
        ([{"status": 500, "skip": 1}, {"status": 503}], [503, 500, 200]),
        ([{"status": 500}, {"status": 500}], [500, 500, 200]),
        # It is always about one kind of call.
        ([{"status": 500, "on": CallKind.STOP}], [200]),
    ],
)
def test_a_fault_is_applied_to_some_calls_of_a_kind(cloud: Simulator, read: Ask, faults: Any, statuses: Any) -> None:
    """To one by default; then it is removed."""
    injected = [cloud.inject(Fault(**{"on": CallKind.READ, **fault})) for fault in faults]
    assert cloud.faults == injected
    assert [read().status for _ in statuses] == statuses
    assert cloud.faults == [fault for fault in injected if fault.times is None or fault.on is CallKind.STOP]
    cloud.clear_faults()
    assert (cloud.faults, read().status) == ([], 200)


@pytest.mark.parametrize(
    ("kind", "method", "path"),
    [
        (CallKind.LOGIN, "POST", "/v3/auth/tokens"),
        (CallKind.REVOKE, "DELETE", "/v3/auth/tokens"),
        (CallKind.VERSION, "GET", "/"),
        (CallKind.VERSION, "GET", "/v3/"),
        (CallKind.VERSION, "GET", "/v2.1/"),
        (CallKind.LIST, "GET", "/v2.1/servers"),
        (CallKind.LIST, "GET", "/v2.1/servers/detail?limit=1"),
        (CallKind.READ, "GET", "/v2.1/servers/x"),
        (CallKind.ACTIONS, "GET", "/v2.1/servers/x/os-instance-actions"),
        (CallKind.ACTIONS, "GET", "/v2/servers/x/os-instance-actions/req-1"),
        (CallKind.METADATA, "POST", "/v2.1/servers/x/metadata"),
        (CallKind.OTHER, "DELETE", "/v2.1/servers/x"),
        (CallKind.OTHER, "POST", "/v2.1/servers/x/action"),
        (CallKind.OTHER, "GET", "/v2.1/flavors"),
        (CallKind.OTHER, "GET", "/v2.10/servers"),
        (CallKind.OTHER, "GET", "/v3/auth/tokens"),
    ],
)
def test_the_kind_of_a_call_depends_on_method_and_path(
    cloud: Simulator, ask: Ask, kind: CallKind, method: str, path: str
) -> None:
    """A fault on one kind is applied to no other."""
    cloud.inject(Fault(on=kind, status=418))
    assert ask(method, path, b"{}" if method == "POST" else None).status == 418
    assert [call.kind for call in cloud.calls] == [kind]


@pytest.mark.parametrize(
    ("status", "name"),
    [
        (400, "badRequest"),
        (403, "forbidden"),
        (404, "itemNotFound"),
        (409, "conflictingRequest"),
        (413, "overLimit"),
        (429, "overLimit"),
        (500, "computeFault"),
        (502, "computeFault"),
        (503, "serviceUnavailable"),
    ],
)
def test_a_status_has_the_error_body_of_nova(
    cloud: Simulator, stop: Ask, server_id: str, status: int, name: str
) -> None:
    """In the microversion that was asked for, and the cloud has not acted."""
    cloud.inject(Fault(on=CallKind.STOP, status=status, message="about {id}"))
    answer = stop(server_id, X_OpenStack_Nova_API_Version="2.26")
    assert answer.refusal == (status, name, f"about {server_id}")
    assert answer.header("OpenStack-API-Version") == "compute 2.26"
    assert cloud.server(server_id).vm_state == "active"


def test_a_status_without_a_message_has_its_phrase(cloud: Simulator, read: Ask) -> None:
    """Also in answer to a malformed microversion; any status can be answered, also one that HTTP does not know."""
    cloud.inject(Fault(on=CallKind.READ, status=503, times=2))
    assert read().message == "Service Unavailable"
    assert read(OpenStack_API_Version="compute banana").header("OpenStack-API-Version") == "compute 2.1"
    cloud.inject(Fault(on=CallKind.READ, status=599))
    answer = read()
    assert (answer.status, answer.reason, answer.message) == (599, "Unknown", "Unknown")
    # A 401 is that of the layer before Nova; the token stays valid.
    cloud.inject(Fault(on=CallKind.READ, status=401))
    answer = read()
    assert answer.header("WWW-Authenticate") == f'Keystone uri="{cloud.url}"'
    assert (answer.header("OpenStack-API-Version"), read().status) == (None, 200)


@pytest.mark.parametrize(
    ("fault", "title"),
    [
        (Fault(on=CallKind.LOGIN, status=401), "Unauthorized"),
        (Fault.throttled(CallKind.LOGIN, retry_after=7), "Too Many Requests"),
    ],
)
def test_a_fault_on_a_login_has_the_form_of_keystone(cloud: Simulator, ask: Ask, fault: Fault, title: str) -> None:
    """With the reason phrase in upper case."""
    cloud.inject(fault)
    answer = ask("POST", "/v3/auth/tokens", {}, token=None)
    assert (answer.status, answer.reason) == (fault.status, title.upper())
    assert answer.header("Retry-After") == fault.headers.get("Retry-After")
    assert (answer.json()["error"]["code"], answer.json()["error"]["title"]) == (fault.status, title)


@pytest.mark.parametrize("kind", list(ConflictKind))
def test_each_conflict_of_nova_can_be_injected(cloud: Simulator, stop: Ask, server_id: str, kind: ConflictKind) -> None:
    """In any state of the server, with its id in Nova's message."""
    cloud.inject(Fault.conflict(kind))
    assert stop(server_id).refusal == (409, "conflictingRequest", kind.replace("{id}", server_id))
    assert cloud.server(server_id).vm_state == "active"


@pytest.mark.parametrize("retry_after", [2, "Wed, 01 Jan 2025 00:00:00 GMT", None])
def test_a_throttled_call_can_have_a_time_to_wait(cloud: Simulator, read: Ask, retry_after: Any) -> None:
    """In the header, and once more in the body; or not at all."""
    cloud.inject(Fault.throttled(CallKind.READ, retry_after))
    answer = read()
    expected = None if retry_after is None else str(retry_after)
    assert (answer.status, answer.header("Retry-After")) == (429, expected)
    assert answer.json()["overLimit"].get("retryAfter") == expected


@pytest.mark.parametrize(("act", "vm_state"), [(False, "active"), (True, "stopped")])
@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_gateway_answers_with_a_page(
    cloud: Simulator, stop: Ask, server_id: str, status: int, act: bool, vm_state: str
) -> None:
    """Without Nova's headers; the cloud behind it may have acted."""
    cloud.inject(Fault.gateway(CallKind.STOP, status, act=act))
    answer = stop(server_id)
    assert (answer.status, answer.names) == (status, ["Content-Length", "Content-Type"])
    assert answer.header("Content-Type") == "text/html"
    assert f"<h1>{status} ".encode() in answer.body
    assert (cloud.server(server_id).vm_state, cloud.stops_taken(server_id)) == (vm_state, act)
    assert cloud.calls[-1].status == status


@pytest.mark.parametrize("more", [{"status": 200, "body": b"\xff{", "content_type": "application/json"}, {}], ids=str)
def test_body_type_and_headers_can_be_any(cloud: Simulator, read: Ask, more: Any) -> None:
    """Without a status, the rest of the answer is the usual one."""
    cloud.inject(Fault(on=CallKind.READ, headers={"X-Odd": "1", "Date": "now"}, **more))
    answer = read()
    assert (answer.status, answer.header("Content-Type")) == (200, "application/json")
    assert [value for name, value in answer.headers if name in ("X-Odd", "Date")] == ["1", "now"]
    assert answer.body == more["body"] if more else answer.json()["server"]["name"] == "db-1"


def test_an_accepted_stop_can_have_another_status(cloud: Simulator, stop: Ask, server_id: str) -> None:
    """Some clouds answer 200 or 204 where Nova answers 202."""
    cloud.inject(Fault(on=CallKind.STOP, status=204, act=True))
    answer = stop(server_id)
    assert (answer.status, answer.body, cloud.stops_taken(server_id)) == (204, b"", 1)


def test_two_stops_at_once_can_end_in_an_error_of_nova(cloud: Simulator, stop: Ask, server_id: str) -> None:
    """500 for one, while the stop of another user is accepted."""
    cloud.change(server_id, power_off_delay=60)
    cloud.inject(Fault.two_stops_at_once())
    message = (
        "Unexpected API Error. Please contact the administrator\n<class 'nova.exception.UnexpectedTaskStateError'>"
    )
    assert stop(server_id).refusal == (500, "computeFault", message)
    assert (cloud.server(server_id).task_state, cloud.stops_taken(server_id)) == ("powering-off", 0)
    assert cloud.actions(server_id)[0].user_id == "another-user"


def test_another_user_can_be_first(cloud: Simulator, stop: Ask, server_id: str) -> None:
    """Without a status of the fault, the answer is that of the new state; a second stop is refused."""
    cloud.inject(Fault(on=CallKind.STOP, rival=True, times=2))
    for _ in range(2):
        assert stop(server_id).message.endswith("while it is in vm_state stopped")
    assert [action.action for action in cloud.actions(server_id)] == ["stop", "create"]


def test_keystone_can_be_down_for_nova(cloud: Simulator, stop: Ask, server_id: str) -> None:
    """503 in plain text, under a request id."""
    cloud.inject(Fault.keystone_down(CallKind.STOP))
    answer = stop(server_id)
    assert (answer.status, answer.reason) == (503, "Service Unavailable")
    assert answer.names == ["Content-Length", "Content-Type", *NOVA_IDS]
    assert (answer.header("Content-Length"), answer.header("Content-Type")) == ("148", "text/plain; charset=UTF-8")
    assert answer.header("x-openstack-request-id").startswith("req-")


def test_a_token_can_expire_at_a_call(cloud: Simulator, read: Ask) -> None:
    """Nova refuses it from then on, and accepts a new one."""
    cloud.inject(Fault.token_expired(CallKind.READ))
    assert [read().status, read().status, read(token=cloud.token()).status] == [401, 401, 200]


@pytest.mark.parametrize(
    ("fault", "error", "vm_state"),
    [
        (Fault.cut_before(CallKind.STOP), NO_ANSWER, "active"),
        (Fault.cut_after(CallKind.STOP), NO_ANSWER, "stopped"),
        (Fault(on=CallKind.STOP, delay=60), TimeoutError, "active"),
        (Fault(on=CallKind.STOP, hold=60), TimeoutError, "stopped"),
    ],
    ids=["cut before", "cut after", "delay", "hold"],
)
def test_a_call_without_an_answer_may_have_acted(
    cloud: Simulator, stop: Ask, server_id: str, fault: Fault, error: Any, vm_state: str
) -> None:
    """The client does not know; the record of calls does."""
    cloud.inject(fault)
    with pytest.raises(error):
        stop(server_id, timeout=5 if fault.cut else 0.05)
    acted = vm_state == "stopped"
    # The client has given up after 50 ms, within which a loaded machine may not have acted.
    limit = time.monotonic() + 60
    while time.monotonic() < limit and not (cloud.calls and cloud.calls[-1].acted >= acted):
        time.sleep(0.001)
    assert cloud.server(server_id).vm_state == vm_state
    assert (cloud.stops_sent(server_id), cloud.stops_taken(server_id)) == (1, acted)
    assert (cloud.calls[-1].status, cloud.calls[-1].acted) == (None, acted)


def test_a_connection_cut_midway_gives_half_of_the_body(cloud: Simulator, read: Ask) -> None:
    """With the full length in the header, so that the client notices."""
    cloud.inject(Fault(on=CallKind.READ, cut=Cut.MIDWAY))
    with pytest.raises(http.client.IncompleteRead) as caught:
        read()
    assert caught.value.partial.startswith(b'{"server": {')
    assert len(caught.value.partial) == pytest.approx(caught.value.expected, abs=1)


@pytest.mark.parametrize("slow", [{"slow_body": 0.00001}, {"delay": 0.001, "hold": 0.001}], ids=str)
def test_a_late_answer_is_complete(cloud: Simulator, read: Ask, slow: Any) -> None:
    """A slow body comes byte by byte; the pauses are real time."""
    cloud.inject(Fault(on=CallKind.READ, **slow))
    assert read().json()["server"]["name"] == "db-1"


def test_a_call_is_recorded(cloud: Simulator, stop: Ask, read: Ask, server_id: str, clock: FakeClock, ask: Ask) -> None:
    """Kind, path, server, status, time, act, headers and body, but neither token nor password."""
    clock.advance(3)
    stop(server_id, {}, X_OpenStack_Nova_API_Version="2.26")
    call = cloud.calls[0]
    assert (call.kind, call.method, call.path) == ("stop", "POST", f"/v2.1/servers/{server_id}/action")
    assert (call.server_id, call.status, call.at, call.acted) == (server_id, 202, clock.now, True)
    assert (call.headers["x-openstack-nova-api-version"], call.body) == ("2.26", b'{"os-stop": {}}')
    ask("POST", "/v3/auth/tokens", {"auth": {"identity": {"password": "secret"}}})
    assert all("x-auth-token" not in call.headers for call in cloud.calls)
    assert cloud.calls[-1].body == b""
    read()
    assert cloud.count(CallKind.READ) == cloud.count("read", server_id) == 1
    assert cloud.count("read", "another") == 0
