"""The decision: pure functions of the request, the server, the policy, and the time.

States are Nova's `vm_state` (settled) and `task_state` (running operation); `status` is too coarse, since ACTIVE
also covers a server that is being stopped or deleted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import assert_never

from handler import rfc3339
from handler.stop.evidence import Action, Evidence, History, Lookup, UnreadEntry
from handler.stop.model import Decision, EventRequest, Move, Policy, Power, Reason, Refusal, Server, StopRequest

KEEP_UNTIL = "autostop-keep-until"

_DELETING = frozenset({"deleting", "soft-deleting"})
_BRINGING_UP = frozenset({"powering-on", "unshelving", "unpausing", "resuming", "restoring", "unrescuing"})
# Nova's instance actions that make a server run. `create` is not among them: an event cannot name a server that did not
# exist yet. A selector can match one, though.
_STARTS = frozenset(
    {"start", "reboot", "rebuild", "unshelve", "unpause", "resume", "restore", "unrescue", "evacuate", "recover"}
)
_CREATE = "create"
# The other actions that Nova records (nova/compute/instance_actions.py): none of them makes a server run. An action
# that is in neither set is not known, and may be a start.
_NO_STARTS = frozenset(
    {
        "create",
        "delete",
        "stop",
        "revertresize",
        "confirmresize",
        "resize",
        "migrate",
        "pause",
        "suspend",
        "rescue",
        "changepassword",
        "shelve",
        "shelveoffload",
        "live-migration",
        "live_migration_cancel",
        "live_migration_force_complete",
        "trigger_crash_dump",
        "extend_volume",
        "attach_interface",
        "detach_interface",
        "attach_volume",
        "detach_volume",
        "attach_share",
        "detach_share",
        "swap_volume",
        "lock",
        "unlock",
        "backup",
        "createbackup",
        "createimage",
        "snapshot",
        "resetstate",
        "refresh_volume_attachment",
    }
)
# After one of these Nova with Ironic records a `start` of its own as soon as the machine's power is back.
_POWER_RETURNS_AFTER = frozenset({"start", "reboot", "rebuild"})
# Nova takes an image of a stopped server without starting it; it stays stopped all the while.
_HARMLESS_WHEN_STOPPED = frozenset(
    {"image_snapshot", "image_snapshot_pending", "image_pending_upload", "image_uploading", "image_backup"}
)

# Values that Open Telekom Cloud's list page documents for vm_state and that Nova has as a status: an operation runs.
_TRANSITIONAL = frozenset({"reboot", "hard_reboot", "rebuild", "resize", "revert_resize", "migrating"})
# An operation that has been running for longer will not end by itself.
_STUCK_AFTER = timedelta(minutes=30)


def refuse(request: EventRequest, policy: Policy, now: datetime) -> Refusal | None:
    """Return why the event is refused as a whole; None if it may be acted on.

    An event without a `time` or an `expirytime` is not refused for its age.
    """
    if request.expires is not None and now >= request.expires:
        return Refusal.EXPIRED
    if policy.max_event_age and request.time is not None and now - request.time > policy.max_event_age:
        return Refusal.TOO_OLD
    if request.time is not None and request.time - now > policy.future_tolerance:
        return Refusal.IN_THE_FUTURE
    if not request.server_ids and request.selector is None:
        return Refusal.NO_SERVER_IDS
    if len(request.server_ids) > policy.max_servers:
        return Refusal.TOO_MANY_SERVERS
    return None


def decide(server: Server, request: StopRequest, policy: Policy, now: datetime) -> Decision:
    """Decide what to do with one server that was just read.

    A stop is decided only for `vm_state` active or error with no running operation, and only if no guard applies.
    A server that is stopped or stopping is left before any guard: there is nothing left to prevent.

    Returns:
        STOP, ASK (the history may hold a start that is newer than the event), WAIT (another operation runs; read
        again), or LEAVE with the final reason.
    """
    decision = (
        _gone(server)
        or _goal_reached(server, now)
        or _guarded(server, policy, request.due(now))
        or _coming_up(server, now)
        or _power_still_on(server)
        or _stuck_powering_off(server, now)
        or _by_state(server)
    )
    if decision.move is Move.STOP:
        decision = _started_since(server, request, policy, decision)
    return decision if request.review is None else request.review.review(server, decision, policy, now)


def judged_by(
    server: Server, request: StopRequest, policy: Policy, decision: Decision, observed_at: datetime
) -> Evidence:
    """Return the facts of a decision, as the result shows them; `observed_at` as in `Evidence`."""
    return Evidence(
        observed_at=observed_at,
        vm_state=server.vm_state,
        task_state=server.task_state,
        power_state=server.power_state,
        locked=server.locked,
        launched=server.launched,
        flavor=server.flavor or None,
        updated=server.updated,
        tag=decision.tag,
        metadata=decision.metadata,
        event_time=request.time,
        clock_tolerance=policy.clock_tolerance,
        history=decision.history,
        action=decision.action,
    )


def _leave(reason: Reason, detail: str, tag: str | None = None, metadata: str | None = None) -> Decision:
    return Decision(Move.LEAVE, reason, detail, tag, metadata)


def _gone(server: Server) -> Decision | None:
    if server.vm_state == "deleted":
        return _leave(Reason.NOT_FOUND, "It has been deleted.")
    if server.vm_state in ("soft-delete", "soft_deleted") or server.task_state in _DELETING:
        return _leave(Reason.DELETING, "It is being deleted.")
    return None


def settled_as_stopped(server: Server) -> bool:
    """Whether the cloud records the server as stopped and no operation is about to change that.

    This does not show whether the power is off. `powering-off` beside `stopped` is Nova's own periodic power sync,
    which tries again to switch off a machine that is still on.
    """
    return server.vm_state == "stopped" and (
        server.task_state in (None, "powering-off") or server.task_state in _HARMLESS_WHEN_STOPPED
    )


def _goal_reached(server: Server, now: datetime) -> Decision | None:
    if settled_as_stopped(server):
        match server.power:
            case Power.OFF:
                return _leave(Reason.ALREADY_STOPPED, "It was already stopped.")
            case Power.UNKNOWN:
                return _leave(Reason.ALREADY_STOPPED, "It was already stopped; its power state is unknown.")
            case Power.ON:
                return None
            case unreachable:
                assert_never(unreachable)
    if server.task_state == "powering-off" and not _stuck(server, now):
        since = f", since {rfc3339.render(server.updated)}" if server.updated else ""
        return _leave(Reason.ALREADY_STOPPING, f"It was already powering off{since}.")
    return None


def _stuck(server: Server, now: datetime) -> bool:
    """Whether the server's record has not changed for so long that a running operation must be stuck.

    Nova renews `updated` also when it synchronises the power state, so a stuck operation can be older than it shows.
    """
    return server.updated is not None and (server.cloud_time or now) - server.updated > _STUCK_AFTER


def _left_as_stuck(server: Server) -> Decision:
    assert server.updated is not None
    return _leave(
        Reason.BUSY,
        f"Its task {server.task_state} has been running since {rfc3339.render(server.updated)}, "
        "for more than 30 minutes: the operation is stuck.",
    )


def _stuck_powering_off(server: Server, now: datetime) -> Decision | None:
    if server.task_state == "powering-off" and _stuck(server, now):
        return _left_as_stuck(server)
    return None


def _power_still_on(server: Server) -> Decision | None:
    # The cloud answers 409 to another stop, so none is sent.
    if settled_as_stopped(server) and server.power is Power.ON:
        return _leave(
            Reason.POWER_STILL_ON,
            "The cloud shows it as SHUTOFF, but its power is on (power_state 1). Check its management controller.",
        )
    return None


def _guarded(server: Server, policy: Policy, now: datetime) -> Decision | None:
    if server.other_project is not None:
        return _leave(Reason.OTHER_PROJECT, f"It belongs to another project ({server.other_project}) than the login.")
    key, value = policy.protect
    for found, tag, metadata in labels(server, key):
        if same(found, value):
            return _leave(Reason.PROTECTED, f"It is protected by {key}={value}.", tag, metadata)
    for until, tag, metadata in labels(server, KEEP_UNTIL):
        try:
            end = parse_keep_until(until)
        except ValueError:
            return _leave(
                Reason.PROTECTED,
                f"Its {KEEP_UNTIL} is not an RFC 3339 time with a zone, so it is treated as protected.",
                tag,
                metadata,
            )
        if now < end:
            return _leave(Reason.KEPT_UNTIL, f"It is to be kept running until {rfc3339.render(end)}.", tag, metadata)
    if server.locked:
        return _leave(Reason.LOCKED, "It is locked.")
    if policy.bare_metal_only and not is_bare_metal(server):
        return _leave(Reason.NOT_BARE_METAL, "It does not look like a bare metal server.")
    if policy.only is not None and not _opted_in(server, *policy.only):
        return _leave(Reason.NOT_OPTED_IN, f"It does not carry {'='.join(policy.only)}, which is required here.")
    return None


def _coming_up(server: Server, now: datetime) -> Decision | None:
    # A start that is in progress is newer than the event, so the server is wanted.
    if server.task_state not in _BRINGING_UP:
        return None
    if _stuck(server, now):
        return _left_as_stuck(server)
    since = f" since {rfc3339.render(server.updated)}" if server.updated else ""
    return _leave(Reason.STARTED_SINCE, f"It is being started (task {server.task_state}{since}).")


def _started_since(server: Server, request: StopRequest, policy: Policy, stop: Decision) -> Decision:
    """Prevent a stop if the server was started, or may have been, after the moment from which a start counts.

    That moment is the earliest of the event's `time`, its `since` for this server, and our first stop attempt.
    """
    asked = min((m for m in (request.time, request.since_of(server.id)) if m is not None), default=None)
    attempt = server.attempt
    moment = min((m for m in (asked, attempt.at if attempt else None) if m is not None), default=None)
    if moment is None:
        return stop
    in_doubt_from = moment - policy.clock_tolerance
    if server.updated is not None and server.updated < in_doubt_from:
        return stop
    if server.history is None:
        return stop._replace(move=Move.ASK)
    if server.history.actions is None:
        return _without_history(server, server.history, stop)
    # Only a selector can match a server that did not exist yet.
    created_from = asked - policy.clock_tolerance if asked is not None and request.selector is not None else None
    for place, action in enumerate(server.history.actions):
        new = action.name == _CREATE and created_from is not None and action.at >= created_from
        if new or (action.name in _STARTS and action.at >= in_doubt_from):
            named = "our stop" if moment != asked else "the event" if moment == request.time else "the event's since"
            doubt = "" if action.at > moment + policy.clock_tolerance else f", too close to {named} to tell"
            cause = _power_was_back_after(action, server.history.actions[place + 1 :])
            return Decision(
                Move.LEAVE,
                Reason.STARTED_SINCE,
                f"It was {'created' if new else 'started again'} ({_described(action)}{doubt}{cause}).",
                history=Lookup.FOUND,
                action=action,
            )
    may_be_new = created_from is not None
    entry = next(
        (entry for entry in _not_understood(server.history) if _may_be_start(entry, in_doubt_from, may_be_new)), None
    )
    if entry is not None:
        what = f" ({entry.name})" if entry.name else ""
        when = f" of {rfc3339.render(entry.at)}" if entry.at else ""
        return _leave(
            Reason.STARTED_SINCE,
            f"An entry{when} in its history could not be read{what} and may be a start, so it is left running.",
        )._replace(history=Lookup.UNREADABLE)
    return stop._replace(history=Lookup.NONE_COUNTS)


def _without_history(server: Server, history: History, stop: Decision) -> Decision:
    """Decide without a history: by the event's age, and after a lost answer by `updated`."""
    attempt = server.attempt
    if attempt is not None and attempt.lost and (server.updated is None or server.updated != attempt.updated):
        return _leave(
            Reason.STARTED_SINCE,
            "It runs, and its record has changed since our stop; without a history nothing shows that nobody "
            "started it again, so it is left running.",
        )._replace(history=history.gap)
    detail = f"{stop.detail} Its history could not be read, so only the event's age counts."
    return stop._replace(detail=detail, history=history.gap)


