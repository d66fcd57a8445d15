"""The `AUTOSTOP_OIDC_*` variables: whose tokens count, and for whom. Loaded only if they are asked for."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import timedelta
from importlib.util import find_spec
from urllib.parse import unquote, urlsplit

from handler.values import Reading, http_url

# A tolerance for clocks that is meant for old events must not make tokens last for days.
_MOST_LEEWAY = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class OidcSettings:
    """Whose tokens count.

    Attributes:
        issuer: what `iss` must say.
        audiences: one of them must stand in `aud`.
        subjects: who may call: values of `sub`, verified e-mail addresses, or `azp:` and an application's id.
        leeway: how far the issuer's clock may differ from ours.
        jwks_url: where the keys are, `https:` or `file:`; None for where the issuer's discovery document says.
        ca: file or directory of the authorities that the key server's certificate may come from; None for the usual.
        token_file: file whose content is sent to the key server as a bearer token; None for none.
    """

    issuer: str
    audiences: frozenset[str]
    subjects: frozenset[str]
    leeway: timedelta = timedelta(seconds=5)
    jwks_url: str | None = None
    ca: str | None = None
    token_file: str | None = None


def read_oidc(reading: Reading, tolerance: timedelta) -> OidcSettings:
    """Read the `AUTOSTOP_OIDC_*` variables; what is wrong or missing is noted in `reading`.

    Args:
        tolerance: of clocks in general; a minute of it counts here.
    """
    if find_spec("jwt") is None or find_spec("cryptography") is None:
        reading.faults.append("AUTOSTOP_INBOUND_AUTH: `oidc` needs the extra `oidc`: pip install 'bms-autostop[oidc]'.")
    for name, example in (
        ("AUTOSTOP_OIDC_ISSUER", "what `iss` says in the callers' tokens"),
        ("AUTOSTOP_OIDC_AUDIENCE", "what `aud` says in the callers' tokens"),
        ("AUTOSTOP_OIDC_SUBJECTS", "who may call, as otherwise nobody may"),
    ):
        if not reading.parts(name):
            reading.faults.append(f"{name}: must be set with AUTOSTOP_INBOUND_AUTH=oidc: {example}.")
    place = reading.value("AUTOSTOP_OIDC_JWKS_URL", _place_of_keys, None)
    # With the keys from elsewhere the issuer is only a name, and need not even be a URL.
    issuer = reading.get("AUTOSTOP_OIDC_ISSUER") if place else reading.value("AUTOSTOP_OIDC_ISSUER", _issuer, "")
    return OidcSettings(
        issuer=issuer or "",
        audiences=frozenset(reading.parts("AUTOSTOP_OIDC_AUDIENCE")),
        subjects=frozenset(reading.parts("AUTOSTOP_OIDC_SUBJECTS")),
        leeway=min(tolerance, _MOST_LEEWAY),
        jwks_url=place,
        ca=reading.get("AUTOSTOP_OIDC_CA"),
        token_file=reading.get("AUTOSTOP_OIDC_TOKEN_FILE"),
    )


def is_safe(url: str) -> bool:
    """Whether what comes from a URL cannot be changed on its way: https, or http that does not leave this machine."""
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(parts.hostname or ""))


def file_of(url: str) -> str | None:
    """The path that a `file:` URL names; None if it is of another kind."""
    parts = urlsplit(url)
    return unquote(parts.path) if parts.scheme == "file" else None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _issuer(text: str) -> str:
    url = _safe_url(text)
    if "?" in url or "#" in url:
        raise ValueError("must have neither query nor fragment")
    return url


def _place_of_keys(text: str) -> str:
    if not text.lower().startswith("file:"):
        return _safe_url(text)
    parts = urlsplit(text)
    if parts.netloc or not parts.path.startswith("/"):
        raise ValueError("is no URL of a file, such as file:///keys/jwks.json")
    return text


def _safe_url(text: str) -> str:
    url = http_url(text)
    if not is_safe(url):
        raise ValueError("must be an https URL")
    return url
