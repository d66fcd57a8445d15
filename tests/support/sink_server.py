"""A sink over real HTTP that answers as a test wants and records what it gets."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.support.http_server import Handler, HttpServer


@dataclass(frozen=True)
class Say:
    """One answer of the sink. Status 0 cuts the connection instead.

    Attributes:
        after: the answer is not sent before this is set; None for at once.
    """

    status: int = 202
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    after: threading.Event | None = None


@dataclass(frozen=True)
class Got:
    """One request that the sink got; header names in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def data(self) -> Any:
        return json.loads(self.body)


class SinkServer(HttpServer):
    """Gives each of `answers` once, then 202 to everything.

    Args:
        together: how many requests must have arrived before any is answered.
    """

    def __init__(self, *answers: Say, port: int = 0, together: int = 1, tls: ssl.SSLContext | None = None) -> None:
        barrier = threading.Barrier(together, timeout=10)
        self.got: list[Got] = []
        waiting = list(answers)
        got = self.got
        lock = threading.Lock()

        class Answers(Handler):
            def do_POST(self) -> None:
                body = self.read_body()
                with lock:
                    got.append(Got(self.command, self.path, self.lower_headers(), body))
                    say = waiting.pop(0) if waiting else Say()
                barrier.wait()
                if say.after is not None:
                    say.after.wait(60)
                if say.status == 0:
                    self.close_connection = True
                    return
                self.reply(say.status, say.body, say.headers)

            do_GET = do_POST

        super().__init__(Answers, tls, port)

    def wait(self, requests: int) -> None:
        """Wait until so many requests are there, and no longer than a minute."""
        until = time.monotonic() + 60
        while len(self.got) < requests and time.monotonic() < until:
            time.sleep(0.01)
        assert len(self.got) >= requests

    @property
    def url(self) -> str:
        return f"{self.origin}/results"
