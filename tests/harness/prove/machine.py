"""The state machine: hypothesis chooses what users, broker, cloud and clock do; what the function does is checked."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TypeVar

from hypothesis import seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from handler.simulator import BatchPolicy, BmsBehavior, CallKind, Cut, Fault, JobChildren
from handler.simulator.bms.views import error_body
from tests.harness.prove import invariants
from tests.harness.prove.delivery import Delivery
from tests.harness.prove.environment import ACTIONS, SHAPES, TAG, Environment, Setup
from tests.harness.prove.events import MAX_DELIVERIES, Broker, Copy, Event, Kind, Message, Mode
from tests.harness.prove.function import Function, simulated_time
from tests.harness.prove.network import (
    HISTORY_FAULTS,
    CloudClient,
    NetworkFault,
    PlannedFault,
    SinkClient,
    SinkFault,
)
from tests.harness.prove.recorder import Counters, InvariantViolation, Recorder
from tests.harness.prove.scheduler import Clock, Scheduler

COUNTERS = Counters()

_T = TypeVar("_T")

_MOST_SERVERS = 6
# More can arrive later.
_MOST_LATER = 14
_UNKNOWN = 99
_UNKNOWN_ID = "99999999-0000-4000-8000-000000000000"
# Together with the numbers, such that neither the id alone nor both strung together name one event.
_SOURCES = {"/a": "1{}", "/a1": "{}", "/b": "{}"}
# How far the `time` of an event is from the truth, in seconds; `none` if it has none.
_TIMES = {"now": 0.0, "ahead": 4.0, "behind": -4.0, "soon": 40.0, "future": 300.0, "late": -600.0, "stale": -1200.0}

# With nothing wrong, so many deliveries are enough for any message: many slow servers can take more than one budget.
_ENOUGH = 3
# Seconds that a call to the cloud takes at most by then: here the calls of a batch take their time one after the other.
FAST = 0.05
# Deliveries that the stop limit may put off in the end, beside those.
_MOST_LIMITED = 30
# The function does not try a login again for a minute after it was refused.
_LOGIN_HOLD = 61.0

_STATUSES = (400, 403, 404, 409, 413, 429, 500, 502, 503, 504)
# What the BMS API may give as a cause: states, unknown servers, rights, its own failures, our mistakes.
_CODES = ("BMS.0035", "BMS.0040", "BMS.0033", "BMS.1007", "BMS.0018", "BMS.0212", "X.1")
# Of an error document that a stop is answered with in spite of its 2xx status.
_NOT_FOUND_DOCUMENT = "BMS.1006"
_DOCUMENTS = ("BMS.0288", _NOT_FOUND_DOCUMENT, "X.1")
# The kinds of faults that an environment has or does not have.
FAULT_KINDS = (
    "status", "code", "error document", "cut", "rival", "lost answer", "network", "history", "login", "token",
    "sink", "kill", "list",
)  # fmt: skip
# Every fault by the name under which it is counted.
FAULTS: tuple[str, ...] = (
    *(f"status {status}" for status in _STATUSES),
    *(f"code {code}" for code in _CODES),
    *(f"error document {code}" for code in _DOCUMENTS),
    *(f"cut {cut}" for cut in Cut),
    *NetworkFault,
    *SinkFault,
    "rival",
    "lost answer",
    "token ended",
    "login refused",
    "list refused",
    "access rules without history",
    "access rules without list",
    "killed",
    "acknowledgement lost",
    "duplicate",
    "controller refuses",
    "controller ignores",
    "controller silent",
)
# Problem documents that only these faults and limits bring about.
PROBLEMS = ("budget-spent", "sink-unreachable", "stop-limit-reached", "event-in-progress", "login-refused")

_SMALL = st.integers(0, 7)
_NUMBERS = st.sampled_from([*range(_MOST_SERVERS + 1), _UNKNOWN])
_FEW = st.lists(_NUMBERS, min_size=1, max_size=2, unique=True)
_MANY = st.lists(_NUMBERS, min_size=1, max_size=invariants.MAX_SERVERS + 1, unique=True)
_ALL = st.just(list(range(_MOST_SERVERS)))
_FIVE = st.just(list(range(_MOST_SERVERS - 1)))
_IDS = st.one_of(_FEW, _FEW, _MANY, _ALL, _FIVE, st.just([]))
_ORDERS = st.just(0) | st.integers(0, 1000)
_PAUSES = st.none() | st.integers(1, 12) | st.integers(1, 40)
_KINDS = st.sampled_from([*[Kind.GOOD] * 8, *Kind])
_TIME = st.sampled_from([*["now"] * 6, *_TIMES, "none"])
# How long the condition has held that asks for a stop, in seconds; None for an event that does not say.
_SINCE = st.sampled_from([None, None, None, None, 0.0, 30.0, 300.0, -40.0])
# So often the cloud must turn a stop down until the function gives up, or once more.
_TIMES_OF_FAULT = st.sampled_from([1, 2, 3, 4, 5, 5])
# Whether an event asks at once for the server that a fault is about.
_ASK = st.booleans()
_ACTIONS = st.lists(st.sampled_from(ACTIONS), min_size=1, max_size=3)
_BEFORE = st.sampled_from([[], ["unlock"], ["stop", "start"], ["stop"]])
_MEANWHILE = st.sampled_from(
    [["reboot"], ["stop", "start"], ["start"], ["start-slowly"], ["lock"], ["protect"], ["keep"], ["break"], ["delete"]]
)
_SPECIAL = tuple(shape for shape in SHAPES if shape not in ("plain", "slow", "tagged"))
_SHAPES = st.sampled_from(["plain", "plain", "plain", "slow", "tagged", *range(6)])
_ON = st.sampled_from(
    [CallKind.READ, CallKind.READ, CallKind.LIST, CallKind.STOP, CallKind.STOP, CallKind.STOP, CallKind.ACTIONS]
)
_ON_NETWORK = st.sampled_from(
    [CallKind.READ, CallKind.LIST, CallKind.STOP, CallKind.STOP, CallKind.ACTIONS, CallKind.LOGIN, CallKind.LOGIN]
)
_BEHAVIORS = st.none() | st.builds(
    BmsBehavior,
    batch_policy=st.sampled_from(BatchPolicy),
    mixed_status=st.sampled_from(["FAIL", "SUCCESS"]),
    missing_status=st.sampled_from([400, 404]),
    job_server_ids=st.sampled_from([True, True, False]),
    job_children=st.sampled_from([JobChildren.LISTED] * 4 + list(JobChildren)),
    job_error_wrapped=st.booleans(),
    idle_task_state=st.booleans(),
)
_SETUPS = st.builds(
    Setup,
    otc=st.booleans(),
    bms=_BEHAVIORS,
    page=st.sampled_from([1000, 1000, 3, 2]),
    next_links=st.sampled_from([True, True, False]),
    admin=st.booleans(),
    denied=st.sampled_from(["", "", "", "", "history", "list"]),
    only=st.booleans(),
    stop_limit=st.sampled_from([None, None, (5, 120.0), (8, 60.0)]),
)


@dataclass(frozen=True, kw_only=True)
class Beginning:
    """What an environment is made of.

    Attributes:
        latency: seconds that each exchange takes.
        faults: the kinds that it has.
    """

    setup: Setup
    shapes: list[str | int]
    latency: float
    sink: bool
    concurrency: int
    processes: int
    faults: frozenset[str]


BEGINNINGS = st.builds(
    Beginning,
    setup=_SETUPS,
    shapes=st.lists(_SHAPES, min_size=1, max_size=_MOST_SERVERS),
    latency=st.sampled_from([0.01, 0.1, 0.5, 2.0]),
    sink=st.booleans(),
    concurrency=st.sampled_from([16, 16, 16, 2, 1]),
    processes=st.sampled_from([1, 1, 2]),
    faults=st.just(frozenset(FAULT_KINDS)) | st.frozensets(st.sampled_from(FAULT_KINDS)),
)


class Machine(RuleBasedStateMachine):
    """An environment of its own for each example.

    Attributes:
        focus: chooses the shapes, statuses and codes that are more frequent than others.
    """

    focus = 0

    def __init__(self) -> None:
        super().__init__()
        self._stack = ExitStack()
        self.clock = Clock()
        self._stack.enter_context(simulated_time(self.clock))
        self.broker = Broker()
        self.tasks = Scheduler(self.clock)
        self.under_way: list[Delivery] = []
        self.numbers = dict.fromkeys(_SOURCES, 0)
        self.faults: frozenset[str] = frozenset()
        self.last: Delivery | None = None

    @initialize(beginning=BEGINNINGS)
    def begin(self, beginning: Beginning) -> None:
        """Set up a cloud with servers, and one or two processes of the function."""
        setup = beginning.setup
        self.environment = Environment(self.clock, COUNTERS, setup)
        for name, given in (
            ("bms" if setup.bms else "nova", True),
            ("admin", setup.admin),
            ("opt-in", setup.only),
            ("stop limit", setup.stop_limit),
            ("several processes", beginning.processes > 1),
        ):
            COUNTERS.add("environments", name, times=bool(given))
        if setup.denied and not (setup.bms and setup.denied == "list"):
            COUNTERS.add("faults", f"access rules without {setup.denied}")
        for shape in beginning.shapes:
            self._add(shape)
        self.recorder = Recorder(self.environment.store, COUNTERS, self.clock, self.environment.name_of)
        self.cloud_client = CloudClient(self.clock, self.environment.cloud, self.recorder, beginning.latency)
        self.sink_client = SinkClient(self.clock, self.recorder, beginning.latency)
        self.clock.on_advance = self.cloud_client.time_passed
        self.faults, self._sink, self._concurrency = beginning.faults, beginning.sink, beginning.concurrency
        self.functions = [self._new_function() for _ in range(beginning.processes)]
        self._turn = 0
        COUNTERS.write("environment", replace(beginning, faults=frozenset()), sorted(beginning.faults))

    # --- events ---

    @rule(
        servers=_IDS,
        source=st.sampled_from(sorted(_SOURCES)),
        when=_TIME,
        kind=_KINDS,
        mode=st.sampled_from(Mode),
        dry_run=st.sampled_from([False] * 7 + [True]),
        expires=st.sampled_from([None] * 10 + [-5, 5, 100]),
        since=_SINCE,
    )
    def emit(
        self,
        servers: list[int],
        source: str,
        when: str,
        kind: Kind,
        mode: Mode,
        dry_run: bool,
        expires: int | None,
        since: float | None,
    ) -> None:
        event = self._event(servers, source, when, kind=kind, dry_run=dry_run, expires=expires, since=since)
        self.broker.publish(Message((event,), mode))

    @rule(
        groups=st.lists(_IDS, min_size=1, max_size=3), again=st.none() | _SMALL, kind=_KINDS, repeat=st.booleans(),
        when=_TIME, since=_SINCE,
    )  # fmt: skip
    def emit_batch(
        self, groups: list[list[int]], again: int | None, kind: Kind, repeat: bool, when: str, since: float | None
    ) -> None:
        """Send several events in one message, perhaps with one that was sent before, perhaps with one twice."""
        events = [self._event(ids, "/b", when, since=since) for ids in groups[:-1]]
        events.append(self._event(groups[-1], "/a", "now", kind=kind))
        if again is not None and self.broker.published:
            events += self.broker.published[again % len(self.broker.published)].events
        if repeat:
            events.insert(0, events[-1])
        self.broker.publish(Message(tuple(events), Mode.BATCH))

    @precondition(lambda self: hasattr(self, "environment") and self.environment.denied != "list")
    @rule(pause=_PAUSES, order=_ORDERS, when=_TIME, dry_run=st.sampled_from([False] * 5 + [True]), since=_SINCE)
    def select(self, pause: int | None, order: int, when: str, dry_run: bool, since: float | None) -> None:
        event = replace(self._event([], "/b", when, dry_run=dry_run, since=since), tag=TAG)
        self._deliver_at_once(event, Mode.STRUCTURED, pause, order)

    @precondition(lambda self: self.broker.published)
    @rule(which=_SMALL)
    def duplicate(self, which: int) -> None:
        """Deliver a message again later, however long ago it was handled."""
        self.broker.duplicate(which)
        COUNTERS.add("faults", "duplicate")

    # --- deliveries ---

    @rule(
        servers=_FEW | _ALL | _FIVE,
        pause=_PAUSES,
        order=_ORDERS,
        when=st.sampled_from(["now", "now", "now", "ahead", "soon", "none"]),
        dry_run=st.sampled_from([False] * 5 + [True]),
        since=_SINCE,
    )
    def ask(
        self, servers: list[int], pause: int | None, order: int, when: str, dry_run: bool, since: float | None
    ) -> None:
        event = self._event(servers, "/b", when, dry_run=dry_run, since=since)
        self._deliver_at_once(event, Mode.BINARY, pause, order)

    @precondition(lambda self: self.broker.waiting)
    @rule(which=_SMALL, pause=_PAUSES, order=_ORDERS, acknowledged=st.sampled_from([True] * 5 + [False]))
    def deliver(self, which: int, pause: int | None, order: int, acknowledged: bool) -> None:
        """Deliver a copy to the function, which handles it to its end, or only so far."""
        copy = self.broker.take(which)
        calm = pause is None and not self.under_way and self._quiet()
        COUNTERS.add("deliveries", "first" if copy.tries == 1 else "repeated")
        COUNTERS.add("events delivered", times=len(copy.message.events))
        self._turn += 1
        function = self.functions[self._turn % len(self.functions)]
        delivery = Delivery(
            function, copy, self.clock, self.recorder, self.environment, self.tasks, order=order, calm=calm
        )
        self.under_way.append(delivery)
        if self.under_way[:-1]:
            COUNTERS.add("deliveries at once")
        self._go_on(delivery, pause, acknowledged)

    @precondition(lambda self: self.under_way)
    @rule(which=_SMALL, pause=_PAUSES, order=_ORDERS, first=st.booleans())
    def deliver_again(self, which: int, pause: int | None, order: int, first: bool) -> None:
        """Deliver another copy of a message that is being handled, perhaps before a second one."""
        message = self.under_way[which % len(self.under_way)].copy.message
        for until in [1, pause] if first else [pause]:
            self.broker.waiting.append(Copy(message))
            COUNTERS.add("faults", "duplicate")
            self.deliver(len(self.broker.waiting) - 1, until, order, acknowledged=True)

    @rule(
        which=_SMALL,
        before=_BEFORE,
        pause=st.sampled_from([1, 1, 1, 2, 2, 3, 4, 5, 6, 8]),
        actions=_MEANWHILE,
        fault=st.sampled_from([None, None, 500, 503, "lost answer", "lost answer"]),
        when=st.sampled_from(["now", "soon", "soon", "none"]),
    )
    def race(
        self, which: int, before: list[str], pause: int, actions: list[str], fault: int | str | None, when: str
    ) -> None:
        """Let a user act in the middle of a delivery, whose first stop may fail."""
        self.act(which, before)
        if fault == "lost answer" and "lost answer" in self.faults:
            self.lose_answer(which, 504)
        elif isinstance(fault, int) and "status" in self.faults:
            self._fail(CallKind.STOP, which, fault, 1)
        self.ask([which % len(self.environment.ids)], pause, 0, when, dry_run=False, since=None)
        self.act(which, actions)
        self._finish_last()

    @precondition(lambda self: "lost answer" in self.faults)
    @rule(
        pause=st.sampled_from([3, 4, 5, 5, 6, 7]),
        action=st.sampled_from(["start", "reboot"]),
        hide=st.booleans(),
        contradictory=st.booleans(),
        when=st.sampled_from(["now", "none"]),
    )
    def start_after_lost_answer(self, pause: int, action: str, hide: bool, contradictory: bool, when: str) -> None:
        """Let a user start a server after a stop of which it is not certain what became; its history may not be shown.

        Its answer got lost, or is an error document with a status that says success.
        """
        which = self._target(CallKind.STOP, None, ask=True)
        if which is None:
            return
        if contradictory and "error document" in self.faults:
            self.answer_with_error_document(which, _NOT_FOUND_DOCUMENT, ask=False)
            # It runs still, so that it cannot be started.
            action = "reboot"
        else:
            self.lose_answer(which, 504)
        if hide:
            self._fail(CallKind.ACTIONS, which, 403, 5)
        self.ask([which], pause, 0, when, dry_run=False, since=None)
        self.act(which, [action])
        self._finish_last()

    @rule(
        which=_SMALL,
        actions=st.sampled_from([["reboot"], ["stop", "start"], ["start"], ["reboot-slowly"]]),
        seconds=st.sampled_from([0.2, 6.0, 30.0]),
        fault=st.sampled_from([None, None, 403, 500, 503, *sorted(HISTORY_FAULTS)]),
        times=st.integers(1, 5),
        when=st.sampled_from(["now", "now", "soon", "none"]),
        since=_SINCE,
    )
    def overtake(
        self,
        which: int,
        actions: list[str],
        seconds: float,
        fault: int | NetworkFault | None,
        times: int,
        when: str,
        since: float | None,
    ) -> None:
        """Let a user start a server before or while an event to stop it is on its way; its history may not be shown."""
        if since:
            self.act(which, actions)
            self.wait(seconds)
        event = self._event([which % len(self.environment.ids)], "/b", when, since=since)
        self.broker.publish(Message((event,), Mode.BINARY))
        if not since:
            self.wait(seconds)
            self.act(which, actions)
        if isinstance(fault, NetworkFault):
            if "history" in self.faults:
                self.cloud_client.planned.append(PlannedFault(CallKind.ACTIONS, fault))
        elif fault and "status" in self.faults:
            self._fail(CallKind.ACTIONS, which, fault, times)
        self.deliver(len(self.broker.waiting) - 1, None, 0, acknowledged=True)

    @precondition(lambda self: self.under_way)
    @rule(which=_SMALL, pause=_PAUSES, acknowledged=st.sampled_from([True] * 5 + [False]))
    def go_on(self, which: int, pause: int | None, acknowledged: bool) -> None:
        self._go_on(self.under_way[which % len(self.under_way)], pause, acknowledged)

    @precondition(lambda self: self.under_way and "kill" in self.faults)
    @rule(which=_SMALL)
    def kill(self, which: int) -> None:
        """Kill a process of the function; the broker gets no answer for what it was handling."""
        function = self.under_way[which % len(self.under_way)].function
        killed = [delivery for delivery in self.under_way if delivery.function is function]
        for delivery in killed:
            delivery.kill()
            self.broker.settle(delivery.copy, None)
        self.under_way = [delivery for delivery in self.under_way if delivery not in killed]
        COUNTERS.add("faults", "killed")
        self.functions[self.functions.index(function)] = self._new_function()
        self._check()

    # --- users and time ---

    @precondition(lambda self: hasattr(self, "environment") and self._stopped())
    @rule(which=_SMALL, how=st.sampled_from(["start", "start-slowly", "reboot"]))
    def start(self, which: int, how: str) -> None:
        stopped = self._stopped()
        if self.environment.act(stopped[which % len(stopped)], how):
            COUNTERS.add("users", f"{how} of a stopped one")

    @rule(which=_SMALL, actions=_ACTIONS)
    def act(self, which: int, actions: list[str]) -> None:
        """Let a user do something to a server, or several things at once."""
        for action in actions:
            if self.environment.act(which, action):
                COUNTERS.add("users", action)

    @rule(shape=st.integers(0, 5), ask=st.sampled_from([True, True, False]), when=_TIME, since=_SINCE)
    def arrive(self, shape: int, ask: bool, when: str, since: float | None) -> None:
        """Add a server, and perhaps ask at once for it to be stopped."""
        if len(self.environment.ids) < _MOST_LATER:
            self._add(shape)
            if ask:
                number = len(self.environment.ids) - 1
                self.ask([number], None, 0, when, dry_run=False, since=since)

    @rule(seconds=st.sampled_from([0.2, 0.2, 0.2, 1.0, 6.0, 6.0, 6.0, 30.0, 90.0, 1000.0]))
    def wait(self, seconds: float) -> None:
        """Let time pass, while deliveries under way stand still."""
        self._disturb()
        self.clock.advance(seconds)

    # --- faults ---

    @precondition(lambda self: "status" in self.faults)
    @rule(
        on=_ON,
        which=st.none() | _SMALL,
        status=st.integers(0, 2),
        retry_after=st.sampled_from([None, None, 1, 30]),
        times=_TIMES_OF_FAULT,
        ask=_ASK,
    )
    def fail(
        self, on: CallKind, which: int | None, status: int, retry_after: int | None, times: int, ask: bool
    ) -> None:
        self._fail(on, which, self._in_focus(_STATUSES, 3, status), times, retry_after, ask=ask)

    def _fail(
        self,
        on: CallKind,
        which: int | None,
        status: int,
        times: int,
        retry_after: int | None = None,
        *,
        ask: bool = False,
    ) -> None:
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        which = self._target(on, which, ask)
        fault = Fault(on=on, server_id=self._id(which), status=status, headers=headers, times=times)
        self.environment.inject(f"status {status}", fault)
        self._ask_now(on, which, ask)

    @precondition(lambda self: "list" in self.faults)
    @rule(status=st.sampled_from([400, 403, 500]), skip=st.integers(0, 1), times=st.sampled_from([1, 20]))
    def refuse_list(self, status: int, skip: int, times: int) -> None:
        """Let the list of servers fail, from its first page on or from its second."""
        self.environment.inject("list refused", Fault(on=CallKind.LIST, status=status, skip=skip, times=times))

    @precondition(lambda self: "code" in self.faults and self.environment.bms)
    @rule(on=_ON, which=st.none() | _SMALL, number=st.integers(0, 1), times=_TIMES_OF_FAULT, ask=_ASK)
    def fail_with_code(self, on: CallKind, which: int | None, number: int, times: int, ask: bool) -> None:
        code = self._in_focus(_CODES, 2, number)
        on = CallKind.JOB if on is CallKind.ACTIONS else on
        which = self._target(on, which, ask)
        self.environment.inject(f"code {code}", Fault.bms(on, code, server_id=self._id(which), times=times))
        self._ask_now(on, which, ask)

    @precondition(lambda self: "error document" in self.faults)
    @rule(which=st.none() | _SMALL, code=st.sampled_from(_DOCUMENTS), ask=_ASK)
    def answer_with_error_document(self, which: int | None, code: str, ask: bool) -> None:
        """Let the cloud answer a stop that it did not take with 200 and an error document."""
        which = self._target(CallKind.STOP, which, ask)
        fault = Fault(
            on=CallKind.STOP,
            server_id=self._id(which),
            status=200,
            body=error_body(code),
            content_type="application/json",
        )
        self.environment.inject(f"error document {code}", fault)
        self._ask_now(CallKind.STOP, which, ask)

    @precondition(lambda self: "lost answer" in self.faults)
    @rule(which=st.none() | _SMALL, status=st.sampled_from([502, 504]))
    def lose_answer(self, which: int | None, status: int) -> None:
        """Let the cloud take a stop that a gateway answers in its place."""
        fault = Fault(on=CallKind.STOP, server_id=self._id(which), status=status, act=True)
        self.environment.inject("lost answer", fault)

    @precondition(lambda self: "cut" in self.faults)
    @rule(on=_ON, which=st.none() | _SMALL, cut=st.sampled_from(Cut), ask=_ASK)
    def cut(self, on: CallKind, which: int | None, cut: Cut, ask: bool) -> None:
        which = self._target(on, which, ask)
        self.environment.inject(f"cut {cut}", Fault(on=on, server_id=self._id(which), cut=cut))
        self._ask_now(on, which, ask)

    @precondition(lambda self: "rival" in self.faults)
    @rule(which=st.none() | _SMALL)
    def rival(self, which: int | None) -> None:
        """Let the stop of another user be quicker, so that ours is answered 500."""
        self.environment.inject("rival", Fault.two_stops_at_once(self._id(which)))

    @precondition(lambda self: "network" in self.faults)
    @rule(
        on=_ON_NETWORK,
        which=st.none() | _SMALL,
        fault=st.sampled_from([fault for fault in NetworkFault if fault not in HISTORY_FAULTS]),
        seconds=st.sampled_from([0.5, 4.0, 25.0]),
        ask=_ASK,
    )
    def disturb_network(self, on: CallKind, which: int | None, fault: NetworkFault, seconds: float, ask: bool) -> None:
        if fault in (NetworkFault.INCOMPLETE, NetworkFault.OTHER_SERVER) or (
            fault is NetworkFault.HTML and on is CallKind.STOP
        ):
            on = CallKind.READ
        which = self._target(on, which, ask)
        if on is CallKind.LOGIN:
            self.environment.revoke_tokens()
        server_id = None if on in (CallKind.LOGIN, CallKind.ACTIONS, CallKind.LIST) else self._id(which)
        self.cloud_client.planned.append(PlannedFault(on, fault, server_id, seconds))
        self._ask_now(on, which, ask)

    @precondition(lambda self: "history" in self.faults)
    @rule(fault=st.sampled_from(sorted(HISTORY_FAULTS)))
    def garble_history(self, fault: NetworkFault) -> None:
        self.cloud_client.planned.append(PlannedFault(CallKind.ACTIONS, fault))

    @precondition(lambda self: "login" in self.faults)
    @rule(status=st.sampled_from([401, 403, 404, 500, 503]), times=st.integers(1, 2))
    def refuse_login(self, status: int, times: int) -> None:
        """Let all tokens end, and the next login fail."""
        self.environment.revoke_tokens()
        self.environment.inject("login refused", Fault(on=CallKind.LOGIN, status=status, times=times))

    @precondition(lambda self: "token" in self.faults)
    @rule(on=_ON)
    def end_token(self, on: CallKind) -> None:
        self.environment.inject("token ended", Fault.token_expired(on))

    @precondition(lambda self: getattr(self, "_sink", False) and "sink" in self.faults)
    @rule(faults=st.lists(st.sampled_from(SinkFault), min_size=1, max_size=3))
    def fail_sink(self, faults: list[SinkFault]) -> None:
        self.sink_client.planned += faults

    @rule()
    def clear_faults(self) -> None:
        self.environment.cloud.faults.clear()
        self.cloud_client.planned.clear()
        self.sink_client.planned.clear()

    # --- the end ---

    def teardown(self) -> None:
        """With nothing wrong any more the broker delivers what it has: each event must come to its end."""
        try:
            if hasattr(self, "functions") and not self.recorder.violations:
                self._drain()
        finally:
            for delivery in self.under_way:
                delivery.kill()
            self._stack.close()

    def _drain(self) -> None:
        self._check()
        self.clear_faults()
        self.cloud_client.latency = min(self.cloud_client.latency, FAST)
        while self.under_way:
            self._go_on(self.under_way[0], None, acknowledged=True)
        self.clock.advance(_LOGIN_HOLD)
        published = len(self.broker.waiting) + len(self.broker.acknowledged) + len(self.broker.dead)
        while self.broker.waiting:
            self._drain_copy(self.broker.waiting[0])
        if len(self.broker.acknowledged) + len(self.broker.dead) != published:
            raise InvariantViolation("an event got lost")
        for copy in self.broker.dead:
            COUNTERS.add("dead letters", "malformed" if copy.message.impossible else "given up")
            if not copy.message.impossible and copy.tries < MAX_DELIVERIES and not self._hopeless(copy):
                raise InvariantViolation(f"a good event went to the dead letters after {copy.statuses}")

    def _drain_copy(self, copy: Copy) -> None:
        tries = limited = 0
        while copy in self.broker.waiting and tries < _ENOUGH and limited < _MOST_LIMITED:
            self.clock.advance(1.0)
            self.deliver(self.broker.waiting.index(copy), None, 0, acknowledged=True)
            last = self.last
            if last is not None and last.problem == "stop-limit-reached":
                # No delivery of the broker's is used up by it, or a small limit would make it give up.
                limited += 1
                copy.tries -= 1
                # As brokers do, which wait longer each time.
                self.clock.advance(max(last.retry_after or 0.0, min(2.0**limited, 120.0)))
                if copy in self.broker.dead:
                    self.broker.dead.remove(copy)
                    self.broker.waiting.append(copy)
            else:
                tries += 1
        if copy in self.broker.waiting and self._hopeless(copy):
            self.broker.give_up(copy)
        given_up = copy in self.broker.dead and (copy.message.impossible or tries < _ENOUGH or self._hopeless(copy))
        if copy not in self.broker.acknowledged and not given_up:
            problem = self.last.problem if self.last is not None else ""
            raise InvariantViolation(
                f"with nothing wrong any more, answers were {copy.statuses} (last {problem}) to {copy.message}"
            )

    # --- helpers ---

    def _hopeless(self, copy: Copy) -> bool:  # noqa: ARG002
        """Whether a copy cannot come to a result in this environment, whatever is delivered."""
        return False

    def _in_focus(self, values: Sequence[_T], width: int, number: int) -> _T:
        return values[(self.focus * width + number) % len(values)]

    def _add(self, shape: str | int) -> None:
        self.environment.add(self._in_focus(_SPECIAL, 6, shape) if isinstance(shape, int) else shape)

    def _event(
        self,
        servers: list[int],
        source: str,
        when: str,
        *,
        kind: Kind = Kind.GOOD,
        dry_run: bool = False,
        expires: int | None = None,
        since: float | None = None,
    ) -> Event:
        self.numbers[source] += 1
        now = self.clock.time()
        known = self.environment.ids
        ids = [known[n % len(known)] if n != _UNKNOWN else _UNKNOWN_ID for n in servers]
        COUNTERS.add("events", kind)
        return Event(
            source=source,
            id=_SOURCES[source].format(self.numbers[source]),
            kind=kind,
            server_ids=tuple(dict.fromkeys(ids)),
            emitted=now,
            time=None if when == "none" else now + _TIMES[when],
            expires=None if expires is None else now + expires,
            dry_run=dry_run,
            since=None if since is None else now - since,
            since_by_server=self.numbers[source] % 2 == 0,
        )

    def _target(self, on: CallKind, which: int | None, ask: bool) -> int | None:
        """The server that a fault is about: a new one, so that the fault happens, if it is to be asked for at once."""
        if on is CallKind.LIST:
            return None
        if not ask or len(self.environment.ids) >= _MOST_LATER:
            return which
        self.environment.add("plain")
        which = len(self.environment.ids) - 1
        if on is CallKind.ACTIONS:
            # The history of one that has not changed for long is not read.
            self.environment.act(which, "reboot")
        return which

    def _ask_now(self, on: CallKind, which: int | None, ask: bool) -> None:
        if ask:
            # A few are read by the list.
            servers = [which or 0] if on is not CallKind.LIST else list(range(invariants.MAX_SERVERS))
            self.ask(servers, None, 0, "now", dry_run=False, since=None)

    def _finish_last(self) -> None:
        if self.under_way:
            self._go_on(self.under_way[-1], None, acknowledged=True)

    def _deliver_at_once(self, event: Event, mode: Mode, pause: int | None, order: int) -> None:
        self.broker.publish(Message((event,), mode))
        self.deliver(len(self.broker.waiting) - 1, pause, order, acknowledged=True)

    def _go_on(self, delivery: Delivery, pause: int | None, acknowledged: bool) -> None:
        if delivery.stepped:
            delivery.undisturbed = False
        for other in self.under_way:
            if other is not delivery:
                other.undisturbed = False
        delivery.step(pause)
        # One that waits for the run of another lets that one go on, which may end by it.
        for ended in [one for one in self.under_way if one.done]:
            self._settle(ended, acknowledged or ended is not delivery)
        self._check()

    def _settle(self, delivery: Delivery, acknowledged: bool) -> None:
        self.under_way.remove(delivery)
        self.last = delivery
        status = delivery.check()
        if not acknowledged and status < 300:
            COUNTERS.add("faults", "acknowledgement lost")
        self.broker.settle(delivery.copy, status if acknowledged or status >= 300 else None)

    def _check(self) -> None:
        if self.recorder.violations:
            raise InvariantViolation(self.recorder.violations[0])

    def _disturb(self) -> None:
        for delivery in self.under_way:
            delivery.undisturbed = False

    def _quiet(self) -> bool:
        client = self.cloud_client
        return not (
            self.environment.cloud.faults.present() or client.planned or client.delayed or self.sink_client.planned
        )

    def _stopped(self) -> list[int]:
        return [
            n for n, id_ in enumerate(self.environment.ids) if self.environment.store.get(id_).vm_state == "stopped"
        ]

    def _id(self, which: int | None) -> str | None:
        return None if which is None else self.environment.ids[which % len(self.environment.ids)]

    def _new_function(self) -> Function:
        environ = {
            **self.environment.environ(),
            "AUTOSTOP_MAX_SERVERS": str(invariants.MAX_SERVERS),
            "AUTOSTOP_CONCURRENCY": str(self._concurrency),
            "AUTOSTOP_LOG_LEVEL": "ERROR",
        }
        return Function(
            environ,
            self.clock,
            self.tasks,
            self.cloud_client,
            self.sink_client,
            self._sink,
            lambda: COUNTERS.add("runs shared"),
        )


def run_round(machine: type[Machine], number: int, start: int, options: settings) -> None:
    """Run the environments of one round; each round has a focus of its own."""
    focused = type(machine.__name__, (machine,), {"focus": number})
    run_state_machine_as_test(seed(start * 10_000 + number)(focused), settings=options)
