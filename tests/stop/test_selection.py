"""Which servers a selector fits, and how they are found before anything is done to them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from handler.errors import (
    BudgetSpent,
    CallDenied,
    CloudError,
    CloudFault,
    CloudThrottled,
    CloudUnexpectedAnswer,
    CloudUnreachable,
    InternalError,
    LoginRefused,
)
from handler.stop.decide import decide
from handler.stop.evidence import Action, Lookup
from handler.stop.model import Move, Policy, Reason, Refusal, Report, Selector, Server
from handler.stop.prepare import prepare
from handler.stop.run import run
from handler.stop.selection import matches
from tests.stop.fakes import (
    ID,
    NOW,
    START,
    FakeExecutor,
    Script,
    ScriptedCloud,
    acts,
    asked,
    fixed_backoff,
    id_of,
    seconds,
    seen,
)

CI = Selector(tags=("env=ci",))
NIGHT = {"k": "v", "team": "build"}


@pytest.mark.parametrize(
    ("selector", "fits"),
    [
        (Selector(), False),
        *((Selector(tags=tags), True) for tags in (("env=ci",), ("env=ci", "night"))),
        *((Selector(tags=(tag,)), False) for tag in ("env", "ENV=CI", "env=ci ", "env=*", "absent")),
        (Selector(tags=("env=ci", "absent")), False),
        *((Selector(metadata=(entry,)), True) for entry in (("team", "build"), ("blank", ""))),
        *((Selector(metadata=(entry,)), False) for entry in (("team", "Build"), ("Team", "build"), ("team", "*"))),
        (Selector(metadata=(("absent", ""),)), False),
        (Selector(metadata=(("team", "build"), ("k", "v"))), True),
        (Selector(metadata=(("team", "build"), ("k", "w"))), False),
        *((Selector(name=glob), True) for glob in ("ci-07", "ci-*", "*-07", "ci-??", "ci-07*", "*")),
        *((Selector(name=glob), True) for glob in ("ci-0[5-7]", "ci-0[!1-3]")),
        *((Selector(name=glob), False) for glob in ("ci-?", "ci-0[!5-7]", "ci-", "i-07", "CI-07", "ci.*", "?")),
        (Selector(tags=("night",), metadata=(("k", "v"),), name="ci-*"), True),
        (Selector(tags=("absent",), metadata=(("k", "v"),), name="ci-*"), False),
        (Selector(tags=("night",), metadata=(("k", "absent"),), name="ci-*"), False),
        (Selector(tags=("night",), metadata=(("k", "v"),), name="db-*"), False),
    ],
)
def test_every_part_of_a_selector_must_fit(selector: Selector, fits: bool) -> None:
    """Tags and metadata as they are written, the name as a glob for all of it; no part at all fits nothing."""
    server = seen("active", name="ci-07", tags=frozenset({"env=ci", "night"}), metadata={**NIGHT, "blank": ""})
    assert matches(selector, server) is fits


@pytest.mark.parametrize(
    ("name", "glob", "fits"),
    [
        ("bürö-01", "bürö-*", True),
        ("bürö-01", "b?r?-01", True),
        ("bu\u0308ro", "büro", False),
        ("机器-7", "机?-[5-9]", True),
        ("🖥-1", "?-1", True),
        ("Straße", "STRASSE", False),
        ("a\nb", "a*b", True),
        ("a*b", "a[*]b", True),
        ("axb", "a[*]b", False),
        ("a]b", "a[]]b", True),
        ("a\\b", "a\\b", True),
        ("a.b", "a.b", True),
        ("axb", "a.b", False),
        ("(a|b)", "(a|b)", True),
        (None, "a*", False),
        (None, "????", False),
        ("", "a*", False),
    ],
)
def test_a_name_is_any_text(name: str | None, glob: str, fits: bool) -> None:
    """Whatever script it is in, character by character; nothing in it is a regular expression."""
    assert matches(Selector(name=glob), seen("active", name=name)) is fits


# --- the read ---


@dataclass
class FakeCloud(ScriptedCloud):
    """A scripted cloud with a list; each read at it goes by the next line, the last one for ever.

    Attributes:
        listed: for each read the servers shown, or what is raised.
        lasts: seconds that each read takes.
        reads: when each read was made, and the time it was given.
    """

    listed: Sequence[Sequence[Server] | Exception] = ((),)
    lasts: float = 0.0
    ignores_timeout: bool = False
    reads: list[tuple[float, float]] = field(default_factory=list)

    def find(self, wanted: Callable[[Server], bool], timeout: float) -> list[Server]:
        self.reads.append((self.executor.monotonic() - START, timeout))
        self.executor.takes(self.lasts if self.ignores_timeout else min(self.lasts, timeout))
        if self.lasts > timeout:
            raise CloudUnreachable("no answer")
        line = self.listed[min(len(self.reads), len(self.listed)) - 1]
        if isinstance(line, Exception):
            raise line
        found = [server for server in line if wanted(server)]
        self._last_read.update((server.id, server) for server in found)
        return found


def listing(*listed: Sequence[Server] | Exception, lasts: float = 0.0, scripts: Sequence[Script] = ()) -> FakeCloud:
    """A cloud with these lists; servers that are read again are as the scripts have them, or stopped."""
    executor = FakeExecutor()
    given = dict(enumerate(scripts, 1))
    known = {id_of(number): given.get(number, Script("stopped")) for number in range(1, 100)}
    return FakeCloud(known, executor, listed=listed, lasts=lasts)


def ci(number: int, state: str = "active", **facts: Any) -> Server:
    """The n-th server, tagged as CI's."""
    return seen(state, id_of(number), **{"name": f"ci-{number:02}", "tags": frozenset({"env=ci"}), **facts})


