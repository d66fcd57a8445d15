"""Delivers an event to its sink, within a budget."""

from __future__ import annotations

import logging
import random
import ssl
import time
from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import partial
from typing import NamedTuple
from urllib.parse import unquote

import urllib3
from cloudevents.http import CloudEvent

from handler.errors import Acceptance, CallFailure, Cause, SinkUnreachable
from handler.http_client import FAILURES, HttpClient, call_failure, host_of, retry_after
from handler.outbound.result import binary
from handler.settings.common import SinkSettings

_LOG = logging.getLogger(__name__)

_ATTEMPT_TIMEOUT = 5.0
_LONGEST_TOKEN = 64 * 1024
# As in Knative's delivery contract; a retry does not change any other 4xx.
_WORTH_ANOTHER_TRY = frozenset({404, 408, 409, 429})


class NoAnswer(StrEnum):
    """Why an attempt has no answer."""

    REFUSED = "connection-refused"
    NOT_SENT = "not-sent"
    UNKNOWN = "unknown"


class _NoToken(OSError):
    """AUTOSTOP_SINK_TOKEN_FILE cannot be read, or holds no token."""


class SinkReply(NamedTuple):
    """The response of a sink to one attempt.

    Attributes:
        status: as in HTTP, or why no answer came.
        retry_after: seconds after which the sink accepts another attempt, or None.
        cause: why the event was not taken; None if it was.
    """

    status: int | NoAnswer
    retry_after: float | None = None
    cause: Cause | None = None


def deliver_until_taken(
    attempt: Callable[[float], SinkReply],
    deadline: float,
    *,
    once: bool = False,
    sleep: Callable[[float], None],
    monotonic: Callable[[], float],
) -> None:
    """Make attempts until one is answered with 2xx, or another one cannot help or must not be made.

    Args:
        attempt: sends once, within so many seconds.
        deadline: on the monotonic clock.
        once: for an event that must not be delivered twice: another attempt is made only if the connection was refused,
            or the answer was 429 or 503, and an attempt may last until the deadline.
        sleep: waits so many seconds.
        monotonic: the clock.

    Raises:
        SinkUnreachable: it was not answered with 2xx; `acceptance` is that of all attempts together.
    """
    pause, cause = 0.2, None
    acceptance = Acceptance.NOT_TAKEN
    while True:
        left = deadline - monotonic()
        if left <= 0:
            raise _too_late(cause, acceptance)
        status, wait, cause = attempt(left if once else min(left, _ATTEMPT_TIMEOUT))
        if not isinstance(status, NoAnswer) and 200 <= status < 300:
            return
        if not _is_not_taken(status):
            acceptance = Acceptance.UNKNOWN
        if not _may_repeat(status, once):
            raise SinkUnreachable(_final(status), retry_after=wait, acceptance=acceptance, cause=cause)
        # At least the own pause, since `Retry-After: 0` would remove every pause.
        seconds = max(pause * random.uniform(0.5, 1.0), wait or 0.0)
        if monotonic() + seconds >= deadline:
            raise _too_late(cause, acceptance, wait)
        sleep(seconds)
        pause = min(pause * 2.0, 4.0)


def _may_repeat(status: int | NoAnswer, once: bool) -> bool:
    if once:
        return status in (NoAnswer.REFUSED, 429, 503)
    return isinstance(status, NoAnswer) or status >= 500 or status in _WORTH_ANOTHER_TRY


def _is_not_taken(status: int | NoAnswer) -> bool:
    """Return whether an attempt shows that the sink has not taken the event."""
    return status is not NoAnswer.UNKNOWN if isinstance(status, NoAnswer) else 400 <= status < 500


def _final(status: int | NoAnswer) -> str:
    if isinstance(status, NoAnswer):
        return "The sink gave no answer." if status is NoAnswer.UNKNOWN else "There is no connection to the sink."
    return f"The sink {'failed' if status >= 500 else 'refuses the event'} (HTTP {status})."


