"""Whether this process is shutting down: it finishes the events that it has begun, and begins no more.

After SIGTERM gunicorn works off what it has accepted, however long the queue, and clients that connect meanwhile wait
until the end. A client that is refused, or answered 503, at once can go elsewhere.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Protocol

_begun = threading.Event()


class _Closable(Protocol):
    def close(self) -> None: ...


def begun() -> bool:
    """Return whether this process accepts no more events."""
    return _begun.is_set()


def begin(listeners: Iterable[_Closable]) -> None:
    """Accept no more events, and close the listening sockets."""
    _begun.set()
    for listener in listeners:
        listener.close()
