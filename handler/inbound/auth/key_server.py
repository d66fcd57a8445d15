"""Fetching of an issuer's keys: over https, without redirects, bounded in time and size.

PyJWT's own client follows redirects and has no such bounds. Only keys that tokens may be signed with are used.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from jwt import PyJWK
from jwt.exceptions import PyJWTError

from handler.errors import Cause, KeysUnreachable
from handler.http_client import FAILURES, HttpClient, call_failure, host_of, retry_after
from handler.inbound.cloudevents import strict_json
from handler.settings.oidc import OidcSettings, file_of, is_safe

_CALL = "fetching the issuer's keys"
_MOST_BYTES = 1024 * 1024

_RSA_BITS = range(2048, 16385)
# What a key of each kind may sign with. Symmetric algorithms and `none` are not among them.
_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_CURVES = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}
ALGORITHMS = (*_RSA, *_CURVES.values())


class KeyServer:
    """The key server of an issuer: at the URL of the settings, or at that of its discovery document."""

    def __init__(self, settings: OidcSettings, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._monotonic = monotonic

    def __call__(self, seconds: float) -> Mapping[str, PyJWK]:
        """Fetch the keys.

        Args:
            seconds: for the whole fetch.

        Returns:
            The keys by their id, without those that tokens must not be signed with.

        Raises:
            KeysUnreachable: no valid key arrived in time.
        """
        until = self._monotonic() + seconds
        url = self._settings.jwks_url or self._discover(until)
        path = file_of(url)
        entries = _object(_file(path) if path else self._get(url, until)).get("keys")
        keys: dict[str, PyJWK] = {}
        for entry in entries if isinstance(entries, list) else ():
            key = _usable(entry) if isinstance(entry, dict) else None
            if key is not None and isinstance(key.key_id, str):
                keys.setdefault(key.key_id, key)
        if not keys:
            raise KeysUnreachable("The key server has no key that can be used.")
        return keys

    def _discover(self, until: float) -> str:
        issuer = self._settings.issuer
        document = _object(self._get(issuer.rstrip("/") + "/.well-known/openid-configuration", until))
        if document.get("issuer") != issuer:
            raise KeysUnreachable("The discovery document must be of the issuer AUTOSTOP_OIDC_ISSUER.")
        url = document.get("jwks_uri")
        if not isinstance(url, str) or not url.isascii() or not url.isprintable():
            raise KeysUnreachable("The discovery document must have a jwks_uri.")
        # An issuer that is reached over TLS cannot send us to this machine's own ports.
        if not url.startswith("https://") and not (issuer.startswith("http://") and is_safe(url)):
            raise KeysUnreachable("The jwks_uri of the discovery document must be an https URL.")
        return url

    def _get(self, url: str, until: float) -> bytes:
        # A request is made every few minutes, so no connection is kept.
        client = HttpClient(verify=self._settings.ca or True, pool=1, monotonic=self._monotonic)
        try:
            status, headers, body = client.send(
                "GET",
                url,
                headers={"Accept": "application/json", **self._authorization(url)},
                timeout=max(until - self._monotonic(), 0.1),
                max_body=_MOST_BYTES,
            )
        except (*FAILURES, ValueError) as failure:
            cause = Cause(_CALL, host_of(url), None, call_failure(failure))
            raise KeysUnreachable(f"The key server gave no response ({cause.failure}).", cause=cause) from None
        finally:
            client.close()
        if status != 200:
            raise KeysUnreachable(
                f"The key server did not give its keys (HTTP {status}).",
                retry_after=retry_after(headers),
                cause=Cause(_CALL, host_of(url), status, None),
            )
        return body

    def _authorization(self, url: str) -> dict[str, str]:
        """Return the header with our own token, for the host that the settings name and no other."""
        path = self._settings.token_file
        if not path or urlsplit(url)[:2] != urlsplit(self._settings.jwks_url or self._settings.issuer)[:2]:
            return {}
        # Read anew each time: Kubernetes renews it in place.
        token = _file(path).decode("latin-1").strip()
        if not token.isascii() or not token.isprintable():
            raise KeysUnreachable("AUTOSTOP_OIDC_TOKEN_FILE must hold a token.")
        return {"Authorization": f"Bearer {token}"}


def _file(path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            return file.read(_MOST_BYTES)
    except OSError as failure:
        raise KeysUnreachable(f"A file of the settings cannot be read ({type(failure).__name__}).") from None


def _object(body: bytes) -> dict[str, object]:
    try:
        document = strict_json.loads(body)
    except ValueError as error:
        raise KeysUnreachable(f"The document of the key server {error}.") from None
    if not isinstance(document, dict):
        raise KeysUnreachable("The document of the key server must be a JSON object.")
    return document


def _usable(entry: dict[str, object]) -> PyJWK | None:
    """Return a key that tokens may be signed with, of its public members alone; None for any other."""
    operations = entry.get("key_ops", ["verify"])
    if entry.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        return None
    match entry.get("kty"), entry.get("crv"):
        case "RSA", None:
            allowed: tuple[str, ...] = _RSA
            members: tuple[str, ...] = ("kid", "kty", "n", "e")
        case "EC", str(curve):
            allowed = (_CURVES.get(curve, ""),)
            members = ("kid", "kty", "crv", "x", "y")
        case _:
            return None
    algorithm = entry.get("alg", allowed[0])
    if not isinstance(algorithm, str) or not algorithm or algorithm not in allowed:
        return None
    try:
        key = PyJWK({name: entry[name] for name in members}, algorithm)
    except (PyJWTError, KeyError, ValueError, TypeError):
        return None
    return key if algorithm not in _RSA or key.key.key_size in _RSA_BITS else None
