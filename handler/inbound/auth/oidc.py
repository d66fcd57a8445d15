"""Callers that prove themselves by OpenID Connect: a JWT of the issuer, for this function, of somebody who may call.

Knative, Eventarc, Pub/Sub and Event Grid send one with each event if they are told to. PyJWT checks the signature; what
the claims say is checked here, by a clock that can be given, and whatever JSON somebody may have put there.
"""

from __future__ import annotations

import base64
import re
import threading
import time
from collections.abc import Callable, Mapping

from jwt.api_jws import PyJWS
from jwt.exceptions import PyJWTError

from handler.errors import CallerForbidden, Unauthenticated
from handler.inbound.auth.key_server import ALGORITHMS, KeyServer
from handler.inbound.auth.key_set import Keys
from handler.inbound.cloudevents import strict_json
from handler.oidc_settings import OidcSettings

_TOKEN = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)", re.ASCII)
_LONGEST_TOKEN = 16 * 1024
# Google is seen to write its name with the scheme and without it.
_OTHER_NAMES = {"https://accounts.google.com": "accounts.google.com"}

_lock = threading.Lock()
_made: dict[OidcSettings, TokenVerifier] = {}


class TokenVerifier:
    """Checks tokens of one issuer.

    Args:
        keys: its keys.
        now: seconds since 1970.
    """

    def __init__(self, settings: OidcSettings, keys: Keys, now: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._keys = keys
        self._now = now
        self._issuers = {settings.issuer, _OTHER_NAMES.get(settings.issuer, settings.issuer)}
        self._jws = PyJWS(ALGORITHMS)

    def check(self, headers: Mapping[str, str], until: float = float("inf")) -> None:
        """Let the caller pass, or don't.

        Args:
            headers: lower-case names.
            until: how long keys may be waited for, on the monotonic clock.

        Raises:
            CallerUnproven: no token, or a bad one.
            CallerForbidden: a good token of somebody who is not on the list.
            KeysUnreachable: whether it is good cannot be told now.
        """
        scheme, _, token = headers.get("authorization", "").partition(" ")
        token = token.strip()
        parts = _TOKEN.fullmatch(token)
        if scheme.lower() != "bearer" or parts is None or len(token) > _LONGEST_TOKEN:
            raise Unauthenticated("A token of the issuer that is trusted here is needed.")
        header, claims = (_members(part) for part in parts.groups()[:2])
        _decoded(parts[3])
        kid = header.get("kid")
        # A key is chosen by its id and bound to its algorithm: the token cannot choose how it is checked.
        if header.get("alg") not in ALGORITHMS or "crit" in header or not isinstance(kid, str):
            raise Unauthenticated("The token is not signed in a way that is accepted here.")
        # Before the signature, so that a token that is no good either way has no keys fetched for it.
        self._check_claims(claims)
        key = self._keys.find(kid, until)
        if key is None:
            raise Unauthenticated("The token is signed with a key that the issuer does not have.")
        try:
            self._jws.decode_complete(token, key, [key.algorithm_name])
        except PyJWTError:
            raise Unauthenticated("The token's signature is wrong.") from None
        if not self._may_call(claims):
            raise CallerForbidden("The caller is not one of AUTOSTOP_OIDC_SUBJECTS.")

    def ready(self) -> None:
        """Raise KeysUnreachable unless tokens can be checked."""
        self._keys.ready()

    def _check_claims(self, claims: Mapping[str, object]) -> None:
        audience = claims.get("aud")
        named = audience if isinstance(audience, list) else [audience]
        now, leeway = self._now(), self._settings.leeway.total_seconds()
        if _text(claims, "iss") not in self._issuers:
            raise Unauthenticated("The token is of another issuer.")
        if not any(isinstance(name, str) and name in self._settings.audiences for name in named):
            raise Unauthenticated("The token is for another audience.")
        expiry = _time(claims, "exp")
        if expiry is None:
            raise Unauthenticated("The token does not say when it expires.")
        if now >= expiry + leeway:
            raise Unauthenticated("The token has expired.")
        for name in ("nbf", "iat"):
            begin = _time(claims, name)
            if begin is not None and begin > now + leeway:
                raise Unauthenticated("The token is from the future.")

    def _may_call(self, claims: Mapping[str, object]) -> bool:
        names = {_text(claims, "sub")}
        # Anybody can sign up with somebody else's address at some issuers: it counts once it is verified.
        if claims.get("email_verified") is True:
            names.add(_text(claims, "email"))
        # Entra's name for the application that asked for the token: `appid` in version 1, `azp` in version 2. It did so
        # for itself, and not for whoever uses it, if object and subject are the same and no scope is given.
        if "scp" not in claims and "" != _text(claims, "oid") == _text(claims, "sub"):
            names.add(f"azp:{_text(claims, 'azp' if 'azp' in claims else 'appid')}")
        return not names.isdisjoint(self._settings.subjects)


def verifier_for(settings: OidcSettings) -> TokenVerifier:
    """The one proof that all who have these settings share, so that keys are fetched once."""
    with _lock:
        if settings not in _made:
            _made[settings] = TokenVerifier(settings, Keys(KeyServer(settings)))
        return _made[settings]


def _decoded(part: str) -> bytes:
    raw = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)) if len(part) % 4 != 1 else b""
    if base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii") != part:
        # The last character has bits that decoding drops: one token, one way to write it.
        raise Unauthenticated("The token is malformed.")
    return raw


def _members(part: str) -> dict[str, object]:
    try:
        document = strict_json.loads(_decoded(part))
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise Unauthenticated("The token is malformed.")
    return document


def _text(claims: Mapping[str, object], name: str) -> str:
    """A claim's text; empty if it is none, which no setting can be."""
    value = claims.get(name)
    return value if isinstance(value, str) else ""


def _time(claims: Mapping[str, object], name: str) -> float | None:
    """A claim's seconds since 1970; None if it is not there."""
    if name not in claims:
        return None
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e12:
        raise Unauthenticated("The token has a time that is none.")
    return float(value)
