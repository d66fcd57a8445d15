"""Whether this process is shutting down: it finishes the events that it has begun, and begins no more.

After SIGTERM gunicorn works off what it has accepted, however long the queue, and clients that connect meanwhile wait
until the end. A client that is refused, or answered 503, at once can go elsewhere.
"""

from __future__ import annotations

import threading

_begun = threading.Event()


def begun() -> bool:
    """Return whether this process accepts no more events."""
    return _begun.is_set()


def begin() -> None:
    """Accept no more events."""
    _begun.set()
