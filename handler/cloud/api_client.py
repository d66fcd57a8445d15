"""One exchange with the cloud: a token, a deadline, a bounded answer; what goes wrong comes out as our exceptions."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from handler.cloud import error_mapping
from handler.cloud.auth.login import Login, Token
from handler.errors import CloudUnexpectedAnswer, CloudUnreachable, LoginRefused
from handler.http_client import FAILURES, HttpClient


class Reply(NamedTuple):
    """A whole answer with a 2xx status."""

    headers: Mapping[str, str]
    body: bytes

    def json(self, what: str, hook: Callable[[dict[str, object]], object] | None = None) -> dict[str, object]:
        """The body as a JSON object.

        Args:
            hook: is given each object as soon as it is read; what it returns stands in its place.

        Raises:
            CloudConfused: it is something else, as from a proxy that answers in the cloud's place.
        """
        try:
            document = json.loads(self.body, object_hook=hook)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            raise CloudUnexpectedAnswer(f"{what}: the answer is no JSON object", request_id=self.request_id)
        return document

    @property
    def request_id(self) -> str | None:
        """The cloud's id for the request, or None."""
        return error_mapping.request_id(self.headers)


class Http:
    """Sends authenticated requests; safe to use from many threads."""

    def __init__(
        self,
        login: Login,
        client: HttpClient,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._login = login
        self._client = client
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
            status, answer, secrets = self._exchange(what, method, url, headers, access, body, deadline)
            if 200 <= status < 300:
                return answer
            if not error_mapping.wants_new_login(status, answer.body):
                break
            if attempt == 2 or not self._login.renewable:
                refused = LoginRefused(f"{what}: HTTP {status}", status=status, request_id=answer.request_id)
                self._login.hold(refused, self._left(deadline, what))
                raise refused
            self._login.drop(access, self._left(deadline, what))
        raise error_mapping.from_answer(what, status, answer.headers, answer.body, secrets)

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
        access: Token,
        body: object,
        deadline: float,
    ) -> tuple[int, Reply, list[str]]:
        """Status, answer, and the secrets that the request carried."""
        left = self._left(deadline, what)
        sent = dict(headers)
        payload = None
        if body is not None:
            payload = json.dumps(body).encode()
            sent["Content-Type"] = "application/json"
        if access.token:
            sent["X-Auth-Token"] = access.token
        if access.signer is not None:
            sent |= access.signer(method, url, sent, payload)
        try:
            status, received, answer = self._client.send(method, url, headers=sent, body=payload, timeout=left)
        except FAILURES as failure:
            raise error_mapping.from_failure(what, failure) from failure
        return status, Reply(received, answer), error_mapping.carried(sent)
