"""Callers that authenticate by OpenID Connect: a JWT of the issuer, for this function, of a subject that may call.

Knative, Eventarc, Pub/Sub and Event Grid send one with each event if they are configured to. PyJWT checks signature and
claims, in whole seconds of the clock of this machine; who may call is decided here.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from typing import Any

from jwt import PyJWK, PyJWT, exceptions, get_unverified_header

from handler.errors import CallerForbidden, Unauthenticated
from handler.inbound.auth.key_server import ALGORITHMS, KeyServer
from handler.inbound.auth.key_set import Keys
from handler.inbound.cloudevents import strict_json
from handler.settings.oidc import OidcSettings

_TOKEN = re.compile(r"bearer +([\w-]+\.[\w-]+\.[\w-]+) *", re.ASCII | re.IGNORECASE)
_MAX_TOKEN = 16 * 1024
# Google writes its name with and without the scheme.
_OTHER_NAMES = {"https://accounts.google.com": "accounts.google.com"}
# By class, as PyJWT's own messages quote the token.
_REASONS: Mapping[type[Exception], str] = {
    exceptions.ExpiredSignatureError: "The token must not have expired.",
    exceptions.ImmatureSignatureError: "The token must be valid already (`nbf`, `iat`).",
    exceptions.InvalidAudienceError: "The token must be for an audience of AUTOSTOP_OIDC_AUDIENCE.",
    exceptions.InvalidIssuerError: "The token must be of AUTOSTOP_OIDC_ISSUER.",
    exceptions.MissingRequiredClaimError: "The token must have the claims `iss`, `aud` and `exp`.",
    exceptions.InvalidSignatureError: "The token must be signed by the issuer.",
}
_lock = threading.Lock()
_made: dict[OidcSettings, TokenVerifier] = {}


class _Jwt(PyJWT):
    """PyJWT with claims that are read strictly: no name twice, and times that are numbers."""

    def _decode_payload(self, decoded: dict[str, Any]) -> dict[str, Any]:
        """Parse the claims. PyJWT documents this method as one to override."""
        try:
            claims = strict_json.loads(decoded["payload"])
        except ValueError as error:
            raise exceptions.DecodeError(f"The payload {error}.") from None
        if not isinstance(claims, dict):
            raise exceptions.DecodeError("The payload must be a JSON object.")
        for name in {"exp", "nbf", "iat"} & claims.keys():
            # PyJWT would take `int()` of it, which also takes text and booleans.
            if type(claims[name]) not in (int, float) or abs(claims[name]) > 1e12:
                raise exceptions.DecodeError("The payload must have numbers as times.")
        return claims


class TokenVerifier:
    """Checks tokens of one issuer."""

    def __init__(self, settings: OidcSettings, keys: Keys) -> None:
        self._settings = settings
        self._keys = keys
        self._jwt = _Jwt()

    def check(self, headers: Mapping[str, str], until: float = float("inf")) -> frozenset[str]:
        """Authenticate a caller, and check that it may call.

        Args:
            headers: names in lower case.
            until: how long keys may be waited for, on the monotonic clock.

        Returns:
            What the caller is known as, in the form of AUTOSTOP_OIDC_SUBJECTS.

        Raises:
            Unauthenticated: no token, or one that is not valid.
            CallerForbidden: a valid token of a subject that is not listed.
            KeysUnreachable: whether it is valid cannot be determined now.
        """
        bearer = _TOKEN.fullmatch(headers.get("authorization", ""))
        if bearer is None or len(bearer[1]) > _MAX_TOKEN:
            raise Unauthenticated("A bearer token of the issuer is required.")
        try:
            claims = self._authenticated(bearer[1], until)
        except exceptions.PyJWTError as error:
            raise Unauthenticated(_REASONS.get(type(error), "The token must be a well-formed JWT.")) from None
        names = _names(claims)
        if names.isdisjoint(self._settings.subjects):
            raise CallerForbidden("The caller is not one of AUTOSTOP_OIDC_SUBJECTS.")
        return names

    def ready(self) -> None:
        """Raise KeysUnreachable if there are no keys that tokens can be checked with."""
        self._keys.ready()

    def _authenticated(self, token: str, until: float) -> Mapping[str, object]:
        header = get_unverified_header(token)
        kid = header.get("kid")
        # A key is chosen by its id and bound to its algorithm: the token cannot choose how it is checked.
        if header.get("alg") not in ALGORITHMS or "crit" in header or not isinstance(kid, str):
            raise Unauthenticated("The token must be signed with an accepted algorithm, and name its key.")
        # First without the signature, so that no keys are fetched for a token that is not accepted anyway.
        self._claims(token)
        key = self._keys.find(kid, until)
        if key is None:
            raise Unauthenticated("The token must be signed with a key of the issuer.")
        return self._claims(token, key)

    def _claims(self, token: str, key: PyJWK | None = None) -> Mapping[str, object]:
        issuer = self._settings.issuer
        options: Any = {
            "require": ["iss", "aud", "exp"],
            "verify_signature": key is not None,
            # One by one: without the signature PyJWT checks only what is listed.
            **dict.fromkeys(("verify_iss", "verify_aud", "verify_exp", "verify_nbf", "verify_iat"), True),
            # A subject that may not call is a 403 and not a 401, and `jti` is not used.
            **dict.fromkeys(("verify_sub", "verify_jti"), False),
        }
        return self._jwt.decode(
            token,
            key or "",
            options=options,
            issuer=[issuer, _OTHER_NAMES.get(issuer, issuer)],
            audience=self._settings.audiences,
            leeway=self._settings.leeway,
        )


def verifier_for(settings: OidcSettings) -> TokenVerifier:
    """Return the verifier of these settings, which all callers share so that keys are fetched once."""
    with _lock:
        if settings not in _made:
            _made[settings] = TokenVerifier(settings, Keys(KeyServer(settings)))
        return _made[settings]


def _names(claims: Mapping[str, object]) -> frozenset[str]:
    names = {_text(claims, "sub")}
    # Some issuers let a user sign up with the address of another person: it counts once it is verified.
    if claims.get("email_verified") is True:
        names.add(_text(claims, "email"))
    # Entra's name for the application that requested the token: `appid` in version 1, `azp` in version 2. It did so
    # for itself, and not for its user, if object and subject are the same and no scope is given.
    if "scp" not in claims and "" != _text(claims, "oid") == _text(claims, "sub"):
        names.add(f"azp:{_text(claims, 'azp' if 'azp' in claims else 'appid')}")
    return frozenset(names)


def _text(claims: Mapping[str, object], name: str) -> str:
    """Return a claim that is text; empty, which no setting can be, if it is not."""
    value = claims.get(name)
    return value if isinstance(value, str) else ""
