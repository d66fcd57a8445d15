"""The key server over real HTTP: which keys are used, and what its failures do."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from jwt import PyJWK
from jwt.algorithms import OKPAlgorithm, RSAAlgorithm

from handler.errors import KeysUnreachable
from handler.http_client import HttpClient
from handler.inbound.auth.key_server import KeyServer
from handler.settings.oidc import OidcSettings
from tests.support.issuer import DISCOVERY, JWKS, Issuer, Page, ec_key, jwk, rsa_key

NO_ANSWER = "gave no response"


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    """An issuer for one test."""
    with Issuer() as running:
        yield running


def server(issuer: Issuer | str, **changes: Any) -> KeyServer:
    """A client of this issuer."""
    url = issuer if isinstance(issuer, str) else issuer.url
    return KeyServer(OidcSettings(**{"issuer": url, "audiences": frozenset(), "subjects": frozenset(), **changes}))


def refused(fetch: KeyServer, seconds: float = 5) -> str:
    """The message of a failed fetch, which must have no address in it."""
    with pytest.raises(KeysUnreachable) as raised:
        fetch(seconds)
    assert "127.0.0.1" not in str(raised.value)
    return str(raised.value)


def used(issuer: Issuer, *entries: object) -> dict[str, str]:
    """Which of these keys are used, and for which algorithm."""
    issuer.publish(*entries)
    keys: Mapping[str, PyJWK] = server(issuer)(5)
    return {kid: key.algorithm_name for kid, key in keys.items()}


def test_the_discovery_document_says_where_the_keys_are(issuer: Issuer) -> None:
    """One request for each of the two."""
    assert set(server(issuer)(5)) == {"one"}
    assert [path for path, _ in issuer.asked] == [DISCOVERY, JWKS]


def test_an_issuer_may_end_in_a_slash(issuer: Issuer) -> None:
    """As Entra's of version 1 does; it is compared with the slash."""
    issuer.describe(issuer=f"{issuer.url}/")
    assert set(server(f"{issuer.url}/")(5)) == {"one"}


def test_a_url_of_the_keys_needs_no_discovery(issuer: Issuer) -> None:
    """No request is made to the issuer."""
    keys = server("https://kubernetes.default.svc.cluster.local", jwks_url=f"{issuer.url}{JWKS}")(5)
    assert (set(keys), issuer.count(DISCOVERY)) == ({"one"}, 0)


def test_keys_may_stand_in_a_file(tmp_path: Path) -> None:
    """Mounted, where pods cannot reach the issuer; read anew each time, so it can be replaced."""
    place = tmp_path / "the keys.json"
    fetch = server("x", jwks_url=place.as_uri())
    assert "FileNotFoundError" in refused(fetch)
    for kid in ("one", "two"):
        place.write_text(json.dumps({"keys": [jwk(rsa_key("first"), kid)]}))
        assert set(fetch(5)) == {kid}
    place.write_text("{")
    assert "must be JSON" in refused(fetch)


# --- which keys are used


def test_keys_for_signatures_are_taken(issuer: Issuer) -> None:
    """Of each kind on the list, for the algorithm that the key names, or the usual one of its kind."""
    plain = jwk(rsa_key("first"), "plain")
    del plain["use"]
    found = used(
        issuer,
        plain,
        jwk(rsa_key("first"), "with", alg="RS256", x5c=["..."], key_ops=["verify"]),
        jwk(rsa_key("first"), "pss", alg="PS512"),
        jwk(ec_key(), "curve"),
        jwk(ec_key("secp384r1"), "larger", alg="ES384"),
    )
    assert found == {"plain": "RS256", "with": "RS256", "pss": "PS512", "curve": "ES256", "larger": "ES384"}


