"""Posting to a chat over real HTTP: its response decides whether the result is posted, sent again, or refused."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from handler.errors import ChatUnreachable
from handler.outbound.chat.post import Poster
from handler.outbound.chat.route import Target
from handler.settings.env import Secret
from handler.settings.notify_chat import ChatName
from handler.stop.model import Reason
from tests.outbound.chat.reports import document, reported
from tests.support.capture import logged
from tests.support.sink_server import Say, SinkServer

REPORT = reported(Reason.CONFIRMED, Reason.ACCEPTED)
CONNECTORS_429 = (
    b"Webhook message delivery failed with error: Microsoft Teams endpoint returned HTTP error 429 with ..."
)


def post(sink: SinkServer, chat: ChatName = ChatName.SLACK, *, reply: bool = False, seconds: float = 5.0) -> bool:
    """Post a report to a chat that runs here."""
    return Poster().post(REPORT, Target(chat, Secret(f"{sink.url}/very-secret"), reply), seconds)


@pytest.mark.parametrize("chat", ChatName)
def test_each_chat_gets_its_message_as_what_it_is(chat: ChatName) -> None:
    """JSON, or text in UTF-8; once, to the URL unchanged."""
    with SinkServer(Say(200, body=b"ok")) as sink:
        assert post(sink, chat, reply=True) is True
    (got,) = sink.got
    assert (got.method, got.path) == ("POST", "/results/very-secret")
    kind = "text/plain; charset=utf-8" if chat is ChatName.TEXT else "application/json"
    assert got.headers["content-type"] == kind
    shown = got.body.decode() if chat is ChatName.TEXT else json.loads(got.body)
    assert shown == document(chat.value, REPORT, reply=True)


@pytest.mark.parametrize(
    ("chat", "status", "body", "taken"),
    [
        ("slack", 200, b"ok", True),
        ("slack", 200, b'{"ok":true}', True),
        ("slack", 200, b'{"success":true}', True),
        ("slack", 200, b"1", True),
        ("slack", 200, b"[" * 50_000, True),
        ("slack", 202, b"", True),
        ("slack", 204, b"", True),
        # It is not known what receives plain text.
        ("text", 200, b"<html>Thank you</html>", True),
        # Some chats say in the body only that nothing was posted.
        ("teams", 200, b'{"ok":false,"error":"expired_url"}', False),
        ("teams", 200, b'{"success":false,"error":"x"}', False),
        ("teams", 200, CONNECTORS_429.replace(b"429", b"413"), False),
        # Slack's error codes usually come with other statuses.
        *(("slack", 200, word, False) for word in (b"invalid_payload", b"no_text", b"channel_is_archived\n")),
        # A portal that asks for a login answers in place of the chat.
        *((chat.value, 200, b"<!DOCTYPE html><title>Sign in", False) for chat in ChatName if chat is not ChatName.TEXT),
        ("slack", 200, b"\xef\xbb\xbf\r\n <html>", False),
    ],
)
def test_what_a_2xx_means(chat: str, status: int, body: bytes, taken: bool) -> None:
    """The message is posted, unless the body says otherwise."""
    with SinkServer(Say(status, body=body)) as sink:
        assert post(sink, ChatName(chat)) is taken


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 410, 413, 422, 301, 302, 307])
def test_what_means_never(status: int) -> None:
    """The message is wrong, the address is gone, or it leads elsewhere; a redirect is not followed."""
    with SinkServer() as elsewhere, SinkServer(Say(status, {"Location": elsewhere.url})) as sink, logged() as lines:
        assert post(sink) is False
    assert (len(sink.got), elsewhere.got) == (1, [])
    (line,) = lines.of("the chat refuses the message")
    assert (line["chat"], line["status"], line["reply"]) == ("slack", status, False)
    assert "very-secret" not in lines.text


@pytest.mark.parametrize(
    "shown",
    [*(Say(status) for status in (408, 425, 429, 500, 502, 503, 504)), Say(200, body=CONNECTORS_429), Say(0)],
)
def test_what_means_later(shown: Say) -> None:
    """One attempt; the sender of the event sends it again."""
    with SinkServer(shown) as sink, logged() as lines, pytest.raises(ChatUnreachable) as caught:
        post(sink)
    assert len(sink.got) == 1
    assert caught.value.retry_after is None
    assert "very-secret" not in lines.text + str(caught.value)


def test_the_chat_says_when_to_come_again() -> None:
    """As Slack does when it is too much for it."""
    with SinkServer(Say(429, {"Retry-After": "30"})) as sink, pytest.raises(ChatUnreachable) as caught:
        post(sink)
    assert caught.value.retry_after == 30


def test_an_answer_without_end_is_none() -> None:
    """It would fill the memory."""
    with SinkServer(Say(200, body=b"x" * 65537)) as sink, pytest.raises(ChatUnreachable):
        post(sink)


@pytest.fixture
def silent() -> Iterator[str]:
    """A chat that accepts a connection and does not answer."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/very-secret"


def test_a_silent_chat_is_left_in_time(silent: str) -> None:
    """Its time is bounded, and its URL is not in the log."""
    began = time.monotonic()
    with logged() as lines, pytest.raises(ChatUnreachable):
        Poster().post(REPORT, Target(ChatName.SLACK, Secret(silent), False), 0.2)
    assert time.monotonic() - began < 5
    assert "very-secret" not in lines.text
    (line,) = lines.of("the chat gave no answer")
    assert line["cause"]["failure"] == "timeout"


def test_without_time_nothing_is_sent() -> None:
    """A message that cannot be waited for might be posted twice."""
    with SinkServer() as sink, pytest.raises(ChatUnreachable):
        post(sink, seconds=0)
    assert sink.got == []
