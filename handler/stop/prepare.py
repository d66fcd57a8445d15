"""What comes before the first call about a server: an event is refused as a whole, or its servers are known.

All events of a batch are prepared, and their servers counted, before anything is stopped or written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Generic, NamedTuple, TypeVar

from handler.errors import CloudError
from handler.stop.calls import CompletedCall, Step
from handler.stop.decide import refuse
from handler.stop.model import EventRequest, Policy, Refusal
from handler.stop.pauses import backoff
from handler.stop.ports import CallExecutor, CloudReader

Request = TypeVar("Request", bound=EventRequest)


class PreparedRequest(NamedTuple, Generic[Request]):
    """An event whose servers are known, before anything is done to them.

    Attributes:
        asked: as received.
        request: with the ids of the servers that match its selector, if it has one.
        started_at: when the handling began (aware).
        refusal: why the event is refused as a whole, or None.
        detail: one sentence for the result, or None.
        listed: the read that showed the servers of a selector, or None.
    """

    asked: Request
    request: Request
    started_at: datetime
    refusal: Refusal | None = None
    detail: str | None = None
    listed: CompletedCall | None = None


def prepare(
    request: Request,
    policy: Policy,
    cloud: CloudReader,
    executor: CallExecutor[Any],
    *,
    deadline: float,
    backoff: Callable[[int], float] = backoff,
    on_failure: Callable[[CloudError], None] = lambda _: None,
) -> PreparedRequest[Request]:
    """Decide whether the event is refused as a whole, and find the servers of its selector.

    The other arguments and the errors are those of `handler.stop.selection.select`.
    """
    started_at = executor.now()
    refusal = refuse(request, policy, started_at)
    if refusal is not None or request.selector is None:
        return PreparedRequest(request, request, started_at, refusal)
    from handler.stop.selection import news, select

    found = select(request.selector, cloud, executor, deadline=deadline, backoff=backoff, on_failure=on_failure)
    detail = news(len(found.servers), policy)
    chosen = request.with_servers(tuple(found.servers))
    refusal = refuse(chosen, policy, executor.now())
    if refusal is not None:
        return PreparedRequest(request, request, started_at, refusal, detail)
    listed = CompletedCall(Step.READ, chosen.server_ids, found.began, found.servers)
    return PreparedRequest(request, chosen, started_at, None, detail, listed)


def refuse_too_many(prepared: Sequence[PreparedRequest[Request]], policy: Policy) -> Sequence[PreparedRequest[Request]]:
    """Refuse all events of one delivery if together they name more distinct servers than one event may."""
    servers = {id_ for one in prepared if one.refusal is None for id_ in one.request.server_ids}
    if len(servers) <= policy.max_servers:
        return prepared
    detail = (
        f"The events of this batch are about {len(servers)} servers; at most {policy.max_servers} are taken at once."
    )
    return [
        one if one.refusal is not None else one._replace(refusal=Refusal.TOO_MANY_SERVERS, detail=detail)
        for one in prepared
    ]