def test_other_keys_are_left_out(issuer: Issuer) -> None:
    """Shared secrets, keys to encrypt with, weak, broken, nameless ones, and what is not a key at all."""
    good = jwk(rsa_key("first"), "good")
    edwards = json.loads(OKPAlgorithm.to_jwk(ed25519.Ed25519PrivateKey.generate().public_key()))
    found = used(
        issuer,
        {"kty": "oct", "kid": "secret", "k": "AAAA", "alg": "HS256"},
        {**edwards, "kid": "edwards"},
        jwk(rsa_key("first"), "encrypts", use="enc"),
        jwk(rsa_key("first"), "signs", key_ops=["sign"]),
        jwk(rsa_key("first"), "operates", key_ops="verify"),
        jwk(rsa_key("small", 1024), "weak"),
        jwk(rsa_key("first"), "confused", alg="HS256"),
        jwk(rsa_key("first"), "none", alg="none"),
        jwk(rsa_key("first"), "odd", alg=5),
        jwk(rsa_key("first"), "crossed", alg="ES256"),
        jwk(ec_key(), "mislabelled", alg="ES384"),
        jwk(ec_key(), "unknown", crv="secp256k1"),
        jwk(ec_key(), "moved", x="AAAA"),
        jwk(rsa_key("first"), "broken", n="!"),
        jwk(rsa_key("first"), "typed", n=5),
        jwk(rsa_key("first"), "even", e="Ag"),
        {"kty": "RSA", "kid": "empty"},
        {**jwk(rsa_key("first"), "x"), "kid": 5},
        {name: value for name, value in good.items() if name != "kid"},
        "text",
        None,
        good,
    )
    assert found == {"good": "RS256"}


def test_of_two_keys_of_one_name_the_first_counts(issuer: Issuer) -> None:
    """A later one cannot take its place."""
    issuer.publish(jwk(rsa_key("first"), "one"), jwk(rsa_key("second"), "one"))
    key = server(issuer)(5)["one"]
    assert key.key.public_numbers() == rsa_key("first").public_key().public_numbers()


def test_a_private_key_that_was_published_is_used_as_a_public_one(issuer: Issuer) -> None:
    """Only the public members are read."""
    issuer.publish({**RSAAlgorithm.to_jwk(rsa_key("first"), as_dict=True), "kid": "one", "key_ops": ["sign", "verify"]})
    assert not hasattr(server(issuer)(5)["one"].key, "sign")


@pytest.mark.parametrize(
    "document", [{}, {"keys": []}, {"keys": {}}, {"keys": None}, {"keys": [{"kty": "oct"}]}], ids=str
)
def test_no_key_at_all_is_an_error(issuer: Issuer, document: object) -> None:
    """An issuer without keys counts as a failure: cached keys still count."""
    issuer.pages[JWKS] = Page(json.dumps(document).encode())
    assert "no key that can be used" in refused(server(issuer))


# --- failures of the key server


@pytest.mark.parametrize("path", [DISCOVERY, JWKS])
@pytest.mark.parametrize("status", [204, 301, 302, 307, 308, 400, 401, 403, 404, 429, 500, 503])
def test_anything_but_200_is_an_error(issuer: Issuer, path: str, status: int) -> None:
    """A redirect most of all: it is not followed."""
    issuer.pages["/elsewhere"] = issuer.pages[path]
    issuer.pages[path] = Page(status=status, headers={"Location": f"{issuer.url}/elsewhere", "Retry-After": "7"})
    with pytest.raises(KeysUnreachable, match=f"HTTP {status}") as raised:
        server(issuer)(5)
    assert raised.value.retry_after == 7
    assert issuer.count("/elsewhere") == 0


@pytest.mark.parametrize("path", [DISCOVERY, JWKS])
@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"\xff\xfe", b"[" * 100_000, b"[]", b"null", b'"text"', b'{"a": NaN}']
)
def test_random_input_is_an_error(issuer: Issuer, path: str, body: bytes) -> None:
    """Not JSON, nested without end, or not an object."""
    issuer.pages[path] = Page(body)
    assert refused(server(issuer)).startswith("The document of the key server must ") or b"NaN" in body


@pytest.mark.parametrize("path", [DISCOVERY, JWKS])
def test_an_answer_of_more_than_a_megabyte_is_not_read_to_its_end(issuer: Issuer, path: str) -> None:
    """It is an error like any other."""
    issuer.pages[path] = Page(b'{"keys": "' + b"x" * 1024 * 1024 + b'"}')
    assert NO_ANSWER in refused(server(issuer))


@pytest.mark.parametrize(
    "headers", [{"Content-Length": "99999"}, {"Content-Encoding": "gzip"}, {"Content-Length": "x"}]
)
def test_an_answer_that_is_cut_or_mislabelled_is_an_error(issuer: Issuer, headers: dict[str, str]) -> None:
    """Half a document is not used."""
    issuer.pages[JWKS] = Page(b'{"keys": []}', headers={"Connection": "close", **headers})
    refused(server(issuer), 1)


