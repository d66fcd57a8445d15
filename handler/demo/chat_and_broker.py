"""A simulated chat and broker on loopback for `demo-chat`: the chat shows its messages, the broker delivers events."""

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

from handler.demo.function import HTTP
from handler.event_types import KEEP_REQUESTED

BROKER = "/broker"
_TIMEOUT = 40.0
_FORWARDED = ("ce-", "authorization", "content-type", "traceparent", "tracestate")


@dataclass(frozen=True, slots=True)
class Posted:
    """A message that the chat received.

    Attributes:
        path: of the URL; the answer to a command and a message to a channel have different ones.
        lines: the shown text.
    """

    path: str
    lines: tuple[str, ...]


@dataclass
class ChatAndBroker:
    """A chat and a broker on one port.

    Attributes:
        url: its origin.
        deliver_to: URL that the broker delivers to; set it before anything is sent to the broker.
        deliver_keeps_to: the same for requests for a keep, as by a trigger of their own.
        undelivered: events that the broker could not deliver.
        buttons: for each action, the value of its first button in the last message with one.
    """

    url: str
    deliver_to: str = ""
    deliver_keeps_to: str = ""
    undelivered: list[str] = field(default_factory=list)
    buttons: dict[str, str] = field(default_factory=dict)
    _posted: queue.SimpleQueue[Posted] = field(default_factory=queue.SimpleQueue)

    def posted(self, timeout: float = _TIMEOUT) -> Posted | None:
        """Return the next message that the chat receives; None after `timeout` seconds without one."""
        try:
            return self._posted.get(timeout=timeout)
        except queue.Empty:
            return None

    def receive(self, path: str, headers: Mapping[str, str], body: bytes) -> None:
        """Accept a message or an event. An event is delivered after it was acknowledged, as by a broker."""
        if path == BROKER:
            threading.Thread(target=self.deliver, args=(headers, body), daemon=True).start()
        else:
            message = json.loads(body)
            # The first one of an action wins, so it comes last.
            self.buttons |= {button["action_id"]: button["value"] for button in reversed(_buttons(message))}
            self._posted.put(Posted(path, tuple(plain_text(message))))

    def deliver(self, headers: Mapping[str, str], body: bytes) -> None:
        """Deliver an event until it is accepted or refused, or the time is up."""
        sent = {name: value for name, value in headers.items() if name.lower().startswith(_FORWARDED)}
        types = [value for name, value in headers.items() if name.lower() == "ce-type"]
        url = self.deliver_keeps_to if types == [KEEP_REQUESTED] else self.deliver_to
        deadline = time.monotonic() + _TIMEOUT
        failure = "no answer"
        while time.monotonic() < deadline:
            try:
                status = HTTP.post(url, data=body, headers=sent, timeout=_TIMEOUT).status_code
            except requests.RequestException as error:
                failure = type(error).__name__
            else:
                if 200 <= status < 300:
                    return
                failure = f"HTTP {status}"
                if status < 500:
                    break
            time.sleep(0.5)
        self.undelivered.append(f"an event was not delivered: {failure}")


@contextmanager
def chat_and_broker() -> Iterator[ChatAndBroker]:
    """Run a chat and a broker on loopback, on a free port, until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            """Accept a request, and acknowledge it."""
            made.receive(self.path, dict(self.headers), self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response_only(202 if self.path == BROKER else 200)
            self.send_header("Content-Length", "0")
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    made = ChatAndBroker(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def plain_text(message: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of a message in Block Kit, roughly as Slack shows it; of one without blocks its text."""
    if "blocks" not in message:
        yield from str(message.get("text", "")).splitlines()
    for number, block in enumerate(message.get("blocks", [])):
        if block["type"] == "actions":
            yield " ".join(f"[{button['text']['text']}]" for button in block["elements"])
            continue
        for text in [block["text"]] if "text" in block else block["elements"]:
            plain = html.unescape(text["text"])
            if text["type"] == "mrkdwn":
                plain = plain.replace("*", "")
                # A heading, with a blank line above it except for the first one.
                yield from [""] * (number > 0)
            beside = f" [{block['accessory']['text']['text']}]" if "accessory" in block else ""
            yield from f"{plain}{beside}".splitlines()


def _buttons(message: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    blocks = message.get("blocks", [])
    beside = [block["accessory"] for block in blocks if "accessory" in block]
    return beside + [button for block in blocks if block["type"] == "actions" for button in block["elements"]]
