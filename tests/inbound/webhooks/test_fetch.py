"""What is fetched for a producer: over real TLS, no redirect followed, no more than is sensible, never without end."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests

from handler import rfc3339
from handler.errors import ProducerUnreachable, Unauthenticated
from handler.inbound.webhooks import fetch
from handler.inbound.webhooks.smn_signature import Certificates
from tests.conftest import serving
from tests.inbound.webhooks.authentication import SMN
from tests.inbound.webhooks.fake_smn import CERT_URL, TOPIC, as_pem, certificate
from tests.inbound.webhooks.receiver import JSON, NOW, ONE
from tests.support.http_server import Handler, HttpServer
from tests.support.sink_server import SinkServer


class Host:
    """What a host answers to GET over TLS, by path, and the requests that it had."""

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[str] = []
        self.responses: dict[str, tuple[int, dict[str, str], bytes]] = {}


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """A host whose certificate is trusted."""
    here = Host()

    class Answers(Handler):
        def do_GET(self) -> None:
            here.asked.append(self.path)
            status, headers, body = here.responses.get(self.path, (404, {}, b""))
            self.reply(status, body, headers)

    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    key.write_bytes(as_pem(SMN.key))
    cert.write_bytes(certificate(SMN.key, datetime.now(UTC) - timedelta(days=1), host="localhost"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(cert))
    with HttpServer(Answers, context) as server:
        here.url = server.origin
        yield here


def test_status_and_body_come_back(there: Host) -> None:
    """Good or bad."""
    there.responses["/a"] = (200, {}, b"body")
    assert fetch.get(f"{there.url}/a", 5.0) == (200, b"body")
    assert fetch.get(f"{there.url}/b", 5.0) == (404, b"")


def test_a_redirect_is_not_followed(there: Host) -> None:
    """Wherever it leads."""
    with SinkServer() as elsewhere:
        there.responses["/a"] = (302, {"Location": elsewhere.url}, b"")
        assert fetch.get(f"{there.url}/a", 5.0)[0] == 302
        assert elsewhere.got == []


def test_a_body_that_is_too_long_is_none(there: Host) -> None:
    """No server fills the memory."""
    there.responses["/a"] = (200, {}, b"x" * 3_000_000)
    with pytest.raises(ProducerUnreachable):
        fetch.get(f"{there.url}/a", 5.0)


def test_a_host_that_is_not_trusted_or_not_there_is_unreachable(there: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """And one for which there is no time."""
    with pytest.raises(ProducerUnreachable):
        fetch.get(f"{there.url}/a", 0.0)
    with pytest.raises(ProducerUnreachable):
        fetch.get("https://localhost:1/a", 5.0)
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    with pytest.raises(ProducerUnreachable):
        fetch.get(f"{there.url}/a", 5.0)
    assert there.asked == []


def test_a_certificate_is_fetched_again_after_a_day_and_few_are_kept() -> None:
    """Eight of them, the latest."""
    now = [0.0]
    SMN.asked.clear()
    certificates = Certificates({"smn.eu-de.otc.t-systems.com"}, SMN.get, lambda: now[0])

    def check(url: str) -> None:
        with pytest.raises(Unauthenticated, match="signature"):
            certificates.check(url, "AAAA", b"", NOW, 1.0)

    check(CERT_URL)
    now[0] = 86399.0
    check(CERT_URL)
    assert SMN.asked == [CERT_URL]
    now[0] = 86401.0
    check(CERT_URL)
    assert SMN.asked == [CERT_URL] * 2
    others = [CERT_URL.replace("eu-de_", f"{n}_") for n in range(8)]
    SMN.served |= dict.fromkeys(others, SMN.served[CERT_URL])
    for url in others:
        check(url)
    check(others[0])
    check(CERT_URL)
    assert SMN.asked == [CERT_URL] * 2 + others + [CERT_URL]


def test_the_whole_function_takes_an_alarm_over_real_tls(there: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Certificate fetched, subscription confirmed, alarm handed on; a redirecting certificate leads nowhere."""
    cert, confirm = f"{there.url}/smn/SMN_1.pem", f"{there.url}/confirm?token=x"
    now = rfc3339.render(datetime.now(UTC))
    signer = certificate(SMN.key, datetime.now(UTC) - timedelta(days=1))
    there.responses = {"/smn/SMN_1.pem": (200, {}, signer), "/confirm?token=x": (200, {}, b"")}
    alarm = {
        "message_type": "alarm",
        "namespace": "SERVICE.BMS",
        "alarm_status": "alarm",
        "template_variable": {"ResourceId": ONE},
    }
    made: dict[str, Any] = {"signing_cert_url": cert, "timestamp": now}
    with SinkServer() as sink, SinkServer() as elsewhere, serving(monkeypatch) as serve:
        there.responses["/smn/SMN_2.pem"] = (302, {"Location": elsewhere.url}, b"")
        url = serve(
            "receive_webhook",
            {
                "AUTOSTOP_EVENT_SINK": sink.url,
                "AUTOSTOP_SMN_TOPICS": TOPIC,
                "AUTOSTOP_SMN_CERT_HOSTS": there.url.removeprefix("https://"),
                "AUTOSTOP_SMN_CONFIRM_HOSTS": there.url.removeprefix("https://"),
            },
        )
        began = time.monotonic()
        answers = [
            requests.post(f"{url}/smn", data=json.dumps(message), headers=JSON, timeout=30)
            for message in (
                SMN.confirmation(**made, subscribe_url=confirm),
                SMN.notification(alarm, **made),
                SMN.notification(alarm, **{**made, "signing_cert_url": cert.replace("_1", "_2")}),
            )
        ]
        assert time.monotonic() - began < 20.0
    assert [answer.status_code for answer in answers] == [200, 200, 401]
    assert there.asked == ["/smn/SMN_1.pem", "/confirm?token=x", "/smn/SMN_2.pem"]
    assert elsewhere.got == []
    assert [got.data["server_ids"] for got in sink.got] == [[ONE]]
