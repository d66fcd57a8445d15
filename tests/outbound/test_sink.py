"""Handing a result to its sink: once if it is taken, again while that can help, never past the budget."""

from __future__ import annotations

import socket
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from handler.errors import SinkUnreachable
from handler.outbound.sink import Sink
from handler.settings.common import SinkSettings
from handler.settings.env import Secret
from tests.inbound.webhooks.vendor import as_pem, certificate, new_key
from tests.support.capture import logged
from tests.support.clock import FakeClock
from tests.support.sink_server import Say, SinkServer

HEADERS = {"content-type": "application/json", "ce-id": "result-1"}
BODY = b'{"servers": []}'


def hand_over(
    url: str, clock: FakeClock, *, token: str = "", budget: float = 30.0, token_file: str = "", ca: str = ""
) -> None:
    """Send one result to a sink."""
    sink = Sink(SinkSettings(url, Secret(token), token_file, ca), sleep=clock.sleep, monotonic=clock)
    sink.send(HEADERS, BODY, clock.now + budget)


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_a_result_is_delivered_once(status: int) -> None:
    """Any 2xx means that it is taken; headers and body arrive as given, without a token if there is none."""
    clock = FakeClock(100.0)
    with SinkServer(Say(status)) as server:
        hand_over(server.url, clock)
    (got,) = server.got
    assert (got.method, got.path, got.body) == ("POST", "/results", BODY)
    assert HEADERS.items() <= got.headers.items()
    assert "authorization" not in got.headers
    assert clock.slept == []


def test_the_token_is_sent_along() -> None:
    """As a bearer token, and not in any log line."""
    with SinkServer(Say(503)) as server, logged("DEBUG") as lines:
        hand_over(server.url, FakeClock(100.0), token="marked-sink-token")
    assert [got.headers["authorization"] for got in server.got] == ["Bearer marked-sink-token"] * 2
    assert "marked" not in lines.text


def test_a_token_in_a_file_is_read_each_time(tmp_path: Path) -> None:
    """Kubernetes puts a new one there before the old one ends."""
    file = tmp_path / "token"
    clock = FakeClock(100.0)
    file.write_text("first\n")
    with SinkServer(Say(503)) as server:
        sink = Sink(SinkSettings(server.url, token_file=str(file)), sleep=clock.sleep, monotonic=clock)
        sink.send(HEADERS, BODY, clock.now + 30)
        file.write_text("second")
        sink.send(HEADERS, BODY, clock.now + 30)
    assert [got.headers["authorization"] for got in server.got] == ["Bearer first", "Bearer first", "Bearer second"]


@pytest.mark.parametrize("content", [None, "", "two\nlines", "\x00", "é"])
def test_without_a_token_in_its_file_nothing_is_sent(tmp_path: Path, content: str | None) -> None:
    """It may be written just now, so it is tried again; the sink never sees an event without its token."""
    file = tmp_path / "token"
    if content is not None:
        file.write_text(content)
    clock = FakeClock(100.0)
    with SinkServer() as server, logged() as lines, pytest.raises(SinkUnreachable, match="in time"):
        hand_over(server.url, clock, token_file=str(file), budget=5.0)
    assert server.got == []
    assert len(clock.slept) > 1
    assert str(tmp_path) not in lines.text


def test_a_sink_whose_certificate_the_platform_signed_is_trusted(tmp_path: Path) -> None:
    """And one that another platform signed is not."""
    key, stranger = new_key(), new_key()
    since = datetime.now(UTC) - timedelta(days=1)
    pem = certificate(key, since, host="localhost")
    (tmp_path / "cert.pem").write_bytes(pem)
    (tmp_path / "key.pem").write_bytes(as_pem(key))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    with SinkServer(tls=context) as server:
        hand_over(server.url, FakeClock(100.0), ca=pem.decode())
        with pytest.raises(SinkUnreachable):
            hand_over(
                server.url, FakeClock(100.0), ca=certificate(stranger, since, host="localhost").decode(), budget=1.0
            )
        assert len(server.got) == 1


@pytest.mark.parametrize("status", [500, 502, 503, 504, 404, 408, 409, 429])
def test_what_may_pass_is_tried_again(status: int) -> None:
    """Each time with the same id, and with a pause before."""
    clock = FakeClock(100.0)
    with SinkServer(Say(status), Say(status)) as server:
        hand_over(server.url, clock)
    assert [got.headers["ce-id"] for got in server.got] == ["result-1"] * 3
    assert len(clock.slept) == 2
    assert 0.1 <= clock.slept[0] <= 0.2
    assert 0.2 <= clock.slept[1] <= 0.4


