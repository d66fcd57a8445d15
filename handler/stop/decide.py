"""The decision: pure functions of what was asked, what was seen, what is allowed, and the time.

States are Nova's `vm_state` (settled) and `task_state` (running operation); `status` is too coarse, since ACTIVE
also covers a server that is being stopped or deleted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from typing import assert_never

from handler import rfc3339
from handler.stop.evidence import Evidence, Lookup
from handler.stop.model import Decision, Move, Policy, Power, Reason, Refusal, Server, StopRequest

KEEP_UNTIL = "autostop-keep-until"

_DELETING = frozenset({"deleting", "soft-deleting"})
_BRINGING_UP = frozenset({"powering-on", "unshelving", "unpausing", "resuming", "restoring", "unrescuing"})
# What makes a server run, in the words of Nova's instance actions. `create` is not among them: an event cannot
# name a server that did not exist yet. A selector can fit one, though.
_STARTS = frozenset(
    {
        "start",
        "reboot",
        "rebuild",
        "unshelve",
        "unpause",
        "resume",
        "restore",
        "unrescue",
        "evacuate",
        "recover",
    }
)
_CREATE = "create"
# Nova takes an image of a stopped server without starting it; it stays stopped all the while.
_HARMLESS_WHEN_STOPPED = frozenset(
    {"image_snapshot", "image_snapshot_pending", "image_pending_upload", "image_uploading", "image_backup"}
)


def refuse(request: StopRequest, policy: Policy, now: datetime) -> Refusal | None:
    """Say whether the event as a whole must be refused, and why.

    Args:
        now: aware; compared with the event's real `time` and `expirytime`. An event without them is not refused
            for its age.

    Returns:
        The refusal, or None if the event may be acted on.
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
    """Say what to do with one server that was just read.

    A stop is decided only for `vm_state` active or error with no running operation, and only if no guard objects.
    A goal that is reached, or on its way, comes before the guards: there is nothing left for them to prevent.

    Returns:
        STOP, ASK (the history may hold a start that is newer than the event), WAIT (another operation runs; read
        again), or LEAVE with the final reason.
    """
    decision = (
        _gone(server)
        or _goal_reached(server)
        or _guarded(server, policy, now)
        or _coming_up(server)
        or _power_still_on(server)
        or _by_state(server)
    )
    return _started_since(server, request, policy, decision) if decision.move is Move.STOP else decision


def judged_by(
    server: Server, request: StopRequest, policy: Policy, decision: Decision, observed_at: datetime
) -> Evidence:
    """What a decision rests on, as the result shows it.

    Args:
        observed_at: when the cloud's answer was here, by our clock (aware).
    """
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

    It says nothing about the power. `powering-off` beside `stopped` is Nova's own periodic power sync, which tries
    again to switch off a machine that is still on.
    """
    return server.vm_state == "stopped" and (
        server.task_state in (None, "powering-off") or server.task_state in _HARMLESS_WHEN_STOPPED
    )


def _goal_reached(server: Server) -> Decision | None:
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
    if server.task_state == "powering-off":
        return _leave(Reason.ALREADY_STOPPING, "It was already powering off.")
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
    key, value = policy.protect
    for found, tag, metadata in _labels(server, key):
        if _same(found, value):
            return _leave(Reason.PROTECTED, f"It is protected by {key}={value}.", tag, metadata)
    for until, tag, metadata in _labels(server, KEEP_UNTIL):
        try:
            end = rfc3339.parse(until.strip())
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
    return None


def _coming_up(server: Server) -> Decision | None:
    # Whoever starts a server right now wants it running, and knows more than an event that was sent before.
    if server.task_state in _BRINGING_UP:
        return _leave(Reason.STARTED_SINCE, f"Somebody is starting it just now (task {server.task_state}).")
    return None


def _started_since(server: Server, request: StopRequest, policy: Policy, stop: Decision) -> Decision:
    """Object to a stop if the cloud's history shows a start after the event, or too close to it to tell."""
    if request.time is None:
        return stop
    in_doubt_from = request.time - policy.clock_tolerance
    if server.updated is not None and server.updated < in_doubt_from:
        return stop
    if server.history is None:
        return replace(stop, move=Move.ASK)
    if server.history.actions is None:
        detail = f"{stop.detail} Its history could not be read, so only the event's age counts."
        return replace(stop, detail=detail, history=server.history.gap)
    for action in server.history.actions:
        new = action.name == _CREATE and request.selector is not None
        if (new or action.name in _STARTS) and action.at >= in_doubt_from:
            did = "created" if new else "started again"
            doubt = "" if action.at > request.time + policy.clock_tolerance else ", too close to the event to tell"
            who = f" by user {action.user_id}" if action.user_id else ""
            return Decision(
                Move.LEAVE,
                Reason.STARTED_SINCE,
                f"It was {did} ({action.name}{who} at {rfc3339.render(action.at)}{doubt}).",
                history=Lookup.FOUND,
                action=action,
            )
    return replace(stop, history=Lookup.NONE_COUNTS)


def _by_state(server: Server) -> Decision:
    match (server.vm_state, server.task_state):
        case ("building", _):
            return _leave(Reason.WRONG_STATE, "It is still being built.")
        case (_, str(task)):
            return Decision(Move.WAIT, Reason.BUSY, f"Another operation is running on it (task {task}).")
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
    """Whether any sign says that this is a BMS and not a virtual server (ECS).

    OTC's v1 creation sets the system tag and the metadata value; every BMS flavor is named `physical.*`. Users can
    delete the tag, so no single sign is enough to say no.
    """
    return (
        "__type_baremetal" in server.tags
        or server.metadata.get("metering.resourcetype") == "__type_baremetal"
        or server.flavor.startswith("physical.")
    )


def _labels(server: Server, key: str) -> Iterator[tuple[str, str | None, str | None]]:
    """The values that a server carries under `key`, each with the tag or the entry of its metadata that holds it.

    A tag is `key=value`, or `key` alone.
    """
    for tag in sorted(server.tags):
        name, _, value = tag.partition("=")
        if _same(name, key):
            yield value, tag, None
    for name, value in sorted(server.metadata.items()):
        if _same(name, key):
            yield value, None, f"{name}={value}"


def _same(found: str, wanted: str) -> bool:
    # A person types these by hand; in doubt about case or a space, the server keeps running.
    return found.strip().casefold() == wanted.strip().casefold()
