"""The settings of OpenID Connect."""

from __future__ import annotations

import importlib.util
from datetime import timedelta

import pytest

from handler.settings.oidc import OidcSettings
from handler.settings.stop_servers import from_environ
from tests.settings.environments import PASSWORD, read, violations

OIDC = {
    **PASSWORD,
    "AUTOSTOP_INBOUND_AUTH": "oidc",
    "AUTOSTOP_OIDC_ISSUER": "https://issuer.example",
    "AUTOSTOP_OIDC_AUDIENCE": "https://function.example, second",
    "AUTOSTOP_OIDC_SUBJECTS": "system:serviceaccount:ops:nightly, trigger@project.iam.gserviceaccount.com,",
}


def test_oidc_is_read() -> None:
    """Issuer, audiences and subjects; the leeway is the tolerance for clocks."""
    assert from_environ(OIDC).callers.oidc == OidcSettings(
        issuer="https://issuer.example",
        audiences=frozenset({"https://function.example", "second"}),
        subjects=frozenset({"system:serviceaccount:ops:nightly", "trigger@project.iam.gserviceaccount.com"}),
        leeway=timedelta(seconds=5),
    )
    assert read().callers.oidc is None


@pytest.mark.parametrize(("tolerance", "leeway"), [("0", 0), ("500ms", 0.5), ("30s", 30), ("1m", 60), ("2d", 60)])
def test_at_most_a_minute_of_the_tolerance_counts_for_tokens(tolerance: str, leeway: float) -> None:
    """That of an event may be larger."""
    oidc = from_environ({**OIDC, "AUTOSTOP_CLOCK_TOLERANCE": tolerance}).callers.oidc
    assert oidc is not None
    assert oidc.leeway == timedelta(seconds=leeway)


@pytest.mark.parametrize("empty", ["", " ", ",", " , "])
def test_oidc_needs_an_issuer_an_audience_and_a_subject(empty: str) -> None:
    """An empty list does not mean everyone; all three are named at once."""
    needed = ("AUTOSTOP_OIDC_ISSUER", "AUTOSTOP_OIDC_AUDIENCE", "AUTOSTOP_OIDC_SUBJECTS")
    assert violations({**OIDC, **dict.fromkeys(needed, empty)}) == tuple(
        f"{name} must be set with AUTOSTOP_INBOUND_AUTH=oidc." for name in needed
    )


@pytest.mark.parametrize(
    "url",
    [
        "https://issuer.example",
        "https://issuer.example/a/",
        "http://127.0.0.1:8000",
        "http://localhost",
        "http://[::1]/",
    ],
)
def test_an_issuer_is_an_https_url_or_on_loopback(url: str) -> None:
    """So is the URL of its keys."""
    for name in ("AUTOSTOP_OIDC_ISSUER", "AUTOSTOP_OIDC_JWKS_URL"):
        assert from_environ({**OIDC, name: url}).callers.oidc is not None


@pytest.mark.parametrize(
    "url",
    [
        "http://issuer.example",
        "http://10.0.0.1/",
        "http://127.0.0.1.evil.example",
        "ftp://issuer.example",
        "accounts.google.com",
        "https://",
        "https://user:word@issuer.example",
    ],
)
def test_another_issuer_is_refused(url: str) -> None:
    """When the function starts, and not with the first event."""
    for name in ("AUTOSTOP_OIDC_ISSUER", "AUTOSTOP_OIDC_JWKS_URL"):
        (found,) = violations({**OIDC, name: url})
        assert found.startswith(f"{name} must ")


@pytest.mark.parametrize("url", ["https://issuer.example/?a=b", "https://issuer.example/#a"])
def test_an_issuer_has_no_query(url: str) -> None:
    """The path of the discovery document is appended to it."""
    assert violations({**OIDC, "AUTOSTOP_OIDC_ISSUER": url}) == (
        "AUTOSTOP_OIDC_ISSUER must have neither query nor fragment.",
    )


def test_with_a_url_of_its_keys_an_issuer_may_be_any_text() -> None:
    """As in an old Kubernetes cluster."""
    for place in ("https://10.0.0.1:6443/openid/v1/jwks", "file:///keys/jwks.json"):
        oidc = from_environ(
            {**OIDC, "AUTOSTOP_OIDC_ISSUER": "kubernetes/serviceaccount", "AUTOSTOP_OIDC_JWKS_URL": place}
        ).callers.oidc
        assert oidc is not None
        assert (oidc.issuer, oidc.jwks_url) == ("kubernetes/serviceaccount", place)


@pytest.mark.parametrize("place", ["file:keys.json", "file://host/keys.json", "file:"])
def test_a_file_of_keys_has_an_absolute_path(place: str) -> None:
    """On this machine."""
    (found,) = violations({**OIDC, "AUTOSTOP_OIDC_JWKS_URL": place})
    assert found.startswith("AUTOSTOP_OIDC_JWKS_URL must be the URL of a file")


@pytest.mark.parametrize("missing", ["jwt", "cryptography"])
def test_oidc_needs_its_extra(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says how to get it."""
    real = importlib.util.find_spec
    monkeypatch.setattr("handler.settings.oidc.find_spec", lambda name: None if name == missing else real(name))
    (found,) = violations(OIDC)
    assert "pip install '.[oidc]'" in found


def test_settings_of_oidc_are_ignored_without_it() -> None:
    """One Secret can serve several deployments."""
    oidc = {name: value for name, value in OIDC.items() if name.startswith("AUTOSTOP_OIDC")}
    assert read(**oidc).callers.oidc is None