def test_a_cut_connection_is_tried_again() -> None:
    """No answer at all is no refusal; the log says so without the address."""
    with SinkServer(Say(0)) as server, logged() as lines:
        hand_over(server.url, FakeClock(100.0))
    assert len(server.got) == 2
    (line,) = lines.all
    assert (line["message"], line["detail"]) == ("the sink gave no answer", "ProtocolError")


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_kept(status: int) -> None:
    """The sink's own wait goes before ours."""
    clock = FakeClock(100.0)
    with SinkServer(Say(status, {"Retry-After": "7"})) as server:
        hand_over(server.url, clock)
    assert (clock.slept, len(server.got)) == ([7.0], 2)


@pytest.mark.parametrize("value", ["0", "-1", "soon", "", "Fri, 20 Nov 1926 19:00:00 GMT"])
def test_a_strange_retry_after_makes_no_hammer(value: str) -> None:
    """Zero, the past and what nobody can read leave the own pauses as they are."""
    clock = FakeClock(100.0)
    with SinkServer(*[Say(503, {"Retry-After": value})] * 3) as server:
        hand_over(server.url, clock)
    assert len(server.got) == 4
    assert all(pause >= 0.1 for pause in clock.slept)


def test_an_absurd_wait_is_cut() -> None:
    """What the sender is told is an hour at most."""
    with SinkServer(Say(503, {"Retry-After": "9" * 400})) as server, pytest.raises(SinkUnreachable) as raised:
        hand_over(server.url, FakeClock(100.0))
    assert raised.value.retry_after == 3600.0


def test_a_wait_beyond_the_budget_ends_it_at_once() -> None:
    """There is no use in sleeping then; the sender is told when to come back."""
    clock = FakeClock(100.0)
    with SinkServer(Say(503, {"Retry-After": "31"})) as server, pytest.raises(SinkUnreachable) as raised:
        hand_over(server.url, clock, budget=30.0)
    assert (len(server.got), clock.slept, raised.value.retry_after) == (1, [], 31.0)


def test_the_budget_ends() -> None:
    """A sink that never takes it is given up before the deadline, with pauses that grow up to four seconds."""
    clock = FakeClock(100.0)
    with SinkServer(*[Say(503)] * 100) as server, pytest.raises(SinkUnreachable) as raised:
        hand_over(server.url, clock, budget=30.0)
    assert raised.value.retry_after is None
    assert sum(clock.slept) < 30.0
    assert 8 <= len(server.got) <= 20
    assert max(clock.slept) <= 4.0


def test_a_spent_budget_sends_nothing() -> None:
    """What is too late is not sent at all."""
    with SinkServer() as server, pytest.raises(SinkUnreachable):
        hand_over(server.url, FakeClock(100.0), budget=0.0)
    assert server.got == []


@pytest.mark.parametrize("status", [400, 401, 403, 405, 410, 413, 415, 422])
def test_a_refusal_is_final(status: int) -> None:
    """Asking again will not change it; the status is told, and nothing of the sink's words."""
    with SinkServer(Say(status, body=b"marked words")) as server, pytest.raises(SinkUnreachable) as raised:
        hand_over(server.url, FakeClock(100.0))
    assert len(server.got) == 1
    assert str(raised.value) == f"The sink refuses the event (HTTP {status})."


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(status: int) -> None:
    """The token belongs to the sink that the settings name, and to no other."""
    with SinkServer() as other:
        elsewhere = Say(status, {"Location": other.url})
        with SinkServer(elsewhere) as server, pytest.raises(SinkUnreachable):
            hand_over(server.url, FakeClock(100.0), token="token")
    assert (len(server.got), other.got) == (1, [])


def test_no_sink_at_all_is_unreachable() -> None:
    """A port on which nobody listens is tried until the budget ends."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    clock = FakeClock(100.0)
    with pytest.raises(SinkUnreachable):
        hand_over(f"http://127.0.0.1:{port}/", clock, budget=2.0)
    assert clock.slept


def test_netrc_is_not_observed_at(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A password that lies around in the home directory is sent to nobody."""
    netrc = tmp_path_factory.mktemp("home") / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password marked\n")
    monkeypatch.setenv("NETRC", str(netrc))
    with SinkServer() as server:
        hand_over(server.url, FakeClock(100.0))
    assert "authorization" not in server.got[0].headers
