"""The composition root of `notify_chat`: from settings to what answers requests. No cloud, no login.

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
from handler.outbound.chat.route import MattermostButtons, targets
from handler.settings.notify_chat import NotifySettings

_LOG = logging.getLogger(__name__)

# `stop_servers` waits 5 seconds for its sink. Whoever is answered later sends the same again meanwhile.
_LONGEST = 4.5
_REMEMBERED = 1000


class NotifyService:
    """What one process shares: the connections, and which results it has posted."""

    def __init__(self, settings: NotifySettings, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._monotonic = monotonic
        url, keys = settings.webhook_url, settings.action_keys
        self._poster = Poster(MattermostButtons(f"{url}/mattermost", keys[0]) if url and keys else None)
        self._posted = PostedResults()

    def endpoint(self) -> NotifyEndpoint:
        """Make what answers HTTP requests to `notify_chat`."""
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
        """Post a result, unless it was posted; return whether there is nothing more to be done about it."""
        now = self._monotonic()
        until = min(deadline, now + _LONGEST)
        if not self._posted.claim(result, until - now):
            _LOG.info("result posted before", extra=_about(result))
            return True
        posted = False
        try:
            wheres = targets(result.report, self._settings)
            for where in wheres:
                if self._poster.post(result.report, where, until - self._monotonic()):
                    posted = True
                    _LOG.info("result posted", extra={**_about(result), "chat": where.chat.value, "reply": where.reply})
                    return True
        finally:
            self._posted.release(result, posted=posted)
        if wheres:
            _not_told(result, logging.WARNING, "Every chat refuses it.", problem="chat-refused")
            return False
        # Somebody who asked in a chat expects an answer; a schedule does not.
        level = logging.WARNING if result.report.request.reply_to else logging.INFO
        _not_told(result, level, "No chat is set for it.")
        return True


class PostedResults:
    """The results that were posted lately, by `source` and `id`, and those that are being posted.

    Another process does not know them: then one is posted twice.
    """

    def __init__(self) -> None:
        self._posted: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._claimed: set[tuple[str, str]] = set()
        self._changed = threading.Condition()

    def claim(self, result: ResultEvent, seconds: float) -> bool:
        """Claim a result for posting, so that no other thread posts it; it must be released.

        Args:
            seconds: to wait for a thread that has claimed it.

        Returns:
            Whether it is claimed; if not, it was posted.

        Raises:
            ChatUnreachable: another thread has not posted it in time.
        """
        key = result.source, result.id
        with self._changed:
            if not self._changed.wait_for(lambda: key not in self._claimed, seconds):
                raise ChatUnreachable("Another delivery of the result was not posted in time.")
            if key in self._posted:
                return False
            self._claimed.add(key)
            return True

    def release(self, result: ResultEvent, *, posted: bool) -> None:
        """Release a claimed result, and remember it if it was posted."""
        key = result.source, result.id
        with self._changed:
            self._claimed.remove(key)
            if posted:
                self._posted[key] = None
                if len(self._posted) > _REMEMBERED:
                    self._posted.popitem(last=False)
            self._changed.notify_all()


def _not_told(result: ResultEvent, level: int, detail: str, **more: str) -> None:
    _LOG.log(level, "result not told", extra={**_about(result), "detail": detail, **more})


def _about(result: ResultEvent) -> dict[str, str | None]:
    return {
        "event_source": result.source,
        "event_id": result.id,
        "event_type": result.type,
        "trace_id": result.trace_id,
    }
