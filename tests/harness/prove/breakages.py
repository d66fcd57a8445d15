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
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from handler.stop.approval import ApprovedReview, Plan, seen_of
from handler.stop.calls import Next, Step
from handler.stop.evidence import History
from handler.stop.model import Approver, Decision, Move, Policy, Power, Reason, Refusal, Server, StopRequest
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

# What stands in the place of what is patched below.
_guarded, _by_state = decide._guarded, decide._by_state
_parse, _parse_either = rfc3339.parse, rfc3339.parse_either
_refuse, _cloud, _conclude = decide.refuse, Clouds.cloud, scheduler.Scheduler._conclude
_labels, _from_success, _pages = decide.labels, error_mapping.from_success, NovaReader._pages
_unsent, _on_stop, _watch = ServerTask._unsent, ServerTask.on_stop, ServerTask._watch
_on_history, _result_id = ServerTask.on_history, result.result_id
_verify, _issue, _needed, _review = approval.verify, approval.issue, ApprovalSettings.needed, ApprovedReview.review
_announce, _signed, _keys = Announcer.announce, approval._signed, approvals._keys


def _without_guard(reason: Reason) -> Breakage:
    def guarded(*arguments: Any) -> Any:
        decision = _guarded(*arguments)
        return None if decision and decision.reason is reason else decision

    return mock.patch.object(decide, "_guarded", guarded)


def _without_refusal(refusal: Refusal) -> Breakage:
    def refuse(*arguments: Any) -> Any:
        found = _refuse(*arguments)
        return None if found is refusal else found

    return mock.patch.object(prepare, "refuse", refuse)


def _stop_if(move: Move, *reasons: Reason) -> Breakage:
    def by_state(server: Any) -> Any:
        decision = _by_state(server)
        return replace(decision, move=Move.STOP) if decision.move is move and decision.reason in reasons else decision

    return mock.patch.object(decide, "_by_state", by_state)


def _unreadable_keep_until_has_passed() -> Breakage:
    def parse(text: str) -> Any:
        try:
            return _parse_either(text)
        except ValueError:
            return _parse("2001-01-01T00:00:00Z")

    return mock.patch.object(rfc3339, "parse_either", parse)


def _history_that_fails_is_empty() -> Breakage:
    def on_history(self: ServerTask, answer: Any, at: Any) -> Any:
        return _on_history(self, answer if isinstance(answer, History) else History(()), at)

    return mock.patch.object(ServerTask, "on_history", on_history)


def _dry_runs_write() -> Breakage:
    return mock.patch.object(Clouds, "cloud", lambda self, **_: _cloud(self, dry_run=False))


def _lost_stop_is_sent_again_at_once() -> Breakage:
    def unsent(self: ServerTask, *arguments: Any, **options: Any) -> Any:
        return _unsent(self, *arguments, **options)._replace(step=Step.STOP)

    return mock.patch.object(ServerTask, "_unsent", unsent)


def _lost_stop_is_forgotten() -> Breakage:
    def unsent(self: ServerTask, *arguments: Any, **options: Any) -> Any:
        coming = _unsent(self, *arguments, **options)
        self.failures.maybe_taken = False
        return coming

    return mock.patch.object(ServerTask, "_unsent", unsent)


def _taken_counts_as_stopped() -> Breakage:
    def on_stop(self: ServerTask, answer: Any, at: Any) -> Any:
        coming = _on_stop(self, answer, at)
        return self._end(Reason.CONFIRMED, "Stopped.") if self.taken is not None else coming

    return mock.patch.object(ServerTask, "on_stop", on_stop)


def _taken_stop_is_sent_again() -> Breakage:
    def watch(self: ServerTask, at: Any) -> Any:
        server = self._server
        assert server is not None
        idle = server.vm_state == "active" and server.task_state is None
        return Next(Step.STOP, at.completed) if self.taken is not None and idle else _watch(self, at)

    return mock.patch.object(ServerTask, "_watch", watch)


