"""`python -m tests.harness.prove.breakages`: remove each guard of the function once, and see the state machine find it.

A state machine that finds nothing proves nothing. Each breakage removes one guard, in this process only; the state
machine then runs against what is left, and what is printed is after how many deliveries which invariant did not hold.
"""

from __future__ import annotations

import argparse
import base64
import io
import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, redirect_stdout, suppress
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import count, islice
from typing import Any
from unittest import mock
from uuid import uuid5

from hypothesis import HealthCheck, Phase, settings

from handler import event_types, rfc3339
from handler.cloud import bms, error_mapping, servers
from handler.cloud.api_client import Reply
from handler.cloud.bms import BmsReader
from handler.cloud.connect import Clouds
from handler.cloud.nova import NovaReader
from handler.cloud.servers import Reader
from handler.errors import BudgetSpent, CloudError, NotAnnounced
from handler.inbound.cloudevents import decode
from handler.inbound.extract import approved
from handler.inbound.extract import keep as extract_keep
from handler.keep import decide as keep_decide
from handler.keep import runner
from handler.keep.model import Reason as KeepReason
from handler.keep.runner import KeepTask
from handler.outbound import announcement, result
from handler.outbound.announcement import Announcer
from handler.services import approvals, stop_servers
from handler.services.runs import Runs
from handler.settings.stop_servers import ApprovalSettings
from handler.stop import approval, decide, prepare, run, scheduler, selection, server_task
from handler.stop.approval import ApprovedReview, Plan
from handler.stop.calls import Next, Step
from handler.stop.evidence import History
from handler.stop.model import Approver, Decision, Move, Power, Reason, Refusal, Server, StopRequest
from handler.stop.server_task import ServerTask
from handler.stop.stop_limit import StopLimit
from tests.harness.prove import scheduler as tasks
from tests.harness.prove.keeping import KeepMachine
from tests.harness.prove.machine import COUNTERS, Machine, run_round
from tests.harness.prove.people import PeopleMachine

_ROUNDS = 24
# A removed guard that one seed does not find is tried with the next.
_SEEDS = 4
_ENVIRONMENTS_A_ROUND = 25
Breakage = AbstractContextManager[object]


def _patch(target: object, name: str, value: object) -> Callable[[], Breakage]:
    """Replace a function."""
    return lambda: mock.patch.object(target, name, value)


def _around(target: object, name: str, call: Callable[..., Any]) -> Callable[[], Breakage]:
    """Replace a function by one that gets the original as its first argument."""
    real = getattr(target, name)
    return _patch(target, name, lambda *arguments, **options: call(real, *arguments, **options))


def _changed(target: object, name: str, change: Callable[[Any], Any]) -> Callable[[], Breakage]:
    """Change what a function returns."""
    return _around(target, name, lambda real, *arguments, **options: change(real(*arguments, **options)))


def _without_guard(reason: Reason) -> Callable[[], Breakage]:
    return _changed(decide, "_guarded", lambda found: None if found and found.reason is reason else found)


def _without_refusal(refusal: Refusal) -> Callable[[], Breakage]:
    return _changed(prepare, "refuse", lambda found: None if found is refusal else found)


def _stop_if(move: Move, *reasons: Reason) -> Callable[[], Breakage]:
    def stop(decision: Decision) -> Decision:
        return decision._replace(move=Move.STOP) if decision.move is move and decision.reason in reasons else decision

    return _changed(decide, "_by_state", stop)


def _or_past(real: Any, text: str) -> Any:
    try:
        return real(text)
    except ValueError:
        return rfc3339.parse("2001-01-01T00:00:00Z")


def _forgetting(real: Any, task: ServerTask, *arguments: Any, **options: Any) -> Any:
    coming = real(task, *arguments, **options)
    task.failures.maybe_taken = False
    return coming


def _confirming(real: Any, task: ServerTask, answer: Any, at: Any) -> Any:
    coming = real(task, answer, at)
    return task._end(Reason.CONFIRMED, "Stopped.") if task.taken is not None else coming


def _stopping_again(real: Any, task: ServerTask, at: Any) -> Any:
    server = task._server
    assert server is not None
    idle = server.vm_state == "active" and server.task_state is None
    return Next(Step.STOP, at.completed) if task.taken is not None and idle else real(task, at)


