"""Publishing of results to a topic of Open Telekom Cloud's Simple Message Notification, as JSON text."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Protocol

from cloudevents.conversion import to_dict
from cloudevents.http import CloudEvent

from handler.errors import Acceptance, CloudError, LoginRefused, SinkUnreachable
from handler.event_types import PREFIX, STOP_ANNOUNCED
from handler.outbound.sink import NoAnswer, SinkReply, deliver_until_taken

_LOG = logging.getLogger(__name__)

# Largest message of SMN, in bytes of UTF-8.
_LARGEST_MESSAGE = 256 * 1024


class Publisher(Protocol):
    """Publishes messages with the cloud's login."""

    def publish(self, subject: str, message: str, timeout: float) -> None:
        """Publish once, within so many seconds; raise CloudError if it was not accepted, or that is not known."""


class TopicSink:
    """A topic to which results are published: the structured event as the message, the summary as the subject.

    A message may be published twice, if the response to the first was lost; both have the same event with the same id.
    """

    def __init__(
        self,
        publisher: Publisher,
        *,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._publisher = publisher
        self._until_taken = partial(deliver_until_taken, sleep=sleep, monotonic=monotonic)

    def deliver(self, event: CloudEvent, deadline: float) -> None:
        """Publish an event until the topic accepts it or the deadline on the monotonic clock.

        Raises:
            SinkUnreachable: the topic did not accept it in time, or never will.
            LoginRefused: the cloud refused the login.
        """
        # Half of a surrogate pair cannot be encoded: a `?` is better than no result.
        encoded = json.dumps(dict(to_dict(event)), ensure_ascii=False).encode(errors="replace")
        if len(encoded) > _LARGEST_MESSAGE:
            raise SinkUnreachable(
                "The result must not be larger than a message of SMN; name fewer servers in one event.",
                acceptance=Acceptance.NOT_TAKEN,
            )
        subject, message = _subject(event), encoded.decode()
        event_id = event.get("causationid") or event["id"]
        self._until_taken(lambda timeout: self._publish(event_id, subject, message, timeout), deadline)

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
    """Return the subject of an e-mail, such as `bms-autostop stop.completed: 2 stopped, 1 skipped`."""
    word = event["type"].removeprefix(PREFIX).removesuffix(".v1")
    data = event.data
    if event["type"] == STOP_ANNOUNCED:
        count = len(data["servers"])
        return f"bms-autostop {word}: {count} server{'s' * (count != 1)}"
    counts = [f"{count} {outcome}" for outcome, count in data["summary"].items() if count]
    return f"bms-autostop {word}: {', '.join(counts) or data['refusal']}"
