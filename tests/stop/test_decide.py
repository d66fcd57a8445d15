"""The decision, over every state that a server can be in and every guard that can object."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

import pytest

from handler.stop.decide import KEEP_UNTIL, decide, is_bare_metal, refuse
from handler.stop.evidence import Action, History, Lookup, UnreadEntry
from handler.stop.model import Decision, Move, Outcome, Policy, Reason, Refusal, Selector, Server, StopAttempt
from tests.stop.fakes import ID, NOW, Scenario, Script, acts, asked, id_of, seconds, seen
from tests.test_events_folder import MARKED

VM_STATES = [
    "active",
    "building",
    "paused",
    "suspended",
    "stopped",
    "rescued",
    "resized",
    "soft-delete",
    "deleted",
    "error",
    "shelved",
    "shelved_offloaded",
    "hibernating",
]
IMAGES = ["image_snapshot", "image_snapshot_pending", "image_pending_upload", "image_uploading", "image_backup"]
BRINGING_UP = ["powering-on", "unshelving", "unpausing", "resuming", "restoring", "unrescuing"]
REBOOTS = [
    "rebooting",
    "reboot_pending",
    "reboot_started",
    "rebooting_hard",
    "reboot_pending_hard",
    "reboot_started_hard",
]
REBUILDS = ["rebuilding", "rebuild_block_device_mapping", "rebuild_spawning"]
OTHERS = ["scheduling", "spawning", "updating_password", "resize_prep", "pausing", "migrating", "shelving", "not-known"]
TASKS = [*IMAGES, *BRINGING_UP, *REBOOTS, *REBUILDS, *OTHERS, "powering-off", "deleting", "soft-deleting"]


OF_THE_REQUEST = ("time", "since", "selector", "notice_for")


def judge(state: str, *, policy: Policy | None = None, **facts: Any) -> Decision:
    """The decision on a server in this state, with these facts of the request and of the server."""
    request = {name: facts.pop(name) for name in OF_THE_REQUEST if name in facts}
    return decide(seen(state, **facts), asked(ID, **request), policy or Policy(), NOW)


# --- states ---


@pytest.mark.parametrize("launched", [True, False], ids=["launched", "never-launched"])
@pytest.mark.parametrize("vm_state", VM_STATES)
def test_only_active_or_error_without_a_task_is_stopped(vm_state: str, launched: bool) -> None:
    """Of all the pairs of states exactly two allow a stop, and one of these only if the server ever ran."""
    for task in (None, *TASKS):
        decision = judge(f"{vm_state}/{task or ''}", launched=launched)
        allowed = task is None and (vm_state == "active" or (vm_state == "error" and launched))
        assert (decision.move is Move.STOP) is allowed, task
        assert decision.move is not Move.ASK, task
        assert decision.detail.endswith("."), task


# Open Telekom Cloud's list page has `reboot` and the like where Nova has a task_state.
OPERATIONS = ["reboot", "hard_reboot", "rebuild", "resize", "revert_resize", "migrating"]


@pytest.mark.parametrize(
    ("move", "reason", "states"),
    [
        (Move.STOP, Reason.DRY_RUN, ["active", "error"]),
        (Move.LEAVE, Reason.ALREADY_STOPPED, ["stopped", "stopped/powering-off", *(f"stopped/{t}" for t in IMAGES)]),
        (Move.LEAVE, Reason.ALREADY_STOPPING, ["active/powering-off", "error/powering-off"]),
        (Move.LEAVE, Reason.STARTED_SINCE, ["stopped/powering-on"]),
        (Move.LEAVE, Reason.NOT_FOUND, ["deleted", "deleted/deleting"]),
        (
            Move.LEAVE,
            Reason.DELETING,
            [
                *(f"{state}/deleting" for state in ("active", "building", "stopped")),
                *("active/soft-deleting", "soft-delete", "soft_deleted", "soft-delete/restoring"),
            ],
        ),
        (
            Move.LEAVE,
            Reason.WRONG_STATE,
            [
                *("building", "building/spawning", "paused", "suspended", "rescued", "resized"),
                *("shelved", "shelved_offloaded", "hibernating"),
            ],
        ),
        (
            Move.WAIT,
            Reason.BUSY,
            [
                *OPERATIONS,
                *(f"active/{task}" for task in (*REBOOTS, *REBUILDS, "image_snapshot")),
                *("stopped/rebuilding", "error/rebuilding"),
            ],
        ),
    ],
)
def test_each_state_has_its_reason(move: Move, reason: Reason, states: list[str]) -> None:
    """The sentence of a wait names the operation."""
    for state in states:
        decision = judge(state)
        assert (decision.move, decision.reason) == (move, reason), state
        assert move is not Move.WAIT or state.split("/")[-1] in decision.detail, state


HALF_AN_HOUR = timedelta(minutes=30)


@pytest.mark.parametrize(
    ("state", "fresh"),
    [
        ("active/powering-off", Reason.ALREADY_STOPPING),
        ("error/powering-off", Reason.ALREADY_STOPPING),
        ("stopped/powering-on", Reason.STARTED_SINCE),
        ("paused/unpausing", Reason.STARTED_SINCE),
    ],
)
@pytest.mark.parametrize("cloud_time", [None, NOW - timedelta(hours=2)])
def test_an_operation_that_runs_for_more_than_half_an_hour_is_stuck(state: str, fresh: Reason, cloud_time: Any) -> None:
    """By the cloud's own clock where it shows one; since when is in the sentence either way."""
    now = cloud_time or NOW
    for updated, reason in ((now - HALF_AN_HOUR, fresh), (now - HALF_AN_HOUR - seconds(1), Reason.BUSY)):
        decision = judge(state, updated=updated, cloud_time=cloud_time)
        assert (decision.move, decision.reason) == (Move.LEAVE, reason)
        assert f"{updated:%H:%M:%S}" in decision.detail
    assert judge(state).reason is fresh


