"""One bounded HTTP request and its response, through the transport adapter of requests.

::

    send ─> PreparedRequest ─> _Adapter (requests' HTTPAdapter) ─> urllib3 ─> bounded read loop
                                  ^
            Session.merge_environment_settings: proxies and CA bundle, once per origin

The adapter is used without `Session.send`, so there are no redirects (a token would go to an unknown host), no
`~/.netrc`, no cookies, no hooks and no retries.
"""

from __future__ import annotations

import os
import ssl
import sys
import time
import warnings
import zlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import urllib3
from urllib3.util.ssl_ import create_urllib3_context

from handler import __version__
from handler.errors import CallFailure

# requests loads one of these to guess the encoding of text, which is not done here: a fifth of its import time.
# Without both, requests warns, and takes text for UTF-8.
_not_loaded = [name for name in ("chardet", "charset_normalizer") if name not in sys.modules]
with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "Unable to find acceptable character detection dependency")
    sys.modules.update(dict.fromkeys(_not_loaded))  # type: ignore[arg-type]
    import requests
    from requests.adapters import HTTPAdapter
    from requests.utils import DEFAULT_CA_BUNDLE_PATH
for _name in _not_loaded:
    del sys.modules[_name]

_CONNECT_TIMEOUT = 5.0
_MAX_BODY = 16 * 1024 * 1024
_CHUNK = 64 * 1024
_ORIGINS = 8
_MAX_RETRY_AFTER = 3600.0
_RETRY = urllib3.Retry()
_NO_RETRIES = urllib3.Retry(False)
_HEADERS = {"User-Agent": f"bms-autostop/{__version__}", "Accept-Encoding": "gzip"}
# zlib's value for "gzip or zlib, by the header of the data".
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS

FAILURES = (urllib3.exceptions.HTTPError, OSError)
"""What `HttpClient.send` raises if no complete response was received: no connection, no time left, a cut line."""


class UnexpectedResponse(urllib3.exceptions.HTTPError):
    """The response is too large, or has a content encoding that is not accepted."""


