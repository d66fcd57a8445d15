"""The rooms put together for `notify_chat`: settings in, a thing that answers requests out. No cloud, no login.

Its lines in the log: `result posted` with `chat` and `reply`, `result posted before`, `result not posted` with `detail`
and, if it is to be told still, `problem`; each with `event_source`, `event_id` and `event_type`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

from handler.errors import BadEvent, ChatUnreachable, Violation
from handler.inbound.cloudevents.result_events import ResultEvent
from handler.inbound.endpoints.notify_chat import NotifyEndpoint
from handler.outbound.chat.post import Poster
from handler.outbound.chat.route import targets
from handler.settings.notify_chat import NotifySettings

_LOG = logging.getLogger(__name__)

# `stop_servers` waits 5 seconds for its sink. Whoever is answered later sends the same again meanwhile.
_LONGEST = 4.5
_REMEMBERED = 1000


class NotifyService:
    """What one process shares: the connections, and which results it has told."""

    def __init__(self, settings: NotifySettings, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._monotonic = monotonic
        self._poster = Poster()
        self._told = _Memory()

    def endpoint(self) -> NotifyEndpoint:
        """The door of `notify_chat`."""
        if not self._settings.webhooks:
            _LOG.warning("no webhook of a chat is set")
        return NotifyEndpoint(self._settings, self.tell)

    def tell(self, results: Sequence[ResultEvent], received: float) -> None:
        """Tell the results of one request. Each is tried, whatever becomes of the others.

        Args:
            received: when the request was here, on the monotonic clock.

        Raises:
            ChatUnreachable: at least one must come again. Those that are told by then are remembered.
            BadEvent: at least one is refused by its chat and by the configured one, for ever.
        """
        deadline = received + self._settings.deadline.total_seconds()
        trouble: ChatUnreachable | None = None
        refused: list[Violation] = []
        for result in results:
            try:
                if not self._tell(result, deadline):
                    refused.append(Violation("event", "is taken by no chat; the log tells more"))
            except ChatUnreachable as passing:
                _not_told(result, logging.WARNING, str(passing), problem=passing.name)
                trouble = passing
        if trouble is not None:
            raise trouble
        if refused:
            raise BadEvent(*refused)

    def _tell(self, result: ResultEvent, deadline: float) -> bool:
        """Whether there is nothing more to be done about a result."""
        if result in self._told:
            _LOG.info("result posted before", extra=_about(result))
            return True
        until = min(deadline, self._monotonic() + _LONGEST)
        wheres = targets(result.report, self._settings)
        for where in wheres:
            if self._poster.post(result.report, where, until - self._monotonic()):
                self._told.add(result)
                _LOG.info("result posted", extra={**_about(result), "chat": where.chat.value, "reply": where.reply})
                return True
        if wheres:
            _not_told(result, logging.WARNING, "Every chat refuses it.", problem="chat-refused")
            return False
        # Somebody who asked in a chat expects an answer; a schedule does not.
        level = logging.WARNING if result.report.request.reply_to else logging.INFO
        _not_told(result, level, "No chat is set for it.")
        return True


class _Memory:
    """The results that were posted lately, by `source` and `id`. Another process does not know them: then one is posted
    twice.
    """

    def __init__(self) -> None:
        self._keys: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._lock = threading.Lock()

    def __contains__(self, result: ResultEvent) -> bool:
        return _key(result) in self._keys

    def add(self, result: ResultEvent) -> None:
        with self._lock:
            self._keys[_key(result)] = None
            if len(self._keys) > _REMEMBERED:
                self._keys.popitem(last=False)


def _key(result: ResultEvent) -> tuple[str, str]:
    return result.source, result.id


def _not_told(result: ResultEvent, level: int, detail: str, **more: str) -> None:
    _LOG.log(level, "result not told", extra={**_about(result), "detail": detail, **more})


def _about(result: ResultEvent) -> dict[str, str | None]:
    return {
        "event_source": result.source,
        "event_id": result.id,
        "event_type": result.type,
        "trace_id": result.trace_id,
    }
