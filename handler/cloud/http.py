"""One exchange with the cloud: a token, a deadline, a bounded answer; what goes wrong comes out as our exceptions."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3
from keystoneauth1 import exceptions as ksa
from keystoneauth1 import session as ksa_session
from requests.adapters import HTTPAdapter

from handler import __version__
from handler.cloud import faults
from handler.cloud.login import Access, Login
from handler.errors import CloudConfused, CloudUnreachable, LoginRefused

_CONNECT_TIMEOUT = 5.0
_LOGIN_TIMEOUT = 10.0
_LARGEST_ANSWER = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer with a 2xx status."""

    headers: Mapping[str, str]
    body: bytes

    def json(self, what: str) -> dict[str, object]:
        """The body as a JSON object.

        Raises:
            CloudConfused: it is something else, as from a proxy that answers in the cloud's place.
        """
        try:
            document = json.loads(self.body)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            raise CloudConfused(f"{what}: the answer is no JSON object", request_id=self.request_id)
        return document

    @property
    def request_id(self) -> str | None:
        """The cloud's id for the request, or None."""
        return faults.request_id(self.headers)


def new_session(*, verify: bool | str, pool: int) -> ksa_session.Session:
    """A keystoneauth session that follows no redirect: none is part of these APIs, and credentials would go along.

    Args:
        verify: True, False, or the path of a CA bundle.
        pool: connections kept per host.
    """
    wire = _Wire()
    for scheme in ("http://", "https://"):
        wire.mount(scheme, HTTPAdapter(pool_connections=4, pool_maxsize=pool))
    return ksa_session.Session(
        session=wire,
        verify=verify,
        redirect=False,
        timeout=_LOGIN_TIMEOUT,
        app_name="bms-autostop",
        app_version=__version__,
    )


class _Wire(requests.Session):
    """A session that looks at the environment's proxies once a host, and never into ~/.netrc.

    requests does both for each call: that costs a fifth of a call's processor time, and what stands in ~/.netrc for
    the host would be sent along.
    """

    def __init__(self) -> None:
        super().__init__()
        self.auth = _no_netrc
        self._environment: dict[tuple[str, object], Any] = {}

    def merge_environment_settings(self, url: Any, proxies: Any, stream: Any, verify: Any, cert: Any) -> Any:
        """As requests does it, remembered."""
        parts = urlsplit(str(url))
        key = (f"{parts.scheme}://{parts.netloc}", verify)
        known = self._environment.get(key)
        if known is None:
            known = self._environment[key] = super().merge_environment_settings(url, proxies, stream, verify, cert)
        return {**known, "stream": stream}


def _no_netrc(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


class Http:
    """Sends authenticated requests; safe to use from many threads."""

    def __init__(
        self,
        login: Login,
        session: ksa_session.Session,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._login = login
        self._session = session
        self._monotonic = monotonic

    def send(
        self,
        what: str,
        method: str,
        url: str,
        *,
        timeout: float,
        headers: Mapping[str, str],
        body: object = None,
    ) -> Reply:
        """Send one request and read the whole answer; a token that the cloud no longer takes is renewed once.

        Args:
            what: the call in a few words, for messages.
            timeout: seconds for all of it: login, connection, answer.
            headers: without the token.
            body: sent as JSON unless None.

        Raises:
            CloudError: anything but a 2xx.
        """
        deadline = self._monotonic() + timeout
        for attempt in (1, 2):
            access = self._login.access(self._left(deadline, what))
            status, answer = self._exchange(what, method, url, headers, access, body, deadline)
            if 200 <= status < 300:
                return answer
            if not faults.wants_new_login(status, answer.body):
                break
            if attempt == 2 or not self._login.renewable:
                refused = LoginRefused(f"{what}: HTTP {status}", status=status, request_id=answer.request_id)
                self._login.hold(refused, self._left(deadline, what))
                raise refused
            self._login.drop(access, self._left(deadline, what))
        raise faults.from_answer(what, status, answer.headers, answer.body)

    def _left(self, deadline: float, what: str) -> float:
        left = deadline - self._monotonic()
        if left <= 0:
            raise CloudUnreachable(f"{what}: out of time before it was sent")
        return left

    def _exchange(
        self,
        what: str,
        method: str,
        url: str,
        headers: Mapping[str, str],
        access: Access,
        body: object,
        deadline: float,
    ) -> tuple[int, Reply]:
        left = self._left(deadline, what)
        token = {"X-Auth-Token": access.token} if access.token else {}
        try:
            response = self._session.request(
                url,
                method,
                json=body,
                headers={**headers, **token},
                authenticated=False,
                requests_auth=access.signer,
                raise_exc=False,
                log=False,
                stream=True,
                timeout=(min(left, _CONNECT_TIMEOUT), left),
            )
            with response:
                return response.status_code, Reply(response.headers, self._read(response, deadline))
        except (ksa.ConnectionError, requests.RequestException, urllib3.exceptions.HTTPError, OSError) as failure:
            # The body is read past requests, so what breaks off in it comes as urllib3 has it.
            raise faults.from_failure(what, failure) from failure

    def _read(self, response: requests.Response, deadline: float) -> bytes:
        """Read the body as it comes, so that one that drips cannot outlast the deadline."""
        parts: list[bytes] = []
        size = 0
        while chunk := response.raw.read1(65536, decode_content=True):
            parts.append(chunk)
            size += len(chunk)
            if size > _LARGEST_ANSWER:
                raise requests.RequestException("the answer is too large")
            if self._monotonic() > deadline:
                raise requests.ReadTimeout("the answer did not end in time")
        return b"".join(parts)
