"""An HTTP request as the endpoints see it, whatever server or platform took it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class HttpRequest(NamedTuple):
    """One HTTP request.

    Attributes:
        method: upper case.
        path: as sent, undecoded as far as the server leaves it so.
        headers: lower-case names; values as WSGI has them.
        body: all of it.
        received: when it was here, in seconds on the monotonic clock.
        query: what follows the question mark, undecoded.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    received: float
    query: str = ""