def _leaving_out(real: Any, run: Any) -> Any:
    try:
        return real(run)
    except BudgetSpent:
        return tuple(task.result for task in run._tasks.values() if task.result is not None)


def _each_result_has_a_new_id() -> Breakage:
    numbers = count()
    return mock.patch.object(result, "result_id", side_effect=lambda *_: str(uuid5(result._IDS, str(next(numbers)))))


def _accepted_if_taken(task: ServerTask) -> bool:
    if task.taken is None:
        return False
    task._end(Reason.ACCEPTED, server_task._NOT_SEEN_STOPPED)
    return True


def _power_counts_as_off(power: Power) -> Callable[[], Breakage]:
    real = Server.power.fget  # type: ignore[attr-defined]
    return _patch(Server, "power", property(lambda server: Power.OFF if real(server) is power else real(server)))


def _certain(error: CloudError | None) -> CloudError | None:
    if error is not None:
        error.contradicts_status = False
    return error


def _without_refusal_of_approval(refusal: Refusal) -> Callable[[], Breakage]:
    return _changed(approvals, "verify", lambda found: (found[0], None if found[1] is refusal else found[1]))


def _seen_as(change: Callable[[Server], Server]) -> Callable[[], Breakage]:
    return _around(approval, "seen_of", lambda real, server: real(change(server)))


def _without_actions(server: Server) -> Server:
    history = server.history
    if history is None or not history.actions:
        return server
    return server._replace(history=history._replace(actions=history.actions[-1:]))


def _without_unread(server: Server) -> Server:
    return server if server.history is None else server._replace(history=server.history._replace(unread=()))


def _not_reviewed(left: Callable[[Server, Decision], bool]) -> Callable[[], Breakage]:
    """Leave these decisions on servers of an approval as they are."""

    def review(real: Any, self: ApprovedReview, server: Server, decision: Decision, *others: Any) -> Any:
        return decision if left(server, decision) else real(self, server, decision, *others)

    return _around(ApprovedReview, "review", review)


def _before_guards(real: Any, self: ApprovedReview, server: Server, decision: Decision, *others: Any) -> Any:
    if decision.move is Move.LEAVE and decision.reason in (Reason.LOCKED, Reason.PROTECTED, Reason.KEPT_UNTIL):
        decision = decision._replace(move=Move.STOP)
    return real(self, server, decision, *others)


def _decoded(token: str) -> bytes:
    return base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))


def _unsigned(token: str, _: Sequence[bytes]) -> bytes | None:
    raw = _decoded(token)
    return raw[:-32] if approval._base64(raw) == token and raw[:1] == b"\x01" else None


def _any_spelling(real: Any, token: str, keys: Sequence[bytes]) -> Any:
    try:
        return real(approval._base64(_decoded(token)), keys)
    except ValueError:
        return None


def _keys_are_kept() -> Breakage:
    kept = set[bytes]()

    def all_keys(found: list[bytes]) -> list[bytes]:
        kept.update(found)
        return [*found, *sorted(kept.difference(found))]

    return _changed(approvals, "_keys", all_keys)()


def _plans_are_stored() -> Breakage:
    """Each process knows only the plans that it has issued itself."""
    issued = set[tuple[int, str]]()
    issue, verify = approval.issue, approval.verify

    def issued_here(*arguments: Any) -> str:
        token = issue(*arguments)
        issued.add((tasks.current().command.process, token))
        return token

    def verified_here(token: str, *arguments: Any) -> Any:
        known = (tasks.current().command.process, token) in issued
        return verify(token if known else "unknown", *arguments)

    return mock.patch.multiple(approvals, issue=issued_here, verify=verified_here)


def _ignoring(real: Any, *arguments: Any) -> None:
    with suppress(NotAnnounced):
        real(*arguments)


def _requiring(real: Any, announcer: Announcer, *arguments: Any) -> None:
    announcer._required = True
    real(announcer, *arguments)


