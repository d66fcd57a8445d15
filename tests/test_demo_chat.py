"""The demo of a chat: it shows the real functions, and notices by itself when something comes out otherwise."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import pytest

from handler import demo_chat as module
from handler import demo_desk
from handler.demo import CI_07, CI_08, WIRE
from handler.demo_chat import Keys, Scene, demo_chat, scenes
from handler.demo_desk import Desk, desk
from tests.conftest import serving
from tests.outbound.chat.reports import CHATS, sampled
from tests.support.sink_server import Say, SinkServer


def test_the_demo_shows_both_answers_and_ends_well(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three real processes; neither the settings nor the proxy of the person who runs it get in the way."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("AUTOSTOP_NO_SUCH_THING", "1")
    assert demo_chat() == 0
    out = capsys.readouterr().out
    for words in (
        "at once  HTTP 200: Understood: stop 3 servers",
        "as an answer to the command:\n           │ Asked to stop: 3 servers, of which 1 skipped, 1 stopped",
        "at once  HTTP 401: The signature is missing or wrong.",
        "in the channel:\n           │ Asked to stop: 1 server, of which 1 stopped.",
        f"│ • ci-08 ({CI_08})",
        "ci-10   active   stops sent: 0",
        "Everything came out as expected.",
    ):
        assert words in out


@pytest.fixture
def in_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The functions run in this process, which is faster."""
    with serving(monkeypatch) as serve:

        @contextmanager
        def function(target: str, environ: Mapping[str, str]) -> Iterator[str]:
            yield serve(target, environ)

        monkeypatch.setattr(module, "function", function)
        yield


def play(monkeypatch: pytest.MonkeyPatch, change: Callable[[tuple[Scene, ...]], tuple[Scene, ...]]) -> tuple[int, str]:
    """Run the demo with other scenes, on a terminal that knows ASCII only; gives the code and what was printed."""
    monkeypatch.setattr(module, "scenes", lambda chat, keys: change(scenes(chat, keys)))
    monkeypatch.setattr(sys, "stdout", stdout := io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    code = demo_chat()
    stdout.seek(0)
    return code, stdout.read()


@pytest.mark.usefixtures("in_threads")
def test_the_demo_fails_if_something_comes_out_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both answers of a scene are judged, and every server."""
    fleet = {**module._FLEET, CI_07: ("ci-07", "active", "runs", 2)}
    monkeypatch.setattr(module, "_FLEET", fleet)
    code, out = play(
        monkeypatch,
        lambda made: (
            replace(made[0], status=201, told_at="/elsewhere", message=("Nothing like that.",)),
            replace(made[1], says="Welcome"),
        ),
    )
    told = out.partition("Not as expected:")[2]
    assert code == 1
    for words in (
        "/slack: HTTP 200 (Understood",
        "instead of 201",
        "/slack: told at /commands/T0001/1/demo instead of /elsewhere",
        "/slack: the chat does not show: Nothing like that.",
        "instead of 401 (Welcome)",
        "ci-07: 1 stops were sent to it instead of 2",
    ):
        assert words in told
    assert "Everything came out" not in out


@pytest.mark.usefixtures("in_threads")
def test_a_chat_that_is_told_nothing_or_too_much_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence is waited for, but not for ever; a message that nobody expects is none that may pass."""
    monkeypatch.setattr(Desk.posted, "__defaults__", (0.05,))
    code, out = play(monkeypatch, lambda made: (replace(made[1], told_at="/commands/T0001/1/demo"),))
    assert code == 1
    assert "/slack: the chat was told nothing" in out
    monkeypatch.setattr(module, "_show_fleet", lambda _: [])
    monkeypatch.setattr(module, "_play", lambda _scene, _url, around: around.take("/services/ops", {}, b"{}") or [])
    code, out = play(monkeypatch, lambda made: made[:1])
    assert code == 1
    assert "the chat was told more than once" in out


def test_when_it_is_interrupted_everything_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C is no crash; what was started is ended before it returns."""
    running: list[str] = []

    @contextmanager
    def function(target: str, _: Mapping[str, str]) -> Iterator[str]:
        running.append(target)
        try:
            yield "http://127.0.0.1:9/"
        finally:
            running.remove(target)

    def interrupted(*_: object) -> list[str]:
        assert running == ["notify_chat", "stop_servers", "receive_webhook"]
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "function", function)
    monkeypatch.setattr(module, "_play", interrupted)
    assert demo_chat() == 130
    assert running == []


def test_the_secrets_are_others_in_each_run() -> None:
    """None is written down anywhere."""
    one, two = Keys(), Keys()
    assert len({one.slack, one.alertmanager, one.inside, two.slack, two.alertmanager, two.inside}) == 6


# --- the chat and the broker around it


@pytest.fixture
def around() -> Iterator[Desk]:
    """A chat and a broker."""
    with desk() as made:
        yield made


def test_the_chat_shows_what_slack_would(around: Desk) -> None:
    """Entities are characters again, bold is not shown as stars."""
    answer = WIRE.post(f"{around.url}/services/x", data=CHATS["slack"].message(sampled("completed"), False), timeout=10)
    posted = around.posted()
    assert answer.status_code == 200
    assert posted is not None
    assert posted.path == "/services/x"
    assert posted.lines[0].startswith("Asked to stop: ")
    assert "" not in posted.lines[:2]
    assert not any("*" in line or "&amp;" in line for line in posted.lines)


def test_the_broker_answers_at_once_and_delivers_until_it_is_taken(around: Desk) -> None:
    """With what proves the sender, and the event's attributes."""
    with SinkServer(Say(503), Say(204)) as sink:
        around.deliver_to = sink.url
        headers = {"ce-id": "7", "Authorization": "Bearer t", "X-Other": "x"}
        assert WIRE.post(f"{around.url}/broker", data=b"body", headers=headers, timeout=10).status_code == 202
        around._deliver(headers, b"again")
    assert b"again" in [got.body for got in sink.got]
    last = sink.got[-1].headers
    assert (last["ce-id"], last["authorization"]) == ("7", "Bearer t")
    assert "x-other" not in last
    assert around.undelivered == []


def test_the_broker_tells_what_it_could_not_deliver(around: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal at once, anything else when its patience ends."""
    monkeypatch.setattr(demo_desk, "_PATIENCE", 0.3)
    with SinkServer(Say(400)) as sink:
        around.deliver_to = sink.url
        around._deliver({}, b"")
    assert len(sink.got) == 1
    around.deliver_to = "http://127.0.0.1:9/"
    around._deliver({}, b"")
    assert around.undelivered == [
        "an event was not delivered: HTTP 400",
        "an event was not delivered: ConnectionError",
    ]
