"""The HTTP client: proxies, requests, responses and certificates."""

from __future__ import annotations

import gzip
import ssl
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import certifi
import pytest
import requests
import urllib3

from handler import http_client
from handler.http_client import FAILURES, HttpClient, HttpResponse, UnexpectedResponse, retry_after
from tests.support.http_server import Handler, HttpServer

_VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_GZIP = gzip.compress(b"text" * 1000, mtime=0)
_PEM = Path(certifi.where()).read_text()
_PEM = _PEM[_PEM.index("-----BEGIN") : _PEM.index("-----END CERTIFICATE-----") + 26]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in _VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


class Server(HttpServer):
    """A server on loopback, which can be a proxy as well, and a client.

    Attributes:
        client: sends the requests.
        answer: writes a response.
        requests: method and target of each request.
        headers: of each request, names in lower case.
        connections: how many were accepted.
    """

    def __init__(self) -> None:
        self.client = HttpClient()
        self.answer: Callable[[Handler], None] = answer(b"body")
        self.requests: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.connections = 0
        server = self

        class Answers(Handler):
            def setup(self) -> None:
                """Count the connection."""
                server.connections += 1
                super().setup()

            def do_GET(self) -> None:
                """Record the request, then answer."""
                server.requests.append(f"{self.command} {self.path}")
                server.headers.append(self.lower_headers())
                self.read_body()
                server.answer(self)

            do_POST = do_PUT = do_CONNECT = do_GET

        super().__init__(Answers)
        self.address = f"127.0.0.1:{self.port}"
        self.url = self.origin

    def send(self, target: str = "", method: str = "GET", timeout: float = 5, **options: Any) -> HttpResponse:
        """Send a request to this server, or to another URL."""
        url = target if "://" in target else self.url + target
        return self.client.send(method, url, timeout=timeout, **{"headers": {}, **options})


def answer(body: bytes, status: Any = 200, **headers: Any) -> Callable[[Handler], None]:
    """What writes this response."""

    def write(handler: Handler) -> None:
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return write


