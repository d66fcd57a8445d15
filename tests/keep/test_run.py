"""The run of one event: what becomes of it if single servers, or the cloud, fail."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from handler.errors import BudgetSpent, CloudError, CloudFault, CloudThrottled, CloudUnreachable, LoginRefused
from handler.keep.model import KeepPolicy, KeepReport, KeepRequest, KeepResult, Reason
from handler.keep.run import prepare, run
from handler.keep.runner import ServerLocks
from handler.stop.evidence import History
from handler.stop.model import Policy, Refusal, Server
from handler.stop.ports import Seen
from handler.stop.prepare import PreparedRequest
from tests.keep.fakes import NOW, Clock
from tests.stop.fakes import FakeExecutor

ONE, TWO = (f"00000000-0000-4000-8000-00000000000{number}" for number in (1, 2))
POLICY = KeepPolicy(Policy(max_servers=2), timedelta(hours=24))


class Reader:
    """Servers that are there, but for those that cannot be read."""

    api = "nova"

    def __init__(self, faults: Mapping[str, Exception]) -> None:
        self._faults = faults

    def read_groups(self, ids: Sequence[str]) -> Sequence[Sequence[str]]:
        return [ids]

    def read(self, ids: Sequence[str], timeout: float) -> Mapping[str, Seen]:
        del timeout
        fault = self._faults.get(ids[0])
        if fault is not None and not isinstance(fault, CloudError):
            raise fault
        if isinstance(fault, LoginRefused):
            raise fault
        return {ids[0]: fault or Server(ids[0], "active")}

    def find(self, wanted: Callable[[Server], bool], timeout: float) -> Sequence[Server]:
        raise AssertionError((wanted, timeout))

    def history(self, server_id: str, timeout: float) -> History | CloudError:
        raise AssertionError((server_id, timeout))


def prepared(*ids: str, refusal: Refusal | None = None) -> PreparedRequest[KeepRequest]:
    """An event about these servers."""
    request = KeepRequest("/tests", "k", "io.github.bms-autostop.keep.requested.v1", ids, duration=timedelta(hours=1))
    return PreparedRequest(request, request, NOW, refusal)


def handled(
    one: PreparedRequest[KeepRequest],
    faults: Mapping[str, Exception] | None = None,
    *,
    deadline: float = 60.0,
    **more: Any,
) -> KeepReport:
    """The report of a dry run."""
    with ThreadPoolExecutor(2) as threads:
        return run(
            one,
            POLICY,
            Reader(faults or {}),
            None,
            threads,
            Clock(),
            ServerLocks(),
            deadline=deadline,
            backoff=lambda _: 0.1,
            **more,
        )


def test_the_rows_are_in_the_order_of_the_request() -> None:
    """And each is reported as soon as it is there."""
    rows: list[KeepResult] = []
    report = handled(prepared(TWO, ONE), on_result=rows.append)
    assert [row.id for row in report.servers] == [TWO, ONE]
    assert {row.id for row in rows} == {ONE, TWO}
    assert (report.dry_run, report.failed, report.summary["planned"]) == (True, False, 2)


def test_a_refused_event_makes_no_call() -> None:
    """It counts as failed."""
    report = handled(prepared(ONE, refusal=Refusal.TOO_OLD), {ONE: AssertionError()})
    assert (report.servers, report.failed) == ((), True)


@pytest.mark.parametrize("fault", [CloudFault("HTTP 500"), CloudUnreachable("no answer")])
def test_one_server_that_fails_beside_another_is_a_row(fault: CloudError) -> None:
    """Each failed call is passed on."""
    failures: list[CloudError] = []
    report = handled(prepared(ONE, TWO), {ONE: fault}, on_failure=failures.append)
    assert [row.reason for row in report.servers] == [Reason.CLOUD_ERROR, Reason.DRY_RUN]
    assert (report.failed, failures) == (True, [fault] * 4)


def test_a_fault_of_one_server_is_a_row_even_alone() -> None:
    """The cloud answered, and speaks of this server."""
    assert [row.reason for row in handled(prepared(ONE), {ONE: CloudFault("HTTP 500")}).servers] == [Reason.CLOUD_ERROR]


@pytest.mark.parametrize(
    ("faults", "raised"),
    [
        ({ONE: CloudUnreachable("x"), TWO: CloudUnreachable("x")}, CloudUnreachable),
        ({ONE: CloudThrottled("x")}, CloudThrottled),
        ({ONE: LoginRefused("x")}, LoginRefused),
        ({ONE: RuntimeError("a bug")}, RuntimeError),
    ],
)
def test_what_is_the_clouds_fault_must_come_again(faults: dict[str, Exception], raised: type[Exception]) -> None:
    """Also if another server was handled, where that proves nothing."""
    with pytest.raises(raised):
        handled(prepared(ONE, TWO), faults)


def test_an_event_without_time_must_come_again() -> None:
    """No row is made up."""
    with pytest.raises(BudgetSpent):
        handled(prepared(ONE), deadline=0.0)


@pytest.mark.parametrize(("facts", "refusal"), [({}, Refusal.EXPIRED), ({"expires": NOW}, Refusal.EXPIRED)])
def test_a_keep_that_would_have_ended_is_refused(facts: dict[str, Any], refusal: Refusal) -> None:
    """Its `until` has passed; another refusal comes first and has no sentence of its own."""
    request = prepared(ONE).request._replace(duration=None, until=NOW, **facts)
    made = prepare(request, POLICY, Reader({}), FakeExecutor(), deadline=60.0)
    assert made.refusal is refusal
    assert (made.detail is None) is bool(facts)


def test_an_event_that_is_not_refused_keeps_its_servers() -> None:
    """Those that it names, since it has no selector."""
    made = prepare(prepared(ONE, TWO).request, POLICY, Reader({}), FakeExecutor(), deadline=60.0)
    assert (made.refusal, made.request.server_ids) == (None, (ONE, TWO))
