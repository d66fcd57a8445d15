"""The failures of one server within one event: how long to wait after each, and when to give up."""

from __future__ import annotations

from collections.abc import Callable

from handler.errors import CloudError, CloudFault, CloudThrottled, ServerNotFound, StateConflict
from handler.stop.calls import Moment
from handler.stop.model import Reason

# A stop that the cloud refused this often, each time after a new read, will not be accepted.
_STOPS_AT_MOST = 4
# So many failed calls in a row for one server, while another can be read, are failures of that server alone.
_PATIENCE = 4


class FailureTracker:
    """The failures of one server's calls.

    Args:
        backoff: seconds to wait after the n-th failure in a row.

    Attributes:
        error: the last error of a call, or None.
        stop_error: the last error of a stop, or None.
        failing_since: start of the first of the failed reads in a row.
        maybe_taken: whether a stop failed so that the cloud may have acted.
        job_failed: whether the cloud accepted a stop, and its job failed.
        job_report: that job's error code and reason, sanitized; empty without both.
    """

    def __init__(self, backoff: Callable[[int], float]) -> None:
        self._backoff = backoff
        self.error: CloudError | None = None
        self.stop_error: CloudError | None = None
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
        """Whether the last read failed."""
        return self._reads > 0

    @property
    def any_stop(self) -> bool:
        """Whether a stop was sent that the cloud did not accept."""
        return self._stops > 0

    @property
    def probe_matters(self) -> bool:
        """Whether the next failed read may be the last, so that it matters if other servers can be read."""
        return self._reads >= _PATIENCE - 1

    def seen(self) -> None:
        """Record a read that showed the server."""
        self._reads = 0

    def unread(self, error: CloudError, at: Moment) -> float:
        """Record a failed read, and return when to read again."""
        if self._reads == 0:
            self.failing_since = at.began
        self._reads += 1
        self.error = error
        return self._after(error, self._reads, at)

    def concerns_server(self, error: CloudError, at: Moment) -> bool:
        """Whether the failed reads concern this server alone, and not the cloud."""
        throttled = isinstance(error, CloudThrottled)
        return self._reads >= _PATIENCE and not throttled and at.others_seen > self.failing_since

    def unrecorded(self, error: CloudError, at: Moment) -> float | None:
        """Record a failed read of the history, and return when to read again; None after the last attempt."""
        self._histories += 1
        self.error = error
        return None if self._histories >= _PATIENCE else self._after(error, self._histories, at)

    def unsent(self, error: CloudError, at: Moment, *, counts: bool) -> float:
        """Record a stop that was refused, failed or lost, and return when to read again.

        It `counts` if it is about this server, and not only about the cloud or other servers.
        """
        self._stops += 1
        self._counted_stops += counts
        self.error = self.stop_error = error
        self.maybe_taken = self.maybe_taken or error.maybe_acted
        pause = error.retry_after
        if not pause:
            # A first refusal mostly means that another client was faster; an immediate read shows it.
            at_once = self._stops == 1 and isinstance(error, StateConflict | ServerNotFound | CloudFault)
            pause = 0.0 if at_once else self._backoff(self._stops)
        return at.completed + pause

    def given_up(self, at: Moment) -> tuple[Reason, str] | None:
        """Return the reason to send no further stop; None if another one may be sent."""
        if self._counted_stops < _STOPS_AT_MOST:
            return None
        match self.stop_error:
            case StateConflict() | ServerNotFound():
                return (
                    Reason.CONFLICT,
                    f"The cloud keeps turning the stop down though nothing stands against it ({self.stop_error}).",
                )
            case CloudFault():
                return Reason.CLOUD_ERROR, "The cloud failed each time it was to stop it."
            case _ if at.others_taken:
                return Reason.CLOUD_ERROR, "The cloud takes the stops of other servers, but not of this one."
            case _:
                return None

    def stop_outcome(self) -> str:
        """Return a sentence about a stop that was not accepted; empty if all were."""
        if self.job_failed:
            return f" The job of our stop failed{f' ({self.job_report})' if self.job_report else ''}."
        if self.stop_error is None:
            return ""
        status = self.stop_error.status
        return " Our stop had no answer." if status is None else f" Our stop was answered with {status}."

    def _after(self, error: CloudError, attempt: int, at: Moment) -> float:
        # `Retry-After: 0` must not become calls without any pause.
        return at.completed + (error.retry_after or self._backoff(attempt))
