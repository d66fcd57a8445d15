"""Whether SMN said it: RSA (PKCS #1 v1.5) over SHA-256, with a certificate from a pinned host.

The certificate comes over TLS from a host of the settings; nothing else vouches for it, so no other place, no redirect
and no plain http is ever tried. The algorithm is fixed here, and not read from the certificate.
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
    """What the signature is over: name and value of some fields, each on a line; an empty subject is left out."""
    names = _NOTIFICATION if fields["type"] == "Notification" else _CONFIRMATION
    lines = [f"{name}\n{fields[name]}\n" for name in names if name != "subject" or fields["subject"]]
    return "".join(lines).encode()


@dataclass(frozen=True, slots=True)
class Signer:
    """What a certificate says."""

    key: rsa.RSAPublicKey
    not_before: datetime
    not_after: datetime


class Certificates:
    """The certificates that messages are signed with, kept for a day.

    Args:
        hosts: where they may come from.
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
        """Let a text pass that is signed with the certificate at this URL.

        Raises:
            CallerUnproven: it is not, or the certificate is no good.
            ProducerUnreachable: the certificate could not be had.
        """
        if not fetch.is_at(url, self._hosts, _PATH):
            raise Unauthenticated("The certificate is not where one may come from.")
        signer = self._signer(url, seconds)
        if not signer.not_before <= now <= signer.not_after:
            raise Unauthenticated("The certificate is not valid now.")
        try:
            signer.key.verify(_decoded(signature), text, padding.PKCS1v15(), hashes.SHA256())
        except InvalidSignature:
            raise Unauthenticated("The signature is wrong.") from None

    def _signer(self, url: str, seconds: float) -> Signer:
        with self._lock:
            since, kept = self._kept.get(url, (0.0, None))
        if kept is not None and self._monotonic() - since < _KEPT_FOR:
            return kept
        status, body = self._get(url, seconds)
        if status >= 500 or status == 429:
            cause = Cause("fetching the certificate", host_of(url), status, None)
            raise ProducerUnreachable(f"The certificate could not be had (HTTP {status}).", cause=cause)
        if status != 200:
            raise Unauthenticated("There is no certificate where the message says.")
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
        raise Unauthenticated("There is no certificate where the message says.") from None
    if not isinstance(key, rsa.RSAPublicKey) or key.key_size < _SMALLEST_KEY:
        raise Unauthenticated("The certificate has no key that is strong enough.")
    return Signer(key, certificate.not_valid_before_utc, certificate.not_valid_after_utc)


def _decoded(signature: str) -> bytes:
    try:
        raw = base64.b64decode(signature, validate=True)
    except (binascii.Error, ValueError):
        raise Unauthenticated("The signature is no base64.") from None
    if base64.b64encode(raw).decode("ascii") != signature:
        # The last character has bits that decoding drops: one signature, one way to write it.
        raise Unauthenticated("The signature is no base64.")
    return raw
