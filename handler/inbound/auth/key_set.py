"""The keys that an issuer signs with: kept, renewed by one thread at a time, and never as often as somebody likes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from jwt import PyJWK

from handler.errors import Cause, KeysUnreachable

_LOG = logging.getLogger(__name__)

# Keys are looked at anew so often, so that one that the issuer has withdrawn does not count for long ...
_FRESH_FOR = 600.0
# ... but so long a key server may be down before what is known of it counts no more.
_KEPT_FOR = 3600.0
# After a fetch that did not bring the key it was made for: any caller can name a key that is not there.
_PAUSE = 3.0
_PAUSE_AFTER_FAILURE = 10.0
_LONGEST_PAUSE = 60.0
_FETCH_TIMEOUT = 5.0
_LONGEST_WAIT = 10.0

# Seconds in; the keys by their id out, or KeysUnreachable.
Fetch = Callable[[float], Mapping[str, PyJWK]]


@dataclass(frozen=True, slots=True)
class _Kept:
    keys: Mapping[str, PyJWK] = field(default_factory=dict)
    since: float = float("-inf")

    def find(self, kid: str, not_before: float) -> PyJWK | None:
        return self.keys.get(kid) if self.since > not_before else None


class Keys:
    """The keys of one issuer, for any number of threads.

    Args:
        fetch: gets the keys from the key server.
        monotonic: the clock, in seconds.
    """

    def __init__(self, fetch: Fetch, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._fetch = fetch
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._kept = _Kept()
        self._not_before = float("-inf")
        self._missing: set[str] = set()
        self._cause: Cause | None = None

    def find(self, kid: str, until: float = float("inf")) -> PyJWK | None:
        """The key of this id, or None if the issuer has no such key.

        Args:
            until: how long it may be waited for, on the monotonic clock.

        Raises:
            KeysUnreachable: that cannot be told now.
        """
        asked = self._monotonic()
        kept = self._kept
        fresh = kept.find(kid, asked - _FRESH_FOR)
        if fresh is not None:
            return fresh
        spare = kept.find(kid, asked - _KEPT_FOR)
        # Who has a key that still counts does not wait for somebody who fetches newer ones.
        if spare is not None and self._lock.locked():
            return spare
        with self._alone(until):
            return self._look(kid, asked, until)

    def ready(self) -> None:
        """Have keys that count.

        Raises:
            KeysUnreachable: there are none, and none could be fetched.
        """
        asked = self._monotonic()
        if self._kept.since > asked - _KEPT_FOR:
            return
        with self._alone(float("inf")):
            self._renew(asked)
            if self._kept.since < asked:
                raise self._unreachable()

    @contextmanager
    def _alone(self, until: float) -> Iterator[None]:
        if not self._lock.acquire(timeout=max(min(until - self._monotonic(), _LONGEST_WAIT), 0.0)):
            raise KeysUnreachable("The issuer's keys are being fetched, and that takes too long.")
        try:
            yield
        finally:
            self._lock.release()

    def _look(self, kid: str, asked: float, until: float) -> PyJWK | None:
        self._renew(asked, until)
        now = self._monotonic()
        found = self._kept.find(kid, now - _KEPT_FOR)
        if found is not None:
            return found
        if self._kept.since < asked and kid not in self._missing:
            # It may be a new key. To call the token wrong now could lose an event.
            raise self._unreachable()
        if not self._missing:
            self._not_before = now + _PAUSE
        self._missing.add(kid)
        return None

    def _renew(self, asked: float, until: float = float("inf")) -> None:
        """Fetch, unless somebody has done so since it was asked for, or it is too early or too late to do so."""
        now = self._monotonic()
        if self._kept.since >= asked or now < self._not_before or now >= until:
            return
        self._missing = set()
        self._not_before = now + _PAUSE_AFTER_FAILURE
        try:
            keys = self._fetch(min(until - now, _FETCH_TIMEOUT))
        except KeysUnreachable as failure:
            _LOG.warning("the issuer's keys were not renewed", extra=failure.log_fields())
            pause = max(_PAUSE_AFTER_FAILURE, min(failure.retry_after or 0.0, _LONGEST_PAUSE))
            self._not_before, self._cause = self._monotonic() + pause, failure.cause
        else:
            self._kept = _Kept(keys, self._monotonic())
            self._not_before = float("-inf")

    def _unreachable(self) -> KeysUnreachable:
        return KeysUnreachable(
            "The issuer's keys, which the caller's token is checked with, cannot be had now.",
            retry_after=max(self._not_before - self._monotonic(), 1.0),
            cause=self._cause,
        )
