"""The run of one event: refused as a whole, or all its servers handled within one time budget.

All events of a batch are prepared, and their servers counted, before the first stop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import NamedTuple

from handler.errors import CloudError
from handler.stop.calls import CompletedCall
from handler.stop.decide import refuse
from handler.stop.model import Policy, Refusal, Report, ServerResult, StopRequest
from handler.stop.pauses import backoff
from handler.stop.ports import Announce, CallExecutor, Cloud, CloudReader
from handler.stop.scheduler import Scheduler
from handler.stop.steps import Step


class PreparedRequest(NamedTuple):
    """An event whose servers are known, before any stop.

    Attributes:
        asked: as received.
        request: with the ids of the servers that match its selector, if it has one.
        started_at: when the handling began (aware).
        refusal: why the event is refused as a whole, or None.
        detail: one sentence for the result, or None.
        look: the read that showed the servers of a selector, or None.
    """

    asked: StopRequest
    request: StopRequest
    started_at: datetime
    refusal: Refusal | None = None
    detail: str | None = None
    look: CompletedCall | None = None


def prepare(
    request: StopRequest,
    policy: Policy,
    cloud: CloudReader,
    executor: CallExecutor[CompletedCall],
    *,
    deadline: float,
    backoff: Callable[[int], float] = backoff,
    on_failure: Callable[[CloudError], None] = lambda _: None,
) -> PreparedRequest:
    """Decide whether the event is refused as a whole, and find the servers of its selector.

    Args:
        request: the event.
        policy: of this deployment.
        cloud: lists the servers.
        executor: makes the calls.
        deadline: end of the budget, in seconds on the executor's monotonic clock.
        backoff: seconds to wait after the n-th failure in a row.
        on_failure: called with each failed attempt to list servers.

    Raises:
        BudgetSpent: no complete list of servers could be read in time.
        LoginRefused: the cloud refused the login.
        CallDenied: the login may not list servers, so the selector cannot be evaluated.
        InternalFault: a bug.
    """
    started_at = executor.now()
    refusal = refuse(request, policy, started_at)
    if refusal is not None or request.selector is None:
        return PreparedRequest(request, request, started_at, refusal)
    from handler.stop.selection import news, select

    found = select(request.selector, cloud, executor, deadline=deadline, backoff=backoff, on_failure=on_failure)
    detail = news(len(found.servers), policy)
    chosen = replace(request, server_ids=tuple(found.servers))
    refusal = refuse(chosen, policy, executor.now())
    if refusal is not None:
        return PreparedRequest(request, request, started_at, refusal, detail)
    look = CompletedCall(Step.READ, chosen.server_ids, found.began, found.servers)
    return PreparedRequest(request, chosen, started_at, None, detail, look)


def refuse_too_many(prepared: Sequence[PreparedRequest], policy: Policy) -> Sequence[PreparedRequest]:
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


def run(
    prepared: PreparedRequest,
    policy: Policy,
    cloud: Cloud,
    executor: CallExecutor[CompletedCall],
    *,
    deadline: float,
    width: int,
    dry_run: bool,
    backoff: Callable[[int], float] = backoff,
    on_result: Callable[[ServerResult], None] = lambda _: None,
    before_first_stop: Callable[[int], None] = lambda _: None,
    on_failure: Callable[[CloudError], None] = lambda _: None,
    announce: Announce | None = None,
) -> Report:
    """Handle one prepared event.

    Args:
        prepared: the event.
        policy: of this deployment.
        executor: makes the calls.
        cloud: for a dry run, one that cannot write.
        deadline: end of the budget, in seconds on the executor's monotonic clock.
        width: most calls that are given to the executor at a time.
        dry_run: whether the report is that of a dry run.
        backoff: seconds to wait after the n-th failure in a row.
        on_result: called with each server's result as soon as there is one, also if the event must be sent again.
        before_first_stop: called once before the first stop is sent, with the number of servers that may still be
            stopped; an exception ends the run before any stop.
        on_failure: called with each failed call to the cloud, once for each server that it was about; not if only the
            history cannot be read, which the server's result shows.
        announce: called once before the first stop is sent, and after `before_first_stop`, with the servers that may
            still be stopped; what it raises ends the run with nothing sent. With it, no stop is sent before every
            server has a first decision or is waited for.

    Returns:
        The report: a refusal, or a result for each server.

    Raises:
        BudgetSpent: not every server could be handled; a redelivery finds the stops that were made.
        LoginRefused: the cloud refused the login.
        InternalFault: a bug.
    """
    request, refusal = prepared.request, prepared.refusal
    servers: tuple[ServerResult, ...] = ()
    if refusal is None:
        servers = Scheduler(
            _not_after(request, prepared.started_at),
            policy,
            cloud,
            executor,
            deadline,
            width,
            backoff,
            on_result,
            before_first_stop,
            on_failure,
            announce,
        ).results(prepared.look)
    detail = " ".join(filter(None, (_left_out(request), prepared.detail))) or None
    return Report(request, cloud.api, dry_run, refusal, servers, prepared.started_at, executor.now(), detail)


def _not_after(request: StopRequest, now: datetime) -> StopRequest:
    """Return the request without a time in the future, which would hide a start between now and then."""
    time = min(request.time, now) if request.time is not None else None
    since = request.since
    match since:
        case datetime():
            since = min(since, now)
        case None:
            pass
        case by_server:
            since = {id_: min(moment, now) for id_, moment in by_server.items()}
    return replace(request, time=time, since=since)


def _left_out(request: StopRequest) -> str | None:
    """Return a sentence about the parts that the producer left out of its message; None if there are none."""
    match request.left_out:
        case 0:
            return None
        case 1:
            return "The producer left 1 alert out of its message."
        case count:
            return f"The producer left {count} alerts out of its message."
