"""What stands around the functions in `demo-chat`: a chat that shows what it is sent, and a broker that hands on."""

from __future__ import annotations

import html
import json
import queue
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import requests

from handler.demo import WIRE

_PATIENCE = 40.0
_PASSED_ON = ("ce-", "authorization", "content-type", "traceparent", "tracestate")


@dataclass(frozen=True, slots=True)
class Posted:
    """A message that the chat got.

    Attributes:
        path: where; the answer to a command and a message to a channel have different ones.
        lines: what a person would see.
    """

    path: str
    lines: tuple[str, ...]


@dataclass
class Desk:
    """A chat and a broker at one address.

    Attributes:
        url: its origin.
        deliver_to: URL that the broker delivers to; to be set before anything is sent to it.
        undelivered: what the broker could not hand on.
    """

    url: str
    deliver_to: str = ""
    undelivered: list[str] = field(default_factory=list)
    _posted: queue.SimpleQueue[Posted] = field(default_factory=queue.SimpleQueue)

    def posted(self, patience: float = _PATIENCE) -> Posted | None:
        """The next message that the chat gets; None if none comes in time."""
        try:
            return self._posted.get(timeout=patience)
        except queue.Empty:
            return None

    def take(self, path: str, headers: Mapping[str, str], body: bytes) -> None:
        """Take a message or an event. The event is answered before it is delivered: that is what a broker is for."""
        if path == "/broker":
            threading.Thread(target=self._deliver, args=(headers, body), daemon=True).start()
        else:
            self._posted.put(Posted(path, tuple(shown(json.loads(body)))))

    def _deliver(self, headers: Mapping[str, str], body: bytes) -> None:
        """Deliver until it is taken, or never will be."""
        sent = {name: value for name, value in headers.items() if name.lower().startswith(_PASSED_ON)}
        give_up = time.monotonic() + _PATIENCE
        said = "no answer"
        while time.monotonic() < give_up:
            try:
                status = WIRE.post(self.deliver_to, data=body, headers=sent, timeout=_PATIENCE).status_code
            except requests.RequestException as failure:
                said = type(failure).__name__
            else:
                if 200 <= status < 300:
                    return
                said = f"HTTP {status}"
                if status < 500:
                    break
            time.sleep(0.5)
        self.undelivered.append(f"an event was not delivered: {said}")


@contextmanager
def desk() -> Iterator[Desk]:
    """A chat and a broker on loopback, on a port that is free."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            """Take what comes, and say so."""
            made.take(self.path, dict(self.headers), self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response_only(202 if self.path == "/broker" else 200)
            self.send_header("Content-Length", "0")
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    made = Desk(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def shown(message: Mapping[str, Any]) -> Iterator[str]:
    """A message in Block Kit, roughly as Slack shows it."""
    for number, block in enumerate(message.get("blocks", [])):
        for text in [block["text"]] if "text" in block else block["elements"]:
            plain = html.unescape(text["text"])
            if text["type"] == "mrkdwn":
                plain = plain.replace("*", "")
                # A heading; the first one has nothing above it.
                yield from [""] * (number > 0)
            yield from plain.splitlines()
