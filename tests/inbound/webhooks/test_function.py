"""The whole `receive_webhook`: loaded by functions-framework, over real HTTP, from a producer to a sink and a stop."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import unquote

import pytest
import requests

from handler.services.receive_webhook import WebhookService
from handler.settings.env import SettingsError
from handler.settings.receive_webhook import from_environ
from handler.settings.stop_servers import from_environ as stop_settings
from handler.simulator import Simulator
from tests.conftest import serving
from tests.inbound.webhooks.authentication import ACTS, sample
from tests.inbound.webhooks.receiver import ONE, bearer, fresh_secret
from tests.support.capture import logged
from tests.support.events import LOGIN
from tests.support.process import environment
from tests.support.sink_server import Say, SinkServer
from tests.test_events_folder import schema_violations

TOKEN = fresh_secret()
BODY: Any = {"alerts": [{"status": "firing", "labels": {"server_id": ONE, "alertname": "Idle: 50 %"}}]}

Serve = Callable[[str, Mapping[str, str]], str]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """A way to serve a target."""
    with serving(monkeypatch) as serve:
        yield serve


def webhook(serve: Serve, sink: str, **environ: str) -> str:
    """Serve `receive_webhook` with Alertmanager switched on."""
    return serve("receive_webhook", {"AUTOSTOP_EVENT_SINK": sink, "AUTOSTOP_ALERTMANAGER_TOKEN": TOKEN, **environ})


def post(url: str, body: Any = BODY, token: str = TOKEN) -> requests.Response:
    """Send a notification of Alertmanager."""
    return requests.post(f"{url}/alertmanager", json=body, headers=bearer(token), timeout=30)


def test_a_notification_becomes_one_event_in_binary_mode(serve: Serve) -> None:
    """The sink gets a valid event with the token and the extensions of the settings, and the log has one line of it."""
    with SinkServer() as sink:
        url = webhook(
            serve, sink.url, AUTOSTOP_SINK_TOKEN="token-for-the-sink", K_CE_OVERRIDES='{"extensions": {"team": "ops"}}'
        )
        with logged() as lines:
            answer = post(url)
    (got,) = sink.got
    attributes = {name[3:]: unquote(value) for name, value in got.headers.items() if name[:3] == "ce-"}
    document = {**attributes, "datacontenttype": got.headers["content-type"], "data": got.data}
    assert schema_violations("cloudevent-in.json", document) == []
    assert (answer.status_code, answer.json()) == (200, {"status": "handed-on", "id": attributes["id"]})
    assert got.headers["authorization"] == "Bearer token-for-the-sink"
    assert attributes["team"] == "ops"
    assert attributes["type"] == "io.github.bms-autostop.stop.requested.v1"
    assert got.data == {
        "server_ids": [ONE],
        "dry_run": False,
        "reason": "Alertmanager alarm Idle: 50 %",
        "requested_by": "Alertmanager",
    }
    (line,) = lines.of("stop request handed on")
    assert (line["event_id"], line["server_ids"]) == (attributes["id"], [ONE])
    assert TOKEN not in lines.text


def test_the_whole_chain_stops_a_server(serve: Serve, cloud: Simulator) -> None:
    """Alarm in, server off: both targets, joined by nothing but HTTP."""
    server = cloud.add_server(id=ONE)
    stop = serve("stop_servers", {"AUTOSTOP_INBOUND_AUTH": "none", **cloud.environ()})
    url = webhook(serve, stop)
    assert post(url).status_code == 200
    assert cloud.server(server).vm_state == "stopped"


@pytest.mark.parametrize("shown", [Say(400), Say(403), Say(302, {"Location": "http://127.0.0.1:1/"})])
def test_a_sink_that_refuses_is_503(serve: Serve, shown: Say) -> None:
    """One attempt, and a 503 to the producer."""
    with SinkServer(shown) as sink:
        answer = post(webhook(serve, sink.url))
    assert (answer.status_code, len(sink.got)) == (503, 1)
    assert int(answer.headers["Retry-After"]) > 0


def test_with_nothing_switched_on_it_says_so_and_refuses_everybody(serve: Serve) -> None:
    """It starts, so that a secret that is still to come does not end it."""
    with logged("WARNING") as lines:
        WebhookService(from_environ({"AUTOSTOP_EVENT_SINK": "http://sink/"})).endpoint()
    assert "no webhook is switched on" in lines.text
    url = serve("receive_webhook", {"AUTOSTOP_EVENT_SINK": "http://127.0.0.1:1/"})
    assert post(url).status_code == 403


def test_the_limits_of_http_apply(serve: Serve) -> None:
    """As to `stop_servers`: a body over the limit, another method or path, health."""
    url = webhook(serve, "http://127.0.0.1:1/", AUTOSTOP_MAX_BODY="1KiB")
    answers = [
        post(url, "x" * 1025),
        requests.request("BREW", f"{url}/alertmanager", timeout=30),
        requests.post(f"{url}/robots.txt", json=BODY, timeout=30),
        requests.get(f"{url}/healthz", timeout=30),
        requests.get(f"{url}/readyz", timeout=30),
        post(url, token=TOKEN[:-1]),
    ]
    assert [answer.status_code for answer in answers] == [413, 405, 403, 200, 200, 401]


def test_it_answers_in_time_when_the_sink_does_not(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each producer waits for some seconds only."""
    monkeypatch.setattr("handler.inbound.webhooks.model.Producer.patience", 0.5)
    with SinkServer(*[Say(0)] * 50) as sink:
        began = time.monotonic()
        assert post(webhook(serve, sink.url)).status_code == 503
    assert time.monotonic() - began < 5.0


