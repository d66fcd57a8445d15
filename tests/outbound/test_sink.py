"""Handing a result to its sink: once if it is taken, again while that can help, never past the budget."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from handler.errors import Acceptance, SinkUnreachable
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
    """No answer at all is not a refusal; the log has it without the address."""
    with SinkServer(Say(0)) as server, logged() as lines:
        hand_over(server.url, FakeClock(100.0))
    assert len(server.got) == 2
    (line,) = lines.all
    host = server.url.split("/")[2]
    cause = {"call": "posting the event", "host": host, "status": None, "failure": "connection-lost"}
    assert (line["message"], line["cause"]) == ("the sink did not take the event", cause)
    assert line["event_id"] == "result-1"


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_kept(status: int) -> None:
    """The sink's own wait goes before ours."""
    clock = FakeClock(100.0)
    with SinkServer(Say(status, {"Retry-After": "7"})) as server:
        hand_over(server.url, clock)
    assert (clock.slept, len(server.got)) == ([7.0], 2)


@pytest.mark.parametrize("value", ["0", "-1", "soon", "", "Fri, 20 Nov 1926 19:00:00 GMT"])
def test_a_strange_retry_after_makes_no_hammer(value: str) -> None:
    """Zero, the past and what cannot be parsed leave the own pauses as they are."""
    clock = FakeClock(100.0)
    with SinkServer(*[Say(503, {"Retry-After": value})] * 3) as server:
        hand_over(server.url, clock)
    assert len(server.got) == 4
    assert all(pause >= 0.1 for pause in clock.slept)


def test_an_absurd_wait_is_cut() -> None:
    """The sender waits for an hour at most."""
    with SinkServer(Say(503, {"Retry-After": "9" * 400})) as server, pytest.raises(SinkUnreachable) as raised:
        hand_over(server.url, FakeClock(100.0))
    assert raised.value.retry_after == 3600.0


def test_a_wait_beyond_the_budget_ends_it_at_once() -> None:
    """There is no use in sleeping then; the sender is informed when to send again."""
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
    """Asking again will not change it; the status is reported, and nothing of the sink's words."""
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
    """A port without a listener is tried until the budget ends."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    clock = FakeClock(100.0)
    with pytest.raises(SinkUnreachable):
        hand_over(f"http://127.0.0.1:{port}/", clock, budget=2.0)
    assert clock.slept


# --- an event that must not be delivered twice


def hand_over_once(url: str, clock: FakeClock, **settings: Any) -> Acceptance | None:
    """Send one event to a sink; None if it was taken, else what is known of it."""
    sink = Sink(SinkSettings(url, **settings), once=True, sleep=clock.sleep, monotonic=clock)
    try:
        sink.send(HEADERS, BODY, clock.now + 2.0)
    except SinkUnreachable as error:
        return error.acceptance
    return None


@pytest.mark.parametrize(
    ("answer", "acceptance", "repeated"),
    [
        (Say(202), None, False),
        (Say(429), Acceptance.NOT_TAKEN, True),
        (Say(503), Acceptance.UNKNOWN, True),
        *((Say(status), Acceptance.NOT_TAKEN, False) for status in (400, 401, 404, 408, 409)),
        *((Say(status), Acceptance.UNKNOWN, False) for status in (302, 303, 500, 502, 504)),
        (Say(0), Acceptance.UNKNOWN, False),
    ],
)
def test_an_event_that_must_not_come_twice_is_repeated_only_if_it_was_not_taken(
    answer: Say, acceptance: Acceptance | None, repeated: bool
) -> None:
    """What a proxy or a sink answered otherwise may come from behind a sink that has the event."""
    clock = FakeClock(100.0)
    with SinkServer(*[answer] * 100) as server:
        assert hand_over_once(server.url, clock) is acceptance
    assert (len(server.got) > 1) is repeated
    assert bool(clock.slept) is repeated


@pytest.mark.parametrize("again", [Say(400), Say(429), Say(202)])
def test_what_may_have_been_taken_once_stays_unknown(again: Say) -> None:
    """A later refusal does not take back an earlier attempt; a success settles it."""
    with SinkServer(Say(503), *[again] * 100) as server:
        acceptance = hand_over_once(server.url, FakeClock(100.0))
    assert acceptance is (None if again.status == 202 else Acceptance.UNKNOWN)


def test_a_slow_sink_gets_an_event_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be at work on it: nothing is known before it answers."""
    monkeypatch.setattr("handler.outbound.sink._ATTEMPT_TIMEOUT", 0.1)
    release = threading.Event()
    with SinkServer(Say(202, after=release)) as server:
        sink = Sink(SinkSettings(server.url), once=True)
        with pytest.raises(SinkUnreachable, match="no answer") as raised:
            sink.send(HEADERS, BODY, time.monotonic() + 1.0)
        server.wait(1)
        release.set()
    assert raised.value.acceptance is Acceptance.UNKNOWN
    assert len(server.got) == 1


def test_a_refused_connection_is_tried_again_until_the_sink_listens() -> None:
    """Nothing was sent, so it cannot come twice."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    clock = FakeClock(100.0)
    assert hand_over_once(f"http://127.0.0.1:{port}/", clock) is Acceptance.NOT_TAKEN
    assert len(clock.slept) > 1
    with ExitStack() as stack:

        class Starting(FakeClock):
            """Time in whose first pause the sink starts."""

            def sleep(self, seconds: float) -> None:
                """Start the sink."""
                if not self.slept:
                    self.server = stack.enter_context(SinkServer(port=port))
                super().sleep(seconds)

        starting = Starting()
        assert hand_over_once(f"http://127.0.0.1:{port}/", starting) is None
        assert (len(starting.server.got), len(starting.slept)) == (1, 1)


def test_without_an_address_or_a_token_nothing_is_sent_and_nothing_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An event that never left has not been taken."""

    def unknown(*_: object) -> object:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    clock = FakeClock(100.0)
    with monkeypatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", unknown)
        assert hand_over_once("http://sink.example/", clock) is Acceptance.NOT_TAKEN
    with SinkServer() as server:
        assert hand_over_once(server.url, clock, token_file=str(tmp_path / "none")) is Acceptance.NOT_TAKEN
    assert (server.got, clock.slept) == ([], [])


def test_what_is_repeated_as_often_as_it_helps_tells_the_same() -> None:
    """The sink of results gets another attempt after every transient error; `acceptance` is known there too."""
    for answer, acceptance in ((Say(500), Acceptance.UNKNOWN), (Say(404), Acceptance.NOT_TAKEN)):
        with SinkServer(*[answer] * 100) as server, pytest.raises(SinkUnreachable) as raised:
            hand_over(server.url, FakeClock(100.0), budget=2.0)
        assert raised.value.acceptance is acceptance
        assert len(server.got) > 1


def test_netrc_is_not_observed_at(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A password in the home directory is not sent."""
    netrc = tmp_path_factory.mktemp("home") / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password marked\n")
    monkeypatch.setenv("NETRC", str(netrc))
    with SinkServer() as server:
        hand_over(server.url, FakeClock(100.0))
    assert "authorization" not in server.got[0].headers
