"""The machine: hypothesis picks what people, broker, cloud and clock do, and what becomes of it is judged."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from handler.simulator import BatchPolicy, BmsBehavior, CallKind, Cut, Fault
from tests.harness.prove import law
from tests.harness.prove.broker import Broker
from tests.harness.prove.clock import Clock
from tests.harness.prove.delivery import Delivery
from tests.harness.prove.events import Asked, Kind, Message, Mode
from tests.harness.prove.function import Function, held_hands
from tests.harness.prove.ledger import Broken, Ledger
from tests.harness.prove.tally import Tally
from tests.harness.prove.town import ACTS, SHAPES, TAG, Town
from tests.harness.prove.wire import Failure, Hitch, SinkTrouble, SinkWire, Wire

TALLY = Tally()

_MOST_SERVERS = 6
_UNKNOWN = 7
_UNKNOWN_ID = "99999999-0000-4000-8000-000000000000"
# Together with the numbers, such that neither the id alone nor both strung together name one event.
_SOURCES = {"/a": "1{}", "/a1": "{}", "/b": "{}"}
# How far what an event says of its time is from the truth; None if it says nothing.
_STAMPS = {"now": 0.0, "ahead": 4.0, "behind": -4.0, "late": -600.0, "stale": -1200.0}

# With nothing wrong, so many deliveries are enough for any message: many slow servers can take more than one budget.
_ENOUGH = 3

_SMALL = st.integers(0, 7)
_FEW = st.lists(st.integers(0, _UNKNOWN), min_size=1, max_size=2, unique=True)
_MANY = st.lists(st.integers(0, _UNKNOWN), min_size=1, max_size=law.MAX_SERVERS + 1, unique=True)
_ALL = st.just(list(range(_MOST_SERVERS)))
_IDS = st.one_of(_FEW, _FEW, _MANY, _ALL)
_ORDERS = st.just(0) | st.integers(0, 1000)
_PAUSES = st.none() | st.integers(1, 12) | st.integers(1, 40)
_KINDS = st.sampled_from([*[Kind.GOOD] * 8, *Kind])
_TIMES = st.sampled_from([*["now"] * 6, *_STAMPS, "none"])
_ACTS = st.lists(st.sampled_from(ACTS), min_size=1, max_size=3)
_BEFORE = st.sampled_from([[], ["unlock"], ["stop", "start"], ["stop"]])
_MEANWHILE = st.sampled_from(
    [["reboot"], ["stop", "start"], ["start"], ["start-slowly"], ["lock"], ["protect"], ["keep"], ["break"], ["delete"]]
)
_SPOILT = st.sampled_from([None, 500, 503])
_SHAPES = st.sampled_from([*["plain"] * 10, *["slow"] * 3, *["tagged"] * 2, "virtual", *SHAPES])
_ON = st.sampled_from(
    [CallKind.READ, CallKind.READ, CallKind.LIST, CallKind.STOP, CallKind.STOP, CallKind.STOP, CallKind.ACTIONS]
)
_WIRED = st.sampled_from(
    [CallKind.READ, CallKind.LIST, CallKind.STOP, CallKind.STOP, CallKind.ACTIONS, CallKind.LOGIN, CallKind.LOGIN]
)
# What the BMS API may call the reason: states, unknown servers, rights, the cloud's own failures, our mistakes.
_CODES = st.sampled_from(
    ["BMS.0035", "BMS.0037", "BMS.0039", "BMS.0040", "BMS.0033", "BMS.1007", "BMS.0018", "BMS.0212", "Ecs.0605", "X.1"]
)
_MANNERS = st.none() | st.builds(
    BmsBehavior,
    batch_policy=st.sampled_from(BatchPolicy),
    mixed_status=st.sampled_from(["FAIL", "SUCCESS"]),
    missing_status=st.sampled_from([400, 404]),
    job_server_ids=st.sampled_from([True, True, False]),
    job_error_wrapped=st.booleans(),
    idle_task_state=st.booleans(),
)
_STATUSES = st.sampled_from([400, 403, 404, 409, 413, 429, 500, 502, 503, 504])


class Machine(RuleBasedStateMachine):
    """A world of its own for each example."""

    def __init__(self) -> None:
        super().__init__()
        self._stack = ExitStack()
        self.clock = Clock()
        self._stack.enter_context(held_hands(self.clock))
        self.broker = Broker()
        self.under_way: list[Delivery] = []
        self.numbers = dict.fromkeys(_SOURCES, 0)

    @initialize(
        shapes=st.lists(_SHAPES, min_size=1, max_size=_MOST_SERVERS),
        latency=st.sampled_from([0.01, 0.1, 0.5, 2.0]),
        sink=st.booleans(),
        otc=st.booleans(),
        bms=_MANNERS,
        hands=st.sampled_from([16, 16, 16, 2, 1]),
    )
    def begin(
        self, shapes: list[str], latency: float, sink: bool, otc: bool, bms: BmsBehavior | None, hands: int
    ) -> None:
        """Set up a cloud with servers, and a function."""
        self.town = Town(self.clock, otc=otc, bms=bms)
        TALLY.add("worlds", "bms" if bms else "nova")
        for shape in shapes:
            self.town.add(shape)
        self.ledger = Ledger(self.town.world, TALLY, self.clock, self.town.shows)
        self.wire = Wire(self.clock, self.town.cloud, self.ledger, latency)
        self.sink_wire = SinkWire(self.clock, self.ledger, latency)
        self.clock.passed = self.wire.time_passed
        self._sink, self._hands = sink, hands
        self.function = self._new_function()

    # --- events ---

    @rule(
        servers=_IDS,
        source=st.sampled_from(sorted(_SOURCES)),
        when=_TIMES,
        kind=_KINDS,
        mode=st.sampled_from(Mode),
        dry_run=st.sampled_from([False] * 7 + [True]),
        expires=st.sampled_from([None] * 10 + [-5, 5, 100]),
    )
    def emit(
        self, servers: list[int], source: str, when: str, kind: Kind, mode: Mode, dry_run: bool, expires: int | None
    ) -> None:
        """Somebody asks for servers to be stopped."""
        event = self._event(servers, source, when, kind, dry_run, expires)
        self.broker.publish(Message((event,), mode))

    @rule(groups=st.lists(_IDS, min_size=1, max_size=3), again=st.none() | _SMALL, kind=_KINDS, repeat=st.booleans())
    def emit_batch(self, groups: list[list[int]], again: int | None, kind: Kind, repeat: bool) -> None:
        """Several events come in one message, perhaps with one that was sent before, perhaps with one twice."""
        events = [self._event(ids, "/b", "now", Kind.GOOD, False, None) for ids in groups[:-1]]
        events.append(self._event(groups[-1], "/a", "now", kind, False, None))
        if again is not None and self.broker.seen:
            events += self.broker.seen[again % len(self.broker.seen)].events
        if repeat:
            events.insert(0, events[-1])
        self.broker.publish(Message(tuple(events), Mode.BATCH))

    @rule(pause=_PAUSES, order=_ORDERS, when=_TIMES, dry_run=st.sampled_from([False] * 5 + [True]))
    def select(self, pause: int | None, order: int, when: str, dry_run: bool) -> None:
        """Somebody asks for all servers of a tag, whichever they are by then, and it is delivered at once."""
        event = replace(self._event([], "/b", when, Kind.GOOD, dry_run, None), tag=TAG)
        self.broker.publish(Message((event,), Mode.STRUCTURED))
        self.deliver(len(self.broker.waiting) - 1, pause, order, acknowledged=True)

    @precondition(lambda self: self.broker.seen)
    @rule(which=_SMALL)
    def duplicate(self, which: int) -> None:
        """The broker delivers something again, however long ago it was dealt with."""
        self.broker.duplicate(which)
        TALLY.add("duplicates")

    # --- deliveries ---

    @rule(
        servers=_FEW | _ALL,
        pause=_PAUSES,
        order=_ORDERS,
        when=st.sampled_from(["now", "now", "now", "ahead", "none"]),
        dry_run=st.sampled_from([False] * 5 + [True]),
    )
    def ask(self, servers: list[int], pause: int | None, order: int, when: str, dry_run: bool) -> None:
        """Somebody asks for servers to be stopped, and it is delivered at once."""
        event = self._event(servers, "/b", when, Kind.GOOD, dry_run, None)
        self.broker.publish(Message((event,), Mode.BINARY))
        self.deliver(len(self.broker.waiting) - 1, pause, order, acknowledged=True)

    @precondition(lambda self: self.broker.waiting)
    @rule(which=_SMALL, pause=_PAUSES, order=_ORDERS, acknowledged=st.sampled_from([True] * 5 + [False]))
    def deliver(self, which: int, pause: int | None, order: int, acknowledged: bool) -> None:
        """The broker hands a copy to the function, which gets to its end, or only so far."""
        copy = self.broker.take(which)
        calm = pause is None and not self.under_way and self._quiet()
        TALLY.add("deliveries", "first" if copy.tries == 1 else "repeated")
        TALLY.add("events delivered", times=len(copy.message.events))
        delivery = Delivery(self.function, copy, self.clock, self.ledger, self.town, order=order, calm=calm)
        self.under_way.append(delivery)
        if self.under_way[:-1]:
            TALLY.add("deliveries at once")
        self._go_on(delivery, pause, acknowledged)

    @rule(
        which=_SMALL, before=_BEFORE, pause=st.integers(1, 8), acts=_MEANWHILE, spoilt=st.sampled_from([None, 500, 503])
    )
    def race(self, which: int, before: list[str], pause: int, acts: list[str], spoilt: int | None) -> None:
        """A person acts in the middle of a delivery, whose stop may not be taken at first."""
        self.person(which, before)
        if spoilt:
            self.refuse(CallKind.STOP, which, spoilt, None, 1)
        self.ask([which % len(self.town.ids)], pause, 0, "now", dry_run=False)
        self.person(which, acts)
        if self.under_way:
            self._go_on(self.under_way[-1], None, acknowledged=True)

    @rule(
        which=_SMALL,
        acts=st.sampled_from([["reboot"], ["stop", "start"], ["start"], ["reboot-slowly"]]),
        seconds=st.sampled_from([0.2, 6.0, 30.0]),
        veil=st.sampled_from([None, None, 403, 500, 503]),
        times=st.integers(1, 5),
    )
    def overtake(self, which: int, acts: list[str], seconds: float, veil: int | None, times: int) -> None:
        """A person starts a server while an event to stop it is on its way; its history may be hard to get."""
        event = self._event([which % len(self.town.ids)], "/b", "now", Kind.GOOD, False, None)
        self.broker.publish(Message((event,), Mode.BINARY))
        self.wait(seconds)
        self.person(which, acts)
        if veil:
            self.refuse(CallKind.ACTIONS, which, veil, None, times)
        self.deliver(len(self.broker.waiting) - 1, None, 0, acknowledged=True)

    @precondition(lambda self: self.under_way)
    @rule(which=_SMALL, pause=_PAUSES, acknowledged=st.sampled_from([True] * 5 + [False]))
    def go_on(self, which: int, pause: int | None, acknowledged: bool) -> None:
        """A delivery under way gets further."""
        self._go_on(self.under_way[which % len(self.under_way)], pause, acknowledged)

    @precondition(lambda self: self.under_way)
    @rule(which=_SMALL)
    def kill(self, which: int) -> None:
        """The function is killed where it stands; the broker hears nothing from it."""
        delivery = self.under_way.pop(which % len(self.under_way))
        delivery.kill()
        TALLY.add("kills")
        self.broker.settle(delivery.copy, None)
        self.function = self._new_function()
        self._check()

    # --- people, time and trouble ---

    @precondition(lambda self: hasattr(self, "town") and self._stopped())
    @rule(which=_SMALL, how=st.sampled_from(["start", "start-slowly", "reboot"]))
    def start(self, which: int, how: str) -> None:
        """A person starts a server that is stopped."""
        stopped = self._stopped()
        if self.town.act(stopped[which % len(stopped)], how):
            TALLY.add("people", f"{how} of a stopped one")

    @rule(which=_SMALL, acts=_ACTS)
    def person(self, which: int, acts: list[str]) -> None:
        """A person does something to a server, or several things at once."""
        for act in acts:
            if self.town.act(which, act):
                TALLY.add("people", act)

    @rule(shape=_SHAPES)
    def arrive(self, shape: str) -> None:
        """A server is added."""
        if len(self.town.ids) < _MOST_SERVERS:
            self.town.add(shape)

    @rule(seconds=st.sampled_from([0.2, 0.2, 0.2, 1.0, 6.0, 6.0, 6.0, 30.0, 90.0, 1000.0]))
    def wait(self, seconds: float) -> None:
        """Time passes, while whatever is under way stands still."""
        self._disturb()
        self.clock.advance(seconds)

    @rule(
        on=_ON,
        which=st.none() | _SMALL,
        status=_STATUSES,
        told=st.sampled_from([None, None, 1, 30]),
        times=st.integers(1, 5),
    )
    def refuse(self, on: CallKind, which: int | None, status: int, told: int | None, times: int) -> None:
        """The cloud will answer some calls with an error."""
        headers = {} if told is None else {"Retry-After": str(told)}
        on = self._meant(on)
        self._inject(Fault(on=on, server_id=self._name(which), status=status, headers=headers, times=times))

    @precondition(lambda self: hasattr(self, "town") and self.town.bms)
    @rule(on=_ON, which=st.none() | _SMALL, code=_CODES, times=st.integers(1, 5))
    def refuse_by_code(self, on: CallKind, which: int | None, code: str, times: int) -> None:
        """The BMS API will answer some calls with a code of its own."""
        self._inject(Fault.bms(self._meant(on), code, server_id=self._name(which), times=times))

    @rule(which=st.none() | _SMALL, status=st.sampled_from([502, 504]))
    def act_and_fail(self, which: int | None, status: int) -> None:
        """The cloud will take a stop, and a gateway will answer in its place."""
        self._inject(Fault(on=CallKind.STOP, server_id=self._name(which), status=status, act=True))

    @rule(on=_ON, which=st.none() | _SMALL, cut=st.sampled_from(Cut))
    def cut(self, on: CallKind, which: int | None, cut: Cut) -> None:
        """A connection will be cut before, after or in the middle of the answer."""
        self._inject(Fault(on=self._meant(on), server_id=self._name(which), cut=cut))

    @rule(which=st.none() | _SMALL)
    def rival(self, which: int | None) -> None:
        """Somebody else's stop will be quicker by a hair, and ours ends in a 500."""
        self._inject(Fault.two_stops_at_once(self._name(which)))

    @rule(
        on=_WIRED, which=st.none() | _SMALL, trouble=st.sampled_from(Failure), seconds=st.sampled_from([0.5, 4.0, 25.0])
    )
    def hitch(self, on: CallKind, which: int | None, trouble: Failure, seconds: float) -> None:
        """Something will go wrong on the way."""
        if trouble in (Failure.STRIPPED, Failure.WRONG) or (trouble is Failure.PAGE and on is CallKind.STOP):
            on = CallKind.READ
        if on is CallKind.LOGIN:
            self.town.end_tokens()
        about = None if on in (CallKind.LOGIN, CallKind.ACTIONS) else self._name(which)
        self.wire.hitches.append(Hitch(self._meant(on), trouble, about, seconds))

    @rule(status=st.sampled_from([401, 403, 500, 503]), times=st.integers(1, 2))
    def forget(self, status: int, times: int) -> None:
        """All tokens end, and the next login fails."""
        self.town.end_tokens()
        self._inject(Fault(on=CallKind.LOGIN, status=status, times=times))

    @rule(on=_ON)
    def revoke(self, on: CallKind) -> None:
        """The token ends with the next call of a kind."""
        self._inject(Fault.token_expired(self._meant(on)))

    @precondition(lambda self: getattr(self, "_sink", False))
    @rule(troubles=st.lists(st.sampled_from(SinkTrouble), min_size=1, max_size=3))
    def sink_fails(self, troubles: list[SinkTrouble]) -> None:
        """The sink will not take results for a while."""
        self.sink_wire.troubles += troubles

    @rule()
    def quiet(self) -> None:
        """Whatever went wrong is mended."""
        self._mend()

    # --- the end ---

    def teardown(self) -> None:
        """Nothing more goes wrong, and the broker delivers what it has: each event must come to its end."""
        try:
            if hasattr(self, "function") and not self.ledger.broken:
                self._drain()
        finally:
            for delivery in self.under_way:
                delivery.kill()
            self._stack.close()

    def _drain(self) -> None:
        self._check()
        self._mend()
        while self.under_way:
            self._go_on(self.under_way[0], None, acknowledged=True)
        # A login that was refused is not tried again for a minute.
        self.clock.advance(61.0)
        published = len(self.broker.waiting) + len(self.broker.acknowledged) + len(self.broker.dead)
        while self.broker.waiting:
            copy = self.broker.waiting[0]
            tries = 0
            while copy in self.broker.waiting and tries < _ENOUGH:
                self.clock.advance(1.0)
                self.deliver(self.broker.waiting.index(copy), None, 0, acknowledged=True)
                tries += 1
            given_up = copy in self.broker.dead and (copy.message.impossible or tries < _ENOUGH)
            if copy not in self.broker.acknowledged and not given_up:
                raise Broken(f"with nothing wrong any more, answers were {copy.statuses} to {copy.message}")
        if len(self.broker.acknowledged) + len(self.broker.dead) != published:
            raise Broken("an event got lost")
        for copy in self.broker.dead:
            TALLY.add("dead letters", "malformed" if copy.message.impossible else "given up")
            if not copy.message.impossible and copy.tries < 7:
                raise Broken(f"a good event went to the dead letters after {copy.statuses}")

    # --- helpers ---

    def _event(
        self, servers: list[int], source: str, when: str, kind: Kind, dry_run: bool, expires: int | None
    ) -> Asked:
        self.numbers[source] += 1
        now = self.clock.time()
        ids = [self.town.ids[n % len(self.town.ids)] if n < _UNKNOWN else _UNKNOWN_ID for n in servers]
        TALLY.add("events", kind)
        return Asked(
            source=source,
            id=_SOURCES[source].format(self.numbers[source]),
            kind=kind,
            server_ids=tuple(dict.fromkeys(ids)),
            emitted=now,
            time=None if when == "none" else now + _STAMPS[when],
            expires=None if expires is None else now + expires,
            dry_run=dry_run,
        )

    def _go_on(self, delivery: Delivery, pause: int | None, acknowledged: bool) -> None:
        if delivery.stepped:
            delivery.undisturbed = False
        for other in self.under_way:
            if other is not delivery:
                other.undisturbed = False
        delivery.go_on(pause)
        if delivery.done:
            self.under_way.remove(delivery)
            status = delivery.judge()
            if not acknowledged and status < 300:
                TALLY.add("acknowledgements lost")
            self.broker.settle(delivery.copy, status if acknowledged or status >= 300 else None)
        self._check()

    def _check(self) -> None:
        if self.ledger.broken:
            raise Broken(self.ledger.broken[0])

    def _disturb(self) -> None:
        for delivery in self.under_way:
            delivery.undisturbed = False

    def _quiet(self) -> bool:
        return not (self.town.cloud.faults.present() or self.wire.hitches or self.wire.limbo or self.sink_wire.troubles)

    def _mend(self) -> None:
        self.town.cloud.faults.clear()
        self.wire.hitches.clear()
        self.sink_wire.troubles.clear()

    def _inject(self, fault: Fault) -> None:
        self.town.cloud.faults.add(fault)

    def _stopped(self) -> list[int]:
        return [n for n, id_ in enumerate(self.town.ids) if self.town.world.get(id_).vm_state == "stopped"]

    def _meant(self, on: CallKind) -> CallKind:
        """The API without a history has jobs in its place."""
        return CallKind.JOB if on is CallKind.ACTIONS and self.town.bms else on

    def _name(self, which: int | None) -> str | None:
        return None if which is None else self.town.ids[which % len(self.town.ids)]

    def _new_function(self) -> Function:
        extra = {
            "AUTOSTOP_MAX_SERVERS": str(law.MAX_SERVERS),
            "AUTOSTOP_CONCURRENCY": str(self._hands),
            "AUTOSTOP_LOG_LEVEL": "ERROR",
        }
        return Function(self.town.environ(), extra, self.clock, self.wire, self.sink_wire, self._sink)
