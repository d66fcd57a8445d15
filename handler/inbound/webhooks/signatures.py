"""Tokens and signatures of producers, compared in constant time."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl

from handler.errors import Unauthenticated
from handler.settings.env import Secret

# Slack's documentation asks for five minutes; producers that leave the window to the receiver get the same.
WINDOW = timedelta(seconds=300)


def is_one_of(sent: bytes, known: Iterable[Secret]) -> bool:
    """Return whether a text that was sent is one of these secrets.

    Every one is compared, so that the time taken does not depend on how much of one is right.
    """
    hits = [hmac.compare_digest(sent, secret.reveal().encode()) for secret in known]
    return any(hits)


def bearer_or_password(headers: Mapping[str, str], known: Secret) -> None:
    """Check the secret as a bearer token, or as the password of basic authentication with any user name.

    Raises:
        Unauthenticated: it is neither.
    """
    scheme, _, rest = headers.get("authorization", "").partition(" ")
    sent = rest.strip().encode("latin-1", "replace")
    if scheme.lower() == "basic":
        try:
            sent = base64.b64decode(sent, validate=True).partition(b":")[2]
        except binascii.Error:
            sent = b""
    elif scheme.lower() != "bearer":
        sent = b""
    if not is_one_of(sent, [known]):
        raise Unauthenticated("The token of this webhook is required.")


def query_token(query: str, known: Secret) -> bool:
    """Return whether the query has the secret as `token`."""
    pairs = parse_qsl(query, keep_blank_values=True, errors="replace")
    sent = [value for name, value in pairs if name == "token"]
    return len(sent) == 1 and is_one_of(sent[0].encode("utf-8", "replace"), [known])


def signature(key: bytes, *parts: bytes) -> bytes:
    """Return the HMAC-SHA256 of the concatenated parts."""
    return hmac.new(key, b"".join(parts), hashlib.sha256).digest()


def same(sent: str, expected: str) -> bool:
    """Return whether a header has the expected value, which is ASCII."""
    return hmac.compare_digest(sent.encode("latin-1", "replace"), expected.encode("ascii"))


def unix_time(text: str) -> datetime:
    """Parse seconds since 1970.

    Raises:
        Unauthenticated: it is not such a number.
    """
    if not (text.isascii() and text.isdigit() and len(text) <= 10):
        raise Unauthenticated("The time of the message must be a number of seconds.")
    return datetime.fromtimestamp(int(text), UTC)


def fresh(sent: datetime, now: datetime, window: timedelta = WINDOW) -> datetime:
    """Check that a message was sent at about this time, and return when.

    Raises:
        Unauthenticated: it is outside the window, on either side.
    """
    if abs(now - sent) > window:
        raise Unauthenticated("The message must have been sent within the last minutes, and not in the future.")
    return sent
