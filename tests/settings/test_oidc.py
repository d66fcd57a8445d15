"""The settings of callers' tokens: whose are accepted."""

from __future__ import annotations

import importlib.util
from datetime import timedelta

import pytest

from handler.settings.oidc import OidcSettings
from handler.settings.stop_servers import from_environ
from tests.settings.environments import PASSWORD, names, read, violations

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
def test_a_token_is_never_good_for_long_after_its_end(tolerance: str, leeway: float) -> None:
    """A tolerance for clocks may be large; of it a minute counts for tokens."""
    oidc = from_environ({**OIDC, "AUTOSTOP_CLOCK_TOLERANCE": tolerance}).callers.oidc
    assert oidc is not None
    assert oidc.leeway == timedelta(seconds=leeway)


@pytest.mark.parametrize("empty", ["", " ", ",", " , "])
@pytest.mark.parametrize("name", ["AUTOSTOP_OIDC_ISSUER", "AUTOSTOP_OIDC_AUDIENCE", "AUTOSTOP_OIDC_SUBJECTS"])
def test_oidc_needs_an_issuer_an_audience_and_a_subject(name: str, empty: str) -> None:
    """An empty list is a mistake, and does not mean everybody."""
    assert violations({**OIDC, name: empty}) == (f"{name} must be set with AUTOSTOP_INBOUND_AUTH=oidc.",)


def test_all_that_oidc_needs_is_named_at_once() -> None:
    """One start for all three."""
    found = violations({**PASSWORD, "AUTOSTOP_INBOUND_AUTH": "oidc"})
    assert names(found) == [
        "AUTOSTOP_OIDC_ISSUER",
        "AUTOSTOP_OIDC_AUDIENCE",
        "AUTOSTOP_OIDC_SUBJECTS",
    ]


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
def test_an_issuer_is_reached_safely(url: str) -> None:
    """By https, or on this machine."""
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
    """What could be changed on its way, or fails with the first event, fails at the start."""
    for name in ("AUTOSTOP_OIDC_ISSUER", "AUTOSTOP_OIDC_JWKS_URL"):
        (found,) = violations({**OIDC, name: url})
        assert found.startswith(f"{name} must ")


@pytest.mark.parametrize("url", ["https://issuer.example/?a=b", "https://issuer.example/#a"])
def test_an_issuer_has_no_query(url: str) -> None:
    """Nothing could be put behind it."""
    assert violations({**OIDC, "AUTOSTOP_OIDC_ISSUER": url}) == (
        "AUTOSTOP_OIDC_ISSUER must have neither query nor fragment.",
    )


def test_with_the_keys_from_elsewhere_an_issuer_is_only_a_name() -> None:
    """As an old cluster has it."""
    for place in ("https://10.0.0.1:6443/openid/v1/jwks", "file:///keys/jwks.json"):
        oidc = from_environ(
            {**OIDC, "AUTOSTOP_OIDC_ISSUER": "kubernetes/serviceaccount", "AUTOSTOP_OIDC_JWKS_URL": place}
        ).callers.oidc
        assert oidc is not None
        assert (oidc.issuer, oidc.jwks_url) == ("kubernetes/serviceaccount", place)


@pytest.mark.parametrize("place", ["file:keys.json", "file://host/keys.json", "file:"])
def test_a_file_of_keys_has_a_whole_path(place: str) -> None:
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


def test_settings_of_oidc_do_no_harm_without_it() -> None:
    """One Secret can serve several deployments."""
    oidc = {name: value for name, value in OIDC.items() if name.startswith("AUTOSTOP_OIDC")}
    assert read(**oidc).callers.oidc is None
