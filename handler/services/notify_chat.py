"""The composition root of `notify_chat`: from settings to an endpoint. No cloud, no login.

Its log lines: `result posted` with `chat` and `reply`, `result posted before`, `result not posted` with `detail`
and, if it must be sent again, `problem`; each with `event_source`, `event_id` and `event_type`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from datetime import tzinfo

from handler.errors import BadEvent, ChatUnreachable, Violation
from handler.inbound.cloudevents.result_events import ResultEvent
from handler.inbound.endpoints.notify_chat import NotifyEndpoint
from handler.keep.model import AnyReport
from handler.outbound.chat.post import Poster
from handler.outbound.chat.route import MattermostButtons, targets
from handler.settings.notify_chat import NotifySettings
from handler.stop.model import Report

_LOG = logging.getLogger(__name__)

# `stop_servers` waits 5 seconds for its sink, and repeats the delivery after that.
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
        """Return the endpoint of `notify_chat`."""
        if not self._settings.webhooks:
            _LOG.warning("no webhook of a chat is set")
        return NotifyEndpoint(self._settings, self.post)

    def post(self, results: Sequence[ResultEvent], received: float) -> None:
        """Post the results of one request; each is tried, also if others fail.

        The budget begins when the request was `received`, on the monotonic clock.

        Raises:
            ChatUnreachable: at least one must be sent again. Those that were posted are remembered.
            BadEvent: at least one is refused permanently, by its chat and by the configured one.
        """
        deadline = received + self._settings.deadline.total_seconds()
        unreachable: ChatUnreachable | None = None
        refused: list[Violation] = []
        for result in results:
            try:
                if not self._post(result, deadline):
                    refused.append(Violation("event", "must be accepted by a chat; the log has the reason"))
            except ChatUnreachable as passing:
                _log_not_posted(result, logging.WARNING, str(passing), problem=passing.name)
                unreachable = passing
        if unreachable is not None:
            raise unreachable
        if refused:
            raise BadEvent(*refused)

    def _post(self, result: ResultEvent, deadline: float) -> bool:
        """Post a result, unless it was posted; return False if every chat refuses it."""
        now = self._monotonic()
        until = min(deadline, now + _LONGEST)
        if not self._posted.claim(result, until - now):
            _LOG.info("result posted before", extra=_about(result))
            return True
        posted = False
        try:
            report = _in_zone(result.report, self._settings.timezone)
            chats = targets(result.report, self._settings)
            for destination in chats:
                if self._poster.post(report, destination, until - self._monotonic()):
                    posted = True
                    _LOG.info(
                        "result posted",
                        extra={**_about(result), "chat": destination.chat.value, "reply": destination.reply},
                    )
                    return True
        finally:
            self._posted.release(result, posted=posted)
        if chats:
            _log_not_posted(result, logging.WARNING, "Every chat refuses it.", problem="chat-refused")
            return False
        # The user of a chat command expects an answer; a schedule does not.
        level = logging.WARNING if result.report.request.reply_to else logging.INFO
        _log_not_posted(result, level, "No chat is set for it.")
        return True


def _in_zone(report: AnyReport, zone: tzinfo | None) -> AnyReport:
    """Return the report with the time of its notice in a zone, which its message then names beside UTC."""
    if zone is None or not isinstance(report, Report) or report.notice_for is None:
        return report
    return report._replace(request=report.request._replace(notice_for=report.notice_for.astimezone(zone)))


class PostedResults:
    """The results that were posted lately, by `source` and `id`, and those that are being posted.

    Another process does not know them, so a result can be posted twice.
    """

    def __init__(self) -> None:
        self._posted: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._claimed: set[tuple[str, str]] = set()
        self._changed = threading.Condition()

    def claim(self, result: ResultEvent, seconds: float) -> bool:
        """Claim a result for posting, after at most so many seconds of waiting for a thread that has claimed it.

        Returns:
            Whether it is claimed, and must be released; if not, it was posted.

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


def _log_not_posted(result: ResultEvent, level: int, detail: str, **more: str) -> None:
    _LOG.log(level, "result not posted", extra={**_about(result), "detail": detail, **more})


def _about(result: ResultEvent) -> dict[str, str | None]:
    return {
        "event_source": result.source,
        "event_id": result.id,
        "event_type": result.type,
        "trace_id": result.trace_id,
    }
