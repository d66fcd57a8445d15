"""The state machine with people in the loop: approvals and announcements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from handler.simulator import CallKind
from tests.harness.prove.approvals import (
    OTHER,
    SELF,
    Announce,
    ApprovalRules,
    Approved,
    Forgery,
    IssuedPlan,
    forge,
    is_person,
)
from tests.harness.prove.events import Copy, Event, Kind, Message, Mode
from tests.harness.prove.machine import BEGINNINGS, COUNTERS, FAST, Beginning, Machine
from tests.harness.prove.network import HISTORY_FAULTS, NetworkFault, PlannedFault, SinkFault

# What people and their tokens do wrong, by the name under which it is counted.
PEOPLE_FAULTS: tuple[str, ...] = (*(f"token with {forgery}" for forgery in Forgery), "keys rotated", "key removed")
PEOPLE_PROBLEMS = ("approval-not-configured", "not-announced")

_KEYS = ("the first key of at least 32 characters", "the second key of at least 32 characters")
_ALICE, _BOB, _BOT = "slack:T1/U1", "slack:T1/U2", "agent:planner"
_REQUESTERS = (None, _ALICE, _ALICE, _ALICE, _BOB, _BOT, "mattermost:u1")
# The requester in other capitals, and accounts of another workspace and of another system, may be the same person.
_APPROVERS = st.sampled_from(
    [*[_BOB] * 8, *[_ALICE] * 3, "slack:t1/u1", "slack:T2/U2", "mattermost:u1", "mattermost:u2", _BOT, None]
)
# Who may approve what each of them asks for.
_ANOTHER = {_BOB: _ALICE, "mattermost:u1": "mattermost:u2"}
_ASKS = st.tuples(st.sampled_from([None, SELF, SELF, OTHER]), st.sampled_from(_REQUESTERS))
_SMALL = st.integers(0, 7)
_TTL = 60.0
_DAY = 86_400.0
_DELAYS = st.sampled_from([*[0.0] * 6, *[0.3] * 4, *[7.0] * 4, *[30.0] * 3, _TTL, _DAY])
_MEANWHILE = st.sampled_from(
    [
        [], [], [], ["start"], ["reboot"], ["reboot"], ["break"], ["reboot-slowly"], ["stop", "start"], ["stop"],
        ["lock"], ["protect"], ["tag"], ["keep"], ["break"], ["rebuild"], ["delete"],
    ]
)  # fmt: skip
_BEFORE = st.sampled_from([[], [], ["reboot"], ["stop", "start"], ["unlock", "unprotect"]])


class PeopleMachine(Machine):
    """An environment in which stops are approved and announced.

    Attributes:
        asks: what events say about approvals, as `approval` and `requester`, in turn.
    """

    def __init__(self) -> None:
        super().__init__()
        self.asks: Sequence[tuple[str | None, str | None]] = [(None, None)]

    @initialize(
        beginning=BEGINNINGS,
        above=st.sampled_from([None, None, 0, 1]),
        approver=st.sampled_from([None, None, SELF, OTHER]),
        keys=st.integers(0, 3),
        asks=st.lists(_ASKS, min_size=1, max_size=4),
        announce=st.sampled_from([Announce.OFF, Announce.BEST_EFFORT, Announce.REQUIRED, Announce.REQUIRED]),
    )
    def begin(
        self,
        beginning: Beginning,
        above: int | None,
        approver: str | None,
        keys: int,
        asks: list[tuple[str | None, str | None]],
        announce: Announce,
    ) -> None:
        # A deployment that has rules has a key.
        given = _KEYS[: 1 + keys % 2] if keys or above is not None or approver is not None else ()
        self.asks = asks
        approval = ApprovalRules(above, approver, given, _TTL, "/deployment/a")
        COUNTERS.add("environments", "approval by the deployment" if above is not None else "approval by the event")
        COUNTERS.add("environments", f"announce {announce}")
        # Announcements need a sink.
        sink = beginning.sink or announce is not Announce.OFF
        setup = replace(beginning.setup, approval=approval, announce=announce)
        super().begin(replace(beginning, setup=setup, sink=sink))

    # --- approvals ---

    @rule(
        which=_SMALL,
        fresh=st.sampled_from([True, True, False]),
        more=st.none() | st.none() | _SMALL,
        ask=_ASKS,
        before=_BEFORE,
        hide=st.sampled_from([None, None, None, "plan", "both"]),
        meanwhile=_MEANWHILE,
        delay=_DELAYS,
        garble=st.sampled_from([None] * 8 + sorted(HISTORY_FAULTS)),
        approved_by=st.just("another") | st.just("another") | _APPROVERS,
        dry_run=st.sampled_from([False] * 8 + [True]),
    )
    def plan_and_approve(
        self,
        which: int,
        fresh: bool,
        more: int | None,
        ask: tuple[str | None, str | None],
        before: list[str],
        hide: str | None,
        meanwhile: list[str],
        delay: float,
        garble: NetworkFault | None,
        approved_by: str | None,
        dry_run: bool,
    ) -> None:
        """Have a plan made, and approve it, with what users do meanwhile; the cloud may not show the history."""
        first = (self._target(CallKind.STOP, which, fresh) or 0) % len(self.environment.ids)
        servers = [first] if more is None else [first, more]
        self.act(first, before)
        if hide and "status" in self.faults:
            self._fail(CallKind.ACTIONS, first, 403, 1 if hide == "plan" else 2)
        approval, requester = ask
        event = replace(self._event(servers, "/b", "now"), approval=approval or SELF, requester=requester)
        plans = len(self.recorder.plans)
        self._deliver_at_once(event, Mode.BINARY, None, 0)
        if len(self.recorder.plans) == plans:
            return
        if garble and "history" in self.faults:
            # Long ago, so that only the plan shows that it is new.
            meanwhile, delay = ["reboot"], 7.0
        self.act(first, meanwhile)
        self.wait(delay)
        if garble and "history" in self.faults:
            self.cloud_client.planned.append(PlannedFault(CallKind.ACTIONS, garble))
        plan = self.recorder.plans[-1]
        if approved_by == "another":
            approved_by = _ANOTHER.get(requester or "", _BOB)
        self._approve(plan, approved_by, None, dry_run=dry_run)

    @precondition(lambda self: self._plans())
    @rule(
        which=_SMALL,
        approved_by=_APPROVERS,
        pause=st.none() | st.integers(1, 12),
        order=st.just(0) | st.integers(0, 1000),
        when=st.sampled_from(["now"] * 6 + ["ahead", "none", "stale", "future"]),
        beside=st.booleans(),
    )
    def approve(
        self,
        which: int,
        approved_by: str | None,
        pause: int | None,
        order: int,
        when: str,
        beside: bool,
    ) -> None:
        """Approve a plan that was made at any time before; perhaps in a batch with another event."""
        plan = self._plan(which)
        event = self._approval(plan, approved_by, when)
        if beside:
            other = self._event([which], "/b", "now")
            self.broker.publish(Message((event, other), Mode.BATCH))
            self.deliver(len(self.broker.waiting) - 1, pause, order, acknowledged=True)
        else:
            self._deliver_at_once(event, Mode.STRUCTURED, pause, order)

    @precondition(lambda self: self._plans())
    @rule(which=_SMALL, forgery=st.sampled_from(Forgery), position=st.integers(0, 2000))
    def approve_with_forged_token(self, which: int, forgery: Forgery, position: int) -> None:
        event = self._approval(self._plan(which), _BOB, "now", forgery, position)
        self._deliver_at_once(event, Mode.BINARY, None, 0)

    @precondition(lambda self: self._plans())
    @rule(which=_SMALL, pauses=st.lists(st.integers(1, 6), min_size=1, max_size=4), approved_by=_APPROVERS)
    def approve_at_once(self, which: int, pauses: list[int], approved_by: str | None) -> None:
        plan = self._plan(which)
        for pause in pauses:
            self._approve(plan, approved_by, pause)
        self._approve(plan, approved_by, None)

    @precondition(lambda self: self._plans())
    @rule(
        which=_SMALL, pause=st.integers(1, 8), meanwhile=_MEANWHILE, delay=st.sampled_from([0.0, 0.3, 7.0]),
        lost=st.booleans(),
    )  # fmt: skip
    def approve_in_a_race(self, which: int, pause: int, meanwhile: list[str], delay: float, lost: bool) -> None:
        plan = self._plan(which)
        number = self.environment.ids.index(next(iter(plan.servers)))
        if lost and "lost answer" in self.faults:
            self.lose_answer(number, 504)
        self._approve(plan, _BOB, pause)
        self.act(number, meanwhile)
        self.wait(delay)
        self._finish_last()

    @precondition(lambda self: self._plans() and not self.under_way)
    @rule(remove=st.booleans())
    def rotate_keys(self, remove: bool) -> None:
        """Restart the processes with a new key that signs; the old one verifies, or is removed."""
        rules = self.environment.deployment.approval
        new = f"{_KEYS[0]} {len(rules.keys)} {rules.keys[0][-8:]}"
        keys = (new,) if remove else (new, *rules.keys[:2])
        self.environment.deployment = replace(self.environment.deployment, approval=replace(rules, keys=keys))
        self.functions = [self._new_function() for _ in self.functions]
        COUNTERS.add("faults", "key removed" if remove else "keys rotated")

    # --- announcements ---

    @precondition(lambda self: hasattr(self, "environment") and self.environment.deployment.announce != Announce.OFF)
    @rule(
        which=_SMALL,
        more=st.none() | _SMALL,
        fault=st.sampled_from(SinkFault),
        times=st.integers(1, 3),
        order=st.just(0) | st.integers(0, 1000),
    )
    def announce_to_failing_sink(self, which: int, more: int | None, fault: SinkFault, times: int, order: int) -> None:
        """Have a server stopped while the sink takes nothing."""
        first = self._target(CallKind.STOP, which, ask=True) or 0
        event = self._event([first] if more is None else [first, more], "/b", "now")
        if "sink" in self.faults:
            self.sink_client.planned += [fault] * times
        self._deliver_at_once(replace(event, approval=None), Mode.BINARY, None, order)

    def _quiet(self) -> bool:
        if self.environment.deployment.announce is not Announce.BEST_EFFORT:
            return super()._quiet()
        # A failing sink must not change what is stopped.
        planned, self.sink_client.planned = self.sink_client.planned, []
        try:
            return super()._quiet()
        finally:
            self.sink_client.planned = planned

    def _drain(self) -> None:
        if hasattr(self, "sink_client"):
            self.sink_client.latency = min(self.sink_client.latency, FAST)
        super()._drain()

    # --- helpers ---

    def _plans(self) -> bool:
        return hasattr(self, "recorder") and bool(self.recorder.plans)

    def _plan(self, which: int) -> IssuedPlan:
        plans = self.recorder.plans
        return plans[-1 - which % len(plans)]

    def _approve(self, plan: IssuedPlan, approved_by: str | None, pause: int | None, *, dry_run: bool = False) -> None:
        event = replace(self._approval(plan, approved_by, "now"), dry_run=dry_run)
        self._deliver_at_once(event, Mode.BINARY, pause, 0)

    def _approval(
        self,
        plan: IssuedPlan,
        approved_by: str | None,
        when: str,
        forgery: Forgery | None = None,
        position: int = 0,
    ) -> Event:
        token = plan.token if forgery is None else forge(plan, forgery, position)
        if forgery is not None:
            COUNTERS.add("faults", f"token with {forgery}")
        COUNTERS.add("approvals", "of no person" if not is_person(approved_by) else "forged" if forgery else "good")
        event = super()._event([], "/b", when, kind=Kind.GOOD if is_person(approved_by) else Kind.MALFORMED)
        approved = Approved(plan, token, forgery is not None, approved_by)
        return replace(event, server_ids=tuple(plan.servers), approves=approved)

    def _event(self, servers: list[int], source: str, when: str, **others: Any) -> Event:
        event = super()._event(servers, source, when, **others)
        approval, requester = self.asks[self.numbers[source] % len(self.asks)]
        return replace(event, approval=approval, requester=requester)

    def _hopeless(self, copy: Copy) -> bool:
        """Without a key no plan can be signed."""
        rules = self.environment.deployment.approval
        return not rules.keys and any(event.approval is not None for event in copy.message.acting)
