"""Every fault that can be put into the simulated cloud does what it says, and no more."""

import http.client
from typing import Any

import pytest

from handler.simulator import CallKind, ConflictKind, Cut, Fault, Simulator
from tests.simulator.conftest import Ask
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


def test_a_fault_strikes_once_by_default(cloud: Simulator, read: Ask) -> None:
    """Then the cloud is as before, and the fault is gone from the list."""
    fault = cloud.inject(Fault(on=CallKind.READ, status=500))
    assert cloud.faults == [fault]
    assert [read().status for _ in range(2)] == [500, 200]
    assert cloud.faults == []


def test_a_fault_can_strike_several_times_or_until_taken_away(cloud: Simulator, read: Ask) -> None:
    """`times` counts, and None does not end."""
    cloud.inject(Fault(on=CallKind.READ, status=500, times=2))
    cloud.inject(Fault(on=CallKind.READ, status=503, times=None))
    assert [read().status for _ in range(5)] == [500, 500, 503, 503, 503]
    cloud.clear_faults()
    assert read().status == 200


def test_a_fault_can_let_calls_through_first(cloud: Simulator, read: Ask) -> None:
    """Past itself only: a fault behind it may strike them."""
    cloud.inject(Fault(on=CallKind.READ, status=500, skip=1))
    assert [read().status for _ in range(3)] == [200, 500, 200]
    cloud.inject(Fault(on=CallKind.READ, status=500, skip=1))
    cloud.inject(Fault(on=CallKind.READ, status=503))
    assert [read().status for _ in range(3)] == [503, 500, 200]


def test_the_same_fault_can_be_put_in_twice(cloud: Simulator, read: Ask) -> None:
    """They count apart."""
    fault = Fault(on=CallKind.READ, status=500)
    cloud.inject(fault)
    cloud.inject(fault)
    assert [read().status for _ in range(3)] == [500, 500, 200]


def test_a_fault_can_be_about_one_server(cloud: Simulator, read: Ask, stop: Ask, server_id: str) -> None:
    """And is always about one kind of call."""
    cloud.inject(Fault(on=CallKind.STOP, server_id=server_id, status=500))
    assert read().status == 200
    assert stop(cloud.add_server()).status == 202
    assert stop(server_id).status == 500


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
        (CallKind.OTHER, "DELETE", "/v2.1/servers/x"),
        (CallKind.OTHER, "POST", "/v2.1/servers/x/action"),
        (CallKind.OTHER, "GET", "/v2.1/flavors"),
        (CallKind.OTHER, "GET", "/v3/auth/tokens"),
    ],
)
def test_calls_are_distinguished_by_method_and_path(
    cloud: Simulator, ask: Ask, kind: Any, method: str, path: str
) -> None:
    """And a fault on one kind meets no other."""
    cloud.inject(Fault(on=kind, status=418))
    assert ask(method, path, b"{}" if method == "POST" else None).status == 418
    assert [call.kind for call in cloud.calls] == [kind]


