"""Handing a result to its sink: once if it is taken, again while that can help, never past the budget."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from handler.errors import Acceptance, SinkUnreachable
from handler.outbound.sink import Sink
from handler.settings.common import SinkSettings
from handler.settings.env import Secret
from tests.cli.conftest import tls
from tests.inbound.webhooks.fake_smn import certificate, new_key
from tests.support.capture import logged
from tests.support.clock import FakeClock
from tests.support.process import free_port
from tests.support.sink_server import Got, Say, SinkServer

__all__ = ["tls"]

HEADERS = {"content-type": "application/json", "ce-id": "result-1"}
BODY = b'{"servers": []}'


class Delivered(NamedTuple):
    """What a sink got of one event, the pauses between the attempts, and the error if it was not taken."""

    got: list[Got]
    slept: list[float]
    error: SinkUnreachable | None

    @property
    def acceptance(self) -> Acceptance | None:
        """Whether the sink has it if it was not taken; None if it was."""
        return self.error.acceptance if self.error else None


def deliver(url: str, *, budget: float = 30.0, once: bool = False, **settings: Any) -> Delivered:
    """Send one event to a sink at a URL."""
    clock = FakeClock(100.0)
    sink = Sink(SinkSettings(url, **settings), once=once, sleep=clock.sleep, monotonic=clock)
    try:
        sink.send(HEADERS, BODY, clock.now + budget)
    except SinkUnreachable as error:
        return Delivered([], clock.slept, error)
    return Delivered([], clock.slept, None)


def delivered(*answers: Say, tls: ssl.SSLContext | None = None, **options: Any) -> Delivered:
    """Send one event to a sink with these answers, which takes everything after them."""
    with SinkServer(*answers, tls=tls) as server:
        found = deliver(server.url, **options)
    return found._replace(got=server.got)


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_a_result_is_delivered_once(status: int) -> None:
    """Any 2xx means that it is taken; headers and body arrive as given, without a token if there is none."""
    (got,), slept, error = delivered(Say(status))
    assert (got.method, got.path, got.body) == ("POST", "/results", BODY)
    assert HEADERS.items() <= got.headers.items()
    assert "authorization" not in got.headers
    assert (slept, error) == ([], None)


def test_the_token_is_sent_along() -> None:
    """As a bearer token, and not in any log line."""
    with logged("DEBUG") as lines:
        got = delivered(Say(503), token=Secret("marked-sink-token")).got
    assert [one.headers["authorization"] for one in got] == ["Bearer marked-sink-token"] * 2
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
    with logged() as lines:
        found = delivered(token_file=str(file), budget=5.0)
    assert "in time" in str(found.error)
    assert (found.got, len(found.slept) > 1) == ([], True)
    assert str(tmp_path) not in lines.text


def test_a_sink_whose_certificate_the_platform_signed_is_trusted(tls: ssl.SSLContext, tmp_path: Path) -> None:
    """And one that another platform signed is not."""
    another = certificate(new_key(), datetime.now(UTC) - timedelta(days=1), host="localhost").decode()
    assert len(delivered(tls=tls, ca=(tmp_path / "cert.pem").read_text()).got) == 1
    refused = delivered(tls=tls, ca=another, budget=1.0)
    assert (refused.got, refused.error is None) == ([], False)


@pytest.mark.parametrize("status", [500, 502, 503, 504, 404, 408, 409, 429])
def test_what_may_pass_is_tried_again(status: int) -> None:
    """Each time with the same id, and with a pause before."""
    got, (first, second), _ = delivered(Say(status), Say(status))
    assert [one.headers["ce-id"] for one in got] == ["result-1"] * 3
    assert 0.1 <= first <= 0.2 <= second <= 0.4


def test_a_cut_connection_is_tried_again() -> None:
    """No answer at all is not a refusal; the log has it without the address."""
    with logged() as lines, SinkServer(Say(0)) as server:
        assert deliver(server.url).error is None
    assert len(server.got) == 2
    (line,) = lines.all
    host = server.url.split("/")[2]
    cause = {"call": "posting the event", "host": host, "status": None, "failure": "connection-lost"}
    assert (line["message"], line["cause"]) == ("the sink did not take the event", cause)
    assert line["event_id"] == "result-1"


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_kept(status: int) -> None:
    """The sink's own wait goes before ours."""
    found = delivered(Say(status, {"Retry-After": "7"}))
    assert (found.slept, len(found.got)) == ([7.0], 2)


