"""The run of one event: refused as a whole, or all its servers handled within one time budget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from handler.stop.calls import CompletedCall
from handler.stop.decide import refuse
from handler.stop.model import Policy, Report, ServerResult, StopRequest
from handler.stop.pauses import backoff
from handler.stop.ports import CallExecutor, Cloud
from handler.stop.scheduler import Scheduler
from handler.stop.steps import Step


def run(
    request: StopRequest,
    policy: Policy,
    cloud: Cloud,
    executor: CallExecutor[CompletedCall],
    *,
    deadline: float,
    width: int,
    dry_run: bool,
    backoff: Callable[[int], float] = backoff,
    told: Callable[[ServerResult], None] = lambda _: None,
) -> Report:
    """Handle one event.

    Args:
        cloud: for a dry run, one that cannot write.
        deadline: end of the budget on the crew's monotonic clock.
        width: calls that are given to the crew at a time, at most.
        dry_run: what the report says about itself.
        backoff: seconds to wait after the n-th failure in a row.
        told: is given each server's result as soon as there is one, also if the event must come again in the end.

    Returns:
        The report: a refusal, or a result for each server.

    Raises:
        BudgetSpent: not every server could be handled; what was done stays done, and a redelivery finds it.
        LoginRefused: the cloud refused the login.
        CallDenied: the login may not list servers, so there is no telling which ones the selector fits.
        InternalFault: a bug.
    """
    started_at = executor.now()
    refusal = refuse(request, policy, started_at)
    servers: tuple[ServerResult, ...] = ()
    detail, look = None, None
    if refusal is None and request.selector is not None:
        from handler.stop.selection import news, select

        found = select(request.selector, cloud, executor, deadline=deadline, backoff=backoff)
        detail = news(len(found.servers), policy)
        chosen = replace(request, server_ids=tuple(found.servers))
        refusal = refuse(chosen, policy, executor.now())
        if refusal is None:
            request, look = chosen, CompletedCall(Step.READ, chosen.server_ids, found.began, found.servers)
    if refusal is None:
        servers = Scheduler(request, policy, cloud, executor, deadline, width, backoff, told).results(look)
    return Report(request, cloud.api, dry_run, refusal, servers, started_at, executor.now(), detail)
