"""The settings of `AUTOSTOP_INBOUND_AUTH=oidc`. Loaded only if that is set."""

from __future__ import annotations

import ipaddress
from datetime import timedelta
from importlib.util import find_spec
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from handler.settings.env import Env, Setting, http_url, needs_extra, word_set

# A large tolerance for the times of events must not make tokens valid for days.
_MOST_LEEWAY = timedelta(minutes=1)


class OidcSettings(NamedTuple):
    """The tokens that are accepted.

    Attributes:
        issuer: required value of `iss`.
        audiences: one of them must be in `aud`.
        subjects: who may call: values of `sub`, verified e-mail addresses, or `azp:` and an application's id.
        leeway: how far the issuer's clock may differ from ours.
        jwks_url: of the keys, `https:` or `file:`; None for that of the issuer's discovery document.
        ca: CA bundle, a file or directory, for the certificate of the key server; None for the default.
        token_file: file with the bearer token for the key server; None for none.
    """

    issuer: str
    audiences: frozenset[str]
    subjects: frozenset[str]
    leeway: timedelta = timedelta(seconds=5)
    jwks_url: str | None = None
    ca: str | None = None
    token_file: str | None = None


def is_safe(url: str) -> bool:
    """Return whether responses from a URL cannot be changed on the way: https, or http within this machine."""
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(parts.hostname or ""))


def file_of(url: str) -> str | None:
    """Return the path that a `file:` URL names; None if it is of another kind."""
    parts = urlsplit(url)
    return unquote(parts.path) if parts.scheme == "file" else None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _safe_url(text: str) -> str:
    url = http_url(text)
    if not is_safe(url):
        raise ValueError("must be an https URL")
    return url


def _keys_url(text: str) -> str:
    if not text.lower().startswith("file:"):
        return _safe_url(text)
    parts = urlsplit(text)
    if parts.netloc or not parts.path.startswith("/"):
        raise ValueError("must be the URL of a file, such as file:///keys/jwks.json")
    return text


ISSUER = Setting("AUTOSTOP_OIDC_ISSUER", str, "with `oidc`: `iss` of the callers' tokens")
AUDIENCE = Setting(
    "AUTOSTOP_OIDC_AUDIENCE", word_set, "with `oidc`: `aud` of the callers' tokens; several comma-separated"
)
SUBJECTS = Setting(
    "AUTOSTOP_OIDC_SUBJECTS",
    word_set,
    "with `oidc`: who may call, comma-separated: `sub`, verified `email`, or `azp:` and an application of Entra",
)
JWKS_URL = Setting(
    "AUTOSTOP_OIDC_JWKS_URL",
    _keys_url,
    "`https:` or `file:` URL of the issuer's keys, if it has no discovery",
    unset="by discovery",
)
CA = Setting("AUTOSTOP_OIDC_CA", str, "CA bundle for the issuer's certificate", unset="certifi's")
TOKEN_FILE = Setting("AUTOSTOP_OIDC_TOKEN_FILE", str, "file with the token that the issuer's keys are asked for with")


def read_oidc(env: Env, tolerance: timedelta) -> OidcSettings:
    """Read the settings of OpenID Connect.

    Args:
        env: the environment.
        tolerance: of clocks in general; at most a minute of it counts here.
    """
    if find_spec("jwt") is None or find_spec("cryptography") is None:
        env.note(ISSUER, needs_extra("oidc"))
    for setting in (ISSUER, AUDIENCE, SUBJECTS):
        if not word_set(env.text(setting) or ""):
            env.note(setting, "must be set with AUTOSTOP_INBOUND_AUTH=oidc")
    jwks_url, issuer = env.optional(JWKS_URL), env.value(ISSUER)
    # With the keys from elsewhere the issuer is a name, and need not be a URL.
    if jwks_url is None and word_set(issuer):
        try:
            if {"?", "#"} & set(_safe_url(issuer)):
                raise ValueError("must have neither query nor fragment")
        except ValueError as violation:
            env.note(ISSUER, str(violation))
    return OidcSettings(
        issuer=issuer,
        audiences=env.value(AUDIENCE),
        subjects=env.value(SUBJECTS),
        leeway=min(tolerance, _MOST_LEEWAY),
        jwks_url=jwks_url,
        ca=env.optional(CA),
        token_file=env.optional(TOKEN_FILE),
    )
