"""One exchange with the cloud: a token, a deadline, a bounded answer; failures are raised as `CloudError`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from handler.cloud import error_mapping
from handler.cloud.auth.login import REFUSED_HOLD, Login, Token
from handler.errors import (
    CallDenied,
    CloudError,
    CloudUnexpectedAnswer,
    CloudUnreachable,
    LoginRefused,
    ServerNotFound,
    StateConflict,
)
from handler.http_client import FAILURES, HttpClient, host_of


class Reply:
    """A complete answer with a 2xx status.

    Args:
        host: that it came from, for messages.
        secrets: of the request, which no message may quote.
    """

    __slots__ = ("_secrets", "body", "headers", "host")

    def __init__(
        self, headers: Mapping[str, str], body: bytes, host: str | None = None, secrets: Sequence[str] = ()
    ) -> None:
        self.headers = headers
        self.body = body
        self.host = host
        self._secrets = secrets

    def json(self, what: str, hook: Callable[[dict[str, object]], object] | None = None) -> dict[str, object]:
        """Parse the body as a JSON object.

        Args:
            what: the call in a few words, for messages.
            hook: as `object_hook` of `json.loads`.

        Raises:
            CloudUnexpectedAnswer: it is not one, as from a proxy that answers in the cloud's place.
        """
        try:
            document = json.loads(self.body, object_hook=hook)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            unexpected = CloudUnexpectedAnswer(f"{what}: the answer must be a JSON object", request_id=self.request_id)
            unexpected.host = self.host
            raise unexpected
        return document

    def error(self, what: str) -> CloudError | None:
        """Return the exception for an error document in spite of the status; None for any other body."""
        return error_mapping.from_success(what, 200, self.headers, self.body, self._secrets)

    def job_report(self, code: object, reason: object) -> str:
        """Return `error_mapping.job_report` without the secrets of the request."""
        return error_mapping.job_report(code, reason, self._secrets)

    @property
    def date(self) -> datetime | None:
        """The cloud's time of the answer, or None."""
        return error_mapping.date(self.headers)

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
        # The token that was accepted last, when one was last accepted, and the calls for which one was or was not.
        self._accepted: Token | None = None
        self._accepted_at = float("-inf")
        self._permitted: set[str] = set()
        self._denied: set[str] = set()

    def send(
        self,
        what: str,
        method: str,
        url: str,
        *,
        timeout: float,
        headers: Mapping[str, str],
        body: object = None,
        optional: bool = False,
    ) -> Reply:
        """Send one request and read the whole answer; a token that the cloud rejects is renewed once.

        A 401 for a new token as well concerns this call alone if none was ever accepted for it, and one recently for
        others: the access rules of an application credential do not include it. Else the login is refused.

        Args:
            what: the call in a few words, for messages; the same for all calls of one kind.
            method: in upper case.
            url: of the call.
            timeout: seconds for login, connection and answer together.
            headers: without the token.
            body: sent as JSON unless None.
            optional: whether the call is not essential, so that a 401 never refuses the login.

        Raises:
            CloudError: there is no answer with a 2xx status.
        """
        try:
            return self._send(_Call(what, method, url, headers, body, self._monotonic() + timeout), optional)
        except CloudError as error:
            # A failed login has the host of the identity service.
            error.host = error.host or host_of(url)
            raise

    def _send(self, call: _Call, optional: bool) -> Reply:
        what, renewed = call.what, False
        while True:
            access = self._login.access(self._left(call))
            status, answer, secrets = self._exchange(call, access)
            if 200 <= status < 300:
                # A page from a proxy is not evidence that the token was accepted.
                if not answer.body or "json" in answer.headers.get("Content-Type", "").lower():
                    self._note_accepted(what, access)
                return answer
            if not error_mapping.wants_new_login(status, answer.body):
                error = error_mapping.from_answer(what, status, answer.headers, answer.body, secrets)
                if isinstance(error, ServerNotFound | StateConflict):
                    self._note_accepted(what, access)
                elif isinstance(error, CallDenied):
                    # The token is valid. The access rules may still not include the call.
                    self._accepted, self._accepted_at = access, self._monotonic()
                raise error
            if status == 401 and self._accepted is access and what in self._denied:
                raise error_mapping.denied(what, answer.headers)
            if renewed or not self._login.renewable:
                recently = self._monotonic() - self._accepted_at < REFUSED_HOLD and what not in self._permitted
                if renewed and status == 401 and (recently or optional):
                    self._denied.add(what)
                    if recently:
                        self._accepted = access
                    raise error_mapping.denied(what, answer.headers)
                refused = LoginRefused(f"{what}: HTTP {status}", status=status, request_id=answer.request_id)
                self._login.hold(refused, self._left(call))
                raise refused
            renewed = True
            self._login.drop(access, self._left(call))

    def _note_accepted(self, what: str, access: Token) -> None:
        self._accepted, self._accepted_at = access, self._monotonic()
        self._permitted.add(what)
        self._denied.discard(what)

    def _left(self, call: _Call) -> float:
        left = call.deadline - self._monotonic()
        if left <= 0:
            raise CloudUnreachable(f"{call.what}: out of time before it was sent")
        return left

    def _exchange(self, call: _Call, access: Token) -> tuple[int, Reply, list[str]]:
        """Return the status, the answer, and the secrets of the request."""
        left = self._left(call)
        sent = dict(call.headers)
        payload = None
        if call.body is not None:
            payload = json.dumps(call.body).encode()
            sent["Content-Type"] = "application/json"
        if access.token:
            sent["X-Auth-Token"] = access.token.reveal()
        if access.signer is not None:
            sent |= access.signer(call.method, call.url, sent, payload)
        try:
            status, received, answer = self._client.send(
                call.method, call.url, headers=sent, body=payload, timeout=left
            )
        except FAILURES as failure:
            raise error_mapping.from_failure(call.what, failure) from failure
        secrets = error_mapping.carried(sent)
        return status, Reply(received, answer, host_of(call.url), secrets), secrets


class _Call(NamedTuple):
    what: str
    method: str
    url: str
    headers: Mapping[str, str]
    body: object
    deadline: float
