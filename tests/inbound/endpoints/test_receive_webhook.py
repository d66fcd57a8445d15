"""The endpoint of `receive_webhook`: paths, methods, when the body is read, and what is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from handler.errors import BodyIncomplete
from handler.inbound.webhooks import registry
from tests.inbound.webhooks.authentication import BODY_AUTHENTICATES, BY_SIGNATURE, BY_TOKEN, KEY, SECRET, SENT, ByToken
from tests.inbound.webhooks.receiver import FORM, JSON, ONE, Receiver, bearer, fresh_secret, json_of, refused

TOKEN = fresh_secret()
BODY = {"alerts": [{"status": "firing", "labels": {"server_id": ONE}}]}


def scene(down: bool = False, **environ: Any) -> Receiver:
    """One producer switched on."""
    return Receiver(down=down, **{"AUTOSTOP_ALERTMANAGER_TOKEN": TOKEN, **environ})


@pytest.mark.parametrize("path", ["", "/", "/unknown", "/alertmanager//", "/Alertmanager", "//alertmanager", "/other"])
def test_an_unknown_path_is_403(path: str) -> None:
    """Whatever the credentials."""
    here = scene()
    refused(here.post(path, BODY, bearer(TOKEN)), 403)
    assert here.handed == []


@pytest.mark.parametrize("path", sorted(registry.SWITCHES))
def test_a_producer_without_its_secret_is_switched_off(path: str) -> None:
    """It answers 403, as if it did not exist, and is not loaded."""
    here = Receiver()
    refused(here.post(path, BODY, bearer("")), 403)
    assert here.producers == {}


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "OPTIONS", "DELETE", "BREW"])
def test_only_post_is_served(method: str) -> None:
    """There is no handshake here either."""
    answer = scene().post("/alertmanager", BODY, bearer(TOKEN), method=method)
    refused(answer, 405)
    assert answer.headers["Allow"] == "POST"


@pytest.mark.parametrize(("path", "status"), [("/healthz", "alive"), ("/readyz", "ready")])
def test_health_is_answered(path: str, status: str) -> None:
    """By GET; a POST there is no webhook."""
    here = scene()
    answer = here.post(path, method="GET")
    assert (answer.status, json_of(answer)) == (200, {"status": status})
    refused(here.post(path, BODY, bearer(TOKEN)), 403)


BEFORE_THE_BODY = {name: way for name, way in BY_TOKEN.items() if way.path not in BODY_AUTHENTICATES}
# Settings and headers of each producer that is authenticated by its body.
BY_THE_BODY: dict[str, tuple[str, Mapping[str, str], dict[str, str]]] = {
    "smn": ("/smn", {"AUTOSTOP_SMN_TOPICS": "urn:smn:eu-de:0123456789abcdef0123456789abcdef:stop"}, {}),
    **{name: (way.path, {way.setting: SECRET}, JSON) for name, way in BY_TOKEN.items() if way.is_in_body},
    **{f"{name}-form": (way.path, {way.setting: SECRET}, FORM) for name, way in BY_TOKEN.items() if way.is_in_body},
    **{f"{name}-signed": (way.path, way.environ, way.sign(b"", int(SENT), KEY)) for name, way in BY_SIGNATURE.items()},
}


class Reading:
    """A body that does not arrive; it writes down how long it was waited for."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def __call__(self, within: float) -> bytes:
        self.seconds.append(within)
        raise BodyIncomplete("The body did not arrive in time.")


@pytest.mark.parametrize("way", BEFORE_THE_BODY.values(), ids=BEFORE_THE_BODY)
def test_credentials_in_the_headers_are_checked_before_the_body(way: ByToken) -> None:
    """Without it the body is not read; with it, it may take 20 seconds."""
    environ: dict[str, Any] = {way.setting: SECRET}
    here = Receiver(**environ)
    body = Reading()
    refused(here.post(way.path, body, bearer("wrong"), query="token=wrong"), 401)
    assert body.seconds == []
    _, headers, query = way.show(SECRET)
    refused(here.post(way.path, body, headers, query=query), 503)
    assert body.seconds == [20.0]


@pytest.mark.parametrize("name", BY_THE_BODY)
def test_a_body_that_authenticates_has_five_seconds(name: str) -> None:
    """A thread waits for it, of a caller that is not authenticated yet."""
    path, settings, headers = BY_THE_BODY[name]
    environ: dict[str, Any] = dict(settings)
    body = Reading()
    refused(Receiver(**environ).post(path, body, headers), 503)
    assert body.seconds == [5.0]
