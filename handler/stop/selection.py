"""Which servers a selector means: looked up once, when the event's run begins. Loaded when an event has one.

The cloud is asked for its whole list, and what fits is decided here. A filter of the cloud's may be ignored, or mean
something else than it says; then servers would be stopped that nobody meant.
"""

from __future__ import annotations

import fnmatch
import logging
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from handler.errors import BudgetSpent, CloudError, InternalFault
from handler.stop.model import Policy, Selector, Server
from handler.stop.ports import CallExecutor, CloudReader

_LOG = logging.getLogger(__name__)

# A list that hangs leaves half of the time for another try, but a try is not cut shorter than this.
_SHORTEST_TRY = 10.0


class Found(NamedTuple):
    """The servers that a selector fits, from one look at the whole list.

    Attributes:
        began: when the look began, on the crew's monotonic clock.
        servers: by id, in the order of their names.
    """

    began: float
    servers: Mapping[str, Server]


def matches(selector: Selector, server: Server) -> bool:
    """Whether a selector fits a server: every part that is given does. One without any part fits no server.

    Tags, and keys and values of metadata, are compared as they are written. The name is a glob for the whole name,
    upper and lower case told apart: `*` any text, `?` one character, `[a-c]` one of these, `[!a-c]` none of these.
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
    """What a result says if the number of servers found is the news; else None."""
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
    """Have the cloud list its servers until it could do so whole, and take those that the selector fits.

    Args:
        crew: with no call under way.
        deadline: end of the budget on the crew's monotonic clock.
        backoff: seconds to wait after the n-th failure in a row.
        on_failure: called with each failure after which it is tried again.

    Raises:
        BudgetSpent: no whole list could be had in time. Half of one would lose servers silently.
        CloudError: there is none to be had, and waiting does not help: a refused login, a call that is not permitted.
        InternalFault: a bug.
    """
    attempt, fault = 0, None
    while (now := executor.monotonic()) < deadline:
        executor.start(lambda: _look(selector, cloud, executor, deadline))
        came = executor.next(deadline - now)
        match came:
            case None:
                break
            case Found():
                return came
            case CloudError(waiting_helps=True):
                fault, attempt = came, attempt + 1
                on_failure(fault)
                pause = fault.retry_after or backoff(attempt)
                if executor.monotonic() + pause >= deadline:
                    break
                # No call is under way, so this is a wait and nothing else.
                executor.next(pause)
            case CloudError():
                raise came
            case _:
                _LOG.error("the look for a selector's servers failed", exc_info=came)
                raise InternalFault("a call to the cloud failed in an unexpected way") from came
    raise BudgetSpent(
        f"The selector's servers could not be listed in time ({fault.name if fault else 'the time was too short'})"
        f"{f'; the last failure: {fault.cause}' if fault else ''}.",
        last=fault,
        retry_after=fault.retry_after if fault else None,
    ) from fault


def _look(selector: Selector, cloud: CloudReader, executor: CallExecutor[Any], deadline: float) -> Found | Exception:
    """Make one look. Runs in a thread of the crew."""
    began = executor.monotonic()
    left = max(deadline - began, 0.0)
    try:
        found = cloud.find(lambda server: matches(selector, server), max(left / 2, min(left, _SHORTEST_TRY)))
    except Exception as failure:
        return failure
    return Found(
        began, {server.id: server for server in sorted(found, key=lambda server: (server.name or "", server.id))}
    )
