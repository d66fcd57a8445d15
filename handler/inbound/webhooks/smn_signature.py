"""Signatures of SMN: RSA (PKCS #1 v1.5) over SHA-256, with a certificate from a host of the settings.

Only TLS to that host authenticates the certificate, so no other host, no redirect and no plain http is used. The
algorithm is fixed here, and not read from the certificate.
"""

from __future__ import annotations

import base64
import binascii
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from handler.errors import Cause, ProducerUnreachable, Unauthenticated
from handler.http_client import host_of
from handler.inbound.webhooks import fetch

_PATH = re.compile(r"/smn/SMN_[A-Za-z0-9_-]+\.pem", re.ASCII)
_MOST_KEPT = 8
_KEPT_FOR = 24 * 3600.0
_SMALLEST_KEY = 2048

_NOTIFICATION = ("message", "message_id", "subject", "timestamp", "topic_urn", "type")
_CONFIRMATION = ("message", "message_id", "subscribe_url", "timestamp", "topic_urn", "type")


def signed_text(fields: Mapping[str, str]) -> bytes:
    """Return the signed text: name and value of some fields, each on a line, without an empty subject."""
    names = _NOTIFICATION if fields["type"] == "Notification" else _CONFIRMATION
    lines = [f"{name}\n{fields[name]}\n" for name in names if name != "subject" or fields["subject"]]
    return "".join(lines).encode()


@dataclass(frozen=True, slots=True)
class Signer:
    """Key and validity of a certificate."""

    key: rsa.RSAPublicKey
    not_before: datetime
    not_after: datetime


class Certificates:
    """The certificates that messages are signed with, kept for a day.

    Args:
        hosts: from which they may come.
        get: fetches a URL.
        monotonic: the clock, in seconds.
    """

    def __init__(
        self,
        hosts: Collection[str],
        get: fetch.Get = fetch.get,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._hosts = hosts
        self._get = get
        self._monotonic = monotonic
        self._kept: OrderedDict[str, tuple[float, Signer]] = OrderedDict()
        self._lock = threading.Lock()

    def check(self, url: str, signature: str, text: bytes, now: datetime, seconds: float) -> None:
        """Check that a text is signed with the certificate at a URL.

        Raises:
            Unauthenticated: it is not, or the certificate is not valid.
            ProducerUnreachable: the certificate could not be fetched.
        """
        if not fetch.is_at(url, self._hosts, _PATH):
            raise Unauthenticated("The URL of the certificate must be at a host of AUTOSTOP_SMN_CERT_HOSTS.")
        signer = self._signer(url, seconds)
        if not signer.not_before <= now <= signer.not_after:
            raise Unauthenticated("The certificate must be valid now.")
        try:
            signer.key.verify(_decoded(signature), text, padding.PKCS1v15(), hashes.SHA256())
        except InvalidSignature:
            raise Unauthenticated("A valid signature is required.") from None

    def _signer(self, url: str, seconds: float) -> Signer:
        with self._lock:
            since, kept = self._kept.get(url, (0.0, None))
        if kept is not None and self._monotonic() - since < _KEPT_FOR:
            return kept
        status, body = self._get(url, seconds)
        if status >= 500 or status == 429:
            cause = Cause("fetching the certificate", host_of(url), status, None)
            raise ProducerUnreachable(f"The certificate could not be fetched (HTTP {status}).", cause=cause)
        if status != 200:
            raise Unauthenticated("The URL must be that of a certificate.")
        loaded = _load(body)
        with self._lock:
            self._kept[url] = (self._monotonic(), loaded)
            self._kept.move_to_end(url)
            while len(self._kept) > _MOST_KEPT:
                self._kept.popitem(last=False)
        return loaded


def _load(pem: bytes) -> Signer:
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        key = certificate.public_key()
    except (ValueError, x509.InvalidVersion, UnsupportedAlgorithm):
        raise Unauthenticated("The URL must be that of a certificate.") from None
    if not isinstance(key, rsa.RSAPublicKey) or key.key_size < _SMALLEST_KEY:
        raise Unauthenticated(f"The certificate must have an RSA key of at least {_SMALLEST_KEY} bits.")
    return Signer(key, certificate.not_valid_before_utc, certificate.not_valid_after_utc)


def _decoded(signature: str) -> bytes:
    try:
        raw = base64.b64decode(signature, validate=True)
    except (binascii.Error, ValueError):
        raise Unauthenticated("The signature must be base64.") from None
    if base64.b64encode(raw).decode("ascii") != signature:
        # The last character has bits that decoding drops: only one spelling of a signature is accepted.
        raise Unauthenticated("The signature must be base64.")
    return raw
