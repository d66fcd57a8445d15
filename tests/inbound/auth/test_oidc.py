"""Callers that authenticate by a token of an issuer: which are accepted, and which are not."""

from __future__ import annotations

import hashlib
import hmac
import json
from datetime import datetime, timedelta, tzinfo
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from handler.errors import AutostopError, CallerForbidden, KeysUnreachable, Unauthenticated
from handler.inbound.auth.key_server import _usable
from handler.inbound.auth.key_set import Keys
from handler.inbound.auth.oidc import TokenVerifier
from handler.settings.oidc import OidcSettings
from tests.support.issuer import AUDIENCE, NOW, SUBJECT, bearer, claims, ec_key, jwk, rsa_key, segment, token

ISSUER = "https://issuer.example"
APP = "2f1d6c3e-0000-4000-8000-00000000a991"
OBJECT = "2f1d6c3e-0000-4000-8000-0000000000b1"
MARK = "marked-in-the-token"
HEADER = {"alg": "RS256", "kid": "one"}


class _Clock(datetime):
    @classmethod
    def now(cls, tz: tzinfo | None = None) -> _Clock:
        """The time that the tests' claims are made for."""
        return cls.fromtimestamp(NOW, tz)


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jwt.api_jwt, "datetime", _Clock)


def verifier(*published: dict[str, Any], **changes: Any) -> TokenVerifier:
    """A verifier whose issuer has these keys, or else one RSA key called `one`."""
    keys = {}
    for entry in published or (jwk(rsa_key("first"), "one"),):
        key = _usable(entry)
        assert key is not None
        keys[entry["kid"]] = key
    settings = OidcSettings(
        **{
            "issuer": ISSUER,
            "audiences": frozenset({AUDIENCE}),
            "subjects": frozenset({SUBJECT}),
            "leeway": timedelta(seconds=5),
            **changes,
        }
    )
    return TokenVerifier(settings, Keys(lambda _: keys))


def verdict(sent: str, by: TokenVerifier | None = None) -> type[AutostopError] | None:
    """The error for a token, which repeats nothing of it; None if it is accepted."""
    try:
        (by or verifier()).check(bearer(sent))
    except AutostopError as error:
        shown, kind = str(error), type(error)
    else:
        return None
    assert MARK not in shown
    assert not sent or sent not in shown
    return kind


def unsigned(header: object, payload: object, signature: str = "AAAA") -> str:
    """A token made by hand."""
    parts = (part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, payload))
    return ".".join([*map(segment, parts), signature])


def good(**changes: Any) -> str:
    """A valid token, but for the changes."""
    return token(claims(**changes), rsa_key("first"))


# --- accepted tokens


@pytest.mark.parametrize(
    ("entry", "alg"),
    [
        (lambda: (rsa_key("first"), jwk(rsa_key("first"), "one")), "RS256"),
        (lambda: (rsa_key("first"), jwk(rsa_key("first"), "one", alg="PS256")), "PS256"),
        (lambda: (ec_key(), jwk(ec_key(), "one")), "ES256"),
        (lambda: (ec_key("secp384r1"), jwk(ec_key("secp384r1"), "one", alg="ES384")), "ES384"),
    ],
    ids=["RS256", "PS256", "ES256", "ES384"],
)
def test_a_token_of_the_issuer_is_accepted(entry: Any, alg: str) -> None:
    """Signed with the algorithm that its key is for."""
    key, published = entry()
    assert verdict(token(claims(), key, alg=alg), verifier(published)) is None


def test_pyjwt_and_this_verifier_accept_the_same_tokens() -> None:
    """Its tokens are accepted here, and it accepts ours."""
    sent = jwt.encode(claims(), rsa_key("first"), algorithm="RS256", headers={"kid": "one"})
    assert verdict(sent) is None
    read = jwt.decode(good(), rsa_key("first").public_key(), ["RS256"], audience=AUDIENCE, issuer=ISSUER)
    assert read["sub"] == SUBJECT


@pytest.mark.parametrize("header", ["bearer {}", "BEARER {}", "Bearer   {} "])
def test_the_scheme_is_read_as_http_has_it(header: str) -> None:
    """In any case, with spaces."""
    verifier().check({"authorization": header.format(good())})


