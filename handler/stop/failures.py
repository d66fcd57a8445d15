"""What went wrong with one server within one event, how long to wait after it, and when it is enough."""

from __future__ import annotations

from collections.abc import Callable

from handler.errors import CloudError, CloudFault, CloudThrottled, ServerNotFound, StateConflict
from handler.stop.model import Reason
from handler.stop.steps import Moment

# A stop that the cloud turned down this often, each time after a fresh read, is not going to be taken.
_STOPS_AT_MOST = 4
# So many failed calls in a row for one server, while another can be read, are that server's own trouble.
_PATIENCE = 4


class FailureTracker:
    """The failures of one server's calls.

    Args:
        backoff: seconds to wait after the n-th failure in a row.

    Attributes:
        fault: the last one that the cloud gave, or None.
        stop_fault: the last one that a stop met, or None.
        troubled_since: start of the first of the failed reads in a row.
        maybe_taken: a stop failed in a way that does not say whether the cloud acted.
        job_failed: the cloud took a stop, and its job failed.
        job_report: that job's error code and reason, sanitised; empty if it gave none.
    """

    def __init__(self, backoff: Callable[[int], float]) -> None:
        self._backoff = backoff
        self.fault: CloudError | None = None
        self.stop_fault: CloudError | None = None
        self.failing_since = 0.0
        self.maybe_taken = False
        self.job_failed = False
        self.job_report = ""
        self._reads = 0
        self._stops = 0
        self._counted_stops = 0
        self._histories = 0

    @property
    def failing(self) -> bool:
        """Whether the last read brought nothing."""
        return self._reads > 0

    @property
    def any_stop(self) -> bool:
        """Whether a stop was sent that the cloud did not take."""
        return self._stops > 0

    @property
    def probe_matters(self) -> bool:
        """Whether the next failed read may be the last, so that it matters if other servers can be read."""
        return self._reads >= _PATIENCE - 1

    def seen(self) -> None:
        """A read showed the server."""
        self._reads = 0

    def unread(self, fault: CloudError, at: Moment) -> float:
        """A read brought nothing: when to read again."""
        if self._reads == 0:
            self.failing_since = at.began
        self._reads += 1
        self.fault = fault
        return self._after(fault, self._reads, at)

    def own_trouble(self, fault: CloudError, at: Moment) -> bool:
        """Whether the failed reads are plainly this server's own trouble, and not the cloud's."""
        throttled = isinstance(fault, CloudThrottled)
        return self._reads >= _PATIENCE and not throttled and at.others_seen > self.failing_since

    def unrecorded(self, fault: CloudError, at: Moment) -> float | None:
        """The history could not be had: when to read again, or None if it was tried often enough."""
        self._histories += 1
        self.fault = fault
        return None if self._histories >= _PATIENCE else self._after(fault, self._histories, at)

    def unsent(self, fault: CloudError, at: Moment, *, counts: bool) -> float:
        """A stop was turned down, failed or lost: when to read again.

        Args:
            counts: it says something of this server, and not only of the cloud or of others.
        """
        self._stops += 1
        self._counted_stops += counts
        self.fault = self.stop_fault = fault
        self.maybe_taken = self.maybe_taken or fault.maybe_acted
        pause = fault.retry_after
        if not pause:
            # A first refusal mostly means that somebody else was quicker; looking again at once shows it.
            at_once = self._stops == 1 and isinstance(fault, StateConflict | ServerNotFound | CloudFault)
            pause = 0.0 if at_once else self._backoff(self._stops)
        return at.completed + pause

    def given_up(self, at: Moment) -> tuple[Reason, str] | None:
        """Why another stop would be pointless, if it would be."""
        if self._counted_stops < _STOPS_AT_MOST:
            return None
        match self.stop_fault:
            case StateConflict() | ServerNotFound():
                return (
                    Reason.CONFLICT,
                    f"The cloud keeps turning the stop down though nothing stands against it ({self.stop_fault}).",
                )
            case CloudFault():
                return Reason.CLOUD_ERROR, "The cloud failed each time it was to stop it."
            case _ if at.others_taken:
                return Reason.CLOUD_ERROR, "The cloud takes the stops of other servers, but not of this one."
            case _:
                return None

    def told(self) -> str:
        """What became of a stop that was not taken, to be added to a sentence; empty if all were taken."""
        if self.job_failed:
            return f" The job of our stop failed{f' ({self.job_report})' if self.job_report else ''}."
        if self.stop_fault is None:
            return ""
        status = self.stop_fault.status
        return " Our stop had no answer." if status is None else f" Our stop was answered with {status}."

    def _after(self, fault: CloudError, attempt: int, at: Moment) -> float:
        # "Retry after 0 seconds" must not become a run that asks without any pause.
        return at.completed + (fault.retry_after or self._backoff(attempt))
