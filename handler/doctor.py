"""`bms-autostop doctor`: looks at everything between the settings and a stop, and says how to mend what is wrong.

It stops nothing. Whether stopping is allowed is asked with an id that no server has.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from requests.utils import get_environ_proxies, select_proxy

from handler.cloud.connect import Clouds
from handler.errors import (
    CallDenied,
    CloudError,
    CloudUnexpectedAnswer,
    InsecureEndpoint,
    KeysUnreachable,
    LoginRefused,
    ServerNotFound,
)
from handler.http_client import FAILURES, HttpClient
from handler.settings.stop_servers import ApiName, Settings
from handler.stop.decide import is_bare_metal
from handler.stop.model import Server

if TYPE_CHECKING:
    from handler.settings.oidc import OidcSettings

# A version 4 UUID in form, so that it passes every check, but none that a random generator would make.
_NOBODY = "00000000-0000-4000-8000-000000000000"
_TIMEOUT = 10.0
# Beyond this the cloud refuses signed requests, and the age rule judges events by a wrong clock.
_SKEW_WRONG = 60.0


class Verdict(StrEnum):
    """What a check found."""

    OK = "ok"
    DOUBT = "doubt"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check.

    Attributes:
        check: what was looked at, in a word or two.
        said: what was found.
        mend: what to do about it; empty if nothing.
    """

    check: str
    verdict: Verdict
    said: str
    mend: str = ""


def examine(settings: Settings) -> Iterator[Finding]:
    """Check one thing after the other; ends early where the rest would only repeat the same trouble."""
    if settings.callers.oidc is not None:
        yield _issuer(settings.callers.oidc)
    iam = settings.login.auth_url
    if iam:
        yield (reached := _reach("IAM", iam, settings.login.verify))
        if reached.verdict is Verdict.WRONG:
            return
        yield _clock(iam, settings.login.verify)
    clouds = Clouds(settings)
    logged_in = _login(clouds)
    yield logged_in
    if logged_in.verdict is Verdict.WRONG:
        return
    bms = settings.api is ApiName.BMS
    name, setting = ("BMS", "AUTOSTOP_BMS_URL") if bms else ("Nova", "AUTOSTOP_COMPUTE_URL")
    try:
        url = clouds.endpoint.url(_TIMEOUT)
    except InsecureEndpoint as insecure:
        mend = f"Have the catalogue corrected, or set {setting} to accept it."
        yield Finding("endpoint", Verdict.WRONG, str(insecure), mend)
        return
    except CloudError as fault:
        yield Finding(
            "endpoint", Verdict.WRONG, str(fault), f"Check OS_REGION_NAME and OS_INTERFACE, or set {setting}."
        )
        return
    if urlsplit(url).scheme == "http" and urlsplit(clouds.endpoint.auth_url).scheme == "https":
        said = f"{name} is at {url}, so tokens are sent to it unencrypted, though the login is over https"
        yield Finding("endpoint", Verdict.DOUBT, said, f"Set {setting} to an https URL.")
    else:
        yield Finding("endpoint", Verdict.OK, f"{name} is at {url}")
    yield (reached := _reach(name, url, settings.login.verify))
    if reached.verdict is Verdict.WRONG:
        return
    yield from _permissions(clouds)
    if settings.result_topic:
        yield from _topic(clouds, settings)
    if settings.sink:
        yield _reach("sink", settings.sink.url, settings.sink.ca or True)


def _issuer(settings: OidcSettings) -> Finding:
    """Fetch the keys that callers' tokens are checked with, as the function does."""
    from handler.inbound.auth.key_server import KeyServer

    try:
        keys = KeyServer(settings)(_TIMEOUT)
    except KeysUnreachable as failure:
        mend = "Check AUTOSTOP_OIDC_ISSUER; AUTOSTOP_OIDC_JWKS_URL, _CA and _TOKEN_FILE help where discovery cannot."
        return Finding("issuer", Verdict.WRONG, str(failure), mend)
    return Finding("issuer", Verdict.OK, f"it gives its keys, {len(keys)} of them usable")


def _topic(clouds: Clouds, settings: Settings) -> Iterator[Finding]:
    """Where the results are published. Whether the login may do that is not tried: subscribers would see it."""
    topic = clouds.topic()
    assert topic is not None
    try:
        url = topic.url(_TIMEOUT)
    except CloudError as fault:
        yield Finding("sink", Verdict.WRONG, str(fault), "Check OS_REGION_NAME, or set AUTOSTOP_SMN_URL.")
        return
    yield _reach("sink", url, settings.login.verify)