class HttpResponse(NamedTuple):
    """A complete response, whatever its status.

    Attributes:
        headers: names in any case.
        body: decoded.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


class HttpClient:
    """Sends requests over kept connections, to any number of hosts and from any number of threads.

    Args:
        verify: True for the CA bundle of the environment or certifi's, False to check no certificate, the path of a
            bundle or directory, or PEM text of certificates to trust in addition to the bundle.
        pool: connections to keep per host.
        monotonic: the clock that deadlines are measured with, in seconds.
    """

    def __init__(
        self, *, verify: bool | str = True, pool: int = 10, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        pem = verify if isinstance(verify, str) and "-----BEGIN" in verify else ""
        self.verify = verify
        self._verify: bool | str = True if pem else verify
        self._monotonic = monotonic
        self._adapter = _Adapter(pem, pool)
        self._session = requests.Session()
        for scheme in ("https://", "http://"):
            self._session.mount(scheme, self._adapter)
        self._environment: dict[str, dict[str, Any]] = {}

    def send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None = None,
        timeout: float,
        head_only: bool = False,
        max_body: int = 0,
    ) -> HttpResponse:
        """Send one request once and read its response.

        Args:
            method: in upper case.
            url: absolute, its query encoded.
            headers: of the request.
            body: of the request, or None.
            timeout: seconds for connection and response together, also for a body that arrives slowly. Only lines that
                `http.client` reads by itself (status line, headers, sizes of chunks) can take longer, if each of
                their bytes comes in time.
            head_only: do not read the body, which may have any length.
            max_body: bytes that the decoded body may have; 16 MiB if 0.

        Raises:
            UnexpectedResponse: the body is too large or has an encoding that is not accepted.
            urllib3.exceptions.HTTPError, OSError: no complete response.
        """
        deadline = self._monotonic() + timeout
        try:
            request = requests.PreparedRequest()
            request.prepare_method(method)
            request.prepare_url(url, None)
            request.prepare_headers({**_HEADERS, **headers})
            request.prepare_body(body, None)
            response = self._adapter.send(
                request,
                stream=True,
                # In all: the time that the connection took is not left for the response.
                # The adapter documents this type; the annotation leaves it out.
                timeout=urllib3.Timeout(total=timeout, connect=min(timeout, _CONNECT_TIMEOUT)),  # type: ignore[arg-type]
                **self._settings(request.url or ""),
            )
        except requests.RequestException as error:
            raise _cause(error) from None
        raw: urllib3.HTTPResponse = response.raw
        if head_only:
            if raw.length_remaining == 0:
                raw.release_conn()
            else:
                raw.close()
            return HttpResponse(raw.status, raw.headers, b"")
        try:
            content = self._read(raw, deadline, max_body or _MAX_BODY)
        except BaseException:
            raw.close()
            raise
        raw.release_conn()
        return HttpResponse(raw.status, raw.headers, content)

    def close(self) -> None:
        """Close the connections, and forget the settings of the environment."""
        self._session.close()
        self._environment.clear()

    def _read(self, raw: urllib3.HTTPResponse, deadline: float, max_body: int) -> bytes:
        """Read and decode the body.

        urllib3's own decoding does not return before it has something to return, so a body that decodes to nothing
        could go on for ever.
        """
        decoder = _decoder(raw.headers.get("Content-Encoding", ""))
        if raw.length_remaining == 0:
            return b""
        parts: list[bytes] = []
        size = 0
        while chunk := raw.read1(_CHUNK, decode_content=False):
            if decoder is not None:
                chunk = _decoded(decoder, chunk, max_body + 1 - size)
            parts.append(chunk)
            size += len(chunk)
            if size > max_body:
                raise UnexpectedResponse(f"the body must have at most {max_body} bytes")
            left = deadline - self._monotonic()
            if left <= 0:
                raise TimeoutError("the body must end before the deadline")
            # None once `http.client` has handed the socket to the response, which it does if the server will close it.
            if raw.connection is not None and raw.connection.sock is not None:
                raw.connection.sock.settimeout(left)
        if decoder is not None and parts and not decoder.eof:
            raise urllib3.exceptions.DecodeError("the encoded body must be complete")
        return b"".join(parts)

    def _settings(self, url: str) -> dict[str, Any]:
        """`proxies`, `verify` and `cert` for the origin of a URL, as requests reads them from the environment."""
        origin = "/".join(url.split("/", 3)[:3])
        known = self._environment.get(origin)
        if known is None:
            known = self._session.merge_environment_settings(url, {}, None, self._verify, None)
            self._environment[origin] = known = {name: known[name] for name in ("proxies", "verify", "cert")}
        return known


class _Adapter(HTTPAdapter):
    """Requests' adapter with one TLS context for all connections, as loading a CA bundle takes longer than most calls.

    Overridden are the two methods that requests documents for a TLS context of one's own.

    Args:
        pem: certificates to trust in addition to the bundle; empty for none.
        pool: connections to keep per host.
    """

    def __init__(self, pem: str, pool: int) -> None:
        self._pem = pem
        self._contexts: dict[bool | str | None, ssl.SSLContext] = {}
        super().__init__(pool_connections=_ORIGINS, pool_maxsize=pool, max_retries=_NO_RETRIES)

    def build_connection_pool_key_attributes(
        self, request: requests.PreparedRequest, verify: Any, cert: Any = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return what identifies the connection pool of a request: its host, and its TLS context."""
        host, tls = super().build_connection_pool_key_attributes(request, verify, cert)
        if host["scheme"] != "https":
            return host, {}
        context = self._contexts.get(verify)
        if context is None:
            # Two threads get the same context, since it is part of the key of the pool.
            context = self._contexts.setdefault(verify, _context(verify, self._pem))
        return host, {"ssl_context": context, "cert_reqs": tls["cert_reqs"]}

    def cert_verify(self, conn: object, url: str, verify: object, cert: object) -> None:
        """Do nothing: the context has the certificates, and requests would load them again for each connection."""


