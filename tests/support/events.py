"""Messages to send to the endpoint, and an endpoint with a fake handler."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from handler.inbound.endpoints.stop_servers import StopEndpoint
from handler.inbound.http.request import HttpRequest
from handler.inbound.http.responses import Answer
from handler.settings.stop_servers import Settings, from_environ
from handler.stop.model import StopRequest

STOP = "io.github.bms-autostop.stop.requested.v1"
ONE = "5f0c1a52-3d0e-4b7a-9a55-0d6f3c2b1a10"
TWO = "95bf2490-5428-432c-ad9b-5e3406f869dd"
THREE = "0b1c2d3e-4f50-4617-8293-a4b5c6d7e8f9"
LOGIN = {
    "OS_AUTH_URL": "http://127.0.0.1:1/v3",
    "OS_USERNAME": "operator",
    "OS_PASSWORD": "marked-os-password",
    "OS_USER_DOMAIN_NAME": "Default",
    "OS_PROJECT_NAME": "bare-metal",
}

Message = tuple[dict[str, str], bytes]


def settings(**environ: str) -> Settings:
    """Settings that are valid, but for what is given."""
    return from_environ({"AUTOSTOP_INBOUND_AUTH": "none", **LOGIN, **environ})


def attributes(**changes: Any) -> dict[str, Any]:
    """The attributes of a good event; what is given as None is left out."""
    made = {"specversion": "1.0", "id": "event-1", "source": "/tests", "type": STOP, **changes}
    return {name: value for name, value in made.items() if value is not None}


def binary(data: object = None, *, content_type: str | None = "application/json", **changes: Any) -> Message:
    """A message in binary mode; bytes are sent as they are, anything else as JSON."""
    headers = {f"ce-{name}": value for name, value in attributes(**changes).items()}
    if content_type is not None:
        headers["content-type"] = content_type
    if data is None:
        data = {"server_ids": [ONE]}
    return headers, data if isinstance(data, bytes) else json.dumps(data).encode()


def event(**changes: Any) -> dict[str, Any]:
    """A good event in the JSON format; a member given as None is left out."""
    members = attributes(**{"data": {"server_ids": [ONE]}, **changes})
    if "data_base64" in members and "data" not in changes:
        del members["data"]
    return members


def structured(document: object) -> Message:
    """A message in structured mode; bytes are sent as they are."""
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return {"content-type": "application/cloudevents+json; charset=utf-8"}, body


def batch(*members: object) -> Message:
    """A message in batch mode."""
    return {"content-type": "application/cloudevents-batch+json"}, json.dumps(members).encode()


class FakeHandler:
    """A handler of requests that records them."""

    def __init__(self, failure: Exception | None = None, not_ready: Exception | None = None) -> None:
        self.requests: list[StopRequest] = []
        self.as_batch: bool | None = None
        self.received: float | None = None
        self._failure = failure
        self._not_ready = not_ready

    def handle(self, requests: Sequence[StopRequest], as_batch: bool, received: float) -> Answer:
        self.requests += requests
        self.as_batch, self.received = as_batch, received
        if self._failure is not None:
            raise self._failure
        return Answer(200, {"ce-id": "result"}, b"{}")

    def ready(self) -> None:
        if self._not_ready is not None:
            raise self._not_ready


def call_endpoint(
    message: Message,
    fake: FakeHandler | None = None,
    *,
    method: str = "POST",
    path: str = "/",
    headers: Mapping[str, str] | None = None,
    received: float = 12.5,
    **environ: str,
) -> Answer:
    """Bring one message to an endpoint with these settings."""
    fake = fake or FakeHandler()
    endpoint = StopEndpoint(settings(**environ), fake.handle, fake.ready)
    return endpoint.answer(HttpRequest(method, path, {**message[0], **(headers or {})}, message[1], received))


def faults_of(answer: Answer) -> dict[str, str]:
    """The violations of a 400, by their places."""
    assert answer.status == 400, answer
    found = json.loads(answer.body)["violations"]
    return {violation["at"]: violation["message"] for violation in found}