def reported(
    cloud: FakeCloud,
    policy: Policy | None = None,
    *,
    budget: float = 50.0,
    on_failure: Callable[[CloudError], None] = lambda _: None,
    **facts: Any,
) -> Report:
    """The run of an event with a selector."""
    executor: Any = cloud.executor
    request, policy = asked(selector=CI, **facts), policy or Policy()
    more: Any = {"deadline": START + budget, "backoff": fixed_backoff}
    try:
        prepared = prepare(request, policy, cloud, executor, on_failure=on_failure, **more)
        return run(prepared, policy, cloud, executor, width=4, dry_run=False, **more)
    finally:
        assert not cloud.violations


@pytest.mark.parametrize(
    ("facts", "policy", "refusal"),
    [
        ({}, Policy(), None),
        ({"time": NOW - timedelta(days=1)}, Policy(), Refusal.TOO_OLD),
        ({"expires": NOW}, Policy(), Refusal.EXPIRED),
        ({}, Policy(max_servers=1), Refusal.TOO_MANY_SERVERS),
    ],
)
def test_a_prepared_event_says_what_was_asked_and_when(
    facts: dict[str, Any], policy: Policy, refusal: Refusal | None
) -> None:
    """One that is refused for its age reads no list."""
    cloud = listing([ci(1), ci(2)], lasts=2.0)
    request = asked(selector=CI, **facts)
    prepared = prepare(request, policy, cloud, cloud.executor, deadline=START + 50.0, backoff=fixed_backoff)
    assert (prepared.asked, prepared.started_at, prepared.refusal) == (request, NOW, refusal)
    assert bool(cloud.reads) is not bool(facts)


@pytest.mark.parametrize(
    ("left_out", "detail"),
    [
        (0, "No server of the project fits the selector."),
        (1, "The producer left 1 alert out of its message. No server of the project fits the selector."),
        (2, "The producer left 2 alerts out of its message. No server of the project fits the selector."),
    ],
)
def test_the_sentences_about_an_event_are_put_together(left_out: int, detail: str) -> None:
    """What the producer left out, and what came of the selector."""
    cloud = listing([seen("active", id_of(7))])
    report = reported(cloud, left_out=left_out)
    assert (report.refusal, report.servers, report.failed, report.detail) == (None, (), False, detail)
    assert cloud.calls == []


def test_what_fits_is_stopped_and_what_does_not_is_never_touched() -> None:
    """By the read at the list alone: nothing is read again before the stop."""
    cloud = listing([ci(2), seen("active", id_of(7), name="db-07"), ci(1, "error"), ci(3, "stopped")])
    report = reported(cloud)
    assert [(server.id, server.reason) for server in report.servers] == [
        (id_of(1), Reason.CONFIRMED),
        (id_of(2), Reason.CONFIRMED),
        (id_of(3), Reason.ALREADY_STOPPED),
    ]
    assert (report.refusal, report.detail, report.request.selector) == (None, None, CI)
    assert report.request.server_ids == (id_of(1), id_of(2), id_of(3))
    assert len(cloud.reads) == 1
    assert cloud.sequence(id_of(1)) == cloud.sequence(id_of(2)) == ["stop", "read"]
    assert cloud.sequence(id_of(3)) == cloud.sequence(id_of(7)) == []


def test_rows_are_in_the_order_of_names() -> None:
    """However the cloud lists them; the id decides between two of one name, and one without comes first."""
    listed = [ci(4, name="b"), ci(3, name="a"), ci(2, name="b"), ci(1, name=None), ci(5, name="A")]
    numbers = [1, 5, 3, 2, 4]
    assert [server.id for server in reported(listing(listed)).servers] == [id_of(number) for number in numbers]


