"""The wire: where its connections lead, which certificates it takes, and what it never does."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import certifi
import pytest
import urllib3

from handler.simulator import Simulator
from handler.wire import FAILURES, Wire, bundle

_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*_PROXIES, "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def wire() -> Iterator[Wire]:
    """A wire of its own for each test."""
    made = Wire()
    yield made
    made.close()


class Proxy:
    """A proxy on loopback that answers everything itself, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str | None]] = []
        asked = self.asked

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(("GET", self.path, self.headers["Proxy-Authorization"]))
                self.send_response(200)
                self.send_header("Content-Length", "5")
                self.end_headers()
                self.wfile.write(b"proxy")

            def do_CONNECT(self) -> None:
                asked.append(("CONNECT", self.path, self.headers["Proxy-Authorization"]))
                self.send_error(403)

            def log_message(self, *_: object) -> None:
                """Keep quiet."""

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    """A proxy that runs for one test."""
    made = Proxy()
    yield made
    made.close()


@pytest.mark.parametrize(
    ("name", "before", "proof"),
    [
        ("http_proxy", "http://ops:word@", "Basic b3BzOndvcmQ="),
        ("HTTP_PROXY", "http://", None),
        ("all_proxy", "", None),
    ],
)
def test_a_proxy_of_the_environment_is_used(
    wire: Wire, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, name: str, before: str, proof: str | None
) -> None:
    """By either spelling, with or without a scheme, and with the password that stands in it."""
    monkeypatch.setenv(name, f"{before}{proxy.address}")
    assert wire.send("GET", "http://cloud.test/v3?a=b", headers={}, timeout=5).body == b"proxy"
    assert proxy.asked == [("GET", "http://cloud.test/v3?a=b", proof)]


def test_a_secure_host_is_reached_through_the_proxy_and_not_around_it(
    wire: Wire, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy that refuses is the end of it."""
    monkeypatch.setenv("https_proxy", f"http://{proxy.address}")
    with pytest.raises(FAILURES):
        wire.send("GET", "https://cloud.test/v3", headers={}, timeout=5)
    assert [asked[:2] for asked in proxy.asked] == [("CONNECT", "cloud.test:443")]


def test_a_host_that_needs_no_proxy_gets_none(
    cloud: Simulator, wire: Wire, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`no_proxy` names it."""
    monkeypatch.setenv("http_proxy", f"http://{proxy.address}")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert wire.send("GET", f"{cloud.url}/v3", headers={}, timeout=5).status == 200
    assert proxy.asked == []


def test_connections_are_kept_and_used_again(cloud: Simulator, wire: Wire) -> None:
    """Each whole answer gives its connection back."""
    for _ in range(3):
        assert wire.send("GET", f"{cloud.url}/v3", headers={}, timeout=5).status == 200
    (route,) = wire._routes.values()
    pool = route.connections
    assert isinstance(pool, urllib3.HTTPConnectionPool)
    assert (pool.num_connections, pool.num_requests) == (1, 3)


def test_what_was_closed_can_be_used_again(cloud: Simulator, wire: Wire) -> None:
    """With a connection of its own."""
    for _ in range(2):
        assert wire.send("GET", f"{cloud.url}/v3", headers={}, timeout=5).status == 200
        wire.close()
    assert wire._routes == {}


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
def test_a_host_is_asked_for_path_and_query(cloud: Simulator, wire: Wire, rest: str, target: str) -> None:
    """Encoded where they must be, and not twice."""
    wire.send("GET", f"{cloud.url}{rest}", headers={}, timeout=5)
    assert cloud.calls[-1].path == target


def test_nothing_is_sent_that_was_not_given(
    cloud: Simulator, wire: Wire, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No credentials from ~/.netrc, which requests would send to that host by itself."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password of-the-netrc\n")
    monkeypatch.setenv("NETRC", str(netrc))
    wire.send("GET", f"{cloud.url}/v3", headers={"X-Ours": "1"}, timeout=5)
    assert {name.lower() for name in cloud.calls[-1].headers} == {"host", "user-agent", "accept-encoding", "x-ours"}


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_the_environment_may_name_the_ca_bundle(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As requests has it; else it is certifi's."""
    assert bundle() == certifi.where()
    monkeypatch.setenv(variable, "/etc/ssl/ours.pem")
    assert bundle() == "/etc/ssl/ours.pem"


def test_a_bundle_is_a_file_or_a_directory(tmp_path: Path) -> None:
    """Either is loaded before anything is sent; one that is not there is said to be missing."""
    for place in (certifi.where(), str(tmp_path)):
        with pytest.raises(urllib3.exceptions.HTTPError):
            Wire(verify=place).send("GET", "https://127.0.0.1:1/", headers={}, timeout=1)
    with pytest.raises(FileNotFoundError):
        Wire(verify=str(tmp_path / "absent.pem")).send("GET", "https://127.0.0.1:1/", headers={}, timeout=1)


@pytest.mark.parametrize(("verify", "mode"), [(True, ssl.CERT_REQUIRED), (False, ssl.CERT_NONE)])
def test_certificates_are_checked_unless_somebody_said_not_to(verify: bool, mode: ssl.VerifyMode) -> None:
    """And then the host's name with them."""
    pool = Wire(verify=verify)._route("https://cloud.test/", "https://cloud.test").connections
    assert isinstance(pool, urllib3.HTTPSConnectionPool)
    context = pool.conn_kw["ssl_context"]
    assert (context.verify_mode, context.check_hostname) == (mode, verify)
