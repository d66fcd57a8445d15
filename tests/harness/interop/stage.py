"""Functions in processes of their own, a relay that writes down what passes, and where captures are kept."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import requests
import yaml

from tests.support.http_server import Handler, HttpServer
from tests.support.process import ROOT, ServerProcess, environment, free_port, function_command

ALERTMANAGER = "prometheus-alertmanager"
BUILD = ROOT / "build" / "interop"
CAPTURED = ROOT / "tests" / "captured"
# Set if what the programs send is to be written down anew.
CAPTURE = "INTEROP_CAPTURE"
PATIENCE = 60.0

T = TypeVar("T")


def captured(name: str, content: object) -> None:
    """Write down what a program sent, if that was asked for."""
    if os.environ.get(CAPTURE):
        CAPTURED.mkdir(exist_ok=True)
        text = json.dumps(content, indent=1, ensure_ascii=False)
        (CAPTURED / f"{name}.json").write_text(f"{text}\n")


def until(happened: Callable[[], T], what: str) -> T:
    """Wait for other programs, for a minute at most; what came of it."""
    end = time.monotonic() + PATIENCE
    while not (found := happened()):
        assert time.monotonic() < end, f"{what} did not happen"
        time.sleep(0.05)
    return found


def served(target: str, folder: Path, **environ: str) -> ServerProcess:
    """Return the process that serves a target as in production."""
    port = free_port()
    return ServerProcess(function_command(port, target), environment(**environ), folder / f"{target}.log", port=port)


@dataclass(frozen=True)
class Passed:
    """One request that passed a relay; header names in lower case."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    status: int

    @property
    def data(self) -> Any:
        return json.loads(self.body)


class Relay(HttpServer):
    """Hands requests on to a function, and answers 503 by itself while it is `down`."""

    def __init__(self, upstream: str) -> None:
        self.passed: list[Passed] = []
        self.down = False
        relay = self

        class Forward(Handler):
            def do_POST(self) -> None:
                body = self.read_body()
                status, kind, answer = 503, "text/plain", b"down"
                if not relay.down:
                    theirs = requests.post(f"{upstream}{self.path}", data=body, headers=dict(self.headers), timeout=60)
                    status, answer = theirs.status_code, theirs.content
                    kind = theirs.headers.get("Content-Type", kind)
                relay.passed.append(Passed(self.path, self.lower_headers(), body, status))
                self.reply(status, answer, {"Content-Type": kind})

        super().__init__(Forward)
        self.url = self.origin

    @property
    def statuses(self) -> list[int]:
        return [passed.status for passed in self.passed]


def alertmanager(folder: Path, config: object) -> ServerProcess:
    """Return the process of an Alertmanager with this configuration, which looks for no peers."""
    file, port = folder / "alertmanager.yml", free_port()
    file.write_text(yaml.safe_dump(config))
    command = [
        ALERTMANAGER,
        f"--config.file={file}",
        f"--storage.path={folder / 'alertmanager'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
    ]
    environ = {"PATH": os.environ["PATH"]}
    return ServerProcess(command, environ, folder / "alertmanager.log", port=port, ready="/-/ready")