@pytest.mark.parametrize(
    ("server", "reason"),
    [
        ({"locked": True}, Reason.LOCKED),
        ({"flavor": "s3.medium.2"}, Reason.NOT_BARE_METAL),
        ({"tags": frozenset({"env=ci", "autostop=never"})}, Reason.PROTECTED),
        ({"metadata": {"autostop-keep-until": "2999-01-01T00:00:00Z"}}, Reason.KEPT_UNTIL),
        ({"state": "active/deleting"}, Reason.DELETING),
        ({"state": "paused"}, Reason.WRONG_STATE),
        ({"state": "stopped/powering-on"}, Reason.STARTED_SINCE),
    ],
)
def test_every_guard_counts_for_a_selected_server(server: dict[str, Any], reason: Reason) -> None:
    """To be selected is no more than to be asked for."""
    cloud = listing([ci(1, **server)])
    (result,) = reported(cloud).servers
    assert result.reason is reason
    assert cloud.of("stop") == []


def test_a_server_that_was_busy_is_read_again_and_stopped() -> None:
    """From the first read on it goes the usual way."""
    cloud = listing([ci(1, "active/rebooting"), ci(2)], scripts=[Script("active", "stopped")])
    assert {server.reason for server in reported(cloud).servers} == {Reason.CONFIRMED}
    assert cloud.sequence(id_of(1)) == ["read", "stop", "read"]


def test_the_read_does_not_show_that_the_cloud_is_there_later_on() -> None:
    """A server that cannot be read since is held against it only once another one was seen after that."""
    down = CloudUnreachable("down", status=503)
    cloud = listing([ci(1, "active/rebooting"), ci(2, "stopped")], scripts=[Script(down)])
    assert [server.reason for server in reported(cloud).servers] == [Reason.CLOUD_ERROR, Reason.ALREADY_STOPPED]
    assert cloud.sequence(id_of(2)) == ["read"]


@pytest.mark.parametrize(("most", "refusal"), [(3, None), (2, Refusal.TOO_MANY_SERVERS)])
def test_more_than_the_limit_refuses_the_event_whole(most: int, refusal: Refusal | None) -> None:
    """No server is touched, and the result has their number; those that need no stop count as well."""
    cloud = listing([ci(1), ci(2), ci(3, "stopped"), seen("active", id_of(4))])
    report = reported(cloud, policy=Policy(max_servers=most))
    assert report.refusal is refusal
    if refusal:
        assert (report.servers, report.request.server_ids, cloud.calls) == ((), (), [])
        assert report.detail == "3 servers fit the selector; at most 2 are taken at once."
    else:
        assert (len(report.servers), report.detail) == (3, None)


def test_an_event_that_expires_during_the_read_is_refused() -> None:
    """The list took its time, and by then it was too late."""
    cloud = listing([ci(1)], lasts=8.0)
    report = reported(cloud, expires=NOW + seconds(5))
    assert (report.refusal, report.servers, cloud.calls) == (Refusal.EXPIRED, (), [])


# --- errors ---


def test_a_list_that_keeps_failing_must_come_again() -> None:
    """Nothing was sent to any server, and the event is not lost."""
    cloud = listing(CloudUnreachable("no", retry_after=3.0))
    with pytest.raises(BudgetSpent, match=r"could not be listed in time \(cloud-unreachable\)") as raised:
        reported(cloud, budget=10.0)
    assert (raised.value.retry_after, cloud.calls) == (3.0, [])
    assert raised.value.cause is not None
    assert str(raised.value).endswith(f"; the last failure: {raised.value.cause}.")
    assert [at for at, _ in cloud.reads] == [0.0, 3.0, 6.0, 9.0]
    assert cloud.executor.monotonic() - START <= 10.0


@pytest.mark.parametrize(
    ("first", "times"),
    [
        ([CloudUnreachable("no"), CloudFault("no"), CloudUnexpectedAnswer("no")], [0.0, 0.5, 1.5, 3.5]),
        ([CloudThrottled("later", retry_after=7.0)], [0.0, 7.0]),
    ],
)
def test_a_list_that_fails_is_read_again(first: list[CloudError], times: list[float]) -> None:
    """After the pause that the cloud names, else one that grows; each failure is reported."""
    failures: list[CloudError] = []
    cloud = listing(*first, [ci(1)])
    assert [server.reason for server in reported(cloud, on_failure=failures.append).servers] == [Reason.CONFIRMED]
    assert ([at for at, _ in cloud.reads], failures) == (times, first)