def _unfinished_servers_are_left_out() -> Breakage:
    def conclude(self: Any) -> Any:
        try:
            return _conclude(self)
        except BudgetSpent:
            return tuple(task.result for task in self._tasks.values() if task.result is not None)

    return mock.patch.object(scheduler.Scheduler, "_conclude", conclude)


def _each_result_has_a_new_id() -> Breakage:
    numbers = count()
    return mock.patch.object(result, "result_id", side_effect=lambda *_: str(uuid5(result._IDS, str(next(numbers)))))


def _two_events_share_a_result_id() -> Breakage:
    return mock.patch.object(
        result,
        "result_id",
        lambda report, type_: _result_id(replace(report, request=replace(report.request, source="", id="")), type_),
    )


def _an_event_has_one_result_id() -> Breakage:
    return mock.patch.object(
        result, "result_id", lambda report, _: _result_id(replace(report, servers=(), refusal=None), "")
    )


def _busy_server_is_no_result() -> Breakage:
    return mock.patch.object(ServerTask, "on_time_up", lambda self: self.taken is not None and _time_up(self))


def _time_up(task: ServerTask) -> bool:
    task._end(Reason.ACCEPTED, server_task._NOT_SEEN_STOPPED)
    return True


def _power_counts_as_off(*powers: Power) -> Breakage:
    real = Server.power.fget  # type: ignore[attr-defined]

    def power(self: Server) -> Power:
        found: Power = real(self)
        return Power.OFF if found in powers else found

    return mock.patch.object(Server, "power", property(power))


def _metadata_protects_nothing() -> Breakage:
    def labels(server: Server, key: str) -> Iterator[tuple[str, str | None, str | None]]:
        return (found for found in _labels(server, key) if found[2] is None)

    return mock.patch.object(decide, "labels", labels)


def _error_document_is_a_certain_refusal() -> Breakage:
    def from_success(*arguments: Any) -> CloudError | None:
        fault = _from_success(*arguments)
        if fault is not None:
            fault.contradicts_status = False
        return fault

    return mock.patch.object(error_mapping, "from_success", from_success)


def _list_ends_with_its_first_page() -> Breakage:
    return mock.patch.object(NovaReader, "_pages", lambda self, timeout: islice(_pages(self, timeout), 1))


def _flavor_is_its_id() -> Breakage:
    return mock.patch.object(servers, "_flavor", lambda flavor: str(flavor.get("id", "")))


def _without_refusal_of_approval(refusal: Refusal) -> Breakage:
    def verify(*arguments: Any) -> Any:
        plan, found = _verify(*arguments)
        return plan, None if found is refusal else found

    return mock.patch.object(approvals, "verify", verify)


def _needed_as(needed: Callable[[ApprovalSettings, Approver | None, int], Approver | None]) -> Breakage:
    return mock.patch.object(ApprovalSettings, "needed", needed)


def _event_decides(settings: ApprovalSettings, asked: Approver | None, servers: int) -> Approver | None:
    return asked if asked is not None else _needed(settings, None, servers)


def _deployment_decides(settings: ApprovalSettings, asked: Approver | None, servers: int) -> Approver | None:
    if _needed(settings, asked, servers) is None:
        return None
    return settings.approver or Approver.SELF


def _seen_as(change: Callable[[Server], Server]) -> Breakage:
    def seen(server: Server) -> bytes | None:
        return seen_of(change(server))

    return mock.patch.object(approval, "seen_of", seen)


def _without_actions(server: Server) -> Server:
    history = server.history
    if history is None or not history.actions:
        return server
    return replace(server, history=history._replace(actions=history.actions[-1:]))


def _without_unread(server: Server) -> Server:
    return server if server.history is None else replace(server, history=server.history._replace(unread=()))


def _without_states(server: Server) -> Server:
    return replace(server, vm_state="active", task_state=None, power_state=1)


