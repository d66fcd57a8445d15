"""An HTTP request as the endpoints get it, whatever server or platform received it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

ReadBody = Callable[[float], bytes]
"""Reads a body within so many seconds; the same bytes again when it is called again."""

# Seconds in all for a body. One of a caller that is not authenticated yet gets less, since it occupies a thread.
_BODY_TIMEOUT = 20.0
_UNAUTHENTICATED_BODY_TIMEOUT = 5.0


class HttpRequest(NamedTuple):
    """One HTTP request. The body is read on first access: authenticate the caller before.

    Attributes:
        method: upper case.
        path: as sent, undecoded as far as the server permits.
        headers: names in lower case; values as WSGI has them.
        content: the body, or what reads it.
        received: when its head was complete, on the monotonic clock.
        query: what follows the question mark, undecoded.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    content: bytes | ReadBody
    received: float
    query: str = ""

    @property
    def body(self) -> bytes:
        """The whole body, of a caller that is authenticated.

        Raises:
            TooLarge: it is larger than `AUTOSTOP_MAX_BODY`.
            BodyIncomplete: it was not complete in time, or the connection ended in it.
            BadEvent: its chunks are malformed.
        """
        return self._read(_BODY_TIMEOUT)

    @property
    def unauthenticated_body(self) -> bytes:
        """As `body`, where the body is what authenticates the caller: it must be complete sooner."""
        return self._read(_UNAUTHENTICATED_BODY_TIMEOUT)

    def _read(self, within: float) -> bytes:
        return self.content if isinstance(self.content, bytes) else self.content(within)