@pytest.mark.parametrize(
    ("status", "key"),
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
def test_a_status_brings_novas_error_body_along(
    cloud: Simulator, stop: Ask, server_id: str, status: int, key: Any
) -> None:
    """In the microversion that was asked for, and the cloud has done nothing."""
    cloud.inject(Fault(on=CallKind.STOP, status=status, message="about {id}"))
    answer = stop(server_id, X_OpenStack_Nova_API_Version="2.26")
    assert (answer.status, answer.header("OpenStack-API-Version")) == (status, "compute 2.26")
    assert answer.json() == {key: {"code": status, "message": f"about {server_id}"}}
    assert cloud.server(server_id).vm_state == "active"


def test_a_status_without_a_message_has_its_phrase(cloud: Simulator, read: Ask) -> None:
    """Also in answer to a microversion that is none."""
    cloud.inject(Fault(on=CallKind.READ, status=503, times=2))
    assert read().message == "Service Unavailable"
    assert read(OpenStack_API_Version="compute banana").header("OpenStack-API-Version") == "compute 2.1"


def test_a_401_of_a_fault_is_that_of_the_layer_before_nova(cloud: Simulator, read: Ask) -> None:
    """With its challenge; the token stays good."""
    cloud.inject(Fault(on=CallKind.READ, status=401))
    answer = read()
    assert answer.header("WWW-Authenticate") == f'Keystone uri="{cloud.url}"'
    assert answer.header("OpenStack-API-Version") is None
    assert read().status == 200


@pytest.mark.parametrize(("status", "title"), [(401, "Unauthorized"), (429, "Too Many Requests")])
def test_a_fault_on_a_login_has_keystones_form(cloud: Simulator, ask: Ask, status: int, title: str) -> None:
    """Reason phrase in capitals and all."""
    cloud.inject(Fault(on=CallKind.LOGIN, status=status))
    answer = ask("POST", "/v3/auth/tokens", {}, token=None)
    assert (answer.status, answer.reason) == (status, title.upper())
    assert (answer.json()["error"]["code"], answer.json()["error"]["title"]) == (status, title)


@pytest.mark.parametrize("kind", list(ConflictKind))
def test_each_conflict_of_nova_can_be_had_without_its_state(
    cloud: Simulator, stop: Ask, server_id: str, kind: Any
) -> None:
    """In Nova's words, with the server's id in them."""
    cloud.inject(Fault.conflict(kind))
    answer = stop(server_id)
    assert (answer.status, answer.message) == (409, kind.replace("{id}", server_id))
    assert cloud.server(server_id).vm_state == "active"


@pytest.mark.parametrize(("retry_after", "shown"), [(2, "2"), ("Wed, 01 Jan 2025 00:00:00 GMT", None), (None, None)])
def test_a_throttled_call_gets_a_time_to_wait(cloud: Simulator, read: Ask, retry_after: Any, shown: Any) -> None:
    """In the header, and once more in the body; or not at all."""
    cloud.inject(Fault.throttled(CallKind.READ, retry_after))
    answer = read()
    assert answer.status == 429
    expected = None if retry_after is None else str(retry_after)
    assert answer.header("Retry-After") == answer.json()["overLimit"].get("retryAfter") == expected
    assert shown in (None, expected)


@pytest.mark.parametrize(("act", "vm_state"), [(False, "active"), (True, "stopped")])
@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_gateway_answers_with_a_page(
    cloud: Simulator, stop: Ask, server_id: str, status: int, act: Any, vm_state: str
) -> None:
    """Without Nova's headers; the cloud behind it may have acted."""
    cloud.inject(Fault.gateway(CallKind.STOP, status, act=act))
    answer = stop(server_id)
    assert answer.status == status
    assert answer.names == ["Content-Length", "Content-Type"]
    assert answer.header("Content-Type") == "text/html"
    assert f"<h1>{status} ".encode() in answer.body
    assert cloud.server(server_id).vm_state == vm_state
    assert cloud.stops_taken(server_id) == act
    assert cloud.calls[-1].status == status


def test_an_answer_can_be_any_bytes(cloud: Simulator, read: Ask) -> None:
    """Of any type, and with more headers."""
    fault = Fault(on=CallKind.READ, status=200, body=b"\xff{", content_type="application/json", headers={"X-Odd": "1"})
    cloud.inject(fault)
    answer = read()
    assert (answer.status, answer.body, answer.header("X-Odd")) == (200, b"\xff{", "1")


def test_a_good_answer_can_have_another_status(cloud: Simulator, stop: Ask, server_id: str) -> None:
    """Some clouds say 200 or 204 to a stop where Nova says 202."""
    cloud.inject(Fault(on=CallKind.STOP, status=204, act=True))
    answer = stop(server_id)
    assert (answer.status, answer.body) == (204, b"")
    assert cloud.stops_taken(server_id) == 1


def test_headers_can_be_added_to_a_true_answer(cloud: Simulator, read: Ask) -> None:
    """Without a status, the rest of it stays."""
    cloud.inject(Fault(on=CallKind.READ, headers={"X-Odd": "1"}))
    answer = read()
    assert (answer.status, answer.header("X-Odd")) == (200, "1")


def test_two_stops_at_once_can_end_in_an_error_of_nova(cloud: Simulator, stop: Ask, server_id: str) -> None:
    """500 for us, while the stop of another user is taken."""
    cloud.change(server_id, power_off_delay=60)
    cloud.inject(Fault.two_stops_at_once())
    answer = stop(server_id)
    assert answer.status == 500
    assert answer.json() == {
        "computeFault": {
            "code": 500,
            "message": "Unexpected API Error. Please contact the administrator\n"
            "<class 'nova.exception.UnexpectedTaskStateError'>",
        }
    }
    assert cloud.server(server_id).task_state == "powering-off"
    assert cloud.actions(server_id)[0].user_id == "another-user"
    assert cloud.stops_taken(server_id) == 0


def test_a_rival_can_be_first(cloud: Simulator, stop: Ask, server_id: str) -> None:
    """Without a status of its own, the call then meets what the rival made; one too late does no harm."""
    cloud.inject(Fault(on=CallKind.STOP, rival=True, times=2))
    for _ in range(2):
        assert stop(server_id).message.endswith("while it is in vm_state stopped")
    assert [action.action for action in cloud.actions(server_id)] == ["stop", "create"]


def test_keystone_can_be_away_for_nova(cloud: Simulator, stop: Ask, server_id: str) -> None:
    """503 in plain text, under a request id."""
    cloud.inject(Fault.keystone_down(CallKind.STOP))
    answer = stop(server_id)
    assert (answer.status, answer.reason) == (503, "Service Unavailable")
    assert answer.names == [
        "Content-Length",
        "Content-Type",
        "x-openstack-request-id",
        "x-compute-request-id",
    ]
    assert answer.header("Content-Length") == "148"
    assert answer.header("Content-Type") == "text/plain; charset=UTF-8"
    assert answer.header("x-openstack-request-id").startswith("req-")


def test_a_token_can_expire_in_the_middle(cloud: Simulator, read: Ask) -> None:
    """Nova refuses it from then on, and takes a new one."""
    cloud.inject(Fault.token_expired(CallKind.READ))
    assert [read().status, read().status, read(token=cloud.token()).status] == [401, 401, 200]


def test_a_connection_cut_before_leaves_no_trace_but_the_call(cloud: Simulator, stop: Ask, server_id: str) -> None:
    """The cloud has not acted."""
    cloud.inject(Fault.cut_before(CallKind.STOP))
    with pytest.raises(NO_ANSWER):
        stop(server_id)
    assert cloud.server(server_id).vm_state == "active"
    assert (cloud.stops_sent(server_id), cloud.stops_taken(server_id)) == (1, 0)
    assert (cloud.calls[-1].status, cloud.calls[-1].acted) == (None, False)


def test_a_connection_cut_after_hides_that_the_cloud_has_acted(cloud: Simulator, stop: Ask, server_id: str) -> None:
    """The stop was taken, and the client does not know."""
    cloud.inject(Fault.cut_after(CallKind.STOP))
    with pytest.raises(NO_ANSWER):
        stop(server_id)
    assert cloud.server(server_id).vm_state == "stopped"
    assert (cloud.calls[-1].status, cloud.calls[-1].acted) == (None, True)


def test_a_connection_cut_midway_gives_half_of_the_body(cloud: Simulator, read: Ask) -> None:
    """Under the full length, so that the client notices."""
    cloud.inject(Fault(on=CallKind.READ, cut=Cut.MIDWAY))
    with pytest.raises(http.client.IncompleteRead) as caught:
        read()
    assert caught.value.partial.startswith(b'{"server": {')
    assert len(caught.value.partial) == pytest.approx(caught.value.expected, abs=1)


def test_a_slow_body_comes_in_the_end(cloud: Simulator, read: Ask) -> None:
    """Byte by byte; the pauses are real time."""
    cloud.inject(Fault(on=CallKind.READ, slow_body=0.00001))
    assert read().json()["server"]["name"] == "db-1"


def test_a_delay_is_before_the_act(cloud: Simulator, stop: Ask, server_id: str) -> None:
    """A client that gives up sees a server as it was."""
    cloud.inject(Fault(on=CallKind.STOP, delay=60))
    with pytest.raises(TimeoutError):
        stop(server_id, timeout=0.05)
    assert cloud.server(server_id).vm_state == "active"
    assert cloud.stops_sent(server_id) == 1


def test_an_answer_held_back_is_after_the_act(cloud: Simulator, stop: Ask, server_id: str) -> None:
    """A client that gives up sees a server that is off."""
    cloud.inject(Fault(on=CallKind.STOP, hold=60))
    with pytest.raises(TimeoutError):
        stop(server_id, timeout=0.05)
    assert cloud.server(server_id).vm_state == "stopped"
    assert cloud.stops_taken(server_id) == 1


def test_a_short_delay_ends_in_a_true_answer(cloud: Simulator, stop: Ask, server_id: str) -> None:
    """Late is not lost."""
    cloud.inject(Fault(on=CallKind.STOP, delay=0.001, hold=0.001))
    assert stop(server_id).status == 202


def test_the_record_of_calls_has_what_a_test_looks_for(
    cloud: Simulator, stop: Ask, read: Ask, server_id: str, clock: FakeClock, ask: Ask
) -> None:
    """Kind, path, server, status, time, act, headers and body, but neither token nor password."""
    clock.advance(3)
    stop(server_id, {}, X_OpenStack_Nova_API_Version="2.26")
    call = cloud.calls[0]
    assert (call.kind, call.method, call.path) == ("stop", "POST", f"/v2.1/servers/{server_id}/action")
    assert (call.server_id, call.status, call.at, call.acted) == (server_id, 202, clock.now, True)
    assert call.headers["x-openstack-nova-api-version"] == "2.26"
    assert call.body == b'{"os-stop": {}}'
    ask("POST", "/v3/auth/tokens", {"auth": {"identity": {"password": "secret"}}})
    assert all("x-auth-token" not in call.headers for call in cloud.calls)
    assert cloud.calls[-1].body == b""
    read()
    assert cloud.count(CallKind.READ) == cloud.count("read", server_id) == 1
    assert cloud.count("read", "another") == 0
