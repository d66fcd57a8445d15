"""The servers of a selector, found once when the event's run begins. Imported when an event has one.

The whole list is read and matched here. The cloud may ignore a filter, or interpret it in another way; then other
servers would be stopped than those that were meant.
"""

from __future__ import annotations

import fnmatch
import logging
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from handler.errors import BudgetSpent, CloudError, InternalError
from handler.stop.model import Policy, Selector, Server
from handler.stop.ports import CallExecutor, CloudReader

_LOG = logging.getLogger(__name__)

# A list that hangs leaves half of the time for another attempt, but an attempt is not shorter than this.
_SHORTEST_TRY = 10.0


class Found(NamedTuple):
    """The servers that match a selector, from one read of the whole list.

    Attributes:
        began: start of the read on the executor's monotonic clock.
        servers: by id, in the order of their names.
    """

    began: float
    servers: Mapping[str, Server]


def matches(selector: Selector, server: Server) -> bool:
    """Whether a server matches all parts of a selector. One without any part matches no server.

    Tags, and keys and values of metadata, are compared exactly. The name is a glob for the whole name, with regard to
    case: `*` any text, `?` one character, `[a-c]` one of these, `[!a-c]` none of these.
    """
    tags, metadata, name = selector
    if not (tags or metadata or name):
        return False
    return (
        server.tags.issuperset(tags)
        and all(server.metadata.get(key) == value for key, value in metadata)
        and (not name or fnmatch.fnmatchcase(server.name or "", name))
    )


def news(count: int, policy: Policy) -> str | None:
    """Return a sentence about the number of servers if it is the reason for the result; else None."""
    if count == 0:
        return "No server of the project fits the selector."
    if count > policy.max_servers:
        return f"{count} servers fit the selector; at most {policy.max_servers} are taken at once."
    return None


def select(
    selector: Selector,
    cloud: CloudReader,
    executor: CallExecutor[Any],
    *,
    deadline: float,
    backoff: Callable[[int], float],
    on_failure: Callable[[CloudError], None] = lambda _: None,
) -> Found:
    """Read the list of servers until it is complete, and return those that match the selector.

    The executor must have no call in progress; the deadline is in seconds on its monotonic clock. `backoff` returns the
    seconds to wait after the n-th failure in a row; `on_failure` is called if there is another attempt after it.

    Raises:
        BudgetSpent: no complete list could be read in time. Part of one would lose servers silently.
        CloudError: it cannot be read, and waiting does not help: a refused login, a call that is not permitted.
        InternalError: a bug.
    """
    attempt, error = 0, None
    while (now := executor.monotonic()) < deadline:
        executor.start(lambda: _list(selector, cloud, executor, deadline))
        came = executor.next(deadline - now)
        match came:
            case None:
                break
            case Found():
                return came
            case CloudError(waiting_helps=True):
                error, attempt = came, attempt + 1
                on_failure(error)
                pause = error.retry_after or backoff(attempt)
                if executor.monotonic() + pause >= deadline:
                    break
                # No call is in progress, so this only waits.
                executor.next(pause)
            case CloudError():
                raise came
            case _:
                _LOG.error("the look for a selector's servers failed", exc_info=came)
                raise InternalError("a call to the cloud failed in an unexpected way") from came
    raise BudgetSpent(
        f"The selector's servers could not be listed in time ({error.name if error else 'the time was too short'})"
        f"{f'; the last failure: {error.cause}' if error else ''}.",
        last=error,
        retry_after=error.retry_after if error else None,
    ) from error


def _list(selector: Selector, cloud: CloudReader, executor: CallExecutor[Any], deadline: float) -> Found | Exception:
    """Read the list once. Runs in a thread of the executor."""
    began = executor.monotonic()
    left = max(deadline - began, 0.0)
    try:
        found = cloud.find(lambda server: matches(selector, server), max(left / 2, min(left, _SHORTEST_TRY)))
    except Exception as failure:
        return failure
    return Found(
        began, {server.id: server for server in sorted(found, key=lambda server: (server.name or "", server.id))}
    )
