"""`python -m tests.harness.prove.breakages`: break each guard of the function once, and see the machine find it.

A machine that finds nothing proves nothing. Each breakage takes one guard away, in this process only, and the machine
then attacks the broken function; what is told is after how many deliveries which law was broken.
"""

from __future__ import annotations

import argparse
import io
import logging
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from dataclasses import replace
from typing import Any
from unittest import mock
from uuid import uuid4

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from handler import rfc3339
from handler.cloud.connect import Clouds
from handler.errors import BudgetSpent
from handler.outbound import result
from handler.stop import decide, run, scheduler, selection, server_task
from handler.stop.evidence import History
from handler.stop.model import Move, Reason, Refusal
from handler.stop.server_task import ServerTask
from handler.stop.steps import Next, Step
from tests.harness.prove.machine import TALLY, Machine

_WORLDS = 600
Broken = AbstractContextManager[object]

# What stands in the place of what is patched below.
_guarded, _by_state, _started_since = decide._guarded, decide._by_state, decide._started_since
_refuse, _cloud, _conclude = run.refuse, Clouds.cloud, scheduler.Scheduler._conclude
_unsent, _on_stop, _on_history, _watch = (
    ServerTask._unsent,
    ServerTask.on_stop,
    ServerTask.on_history,
    ServerTask._watch,
)


def _without_guard(reason: Reason) -> Broken:
    def guarded(*arguments: Any) -> Any:
        decision = _guarded(*arguments)
        return None if decision and decision.reason is reason else decision

    return mock.patch.object(decide, "_guarded", guarded)


def _without_refusal(refusal: Refusal) -> Broken:
    def refuse(*arguments: Any) -> Any:
        found = _refuse(*arguments)
        return None if found is refusal else found

    return mock.patch.object(run, "refuse", refuse)


def _stopping_if(move: Move, *reasons: Reason) -> Broken:
    def by_state(server: Any) -> Any:
        decision = _by_state(server)
        return replace(decision, move=Move.STOP) if decision.move is move and decision.reason in reasons else decision

    return mock.patch.object(decide, "_by_state", by_state)


def _started_since_is_not_asked() -> Broken:
    return mock.patch.object(decide, "_started_since", lambda _server, _request, _policy, stop: stop)


def _no_zone_in_keep_until() -> Broken:
    real = rfc3339.parse

    def parse(text: str) -> Any:
        try:
            return real(text)
        except ValueError:
            return real("2001-01-01T00:00:00Z")

    return mock.patch.object(decide.rfc3339, "parse", parse)


def _a_failing_history_is_none() -> Broken:
    def on_history(self: ServerTask, answer: Any, at: Any) -> Any:
        return _on_history(self, answer if isinstance(answer, History) else History(()), at)

    return mock.patch.object(ServerTask, "on_history", on_history)


def _rehearsals_write() -> Broken:
    return mock.patch.object(Clouds, "cloud", lambda self, **_: _cloud(self, dry_run=False))


def _a_lost_stop_is_sent_again() -> Broken:
    def unsent(self: ServerTask, *arguments: Any, **options: Any) -> Any:
        return _unsent(self, *arguments, **options)._replace(step=Step.STOP)

    return mock.patch.object(ServerTask, "_unsent", unsent)


def _a_lost_stop_is_forgotten() -> Broken:
    def unsent(self: ServerTask, *arguments: Any, **options: Any) -> Any:
        coming = _unsent(self, *arguments, **options)
        self.failures.maybe_taken = False
        return coming

    return mock.patch.object(ServerTask, "_unsent", unsent)


def _taken_is_stopped() -> Broken:
    def on_stop(self: ServerTask, answer: Any, at: Any) -> Any:
        coming = _on_stop(self, answer, at)
        return self._end(Reason.CONFIRMED, "Stopped.") if self.taken is not None else coming

    return mock.patch.object(ServerTask, "on_stop", on_stop)


def _a_stop_taken_is_sent_again() -> Broken:
    def watch(self: ServerTask, at: Any) -> Any:
        server = self._server
        assert server is not None
        idle = server.vm_state == "active" and server.task_state is None
        return Next(Step.STOP, at.ended) if self.taken is not None and idle else _watch(self, at)

    return mock.patch.object(ServerTask, "_watch", watch)


def _what_is_not_done_is_left_out() -> Broken:
    def conclude(self: Any) -> Any:
        try:
            return _conclude(self)
        except BudgetSpent:
            return tuple(server_task.result for server_task in self._cases.values() if server_task.result is not None)

    return mock.patch.object(scheduler.Scheduler, "_conclude", conclude)


def _each_result_has_a_new_id() -> Broken:
    return mock.patch.object(result, "result_id", side_effect=lambda *_: str(uuid4()))


def _two_events_share_a_result_id() -> Broken:
    real = result.result_id
    return mock.patch.object(
        result,
        "result_id",
        lambda report, type_: real(replace(report, request=replace(report.request, source="", id="")), type_),
    )


