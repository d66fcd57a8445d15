"""How the server leaves: what is in hand is finished, what still waits is sent back at once, nothing is cut off.

After SIGTERM gunicorn takes in nothing new, works off what it has, however long the queue, and after 30 s ends whatever
still runs without an answer; who connects meanwhile hangs until the end. An event may take longer than that, and a
sender that hears at once can go elsewhere. functions-framework leaves no way to set any of it.
"""

from __future__ import annotations

import math
import threading
from datetime import timedelta
from typing import Any

# Seconds beyond the longest event: for reading a body that began to come before, and for the answer's own way.
_MARGIN = 10
_begun = threading.Event()


def begun() -> bool:
    """Whether this process takes no more events."""
    return _begun.is_set()


def give_time(longest: timedelta) -> None:
    """Let an event that is in hand take as long as events may, counted from the signal to leave.

    Args:
        longest: the whole budget of one event.
    """
    try:
        from gunicorn import config
    except ImportError:
        # Without gunicorn (Windows) functions-framework serves with Flask's development server.
        return
    # The default of all configurations made from now on; functions-framework makes its own after it has loaded us.
    config.GracefulTimeout.default = max(30, math.ceil(longest.total_seconds()) + _MARGIN)


def install() -> None:
    """Have gunicorn's threaded worker tell us when it leaves, and let go of its port right then."""
    try:
        from gunicorn.workers.gthread import ThreadWorker
    except ImportError:
        return
    # Not every version has it; without it the server leaves in gunicorn's own way.
    set_accept_enabled = getattr(ThreadWorker, "set_accept_enabled", None)
    if set_accept_enabled is None or set_accept_enabled.__module__ == __name__:
        return

    def told(self: Any, enabled: bool) -> None:
        set_accept_enabled(self, enabled)
        # It stops accepting for good when it is no longer alive, and for a while when it has too many connections.
        if not enabled and not self.alive:
            _begun.set()
            for listener in self.sockets:
                listener.close()

    ThreadWorker.set_accept_enabled = told