def short_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Producers that wait for a second, and a sink with attempts for less."""
    monkeypatch.setattr("handler.outbound.sink._ATTEMPT_TIMEOUT", 0.1)
    monkeypatch.setattr("handler.inbound.webhooks.rocketchat.RocketChat.patience", 1.0)
    monkeypatch.setattr("handler.inbound.webhooks.model.Producer.patience", 1.0)


def command(serve: Serve, sink: str) -> str:
    """Type a command in Rocket.Chat; return the response."""
    message = sample("/rocketchat", token=TOKEN, text=f"!bms stop {ONE}", timestamp=None)
    environ = {"AUTOSTOP_ROCKETCHAT_TOKENS": TOKEN, **ACTS["/rocketchat"]["settings"]}
    url = serve("receive_webhook", {"AUTOSTOP_EVENT_SINK": sink, **environ})
    answer = requests.post(f"{url}/rocketchat", json=message, timeout=30)
    assert answer.status_code == 200
    text: str = answer.json()["text"]
    assert f"stop 1 server: {ONE}" in text
    return text


def test_a_chat_reads_that_a_command_was_not_handed_on_if_the_connection_was_refused(serve: Serve) -> None:
    """It is tried until the chat must have its answer."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert "NOT handed on" in command(serve, f"http://127.0.0.1:{port}/")


def test_a_command_to_a_slow_sink_is_posted_once_and_stops_its_server_once(
    serve: Serve, cloud: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The response is in time, `stop_servers` continues, and there is no second attempt."""
    short_timeouts(monkeypatch)
    server = cloud.add_server(id=ONE, power_off_delay=600.0)
    with SinkServer() as results:
        environ = {"AUTOSTOP_INBOUND_AUTH": "none", "AUTOSTOP_WAIT": "3s", "AUTOSTOP_RESULT_SINK": results.url}
        stop = serve("stop_servers", {**environ, **cloud.environ()})
        assert "not known whether it was taken. Do not send it again" in command(serve, stop)
        results.wait(1)
    assert [got.data["servers"][0]["outcome"] for got in results.got] == ["accepted"]
    assert cloud.stops_sent(server) == 1


def test_an_alarm_to_a_slow_sink_comes_again_by_its_producer(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Machines repeat under the same id; the webhook itself does not."""
    short_timeouts(monkeypatch)
    release = threading.Event()
    with SinkServer(Say(202, after=release)) as sink:
        url = webhook(serve, sink.url)
        assert post(url).status_code == 503
        sink.wait(1)
        release.set()
        assert post(url).status_code == 200
    assert len(sink.got) == 2
    assert len({got.headers["ce-id"] for got in sink.got}) == 1


@pytest.mark.parametrize("target", [{}, {"FUNCTION_TARGET": ""}, {"FUNCTION_TARGET": "stop_servers"}])
def test_without_a_target_stop_servers_is_loaded(target: dict[str, str]) -> None:
    """As soon as `main` is imported."""
    code = "import sys; from handler import main; assert 'handler.services.stop_servers' in sys.modules"
    environ = environment(AUTOSTOP_INBOUND_AUTH="none", **LOGIN, **target)
    subprocess.run([sys.executable, "-c", code], env=environ, check=True, timeout=60)


@pytest.mark.parametrize("read", [from_environ, stop_settings])
def test_one_secret_can_serve_both_targets(read: Callable[[Mapping[str, str]], object]) -> None:
    """The settings of one do not keep the other from starting; a misspelt one keeps both."""
    both = {
        "AUTOSTOP_INBOUND_AUTH": "none",
        "AUTOSTOP_EVENT_SINK": "http://sink/",
        "AUTOSTOP_ALERTMANAGER_TOKEN": TOKEN,
        "AUTOSTOP_WAIT": "1s",
        **LOGIN,
    }
    assert read(both)
    with pytest.raises(SettingsError) as raised:
        read({**both, "AUTOSTOP_ALERTMANGER_TOKEN": TOKEN})
    assert str(raised.value) == (
        "AUTOSTOP_ALERTMANGER_TOKEN must be the name of a setting; the nearest is AUTOSTOP_ALERTMANAGER_TOKEN."
    )