@pytest.mark.parametrize("pause", [50.0, 60.0])
def test_a_pause_as_long_as_the_budget_is_not_waited_for(pause: float) -> None:
    """The response has the time to wait."""
    cloud = listing(CloudThrottled("later", retry_after=pause))
    with pytest.raises(BudgetSpent) as raised:
        reported(cloud)
    assert (raised.value.retry_after, cloud.executor.monotonic()) == (pause, START)


@pytest.mark.parametrize("refused", [LoginRefused("no"), CallDenied("no")])
def test_what_waiting_does_not_fix_is_reported_at_once(refused: CloudError) -> None:
    """By its own name, so that it can be fixed; the event comes again."""
    cloud = listing(refused)
    with pytest.raises(type(refused)) as raised:
        reported(cloud)
    assert raised.value is refused
    assert len(cloud.reads) == 1


def test_a_defect_is_reported_as_one(caplog: pytest.LogCaptureFixture) -> None:
    """And the log has the traceback."""
    with pytest.raises(InternalError) as raised:
        reported(listing(ValueError("a bug")))
    assert str(raised.value) == "a call to the cloud failed in an unexpected way"
    assert [record.message for record in caplog.records] == ["the look for a selector's servers failed"]
    assert "ValueError: a bug" in caplog.text


@pytest.mark.parametrize(("budget", "given"), [(50.0, 25.0), (12.0, 10.0), (4.0, 4.0)])
def test_a_read_leaves_time_for_another(budget: float, given: float) -> None:
    """Half of what is left, but not so little that a large project cannot be listed."""
    cloud = listing([ci(1)])
    reported(cloud, budget=budget)
    assert cloud.reads == [(0.0, given)]


def test_a_list_that_hangs_is_tried_again_and_then_left() -> None:
    """Within the budget, whatever a single read takes, and also if it ignores its timeout."""
    cloud = listing([ci(1)], lasts=1000.0)
    with pytest.raises(BudgetSpent, match="cloud-unreachable"):
        reported(cloud)
    assert len(cloud.reads) >= 3
    assert cloud.executor.monotonic() - START <= 50.0
    assert cloud.calls == []
    endless = listing([ci(1)], lasts=1000.0)
    endless.ignores_timeout = True
    with pytest.raises(BudgetSpent, match=r"\(the time was too short\)\.$"):
        reported(endless)
    assert (endless.executor.monotonic() - START, endless.calls) == (50.0, [])


def test_an_event_that_came_too_late_reads_no_list() -> None:
    """Its budget was spent before it began."""
    cloud = listing([ci(1)])
    with pytest.raises(BudgetSpent):
        reported(cloud, budget=0.0)
    assert cloud.reads == []


def test_a_read_that_begins_after_the_deadline_has_no_time() -> None:
    """Where a call waits for a free thread, its time may run out before it begins."""
    cloud = listing([ci(1)], lasts=1.0)
    cloud.executor = FakeExecutor(handover=60.0)
    with pytest.raises(BudgetSpent):
        reported(cloud)
    assert [timeout for _, timeout in cloud.reads] == [0.0]


# --- started since ---


@pytest.mark.parametrize(
    ("selected", "action", "move"),
    [
        (True, Action("create", NOW + seconds(60), "req-1", "u-7"), Move.LEAVE),
        (True, Action("create", NOW, "req-1", "u-7"), Move.LEAVE),
        (True, Action("create", NOW - seconds(6)), Move.STOP),
        (True, Action("start", NOW + seconds(60)), Move.LEAVE),
        (True, Action("stop", NOW + seconds(60)), Move.STOP),
        (False, Action("create", NOW + seconds(60)), Move.STOP),
    ],
)
def test_a_server_that_was_created_after_the_event_is_left_alone(selected: bool, action: Action, move: Move) -> None:
    """It fits the selector, and who sent the event could not know it. An id can only name what there was."""
    request = asked(ID, time=NOW)._replace(selector=CI if selected else None)
    decision = decide(seen("active", history=acts(action)), request, Policy(), NOW + seconds(90))
    assert decision.move is move
    if move is Move.LEAVE and action.name == "create":
        assert (decision.reason, decision.history, decision.action) == (Reason.STARTED_SINCE, Lookup.FOUND, action)
        assert re.match(r"It was created \(create by user u-7 at 2026-11-20T19:0\d:00\.000Z", decision.detail)


def test_a_redelivery_finds_the_same_servers_and_leaves_them() -> None:
    """A stopped server still fits; nothing is stopped twice."""
    cloud = listing([ci(1, "stopped"), ci(2, "active/powering-off")])
    assert [server.reason for server in reported(cloud).servers] == [Reason.ALREADY_STOPPED, Reason.ALREADY_STOPPING]
    assert cloud.of("stop") == []
