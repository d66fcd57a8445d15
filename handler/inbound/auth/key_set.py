"""The cached keys of an issuer: renewed by one thread at a time, and not as often as callers could make it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import NamedTuple

from jwt import PyJWK

from handler.errors import Cause, KeysUnreachable

_LOG = logging.getLogger(__name__)

# Seconds after which keys are fetched again, so that one that the issuer has withdrawn does not count for long ...
_FRESH_FOR = 600.0
# ... and for which cached keys count while the key server does not respond.
_KEPT_FOR = 3600.0
# After a fetch that did not bring the requested key: any caller can name a key that does not exist.
_PAUSE = 3.0
_PAUSE_AFTER_FAILURE = 10.0
_LONGEST_PAUSE = 60.0
_FETCH_TIMEOUT = 5.0
_LONGEST_WAIT = 10.0

# Takes seconds; returns the keys by their id, or raises KeysUnreachable.
Fetch = Callable[[float], Mapping[str, PyJWK]]


class _Kept(NamedTuple):
    keys: Mapping[str, PyJWK] = MappingProxyType({})
    since: float = float("-inf")

    def find(self, kid: str, not_before: float) -> PyJWK | None:
        return self.keys.get(kid) if self.since > not_before else None


class Keys:
    """The keys of one issuer, for any number of threads."""

    def __init__(self, fetch: Fetch, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._fetch = fetch
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._kept = _Kept()
        self._not_before = float("-inf")
        self._missing: set[str] = set()
        self._cause: Cause | None = None

    def find(self, kid: str, until: float = float("inf")) -> PyJWK | None:
        """Return the key of an id, waiting for it until a time on the monotonic clock; None if there is no such key.

        Raises:
            KeysUnreachable: whether there is such a key cannot be determined now.
        """
        began, kept = self._monotonic(), self._kept
        key = kept.find(kid, began - _KEPT_FOR)
        # A caller whose key still counts does not wait for a thread that fetches newer ones.
        if key is not None and (kept.since > began - _FRESH_FOR or self._lock.locked()):
            return key
        with self._alone(until):
            self._renew(began, until)
            now = self._monotonic()
            key = self._kept.find(kid, now - _KEPT_FOR)
            if key is not None:
                return key
            if self._kept.since < began and kid not in self._missing:
                # It may be a new key: a 401 now could lose an event.
                raise self._unreachable()
            if not self._missing:
                self._not_before = now + _PAUSE
            self._missing.add(kid)
            return None

    def ready(self) -> None:
        """Check that there are keys that count, and fetch them otherwise.

        Raises:
            KeysUnreachable: there are none, and none could be fetched.
        """
        began = self._monotonic()
        if self._kept.since > began - _KEPT_FOR:
            return
        with self._alone(float("inf")):
            self._renew(began)
            if self._kept.since < began:
                raise self._unreachable()

    @contextmanager
    def _alone(self, until: float) -> Iterator[None]:
        if not self._lock.acquire(timeout=max(min(until - self._monotonic(), _LONGEST_WAIT), 0.0)):
            raise KeysUnreachable("The issuer's keys are being fetched, which takes too long.")
        try:
            yield
        finally:
            self._lock.release()

    def _renew(self, began: float, until: float = float("inf")) -> None:
        """Fetch the keys, unless another thread has done so since `began`, or it is too early or too late to do so."""
        now = self._monotonic()
        if self._kept.since >= began or now < self._not_before or now >= until:
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
            "The issuer's keys, which the caller's token is checked with, cannot be fetched now.",
            retry_after=max(self._not_before - self._monotonic(), 1.0),
            cause=self._cause,
        )
