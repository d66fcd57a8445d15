"""The run of the events of one delivery: refused as a whole, or each server handled within one time budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, wait
from typing import Any

from handler.errors import CloudError, CloudThrottled
from handler.keep.model import KeepPolicy, KeepReport, KeepRequest, KeepResult, Reason
from handler.keep.ports import Clock, MetadataCloud
from handler.keep.runner import KeepTask, ServerLocks
from handler.stop.decide import refuse
from handler.stop.model import Refusal
from handler.stop.pauses import backoff
from handler.stop.ports import CallExecutor, CloudReader
from handler.stop.prepare import PreparedRequest
from handler.stop.prepare import prepare as prepare_servers


def prepare(
    request: KeepRequest,
    policy: KeepPolicy,
    reader: CloudReader,
    executor: CallExecutor[Any],
    *,
    deadline: float,
    on_failure: Callable[[CloudError], None] = lambda _: None,
) -> PreparedRequest[KeepRequest]:
    """Prepare an event as `handler.stop.prepare.prepare` does; one whose keep would have ended is refused too."""
    now = executor.now()
    until = request.end(now)
    if until is not None and until <= now:
        refusal = refuse(request, policy.limits, now)
        detail = None if refusal else "The time until which to keep the servers has passed."
        return PreparedRequest(request, request, now, refusal or Refusal.EXPIRED, detail)
    return prepare_servers(request, policy.limits, reader, executor, deadline=deadline, on_failure=on_failure)


def run(
    prepared: PreparedRequest[KeepRequest],
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
    """Handle one prepared event, each server by a `KeepTask` in one of the threads.

    The locks are shared by all events of the process. `on_result` is called with each server's result as soon as there
    is one, also if the event must be sent again.

    Raises:
        BudgetSpent: not every server could be handled; a repeat finds what was written.
        CloudError: the cloud failed, and not for a single server only; the event must be sent again.
    """
    request, until = prepared.request, prepared.request.end(prepared.started_at)

    def handle(server_id: str) -> KeepResult | CloudError:
        protect = policy.limits.protect
        task = KeepTask(server_id, until, protect, reader.read, writer, clock, deadline, backoff, on_failure)
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
        keep_until=until,
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