def _reach(check: str, url: str, verify: bool | str) -> Finding:
    """Name, connection and TLS of a host, without sending a request."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    if select_proxy(url, get_environ_proxies(url)):
        return Finding(check, Verdict.OK, f"{host} is reached through a proxy, whose reach is not looked at")
    try:
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        return Finding(check, Verdict.WRONG, f"{host} has no address", "Check the name, and the DNS of this machine.")
    try:
        with socket.create_connection((host, port), timeout=5) as line:
            if parts.scheme == "https":
                context = ssl.create_default_context(cafile=verify if isinstance(verify, str) else None)
                if verify is False:
                    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
                with context.wrap_socket(line, server_hostname=host) as secured:
                    return Finding(check, Verdict.OK, f"{host} answers with {secured.version()}")
    except ssl.SSLCertVerificationError as failure:
        said = f"{host} shows a certificate that is not trusted: {failure.verify_message}"
        return Finding(check, Verdict.WRONG, said, "Set OS_CACERT to the CA bundle that signed it.")
    except OSError as failure:
        mend = "Check firewall, security group and proxy; a function in a VPC needs NAT to reach the internet."
        return Finding(check, Verdict.WRONG, f"{host}:{port} cannot be reached ({type(failure).__name__})", mend)
    return Finding(check, Verdict.OK, f"{host} answers, without TLS")


def _clock(url: str, verify: bool | str) -> Finding:
    client = HttpClient(verify=verify, pool=1)
    try:
        theirs = parsedate_to_datetime(client.send("GET", url, headers={}, timeout=5, head_only=True).headers["Date"])
    except (*FAILURES, KeyError, ValueError):
        return Finding("clock", Verdict.DOUBT, "IAM does not tell its time")
    finally:
        client.close()
    skew = (datetime.now(UTC) - theirs).total_seconds()
    if abs(skew) > _SKEW_WRONG:
        said = f"this machine is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the cloud"
        return Finding("clock", Verdict.WRONG, said, "Set the clock (NTP); event ages and signatures depend on it.")
    return Finding("clock", Verdict.OK, f"within {max(abs(skew), 1):.0f} s of the cloud's")


def _login(clouds: Clouds) -> Finding:
    try:
        access = clouds.login.access(_TIMEOUT)
    except LoginRefused as refused:
        mend = "Check user, domain, password or key, and that the user may use the API; a wrong key soon locks itself."
        return Finding("login", Verdict.WRONG, str(refused), mend)
    except CloudError as fault:
        return Finding("login", Verdict.WRONG, str(fault), "Check OS_AUTH_URL; it ends in /v3.")
    if set(access.roles) == {"reader"}:
        mend = "Give the user a role that may stop servers, such as member."
        return Finding("login", Verdict.WRONG, "the login has no role but reader", mend)
    roles = f", roles {', '.join(access.roles)}" if access.roles else ""
    return Finding("login", Verdict.OK, f"project {access.project_id}{roles}")


def _permissions(clouds: Clouds) -> Iterator[Finding]:
    """Read, list, history and stop, each asked in a way that changes nothing."""
    cloud = clouds.cloud(dry_run=False)
    try:
        yield _allowed("read", cloud.read([_NOBODY], _TIMEOUT).get(_NOBODY), "ecs:servers:get or bms:servers:get")
        yield _listing(clouds)
        history = _allowed("history", cloud.history(_NOBODY, _TIMEOUT), "")
        if history.verdict is Verdict.WRONG:
            history = Finding("history", Verdict.DOUBT, history.said, "Without it only an event's age counts.")
        yield history
        answer = cloud.stop([_NOBODY], _TIMEOUT).get(_NOBODY)
        yield _allowed("stop", answer, "ecs:servers:stop or bms:servers:stop")
    except LoginRefused as refused:
        yield Finding(
            "token", Verdict.WRONG, str(refused), "The API does not take this login's token; is it the same cloud?"
        )


def _allowed(check: str, answer: object, action: str) -> Finding:
    match answer:
        case CallDenied():
            return Finding(check, Verdict.WRONG, str(answer), f"Allow the action {action}.")
        case CloudUnexpectedAnswer():
            return Finding(check, Verdict.WRONG, str(answer), "Check the URL: this does not look like the API.")
        case ServerNotFound():
            return Finding(check, Verdict.OK, "asked with an id that no server has, and told so")
        case CloudError():
            return Finding(check, Verdict.DOUBT, str(answer), "Try again; the cloud may have a bad moment.")
        case _:
            return Finding(check, Verdict.OK, "asked with an id that no server has")


def _listing(clouds: Clouds) -> Finding:
    try:
        page = clouds.reader().peek(_TIMEOUT)
    except LoginRefused:
        raise
    except CloudError as fault:
        return _allowed("list", fault, "ecs:servers:list or bms:servers:list")
    seen = [server for server in page if isinstance(server, Server)]
    if page and not seen:
        said = "the servers are shown without tags, lock or states"
        return Finding("list", Verdict.WRONG, said, "Check the URL; Nova must be of microversion 2.26 or newer.")
    metal = sum(map(is_bare_metal, seen))
    return Finding("list", Verdict.OK, f"{len(seen)} servers on the first page, {metal} of them bare metal")