def _power_was_back_after(start: Action, older: Iterable[Action]) -> str:
    """Return the action before a `start` that may be Ironic's own record that the power is back."""
    if start.name != "start":
        return ""
    for action in older:
        if action.name == "stop":
            return ""
        if action.name in _POWER_RETURNS_AFTER:
            return f"; right before it {_described(action)}"
    return ""


def _not_understood(history: History) -> Iterator[UnreadEntry]:
    yield from history.unread
    for action in history.actions or ():
        if action.name not in _STARTS and action.name not in _NO_STARTS:
            yield UnreadEntry(action.name, action.at)


def _may_be_start(entry: UnreadEntry, in_doubt_from: datetime, may_be_new: bool) -> bool:
    if entry.name in _NO_STARTS and not (may_be_new and entry.name == _CREATE):
        return False
    return entry.at is None or entry.at >= in_doubt_from


def _described(action: Action) -> str:
    who = f" by user {action.user_id}" if action.user_id else ""
    return f"{action.name}{who} at {rfc3339.render(action.at)}"


def _by_state(server: Server) -> Decision:
    match (server.vm_state, server.task_state):
        case ("building", _):
            return _leave(Reason.WRONG_STATE, "It is still being built.")
        case (_, str(task)):
            return Decision(Move.WAIT, Reason.BUSY, f"Another operation is running on it (task {task}).")
        case (state, None) if state in _TRANSITIONAL:
            return Decision(Move.WAIT, Reason.BUSY, f"Another operation is running on it (vm_state {state}).")
        case ("active", None):
            return Decision(Move.STOP, Reason.DRY_RUN, "It would be stopped; it is active.")
        case ("error", None) if server.launched:
            return Decision(Move.STOP, Reason.DRY_RUN, "It would be stopped; it is in error.")
        case ("error", None):
            return _leave(Reason.NEVER_LAUNCHED, "It is in error and never ran, so there is nothing to stop.")
        case (str(state), None):
            return _leave(Reason.WRONG_STATE, f"It is {state}; only active or error can be stopped.")
        case unreachable:
            assert_never(unreachable)


