"""Access keys, and the verification of requests signed with them by the algorithm `SDK-HMAC-SHA256`.

Source: Huawei Cloud's guide to API signing; `tests/simulator` has a known answer.
"""

import hashlib
import hmac
import math
import re
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Self
from urllib.parse import quote, unquote

from handler.simulator.identity.model import User
from handler.simulator.messages import Request

ALGORITHM = "SDK-HMAC-SHA256"

_AUTHORIZATION = re.compile(
    ALGORITHM
    + r" Access=(?P<access>[^,\s]+), ?SignedHeaders=(?P<names>[^,\s]+), ?Signature=(?P<signature>[0-9a-f]{64})"
)
_UNSIGNED_BODY = "UNSIGNED-PAYLOAD"
_TOLERANCE = 15 * 60.0
_FAILURES_ALLOWED = 5
_LOCKED_FOR = 5 * 60.0


@dataclass(frozen=True, slots=True)
class AccessKey:
    """A key that signs requests.

    Args:
        access: its id, sent with each request.
        secret: signs, and is never sent.
        security_token: of a temporary key, sent with each request; None for a permanent one.
    """

    access: str
    secret: str = field(repr=False)
    security_token: str | None = field(default=None, repr=False)


class BadSignature(Exception):
    """The signature is not valid; the text is the reason, of which the caller gets a part only."""


@dataclass(slots=True)
class _Holder:
    key: AccessKey
    user: User
    expires_at: float
    failures: int = 0
    locked_until: float = 0.0


@dataclass(frozen=True, slots=True)
class Authorization:
    """The `Authorization` header of a signed request.

    Args:
        access: the id of the key.
        names: the signed headers, in lower case.
        signature: 64 hexadecimal digits.
    """

    access: str
    names: tuple[str, ...]
    signature: str

    @classmethod
    def of(cls, request: Request) -> Self | None:
        """Parse the header of a request; None if it has none that is valid."""
        found = _AUTHORIZATION.fullmatch(request.header("Authorization") or "")
        if found is None:
            return None
        return cls(found["access"], tuple(found["names"].lower().split(";")), found["signature"])


def is_signed(request: Request) -> bool:
    """Whether a request is authenticated by a signature; a token takes precedence."""
    return request.header("X-Auth-Token") is None and (request.header("Authorization") or "").startswith(ALGORITHM)


def signature(request: Request, names: tuple[str, ...], secret: str) -> str:
    """Return the signature that a request must have; `names` are the signed headers in lower case and any order."""
    path = "/".join(_encoded(unquote(segment)) for segment in request.target.partition("?")[0].split("/"))
    unsigned_body = request.header("X-Sdk-Content-Sha256") == _UNSIGNED_BODY
    canonical = "\n".join(
        (
            request.method,
            # The signed path ends in a slash, whether or not the path that is sent does.
            path.removesuffix("/") + "/",
            "&".join(f"{_encoded(name)}={_encoded(value)}" for name, value in sorted(request.query)),
            *(f"{name}:{(request.header(name) or '').strip()}" for name in sorted(names)),
            "",
            ";".join(sorted(names)),
            _UNSIGNED_BODY if unsigned_body else hashlib.sha256(request.body).hexdigest(),
        )
    )
    hashed = hashlib.sha256(canonical.encode()).hexdigest()
    text = "\n".join((ALGORITHM, request.header("X-Sdk-Date") or "", hashed))
    return hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()


class AccessKeys:
    """All access keys; safe to use from several threads."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._holders: dict[str, _Holder] = {}
        self._lock = threading.Lock()

    def add(self, user: User, lifetime: float | None) -> AccessKey:
        """Create a key of a user, valid for `lifetime` seconds; None for a permanent one."""
        access = "".join(secrets.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") for _ in range(20))
        temporary = lifetime is not None
        key = AccessKey(access, secrets.token_urlsafe(30), secrets.token_urlsafe(900) if temporary else None)
        expires_at = math.inf if lifetime is None else self._clock() + lifetime
        with self._lock:
            self._holders[access] = _Holder(key, user, expires_at)
        return key

    def verify(self, request: Request) -> User:
        """Return the user who signed a request.

        More than five failures in a row lock the key for five minutes, also for valid signatures.

        Raises:
            BadSignature: it is wrong, incomplete, too old or in the future, or the key is unknown, expired or locked.
        """
        authorization = Authorization.of(request)
        if authorization is None:
            raise BadSignature("the authorization header cannot be read")
        with self._lock:
            holder = self._holders.get(authorization.access)
            if holder is None:
                raise BadSignature("unknown access key")
            now = self._clock()
            if now < holder.locked_until:
                raise BadSignature("the access key is locked")
            if violation := _violation(request, authorization, holder, now):
                holder.failures += 1
                if holder.failures > _FAILURES_ALLOWED:
                    holder.failures = 0
                    holder.locked_until = now + _LOCKED_FOR
                raise BadSignature(violation)
            holder.failures = 0
            return holder.user


def _violation(request: Request, authorization: Authorization, holder: _Holder, now: float) -> str | None:
    """Return why the signature is not valid; None if it is."""
    if missing := {"host", "x-sdk-date"} - set(authorization.names):
        return f"{min(missing)} must be signed"
    try:
        date = datetime.strptime(request.header("X-Sdk-Date") or "", "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return "X-Sdk-Date must be a date of the form YYYYMMDDTHHMMSSZ"
    if abs(now - date.timestamp()) > _TOLERANCE:
        return "X-Sdk-Date must be within 15 minutes of the present"
    if now >= holder.expires_at:
        return "the access key has expired"
    if request.header("X-Security-Token") != holder.key.security_token:
        return "the security token is not that of the access key"
    if not hmac.compare_digest(signature(request, authorization.names, holder.key.secret), authorization.signature):
        return "the signature does not match the request"
    return None


def _encoded(text: str) -> str:
    return quote(text, safe="-_.~")
