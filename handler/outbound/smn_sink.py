"""Hands a result to a topic of Open Telekom Cloud's Simple Message Notification, as a message of JSON text."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from typing import Protocol

from cloudevents.conversion import to_dict
from cloudevents.http import CloudEvent

from handler.errors import Acceptance, CloudError, LoginRefused, SinkUnreachable
from handler.event_types import PREFIX, STOP_ANNOUNCED
from handler.outbound.sink import DeliveryAttempt, NoAnswer, SinkReply

_LOG = logging.getLogger(__name__)

# SMN takes no more, counted in bytes of UTF-8.
_LARGEST_MESSAGE = 256 * 1024


class Publisher(Protocol):
    """What publishes a message with the cloud's login."""

    def publish(self, subject: str, message: str, timeout: float) -> None:
        """Publish once, within so many seconds.

        Raises:
            CloudError: it was not taken, or nobody knows.
        """


class TopicSink:
    """A topic to which results are published: the structured event as the message, the summary as the subject.

    A message may be published twice, if the answer to the first was lost; both hold the same event with the same id.

    Args:
        sleep, monotonic: the clock.
    """

    def __init__(
        self,
        publisher: Publisher,
        *,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._publisher = publisher
        self._delivery = DeliveryAttempt(sleep=sleep, monotonic=monotonic)

    def deliver(self, event: CloudEvent, deadline: float) -> None:
        """Publish the event until the topic takes it.

        Args:
            deadline: on the monotonic clock.

        Raises:
            SinkUnreachable: it was not taken in time, or never will be like this.
            LoginRefused: the cloud refused the login.
        """
        # Half of a surrogate pair is none that could be written: better a `?` than no result.
        encoded = json.dumps(dict(to_dict(event)), ensure_ascii=False).encode(errors="replace")
        if len(encoded) > _LARGEST_MESSAGE:
            raise SinkUnreachable(
                "The result is larger than a message of SMN may be; name fewer servers in one event.",
                acceptance=Acceptance.NOT_TAKEN,
            )
        subject, message = _subject(event), encoded.decode()
        event_id = event.get("causationid") or event["id"]
        self._delivery.until_taken(lambda timeout: self._publish(event_id, subject, message, timeout), deadline)

    def _publish(self, event_id: str, subject: str, message: str, timeout: float) -> SinkReply:
        try:
            self._publisher.publish(subject, message, timeout)
        except LoginRefused:
            raise
        except CloudError as failure:
            _LOG.warning("the topic did not take the result", extra={"event_id": event_id, **failure.log_fields()})
            status = NoAnswer.UNKNOWN if failure.status is None else failure.status
            return SinkReply(status, failure.retry_after, failure.cause)
        return SinkReply(200)


def _subject(event: CloudEvent) -> str:
    """What an e-mail has as its subject, such as `bms-autostop stop.completed: 2 stopped, 1 skipped`."""
    word = event["type"].removeprefix(PREFIX).removesuffix(".v1")
    data = event.data
    if event["type"] == STOP_ANNOUNCED:
        count = len(data["servers"])
        return f"bms-autostop {word}: {count} server{'s' * (count != 1)}"
    counts = [f"{count} {outcome}" for outcome, count in data["summary"].items() if count]
    return f"bms-autostop {word}: {', '.join(counts) or data['refusal']}"