def endless(*parts: bytes, pause: float = 0.0, **headers: Any) -> Callable[[Handler], None]:
    """Write the parts, and the last of them repeatedly for 10 seconds or until the connection ends."""

    def write(handler: Handler) -> None:
        handler.send_response(200)
        for name, value in {"Content-Length": str(2**40), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        until = time.monotonic() + 10
        try:
            for part in parts[:-1]:
                handler.wfile.write(part)
            while time.monotonic() < until:
                handler.wfile.write(parts[-1])
                time.sleep(pause)
        except OSError:
            handler.close_connection = True

    return write


@pytest.fixture
def server() -> Iterator[Server]:
    """A server and a client for one test."""
    with Server() as running:
        yield running
        running.client.close()


@pytest.mark.parametrize(
    ("name", "before", "credentials"),
    [
        ("http_proxy", "http://ops:word@", "Basic b3BzOndvcmQ="),
        ("HTTP_PROXY", "http://", None),
        ("all_proxy", "", None),
    ],
)
def test_a_proxy_of_the_environment_is_used(
    server: Server, monkeypatch: pytest.MonkeyPatch, name: str, before: str, credentials: str | None
) -> None:
    """In lower and upper case, with or without a scheme, and with the password in its URL."""
    monkeypatch.setenv(name, f"{before}{server.address}")
    assert server.send("http://cloud.test/v3?a=b").body == b"body"
    assert server.requests == ["GET http://cloud.test/v3?a=b"]
    assert server.headers[0].get("proxy-authorization") == credentials


def test_an_https_host_is_reached_through_the_proxy_only(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the proxy refuses, the host is not tried without it."""
    monkeypatch.setenv("https_proxy", f"http://{server.address}")
    server.answer = answer(b"", 403)
    with pytest.raises(FAILURES):
        server.send("https://cloud.test/v3")
    assert server.requests == ["CONNECT cloud.test:443"]


def test_a_host_in_no_proxy_is_reached_directly(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the proxy."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert server.send("/v3").status == 200
    assert server.requests == ["GET /v3"]


def test_the_environment_is_read_once_per_origin(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """And again for another origin."""
    server.send("/")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    server.send("/again")
    with pytest.raises(FAILURES):
        server.send(f"http://localhost:{server.port}/")
    assert server.requests == ["GET /", "GET /again"]


@pytest.mark.parametrize(("head_only", "body"), [(False, b"body"), (False, b""), (True, b"")])
def test_connections_are_kept_and_used_again(server: Server, head_only: bool, body: bytes) -> None:
    """Each complete response gives its connection back."""
    server.answer = answer(body)
    for _ in range(3):
        assert server.send(head_only=head_only).status == 200
    assert (server.connections, len(server.requests)) == (1, 3)


def test_a_closed_client_can_be_used_again(server: Server) -> None:
    """With a new connection."""
    for _ in range(2):
        assert server.send().status == 200
        server.client.close()
    assert server.connections == 2


@pytest.mark.parametrize(
    ("rest", "target"),
    [
        ("", "/"),
        ("?a=1&b=%20", "/?a=1&b=%20"),
        ("/v3/", "/v3/"),
        ("/a b/\u00e9?q=\u00e9#part", "/a%20b/%C3%A9?q=%C3%A9"),
        ("/a%2Fb", "/a%2Fb"),
    ],
)
def test_path_and_query_are_sent(server: Server, rest: str, target: str) -> None:
    """Encoded where they must be, and not twice."""
    server.send(rest)
    assert server.requests == [f"GET {target}"]


def test_only_the_given_headers_are_sent(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No credentials of ~/.netrc or of the URL, no cookie of an earlier response."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login ops password of-the-netrc\n")
    monkeypatch.setenv("NETRC", str(netrc))
    assert requests.utils.get_netrc_auth(server.url) == ("ops", "of-the-netrc")
    server.answer = answer(b"", **{"Set_Cookie": "session=1"})
    for host in (server.address, f"ops:word@{server.address}"):
        server.send(f"http://{host}/", headers={"X-Ours": "1"})
    assert [set(headers) for headers in server.headers] == [{"host", "user-agent", "accept-encoding", "x-ours"}] * 2


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(server: Server, status: int) -> None:
    """It is a response like any other."""
    server.answer = answer(b"moved", status, Location="/elsewhere")
    response = server.send(method="POST", headers={"X-Auth-Token": "t"}, body=b"{}")
    assert (response.status, response.body, response.headers["location"]) == (status, b"moved", "/elsewhere")
    assert server.requests == ["POST /"]


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_nothing_is_sent_twice(server: Server, method: str) -> None:
    """Neither after 503 with Retry-After, nor after a connection that ends without a response."""
    server.answer = answer(b"", 503, Retry_After="0")
    response = server.send(method=method)
    assert (response.status, retry_after(response.headers)) == (503, 0)

    def cut(handler: Handler) -> None:
        handler.close_connection = True

    server.answer = cut
    with pytest.raises(urllib3.exceptions.ProtocolError):
        server.send(method=method)
    assert len(server.requests) == 2


def test_a_refused_connection_is_an_error_of_urllib3(server: Server) -> None:
    """An error of requests would hide that nothing was sent."""
    with pytest.raises(urllib3.exceptions.NewConnectionError):
        server.send("http://127.0.0.1:1/")


@pytest.mark.parametrize(
    ("url", "headers"),
    [
        ("http://127.0.0.1:1/", {"X-Auth-Token": "secret\n"}),
        ("http://:secret/", {}),
        ("ftp://secret/", {}),
        ("secret", {}),
        ("http://*secret/", {}),
    ],
)
def test_a_request_that_cannot_be_sent_is_not_quoted(server: Server, url: str, headers: dict[str, str]) -> None:
    """Its URL and its headers may be secret."""
    with pytest.raises(FAILURES) as caught:
        server.client.send("GET", url, headers=headers, timeout=5)
    assert "secret" not in f"{caught.value!r}{caught.value}"
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", _GZIP),
        ("X-GZIP", _GZIP),
        (" deflate ", zlib.compress(b"text" * 1000)),
        ("identity", b"text" * 1000),
    ],
    ids=["gzip", "x-gzip", "deflate", "identity"],
)
def test_one_encoding_is_decoded(server: Server, encoding: str, body: bytes) -> None:
    """Or none is needed."""
    server.answer = answer(body, Content_Encoding=encoding)
    assert server.send().body == b"text" * 1000
    server.answer = answer(b"", 202, Content_Encoding=encoding)
    assert server.send().body == b""


@pytest.mark.parametrize("encoding", ["gzip, gzip", "gzip, identity", "br", "zstd", "compress", "gzip,"])
def test_any_other_encoding_is_unexpected(server: Server, encoding: str) -> None:
    """A second one could decode to a body without bounds. If the body is not read, its encoding is ignored."""
    server.answer = answer(gzip.compress(gzip.compress(b"text")), Content_Encoding=encoding)
    with pytest.raises(UnexpectedResponse, match="one content encoding"):
        server.send()
    assert server.send(head_only=True).status == 200


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"no gzip", urllib3.exceptions.DecodeError),
        (_GZIP[:-3], urllib3.exceptions.DecodeError),
        (_GZIP + b"more", UnexpectedResponse),
        (_GZIP * 2, UnexpectedResponse),
    ],
    ids=["another", "cut", "followed", "twice"],
)
def test_an_encoded_body_must_be_complete(server: Server, body: bytes, error: type[Exception]) -> None:
    """Nothing may follow it."""
    server.answer = answer(body, Content_Encoding="gzip")
    with pytest.raises(error):
        server.send()


@pytest.mark.parametrize("encoded", [False, True])
def test_a_body_has_a_largest_size(server: Server, encoded: bool) -> None:
    """16 MiB, decoded, unless the caller sets another."""
    assert http_client._MAX_BODY == 16 * 1024 * 1024
    encode, headers = (gzip.compress, {"Content_Encoding": "gzip"}) if encoded else (bytes, {})
    for limit, over in ((1000, 0), (0, 16 * 1024 * 1024)):
        size = limit or over
        server.answer = answer(encode(bytes(size)), **headers)
        assert len(server.send(timeout=30, max_body=limit).body) == size
        server.answer = answer(encode(bytes(size + 1)), **headers)
        with pytest.raises(UnexpectedResponse, match=f"at most {size} bytes"):
            server.send(timeout=30, max_body=limit)


def test_a_compressed_body_does_not_fill_the_memory(server: Server) -> None:
    """256 MiB in some hundred KiB: decoding ends at the limit."""
    compressor = zlib.compressobj(9, wbits=16 + zlib.MAX_WBITS)
    block = bytes(1024 * 1024)
    body = b"".join(compressor.compress(block) for _ in range(256)) + compressor.flush()
    server.answer = answer(body, Content_Encoding="gzip")
    server.send(head_only=True)
    tracemalloc.start()
    try:
        with pytest.raises(UnexpectedResponse):
            server.send(timeout=30)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 64 * 1024 * 1024


_EMPTY_BLOCK = zlib.compressobj().flush(zlib.Z_FULL_FLUSH)[-5:]


@pytest.mark.parametrize(
    "write",
    [
        endless(b"x", pause=0.02),
        endless(zlib.compress(b"")[:2], _EMPTY_BLOCK, pause=0.02, Content_Encoding="deflate"),
        endless(zlib.compress(b"")[:2], _EMPTY_BLOCK * 10_000, Content_Encoding="deflate"),
        endless(b"x", b"", pause=0.02),
    ],
    ids=["slow", "slow and empty", "fast and empty", "silent"],
)
def test_a_body_that_does_not_end_is_cut_off(server: Server, write: Callable[[Handler], None]) -> None:
    """One that arrives slowly, one that decodes to nothing, slow or fast, and one that stops arriving."""
    server.answer = write
    began = time.monotonic()
    with pytest.raises((TimeoutError, urllib3.exceptions.ReadTimeoutError)):
        server.send(timeout=0.5)
    assert time.monotonic() - began < 5


def test_a_pause_in_a_body_is_waited_for_until_the_deadline(server: Server) -> None:
    """And not for the whole timeout again."""
    given: list[float | None] = []

    def late(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "2")
        handler.end_headers()
        handler.wfile.write(b"1")
        time.sleep(0.1)
        handler.wfile.write(b"2")

    server.answer = late
    now = [0.0]

    def monotonic() -> float:
        now[0] += 3.0
        return now[0]

    slow = HttpClient(monotonic=monotonic)
    read1 = urllib3.HTTPResponse.read1

    def recorded(response: urllib3.HTTPResponse, *args: Any, **options: Any) -> bytes:
        connection = response.connection
        given.append(connection.sock.gettimeout() if connection and connection.sock else None)
        return read1(response, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(urllib3.HTTPResponse, "read1", recorded)
        assert slow.send("GET", server.url, headers={}, timeout=60).body == b"12"
    slow.close()
    assert given[1] == 57.0


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_the_environment_can_name_the_ca_bundle(
    server: Server, variable: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A missing one is an error; nothing is sent."""
    monkeypatch.setenv(variable, str(tmp_path / "absent.pem"))
    with pytest.raises(FileNotFoundError):
        server.send("https://127.0.0.1:1/", timeout=1)


def test_a_bundle_is_a_file_or_a_directory(tmp_path: Path) -> None:
    """Either is loaded before anything is sent; a missing one is an error."""
    for place in (certifi.where(), str(tmp_path)):
        with pytest.raises(urllib3.exceptions.NewConnectionError):
            HttpClient(verify=place).send("GET", "https://127.0.0.1:1/", headers={}, timeout=1)
    with pytest.raises(FileNotFoundError):
        HttpClient(verify=str(tmp_path / "absent.pem")).send("GET", "https://127.0.0.1:1/", headers={}, timeout=1)


@pytest.mark.parametrize(
    ("verify", "mode"),
    [(True, ssl.CERT_REQUIRED), (_PEM, ssl.CERT_REQUIRED), (False, ssl.CERT_NONE)],
)
def test_certificates_are_checked_unless_switched_off(verify: bool | str, mode: ssl.VerifyMode) -> None:
    """With the host's name, and with one context for all connections to all hosts."""
    client = HttpClient(verify=verify)
    for host in ("127.0.0.1", "localhost", "127.0.0.1"):
        with pytest.raises(urllib3.exceptions.NewConnectionError):
            client.send("GET", f"https://{host}:1/", headers={}, timeout=1)
    pools = client._adapter.poolmanager.pools
    contexts = [pools[key].conn_kw["ssl_context"] for key in pools.keys()]  # noqa: SIM118
    assert len(contexts) == 2
    assert contexts[0] is contexts[1]
    assert (contexts[0].verify_mode, contexts[0].check_hostname) == (mode, bool(verify))