def host_of(url: str) -> str | None:
    """Return the `host` or `host:port` of a URL, for messages; None if it has none that can be shown."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return None
    if not host.isascii() or not host.replace("-", "").replace(".", "").replace(":", "").replace("_", "").isalnum():
        return None
    host = f"[{host}]" if ":" in host else host
    return host if port is None else f"{host}:{port}"


def call_failure(failure: BaseException) -> CallFailure:
    """Return why `HttpClient.send` has no response; a library's own text may quote what was sent."""
    match failure:
        case UnexpectedResponse() | urllib3.exceptions.DecodeError():
            return CallFailure.UNEXPECTED_RESPONSE
        case urllib3.exceptions.NameResolutionError():
            return CallFailure.NO_SUCH_HOST
        case urllib3.exceptions.NewConnectionError():
            refused = isinstance(failure.__cause__, ConnectionRefusedError)
            return CallFailure.CONNECTION_REFUSED if refused else CallFailure.NO_CONNECTION
        case urllib3.exceptions.TimeoutError() | TimeoutError():
            return CallFailure.TIMEOUT
        case urllib3.exceptions.SSLError():
            untrusted = failure.args and isinstance(failure.args[0], ssl.SSLCertVerificationError)
            return CallFailure.CERTIFICATE_NOT_TRUSTED if untrusted else CallFailure.TLS_ERROR
        case urllib3.exceptions.ProxyError():
            return CallFailure.PROXY_ERROR
        case urllib3.exceptions.ProtocolError() | ConnectionError():
            return CallFailure.CONNECTION_LOST
        case FileNotFoundError() | PermissionError():
            return CallFailure.CA_FILE_UNREADABLE
        case _:
            return CallFailure.NO_RESPONSE


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds to wait according to `Retry-After`, in seconds or as an HTTP date; None if there are none."""
    value = headers.get("Retry-After")
    if value is None:
        return None
    try:
        return min(_RETRY.parse_retry_after(value), _MAX_RETRY_AFTER)
    except (urllib3.exceptions.InvalidHeader, OverflowError, ValueError):
        return None


def _cause(error: requests.RequestException) -> Exception:
    """Return what urllib3 raised, which says what happened; requests wraps some of it.

    What requests raises by itself quotes URLs and headers, which may be secret.
    """
    inner = error.args[0] if error.args else None
    if isinstance(inner, FAILURES):
        return inner
    return urllib3.exceptions.HTTPError(f"the request cannot be sent ({type(error).__name__})")


def _decoder(encoding: str) -> zlib._Decompress | None:
    """Return what decodes a content encoding; None if there is none.

    Raises:
        UnexpectedResponse: it is another one than gzip and deflate (RFC 9110), or more than one.
    """
    match encoding.strip().lower():
        case "" | "identity":
            return None
        case "gzip" | "x-gzip" | "deflate":
            return zlib.decompressobj(_GZIP_OR_ZLIB)
        case _:
            raise UnexpectedResponse("the body must have one content encoding, gzip, or none")


def _decoded(decoder: zlib._Decompress, chunk: bytes, limit: int) -> bytes:
    """Decode a chunk, but not more than `limit` bytes of it."""
    try:
        decoded = decoder.decompress(chunk, limit)
    except zlib.error:
        raise urllib3.exceptions.DecodeError("the body must have the encoding that its header names") from None
    if decoder.unused_data:
        raise UnexpectedResponse("the body must end with its encoded data")
    return decoded


def _context(verify: bool | str | None, pem: str) -> ssl.SSLContext:
    """Make the TLS context that checks certificates with a bundle: certifi's for True, or a file or directory."""
    context = create_urllib3_context()
    if verify is False:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    if pem:
        context.load_verify_locations(cadata=pem)
    path = verify if isinstance(verify, str) else DEFAULT_CA_BUNDLE_PATH
    if os.path.isdir(path):
        context.load_verify_locations(capath=path)
    else:
        context.load_verify_locations(cafile=path)
    return context
