"""A fake of SMN: a new key, its certificate, and a client that serves it and records the requests."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import NameOID

from handler.errors import ProducerUnreachable

TOPIC = "urn:smn:eu-de:0a1b2c3d4e5f40718293a4b5c6d7e8f9:bms-alarms"
CERT_URL = "https://smn.eu-de.otc.t-systems.com/smn/SMN_eu-de_0123456789abcdef0123456789abcdef.pem"
CONFIRM_URL = f"https://console.otc.t-systems.com/smn/subscription/confirm?token=0a41&topic_urn={TOPIC}&region=eu-de"
SENT = "2026-11-20T18:00:00Z"

PrivateKey: TypeAlias = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


def new_key(size: int = 2048) -> rsa.RSAPrivateKey:
    """A new key."""
    return rsa.generate_private_key(public_exponent=65537, key_size=size)


def as_pem(key: rsa.RSAPrivateKey) -> bytes:
    """A key as a server reads it."""
    pem: bytes = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return pem


def certificate(
    key: PrivateKey,
    since: datetime = datetime(2026, 1, 1, tzinfo=UTC),
    days: int = 365,
    host: str = "smn.example",
) -> bytes:
    """A self-signed certificate."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(since)
        .not_valid_after(since + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem: bytes = made.public_bytes(serialization.Encoding.PEM)
    return pem


def string_to_sign(message: Mapping[str, Any]) -> bytes:
    """As SMN's documentation has it, written down independently of the code under test."""
    if message["type"] == "Notification":
        names = ["message", "message_id", "subject", "timestamp", "topic_urn", "type"]
        if not message.get("subject"):
            names.remove("subject")
    else:
        names = ["message", "message_id", "subscribe_url", "timestamp", "topic_urn", "type"]
    text = ""
    for name in names:
        text += name + "\n" + message[name] + "\n"
    return text.encode("utf-8")


class FakeSmn:
    """SMN with a key of its own."""

    def __init__(self) -> None:
        self.key = new_key()
        self.served: dict[str, Any] = {CERT_URL: (200, certificate(self.key)), CONFIRM_URL: (200, b"ok")}
        self.asked: list[str] = []

    def get(self, url: str, _seconds: float) -> tuple[int, bytes]:
        """Answer as configured; 404 to everything else."""
        self.asked.append(url)
        found = self.served.get(url, (404, b"no such key"))
        if isinstance(found, ProducerUnreachable):
            raise found
        status, body = found
        return status, body

    def sign(self, message: Mapping[str, Any], key: rsa.RSAPrivateKey | None = None) -> dict[str, Any]:
        """The message with its signature."""
        made = (key or self.key).sign(string_to_sign(message), padding.PKCS1v15(), hashes.SHA256())
        return {**message, "signature": base64.b64encode(made).decode()}

    def notification(self, message: object, **changes: Any) -> dict[str, Any]:
        """A signed notification; what is not text is put in as JSON."""
        return self.sign(
            {
                "subject": "[Major Alarm]From Cloud Eye: bms-idle",
                "topic_urn": TOPIC,
                "message_id": "bf94b63a5dfb475994d3ac34664e24f2",
                "signature_version": "v1",
                "type": "Notification",
                "message": message if isinstance(message, str) else json.dumps(message),
                "unsubscribe_url": "https://console.otc.t-systems.com/smn/subscription/unsubscribe?region=eu-de",
                "signing_cert_url": CERT_URL,
                "timestamp": SENT,
                **changes,
            }
        )

    def confirmation(self, **changes: Any) -> dict[str, Any]:
        """A signed request to confirm a subscription."""
        return self.sign(
            {
                "topic_urn": TOPIC,
                "message_id": "c9e6f9cbba1e4fd0a0d2f5d9a3a7f001",
                "signature_version": "v1",
                "type": "SubscriptionConfirmation",
                "message": f"You are invited to subscribe to topic: {TOPIC}.",
                "subscribe_url": CONFIRM_URL,
                "signing_cert_url": CERT_URL,
                "timestamp": SENT,
                **changes,
            }
        )