def _never_longer_is_written_too() -> Breakage:
    real = keep_decide.decide
    written = set[tuple[str, datetime]]()

    def decided(server: Server, until: datetime | None, protect: tuple[str, str]) -> keep_decide.Decision:
        decision = real(server, until, protect)
        if decision.reason is KeepReason.ALREADY_KEPT and until is not None and (server.id, until) not in written:
            written.add((server.id, until))
            return keep_decide.Decision(keep_decide.Move.WRITE, KeepReason.DRY_RUN, "")
        return decision

    return mock.patch.object(runner, "decide", decided)


def _written_counts_as_kept() -> Breakage:
    write, refused, done = KeepTask._write, KeepTask._refused, object()

    def written(self: KeepTask, *arguments: Any) -> Any:
        return write(self, *arguments) or done

    def ended(self: KeepTask, error: Any) -> Any:
        return self._result(KeepReason.KEPT, "") if error is done else refused(self, error)

    return mock.patch.multiple(KeepTask, _write=written, _refused=ended)


PEOPLE_BREAKAGES: Mapping[str, Callable[[], Breakage]] = {
    "nothing, with people": nullcontext,
    # which event needs an approval
    "an event that needs an approval": _patch(ApprovalSettings, "needed", lambda *_: None),
    "an event can only tighten who approves": _around(
        ApprovalSettings, "needed", lambda real, rules, asked, servers: asked or real(rules, None, servers)
    ),
    "an event can tighten who approves": _around(
        ApprovalSettings,
        "needed",
        lambda real, rules, *others: real(rules, *others) and (rules.approver or Approver.SELF),
    ),
    "approval above a number of servers": _around(
        ApprovalSettings, "needed", lambda real, rules, asked, _: real(rules, asked, 1)
    ),
    "approval-not-configured": _around(
        approvals,
        "to_be_planned",
        lambda real, request, who, given: real(request, who, given) if given.keys else request,
    ),
    # tokens
    "approval-invalid": _patch(approval, "_signed", _unsigned),
    "one spelling of a token": _around(approval, "_signed", _any_spelling),
    "audience of a plan": _patch(approval, "_plan", lambda signed, _: approval._read(signed)[0]),
    "a key that was removed": _keys_are_kept,
    "a key that verifies": _changed(approvals, "_keys", lambda keys: keys[:1]),
    "approval-expired": _without_refusal_of_approval(Refusal.APPROVAL_EXPIRED),
    "no plan is stored": _plans_are_stored,
    # approvers
    "approval-self": _without_refusal_of_approval(Refusal.APPROVAL_SELF),
    "requester of a plan": _patch(approvals, "Plan", lambda **fields: Plan(**{**fields, "requester": None})),
    "approver of the same workspace": _patch(approval, "_system", lambda *_: ""),
    "approver is a person": _patch(approved, "is_person", lambda *_: True),
    # servers
    "changed-since-plan": _not_reviewed(
        lambda server, decision: decision.move is Move.STOP and server.history is not None
    ),
    "guards apply to an approval": _around(ApprovedReview, "review", _before_guards),
    "an approval waits for no one": _not_reviewed(lambda _, decision: decision.move is Move.WAIT),
    "an approval of a server that is stopped": _not_reviewed(lambda _, decision: decision.move is Move.LEAVE),
    "states of a plan": _seen_as(lambda server: server._replace(vm_state="active", task_state=None, power_state=1)),
    "history of a plan": _seen_as(_without_actions),
    "unreadable history of a plan": _seen_as(_without_unread),
    "record of a plan without a history": _seen_as(
        lambda server: server._replace(updated=server.updated and server.updated.replace(2001, 1, 1, 0, 0, 0))
    ),
    "no plan within the second of a change": _patch(approval, "_SECOND", timedelta(days=-1)),
    # announcements
    "no stop without a required announcement": _around(Announcer, "announce", _ignoring),
    "a failing sink changes no stop": _around(Announcer, "announce", _requiring),
    "an announcement lists each server": _around(
        announcement,
        "announcement_event",
        lambda real, request, servers, **given: real(request, servers[:1], **given),
    ),
    "stops are announced": _patch(Announcer, "announce", lambda *_: None),
}
KEEP_BREAKAGES: Mapping[str, Callable[[], Breakage]] = {
    "nothing, with keeps": nullcontext,
    "a keep never shortens": _never_longer_is_written_too,
    "a keep is bounded": _patch(extract_keep, "too_long", lambda *_, **__: []),
    "a keep that cannot be read stays": lambda: mock.patch.object(keep_decide, "all", return_value=True, create=True),
    "kept is a seen value": _written_counts_as_kept,
    "a keep that comes before the stop": _without_guard(Reason.KEPT_UNTIL),
}
BREAKAGES: Mapping[str, Callable[[], Breakage]] = {
    "nothing": nullcontext,
    # guards
    "protected": _without_guard(Reason.PROTECTED),
    "kept-until": _without_guard(Reason.KEPT_UNTIL),
    "unreadable keep-until protects": _around(rfc3339, "parse_either", _or_past),
    "keep-until in basic form": _patch(rfc3339, "parse_either", rfc3339.parse),
    "tags in the old form": _patch(decide, "_old_form", lambda *_: None),
    "protected by metadata": _changed(decide, "labels", lambda labels: (label for label in labels if label[2] is None)),
    "locked": _without_guard(Reason.LOCKED),
    "not-bare-metal": _without_guard(Reason.NOT_BARE_METAL),
    "bare metal by the name of the flavor": _patch(servers, "_flavor", lambda flavor: str(flavor.get("id", ""))),
    "other-project": _without_guard(Reason.OTHER_PROJECT),
    "not-opted-in": _without_guard(Reason.NOT_OPTED_IN),
    "only what a selector fits": _patch(selection, "matches", lambda *_: True),
    "a selector's list is whole": _changed(NovaReader, "_pages", lambda pages: islice(pages, 1)),
    # starts
    "started-since": _patch(decide, "_started_since", lambda _server, _request, _policy, stop: stop),
    "since": _patch(StopRequest, "since_of", lambda *_: None),
    "a time ahead counts as now": _patch(run, "_not_after", lambda request, _: request),
    "history that fails": _around(
        ServerTask,
        "on_history",
        lambda real, task, answer, at: real(task, answer if isinstance(answer, History) else History(()), at),
    ),
    "history of Nova in bms mode": _patch(BmsReader, "history", lambda *_: History(None)),
    "unreadable history entry": _patch(decide, "_not_understood", lambda *_: iter(())),
    "start after the first stop": _patch(ServerTask, "_attempted", lambda *_: None),
    "without a history the record proves it": _patch(decide, "_without_history", lambda _server, _history, stop: stop),
    # states
    "state check": _stop_if(Move.LEAVE, Reason.WRONG_STATE),
    "never-launched": _stop_if(Move.LEAVE, Reason.NEVER_LAUNCHED),
    "task-state check": _stop_if(Move.WAIT, Reason.BUSY),
    "transitional states": _patch(decide, "_TRANSITIONAL", frozenset()),
    "stuck operations": _patch(decide, "_STUCK_AFTER", timedelta(days=9)),
    "power-still-on": _power_counts_as_off(Power.ON),
    "power state unknown": _power_counts_as_off(Power.UNKNOWN),
    # the event as a whole
    "too-many-servers": _without_refusal(Refusal.TOO_MANY_SERVERS),
    "too many servers in a batch": _patch(stop_servers, "refuse_too_many", lambda prepared, _: prepared),
    "too-old": _without_refusal(Refusal.TOO_OLD),
    "expired": _without_refusal(Refusal.EXPIRED),
    "in-the-future": _without_refusal(Refusal.IN_THE_FUTURE),
    "dry run": _around(Clouds, "cloud", lambda real, clouds, **_: real(clouds, dry_run=False)),
    "stop limit": _patch(StopLimit, "take", lambda *_: None),
    "each attempt counts against the stop limit": _patch(StopLimit, "attempted", StopLimit.give_back),
    "own results are ignored": _patch(event_types, "RESULTS", frozenset()),
    "dead-lettered copies are ignored": _patch(decode, "_DEAD_LETTER_MARKS", ()),
    "one run per event": _patch(Runs, "report", lambda _self, _request, _deadline, run: run()),
    # what became of a stop
    "read before a repeat": _changed(ServerTask, "_unsent", lambda coming: coming._replace(step=Step.STOP)),
    "a lost stop may have acted": _around(ServerTask, "_unsent", _forgetting),
    "no stop after one that was taken": _around(ServerTask, "_watch", _stopping_again),
    "confirm before stopped": _around(ServerTask, "on_stop", _confirming),
    "2xx with an error document": _patch(Reply, "error", lambda *_: None),
    "2xx with an error document is no certain refusal": _changed(error_mapping, "from_success", _certain),
    "list that fails": _patch(Reader, "_without_list", lambda _self, error: error),
    "job that failed without children": _patch(bms, "_verdict_of_all", lambda *_: None),
    "503 if not all is done": _around(scheduler.Scheduler, "_conclude", _leaving_out),
    "busy is a result": _patch(ServerTask, "on_time_up", _accepted_if_taken),
    # results
    "the same content has the same result id": _each_result_has_a_new_id,
    "other content has another result id": _around(
        result, "result_id", lambda real, report, _: real(replace(report, servers=(), refusal=None), "")
    ),
    "one event a result id": _around(
        result,
        "result_id",
        lambda real, report, type_: real(replace(report, request=replace(report.request, source="", id="")), type_),
    ),
    **PEOPLE_BREAKAGES,
    **KEEP_BREAKAGES,
}
# Nothing may be found in the whole function by the same random choices, or what is found above might not be due to the
# guard.
_WHOLE = frozenset(name for name, breakage in BREAKAGES.items() if breakage is nullcontext)