def _an_event_has_one_result_id() -> Broken:
    real = result.result_id
    return mock.patch.object(result, "result_id", lambda report, _: real(replace(report, servers=(), refusal=None), ""))


def _a_busy_server_is_trouble() -> Broken:
    return mock.patch.object(ServerTask, "on_time_up", lambda self: self.taken is not None and _time_up(self))


def _time_up(one: ServerTask) -> bool:
    one._end(Reason.ACCEPTED, server_task._NOT_SEEN_STOPPED)
    return True


# Nothing may be found in the whole function by the same chance, or what is found below might not be the guard's doing.
WHOLE = "nothing"
BREAKAGES: Mapping[str, Callable[[], Broken]] = {
    WHOLE: nullcontext,
    "protected": lambda: _without_guard(Reason.PROTECTED),
    "kept-until": lambda: _without_guard(Reason.KEPT_UNTIL),
    "kept-until without a zone": _no_zone_in_keep_until,
    "locked": lambda: _without_guard(Reason.LOCKED),
    "not-bare-metal": lambda: _without_guard(Reason.NOT_BARE_METAL),
    "started-since": _started_since_is_not_asked,
    "history that fails": _a_failing_history_is_none,
    "only what a selector fits": lambda: mock.patch.object(selection, "matches", return_value=True),
    "state check": lambda: _stopping_if(Move.LEAVE, Reason.WRONG_STATE),
    "never-launched": lambda: _stopping_if(Move.LEAVE, Reason.NEVER_LAUNCHED),
    "task-state check": lambda: _stopping_if(Move.WAIT, Reason.BUSY),
    "max servers": lambda: _without_refusal(Refusal.TOO_MANY_SERVERS),
    "too-old": lambda: _without_refusal(Refusal.TOO_OLD),
    "expired": lambda: _without_refusal(Refusal.EXPIRED),
    "dry run": _rehearsals_write,
    "read before a repeat": _a_lost_stop_is_sent_again,
    "a lost stop may have acted": _a_lost_stop_is_forgotten,
    "no stop after one that was taken": _a_stop_taken_is_sent_again,
    "confirm before stopped": _taken_is_stopped,
    "503 if not all is done": _what_is_not_done_is_left_out,
    "busy is a result": _a_busy_server_is_trouble,
    "a look that we cut off is no trouble": lambda: mock.patch.object(scheduler, "_GRAIN", float("-inf")),
    "the same content has the same result id": _each_result_has_a_new_id,
    "other content has another result id": _an_event_has_one_result_id,
    "one event a result id": _two_events_share_a_result_id,
}


class _Watched(Machine):
    """Stops at the first law that is broken, or at the first exception of any kind."""

    def _note(self, failure: BaseException) -> None:
        if not _first:
            _first.append((TALLY.total("deliveries"), str(failure) or repr(failure)))

    def _go_on(self, *arguments: Any, **options: Any) -> None:
        try:
            super()._go_on(*arguments, **options)
        except BaseException as failure:
            self._note(failure)
            raise

    def _drain(self) -> None:
        try:
            super()._drain()
        except BaseException as failure:
            self._note(failure)
            raise


_first: list[tuple[int, str]] = []


def find(breakage: str, start: int = 0, worlds: int = _WORLDS) -> tuple[int, str] | None:
    """Break the function and attack it.

    Args:
        start: where chance begins.
        worlds: how many are tried at most.

    Returns:
        After how many deliveries something was found, and what; None if nothing was.
    """
    _first.clear()
    before = TALLY.total("deliveries")
    how = settings(
        max_examples=worlds,
        stateful_step_count=40,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        report_multiple_bugs=False,
        print_blob=False,
        suppress_health_check=list(HealthCheck),
    )
    logging.disable(logging.CRITICAL)
    try:
        with BREAKAGES[breakage](), redirect_stdout(io.StringIO()):
            run_state_machine_as_test(seed(start)(_Watched), settings=how)
    except BaseException as failure:
        if not _first or isinstance(failure, KeyboardInterrupt):
            raise
    finally:
        logging.disable(logging.NOTSET)
    return (_first[0][0] - before, _first[0][1]) if _first else None


def main() -> int:
    """Try each; return 1 if the machine does not find one, or finds something in the whole function."""
    parser = argparse.ArgumentParser(prog="python -m tests.harness.prove.breakages", description=__doc__)
    parser.add_argument("names", nargs="*", help="only these", default=[])
    parser.add_argument("--seed", type=int, default=0, help="where chance begins")
    arguments = parser.parse_args()
    wrong = 0
    for name in arguments.names or BREAKAGES:
        began = time.monotonic()
        found = find(name, arguments.seed)
        wrong += (found is None) is not (name == WHOLE)
        said = f"{found[0]:>6} deliveries: {found[1]}" if found else "nothing found"
        print(f"{name:38}{said[:170]} ({time.monotonic() - began:.0f} s)", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