@pytest.mark.parametrize("shown", [AUDIENCE, [AUDIENCE], ["another", AUDIENCE]])
def test_the_audience_is_one_or_many(shown: object) -> None:
    """It is enough that one of them is ours; a function can have an old and a new name."""
    assert verdict(good(aud=shown)) is None
    assert verdict(good(aud=shown), verifier(audiences=frozenset({"https://a.example", AUDIENCE}))) is None


@pytest.mark.parametrize(
    ("ours", "sent", "outcome"),
    [
        # Google's name is known with and without scheme; the name of another issuer is compared exactly.
        ("https://accounts.google.com", "https://accounts.google.com", None),
        ("https://accounts.google.com", "accounts.google.com", None),
        (ISSUER, "issuer.example", Unauthenticated),
        (ISSUER, "accounts.google.com", Unauthenticated),
        # Tokens of version 1 and 2 of Entra have different issuers.
        ("https://sts.windows.net/t/", "https://sts.windows.net/t/", None),
        ("https://login.microsoftonline.com/t/v2.0", "https://login.microsoftonline.com/t/v2.0", None),
        ("https://login.microsoftonline.com/t/v2.0", "https://sts.windows.net/t/", Unauthenticated),
    ],
)
def test_the_issuer_is_the_one_that_the_settings_name(ours: str, sent: str, outcome: object) -> None:
    """No other counts."""
    assert verdict(good(iss=sent), verifier(issuer=ours)) is outcome


# --- claims that are wrong, one at a time


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": None},
        {"iss": f"{ISSUER}/"},
        {"iss": ISSUER.upper()},
        {"iss": [ISSUER]},
        {"iss": MARK},
        {"aud": None},
        {"aud": MARK},
        {"aud": []},
        {"aud": [[AUDIENCE]]},
        {"aud": [5, None, AUDIENCE]},
        {"aud": {AUDIENCE: 1}},
        {"aud": AUDIENCE.upper()},
        {"aud": 5},
        {"exp": None},
        {"exp": NOW - 3600},
        {"exp": str(NOW + 3600)},
        {"exp": True},
        {"exp": [NOW + 3600]},
        {"exp": 10**400},
        {"exp": -(10**400)},
        {"nbf": NOW + 3600},
        {"nbf": "now"},
        {"iat": NOW + 3600},
        {"iat": {}},
        {"iat": False},
    ],
    ids=str,
)
def test_each_wrong_claim_is_a_refusal(changes: dict[str, Any]) -> None:
    """401, though the signature is right."""
    assert verdict(good(**changes)) is Unauthenticated


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({"exp": NOW - 4}, None),
        ({"exp": NOW - 3.5}, None),
        ({"exp": NOW - 4.5}, Unauthenticated),
        ({"exp": NOW - 5}, Unauthenticated),
        ({"nbf": NOW + 5}, None),
        ({"nbf": NOW + 5.5}, None),
        ({"nbf": NOW + 6}, Unauthenticated),
        ({"iat": NOW + 5}, None),
        ({"iat": NOW + 6}, Unauthenticated),
        ({"nbf": None, "iat": None}, None),
    ],
    ids=str,
)
def test_clocks_may_differ_by_the_leeway_and_no_more(changes: dict[str, Any], outcome: object) -> None:
    """Five whole seconds here, on either side; `nbf` and `iat` may be missing."""
    assert verdict(good(**changes)) is outcome


def test_without_leeway_the_second_counts() -> None:
    """A token has expired in the second that it names."""
    strict = verifier(leeway=timedelta(0))
    assert verdict(good(exp=NOW), strict) is Unauthenticated
    assert verdict(good(exp=NOW + 1, nbf=NOW, iat=NOW), strict) is None


# --- who may call