def _without_updated(server: Server) -> Server:
    return replace(server, updated=server.updated and server.updated.replace(2001, 1, 1, 0, 0, 0))


def _approved_whatever_was_seen(self: ApprovedReview, server: Server, decision: Decision, *others: Any) -> Decision:
    if decision.move is Move.STOP and server.history is not None:
        return decision
    return _review(self, server, decision, *others)


def _approved_waits(self: ApprovedReview, server: Server, decision: Decision, policy: Policy, now: Any) -> Decision:
    return decision if decision.move is Move.WAIT else _review(self, server, decision, policy, now)


def _approved_says_what_it_sees(self: ApprovedReview, server: Server, decision: Decision, *others: Any) -> Decision:
    return decision if decision.move is Move.LEAVE else _review(self, server, decision, *others)


def _approved_before_guards(self: ApprovedReview, server: Server, decision: Decision, *others: Any) -> Decision:
    if decision.move is Move.LEAVE and decision.reason in (Reason.LOCKED, Reason.PROTECTED, Reason.KEPT_UNTIL):
        decision = replace(decision, move=Move.STOP)
    return _review(self, server, decision, *others)


def _unsigned() -> Breakage:
    def signed(token: str, _: Sequence[bytes]) -> bytes | None:
        raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        return raw[:-32] if approval._base64(raw) == token and raw[:1] == b"\x01" else None

    return mock.patch.object(approval, "_signed", signed)


def _any_spelling() -> Breakage:
    def signed(token: str, keys: Sequence[bytes]) -> bytes | None:
        try:
            return _signed(approval._base64(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))), keys)
        except ValueError:
            return None

    return mock.patch.object(approval, "_signed", signed)


def _keys_are_kept() -> Breakage:
    kept = set[bytes]()

    def keys(settings: ApprovalSettings) -> list[bytes]:
        found = _keys(settings)
        kept.update(found)
        return [*found, *sorted(kept.difference(found))]

    return mock.patch.object(approvals, "_keys", keys)


def _only_the_first_key() -> Breakage:
    return mock.patch.object(approvals, "_keys", lambda settings: _keys(settings)[:1])


def _plans_are_stored() -> Breakage:
    """Each process knows only the plans that it has issued itself."""
    issued: dict[int, set[str]] = {}

    def process() -> int:
        number: int = tasks.current().command.process
        return number

    def issue(*arguments: Any) -> str:
        token = _issue(*arguments)
        issued.setdefault(process(), set()).add(token)
        return token

    def verify(token: str, *arguments: Any) -> Any:
        return _verify(token if token in issued.get(process(), ()) else "unknown", *arguments)

    return mock.patch.multiple(approvals, issue=issue, verify=verify)


def _token_without_requester() -> Breakage:
    return mock.patch.object(approvals, "Plan", lambda **fields: Plan(**{**fields, "requester": None}))


def _unsigned_plan_is_a_stop() -> Breakage:
    real = approvals.to_be_planned
    return mock.patch.object(
        approvals, "to_be_planned", lambda request, who, given: real(request, who, given) if given.keys else request
    )


def _announcement_that_fails_is_ignored() -> Breakage:
    def announce(*arguments: Any) -> None:
        with suppress(NotAnnounced):
            _announce(*arguments)

    return mock.patch.object(Announcer, "announce", announce)


def _announcement_is_always_required() -> Breakage:
    def announce(self: Announcer, *arguments: Any) -> None:
        self._required = True
        _announce(self, *arguments)

    return mock.patch.object(Announcer, "announce", announce)


def _first_server_is_announced() -> Breakage:
    real = announcement.announcement_event
    return mock.patch.object(
        announcement, "announcement_event", lambda request, servers, **given: real(request, servers[:1], **given)
    )


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

    def ended(self: KeepTask, fault: Any) -> Any:
        return self._result(KeepReason.KEPT, "") if fault is done else refused(self, fault)

    return mock.patch.multiple(KeepTask, _write=written, _refused=ended)