@pytest.mark.parametrize("power_state", [None, 4, 0])
def test_novas_own_power_sync_of_a_stopped_server_is_not_a_stuck_stop(power_state: int | None) -> None:
    """The goal is reached, however long that has been."""
    decision = judge("stopped/powering-off", updated=NOW - timedelta(days=3), power_state=power_state)
    assert decision.reason is Reason.ALREADY_STOPPED


@pytest.mark.parametrize("state", ["stopped", "stopped/powering-off", "stopped/image_snapshot"])
@pytest.mark.parametrize(
    ("power_state", "reason"),
    [
        (None, Reason.ALREADY_STOPPED),
        (4, Reason.ALREADY_STOPPED),
        (0, Reason.ALREADY_STOPPED),
        (1, Reason.POWER_STILL_ON),
    ],
)
def test_a_stopped_server_whose_power_is_on_has_failed_to_stop(
    state: str, power_state: int | None, reason: Reason
) -> None:
    """No stop is sent, as the cloud would turn it down; where the power is not known the sentence says so."""
    decision = judge(state, power_state=power_state)
    assert (decision.move, decision.reason) == (Move.LEAVE, reason)
    assert ("power state is unknown" in decision.detail) is (power_state == 0)


@pytest.mark.parametrize("task", BRINGING_UP)
@pytest.mark.parametrize("vm_state", ["active", "stopped", "paused", "suspended", "shelved", "rescued", "error"])
def test_a_server_that_a_user_is_starting_is_left_running(vm_state: str, task: str) -> None:
    """A start that is in progress is newer than the event; the sentence names the task."""
    decision = judge(f"{vm_state}/{task}")
    assert (decision.move, decision.reason) == (Move.LEAVE, Reason.STARTED_SINCE)
    assert task in decision.detail


# --- guards ---

# Each guard, in the order in which they are asked, with the facts that make it object.
GUARDS: list[tuple[Reason, dict[str, Any]]] = [
    (Reason.OTHER_PROJECT, {"other_project": "0a1b"}),
    (Reason.PROTECTED, {"tags": frozenset({"autostop=never"})}),
    (Reason.KEPT_UNTIL, {"metadata": {KEEP_UNTIL: "2026-11-20T19:00:01Z"}}),
    (Reason.LOCKED, {"locked": True}),
    (Reason.NOT_BARE_METAL, {"flavor": "s3.large.2"}),
]