@pytest.mark.parametrize("value", ["0", "-1", "soon", "", "Fri, 20 Nov 1926 19:00:00 GMT"])
def test_a_retry_after_of_no_use_leaves_the_own_pauses(value: str) -> None:
    """Zero, the past and what cannot be parsed."""
    found = delivered(*[Say(503, {"Retry-After": value})] * 3)
    assert len(found.got) == 4
    assert all(pause >= 0.1 for pause in found.slept)


@pytest.mark.parametrize(("value", "seconds"), [("31", 31.0), ("9" * 400, 3600.0)])
def test_a_wait_beyond_the_budget_ends_it_at_once(value: str, seconds: float) -> None:
    """There is no use in sleeping then; the sender is informed when to send again: after an hour at most."""
    found = delivered(Say(503, {"Retry-After": value}), budget=30.0)
    assert found.error is not None
    assert (len(found.got), found.slept, found.error.retry_after) == (1, [], seconds)


def test_the_budget_ends() -> None:
    """A sink that never takes it is given up before the deadline, with pauses that grow up to four seconds."""
    found = delivered(*[Say(503)] * 100, budget=30.0)
    assert found.error is not None
    assert found.error.retry_after is None
    assert sum(found.slept) < 30.0
    assert 8 <= len(found.got) <= 20
    assert max(found.slept) <= 4.0


def test_a_spent_budget_sends_nothing() -> None:
    """What is too late is not sent at all."""
    found = delivered(budget=0.0)
    assert (found.got, found.error is None) == ([], False)


@pytest.mark.parametrize("status", [400, 401, 403, 405, 410, 413, 415, 422])
def test_a_refusal_is_final(status: int) -> None:
    """Asking again will not change it; the status is reported, and nothing of the sink's words."""
    found = delivered(Say(status, body=b"marked words"))
    assert (len(found.got), str(found.error)) == (1, f"The sink refuses the event (HTTP {status}).")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(status: int) -> None:
    """The token belongs to the sink that the settings name, and to no other."""
    with SinkServer() as other:
        found = delivered(Say(status, {"Location": other.url}), token=Secret("token"))
    assert (len(found.got), other.got, found.error is None) == (1, [], False)


# --- an event that must not be delivered twice


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
    found = delivered(*[answer] * 100, once=True, budget=2.0)
    assert found.acceptance is acceptance
    assert (len(found.got) > 1, bool(found.slept)) == (repeated, repeated)


@pytest.mark.parametrize("again", [Say(400), Say(429), Say(202)])
def test_what_may_have_been_taken_once_stays_unknown(again: Say) -> None:
    """A later refusal does not take back an earlier attempt; a success settles it."""
    found = delivered(Say(503), *[again] * 100, once=True, budget=2.0)
    assert found.acceptance is (None if again.status == 202 else Acceptance.UNKNOWN)


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


def test_a_refused_connection_is_tried_again_until_the_sink_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was sent, so it cannot come twice."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/"
    found = deliver(url, once=True, budget=2.0)
    assert (found.acceptance, len(found.slept) > 1) == (Acceptance.NOT_TAKEN, True)
    with ExitStack() as stack:
        servers: list[SinkServer] = []
        sleep = FakeClock.sleep

        def start(clock: FakeClock, seconds: float) -> None:
            if not servers:
                servers.append(stack.enter_context(SinkServer(port=port)))
            sleep(clock, seconds)

        monkeypatch.setattr(FakeClock, "sleep", start)
        found = deliver(url, once=True)
        assert (found.error, len(servers[0].got), len(found.slept)) == (None, 1, 1)


def test_without_an_address_or_a_token_nothing_is_sent_and_nothing_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An event that never left has not been taken."""

    def unknown(*_: object) -> object:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with monkeypatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", unknown)
        lost = deliver("http://sink.example/", once=True)
    for found in (lost, delivered(once=True, token_file=str(tmp_path / "none"))):
        assert (found.got, found.slept, found.acceptance) == ([], [], Acceptance.NOT_TAKEN)


@pytest.mark.parametrize(("status", "acceptance"), [(500, Acceptance.UNKNOWN), (404, Acceptance.NOT_TAKEN)])
def test_acceptance_is_known_where_every_transient_error_is_repeated(status: int, acceptance: Acceptance) -> None:
    """As for results."""
    found = delivered(*[Say(status)] * 100, budget=2.0)
    assert (found.acceptance, len(found.got) > 1) == (acceptance, True)


def test_netrc_is_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A password in the home directory is not sent."""
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password marked\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    (got,) = delivered().got
    assert "authorization" not in got.headers
