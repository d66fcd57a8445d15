"""deploy/compose: the file is valid, and its services, as processes, do what the README's requests say."""

from __future__ import annotations

import os
import re
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from tests.conftest import ROOT
from tests.deploy.validate import vendored_schema_errors
from tests.support.process import ServerProcess, environment, free_port

FOLDER = ROOT / "deploy" / "compose"
COMPOSE: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def test_compose_file_is_valid(tmp_path: Path) -> None:
    """By the specification of compose files; a wrong field is found."""
    assert vendored_schema_errors("compose-spec", FOLDER / "compose.yaml") == ""
    wrong = tmp_path / "compose.yaml"
    wrong.write_text((FOLDER / "compose.yaml").read_text().replace("depends_on:", "depend_on:"))
    assert "'depend_on'" in vendored_schema_errors("compose-spec", wrong)


def test_image_is_built_once_and_looked_for_in_no_registry() -> None:
    """One service builds it; the others use it by its name and never pull."""
    assert [name for name, service in SERVICES.items() if "build" in service] == ["stop"]
    assert {service["image"] for service in SERVICES.values()} == {"bms-autostop"}
    policies = {name: service["pull_policy"] for name, service in SERVICES.items()}
    assert policies == {"cloud": "never", "stop": "build", "keep": "never", "webhook": "never"}


@pytest.mark.parametrize("name", SERVICES)
def test_service_has_no_more_rights_than_it_needs(name: str) -> None:
    """Nothing to write but /tmp, no capabilities, and only this machine reaches it."""
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["tmpfs"] == ["/tmp"]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])


# --- the playground, without containers


@dataclass(frozen=True, slots=True)
class Playground:
    """The services as processes.

    Attributes:
        ports: of this machine, by those that the README names.
        logs: of each service.
    """

    ports: Mapping[str, int]
    logs: Mapping[str, Path]

    def request(self, command: str) -> requests.Response:
        """Do what a curl command of the README would."""
        words = shlex.split(command.replace("'$(date -u +%FT%TZ)'", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())))
        assert words[:2] == ["curl", "-i"]
        url = re.sub(r"^localhost:(\d+)", lambda match: f"http://127.0.0.1:{self.ports[match[1]]}", words[2])
        headers = dict(words[at + 1].split(": ", 1) for at, word in enumerate(words) if word == "-H")
        return requests.post(url, data=words[words.index("-d") + 1], headers=headers, timeout=60)


@pytest.fixture(scope="module")
def playground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Playground]:
    """Each service's command and environment as in the file; its name and port stand for one of this machine."""
    folder = tmp_path_factory.mktemp("compose")
    ports = {service["ports"][0].split(":")[1]: free_port() for service in SERVICES.values()}
    inside = {"cloud:8774": f"localhost:{ports['8774']}", "stop:8080": f"localhost:{ports['8080']}"}
    inside["keep:8080"] = f"localhost:{ports['8082']}"
    logs = {name: folder / name for name in SERVICES}
    binaries = Path(sys.executable).parent
    with ExitStack() as stack:
        for name, service in SERVICES.items():
            environ = {key: str(value) for key, value in service.get("environment", {}).items()}
            for there, here in inside.items():
                environ = {key: value.replace(there, here) for key, value in environ.items()}
            port = ports[service["ports"][0].split(":")[1]]
            environ |= {"PORT": str(port), "FUNCTION_SOURCE": str(ROOT / "handler" / "main.py")}
            environ.setdefault("FUNCTION_TARGET", "stop_servers")
            command = service.get("command", ["functions-framework"])
            command = ["localhost" if word == "cloud" else str(port) if word == "8774" else word for word in command]
            process = ServerProcess(
                [str(binaries / command[0]), *command[1:]],
                {**environment(), **environ, "HOME": str(folder)},
                logs[name],
                port=int(port),
                ready="/v3" if name == "cloud" else "/healthz",
                ended_by=signal.SIGTERM,
            )
            stack.enter_context(process)
        yield Playground(ports, logs)


def _commands() -> list[str]:
    text = (FOLDER / "README.md").read_text()
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL))
    return re.findall(r"^curl .*?(?<!\\)\n(?=curl|docker|echo|export|\Z)", blocks + "\n", re.DOTALL | re.MULTILINE)


def test_playground_does_what_its_readme_says(playground: Playground) -> None:
    """The event stops its server and then finds it stopped; the alarm becomes an event, which the log reports."""
    event, alarm, keep = _commands()
    first, again = playground.request(event), playground.request(event)
    assert first.status_code == 200
    assert [row["outcome"] for answer in (first, again) for row in answer.json()["servers"]] == ["stopped", "unchanged"]
    assert again.headers["ce-id"] != first.headers["ce-id"]
    assert again.headers["ce-causationid"] == first.headers["ce-causationid"]
    kept = playground.request(keep).json()["servers"]
    assert [row["outcome"] for row in kept] == ["kept"]
    stop = playground.request(
        event.replace("ec9dd12e-8aa1-5aea-8ea1-b2848e01c31b", kept[0]["id"]).replace("ce-id: 1", "ce-id: 4")
    )
    assert [row["reason"] for row in stop.json()["servers"]] == ["kept-until"]
    taken = playground.request(alarm)
    assert taken.status_code in (200, 202, 204)
    assert "9f73f00b-939e-5bc5-a0e5-d4b7fde1aa5a" in playground.logs["stop"].read_text()
    assert os.path.getsize(playground.logs["cloud"]) > 0
