"""An issuer of tokens on loopback: keys made for this run, a discovery document, and any misbehaviour on demand."""

from __future__ import annotations

import base64
import functools
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self, TypeAlias

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from handler.inbound.auth import oidc
from tests.support.http_server import Handler, HttpServer

DISCOVERY = "/.well-known/openid-configuration"
JWKS = "/keys"
NOW = 1_800_000_000
AUDIENCE = "serving.knative.dev/service/ops/bms-autostop"
SUBJECT = "system:serviceaccount:ops:nightly"

PrivateKey: TypeAlias = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


@functools.cache
def rsa_key(name: str, bits: int = 2048) -> rsa.RSAPrivateKey:
    """An RSA key that this run of the tests calls by this name."""
    del name
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


@functools.cache
def ec_key(curve: str = "secp256r1") -> ec.EllipticCurvePrivateKey:
    """A key on a curve."""
    return ec.generate_private_key({"secp256r1": ec.SECP256R1, "secp384r1": ec.SECP384R1}[curve]())


def jwk(key: PrivateKey, kid: str, **more: object) -> dict[str, Any]:
    """The public half of a key as an issuer publishes it."""
    if isinstance(key, rsa.RSAPrivateKey):
        return {**RSAAlgorithm.to_jwk(key.public_key(), as_dict=True), "kid": kid, "use": "sig", **more}
    return {**ECAlgorithm.to_jwk(key.public_key(), as_dict=True), "kid": kid, "use": "sig", **more}


def claims(**changes: object) -> dict[str, Any]:
    """What a good token says; a claim given as None is left out."""
    made = {
        "iss": "https://issuer.example",
        "aud": [AUDIENCE],
        "sub": SUBJECT,
        "iat": NOW - 60,
        "nbf": NOW - 60,
        "exp": NOW + 3600,
        **changes,
    }
    return {name: value for name, value in made.items() if value is not None}


def token(shown: Mapping[str, Any], key: PrivateKey, kid: str | None = "one", alg: str = "RS256", **header: Any) -> str:
    """A token that PyJWT has signed."""
    named = {"kid": kid, **header} if kid is not None else header
    return jwt.PyJWS().encode(json.dumps(shown).encode(), key, alg, named)


def segment(content: bytes | Mapping[str, Any]) -> str:
    """One part of a token, made by hand."""
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def bearer(text: str) -> dict[str, str]:
    """The header that carries a token."""
    return {"authorization": f"Bearer {text}"}


@dataclass(frozen=True)
class Page:
    """What is at a path."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


class Issuer(HttpServer):
    """Serves what `pages` holds, waits while `open` is not set, and writes down who asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str | None]] = []
        self.pages: dict[str, Page] = {}
        self.open = threading.Event()
        self.open.set()
        issuer = self

        class Answers(Handler):
            def do_GET(self) -> None:
                issuer.asked.append((self.path, self.headers["Authorization"]))
                issuer.open.wait(20)
                page = issuer.pages.get(self.path, Page(status=404))
                self.reply(page.status, page.body, page.headers)

        super().__init__(Answers)
        self.url = self.origin
        self.describe()
        self.publish(jwk(rsa_key("first"), "one"))

    def describe(self, **changes: object) -> None:
        """Put the discovery document there, with changes; what is None is left out."""
        document = {"issuer": self.url, "jwks_uri": self.url + JWKS, **changes}
        shown = {name: value for name, value in document.items() if value is not None}
        self.pages[DISCOVERY] = Page(json.dumps(shown).encode())

    def publish(self, *keys: object) -> None:
        """Have these keys, and no others."""
        self.pages[JWKS] = Page(json.dumps({"keys": keys}).encode())

    def count(self, path: str = JWKS) -> int:
        return sum(asked[0] == path for asked in self.asked)

    def environ(self, **changes: str) -> dict[str, Any]:
        """The settings with which its tokens open."""
        return {
            "AUTOSTOP_INBOUND_AUTH": "oidc",
            "AUTOSTOP_OIDC_ISSUER": self.url,
            "AUTOSTOP_OIDC_AUDIENCE": AUDIENCE,
            "AUTOSTOP_OIDC_SUBJECTS": SUBJECT,
            **changes,
        }

    def __enter__(self) -> Self:
        # An issuer of a test before may have had the same port.
        oidc._made.clear()
        return super().__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.open.set()
        super().__exit__(kind, error, trace)
