"""The guards of keeps that are removed, as in `breakages.py`; `keeping.py` finds that."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from typing import Any
from unittest import mock

from handler.inbound.extract import keep as extract
from handler.keep import decide, runner
from handler.keep.decide import Decision, Move
from handler.keep.model import Reason
from handler.keep.runner import KeepTask
from handler.stop import decide as stop_decide
from handler.stop.model import Reason as StopReason
from handler.stop.model import Server

Breakage = AbstractContextManager[object]


def _never_longer_is_written_too() -> Breakage:
    real = decide.decide
    written = set[tuple[str, datetime]]()

    def decided(server: Server, until: datetime | None, protect: tuple[str, str]) -> Decision:
        decision = real(server, until, protect)
        if decision.reason is Reason.ALREADY_KEPT and until is not None and (server.id, until) not in written:
            written.add((server.id, until))
            return Decision(Move.WRITE, Reason.DRY_RUN, "")
        return decision

    return mock.patch.object(runner, "decide", decided)


def _written_counts_as_kept() -> Breakage:
    write, refused, done = KeepTask._write, KeepTask._refused, object()

    def written(self: KeepTask, *arguments: Any) -> Any:
        return write(self, *arguments) or done

    def ended(self: KeepTask, fault: Any) -> Any:
        return self._result(Reason.KEPT, "") if fault is done else refused(self, fault)

    return mock.patch.multiple(KeepTask, _write=written, _refused=ended)


def _unreadable_entry_is_replaced() -> Breakage:
    return mock.patch.object(decide, "all", return_value=True, create=True)


def _kept_is_stopped() -> Breakage:
    real = stop_decide._guarded

    def guarded(*arguments: Any) -> Any:
        decision = real(*arguments)
        return None if decision and decision.reason is StopReason.KEPT_UNTIL else decision

    return mock.patch.object(stop_decide, "_guarded", guarded)


WHOLE_WITH_KEEPS = "nothing, with keeps"
KEEP_BREAKAGES: Mapping[str, Callable[[], Breakage]] = {
    WHOLE_WITH_KEEPS: nullcontext,
    "a keep never shortens": _never_longer_is_written_too,
    "a keep is bounded": lambda: mock.patch.object(extract, "too_long", return_value=[]),
    "a keep that cannot be read stays": _unreadable_entry_is_replaced,
    "kept is a seen value": _written_counts_as_kept,
    "a keep that comes before the stop": _kept_is_stopped,
}
