"""The announcement of an event's stops: `stop.announced.v1`, posted to the sink of results before the first of them."""

from __future__ import annotations

import json
import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextvars import copy_context
from datetime import UTC, datetime
from typing import Protocol

from cloudevents.http import CloudEvent

from handler.errors import AutostopError, InternalError, NotAnnounced, RetryableError, SinkUnreachable
from handler.event_types import STOP_ANNOUNCED
from handler.outbound.logs import about
from handler.outbound.result import caused_attributes, people, request_row
from handler.stop.model import StopRequest
from handler.stop.ports import Candidate

_LOG = logging.getLogger(__name__)

# A fixed namespace, so that the same announcement has the same id in every deployment.
_IDS = uuid.UUID("4f0f3f55-7d0a-5c55-9c1b-5f6f1c1f0a52")
# Seconds, with name resolution and all attempts.
_LONGEST = 2.0
# At most this share of the budget that is left.
_SHARE = 0.5
# The sink ends its attempts a little earlier, so that their cause is known.
_SINK_SHARE = 0.95


class EventSink(Protocol):
    """The sink of announcements."""

    def deliver(self, event: CloudEvent, deadline: float) -> None:
        """Deliver an event until the deadline on the monotonic clock, or raise."""
        ...


def announcement_event(
    request: StopRequest, servers: Sequence[Candidate], *, source: str, extensions: Mapping[str, str], now: datetime
) -> CloudEvent:
    """Make the event that announces the stops of servers, with `extensions` as of every event sent.

    Returns:
        An event whose id is a UUID (version 5) of the incoming `source` and `id`, and of each server's id and name.
    """
    content = [request.source, request.id, [[*server] for server in servers]]
    ids, id_ = [server.id for server in servers], str(uuid.uuid5(_IDS, json.dumps(content)))
    attributes = caused_attributes(request, ids, id_, STOP_ANNOUNCED, source, now, extensions)
    rows = [{"id": server.id, "name": server.name} for server in servers]
    return CloudEvent(attributes, {"request": {**request_row(request), **people(request)}, "servers": rows})


class Announcer:
    """Announces the stops of events.

    Args:
        sink: receives the announcements.
        required: whether nothing is stopped without a delivered announcement.
        source, extensions: see `announcement_event`.
        on_outcome: called with whether an announcement was delivered.
        monotonic, now: the clocks.
    """

    def __init__(
        self,
        sink: EventSink,
        *,
        required: bool,
        source: str,
        extensions: Mapping[str, str],
        on_outcome: Callable[[bool], None] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._sink = sink
        self._required = required
        self._source = source
        self._extensions = extensions
        self._on_outcome = on_outcome
        self._monotonic = monotonic
        self._now = now

    def announce(self, request: StopRequest, deadline: float, servers: Sequence[Candidate]) -> None:
        """Announce what an event may stop, within 2 seconds and before its deadline on the monotonic clock.

        Raises:
            NotAnnounced: it was not delivered, and is required.
        """
        event = announcement_event(request, servers, source=self._source, extensions=self._extensions, now=self._now())
        failure = self._failure(event, min(_LONGEST, (deadline - self._monotonic()) * _SHARE))
        if self._on_outcome is not None:
            self._on_outcome(failure is None)
        fields = {**about(request), "servers": len(servers), "announcement_id": event["id"]}
        if failure is None:
            _LOG.info("stop announced", extra=fields)
            return
        _LOG.warning("stop not announced", extra={**fields, "required": self._required, **failure.log_fields()})
        if self._required:
            raise NotAnnounced(
                f"The stops were not announced, so nothing was stopped. {failure}",
                retry_after=failure.retry_after,
                cause=failure.cause,
            ) from failure

    def _failure(self, event: CloudEvent, seconds: float) -> RetryableError | None:
        """Deliver an event; return why it was not delivered, or None if it was."""
        delivered: Future[None] = Future()

        def deliver() -> None:
            try:
                self._sink.deliver(event, self._monotonic() + seconds * _SINK_SHARE)
            except Exception as failure:
                delivered.set_exception(failure)
            else:
                delivered.set_result(None)

        # A thread of its own: neither name resolution nor a response that drips is bounded by the client.
        threading.Thread(target=copy_context().run, args=(deliver,), name="announcement", daemon=True).start()
        try:
            delivered.result(max(seconds, 0.0))
        except FutureTimeout:
            return SinkUnreachable("The sink did not take the announcement in time.")
        except RetryableError as failure:
            return failure
        except Exception as failure:
            if not isinstance(failure, AutostopError):
                _LOG.exception("a bug kept the stops from being announced")
            return InternalError("The announcement could not be made.")
        return None
