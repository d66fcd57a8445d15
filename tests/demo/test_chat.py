"""The demo of a chat: it shows the real functions, and fails if a result is not as expected."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import pytest

from handler.demo import chat as module
from handler.demo import chat_and_broker as chat_and_broker_module
from handler.demo.chat import Keys, Request, Scenario, demo_chat, scenarios
from handler.demo.chat_and_broker import ChatAndBroker, chat_and_broker
from handler.demo.fleet import CI_07
from handler.demo.function import HTTP
from tests.outbound.chat.reports import CHATS, sampled
from tests.support.sink_server import Say, SinkServer


def test_the_demo_shows_both_answers_and_ends_well(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four real processes; neither the settings nor the proxy of this machine get in the way."""
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("AUTOSTOP_NO_SUCH_THING", "1")
    assert demo_chat() == 0
    out = capsys.readouterr().out
    for words in (
        "at once  HTTP 200: Understood: stop 3 servers",
        "as an answer to it:\n           | Asked to stop: 3 servers, of which 1 skipped, 1 stopped",
        "at once  HTTP 401: A valid signature is required.",
        "in the channel:\n           | Asked to stop: 1 server, of which 1 stopped.",
        "| To keep a server running, type: keep ID 2h",
        "ci-10   active   0           active, env=ci",
        "Everything came out as expected.",
    ):
        assert words in out


Changed = Callable[[Callable[[Scenario, Scenario], tuple[Scenario, ...]]], tuple[int, str]]


@pytest.fixture
def changed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Changed:
    """Run the demo with other scenarios, made of the first two; gives the exit code and what was printed."""
    monkeypatch.setenv("COLUMNS", "400")

    def run(change: Callable[[Scenario, Scenario], tuple[Scenario, ...]]) -> tuple[int, str]:
        monkeypatch.setattr(module, "scenarios", lambda chat, keys: change(*scenarios(chat, keys)[:2]))
        return demo_chat(), capsys.readouterr().out

    return run


@pytest.mark.usefixtures("in_threads")
def test_it_fails_if_a_result_is_not_as_expected(monkeypatch: pytest.MonkeyPatch, changed: Changed) -> None:
    """Both answers of a scenario are judged, and every server."""
    monkeypatch.setattr(module, "_EXPECTED_STOPS", {**module._EXPECTED_STOPS, CI_07: 2})
    code, out = changed(
        lambda first, second: (
            replace(first, status=201, posted_to="/elsewhere", message=("Nothing like that.",)),
            replace(second, response="Welcome"),
        ),
    )
    violations = out.partition("Not as expected:")[2]
    assert code == 1
    for words in (
        "/slack: HTTP 200 (Understood",
        "instead of 201",
        "/slack: posted to /commands/T0001/1/demo instead of /elsewhere",
        "/slack: the message lacks: Nothing like that.",
        "instead of 401 (Welcome)",
        "ci-07: 1 stops were sent to it instead of 2",
    ):
        assert words in violations
    assert "Everything came out" not in out


@pytest.mark.usefixtures("in_threads")
def test_it_fails_if_a_message_is_missing_or_there_are_too_many(
    monkeypatch: pytest.MonkeyPatch, changed: Changed
) -> None:
    """It is waited for, within a time limit."""
    monkeypatch.setattr(ChatAndBroker.posted, "__defaults__", (0.05,))
    code, out = changed(lambda _, second: (replace(second, message=("Nothing comes.",)),))
    assert code == 1
    assert "/slack: no message in the chat" in out

    def run(_scenario: Scenario, _url: str, chat: ChatAndBroker, _width: int) -> tuple[str, list[str]]:
        chat.receive("/services/ops", {}, b"{}")
        return "", []

    monkeypatch.setattr(module, "_show_servers", lambda *_: [])
    monkeypatch.setattr(module, "_run", run)
    code, out = changed(lambda first, _: (first,))
    assert code == 1
    assert "more than one message" in out


def test_the_answer_to_a_click_may_come_after_the_result() -> None:
    """On a machine that is busy."""
    chat = ChatAndBroker("")
    for words in ("Asked to stop: 1 server.", "Understood."):
        chat.receive("/actions", {}, json.dumps({"text": words}).encode())
    request: Request = ({}, b"")
    clicked = Scenario("", "", "/", lambda _: request, "Understood", 200, "/actions", ("Asked to stop",), click=True)
    with SinkServer(Say(200)) as function:
        text, violations = module._run(clicked, function.url, chat, 80)
    assert violations == []
    assert "at once  HTTP 200: Understood.\n" in text


def test_when_it_is_interrupted_everything_ends(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was started has ended before it returns, without a traceback."""
    running: list[str] = []

    @contextmanager
    def function(target: str, _: Mapping[str, str]) -> Iterator[str]:
        running.append(target)
        try:
            yield "http://127.0.0.1:9/"
        finally:
            running.remove(target)

    def interrupted(*_: object) -> list[str]:
        assert running == ["notify_chat", "keep_servers", "stop_servers", "receive_webhook"]
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "function", function)
    monkeypatch.setattr(module, "_run", interrupted)
    assert demo_chat() == 130
    assert running == []
    assert "Interrupted" in capsys.readouterr().out


def test_the_secrets_are_others_in_each_run() -> None:
    """None is written down anywhere."""
    one, two = Keys(), Keys()
    made = {secret for keys in (one, two) for secret in (keys.slack, keys.alertmanager, keys.internal, keys.approval)}
    assert len(made) == 8


# --- the chat and the broker around it


@pytest.fixture
def around() -> Iterator[ChatAndBroker]:
    """A chat and a broker."""
    with chat_and_broker() as made:
        yield made


def test_the_chat_shows_what_slack_would(around: ChatAndBroker) -> None:
    """Entities are characters again, bold is not shown as stars."""
    answer = HTTP.post(
        f"{around.url}/services/x", data=CHATS["slack"].message(sampled("completed"), False, None), timeout=10
    )
    posted = around.posted()
    assert answer.status_code == 200
    assert posted is not None
    assert posted.path == "/services/x"
    assert posted.lines[0].startswith("Asked to stop: ")
    assert "" not in posted.lines[:2]
    assert not any("*" in line or "&amp;" in line for line in posted.lines)


def test_the_broker_answers_at_once_and_delivers_until_it_is_taken(around: ChatAndBroker) -> None:
    """With what authenticates the sender, and the attributes of the event."""
    with SinkServer(Say(503), Say(204)) as sink:
        around.deliver_to = sink.url
        headers = {"ce-id": "7", "Authorization": "Bearer t", "X-Other": "x"}
        assert HTTP.post(f"{around.url}/broker", data=b"body", headers=headers, timeout=10).status_code == 202
        around.deliver(headers, b"again")
    assert b"again" in [got.body for got in sink.got]
    last = sink.got[-1].headers
    assert (last["ce-id"], last["authorization"]) == ("7", "Bearer t")
    assert "x-other" not in last
    assert around.undelivered == []


def test_the_broker_says_what_it_could_not_deliver(around: ChatAndBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal at once, anything else when the time is up."""
    monkeypatch.setattr(chat_and_broker_module, "_TIMEOUT", 0.3)
    with SinkServer(Say(400)) as sink:
        around.deliver_to = sink.url
        around.deliver({}, b"")
    assert len(sink.got) == 1
    around.deliver_to = "http://127.0.0.1:9/"
    around.deliver({}, b"")
    assert around.undelivered == [
        "an event was not delivered: HTTP 400",
        "an event was not delivered: ConnectionError",
    ]
