"""The run of one event: refused as a whole, or all its servers handled within one time budget."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from handler.stop.calls import CompletedCall
from handler.stop.model import Policy, Report, ServerResult, StopRequest
from handler.stop.pauses import backoff
from handler.stop.ports import CallExecutor, Cloud, Hooks
from handler.stop.prepare import PreparedRequest
from handler.stop.scheduler import Scheduler

_NO_HOOKS = Hooks()


def run(
    prepared: PreparedRequest[StopRequest],
    policy: Policy,
    cloud: Cloud,
    executor: CallExecutor[CompletedCall],
    *,
    deadline: float,
    width: int,
    dry_run: bool,
    backoff: Callable[[int], float] = backoff,
    hooks: Hooks = _NO_HOOKS,
) -> Report:
    """Handle one prepared event: return a refusal, or a result for each server.

    For a dry run the cloud must be one that cannot write. At most `width` calls are given to the executor at a time;
    the deadline is in seconds on its monotonic clock. `backoff` returns the seconds to wait after the n-th failure in a
    row.

    Raises:
        BudgetSpent: not every server could be handled; a redelivery finds the stops that were made.
        LoginRefused: the cloud refused the login.
        InternalError: a bug.
    """
    request, refusal = prepared.request, prepared.refusal
    servers: tuple[ServerResult, ...] = ()
    if refusal is None:
        not_after = _not_after(request, prepared.started_at)
        scheduler = Scheduler(not_after, policy, cloud, executor, deadline, width, backoff, hooks)
        servers = scheduler.results(prepared.listed)
    count = request.left_out
    left_out = f"The producer left {count} alert{'s' * (count > 1)} out of its message." if count else None
    detail = " ".join(filter(None, (left_out, prepared.detail))) or None
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
    return request._replace(time=time, since=since)