def is_bare_metal(server: Server) -> bool:
    """Whether any sign shows that this is a BMS and not a virtual server (ECS).

    OTC's v1 creation sets the system tag and the metadata value; every BMS flavor is named `physical.*`. Users can
    delete the tag, so the lack of one sign alone does not count.
    """
    return (
        "__type_baremetal" in server.tags
        or server.metadata.get("metering.resourcetype") == "__type_baremetal"
        or server.flavor.startswith("physical.")
    )


def parse_keep_until(text: str) -> datetime:
    """Parse the value of a keep-until.

    Raises:
        ValueError: it is not a valid time; then the server counts as protected.
    """
    return rfc3339.parse_either(text.strip())


def labels(server: Server, key: str) -> Iterator[tuple[str, str | None, str | None]]:
    """Return the values of `key` on a server, each with its tag or entry of the metadata.

    A tag is `key=value`, or `key` alone. Both a tag and the key of an entry of the metadata can be in the old form
    `key.value`, as Open Telekom Cloud's list page shows tags from before an upgrade.
    """
    for tag in sorted(server.tags):
        name, _, value = tag.partition("=")
        if same(name, key):
            yield value, tag, None
        elif (old := _old_form(tag if value.strip() else name, key)) is not None:
            yield old, tag, None
    for name, value in sorted(server.metadata.items()):
        if same(name, key):
            yield value, None, f"{name}={value}"
        elif (old := _old_form(name, key)) is not None:
            yield old, None, f"{name}={value}"


def _old_form(text: str, key: str) -> str | None:
    """Return the value of `key.value`; None for any other key."""
    for at, character in enumerate(text):
        if character == "." and same(text[:at], key):
            return text[at + 1 :]
    return None


def _opted_in(server: Server, key: str, value: str) -> bool:
    # Compared exactly: what may be stopped is not guessed.
    marks = {f"{key}={value}", f"{key}.{value}"} if value else {f"{key}=", key}
    return not marks.isdisjoint(server.tags) or server.metadata.get(key) == value


def same(found: str, wanted: str) -> bool:
    """Compare values that people type, without regard to case and blanks: in doubt the server keeps running."""
    return found.strip().casefold() == wanted.strip().casefold()
