"""The small program that logs results and raises alerts, as the manifest has it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.deploy.environment import OBJECTS, Process
from tests.deploy.kustomize import find
from tests.support.sink_server import Say, SinkServer

SERVICE = find(OBJECTS, "Service", "bms-autostop-log")
HEADERS = {"ce-id": "e1", "ce-source": "/s", "ce-type": "t", "ce-knativeerrorcode": "503"}


@pytest.fixture(scope="module")
def alertmanager() -> Iterator[SinkServer]:
    """One that is failing when it is asked first."""
    with SinkServer(Say(503)) as server:
        yield server


@pytest.fixture(scope="module")
def program(alertmanager: SinkServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """The program, pointed at that Alertmanager."""
    url = alertmanager.url.removesuffix("/results")
    process = Process(SERVICE, {"ALERTMANAGER_URL": url}, tmp_path_factory.mktemp("log") / "log")
    try:
        process.restart()
        yield process
    finally:
        process.kill()


def _post(program: Process, path: str) -> int:
    return requests.post(program.url + path, json={"a": 1}, headers=HEADERS, timeout=30).status_code


def test_a_dead_letter_becomes_an_alert_or_comes_again(program: Process, alertmanager: SinkServer) -> None:
    """503 as long as Alertmanager does not take it, so that it is not lost; then an alert that names the event."""
    assert _post(program, "/dead-letters") == 503
    assert _post(program, "/dead-letters") == 204
    got = alertmanager.got[-1]
    assert (got.method, got.path) == ("POST", "/api/v2/alerts")
    (alert,) = json.loads(got.body)
    assert alert["labels"] == {"alertname": "BmsAutostopDeadLetter", "severity": "warning", "event_id": "e1"}
    assert alert["annotations"] == {"source": "/s", "type": "t", "knativeerrorcode": "503"}


def test_a_result_is_written_and_raises_nothing(program: Process, alertmanager: SinkServer) -> None:
    """One line with attributes and data; a question about its health writes none."""
    before, alerts = len(program.lines()), len(alertmanager.got)
    assert _post(program, "/results") == 204
    assert requests.get(f"{program.url}/healthz", timeout=30).status_code == 200
    (line,) = program.lines()[before:]
    assert line == {"path": "/results", **HEADERS, "data": '{"a": 1}'}
    assert len(alertmanager.got) == alerts


def test_last_dead_letter_is_a_metric_of_prometheus(program: Process) -> None:
    """With the labels that the alert looks for, and the time when it came."""
    while _post(program, "/dead-letters") != 204:
        pass
    answer = requests.get(f"{program.url}/metrics", timeout=30)
    kind, sample = answer.text.splitlines()
    assert kind == "# TYPE autostop_event_last_time_seconds gauge"
    labels, _, value = sample.partition("} ")
    assert labels == (
        'autostop_event_last_time_seconds{cloudevents_event_type="other",autostop_event_outcome="ignored",'
        'autostop_event_reason="dead-lettered copy"'
    )
    assert time.time() - 300 < float(value) <= time.time()
    assert answer.headers["Content-Type"].startswith("text/plain")


def test_without_a_dead_letter_there_is_no_series_and_it_ends_on_sigterm(tmp_path: Path) -> None:
    """A process that has just started knows nothing of the time before.

    As the first process of a container it would not get SIGTERM by itself.
    """
    process = Process(SERVICE, {}, tmp_path / "log")
    process.restart()
    try:
        assert _post(process, "/results") == 204
        assert requests.get(f"{process.url}/metrics", timeout=30).text == ""
        assert process.stop() == 0
    finally:
        process.kill()