@pytest.mark.parametrize(
    ("allowed", "changes", "outcome"),
    [
        (SUBJECT, {}, None),
        (SUBJECT, {"sub": "system:serviceaccount:ops:nightly2"}, CallerForbidden),
        (SUBJECT, {"sub": SUBJECT.upper()}, CallerForbidden),
        (SUBJECT, {"sub": None}, CallerForbidden),
        (SUBJECT, {"sub": [SUBJECT]}, CallerForbidden),
        (SUBJECT, {"sub": None, "email": SUBJECT, "email_verified": "true"}, CallerForbidden),
        ("a@p.example", {"email": "a@p.example", "email_verified": True}, None),
        ("a@p.example", {"email": "b@p.example", "email_verified": True}, CallerForbidden),
        ("a@p.example", {"email": "a@p.example", "email_verified": False}, CallerForbidden),
        ("a@p.example", {"email": "a@p.example", "email_verified": "true"}, CallerForbidden),
        ("a@p.example", {"email": "a@p.example", "email_verified": 1}, CallerForbidden),
        ("a@p.example", {"email": "a@p.example"}, CallerForbidden),
        ("a@p.example", {"email": ["a@p.example"], "email_verified": True}, CallerForbidden),
        (f"azp:{APP}", {"azp": APP, "oid": OBJECT, "sub": OBJECT}, None),
        (f"azp:{APP}", {"appid": APP, "oid": OBJECT, "sub": OBJECT}, None),
        (f"azp:{APP}", {"azp": OBJECT, "appid": APP, "oid": OBJECT, "sub": OBJECT}, CallerForbidden),
        (f"azp:{APP}", {"azp": APP, "oid": OBJECT, "sub": OBJECT, "scp": "use"}, CallerForbidden),
        (f"azp:{APP}", {"azp": APP, "oid": OBJECT, "sub": "another"}, CallerForbidden),
        (f"azp:{APP}", {"azp": APP}, CallerForbidden),
        (f"azp:{APP}", {"azp": [APP], "oid": OBJECT, "sub": OBJECT}, CallerForbidden),
        (APP, {"azp": APP, "oid": OBJECT, "sub": OBJECT}, CallerForbidden),
    ],
    ids=str,
)
def test_a_good_token_opens_only_for_who_is_on_the_list(allowed: str, changes: dict[str, Any], outcome: object) -> None:
    """403 else: by subject, verified address, or an application that calls for itself."""
    assert verdict(good(**changes), verifier(subjects=frozenset({"other", allowed}))) is outcome


def test_an_empty_list_allows_no_subject() -> None:
    """The settings refuse it already."""
    assert verdict(good(), verifier(subjects=frozenset())) is CallerForbidden
    assert verdict(good(sub=""), verifier(subjects=frozenset())) is CallerForbidden


# --- malformed and forged tokens


@pytest.mark.parametrize(
    "sent",
    [
        "",
        MARK,
        "a.b",
        "a.b.c.d",
        "..",
        "a..c",
        ".b.c",
        "a.b.",
        "e30.e30.e30",
        "e30=.e30.e30",
        "\xe9.e30.e30",
        unsigned(HEADER, b"no json"),
        unsigned(HEADER, b"[]"),
        unsigned(b"[" * 5000, {}),
        unsigned(HEADER, b"[" * 5000),
        unsigned(b"null", {}),
        unsigned(b"\xe9", {}),
        "A" * 20_000 + ".e30.e30",
    ],
    ids=lambda sent: f"{len(sent)}-{sent[:8]!a}",
)
def test_what_is_not_a_token_is_refused(sent: str) -> None:
    """Whatever it is instead."""
    assert verdict(sent) is Unauthenticated


@pytest.mark.parametrize("header", [None, "", "Bearer", "Basic {}", "{}", "Bearer {0} {0}", "Bearer {0},Bearer {0}"])
def test_a_token_comes_once_after_its_scheme(header: str | None) -> None:
    """Any other header is refused."""
    with pytest.raises(Unauthenticated):
        verifier().check({} if header is None else {"authorization": header.format(good())})


def test_the_public_key_is_not_a_shared_secret() -> None:
    """HS256 with the public key: in each form in which a library could have taken it."""
    public = rsa_key("first").public_key()
    for secret in (
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        json.dumps(jwk(rsa_key("first"), "one")).encode(),
        b"",
    ):
        for alg in ("HS256", "hs256", "RS256"):
            signed = unsigned({**HEADER, "alg": alg}, claims(), "").removesuffix(".")
            mac = hmac.new(secret, signed.encode(), hashlib.sha256).digest()
            assert verdict(f"{signed}.{segment(mac)}") is Unauthenticated


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "", None, 5, ["RS256"], {"RS256": 1}])
def test_no_algorithm_is_not_a_signature(alg: object) -> None:
    """With an empty signature, a made-up one, and the one of a good token."""
    for signature in ("", "AAAA", good().rpartition(".")[2]):
        assert verdict(unsigned({**HEADER, "alg": alg}, claims(), signature)) is Unauthenticated


