"""The ten failures of on-call: a line of the log alone names the cause and the next step.

`tests/cli/test_doctor.py` has the same ten for `bms-autostop doctor`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from handler.cli.explain import entries
from handler.settings.env import SettingsError
from handler.settings.stop_servers import from_environ
from handler.simulator import CallKind, Fault, Simulator
from tests.conftest import StartFunction
from tests.e2e.conftest import set_backoff
from tests.support.capture import Lines, logged
from tests.support.process import free_port


@dataclass(frozen=True)
class Failure:
    """Something that is wrong, and what one line of the log must say of it.

    Attributes:
        environ: settings that differ; `{url}` stands for the cloud's, `{closed}` for an address without a listener.
        user: of the simulated cloud.
        fault: what the cloud answers instead.
        status: of the function's response.
        message: of the line.
        cause: members that its `cause` must have.
        fix: words of the next step.
        detail: a word of the `detail` of a line.
    """

    cause: Mapping[str, Any]
    fix: tuple[str, ...]
    environ: Mapping[str, str] = field(default_factory=dict)
    user: str = "operator"
    fault: Fault | None = None
    status: int = 503
    message: str = "event not handled"
    detail: str = ""


_LOGIN = "logging in"
_FAILURES = {
    "wrong password": Failure(
        {"call": _LOGIN, "status": 401}, ("user, password", "bms-autostop doctor"), {"OS_PASSWORD": "not-the-password"}
    ),
    "wrong project": Failure({"call": _LOGIN, "status": 401}, ("the project",), {"OS_PROJECT_NAME": "elsewhere"}),
    "connection refused": Failure(
        {"call": _LOGIN, "host": "{closed}", "failure": "connection-refused"},
        ("Check the host",),
        {"OS_AUTH_URL": "http://{closed}/v3"},
    ),
    "no such host": Failure(
        {"call": _LOGIN, "host": "nowhere.invalid", "failure": "no-such-host"},
        ("DNS",),
        {"OS_AUTH_URL": "https://nowhere.invalid/v3"},
    ),
    "wrong region": Failure(
        {"call": "finding the compute API"},
        ("OS_REGION_NAME",),
        {"OS_REGION_NAME": "elsewhere"},
        detail="the catalogue does not have it",
    ),
    "wrong compute URL": Failure(
        {"call": "reading the server", "host": "{host}", "status": 404},
        ("AUTOSTOP_COMPUTE_URL",),
        {"AUTOSTOP_COMPUTE_URL": "{url}/nowhere"},
    ),
    "reader role": Failure(
        {"call": "stopping the server", "host": "{host}", "status": 403},
        ("Allow the call", "bms-autostop doctor --server"),
        user="watcher",
        status=200,
        message="call to the cloud failed",
    ),
    "custom role without stop": Failure(
        {"call": "stopping the server", "host": "{host}", "status": 403},
        ("Allow the call", "bms-autostop doctor --server"),
        fault=Fault(on=CallKind.STOP, status=403, times=None, message="Policy doesn't allow it to be performed."),
        status=200,
        message="call to the cloud failed",
    ),
    "sink down": Failure(
        {"call": "posting the event", "host": "{closed}", "failure": "connection-refused"},
        ("AUTOSTOP_RESULT_SINK",),
        {"AUTOSTOP_RESULT_SINK": "http://{closed}/secret-path"},
    ),
}


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries follow each other at once, so that a short budget has several."""
    set_backoff(monkeypatch, lambda _: 0.01)


def _sent(failure: Failure, cloud: Simulator, start: StartFunction) -> tuple[dict[str, str], Lines, Any]:
    places = {"url": cloud.url, "host": cloud.url.split("/")[2], "closed": f"127.0.0.1:{free_port()}"}
    if failure.fault is not None:
        cloud.inject(failure.fault)
    environ = {**cloud.environ(failure.user), "AUTOSTOP_DEADLINE": "2s", "AUTOSTOP_WAIT": "0.2s"}
    environ |= {name: value.format(**places) for name, value in failure.environ.items()}
    function = start(cloud, **environ)
    with logged("WARNING") as lines:
        return places, lines, function.stop(cloud.add_server(), id="tonight")


@pytest.mark.parametrize("name", [*_FAILURES])
def test_one_line_names_the_cause_and_the_next_step(name: str, cloud: Simulator, start_function: StartFunction) -> None:
    """With the event, at WARNING; its `problem` is in the runbook; the HTTP response has the same cause."""
    failure = _FAILURES[name]
    places, lines, answer = _sent(failure, cloud, start_function)
    assert answer.status_code == failure.status
    (line,) = lines.of(failure.message)
    assert (line["level"], line["event_id"]) == ("WARNING", "tonight")
    expected = {
        key: value.format(**places) if isinstance(value, str) else value for key, value in failure.cause.items()
    }
    assert expected.items() <= line["cause"].items()
    assert all(words in line["fix"] for words in failure.fix)
    assert any(failure.detail in other.get("detail", "") for other in lines.all)
    assert line["problem"] in {entry.word for entry in entries()}
    assert "not-the-password" not in lines.text
    assert "secret-path" not in lines.text
    if answer.status_code == 503:
        assert answer.json()["cause"] == line["cause"]
    else:
        (row,) = lines.of("server handled")
        assert (row["level"], row["reason"], row["event_id"]) == ("WARNING", "forbidden", "tonight")
        assert lines.of("event handled")[0]["level"] == "WARNING"


def test_the_first_failed_try_is_logged_while_it_is_repeated(cloud: Simulator, start_function: StartFunction) -> None:
    """Once for the event, also if it is handled in the end."""
    failure = Failure({}, (), fault=Fault(on=CallKind.READ, status=503, times=2), status=200)
    places, lines, answer = _sent(failure, cloud, start_function)
    assert answer.status_code == 200
    assert [line["message"] for line in lines.all] == ["call to the cloud failed"]
    expected = {"call": "reading the server", "host": places["host"], "status": 503, "failure": None}
    assert lines.all[0]["cause"] == expected


def test_a_misspelt_setting_is_named_at_the_start(cloud: Simulator) -> None:
    """The tenth: the process prints it and does not start."""
    with pytest.raises(SettingsError) as caught:
        from_environ({"AUTOSTOP_INBOUND_AUTH": "none", **cloud.environ(), "AUTOSTOP_DEADLIN": "5s"})
    (violation,) = caught.value.violations
    assert violation == "AUTOSTOP_DEADLIN must be the name of a setting; the nearest is AUTOSTOP_DEADLINE."


def test_the_started_line_says_what_is_served(
    cloud: Simulator, start_function: StartFunction, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line, without the path of the sink, which may be a secret."""
    monkeypatch.setattr(logging.getLogger("handler"), "handlers", [])
    sink = "https://broker.example:8443/secret-path"
    start_function(cloud, AUTOSTOP_RESULT_SINK=sink, AUTOSTOP_STOP_LIMIT="100/10m", AUTOSTOP_DRY_RUN="true")
    (line,) = (json.loads(text) for text in capsys.readouterr().out.splitlines())
    expected = {
        "message": "started",
        "level": "INFO",
        "target": "stop_servers",
        "api": "nova",
        "dry_run": True,
        "inbound_auth": "none",
        "sink": "broker.example:8443",
        "stop_limit": "100/600s",
    }
    assert line.items() >= expected.items()
    assert line["version"]