class _Watched(Machine):
    """Notes the first violation, or the first exception of any kind."""

    def _note(self, failure: BaseException) -> None:
        if not _first:
            _first.append((COUNTERS.total("deliveries"), str(failure) or repr(failure)))

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


class _WatchedPeople(_Watched, PeopleMachine):
    """The same with people in the loop."""


class _WatchedKeeps(_Watched, KeepMachine):
    """The same with keeps."""

    def _end(self, *arguments: Any) -> None:
        try:
            super()._end(*arguments)
        except BaseException as failure:
            self._note(failure)
            raise


def _machine_for(breakage: str) -> type[Machine]:
    if breakage in PEOPLE_BREAKAGES:
        return _WatchedPeople
    return _WatchedKeeps if breakage in KEEP_BREAKAGES else _Watched


_first: list[tuple[int, str]] = []


def find(breakage: str, start: int = 0, rounds: int = _ROUNDS) -> tuple[int, str] | None:
    """Remove a guard and run the state machine.

    Returns:
        After how many deliveries a violation was found, and which; None if none was.
    """
    _first.clear()
    before = COUNTERS.total("deliveries")
    options = settings(
        max_examples=_ENVIRONMENTS_A_ROUND,
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
            machine = _machine_for(breakage)
            for number in range(rounds):
                run_round(machine, number, start, options)
    except BaseException as failure:
        if not _first or isinstance(failure, KeyboardInterrupt):
            raise
    finally:
        logging.disable(logging.NOTSET)
    return (_first[0][0] - before, _first[0][1]) if _first else None


def main() -> int:
    """Try each.

    Returns:
        1 if one is not found, or if something is found in the whole function.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.harness.prove.breakages", description=__doc__)
    parser.add_argument("names", nargs="*", help="only these", default=[])
    parser.add_argument("--seed", type=int, default=0, help="of the random choices")
    parser.add_argument("--markdown", action="store_true", help="print the rows of the README's table")
    arguments = parser.parse_args()
    wrong = 0
    for name in arguments.names or BREAKAGES:
        began = time.monotonic()
        seeds = range(arguments.seed, arguments.seed + (1 if name in _WHOLE else _SEEDS))
        found = next(filter(None, (find(name, seed) for seed in seeds)), None)
        wrong += (found is None) is not (name in _WHOLE)
        if not arguments.markdown:
            text = f"{found[0]:>6} deliveries: {found[1]}" if found else "nothing found"
            print(f"{name:48}{text[:170]} ({time.monotonic() - began:.0f} s)", flush=True)
        elif name not in _WHOLE:
            count, text = found or ("-", "not found")
            print(f"| {name} | {count} | {text.partition(' to Message(')[0]} |", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