@pytest.mark.parametrize("alg", ["RS384", "RS512", "PS256", "ES256", "EdDSA"], ids=lambda alg: f"{alg} in the header")
def test_a_key_signs_with_one_algorithm(alg: str) -> None:
    """The header does not choose another, not even one that is on the list and was really used."""
    assert verdict(token(claims(), rsa_key("first"), alg="RS512")) is Unauthenticated
    rest = good().partition(".")[2]
    assert verdict(f"{segment({'alg': alg, 'kid': 'one'})}.{rest}") is Unauthenticated


@pytest.mark.parametrize("kid", [None, 5, ["one"], {"one": 1}, True])
def test_a_token_names_its_key(kid: object) -> None:
    """By a text."""
    header = {"alg": "RS256"} if kid is None else {"alg": "RS256", "kid": kid}
    assert verdict(f"{segment(header)}.{good().partition('.')[2]}") is Unauthenticated


@pytest.mark.parametrize("more", [{"crit": ["b64"], "b64": False}, {"crit": ["exp"]}, {"crit": []}], ids=str)
def test_a_header_that_must_be_understood_is_not(more: dict[str, Any]) -> None:
    """An unencoded payload would be another text than the one that was read; here all of it is signed."""
    signed = unsigned({**HEADER, **more}, claims(), "").removesuffix(".")
    signature = rsa_key("first").sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    assert verdict(f"{signed}.{segment(signature)}") is Unauthenticated


def test_a_token_of_more_than_16_kib_is_refused() -> None:
    """No server would accept it as a header."""
    assert verdict(good(more="x" * 10_000)) is None
    assert verdict(good(more="x" * 20_000)) is Unauthenticated


def test_keys_that_the_token_names_itself_are_not_used() -> None:
    """`jwk`, `jku`, `x5u`: signed with another key that it names itself."""
    other = rsa_key("second")
    brought: dict[str, Any] = {
        "jwk": jwk(other, "one"),
        "jku": "https://evil.example/keys",
        "x5u": "https://evil.example/cert",
    }
    assert verdict(token(claims(), other, **brought)) is Unauthenticated


def test_a_token_under_another_key_id_is_refused() -> None:
    """Unknown, empty, or the name of another key that the issuer has."""
    by = verifier(jwk(rsa_key("first"), "one"), jwk(rsa_key("second"), "two"))
    assert [verdict(token(claims(), rsa_key("first"), kid=kid), by) for kid in ("three", "", "two")] == [
        Unauthenticated,
        KeysUnreachable,
        Unauthenticated,
    ]


@pytest.mark.parametrize("part", [0, 1, 2])
def test_a_token_with_any_bit_changed_is_refused(part: int) -> None:
    """Of header, payload and signature; each bit of each character that can be changed to another of the alphabet."""
    by = verifier()
    parts = good().split(".")
    whole, tried = parts[part], 0
    # All of the ends, and every seventh in between: 2048 bits of signature are many.
    for at in {*range(0, len(whole), 7), *range(len(whole) - 4, len(whole))}:
        for bit in range(7):
            other = chr(ord(whole[at]) ^ (1 << bit))
            if not (other.isalnum() or other in "-_"):
                continue
            changed = [*parts]
            changed[part] = whole[:at] + other + whole[at + 1 :]
            assert verdict(".".join(changed), by) in (Unauthenticated, KeysUnreachable)
            tried += 1
    assert tried > 50


def test_parts_of_two_good_tokens_make_no_third() -> None:
    """Header, payload and signature belong together."""
    one, two = good().split("."), good(sub="other", jti="2").split(".")
    for mixed in ((one[0], two[1], one[2]), (one[0], one[1], two[2])):
        assert verdict(".".join(mixed)) is Unauthenticated


def test_a_claim_that_stands_twice_is_none() -> None:
    """Readers do not agree which one counts."""
    twice = b'{"iss": "https://issuer.example", "iss": "x"}'
    sent = jwt.PyJWS().encode(twice, rsa_key("first"), "RS256", {"kid": "one"})
    assert verdict(sent) is Unauthenticated


def test_no_keys_are_fetched_for_a_token_that_is_refused_anyway() -> None:
    """Expired, of another issuer, for another audience: no request is made."""

    def fetch(_: float) -> Any:
        raise AssertionError("a request was made")

    settings = OidcSettings(ISSUER, frozenset({AUDIENCE}), frozenset({SUBJECT}))
    by = TokenVerifier(settings, Keys(fetch))
    for sent in (good(exp=1), good(iss="x"), good(aud="x"), unsigned({**HEADER, "alg": "none"}, claims())):
        assert verdict(sent, by) is Unauthenticated