def _too_late(cause: Cause | None, acceptance: Acceptance, retry_after: float | None = None) -> SinkUnreachable:
    last = f"; the last failure: {cause}" if cause else ""
    return SinkUnreachable(
        f"The sink did not take the event in time{last}.", retry_after=retry_after, acceptance=acceptance, cause=cause
    )


class Sink:
    """Where events are POSTed, in binary mode.

    A token file is read for each attempt, as Kubernetes renews it in place. For `once`, `sleep` and `monotonic` see
    `deliver_until_taken`.
    """

    def __init__(
        self,
        settings: SinkSettings,
        *,
        once: bool = False,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
        new_client: Callable[..., HttpClient] = HttpClient,
    ) -> None:
        self._settings = settings
        self._until_taken = partial(deliver_until_taken, once=once, sleep=sleep, monotonic=monotonic)
        self._client = new_client(verify=settings.ca or True, monotonic=monotonic)

    def deliver(self, event: CloudEvent, deadline: float) -> None:
        """POST an event in binary mode until the sink accepts it; see `send`."""
        self.send(*binary(event), deadline)

    def send(self, headers: Mapping[str, str], body: bytes, deadline: float) -> None:
        """POST an event until the sink accepts it or the deadline on the monotonic clock.

        Raises:
            SinkUnreachable: the sink did not confirm that it has taken it.
        """
        self._until_taken(lambda timeout: self._post(headers, body, timeout), deadline)

    def _post(self, headers: Mapping[str, str], body: bytes, timeout: float) -> SinkReply:
        try:
            authorization = self._authorization()
        except _NoToken:
            return self._not_taken(headers, NoAnswer.NOT_SENT, None, CallFailure.NO_TOKEN_IN_FILE)
        try:
            answer = self._client.send(
                "POST",
                self._settings.url,
                body=body,
                headers={**headers, **authorization},
                timeout=timeout,
                head_only=True,
            )
        except FAILURES as failure:
            return self._not_taken(headers, _why(failure), None, call_failure(failure))
        if 200 <= answer.status < 300:
            return SinkReply(answer.status)
        return self._not_taken(headers, answer.status, retry_after(answer.headers), None)

    def _not_taken(
        self, headers: Mapping[str, str], status: int | NoAnswer, wait: float | None, failure: str | None
    ) -> SinkReply:
        code = None if isinstance(status, NoAnswer) else status
        cause = Cause("posting the event", host_of(self._settings.url), code, failure)
        # A result is named by the event that it is about, as in every other line.
        event_id = unquote(headers.get("ce-causationid") or headers.get("ce-id", ""))
        _LOG.warning("the sink did not take the event", extra={"event_id": event_id, "cause": cause._asdict()})
        return SinkReply(status, wait, cause)

    def _authorization(self) -> dict[str, str]:
        """Return the header that authenticates us at the sink; raise _NoToken for a file that may be being written."""
        token = self._settings.token.reveal()
        if self._settings.token_file:
            try:
                with open(self._settings.token_file, encoding="latin-1") as file:
                    token = file.read(_LONGEST_TOKEN).strip()
            except OSError as failure:
                raise _NoToken from failure
            if not token or not token.isascii() or not token.isprintable():
                raise _NoToken
        return {"Authorization": f"Bearer {token}"} if token else {}


def _why(failure: Exception) -> NoAnswer:
    """Return whether a failed exchange has delivered the event; after a time-out that is unknown."""
    match failure:
        case urllib3.exceptions.NewConnectionError() if isinstance(failure.__cause__, ConnectionRefusedError):
            return NoAnswer.REFUSED
        case urllib3.exceptions.NewConnectionError():
            return NoAnswer.NOT_SENT
        case urllib3.exceptions.SSLError(args=[ssl.SSLCertVerificationError(), *_]):
            return NoAnswer.NOT_SENT
        case _:
            return NoAnswer.UNKNOWN