def test_the_time_is_for_both_requests_together(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the first one took is not there for the second."""
    now = [100.0]
    given: list[float] = []
    send = HttpClient.send

    def slow(client: HttpClient, *args: Any, **options: Any) -> Any:
        given.append(options["timeout"])
        answer = send(client, *args, **options)
        now[0] += 3.0
        return answer

    monkeypatch.setattr(HttpClient, "send", slow)
    settings = OidcSettings(issuer.url, frozenset(), frozenset())
    assert set(KeyServer(settings, lambda: now[0])(5)) == {"one"}
    assert given == [5.0, 2.0]


def test_an_answer_that_does_not_come_or_drips_is_not_waited_for(issuer: Issuer) -> None:
    """A byte at a time keeps no connection alive for longer than the time that there is."""
    issuer.open.clear()
    assert NO_ANSWER in refused(server(issuer), 0.2)
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip() -> None:
            line, _ = listener.accept()
            with line, suppress(OSError):
                line.recv(65536)
                line.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
                while not stop.wait(0.02):
                    line.sendall(b" ")

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            assert "timeout" in refused(server(f"http://127.0.0.1:{listener.getsockname()[1]}"), 0.3)
        finally:
            stop.set()
            thread.join()


def test_no_listener_is_an_error() -> None:
    """No connection, or no such host, or no such certificate authority."""
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unheard.getsockname()[1]}"
        assert NO_ANSWER in refused(server(url))
    assert NO_ANSWER in refused(server("https://issuer.invalid"))
    assert "ca-file-unreadable" in refused(server("https://127.0.0.1:1", ca="/nowhere/ca.pem"))


def test_plain_http_is_not_spoken_where_tls_was_asked_for(issuer: Issuer) -> None:
    """No fall-back."""
    assert NO_ANSWER in refused(server(issuer.url.replace("http:", "https:")))
    assert issuer.asked == []


# --- the discovery document


def test_another_issuers_document_is_an_error(issuer: Issuer) -> None:
    """Compared exactly, as OpenID Connect demands; or it is unknown whose keys these are."""
    for name in (None, "", "https://issuer.example", issuer.url.upper(), f"{issuer.url}/", 5, [issuer.url]):
        issuer.describe(issuer=name)
        assert "must be of the issuer" in refused(server(issuer))
    assert issuer.count(JWKS) == 0


@pytest.mark.parametrize(
    "url",
    [
        *(None, 5, "", ["https://a"], "https://a\nb", "https://\u00e4", "\x00"),
        "http://issuer.example/keys",
        "http://169.254.169.254/latest",
        "http://127.0.0.1.evil.example/",
        "http://localhost@evil.example/",
        "file:///etc/keys.json",
        "ftp://issuer.example/keys",
        "//issuer.example/keys",
        "/keys",
    ],
)
def test_keys_come_from_an_https_url(issuer: Issuer, url: object) -> None:
    """Or, for an issuer on this machine, from http on this machine; never from a file."""
    issuer.describe(jwks_uri=url)
    assert re.search("must have a jwks_uri|must be an https URL", refused(server(issuer)))
    assert issuer.count(JWKS) == 0


def test_a_remote_issuer_cannot_name_a_url_of_this_machine(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its document may name https only."""
    document = json.dumps({"issuer": "https://issuer.example", "jwks_uri": f"{issuer.url}{JWKS}"}).encode()
    monkeypatch.setattr(KeyServer, "_get", lambda *_: document)
    assert "must be an https URL" in refused(server("https://issuer.example"))


# --- our own token


def test_our_token_goes_to_the_key_server(issuer: Issuer, tmp_path: Path) -> None:
    """To the host of the settings, for both documents; it is read anew each time."""
    file = tmp_path / "token"
    for text in ("first", "second\n"):
        file.write_text(text)
        issuer.asked.clear()
        server(issuer, token_file=str(file))(5)
        assert issuer.asked == [(DISCOVERY, f"Bearer {text.strip()}"), (JWKS, f"Bearer {text.strip()}")]


def test_our_token_goes_nowhere_else(issuer: Issuer, tmp_path: Path) -> None:
    """Not to another host that the discovery document names; that one gets no credentials."""
    file = tmp_path / "token"
    file.write_text("ours")
    with Issuer() as other:
        issuer.describe(jwks_uri=f"{other.url}{JWKS}")
        server(issuer, token_file=str(file))(5)
        assert other.asked == [(JWKS, None)]
        assert issuer.asked == [(DISCOVERY, "Bearer ours")]


@pytest.mark.parametrize("content", [b"two\nlines", b"\xff", None])
def test_a_file_without_a_token_is_an_error(issuer: Issuer, tmp_path: Path, content: bytes | None) -> None:
    """Nothing of it is sent or reported."""
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    refused(server(issuer, token_file=str(file)))
    assert issuer.asked == []