def _unreadable_entry_is_replaced() -> Breakage:
    return mock.patch.object(keep_decide, "all", return_value=True, create=True)


def _patch(target: object, name: str, value: object) -> Callable[[], Breakage]:
    return lambda: mock.patch.object(target, name, value)


PEOPLE_BREAKAGES: Mapping[str, Callable[[], Breakage]] = {
    "nothing, with people": nullcontext,
    # which event needs an approval
    "an event that needs an approval": lambda: _needed_as(lambda *_: None),
    "an event can only tighten who approves": lambda: _needed_as(_event_decides),
    "an event can tighten who approves": lambda: _needed_as(_deployment_decides),
    "approval above a number of servers": lambda: _needed_as(lambda self, asked, _: _needed(self, asked, 1)),
    "approval-not-configured": _unsigned_plan_is_a_stop,
    # tokens
    "approval-invalid": _unsigned,
    "one spelling of a token": _any_spelling,
    "audience of a plan": _patch(approval, "_plan", lambda signed, _: approval._read(signed)[0]),
    "a key that was removed": _keys_are_kept,
    "a key that verifies": _only_the_first_key,
    "approval-expired": lambda: _without_refusal_of_approval(Refusal.APPROVAL_EXPIRED),
    "no plan is stored": _plans_are_stored,
    # approvers
    "approval-self": lambda: _without_refusal_of_approval(Refusal.APPROVAL_SELF),
    "requester of a plan": _token_without_requester,
    "approver of the same workspace": _patch(approval, "_system", lambda *_: ""),
    "approver is a person": _patch(approved, "is_person", lambda *_: True),
    # servers
    "changed-since-plan": _patch(ApprovedReview, "review", _approved_whatever_was_seen),
    "guards apply to an approval": _patch(ApprovedReview, "review", _approved_before_guards),
    "an approval waits for no one": _patch(ApprovedReview, "review", _approved_waits),
    "an approval of a server that is stopped": _patch(ApprovedReview, "review", _approved_says_what_it_sees),
    "states of a plan": lambda: _seen_as(_without_states),
    "history of a plan": lambda: _seen_as(_without_actions),
    "unreadable history of a plan": lambda: _seen_as(_without_unread),
    "record of a plan without a history": lambda: _seen_as(_without_updated),
    "no plan within the second of a change": _patch(approval, "_SECOND", timedelta(days=-1)),
    # announcements
    "no stop without a required announcement": _announcement_that_fails_is_ignored,
    "a failing sink changes no stop": _announcement_is_always_required,
    "an announcement lists each server": _first_server_is_announced,
    "stops are announced": _patch(Announcer, "announce", lambda *_: None),
}
KEEP_BREAKAGES: Mapping[str, Callable[[], Breakage]] = {
    "nothing, with keeps": nullcontext,
    "a keep never shortens": _never_longer_is_written_too,
    "a keep is bounded": _patch(extract_keep, "too_long", lambda *_, **__: []),
    "a keep that cannot be read stays": _unreadable_entry_is_replaced,
    "kept is a seen value": _written_counts_as_kept,
    "a keep that comes before the stop": lambda: _without_guard(Reason.KEPT_UNTIL),
}
BREAKAGES: Mapping[str, Callable[[], Breakage]] = {
    "nothing": nullcontext,
    # guards
    "protected": lambda: _without_guard(Reason.PROTECTED),
    "kept-until": lambda: _without_guard(Reason.KEPT_UNTIL),
    "unreadable keep-until protects": _unreadable_keep_until_has_passed,
    "keep-until in basic form": _patch(rfc3339, "parse_either", rfc3339.parse),
    "tags in the old form": _patch(decide, "_old_form", lambda *_: None),
    "protected by metadata": _metadata_protects_nothing,
    "locked": lambda: _without_guard(Reason.LOCKED),
    "not-bare-metal": lambda: _without_guard(Reason.NOT_BARE_METAL),
    "bare metal by the name of the flavor": _flavor_is_its_id,
    "other-project": lambda: _without_guard(Reason.OTHER_PROJECT),
    "not-opted-in": lambda: _without_guard(Reason.NOT_OPTED_IN),
    "only what a selector fits": lambda: mock.patch.object(selection, "matches", return_value=True),
    "a selector's list is whole": _list_ends_with_its_first_page,
    # starts
    "started-since": _patch(decide, "_started_since", lambda _server, _request, _policy, stop: stop),
    "since": _patch(StopRequest, "since_of", lambda *_: None),
    "a time ahead counts as now": _patch(run, "_not_after", lambda request, _: request),
    "history that fails": _history_that_fails_is_empty,
    "history of Nova in bms mode": _patch(BmsReader, "history", lambda *_: History(None)),
    "unreadable history entry": _patch(decide, "_not_understood", lambda *_: iter(())),
    "start after the first stop": _patch(ServerTask, "_attempted", lambda *_: None),
    "without a history the record proves it": _patch(decide, "_without_history", lambda _server, _history, stop: stop),
    # states
    "state check": lambda: _stop_if(Move.LEAVE, Reason.WRONG_STATE),
    "never-launched": lambda: _stop_if(Move.LEAVE, Reason.NEVER_LAUNCHED),
    "task-state check": lambda: _stop_if(Move.WAIT, Reason.BUSY),
    "transitional states": _patch(decide, "_TRANSITIONAL", frozenset()),
    "stuck operations": _patch(decide, "_STUCK_AFTER", timedelta(days=9)),
    "power-still-on": lambda: _power_counts_as_off(Power.ON),
    "power state unknown": lambda: _power_counts_as_off(Power.UNKNOWN),
    # the event as a whole
    "too-many-servers": lambda: _without_refusal(Refusal.TOO_MANY_SERVERS),
    "too many servers in a batch": _patch(stop_servers, "refuse_too_many", lambda prepared, _: prepared),
    "too-old": lambda: _without_refusal(Refusal.TOO_OLD),
    "expired": lambda: _without_refusal(Refusal.EXPIRED),
    "in-the-future": lambda: _without_refusal(Refusal.IN_THE_FUTURE),
    "dry run": _dry_runs_write,
    "stop limit": _patch(StopLimit, "take", lambda *_: None),
    "each attempt counts against the stop limit": _patch(StopLimit, "attempted", StopLimit.give_back),
    "own results are ignored": _patch(event_types, "RESULTS", frozenset()),
    "dead-lettered copies are ignored": _patch(decode, "_DEAD_LETTER_MARKS", ()),
    "one run per event": _patch(Runs, "report", lambda _self, _request, _deadline, run: run()),
    # what became of a stop
    "read before a repeat": _lost_stop_is_sent_again_at_once,
    "a lost stop may have acted": _lost_stop_is_forgotten,
    "no stop after one that was taken": _taken_stop_is_sent_again,
    "confirm before stopped": _taken_counts_as_stopped,
    "2xx with an error document": _patch(Reply, "error", lambda *_: None),
    "2xx with an error document is no certain refusal": _error_document_is_a_certain_refusal,
    "list that fails": _patch(Reader, "_without_list", lambda _self, fault: fault),
    "job that failed without children": _patch(bms, "_verdict_of_all", lambda *_: None),
    "503 if not all is done": _unfinished_servers_are_left_out,
    "busy is a result": _busy_server_is_no_result,
    # results
    "the same content has the same result id": _each_result_has_a_new_id,
    "other content has another result id": _an_event_has_one_result_id,
    "one event a result id": _two_events_share_a_result_id,
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

    Args:
        start: the seed.
        rounds: how many there are at most.

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
