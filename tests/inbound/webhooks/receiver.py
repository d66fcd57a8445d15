"""An endpoint with producers, a clock that is set, and a sink that records what it receives."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from cloudevents.conversion import to_dict

from handler.errors import Acceptance, SinkUnreachable
from handler.inbound.cloudevents.decode import decode
from handler.inbound.endpoints.receive_webhook import WebhookEndpoint
from handler.inbound.extract.dispatch import extract
from handler.inbound.extract.keep import extract_keep
from handler.inbound.http.request import HttpRequest, ReadBody
from handler.inbound.http.responses import Answer
from handler.inbound.webhooks import fetch
from handler.inbound.webhooks.registry import switched_on
from handler.inbound.webhooks.smn import Smn
from handler.keep.model import KeepRequest
from handler.outbound.keep import keep_request_event
from handler.outbound.result import binary
from handler.outbound.stop_request import stop_request_event
from handler.settings.receive_webhook import from_environ
from handler.stop.model import StopRequest
from tests.test_events_folder import schema_violations

NOW = datetime(2026, 11, 20, 18, 0, 5, tzinfo=UTC)
ONE = "95bf2490-5428-432c-ad9b-5e3406f869dd"
TWO = "5c9fd0d6-2f3b-4c8e-9a51-7be0a4b5c1f2"
THREE = "0d2f6c1e-7a43-4b9d-8f60-3c5e1a9b7d24"
JSON = {"content-type": "application/json"}
FORM = {"content-type": "application/x-www-form-urlencoded"}


def fresh_secret() -> str:
    """A secret that no other test run has."""
    return secrets.token_hex(16)


def bearer(token: str) -> dict[str, str]:
    """The header that carries a token."""
    return {"authorization": f"Bearer {token}"}


def basic(password: str, user: str = "any") -> dict[str, str]:
    """The header that carries a password."""
    return {"authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def mac(key: str | bytes, message: bytes) -> bytes:
    """HMAC-SHA256, made without the code under test."""
    return hmac.new(key.encode() if isinstance(key, str) else key, message, hashlib.sha256).digest()


def form(fields: Mapping[str, str]) -> bytes:
    """Fields as a form body."""
    return urlencode(fields).encode()


def flip(text: str, at: int = -1) -> str:
    """The text with one bit of one character changed, still printable."""
    changed = chr(ord(text[at]) ^ 1)
    return text[:at] + changed + text[at:][1:]


class Receiver:
    """`receive_webhook` with these settings. Everything that it hands on is a valid event that reads back the same.

    Args:
        now: the time of its clock.
        down: the sink takes nothing; or, if this is UNKNOWN, says nothing.
        get: fetches URLs for SMN.
        environ: the settings.
    """

    def __init__(
        self, *, now: datetime = NOW, down: bool | Acceptance = False, get: fetch.Get | None = None, **environ: str
    ) -> None:
        self.now = now
        self.down = down
        self.handed: list[StopRequest] = []
        self.kept: list[KeepRequest] = []
        self.deadlines: list[float] = []
        settings = from_environ({"AUTOSTOP_EVENT_SINK": "http://sink.example/", **environ})
        self.producers = dict(switched_on(settings))
        if get is not None:
            self.producers["/smn"] = Smn(settings, f"{settings.source.rstrip('/')}/smn", get)
        self._endpoint = WebhookEndpoint(self.producers, self._hand_on, dry_run=settings.dry_run, now=lambda: self.now)

    def _hand_on(self, request: StopRequest | KeepRequest, deadline: float) -> None:
        self.deadlines.append(deadline)
        if self.down:
            acceptance = self.down if isinstance(self.down, Acceptance) else Acceptance.NOT_TAKEN
            raise SinkUnreachable("The sink is down.", retry_after=7.0, acceptance=acceptance)
        event = keep_request_event(request, {}) if isinstance(request, KeepRequest) else stop_request_event(request, {})
        found = schema_violations("cloudevent-in.json", dict(to_dict(event)))
        assert found == [], found
        (read,) = decode(*binary(event)).events
        assert read.violations == ()
        assert request.time is not None
        time = _as_sent(request.time)
        if isinstance(request, KeepRequest):
            assert extract_keep(read, timedelta(days=1), self.now) == request._replace(time=time)
            self.kept.append(request)
        else:
            assert extract(read, now=self.now) == request._replace(time=time, since=_as_sent(request.since))
            self.handed.append(request)

    def later(self, **delta: float) -> None:
        """Let time pass."""
        self.now += timedelta(**delta)

    def post(
        self,
        path: str,
        body: bytes | str | Mapping[str, Any] | ReadBody = b"",
        headers: Mapping[str, str] | None = None,
        *,
        query: str = "",
        method: str = "POST",
    ) -> Answer:
        """Send something; a mapping goes as JSON."""
        if isinstance(body, Mapping):
            body = json.dumps(body)
        raw = body.encode() if isinstance(body, str) else body
        sent = {name.lower(): value for name, value in (headers or {}).items()}
        return self._endpoint.answer(HttpRequest(method, path, sent, raw, 100.0, query))

    def only(self) -> StopRequest:
        """The one request that was handed on."""
        (request,) = self.handed
        return request


def _as_sent(stamp: Any) -> Any:
    """A time, or the times of several servers, with the milliseconds that an event has."""
    if isinstance(stamp, Mapping):
        return {id_: _as_sent(inner) for id_, inner in stamp.items()}
    return stamp and stamp.replace(microsecond=stamp.microsecond // 1000 * 1000)


def json_of(answer: Answer) -> Any:
    """An answer's JSON."""
    return json.loads(answer.body)


def text_of(answer: Answer) -> str:
    """Return the text that a person reads in a chat, which never states that a server was stopped."""
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json"
    text: str = json_of(answer)["text"]
    assert "stopped" not in text
    return text


def refused(answer: Answer, status: int) -> Any:
    """The problem document of a refusal."""
    assert answer.status == status, answer
    assert answer.headers["Content-Type"] == "application/problem+json"
    document = json_of(answer)
    assert schema_violations("problem.json", document) == []
    return document
