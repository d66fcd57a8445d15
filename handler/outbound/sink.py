"""Delivers an event to its sink, within a budget."""

from __future__ import annotations

import logging
import random
import ssl
import time
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import NamedTuple

import urllib3
from cloudevents.http import CloudEvent

from handler.errors import Acceptance, SinkUnreachable
from handler.http_client import FAILURES, HttpClient, retry_after
from handler.outbound.result import binary
from handler.settings.common import SinkSettings

_LOG = logging.getLogger(__name__)

_ATTEMPT_TIMEOUT = 5.0
_LONGEST_TOKEN = 64 * 1024
# As Knative's delivery contract has it; any other 4xx will not change by asking again.
_WORTH_ANOTHER_TRY = frozenset({404, 408, 409, 429})


class NoAnswer(StrEnum):
    """Why an attempt has no answer."""

    REFUSED = "connection-refused"
    NOT_SENT = "not-sent"
    UNKNOWN = "unknown"


class SinkReply(NamedTuple):
    """What a sink answered to one attempt.

    Attributes:
        status: as in HTTP, or why no answer came.
        retry_after: seconds after which it wants to be asked again, or None.
    """

    status: int | NoAnswer
    retry_after: float | None = None


class DeliveryAttempt:
    """The attempts to deliver one event, and when another one is made.

    Args:
        once: for an event that must not be delivered twice: another attempt is made only if the connection was refused,
            or the answer was 429 or 503, and an attempt may last until the deadline.
        sleep, monotonic: the clock.
    """

    def __init__(
        self,
        *,
        once: bool = False,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._once = once
        self._sleep = sleep
        self._monotonic = monotonic

    def until_taken(self, attempt: Callable[[float], SinkReply], deadline: float) -> None:
        """Make attempts until one is answered with 2xx, or another one cannot help or must not be made.

        Args:
            attempt: tries once within so many seconds.
            deadline: on the monotonic clock.

        Raises:
            SinkUnreachable: it was not answered with 2xx; `acceptance` is that of all attempts together.
        """
        attempts = 0
        acceptance = Acceptance.NOT_TAKEN
        while True:
            attempts += 1
            left = deadline - self._monotonic()
            if left <= 0:
                raise SinkUnreachable("The sink did not take the event in time.", acceptance=acceptance)
            status, wait = attempt(left if self._once else min(left, _ATTEMPT_TIMEOUT))
            if not isinstance(status, NoAnswer) and 200 <= status < 300:
                return
            if not _is_not_taken(status):
                acceptance = Acceptance.UNKNOWN
            if not self._may_repeat(status):
                raise SinkUnreachable(_final(status), retry_after=wait, acceptance=acceptance)
            pause = min(0.2 * 2.0 ** min(attempts - 1, 5), 4.0) * random.uniform(0.5, 1.0)
            if wait is not None:
                # At least the own pause, or `Retry-After: 0` would make this a hammer.
                pause = max(pause, wait)
            if self._monotonic() + pause >= deadline:
                raise SinkUnreachable(
                    "The sink did not take the event in time.", retry_after=wait, acceptance=acceptance
                )
            self._sleep(pause)

    def _may_repeat(self, status: int | NoAnswer) -> bool:
        if self._once:
            return status in (NoAnswer.REFUSED, 429, 503)
        return isinstance(status, NoAnswer) or status >= 500 or status in _WORTH_ANOTHER_TRY


def _is_not_taken(status: int | NoAnswer) -> bool:
    """Say whether an attempt shows that the sink has not taken the event."""
    match status:
        case NoAnswer.REFUSED | NoAnswer.NOT_SENT:
            return True
        case NoAnswer.UNKNOWN:
            return False
        case _:
            return 400 <= status < 500


def _final(status: int | NoAnswer) -> str:
    match status:
        case NoAnswer.REFUSED | NoAnswer.NOT_SENT:
            return "There is no connection to the sink."
        case NoAnswer.UNKNOWN:
            return "The sink gave no answer."
        case _ if status >= 500:
            return f"The sink failed (HTTP {status})."
        case _:
            return f"The sink refuses the event (HTTP {status})."


class Sink:
    """Where events are POSTed, in binary mode.

    Args:
        settings: a token file is read for each attempt, as Kubernetes renews it in place.
        once: see `DeliveryAttempt`.
        sleep, monotonic: the clock.
        new_client: makes the HTTP client.
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
        self._delivery = DeliveryAttempt(once=once, sleep=sleep, monotonic=monotonic)
        self._client = new_client(verify=settings.ca or True, monotonic=monotonic)

    def deliver(self, event: CloudEvent, deadline: float) -> None:
        """POST the event in binary mode until the sink takes it; see `send`."""
        self.send(*binary(event), deadline)

    def send(self, headers: Mapping[str, str], body: bytes, deadline: float) -> None:
        """POST the event until the sink takes it.

        Args:
            deadline: on the monotonic clock.

        Raises:
            SinkUnreachable: the sink did not say that it has taken it.
        """
        self._delivery.until_taken(lambda timeout: self._post(headers, body, timeout), deadline)

    def _post(self, headers: Mapping[str, str], body: bytes, timeout: float) -> SinkReply:
        try:
            proof = self._proof()
        except OSError as failure:
            return _no_answer(failure, NoAnswer.NOT_SENT)
        try:
            answer = self._client.send(
                "POST",
                self._settings.url,
                body=body,
                headers={**headers, **proof},
                timeout=timeout,
                head_only=True,
            )
        except FAILURES as failure:
            return _no_answer(failure, _why(failure))
        return SinkReply(answer.status, retry_after(answer.headers))

    def _proof(self) -> dict[str, str]:
        """What shows the sink who we are.

        Raises:
            OSError: the file cannot be read, or holds no token; it may be written just now.
        """
        token = self._settings.token.reveal()
        if self._settings.token_file:
            with open(self._settings.token_file, encoding="latin-1") as file:
                token = file.read(_LONGEST_TOKEN).strip()
            if not token or not token.isascii() or not token.isprintable():
                raise OSError("no token in the file")
        return {"Authorization": f"Bearer {token}"} if token else {}


def _no_answer(failure: Exception, why: NoAnswer) -> SinkReply:
    _LOG.warning("the sink gave no answer", extra={"detail": type(failure).__name__})
    return SinkReply(why)


def _why(failure: Exception) -> NoAnswer:
    """Return what a failed exchange says of the event; a time-out says nothing, whatever timed out."""
    match failure:
        case urllib3.exceptions.NewConnectionError() if isinstance(failure.__cause__, ConnectionRefusedError):
            return NoAnswer.REFUSED
        case urllib3.exceptions.NewConnectionError():
            return NoAnswer.NOT_SENT
        case urllib3.exceptions.SSLError(args=[ssl.SSLCertVerificationError(), *_]):
            return NoAnswer.NOT_SENT
        case _:
            return NoAnswer.UNKNOWN