@pytest.mark.parametrize(("reason", "facts"), GUARDS)
def test_each_guard_alone_prevents_the_stop(reason: Reason, facts: dict[str, Any]) -> None:
    """One is enough, and no history is asked for."""
    decision = judge("active", **facts)
    assert (decision.move, decision.reason) == (Move.LEAVE, reason)
    assert judge("active", time=EVENT, updated=NOW, **facts) == decision
    names_entry = decision.tag is not None or decision.metadata is not None
    assert names_entry is (reason in MARKED), "the rule on evidence.tag in events/schemas/result.v1.json must name it"


def test_every_guard_is_tested_here() -> None:
    """The next one too. The others depend on history, settings and plans, and are tested further down."""
    others = {Reason.STARTED_SINCE, Reason.NOT_OPTED_IN, Reason.CHANGED_SINCE_PLAN}
    skipped = {reason for reason in Reason if reason.outcome is Outcome.SKIPPED}
    assert {reason for reason, _ in GUARDS} == skipped - others, "GUARDS must have a row for each guard"


def _merged(rows: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return the facts of all rows in one server: tags and metadata add up."""
    merged: dict[str, Any] = {}
    for facts in rows:
        merged |= {name: merged[name] | value if name in merged else value for name, value in facts.items()}
    return merged


@pytest.mark.parametrize("first", range(len(GUARDS)))
def test_the_guards_have_an_order(first: int) -> None:
    """The first is named: other project, protected, kept until, locked, not bare metal; then not opted in."""
    facts = _merged(facts for _, facts in GUARDS[first:])
    assert judge("active", policy=Policy(only=("autostop", "allowed")), **facts).reason is GUARDS[first][0]


def tagged(*tags: str) -> dict[str, Any]:
    """A server with these tags."""
    return {"tags": frozenset(tags)}


@pytest.mark.parametrize(
    ("only", "facts", "opted_in"),
    [
        ("autostop=allowed", tagged("autostop=allowed"), True),
        ("autostop=allowed", tagged("autostop.allowed"), True),
        ("autostop=allowed", {"metadata": {"autostop": "allowed"}}, True),
        ("autostop=allowed", {}, False),
        ("autostop=allowed", tagged("autostop"), False),
        ("autostop=allowed", tagged("autostop=Allowed", "Autostop=allowed", "autostop= allowed"), False),
        ("autostop=allowed", tagged("autostop=allowed2", "env=autostop=allowed"), False),
        ("autostop=allowed", {"metadata": {"autostop": "no", "autostop.allowed": "x", "Autostop": "allowed"}}, False),
        # Open Telekom Cloud shows `key=` as `key`.
        *(("night=", tagged(tag), tag in ("night", "night=")) for tag in ("night", "night=", "night=1", "nights")),
        # A tag with the key `night.1` and a value of its own is another one.
        *(("night=1", tagged(tag), tag == "night.1") for tag in ("night.1", "night.1=0", "night.10")),
    ],
)
def test_where_a_mark_is_required_only_servers_with_it_are_stopped(
    only: str, facts: dict[str, Any], opted_in: bool
) -> None:
    """It is compared exactly: what may be stopped is not guessed."""
    key, _, value = only.partition("=")
    decision = judge("active", policy=Policy(only=(key, value)), **facts)
    expected = (Move.STOP, Reason.DRY_RUN) if opted_in else (Move.LEAVE, Reason.NOT_OPTED_IN)
    assert (decision.move, decision.reason) == expected


@pytest.mark.parametrize(
    "facts",
    [
        *(
            tagged("env=ci", tag)
            for tag in ("autostop=never", "Autostop=NEVER", " autostop = never ", "AUTOSTOP=Never\t")
        ),
        *({"metadata": {"env": "ci", "autostop": value}} for value in ("never", " Never ")),
        *({"metadata": {key: "NEVER"}} for key in ("AutoStop", " autostop ")),
        # As Open Telekom Cloud's list page shows tags from before an upgrade.
        *(tagged(tag) for tag in ("autostop.never", " AutoStop . NEVER ", "autostop.never=")),
        *({"metadata": entry} for entry in ({"autostop.never": ""}, {"Autostop.Never": "false"})),
    ],
)
def test_a_label_protects_in_any_case_with_blanks_and_in_the_old_form(facts: dict[str, Any]) -> None:
    """People type tags by hand; in doubt the server keeps running."""
    decision = judge("active", **facts)
    assert decision.reason is Reason.PROTECTED
    assert decision.tag or decision.metadata


@pytest.mark.parametrize(
    "facts",
    [
        *(
            tagged(tag)
            for tag in ("autostop=always", "autostop", "autostop=", "autostop=nevermore", "noautostop=never")
        ),
        *({"metadata": entry} for entry in ({"autostop": "false"}, {"autostop": ""}, {"stop": "never"})),
        *(
            {"tags": frozenset({label}), "metadata": {label: "x"}}
            for label in ("autostop.always", "autostop.", "autostopXnever", "no.autostop.never", "autostop.never.more")
        ),
        tagged(".never"),
    ],
)
def test_another_label_does_not_protect(facts: dict[str, Any]) -> None:
    """Only the key with the value does."""
    assert judge("active", **facts).move is Move.STOP


@pytest.mark.parametrize(
    ("protect", "tag", "protects"),
    [
        (("protect", "true"), "protect=true", True),
        (("protect", "true"), "autostop=never", False),
        # Open Telekom Cloud shows `key=` as `key`.
        (("pinned", ""), "pinned", True),
        *((("team.power", "keep"), tag, True) for tag in ("team.power=keep", "team.power.keep")),
        *((("team.power", "keep"), tag, False) for tag in ("team=power.keep", "team.power")),
    ],
)
def test_the_label_that_protects_is_a_setting(protect: tuple[str, str], tag: str, protects: bool) -> None:
    """Then the default one does not protect; a key may have a dot in it."""
    decision = judge("active", policy=Policy(protect=protect), **tagged(tag))
    assert (decision.reason is Reason.PROTECTED, decision.move is Move.STOP) == (protects, not protects)


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        (f"{KEEP_UNTIL}.2099-12-24T07:00:00Z", Reason.KEPT_UNTIL),
        (f"{KEEP_UNTIL}.20991224T070000Z", Reason.KEPT_UNTIL),
        (f"{KEEP_UNTIL}.20991224T070000.5Z", Reason.KEPT_UNTIL),
        (f"{KEEP_UNTIL}.20011224T070000Z", Reason.DRY_RUN),
        # A value beside it is not understood, although the time has passed.
        (f"{KEEP_UNTIL}.2020-01-01T00:00:00Z=x", Reason.PROTECTED),
        (f"{KEEP_UNTIL}.2099-12-24", Reason.PROTECTED),
        (f"{KEEP_UNTIL}.", Reason.PROTECTED),
    ],
)
@pytest.mark.parametrize("as_tag", [True, False])
def test_a_keep_until_counts_in_the_old_form_too(label: str, reason: Reason, as_tag: bool) -> None:
    """A malformed one protects, as in the new form."""
    facts: dict[str, Any] = {"tags": frozenset({label})} if as_tag else {"metadata": {label: ""}}
    assert judge("active", **facts).reason is reason


@pytest.mark.parametrize(("reason", "facts"), GUARDS)
@pytest.mark.parametrize(
    "state", ["active/rebooting", "active/powering-on", "stopped/powering-on", "building", "paused", "error"]
)
def test_guards_come_before_what_the_state_would_say(state: str, reason: Reason, facts: dict[str, Any]) -> None:
    """A guarded server is skipped in any state, without waiting for it, also if a stop of it is stuck."""
    assert judge(state, **facts).reason is reason
    assert judge("active/powering-off", updated=NOW - timedelta(days=3), **facts).reason is reason


@pytest.mark.parametrize(("_reason", "facts"), GUARDS)
@pytest.mark.parametrize(
    ("state", "goal"),
    [
        ("stopped", Reason.ALREADY_STOPPED),
        ("active/powering-off", Reason.ALREADY_STOPPING),
        ("deleted", Reason.NOT_FOUND),
        ("active/deleting", Reason.DELETING),
    ],
)
def test_a_goal_that_is_reached_comes_before_the_guards(
    state: str, goal: Reason, _reason: Reason, facts: dict[str, Any]
) -> None:
    """There is nothing left for a guard to prevent."""
    assert judge(state, **facts).reason is goal


def _labelled(until: str, as_tag: bool) -> dict[str, Any]:
    return {"tags": frozenset({f"{KEEP_UNTIL}={until}"})} if as_tag else {"metadata": {KEEP_UNTIL: until}}


@pytest.mark.parametrize("as_tag", [True, False], ids=["tag", "metadata"])
@pytest.mark.parametrize(
    ("until", "reason"),
    [
        ("2026-11-20T19:00:00.000001Z", Reason.KEPT_UNTIL),
        ("2026-11-21T07:00:00+01:00", Reason.KEPT_UNTIL),
        (" 2099-01-01t00:00:00z ", Reason.KEPT_UNTIL),
        ("2026-11-20T19:00:00Z", Reason.DRY_RUN),
        ("2026-11-20T19:30:00+01:00", Reason.DRY_RUN),
        ("2001-01-01T00:00:00Z", Reason.DRY_RUN),
        ("2099-01-01T00:00:00", Reason.PROTECTED),
        ("2001-01-01T00:00:00", Reason.PROTECTED),
        ("2001-01-01", Reason.PROTECTED),
        ("next week", Reason.PROTECTED),
        ("2001-02-30T00:00:00Z", Reason.PROTECTED),
        ("20261120T190001Z", Reason.KEPT_UNTIL),
        ("20261120T200001+0100", Reason.KEPT_UNTIL),
        ("20261120T180001-0100", Reason.KEPT_UNTIL),
        ("20261120t190000.5z", Reason.KEPT_UNTIL),
        ("20261120T190000Z", Reason.DRY_RUN),
        ("20261120T200000+0100", Reason.DRY_RUN),
        ("20991120T190000", Reason.PROTECTED),
        ("20991120T1900Z", Reason.PROTECTED),
        ("20991120", Reason.PROTECTED),
        ("20990230T190000Z", Reason.PROTECTED),
        ("20991120T19:00:00Z", Reason.PROTECTED),
        ("2099-11-20T190000Z", Reason.PROTECTED),
        ("20991120T190000+01:00", Reason.PROTECTED),
        ("20991120T190000+01", Reason.PROTECTED),
        ("", Reason.PROTECTED),
    ],
)
def test_a_server_is_kept_until_the_time_it_carries(until: str, reason: Reason, as_tag: bool) -> None:
    """Before that time it is kept, at it no longer; what can't be read, or has no zone, protects for good.

    The entry that keeps it is reported, and whether it is a tag or metadata.
    """
    decision = judge("active", **_labelled(until, as_tag))
    assert decision.reason is reason
    assert (decision.move is Move.STOP) is (reason is Reason.DRY_RUN)
    entry = f"{KEEP_UNTIL}={until}" if decision.move is Move.LEAVE else None
    assert (decision.tag, decision.metadata) == ((entry, None) if as_tag else (None, entry))


def test_the_latest_of_several_keep_until_counts() -> None:
    """A past tag does not outweigh a future one, nor future metadata, nor a key in another case."""
    past, future = f"{KEEP_UNTIL}=2001-01-01T00:00:00Z", f"{KEEP_UNTIL}=2099-01-01T00:00:00Z"
    assert judge("active", tags=frozenset({past, future})).reason is Reason.KEPT_UNTIL
    metadata = {KEEP_UNTIL.title(): "2099-01-01T00:00:00Z"}
    assert judge("active", tags=frozenset({past}), metadata=metadata).reason is Reason.KEPT_UNTIL


@pytest.mark.parametrize(
    ("sign", "bare_metal"),
    [
        ({"tags": frozenset({"__type_baremetal"})}, True),
        ({"metadata": {"metering.resourcetype": "__type_baremetal"}}, True),
        ({"flavor": "physical.h2.large"}, True),
        ({"metadata": {"metering.resourcetype": "1"}}, False),
        ({"tags": frozenset({"__type_virtual", "physical.s3"})}, False),
        ({"flavor": "s3.physical.large"}, False),
        ({}, False),
    ],
)
def test_any_one_sign_makes_a_bare_metal_server(sign: dict[str, Any], bare_metal: bool) -> None:
    """The system tag, the metadata value, or the flavor's name; without any of them it counts as virtual."""
    server = Server(ID, "active", **sign)
    assert is_bare_metal(server) is bare_metal
    assert (decide(server, asked(ID), Policy(), NOW).move is Move.STOP) is bare_metal
    assert decide(server, asked(ID), Policy(bare_metal_only=False), NOW).move is Move.STOP


# --- started since ---

EVENT = NOW - timedelta(minutes=2)
TOLERANCE = seconds(5)
TICK = timedelta(microseconds=1)
COUNTS, TOO_OLD = EVENT - TOLERANCE, EVENT - TOLERANCE - TICK
SINCE = NOW - timedelta(minutes=10)
# With a time of the event or without; for all servers or for each.
SINCES: list[dict[str, Any]] = [
    {"time": time, "since": since} for time in (None, EVENT) for since in (SINCE, {ID: SINCE})
]
CI = Selector(name="ci-*")
STARTS = ["start", "reboot", "rebuild", "unshelve", "unpause", "resume", "restore", "unrescue", "evacuate", "recover"]
NO_STARTS = [
    "stop", "create", "delete", "lock", "unlock", "attach_volume", "detach_interface", "snapshot", "pause",
    "suspend", "resize", "confirmresize", "revertresize", "migrate", "live-migration", "shelve", "shelveoffload",
    "rescue", "changepassword", "createimage", "createbackup", "resetstate", "trigger_crash_dump", "extend_volume",
]  # fmt: skip


def after(name: str, at: Any, **request: Any) -> dict[str, Any]:
    """An event with a time, and a history with this action."""
    return {"time": EVENT, **request, "history": acts(Action(name, at))}


def unread(*entries: UnreadEntry) -> dict[str, Any]:
    """An event with a time, and a history with entries that cannot be read."""
    return {"time": EVENT, "history": History((Action("lock", NOW),), unread=(UnreadEntry("lock"), *entries))}


HISTORIES: dict[tuple[Move, Lookup], list[dict[str, Any]]] = {
    (Move.LEAVE, Lookup.FOUND): [
        # Within the tolerance of the clocks a start counts: a server that runs is the lesser harm.
        *(after("start", at) for at in (COUNTS, EVENT, EVENT + TOLERANCE + TICK, NOW)),
        *(after(name, NOW) for name in STARTS),
        {"time": EVENT, "history": acts(Action("lock", NOW), Action("start", NOW), Action("stop", EVENT))},
        # What can be read counts, whatever other entries look like.
        {"time": EVENT, "history": History((Action("start", NOW),), unread=(UnreadEntry(), UnreadEntry("start")))},
        # From the event's `since` on, if that is earlier than its time.
        *(after("start", at, **since) for since in SINCES for at in (SINCE - TOLERANCE, NOW)),
        after("start", EVENT + seconds(1), since=NOW),
        # A selector can match a server that did not exist yet.
        after("create", COUNTS, selector=CI),
    ],
    (Move.LEAVE, Lookup.UNREADABLE): [
        *(unread(entry) for entry in (UnreadEntry(), UnreadEntry("start"), UnreadEntry("power_cycle"))),
        unread(UnreadEntry(at=COUNTS)),
        after("power_cycle", NOW),
        {**unread(UnreadEntry("create")), "selector": CI},
    ],
    (Move.STOP, Lookup.NONE_COUNTS): [
        {"time": EVENT, "history": acts()},
        after("start", TOO_OLD),
        after("power_cycle", TOO_OLD),
        *(after(name, NOW) for name in NO_STARTS),
        *(unread(entry) for entry in (UnreadEntry("stop"), UnreadEntry("create"), UnreadEntry("stop", NOW))),
        unread(UnreadEntry(at=TOO_OLD)),
        {**unread(UnreadEntry("stop")), "selector": CI},
        after("create", TOO_OLD, selector=CI),
        *(after("start", SINCE - TOLERANCE - TICK, **since) for since in SINCES),
    ],
    (Move.ASK, Lookup.NOT_ASKED): [*({"time": EVENT, "updated": updated} for updated in (None, NOW, COUNTS)), *SINCES],
    (Move.STOP, Lookup.NOT_ASKED): [
        # Nothing has changed since.
        *({"time": EVENT, "updated": updated} for updated in (TOO_OLD, EVENT - timedelta(days=30))),
        *({**since, "updated": SINCE - TOLERANCE - TICK} for since in SINCES),
        # There is no time from which a start counts.
        after("start", NOW, time=None),
        after("start", NOW, time=None, since={"another": SINCE}),
    ],
}


@pytest.mark.parametrize(
    ("move", "lookup", "facts"), [(*key, facts) for key, rows in HISTORIES.items() for facts in rows]
)
def test_a_server_that_was_or_may_have_been_started_since_the_event_is_left_running(
    move: Move, lookup: Lookup, facts: dict[str, Any]
) -> None:
    """The history is asked for only if the server has changed since; an entry that cannot be read may be a start."""
    decision = judge("active", **{"updated": NOW, **facts})
    assert (decision.move, decision.history) == (move, lookup)
    assert decision.reason is (Reason.STARTED_SINCE if move is Move.LEAVE else Reason.DRY_RUN)
    assert ("could not be read" in decision.detail) is (lookup is Lookup.UNREADABLE)


def test_a_history_that_is_not_to_be_had_leaves_the_age_rule_alone_and_says_so() -> None:
    """The stop goes ahead, and its sentence says that the evidence was missing."""
    decision = judge("active", time=EVENT, updated=NOW, history=History(None))
    assert decision.move is Move.STOP
    assert "history could not be read" in decision.detail


@pytest.mark.parametrize("gap", [Lookup.NOT_KEPT, Lookup.FORBIDDEN, Lookup.UNREADABLE])
def test_a_server_left_running_for_want_of_a_history_says_why_there_was_none(gap: Lookup) -> None:
    """Its record has changed since a stop of ours whose answer was lost."""
    attempt = StopAttempt(NOW - seconds(9), NOW - seconds(9), lost=True)
    decision = judge("active", updated=NOW, history=History(None, gap=gap), attempt=attempt)
    assert (decision.reason, decision.history) == (Reason.STARTED_SINCE, gap)


@pytest.mark.parametrize(
    ("older", "named"),
    [
        ([Action("reboot", EVENT - seconds(9), user_id="u-7")], True),
        ([Action("rebuild", EVENT - seconds(9), user_id="u-7")], True),
        ([Action("start", EVENT - seconds(9), user_id="u-7")], True),
        ([Action("lock", EVENT), Action("reboot", EVENT - seconds(9), user_id="u-7")], True),
        ([Action("stop", EVENT), Action("reboot", EVENT - seconds(9), user_id="u-7")], False),
        ([Action("unpause", EVENT - seconds(9), user_id="u-7")], False),
        ([], False),
    ],
)
def test_the_entry_before_a_start_of_ironic_is_named_too(older: list[Action], named: bool) -> None:
    """Its own record that the power is back is not a user's; the user's is the one before, without a stop between."""
    history = acts(Action("start", EVENT + seconds(1), user_id="ironic"), *older)
    decision = judge("active", time=EVENT, updated=NOW, history=history)
    assert decision.reason is Reason.STARTED_SINCE
    assert "ironic" in decision.detail
    assert ("u-7" in decision.detail) is named
    if not named:
        assert decision.detail.endswith(", too close to the event to tell).")


def test_the_sentence_names_what_a_start_is_too_close_to() -> None:
    """The event, the beginning of the condition, or our stop; what is later by more than the tolerance is certain."""
    assert "too close" in judge("active", updated=NOW, **after("start", EVENT + TOLERANCE)).detail
    assert "too close" not in judge("active", updated=NOW, **after("start", EVENT + TOLERANCE + TICK)).detail
    close: dict[str, Any] = {"updated": NOW, "history": acts(Action("start", SINCE))}
    assert "too close to the event to tell" in judge("active", time=SINCE, **close).detail
    assert "too close to the event's since to tell" in judge("active", time=EVENT, since=SINCE, **close).detail
    attempt = StopAttempt(SINCE, None)
    assert "too close to our stop to tell" in judge("active", attempt=attempt, **close).detail


@pytest.mark.parametrize("notice_for", [timedelta(hours=1), NOW + timedelta(hours=1), NOW - timedelta(hours=1)])
@pytest.mark.parametrize("ahead", [1, 59, 60, 61])
def test_a_keep_counts_for_a_notice_if_it_lasts_until_then(notice_for: timedelta | datetime, ahead: int) -> None:
    """One that ends earlier does not; for a notice of a time that has passed the present counts."""
    until = (NOW + timedelta(minutes=ahead)).strftime("%Y-%m-%dT%H:%M:%SZ")
    kept = ahead > 60 or notice_for == NOW - timedelta(hours=1)
    decision = judge("active", metadata={KEEP_UNTIL: until}, notice_for=notice_for)
    assert decision.reason is (Reason.KEPT_UNTIL if kept else Reason.DRY_RUN)


# --- an event that is refused as a whole ---

AGE = Policy().max_event_age


TWO = (ID, id_of(2))
OLD, GONE = {"time": NOW - AGE - TICK}, {"expires": NOW}
MINUTE, AGES = timedelta(minutes=1), timedelta(days=400)
# The servers and times of an event, what differs from the default policy, and why it is refused.
REFUSED: list[tuple[tuple[str, ...], dict[str, Any], dict[str, Any], Refusal | None]] = [
    ((ID,), {}, {}, None),
    # exactly as old as the limit, which zero switches off
    *(((ID,), {"time": NOW - age}, {}, None) for age in (AGE - TICK, AGE)),
    *(((ID,), {"time": NOW - age}, {}, Refusal.TOO_OLD) for age in (AGE + TICK, AGES)),
    ((ID,), {"time": NOW - AGES}, {"max_event_age": timedelta()}, None),
    # Clocks may differ by a minute, or by the clock tolerance if that is longer.
    ((ID,), {"time": NOW + MINUTE}, {}, None),
    *(((ID,), {"time": NOW + ahead}, {}, Refusal.IN_THE_FUTURE) for ahead in (MINUTE + TICK, 90 * AGES)),
    ((ID,), {"time": NOW + MINUTE + TICK}, {"max_event_age": timedelta()}, Refusal.IN_THE_FUTURE),
    ((ID,), {"time": NOW + seconds(90)}, {"clock_tolerance": seconds(90)}, None),
    ((ID,), {"time": NOW + seconds(90) + TICK}, {"clock_tolerance": seconds(90)}, Refusal.IN_THE_FUTURE),
    ((ID,), {"expires": NOW + TICK}, {}, None),
    *(((ID,), {"expires": NOW - past}, {}, Refusal.EXPIRED) for past in (timedelta(), TICK)),
    ((ID,), {"expires": NOW - AGES}, {"max_event_age": timedelta()}, Refusal.EXPIRED),
    # It never means all servers.
    ((), {}, {}, Refusal.NO_SERVER_IDS),
    (TWO, {}, {"max_servers": 2}, None),
    (TWO, {}, {"max_servers": 1}, Refusal.TOO_MANY_SERVERS),
    # Expired comes before too old, that before the number of servers.
    (TWO, {**OLD, **GONE}, {"max_servers": 1}, Refusal.EXPIRED),
    (TWO, OLD, {"max_servers": 1}, Refusal.TOO_OLD),
    ((), OLD, {}, Refusal.TOO_OLD),
]


@pytest.mark.parametrize(("ids", "facts", "policy", "refusal"), REFUSED)
def test_an_event_is_refused_for_its_age_its_expiry_or_its_number_of_servers(
    ids: tuple[str, ...], facts: dict[str, Any], policy: dict[str, Any], refusal: Refusal | None
) -> None:
    """At the moment of its `expirytime` it has expired."""
    assert refuse(asked(*ids, **facts), Policy(**policy), NOW) is refusal


def test_a_refused_event_sends_nothing_to_the_cloud() -> None:
    """The report of a refused event names the refusal and no server, and the cloud never hears of it."""
    scenario = Scenario(Script("active"), time=NOW - AGE - seconds(1), policy=Policy(max_event_age=AGE))
    report = scenario.report()
    assert (report.refusal, report.servers, report.failed) == (Refusal.TOO_OLD, (), False)
    assert scenario.cloud.calls == []
