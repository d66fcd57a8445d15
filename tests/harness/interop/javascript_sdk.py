"""The CloudEvents SDK for JavaScript sends to a served `stop_servers`, and reads the result with its own decoder."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from handler.simulator import CallKind, Simulator
from tests.conftest import ROOT, STOP
from tests.harness.interop.stage import BUILD, captured, served

COMPLETED = "io.github.bms-autostop.stop.completed.v1"


class Sdk:
    """A real function with a cloud behind it, and the SDK before it."""

    def __init__(self, url: str, cloud: Simulator, seen: dict[str, Any]) -> None:
        self.url = url
        self.cloud = cloud
        self.seen = seen

    def exchange(self, name: str, mode: str, **event: Any) -> Any:
        """Send one event; what was sent, what came back and what the SDK read in it."""
        asked = {"url": self.url, "events": [{"mode": mode, "event": event}]}
        done = subprocess.run(
            ["node", str(ROOT / "tests" / "harness" / "interop" / "javascript" / "emit.cjs")],
            input=json.dumps(asked),
            env={"PATH": os.environ["PATH"], "NODE_PATH": str(BUILD / "node_modules")},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        (made,) = json.loads(done.stdout)
        self.seen[name] = {"mode": mode, **({"sent": made["sent"]} if "sent" in made else {})}
        return made

    def stops(self, name: str, mode: str, **changes: Any) -> Any:
        """Ask for a server of its own to be stopped, and see it done; the exchange."""
        server = self.cloud.add_server()
        given = {"id": f"js-{name}", "source": "/javascript", "type": STOP, "data": {"server_ids": [server]}, **changes}
        if given["data"] is None:
            given |= {"data": {}, "subject": server}
        if isinstance(given["data"], str):
            given["data"] = given["data"].replace("SERVER", server)
        if "bytes" in given:
            del given["data"]
            given["bytes"] = given["bytes"].replace("SERVER", server)
        made = self.exchange(name, mode, **given)
        assert "error" not in made, made["error"]
        read = made["read"]
        assert (read["type"], read["specversion"], read["subject"]) == (COMPLETED, "1.0", server)
        assert [row["outcome"] for row in read["data"]["servers"]] == ["stopped"]
        assert read["data"]["request"]["id"] == read["causationid"] == given["id"]
        assert self.cloud.server(server).vm_state == "stopped"
        return made


@pytest.fixture(scope="module")
def sdk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sdk]:
    """One function for all of them."""
    folder: Path = tmp_path_factory.mktemp("javascript")
    with (
        Simulator() as cloud,
        served("stop_servers", folder, AUTOSTOP_INBOUND_AUTH="none", **cloud.environ()) as function,
    ):
        seen: dict[str, Any] = {}
        yield Sdk(function.url, cloud, seen)
        version = json.loads((BUILD / "node_modules" / "cloudevents" / "package.json").read_text())["version"]
        captured("javascript-sdk", {"program": f"cloudevents {version} (npm)", "messages": seen})


@pytest.mark.parametrize("mode", ["binary", "structured"])
def test_a_canonical_request_stops_a_server(sdk: Sdk, mode: str) -> None:
    """And the SDK reads the whole result; its schema takes it."""
    made = sdk.stops(f"canonical-{mode}", mode)
    assert made["answer"]["headers"]["content-type"] == "application/json"
    assert ("ce-id" in made["sent"]["headers"]) is (mode == "binary")


@pytest.mark.parametrize("mode", ["binary", "structured"])
def test_extensions_of_each_kind_do_no_harm(sdk: Sdk, mode: str) -> None:
    """Text, number and truth; the correlation comes back."""
    made = sdk.stops(
        f"extensions-{mode}", mode, correlationid="order-7", team="ops", count=5, urgent=True, dataschema="urn:x"
    )
    assert made["read"]["correlationid"] == "order-7"


@pytest.mark.parametrize("mode", ["binary", "structured"])
@pytest.mark.parametrize(
    ("name", "zone"), [("whole", UTC), ("offset", timezone(timedelta(hours=5, minutes=30)))], ids=["whole", "offset"]
)
def test_a_time_is_the_same_moment(sdk: Sdk, mode: str, name: str, zone: timezone) -> None:
    """Without fraction, and with an offset: the SDK writes it anew, in UTC and with milliseconds."""
    now = datetime.now(zone).replace(microsecond=0)
    made = sdk.stops(f"time-{name}-{mode}", mode, time=now.isoformat())
    assert datetime.fromisoformat(made["read"]["data"]["request"]["time"]) == now


def test_a_time_that_is_long_ago_is_refused(sdk: Sdk) -> None:
    """The SDK reads the refusal as an event too."""
    server = sdk.cloud.add_server()
    made = sdk.exchange(
        "old", "binary", id="js-old", source="/javascript", type=STOP, time="2020-01-01T00:00:00Z",
        data={"server_ids": [server]},
    )  # fmt: skip
    assert made["read"]["type"].endswith("stop.refused.v1")
    assert made["read"]["data"]["refusal"] == "too-old"
    assert sdk.cloud.server(server).vm_state == "active"


@pytest.mark.parametrize("mode", ["binary", "structured"])
def test_a_subject_names_the_server(sdk: Sdk, mode: str) -> None:
    """If the data names none."""
    sdk.stops(f"subject-{mode}", mode, data=None)


def test_any_text_travels_in_structured_mode(sdk: Sdk) -> None:
    """A subject and a reason beyond ASCII, with percent signs and quotes."""
    made = sdk.exchange(
        "unicode-structured", "structured", id="js-ünï %41", source="/javascript", type=STOP, subject='Süd ✓ 100% "a"',
        data={"server_ids": [sdk.cloud.add_server()], "reason": "Übung ✓ 100 %", "requested_by": "Ada"},
    )  # fmt: skip
    request = made["read"]["data"]["request"]
    assert (request["id"], request["reason"], request["requested_by"]) == ("js-ünï %41", "Übung ✓ 100 %", "Ada")


def test_a_percent_sign_that_encodes_nothing_is_one(sdk: Sdk) -> None:
    """The SDK sends header values as they are; what is encoded by hand is decoded once."""
    made = sdk.exchange(
        "percent-binary", "binary", id="js-100% %C3%BC", source="/javascript", type=STOP, subject="a%20b 100%",
        data={"server_ids": [sdk.cloud.add_server()]},
    )  # fmt: skip
    assert made["read"]["data"]["request"]["id"] == "js-100% ü"


def test_text_that_the_sdk_sends_as_latin_1_is_not_utf_8(sdk: Sdk) -> None:
    """It does not encode header values, against the specification: reported by attribute, and nothing is done."""
    before = sdk.cloud.count(CallKind.STOP)
    made = sdk.exchange(
        "latin-binary", "binary", id="js-latin", source="/javascript", type=STOP, subject="Süd",
        data={"server_ids": [sdk.cloud.add_server()]},
    )  # fmt: skip
    assert json.loads(made["answer"]["body"])["violations"] == [
        {"at": "subject", "message": "must be UTF-8 once percent-decoded"}
    ]
    assert sdk.cloud.count(CallKind.STOP) == before


def test_text_beyond_latin_1_does_not_leave_node_in_binary_mode(sdk: Sdk) -> None:
    """Node refuses the header."""
    made = sdk.exchange(
        "beyond-binary", "binary", id="js-beyond", source="/javascript", type=STOP, subject="✓", data={}
    )
    assert "Invalid character in header" in made["error"]
    del sdk.seen["beyond-binary"]


@pytest.mark.parametrize("mode", ["binary", "structured"])
def test_data_may_be_bytes(sdk: Sdk, mode: str) -> None:
    """As the body, or as base64 in the event."""
    sdk.stops(f"bytes-{mode}", mode, datacontenttype="application/json", bytes='{"server_ids": ["SERVER"]}')


def test_data_may_be_text_that_is_json(sdk: Sdk) -> None:
    """In binary mode it is the body."""
    sdk.stops("text-binary", "binary", datacontenttype="application/json", data='{"server_ids": ["SERVER"]}')


def test_a_result_that_comes_back_stops_nothing(sdk: Sdk) -> None:
    """What the SDK has read and sends again is answered with an empty 204."""
    read = sdk.stops("first", "structured")["read"]
    del sdk.seen["first"]
    before = len(sdk.cloud.calls)
    made = sdk.exchange("own-result", "structured", **read)
    assert (made["answer"]["body"], "read" in made) == ("", False)
    assert len(sdk.cloud.calls) == before
