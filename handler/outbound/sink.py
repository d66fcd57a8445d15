"""Hands an event to its sink, again and again until the budget ends."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from cloudevents.http import CloudEvent

from handler.errors import SinkUnreachable
from handler.http_client import FAILURES, HttpClient, retry_after
from handler.outbound.result import binary
from handler.settings.common import SinkSettings

_LOG = logging.getLogger(__name__)

_ATTEMPT_TIMEOUT = 5.0
_LONGEST_TOKEN = 64 * 1024
# As Knative's delivery contract has it; any other 4xx will not change by asking again.
_WORTH_ANOTHER_TRY = frozenset({404, 408, 409, 429})


class SinkReply(NamedTuple):
    """What a sink answered to one attempt.

    Attributes:
        status: as in HTTP; None if no answer came.
        retry_after: seconds after which it wants to be asked again, or None.
    """

    status: int | None
    retry_after: float | None = None


class DeliveryAttempt:
    """The patience with a sink, of whatever kind.

    Args:
        sleep, monotonic: the clock.
    """

    def __init__(
        self,
        *,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sleep = sleep
        self._monotonic = monotonic

    def until_taken(self, attempt: Callable[[float], SinkReply], deadline: float) -> None:
        """Make attempts until one is answered with 2xx.

        Args:
            attempt: tries once within so many seconds.
            deadline: on the monotonic clock.

        Raises:
            SinkUnreachable: it was not taken in time, or never will be like this.
        """
        attempts = 0
        while True:
            attempts += 1
            left = deadline - self._monotonic()
            if left <= 0:
                raise SinkUnreachable("The sink did not take the event in time.")
            status, told = attempt(min(left, _ATTEMPT_TIMEOUT))
            if status is not None and 200 <= status < 300:
                return
            if status is not None and status < 500 and status not in _WORTH_ANOTHER_TRY:
                raise SinkUnreachable(f"The sink refuses the event (HTTP {status}).")
            pause = min(0.2 * 2.0 ** min(attempts - 1, 5), 4.0) * random.uniform(0.5, 1.0)
            if told is not None:
                # At least the own pause, or `Retry-After: 0` would make this a hammer.
                pause = max(pause, told)
            if self._monotonic() + pause >= deadline:
                raise SinkUnreachable("The sink did not take the event in time.", retry_after=told)
            self._sleep(pause)


class Sink:
    """Where events are POSTed, in binary mode.

    Args:
        settings: a token file is read for each attempt, as Kubernetes renews it in place.
        sleep, monotonic: the clock.
        new_client: makes the HTTP client.
    """

    def __init__(
        self,
        settings: SinkSettings,
        *,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
        new_client: Callable[..., HttpClient] = HttpClient,
    ) -> None:
        self._settings = settings
        self._delivery = DeliveryAttempt(sleep=sleep, monotonic=monotonic)
        self._client = new_client(verify=settings.ca or True, monotonic=monotonic)

    def deliver(self, event: CloudEvent, deadline: float) -> None:
        """POST the event in binary mode until the sink takes it; see `send`."""
        self.send(*binary(event), deadline)

    def send(self, headers: Mapping[str, str], body: bytes, deadline: float) -> None:
        """POST the event until the sink takes it.

        Args:
            deadline: on the monotonic clock.

        Raises:
            SinkUnreachable: it was not taken in time, or never will be like this.
        """
        self._delivery.until_taken(lambda timeout: self._post(headers, body, timeout), deadline)

    def _post(self, headers: Mapping[str, str], body: bytes, timeout: float) -> SinkReply:
        try:
            answer = self._client.send(
                "POST",
                self._settings.url,
                body=body,
                headers={**headers, **self._proof()},
                timeout=timeout,
                head_only=True,
            )
        except FAILURES as failure:
            _LOG.warning("the sink gave no answer", extra={"detail": type(failure).__name__})
            return SinkReply(None)
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
