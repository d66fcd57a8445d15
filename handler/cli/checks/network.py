"""Name, connection, TLS and clock of a host."""

from __future__ import annotations

import ipaddress
import os
import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import urlsplit

import certifi
import requests
from requests.utils import get_environ_proxies, select_proxy

from handler.cli.checks import Check, error, ok, warning

_CONNECT_TIMEOUT = 5.0
# Beyond this the cloud refuses signed requests, and the age of events is wrong.
_MOST_SKEW = 60.0


def reachable(check: str, url: str, verify: bool | str = True, *, ca_setting: str = "OS_CACERT") -> Check:
    """Resolve, connect and make the TLS handshake, without sending a request.

    `verify` is True for the usual authorities, False for no check, a path, or PEM text of further authorities; the
    advice names the setting `ca_setting` for them.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    if select_proxy(url, get_environ_proxies(url)):
        detail = f"{host} is called through a proxy; whether it can be reached was not checked"
        return warning(check, detail, "Look at the proxy's log, or unset the proxy variables for this host (NO_PROXY).")
    try:
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return error(check, f"no address for the host name {host}", "Check the name, and the DNS of this machine.")
    try:
        context = _context(verify) if parts.scheme == "https" else None
    except OSError as failure:
        return error(check, f"the authorities of {ca_setting} cannot be read ({failure.strerror})", "Check the path.")
    try:
        with socket.create_connection((host, port), timeout=_CONNECT_TIMEOUT) as connection:
            if context is None:
                return ok(check, f"{host}:{port} accepts connections, without TLS")
            with context.wrap_socket(connection, server_hostname=host) as secured:
                return ok(check, f"{host}:{port} accepts connections with {secured.version()}")
    except ssl.SSLCertVerificationError as failure:
        detail = f"the certificate of {host} is not trusted: {failure.verify_message}"
        return error(check, detail, f"Set {ca_setting} to the authorities that signed it.")
    except ssl.SSLError as failure:
        detail = f"{host}:{port} does not speak TLS as expected ({failure.reason})"
        return error(check, detail, "Check the port, and whether the URL must begin with http:.")
    except ConnectionRefusedError:
        return error(check, f"{host}:{port} refused the connection", "Check the port, and whether the service runs.")
    except OSError as failure:
        fix = "Check firewall, security group and proxy; a function in a VPC needs NAT to reach the internet."
        return error(check, f"no connection to {host}:{port} ({type(failure).__name__})", fix)


def in_clear(check: str, url: str, secret: str, fix: str) -> Iterator[Check]:
    """Yield a warning if a secret, such as `the password`, is sent to a URL without TLS."""
    parts = urlsplit(url)
    if parts.scheme == "http" and not _is_loopback(parts.hostname or ""):
        yield warning(check, f"{secret} goes to {parts.hostname} over http, readable for all in between", fix)


def clock(url: str, verify: bool | str) -> Check:
    """Compare this machine's clock with the `Date` header of a host."""
    fix = "Compare the clock by hand; event ages and signatures depend on it."
    try:
        answer = requests.get(url, timeout=_CONNECT_TIMEOUT, verify=verify, allow_redirects=False)
        theirs = parsedate_to_datetime(answer.headers["Date"])
    except (requests.RequestException, KeyError, ValueError):
        return warning("clock", "not compared: the cloud sent no date", fix)
    skew = (datetime.now(UTC) - theirs).total_seconds()
    if abs(skew) > _MOST_SKEW:
        detail = f"this machine is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the cloud"
        return error("clock", detail, "Set the clock (NTP); event ages and signatures depend on it.")
    return ok("clock", f"within {max(abs(skew), 1):.0f} s of the cloud's")


def readable(check: str, path: str, setting: str) -> Check:
    """Check that a file with a token can be read; its content is not printed."""
    try:
        holds = bool(Path(path).read_bytes().strip())
    except OSError as failure:
        return error(check, f"{setting}: the file cannot be read ({failure.strerror})", "Check path and permissions.")
    return ok(check, f"{setting}: the file can be read") if holds else error(check, f"{setting}: empty", "Fill it.")


def _context(verify: bool | str) -> ssl.SSLContext:
    if verify is False:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context
    if isinstance(verify, str) and "-----BEGIN" in verify:
        context = ssl.create_default_context(cafile=_bundle())
        context.load_verify_locations(cadata=verify)
        return context
    place = verify if isinstance(verify, str) else _bundle()
    is_folder = Path(place).is_dir()
    return ssl.create_default_context(cafile=None if is_folder else place, capath=place if is_folder else None)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _bundle() -> str:
    """Return the CA bundle that requests uses: from its two variables, or certifi's."""
    return os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or certifi.where()
