"""What other programs have sent once, sent again; `make interop` talks with them themselves."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.inbound.webhooks.receiver import Receiver, basic, bearer, fresh_secret, json_of
from tests.support.events import FakeHandler, call_endpoint, faults_of

CAPTURED = ROOT / "tests" / "captured"
JAVASCRIPT = ROOT / "tests" / "harness" / "interop" / "javascript"
SDK = json.loads((CAPTURED / "javascript-sdk.json").read_text())
ALERTMANAGER = json.loads((CAPTURED / "alertmanager.json").read_text())
TOKEN = fresh_secret()
PROOFS = {"bearer": bearer(TOKEN), "basic": basic(TOKEN, "alertmanager")}
UUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")
# The two that ask for nothing, or for nothing that can be read.
NO_REQUESTS = {"latin-binary": 400, "own-result": 204}


def sent_to_endpoint(name: str, fake: FakeHandler) -> Any:
    """Bring one message of the SDK to the endpoint, as WSGI would."""
    sent = SDK["messages"][name]["sent"]
    headers = {key.lower(): value for key, value in sent["headers"].items()}
    return call_endpoint((headers, sent["body"].encode()), fake)


@pytest.mark.parametrize("name", sorted(set(SDK["messages"]) - set(NO_REQUESTS)))
def test_what_the_javascript_sdk_sends_is_understood(name: str) -> None:
    """In either mode: the one server, with the id and the time of the event."""
    fake = FakeHandler()
    assert sent_to_endpoint(name, fake).status == 200
    (request,) = fake.requests
    sent = SDK["messages"][name]["sent"]
    text = sent["body"] + sent["headers"].get("ce-subject", "")
    if name == "bytes-structured":
        text = base64.b64decode(json.loads(text)["data_base64"]).decode()
    assert list(request.server_ids) == UUID.findall(text)
    assert request.source == "/javascript"
    assert request.id.startswith("js-")
    assert request.time is not None


def test_odd_values_of_the_javascript_sdk_arrive_as_they_were() -> None:
    """Any text in structured mode; in binary mode what was encoded by hand is decoded once, and no more."""
    structured, percent = FakeHandler(), FakeHandler()
    sent_to_endpoint("unicode-structured", structured)
    sent_to_endpoint("percent-binary", percent)
    assert (structured.requests[0].id, structured.requests[0].reason) == ("js-ünï %41", "Übung ✓ 100 %")
    assert percent.requests[0].id == "js-100% ü"


def test_what_asks_for_nothing_stops_nothing() -> None:
    """The SDK's unencoded Latin-1 is refused by name, and a result of ours that comes back is ignored."""
    for name, status in NO_REQUESTS.items():
        fake = FakeHandler()
        answer = sent_to_endpoint(name, fake)
        assert (answer.status, fake.requests) == (status, [])
        if status == 400:
            assert faults_of(answer) == {"subject": "must be UTF-8 once percent-decoded"}


@pytest.mark.parametrize("name", sorted(ALERTMANAGER["messages"]))
def test_what_alertmanager_sends_is_understood(name: str) -> None:
    """Of each group what fires, and nothing that is resolved; sent again it is the same event."""
    message = ALERTMANAGER["messages"][name]
    here = Receiver(now=datetime(2026, 11, 26, tzinfo=UTC), AUTOSTOP_ALERTMANAGER_TOKEN=TOKEN)
    headers = {**message["headers"], **PROOFS[message["proof"]]}
    answers = [here.post("/alertmanager", message["body"], headers) for _ in range(2)]
    firing = [
        alert["labels"]["server_id"] for alert in json.loads(message["body"])["alerts"] if alert["status"] == "firing"
    ]
    assert [answer.status for answer in answers] == [200 if firing else 204] * 2
    assert [list(request.server_ids) for request in here.handed] == ([firing] * 2 if firing else [])
    assert len({request.id for request in here.handed}) <= 1
    if firing:
        assert json_of(answers[0]) == json_of(answers[1])
        assert here.handed[0].reason == f"Alertmanager alarm BareMetalIdle: {firing[0]} is idle: 0 % - ✓ stop it"


def test_alertmanagers_notifications_are_all_there() -> None:
    """Firing, resolved and both in one, with each kind of credentials; so a new capture cannot lose one unnoticed."""
    states = ("firing", "firing-and-resolved", "resolved")
    assert set(ALERTMANAGER["messages"]) == {f"{state}-{credentials}" for state in states for credentials in PROOFS}


def test_nothing_of_a_machine_is_in_what_was_captured() -> None:
    """No port, no address, no secret."""
    for path in CAPTURED.iterdir():
        text = path.read_text()
        assert not re.search(r"localhost|127\.0\.0\.1|authorization|:\d{4,5}/", text.lower())


def test_the_sdk_is_pinned_without_addresses() -> None:
    """By version and hash; where packages come from is up to the installation."""
    lock = json.loads((JAVASCRIPT / "package-lock.json").read_text())
    pinned = json.loads((JAVASCRIPT / "package.json").read_text())["dependencies"]
    assert pinned == {"cloudevents": lock["packages"]["node_modules/cloudevents"]["version"]}
    assert SDK["program"] == f"cloudevents {pinned['cloudevents']} (npm)"
    packages = {name: package for name, package in lock["packages"].items() if name}
    assert all("integrity" in package and "resolved" not in package for package in packages.values())


def test_a_missing_program_is_reported_with_its_package() -> None:
    """Before anything is installed or run."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.harness.interop"],
        cwd=ROOT,
        env={"PATH": "/nowhere", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "make interop needs `node` (Debian package nodejs) and `npm` (Debian package npm) and "
        "`prometheus-alertmanager` (Debian package prometheus-alertmanager)."
    ]
