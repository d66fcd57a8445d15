"""The wire: one HTTP request out, one bounded answer back, straight over urllib3's pools.

No layer between: requests and keystoneauth together cost a cold start more time than the whole of this package, and
each call more processor time than the cloud's own client code. What requests does for its users and these calls need
is done here: proxies from the environment, its CA bundles. What they must not have is left out: redirects (a token
would be shown to whoever is there), ~/.netrc, cookies, retries.
"""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

import urllib3
from urllib3.util.ssl_ import create_urllib3_context

from handler import __version__

_CONNECT_TIMEOUT = 5.0
_LARGEST_ANSWER = 64 * 1024 * 1024
_HOSTS = 8
_LONGEST_TOLD_WAIT = 3600.0
_RETRY = urllib3.Retry()
# What `retries=False` stands for, made once.
_NO_RETRIES = urllib3.Retry(False, redirect=False)

FAILURES = (urllib3.exceptions.HTTPError, OSError)
"""What `Wire.send` raises when no whole answer came: no connection, no time left, a line cut in any place."""


class Answer(NamedTuple):
    """A whole answer, whatever its status.

    Attributes:
        headers: any case of a name finds them.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


class Wire:
    """Connections that are kept, for any number of hosts and threads.

    Args:
        verify: True for the CA bundle of the environment or certifi, False to check no certificate, the path of a
            bundle or directory, or PEM text of certificates that are trusted beside the bundle.
        pool: connections kept per host.
    """

    def __init__(
        self, *, verify: bool | str = True, pool: int = 10, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.verify = verify
        self._pool = pool
        self._monotonic = monotonic
        self._routes: dict[str, _Route] = {}

    def send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None = None,
        timeout: float,
        head_only: bool = False,
        largest: int | None = None,
    ) -> Answer:
        """Send one request and read its answer, once.

        Args:
            url: absolute, its query encoded.
            largest: bytes that the answer may have; 64 MiB if not given.
            head_only: the answer's body is not waited for, as it means nothing and may be of any length.
            timeout: seconds for connection and answer together; a body that drips cannot outlast it. Only a head that
                drips may, as it is read by `http.client`.

        Raises:
            urllib3.exceptions.HTTPError, OSError: no whole answer, or one that is too large.
        """
        deadline = self._monotonic() + timeout
        parts = urlsplit(url)
        route = self._route(url, f"{parts.scheme}://{parts.netloc}")
        target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
        response = route.connections.urlopen(
            method,
            url if route.by_url else target,
            body=body,
            headers={"User-Agent": f"bms-autostop/{__version__}", "Accept-Encoding": "gzip, deflate", **headers},
            # In all: what the connection took is not there for the answer any more.
            timeout=urllib3.Timeout(total=timeout, connect=min(timeout, _CONNECT_TIMEOUT)),
            redirect=False,
            retries=_NO_RETRIES,
            preload_content=False,
        )
        if head_only:
            if response.length_remaining == 0:
                response.release_conn()
            else:
                response.close()
            return Answer(response.status, response.headers, b"")
        try:
            answer = Answer(
                response.status, response.headers, self._read(response, deadline, largest or _LARGEST_ANSWER)
            )
        except BaseException:
            response.close()
            raise
        response.release_conn()
        return answer

    def close(self) -> None:
        """Give the connections back."""
        while self._routes:
            self._routes.popitem()[1].close()

    def _read(self, response: urllib3.BaseHTTPResponse, deadline: float, largest: int) -> bytes:
        if response.length_remaining == 0:
            return b""
        parts: list[bytes] = []
        size = 0
        while chunk := response.read1(65536, decode_content=True):
            parts.append(chunk)
            size += len(chunk)
            if size > largest:
                raise urllib3.exceptions.ResponseError("the answer is too large")
            if self._monotonic() > deadline:
                raise TimeoutError("the answer did not end in time")
        return b"".join(parts)

    def _route(self, url: str, origin: str) -> _Route:
        """The way to a host: looked up in the environment once."""
        known = self._routes.get(origin)
        if known is None:
            # Two threads that come here first make two of them: a connection more, and nothing else.
            known = self._routes[origin] = self._new_route(url, secure=origin.startswith("https:"))
        return known

    def _new_route(self, url: str, *, secure: bool) -> _Route:
        options: dict[str, object] = {"ssl_context": _context(self.verify)} if secure else {}
        if secure and self.verify is False:
            options["cert_reqs"] = "CERT_NONE"
        if any(name.lower().endswith("_proxy") for name in os.environ):
            from requests.adapters import HTTPAdapter
            from requests.utils import get_environ_proxies, prepend_scheme_if_needed, select_proxy

            proxy = select_proxy(url, get_environ_proxies(url))
            if proxy:
                adapter = HTTPAdapter(pool_connections=_HOSTS, pool_maxsize=self._pool)
                proxy = prepend_scheme_if_needed(proxy, "http")  # type: ignore[no-untyped-call]
                manager: urllib3.PoolManager = adapter.proxy_manager_for(proxy, **options)
                return _Route(manager, by_url=True, close=manager.clear)
        pool = urllib3.connection_from_url(url, maxsize=self._pool, **options)
        return _Route(pool, by_url=False, close=pool.close)


class _Route(NamedTuple):
    """How to reach a host.

    Attributes:
        connections: to the host itself, asked by the path alone; or to a proxy, asked by the whole URL.
    """

    connections: urllib3.HTTPConnectionPool | urllib3.PoolManager
    by_url: bool
    close: Callable[[], None]


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait as `Retry-After` says them, in seconds or as an HTTP date; None if it says nothing readable."""
    value = headers.get("Retry-After")
    if value is None:
        return None
    try:
        return min(_RETRY.parse_retry_after(value), _LONGEST_TOLD_WAIT)
    except (urllib3.exceptions.InvalidHeader, OverflowError, ValueError):
        return None


def _context(verify: bool | str) -> ssl.SSLContext:
    """How certificates are checked; made once a host, as loading the bundle takes longer than many a call."""
    context = create_urllib3_context()
    if verify is False:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    pem = verify if isinstance(verify, str) and "-----BEGIN" in verify else None
    if pem:
        context.load_verify_locations(cadata=pem)
    place = verify if isinstance(verify, str) and not pem else bundle()
    if os.path.isdir(place):
        context.load_verify_locations(capath=place)
    else:
        context.load_verify_locations(cafile=place)
    return context


def bundle() -> str:
    """The CA bundle that requests would take: from its two variables, or certifi's."""
    named = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
    if named:
        return named
    import certifi

    return certifi.where()
