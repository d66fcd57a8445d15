"""The run of the events of one delivery: refused as a whole, or each server handled within one time budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, wait
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from handler.errors import CloudError, CloudThrottled
from handler.keep.model import KeepPolicy, KeepReport, KeepRequest, KeepResult, Reason
from handler.keep.ports import Clock, MetadataCloud
from handler.keep.runner import KeepTask, ServerLocks
from handler.stop.decide import refuse
from handler.stop.model import Refusal
from handler.stop.pauses import backoff
from handler.stop.ports import CallExecutor, CloudReader


@dataclass(frozen=True, slots=True)
class PreparedKeep:
    """An event whose servers are known, before anything is written.

    Attributes:
        request: with the ids of the servers that match its selector, if it has one.
        until: the time until which they are to be kept (aware); None for a release.
        refusal: why the event is refused as a whole, or None.
        detail: one sentence for the result, or None.
    """

    request: KeepRequest
    until: datetime | None
    started_at: datetime
    refusal: Refusal | None = None
    detail: str | None = None


def prepare(
    request: KeepRequest,
    policy: KeepPolicy,
    reader: CloudReader,
    executor: CallExecutor[Any],
    *,
    deadline: float,
    backoff: Callable[[int], float] = backoff,
    on_failure: Callable[[CloudError], None] = lambda _: None,
) -> PreparedKeep:
    """Decide whether the event is refused as a whole, and find the servers of its selector.

    Args:
        request: the event.
        policy: of this deployment.
        reader: lists the servers.
        executor: makes the calls.
        deadline: end of the budget, in seconds on the executor's monotonic clock.
        backoff: seconds to wait after the n-th failure in a row.
        on_failure: called with each failed attempt to list servers.

    Raises:
        BudgetSpent: no complete list of servers could be read in time.
        CloudError: the servers cannot be listed, and waiting does not help.
    """
    now = executor.now()
    until = request.end(now)
    prepared = PreparedKeep(request, until, now, refuse(request, policy.limits, now))
    if prepared.refusal is None and until is not None and until <= now:
        return replace(prepared, refusal=Refusal.EXPIRED, detail="The time until which to keep the servers has passed.")
    if prepared.refusal is not None or request.selector is None:
        return prepared
    from handler.stop.selection import news, select

    found = select(request.selector, reader, executor, deadline=deadline, backoff=backoff, on_failure=on_failure)
    chosen = replace(request, server_ids=tuple(found.servers))
    refusal = refuse(chosen, policy.limits, now)
    detail = news(len(found.servers), policy.limits)
    return replace(prepared, request=request if refusal else chosen, refusal=refusal, detail=detail)


def refuse_too_many(prepared: Sequence[PreparedKeep], policy: KeepPolicy) -> Sequence[PreparedKeep]:
    """Refuse all events of one delivery if together they name more distinct servers than one event may."""
    servers = {id_ for one in prepared if one.refusal is None for id_ in one.request.server_ids}
    if len(servers) <= policy.limits.max_servers:
        return prepared
    detail = (
        f"The events of this batch are about {len(servers)} servers; at most {policy.limits.max_servers} are taken."
    )
    return [one if one.refusal else replace(one, refusal=Refusal.TOO_MANY_SERVERS, detail=detail) for one in prepared]


def run(
    prepared: PreparedKeep,
    policy: KeepPolicy,
    reader: CloudReader,
    writer: MetadataCloud | None,
    threads: Executor,
    clock: Clock,
    locks: ServerLocks,
    *,
    deadline: float,
    backoff: Callable[[int], float] = backoff,
    on_result: Callable[[KeepResult], None] = lambda _: None,
    on_failure: Callable[[CloudError], None] = lambda _: None,
) -> KeepReport:
    """Handle one prepared event.

    Args:
        prepared: the event.
        policy: of this deployment.
        reader: reads the servers.
        writer: None for a dry run.
        threads: run the tasks.
        clock: the time.
        locks: shared by all events of the process.
        deadline: end of the budget, in seconds on the clock's monotonic time.
        backoff: seconds to wait after the n-th failure in a row.
        on_result: called with each server's result as soon as there is one, also if the event must be sent again.
        on_failure: called with each failed call to the cloud.

    Raises:
        BudgetSpent: not every server could be handled; a repeat finds what was written.
        CloudError: the cloud failed, and not for a single server only; the event must be sent again.
    """
    request = prepared.request

    def handle(server_id: str) -> KeepResult | CloudError:
        task = KeepTask(
            server_id, prepared.until, policy.limits.protect, reader, writer, clock, deadline, backoff, on_failure
        )
        with locks.holding(server_id, deadline - clock.monotonic()):
            result = task.run()
        if isinstance(result, KeepResult):
            on_result(result)
        return result

    results: list[KeepResult] = []
    if prepared.refusal is None:
        calls = [threads.submit(handle, server_id) for server_id in request.server_ids]
        wait(calls)
        results = _settled([call.result() for call in calls], request.server_ids, on_result)
    return KeepReport(
        request=request,
        keep_until=prepared.until,
        dry_run=writer is None,
        refusal=prepared.refusal,
        servers=tuple(results),
        started_at=prepared.started_at,
        finished_at=clock.now(),
        detail=prepared.detail,
    )


def _settled(
    found: Sequence[KeepResult | CloudError], ids: Sequence[str], on_result: Callable[[KeepResult], None]
) -> list[KeepResult]:
    """Turn failures of single servers into results.

    Raises:
        CloudError: one is not about a single server, and no other server of the event was seen.
    """
    seen = any(isinstance(one, KeepResult) and one.vm_state is not None for one in found)
    results = []
    for server_id, one in zip(ids, found, strict=True):
        if isinstance(one, CloudError):
            if isinstance(one, CloudThrottled) or not (one.concerns_one_server or seen):
                raise one
            detail = f"The cloud failed for it: {one}."
            one = KeepResult(server_id, Reason.CLOUD_ERROR, detail, request_id=one.request_id)
            on_result(one)
        results.append(one)
    return results
