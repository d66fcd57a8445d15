"""Readiness checks whose results are reused, so that `/readyz` does not make a call for each request."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from handler.errors import AutostopError, LoginMissing, ReadinessUnknown

# Seconds.
_FRESH = 1.0
_USABLE = 10.0


class Readiness:
    """The last readiness check, made by one thread at a time and at most once a second.

    Args:
        monotonic: the clock.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._checking = threading.Lock()
        self._result: tuple[float, AutostopError | None] | None = None

    def check(self, check: Callable[[], None]) -> None:
        """Make the check, unless its last result is fresh or another thread is making it.

        Args:
            check: raises if events could not be handled now.

        Raises:
            AutostopError: what the check raised; while another thread makes it, what it raised last.
            ReadinessUnknown: another thread is making it, and the last result is older than ten seconds.
        """
        if self._use_result(_FRESH):
            return
        if not self._checking.acquire(blocking=False):
            if not self._use_result(_USABLE):
                raise ReadinessUnknown("A readiness check is under way.", retry_after=1.0)
            return
        try:
            # Another thread may have made it meanwhile.
            if not self._use_result(_FRESH):
                self._make(check)
        finally:
            self._checking.release()

    def _make(self, check: Callable[[], None]) -> None:
        try:
            check()
        except LoginMissing:
            # This concerns one request alone, on FunctionGraph, and no call was made.
            raise
        except AutostopError as error:
            self._result = (self._monotonic(), error)
            raise
        self._result = (self._monotonic(), None)

    def _use_result(self, age: float) -> bool:
        """Return whether there is a result of at most this age, and raise it if it is an error."""
        result = self._result
        if result is None or self._monotonic() - result[0] > age:
            return False
        if result[1] is not None:
            raise result[1]
        return True
