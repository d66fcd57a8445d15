"""Access keys and the verification of signatures by the gateway."""

import hmac
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from handler.simulator.identity.model import User
from handler.simulator.identity.signing import Authorization, moment_of, signature
from handler.simulator.messages import Request

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


class AccessKeys:
    """All access keys; safe to use from several threads.

    Args:
        clock: seconds since the epoch.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._holders: dict[str, _Holder] = {}
        self._lock = threading.Lock()

    def add(self, user: User, lifetime: float | None) -> AccessKey:
        """Create a key of a user.

        Args:
            user: the user.
            lifetime: seconds for which a temporary key is valid; None for a permanent one.
        """
        access = "".join(secrets.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") for _ in range(20))
        temporary = lifetime is not None
        key = AccessKey(access, secrets.token_urlsafe(30), secrets.token_urlsafe(900) if temporary else None)
        expires_at = float("inf") if lifetime is None else self._clock() + lifetime
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
    moment = moment_of(request)
    if moment is None or abs(now - moment) > _TOLERANCE:
        return "the date of the signature is not of these minutes"
    if now >= holder.expires_at:
        return "the access key is over"
    if request.header("X-Security-Token") != holder.key.security_token:
        return "the security token is not that of the access key"
    if not hmac.compare_digest(signature(request, authorization.names, holder.key.secret), authorization.signature):
        return "the signature does not fit the request"
    return None
